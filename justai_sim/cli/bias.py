"""bias: what separates a simulated dashboard from the truth."""

from __future__ import annotations

from pathlib import Path

from justai_sim import api
from justai_sim.biases.table import Bias
from justai_sim.biases.terms import IDENTITIES
from justai_sim.cli.logs import parse_settings
from justai_sim.cli.output import emit_json, say, table
from justai_sim.cli.whatif import checked_out
from justai_sim.errors import UsageError, nearest
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
    rows, columns = got.by_variant(identity, variant, template)
    table(rows, ["term", *columns])
    for row in rows:
        say(f"{row['term']}: {got.meaning[row['term']]}")


def write(got: Bias, identity: str, variant: str | None, template: str | None, out: Path) -> list[str]:
    """The report of one identity, with bias.csv of all, into `out`."""
    from justai_sim.pages import reports
    from justai_sim.pages.bias_page import BiasData

    reports.publish(BiasData(got, identity, variant, template), out, got.world)
    names = ["index.html", "bias.csv", "bias.png", "bias.svg"]
    say(f"written to {out}: {', '.join(names)}")
    return [str(out / n) for n in names]
