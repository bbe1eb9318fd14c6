"""bias: what separates a simulated dashboard from the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from justai_sim import api
from justai_sim.biases.table import ALL, Bias
from justai_sim.biases.terms import IDENTITIES
from justai_sim.cli.logs import parse_settings
from justai_sim.cli.output import emit_json, say, table
from justai_sim.cli.whatif import checked_out
from justai_sim.errors import UsageError, nearest
from justai_sim.sheets import write_csv
from justai_sim.whatif.interpretations import records


def bias(
    source: str, settings: list[str], seed: int | None, rep: int, identity: str, variant: str | None,
    template: str | None, out: Path | None, json: bool,
) -> None:  # fmt: skip
    if identity not in IDENTITIES:
        raise UsageError(f"--identity {identity!r} is not known; {nearest(identity, IDENTITIES)}")
    checked_out(out)
    run = api.simulate(source, seed=seed, rep=rep)
    got = api.bias(run, **parse_settings(settings))
    for option, column, wanted in (("--variant", "variant_id", variant), ("--template", "template_id", template)):
        known = [str(x) for x in got.table[column].unique()]
        if wanted is not None and wanted not in known:
            raise UsageError(f"{option} {wanted!r} is not in this world; {nearest(wanted, known)}")
    say(f"SIMULATED {got.world}, world {rep}: what its sends caused, what the dashboard shows, and every step between")
    files = write(got, identity, variant, template, out) if out is not None else []
    if json:
        terms = got.table
        for column, wanted in (("variant_id", variant), ("template_id", template)):
            terms = terms if wanted is None else terms[terms[column] == wanted]
        emit_json(scenario=run.scenario.name, seed=run.scenario.seed, rep=rep, simulated=True, terms=records(terms),
                  meaning=got.meaning, files=files)  # fmt: skip
        return
    rows, columns = _rows(got, identity, variant, template)
    table(rows, columns)
    for row in rows:
        say(f"{row['term']}: {got.meaning[row['term']]}")


def _rows(
    got: Bias, identity: str, variant: str | None, template: str | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """A row a term that is not zero everywhere, a column a variant (of one template, or summed over all)."""
    here = got.table[got.table["identity"] == identity]
    here = here[here["template_id"] == template] if template is not None else here[here["template_id"] != ALL]
    if variant is not None:
        here = here[here["variant_id"] == variant]
    wide = here.pivot_table(index="term", columns="variant_id", values="value", aggfunc="sum", sort=False)
    wide = wide.reindex([*IDENTITIES[identity]])
    wide = wide[[*(c for c in wide.columns if c != ALL), *(c for c in wide.columns if c == ALL)]]
    rows: list[dict[str, Any]] = [
        {"term": str(t), **{str(c): round(float(x), 6) for c, x in values.items()}}
        for t, values in wide.iterrows()
        if t in ("caused", "shown") or (values.round(9) != 0).any()
    ]
    return rows, ["term", *map(str, wide.columns)]


def write(got: Bias, identity: str, variant: str | None, template: str | None, out: Path) -> list[str]:
    """bias.csv with all identities, and the waterfall of one as PNG and SVG, into `out` (made if absent)."""
    from justai_sim.pages.figures import plot_bias, save

    out.mkdir(parents=True, exist_ok=True)
    write_csv(got.table, out / "bias.csv", "%.15g")
    save(plot_bias(got.table, identity=identity, variant=variant, template=template), out / "bias")
    names = ["bias.csv", "bias.png", "bias.svg"]
    say(f"written to {out}: {', '.join(names)}")
    return [str(out / n) for n in names]
