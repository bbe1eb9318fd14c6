"""Adversarial logs with their answers, in files for other languages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from justai_sim.attribution.rule import Rule
from justai_sim.errors import UsageError
from justai_sim.tables import MICRO, PARTS
from justai_sim.testing.answers import Judged, judge
from justai_sim.testing.draw import FEATURES, Goals, Resolution, Seeded, Shape, draw_log
from justai_sim.testing.edges import Edge, edges
from justai_sim.testing.rows import Row, SmallLog, heard
from justai_sim.version import __version__

FORMAT = 1


@dataclass(frozen=True)
class Written:
    """What was written: cases by group."""

    folder: Path
    groups: dict[str, int]


def made(rule: Rule, goals: Goals, count: int, seed: int) -> list[Edge]:
    """`count` logs: every edge by hand first, then drawn ones, each feature alone and all of them mixed."""
    found = edges(rule, goals)[:count]
    names = [*sorted(FEATURES), ""]
    grids: tuple[Resolution, ...] = ("microsecond", "second", "day")
    for i in range(count - len(found)):
        name = names[i % len(names)]
        shape = Shape(rule, frozenset({name} if name else FEATURES), grids[i % 3], goals)
        found.append(_drawn(Seeded(f"{__version__} {seed} {i}"), shape, name))
    return found


def _drawn(dice: Seeded, shape: Shape, name: str) -> Edge:
    """A drawn log that has both sends and events, every third one seen before all of it is known."""
    small = SmallLog([], [])
    for _ in range(50):
        small = draw_log(dice, shape)
        if small.send_rows and small.event_rows:
            break
    moments = sorted({heard(row) for row in [*small.send_rows, *small.event_rows]})
    as_of = dice.pick(None, None, dice.pick(*moments[len(moments) // 2 :], None))
    return Edge("drawn", f"drawn, {name or 'everything'}, times to the {shape.resolution}", small, as_of)


def write_cases(
    rule: Rule, out: Path, *, name: str, goals: Goals = ("purchase",), count: int = 200, seed: int = 0
) -> Written:
    """`count` cases under `rule` as `cases.jsonl`, `rule.json` and a README in `out`; the same for the same seed."""
    if count < 1:
        raise UsageError(f"--count is {count}; expected at least 1")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; expected a folder")
    chosen = made(rule, goals, count, seed)
    out.mkdir(parents=True, exist_ok=True)
    with (out / "cases.jsonl").open("wb") as file:
        for i, edge in enumerate(chosen):
            file.write(msgspec.json.encode(case(edge, rule, goals, i + 1)) + b"\n")
    about = {"format": FORMAT, "version": __version__, "rule": msgspec.to_builtins(rule), "name": name, "seed": seed}
    about |= {"goals": _goals(goals), "cases": len(chosen)}
    (out / "rule.json").write_bytes(msgspec.json.format(msgspec.json.encode(about)) + b"\n")
    (out / "README.md").write_text(README.format(version=__version__, count=count, seed=seed, name=name))
    groups: dict[str, int] = {}
    for edge in chosen:
        groups[edge.group] = groups.get(edge.group, 0) + 1
    return Written(out, groups)


def _goals(goals: Goals) -> Any:
    if goals is None or isinstance(goals, str):
        return goals if goals is None else [goals]
    return {t: sorted(n) for t, n in goals.items()} if hasattr(goals, "items") else sorted(goals)


def case(edge: Edge, rule: Rule, goals: Goals, number: int) -> Row:
    """One case as an object for JSON."""
    judged = judge(rule, goals, edge.small, engagement=True, as_of=edge.as_of)
    return {
        "case": number,
        "group": edge.group,
        "title": edge.title,
        "exercises": sorted(set(judged.reasons)),
        "as_of": edge.as_of,
        "sends": [public(row) for row in edge.small.send_rows],
        "events": [public(row) for row in edge.small.event_rows],
        "expected": {"credits": _credits(judged), "reasons": judged.reasons, "totals": _totals(judged)},
    }


def public(row: Row) -> Row:
    """A row with the plain log's columns and units; what is missing is left out.

    >>> from justai_sim.testing.rows import event_row
    >>> public(event_row("e1", "u1", 5, value=2_500_000, machine=1))["value"]
    2.5
    """
    out = {k: v for k, v in row.items() if v not in (None, "")}
    if "event_id" in row:
        out["user_id"] = row["user_id"]
        del out["machine"]
        if row["machine"] >= 0:
            out["machine"] = bool(row["machine"])
        if row["value"] is not None:
            out["value"] = row["value"] / MICRO
    return out


def _credits(judged: Judged) -> list[Row]:
    small = judged.small
    return [
        {
            "event_row": e,
            "event_id": small.event_rows[e]["event_id"],
            "send_id": small.send_rows[s]["send_id"],
            "weight": round(weight * PARTS),
        }
        for e, s, weight in judged.credits
    ]


def _totals(judged: Judged) -> list[Row]:
    """Per template and variant, over reached sends."""
    o, log = judged.result.outcomes, judged.small.log
    template = log.text("template", log.sends.template[o.send_row])
    variant = log.text("variant", log.sends.variant[o.send_row])
    mature = judged.result.mature().tolist()
    columns = {k: getattr(o, k).tolist() for k in ("weight", "numerator", "opens", "clicks", "unsubscribes", "revenue")}
    rows: dict[tuple[str, str], Row] = {}
    for i, key in enumerate(zip(template, variant, strict=True)):
        if not o.reached[i]:
            continue
        zero: Row = {"sends": 0, "mature_sends": 0} | dict.fromkeys(columns, 0)
        total = rows.setdefault(key, {"template_id": key[0], "variant_id": key[1]} | zero)
        total["sends"] += 1
        total["mature_sends"] += int(mature[i])
        for k, values in columns.items():
            total[k] += int(values[i])
    names = {"weight": "conversions", "numerator": "converted"}
    return [{names.get(k, k): v for k, v in rows[key].items()} for key in sorted(rows)]


README = """\
# Attribution cases

{count} small logs with their answers under the rule of `rule.json` (`{name}`), seed {seed}, written by justai_sim
{version}. The same version and seed write the same bytes.

`cases.jsonl` holds one JSON object a line:

| key | what |
|---|---|
| `case` | its number, from 1 |
| `group`, `title` | which edge it is about (`drawn`: random rows with the features that the title names) |
| `exercises` | the reasons that occur |
| `as_of` | what is known: rows received at or before this time; null: all rows |
| `sends`, `events` | the rows, in an order that means nothing |
| `expected.credits` | a row a credit: `event_row` (position in `events`, from 0), `event_id`, `send_id`, `weight` |
| `expected.reasons` | what each row of `events` ends in, in their order |
| `expected.totals` | a row a template and variant over its reached sends |

- Times are integer microseconds since 1970-01-01 UTC (exact in a double). `value` is in units of money. A column that
  is missing on a row is left out; a missing `received_at` is the row's own time (`sent_at` or `occurred_at`).
- `weight` and in the totals `conversions` (every credited one) and `converted` (the numerator of the conversion rate)
  are integer parts of 1,000,000,000. `revenue` is in millionths of a unit of money, `opens`, `clicks` and
  `unsubscribes` are sends with at least one.
- Credits hold every kind of event: opens, clicks and unsubscribes too, and a refund with the weights of its order.
- `mature_sends` are judged at `as_of`, else at the largest receipt of the log.
- `rule.json` has the rule with all its options, and the goals: the names of the conversions that count.
"""
