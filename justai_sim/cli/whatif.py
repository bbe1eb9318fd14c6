"""interpretations and reconcile: one log under many readings of the rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from justai_sim import clock
from justai_sim import log as logs
from justai_sim.attribution import Rule, with_settings
from justai_sim.attribution.presets import preset
from justai_sim.cli.logs import _say_rejects, _time, parse_settings
from justai_sim.cli.output import Bar, emit_json, say, table, tell
from justai_sim.errors import UsageError
from justai_sim.esp.generic import plain_files
from justai_sim.pages.table import number
from justai_sim.whatif import reconcile_words, words
from justai_sim.whatif.interpretations import Interpretations, records
from justai_sim.whatif.interpretations import interpretations as interpret
from justai_sim.whatif.reconcile import ALL, Reconciliation, apart
from justai_sim.whatif.reconcile import reconcile as compare
from justai_sim.whatif.study import OF_RATE

MOST_PRESETS = 10
"""Rows of the printed list of presets; the files hold all."""


@dataclass(frozen=True)
class Asked:
    """What both commands are told about a log; as `replay` means it."""

    path: Path
    esp: str | None
    goals: list[str]
    template: str | None
    since: str | None
    until: str | None
    as_of: str | None
    preset: str | None
    settings: list[str]
    timezone: str | None
    esp_options: list[str]

    def options(self) -> dict[str, Any]:
        """The keyword arguments of `interpretations` and `reconcile`."""
        chosen = parse_settings(self.settings)
        start = preset(self.preset).rule if self.preset is not None else Rule()
        if self.timezone is not None:
            clock.zone(self.timezone)
        return {
            "rule": with_settings(start, chosen), "goals": self.goals, "template": self.template,
            "since": _time(self.since, self.timezone), "until": _time(self.until, self.timezone),
            "as_of": _time(self.as_of, self.timezone), "currency_given": "currency" in chosen,
        }  # fmt: skip

    def log(self) -> Any:
        found, refused = logs.read_log_with_rejects(
            self.path, self.esp, self.timezone,
            esp_options=parse_settings(self.esp_options, "--esp-option", "variant_from=split"),
        )  # fmt: skip
        _say_rejects(refused, sum(found.rejects.values()), None)
        return found


def checked_out(out: Path | None) -> None:
    """UsageError where the folder for results holds a log."""
    if out is not None and (logs.is_log(out) or plain_files(out)):
        raise UsageError(f"{out} holds a log; choose another --out for the results")


def interpretations(asked: Asked, control: str | None, metric: str, out: Path | None, json: bool) -> None:
    checked_out(out)
    options = asked.options()
    bar = Bar("readings", "reading")
    try:
        got = interpret(asked.log(), control=control, metric=metric, progress=bar, **options)
    finally:
        bar.close()
    _say(got.as_of, asked.as_of, got.notes)
    names = ["interpretations.csv", "rates.csv", "interpretations.png", "interpretations.svg"]
    files = _write(got, asked, out, names) if out is not None else []
    if json:
        rows = {"readings": records(got.table), "rates": records(got.rates)}
        emit_json(as_of=clock.iso(got.as_of), metric=got.metric, notes=got.notes, **rows, files=files)
        return
    _print_interpretations(got)


def _print_interpretations(got: Interpretations) -> None:
    t = got.table
    use = t.iloc[0]
    unit, pair = f"per 1,000 {use['unit']}", f"{use['variant']} - {use['against']}"
    what = OF_RATE[got.metric]
    head = ("reading", "meaning", what, "leader", f"{pair} {unit} (95 %)", "change (95 %)")
    start = int(t["status"].eq("in use").argmax())
    for kind, title in (("reading", ""), ("preset", "\nas other systems count")):
        rows = t[(t["kind"] == kind) & t["status"].isin(["in use", "changes"])]
        if kind == "preset":
            if not len(rows):
                continue
            tell(title)
        table([dict(zip(head, _line(r, i == start), strict=True)) for i, r in rows.iterrows()], head)
    tell()
    for text in (words.verdict(t), words.unchanged(t), words.not_applied(t)):
        if text:
            tell(text)


def _line(r: Any, in_use: bool) -> tuple[str, ...]:
    other = " per 1,000 users" if r["unit"] == "users" else ""
    sign = " SIGN" if r["sign_changes"] else ""
    return (
        r["reading"],
        r["meaning"],
        f"{r['total']:,.0f}",
        ("" if not r["leader_changes"] else "-> ") + words.leader_of(r),
        words.ranged(r["difference_per_1000"], r["difference_low"], r["difference_high"]) + other + sign,
        "" if in_use else words.ranged(r["effect_per_1000"], r["effect_low"], r["effect_high"]),
    )


def _write(got: Interpretations | Reconciliation, asked: Asked, out: Path, names: list[str]) -> list[str]:
    from justai_sim.pages import reports

    reports.publish(got, out, asked.path.name)
    return _told(out, ["index.html", *names])


def reconcile(asked: Asked, against: Path, mature: bool, out: Path | None, json: bool) -> None:
    checked_out(out)
    options = asked.options()
    bar = Bar("presets", "reading")
    try:
        got = compare(asked.log(), against, mature=mature, progress=bar, **options)
    finally:
        bar.close()
    _say(got.as_of, asked.as_of, got.notes)
    names = ["comparison.csv", "receipt.csv", "presets.csv", "reasons.csv"]
    names += ["receipt.png", "receipt.svg"] if len(got.receipt) and got.close else []
    files = _write(got, asked, out, names) if out is not None else []
    if json:
        frames = {k: records(getattr(got, k)) for k in ("comparison", "receipt", "presets", "reasons")}
        emit_json(
            as_of=clock.iso(got.as_of), measure=got.measure, closest=got.closest, close=got.close,
            distance=got.distance, contradicts=got.contradicts, options=got.options, notes=got.notes, files=files,
            **frames,
        )  # fmt: skip
        return
    _print_reconciliation(got)


def _print_reconciliation(got: Reconciliation) -> None:
    c = got.comparison
    nearest = got.closest[0]
    what, (first_line, *more) = got.measure.replace("_", " "), reconcile_words.verdict(got)
    tell(f"{first_line}\n")
    first = c[c["measure"] == got.measure]
    head = ("template_id", "variant_id", "measure", "theirs", "ours", "difference", nearest)
    rows = [r | {nearest: r["closest"]} for r in first.to_dict("records")]
    for measure, part in c.groupby("measure", sort=False):
        if not str(measure).endswith(("_rate", "_per_send")):
            given = part[part["theirs"].notna()]
            total = given[["theirs", "ours", "closest"]].sum().to_dict()
            total["difference"] = apart(total["theirs"], total["ours"])
            rows.append({"template_id": ALL, "variant_id": "", "measure": measure, **total, nearest: total["closest"]})
    as_text: dict[str, Callable[[Any], str]] = {**dict.fromkeys(head[:3], str), "difference": _signed}
    table([{k: as_text.get(k, number)(v) for k, v in r.items()} for r in rows], head)
    if len(got.receipt) and got.close:
        tell(f"\nfrom our conversions to theirs, as {nearest} counts")
        steps = [
            {"step": words.step(r["step"], r["reason"]), "": "", "events": r["events"],
             "conversions": r["conversions"] if r["step"] in ("ours", "theirs") else _signed(r["conversions"])}
            for r in got.receipt[got.receipt["template_id"] == ALL].to_dict("records")
        ]  # fmt: skip
        table(steps, ("step", "", "events", "conversions"))
    tell(f"\nwhat other systems would count, by how far their {what} are from the dashboard's")
    table(
        [{"preset": r["preset"], "conversions": r["conversions"], f"{what} apart": words.off(r["distance"], got.empty)}
         for r in got.presets.head(MOST_PRESETS).to_dict("records")],
        ("preset", "conversions", f"{what} apart"),
    )  # fmt: skip
    tell("\nwhat our rule did with every goal event")
    columns = ["reason", "", "events", *(["counted_by_closest"] if got.close else [])]
    table([{"": "", **r} for r in got.reasons.to_dict("records")], columns)
    tell()
    tell("\n".join(more))


def _signed(x: Any) -> str:
    """A difference, with the sign that `words.signed` writes."""
    text = number(abs(x))
    return text if text in ("0", "-") else ("−" if x < 0 else "+") + text


def _told(out: Path, names: list[str]) -> list[str]:
    say(f"written to {out}: {', '.join(names)}")
    return [str(out / n) for n in names]


def _say(as_of: int, given: str | None, notes: list[str]) -> None:
    say(f"as of {clock.iso(as_of)}" + ("" if given else " (the last receipt)"))
    for note in notes:
        say(f"note: {note}")
