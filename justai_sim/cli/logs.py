"""load and replay: everything about real logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from justai_sim import clock, privacy, replays
from justai_sim import log as logs
from justai_sim.attribution import preset as named
from justai_sim.attribution import training_window, with_settings
from justai_sim.bandit.policy import METRICS
from justai_sim.bandit.registry import POLICIES, checked
from justai_sim.bandit.texts import with_policy_settings
from justai_sim.cli.output import Bar, emit_json, say, table, tell
from justai_sim.errors import DataError, StoppedError, UsageError, nearest, one_line
from justai_sim.esp.generic import plain_files
from justai_sim.esp.rows import Reject
from justai_sim.privacy import mask_text
from justai_sim.verdicts.verdict import Verdict, verdict

COLUMNS = (
    "template_id", "variant_id", "sends", "mature_sends", "opens", "clicks", "conversions", "unsubscribes", "revenue",
    "km_conversion_rate", "km_conversion_rate_low", "km_conversion_rate_high", "mature_conversion_rate",
    "conversion_rate",
)  # fmt: skip


def load(
    src: Path, esp: str, out: Path, *, timezone: str | None, rejects: Path | None, raw: bool, keep_emails: bool,
    events: str | None, hash_users: bool, hash_key: Path | None, esp_options: list[str], json: bool,
) -> None:  # fmt: skip
    if hash_key is not None and not hash_users:
        raise UsageError("--hash-key names the key of --hash-users; add --hash-users")
    switches = parse_settings(esp_options, "--esp-option", "variant_from=split")
    key = None
    if hash_users and (raw or keep_emails):  # before a key is made
        raise UsageError(f"--hash-users and {'--raw' if raw else '--keep-emails'} undo each other; choose one of them")
    if hash_users:
        key, said = privacy.hash_key(hash_key)
        if said:
            say(f"note: {said}")
    bar = Bar("loading", "B")
    try:
        summary = logs.load(
            src, esp, out, timezone=timezone, rejects=rejects, raw=raw, keep_emails=keep_emails,
            events=None if events is None else [e.strip() for e in events.split(",")], hash_key=key,
            esp_options=switches, progress=bar,
        )  # fmt: skip
    except KeyboardInterrupt:
        raise StoppedError("interrupted; the same command goes on where it was") from None
    finally:
        bar.close()
    for text in summary.said:
        say(f"note: {text}")
    found = summary.as_dict()
    if json:
        emit_json(**found, out=str(out))
    else:
        for group in ("rows", "kinds", "names", "rejects", "skipped"):
            for name, n in found[group].items():
                tell(f"{group:8} {one_line(name) or '(none)':48} {n:>12,}")
    _say_rejects(summary.first_rejects, sum(found["rejects"].values()), rejects)
    for note, n in found["notes"].items():
        say(f"note: {note}: {n:,}")
    say(f"log: {out}")


def replay(
    path: Path, *, esp: str | None, goals: list[str], control: str | None, template: str | None, since: str | None,
    until: str | None, lookback_days: float | None, offset_days: float | None, as_of: str | None, preset: str | None,
    settings: list[str], policy: str, policy_settings: list[str], training: str | None, metric: str,
    workers: int | None, scheduler: str | None, timezone: str | None, out: Path | None,
    rejects: Path | None, raw: bool, json: bool, esp_options: list[str],
) -> None:  # fmt: skip
    chosen = parse_settings(settings)
    if lookback_days is not None:
        chosen["lookback_days"] = lookback_days
    if offset_days is not None:
        chosen["offset_days"] = offset_days
    start = named(preset if preset is not None else "default")
    rule = with_settings(start.rule, chosen)
    learns = training_window(training) if training is not None else start.training
    if policy == "fixed":
        raise UsageError("--policy fixed has shares of its own and learns nothing from a log; use another policy")
    if policy not in POLICIES:
        raise UsageError(f"--policy {policy!r} is not known; {nearest(policy, POLICIES)}")
    if metric not in METRICS:
        raise UsageError(f"--metric {metric!r} is not known; {nearest(metric, METRICS)}")
    spec = with_policy_settings(policy, parse_settings(policy_settings, "--policy-set", "epsilon=0.1"))
    checked(spec, metric)
    if timezone is not None:
        clock.zone(timezone)
    if out is not None and (logs.is_log(out) or plain_files(out)):
        raise UsageError(f"{out} holds a log; choose another --out for the report")
    log, refused = logs.read_log_with_rejects(
        path, esp, timezone, esp_options=parse_settings(esp_options, "--esp-option", "variant_from=split")
    )
    if rejects is not None:
        logs.write_rejects(rejects, refused, raw)
    _say_rejects(refused, sum(log.rejects.values()), rejects)
    result = replays.replay(
        log, rule=rule, goals=goals, control=control, template=template, since=_time(since, timezone),
        until=_time(until, timezone), as_of=_time(as_of, timezone), policy=spec,
        key_metric=metric, training=learns, currency_given="currency" in chosen,  # type: ignore[arg-type]
        workers=workers, scheduler=scheduler,
    )  # fmt: skip
    say(f"as of {clock.iso(result.attribution.as_of)}" + ("" if as_of else " (the last receipt)"))
    for note in [*result.notes, *result.warnings]:
        say(f"note: {note}")
    page, told = (None, verdict(result)) if out is None else _write(result, path, out)
    _print(result, told, json, page)


def parse_settings(settings: list[str], option: str = "--set", example: str = "credit=linear") -> dict[str, Any]:
    """`key=value` texts as a dict; UsageError for one without '='."""
    out = {}
    for s in settings:
        key, eq, value = s.partition("=")
        if not eq:
            raise UsageError(f"{option} {s!r}: expected key=value, e.g. {option} {example}")
        out[key.strip()] = value.strip()
    return out


def _time(text: str | None, timezone: str | None) -> int | None:
    if text is None:
        return None
    try:
        return clock.checked(int(text)) if text.isdigit() else clock.parse(text, timezone)
    except DataError as e:
        raise UsageError(str(e)) from None


def _write(result: replays.Replay, path: Path, out: Path) -> tuple[Path, Verdict]:
    from justai_sim.pages import reports
    from justai_sim.verdicts.desk import desk

    asked = desk(result)
    page = reports.publish(reports.Replayed(result.data(path.name), asked), out, path.name, replays.manifest(result))
    replays.write_tables(result, out)
    return page, asked.verdict


def _print(result: replays.Replay, told: Verdict, json: bool, page: Path | None) -> None:
    rows = result.rows()
    if json:
        last = result.ticks[-1].now if result.ticks else result.attribution.as_of
        shares = result.shares
        final = shares[shares["day"] == shares["day"].max()] if len(shares) else shares
        emit_json(
            as_of=clock.iso(result.attribution.as_of), last_refresh=clock.iso(last),
            rule=msgspec.to_builtins(result.program.rule), goals=result.program.goals, verdict=told.as_dict(),
            notes=result.notes, warnings=result.warnings, delay=_delay(result),
            metrics=rows, reasons=result.attribution.reasons(),
            shares=final[["template_id", "variant_id", "share"]].to_dict("records"), report=str(page) if page else None,
        )  # fmt: skip
        return
    tell(f"{'SIMULATED: ' if result.simulated else ''}{told.sentence}\n")
    table(rows, COLUMNS)
    tell()
    table(
        [{"reason": k, "": "", "events": n} for k, n in result.attribution.reasons().items()], ("reason", "", "events")
    )
    if page is not None:
        say(f"report: {page}")


def _delay(result: replays.Replay) -> dict[str, Any]:
    """What messages add and what of it the window sees, for JSON: missing values are null."""
    rows = result.delays.captured.to_dict("records")
    captured = [{k: None if v != v else v for k, v in row.items()} for row in rows]
    return {"background": result.delays.background, "captured": captured}


def _say_rejects(rejects: list[Reject], total: int, folder: Path | None) -> None:
    if not total:
        return
    for r in rejects[:3]:
        say(f"refused {mask_text(r.place)}: {mask_text(r.message)}")
    where = f"see {folder}" if folder is not None else "--rejects DIR keeps them"
    say(f"{total:,} rows could not be read ({where}); the others are kept")
