"""The report of a replayed log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from justai_sim import clock
from justai_sim.estimate.metrics import ALL, HELD_OUT
from justai_sim.pages.figures import plot_age, plot_delay, plot_shares, plot_window_map
from justai_sim.pages.inputs import ReplayData
from justai_sim.pages.page import AGE, DELAY, WEIGHTS, WINDOWS, Picture, picture, write_page
from justai_sim.pages.reasons import MEANING, plot_reasons
from justai_sim.pages.reasons import QUESTION as REASONED
from justai_sim.pages.replay_tabs import key_columns, tabs, with_key, write_tables
from justai_sim.pages.rule_words import rule_words
from justai_sim.pages.table import Column, Form, Part, write
from justai_sim.surfaces import ADVICE
from justai_sim.verdicts.desk import Desk

LESS_IS_BETTER = ("unsubscribe_rate",)
RATES: dict[str, tuple[str, str, Form]] = {
    "conversion_rate": ("conversions", "conversion rate", "percent2"),
    "open_rate": ("opens", "open rate", "percent2"),
    "click_rate": ("clicks", "click rate", "percent2"),
    "unsubscribe_rate": ("unsubscribes", "unsubscribe rate", "percent2"),
    "revenue_per_send": ("revenue", "revenue per send", "money"),
}
"""Metric -> its numerator, its name, how it is written."""
TABS = (
    ("verdict", "Verdict"), ("results", "Results"), ("window", "Window"), ("interpretations", "Interpretations"),
    ("doctor", "Doctor"), ("what-if", "What if"),
)  # fmt: skip


def write_replay_report(data: ReplayData, out: Path, desk: Desk | None = None) -> Path:
    """Write index.html, and the figures as PNG and SVG, into the folder `out` (made if absent); returns the page.

    With `desk` the page begins with the verdict, and has tabs for everything that is asked of a log; its slide and
    tables are written, too. The same data gives the same bytes.
    """
    out.mkdir(parents=True, exist_ok=True)
    if desk is not None:
        write_tables(desk, out)
    facts = [("source", data.source), ("as of", clock.iso(data.as_of)), ("key metric", _name(data.key_metric)),
             ("control", _control(data)), *data.settings.items()]  # fmt: skip
    table = data.metrics if desk is None else desk.results
    added = [] if desk is None else key_columns(desk.verdict.reference)
    return write_page(
        "replay.html.j2", out, title=data.title, simulated=data.simulated,
        headline=headline(data) if desk is None else desk.verdict.sentence,
        rule=rule_words(data.rule), facts=facts, notes=data.notes,
        pictures={p.name: p for p in _pictures(data, out)},
        results=results(data.metrics, ""), mature=results(table, "mature_", added), reasons=reasons(data.reasons),
        maturity=maturity(data.metrics), warnings=data.warnings, captured=captured(data), shares=last_shares(data),
        desk=None if desk is None else tabs(desk, out), tab_names=TABS,
    )  # fmt: skip


def _control(data: ReplayData) -> str:
    """The control that rows are compared with, if any row is its."""
    return data.control if (data.metrics["variant_id"] == data.control).any() else "none"


def headline(data: ReplayData) -> str:
    """Who is ahead, by the key metric, where that is more than chance."""
    m = data.metrics[(data.metrics["template_id"] != ALL) & (data.metrics["variant_id"] != HELD_OUT)]
    key = headline_metric(m, data.key_metric)
    m = m[m[key].notna()]
    if not len(m):
        return "Nothing was sent: there is nothing to compare."
    pairs = [_pair(part, data, key) for _, part in m.groupby("template_id", sort=False) if len(part) > 1]
    if not pairs:
        return "No template has two variants: there is nothing to compare."
    if len(pairs) == 1:
        a, b = pairs[0]
        values = f"{_name(key)} {_value(a, key)} against {_value(b, key)}"
        ahead, mixed = _ahead(a, b, key), _over_same_days(a, b, data)
        if ahead and not _doubted(a, b, data):
            return f"{a['variant_id']} is ahead of {b['variant_id']}: {values}{mixed}."
        if ahead:
            return (
                f"Shares changed over days, and {'over the same mix of days ' if mixed else ''}no leader can be told "
                f"apart: {a['variant_id']} has {values} for {b['variant_id']}{mixed}."
            )
        return f"No leader can be told apart yet: {a['variant_id']} has {values} for {b['variant_id']}{mixed}."
    count: dict[tuple[str, str], int] = {}
    for a, b in pairs:
        if _ahead(a, b, key) and not _doubted(a, b, data):
            names = str(a["variant_id"]), str(b["variant_id"])
            count[names] = count.get(names, 0) + 1
    doubts = sum(_ahead(a, b, key) and _doubted(a, b, data) for a, b in pairs)
    days = f" (in {doubts} because shares changed over days)" if doubts else ""
    if not count:
        return f"By {_name(key)}, no leader can be told apart yet in any of {len(pairs)} templates{days}."
    said = [f"{a} is ahead of {b} in {n}" for (a, b), n in sorted(count.items(), key=lambda item: -item[1])]
    said[0] += f" of {len(pairs)} templates"
    rest = len(pairs) - sum(count.values())
    other = f"; in the other {rest} no leader can be told apart yet{days}" if rest else ""
    return f"By {_name(key)}, {', '.join(said)}{other}."


def headline_metric(m: pd.DataFrame, key: str) -> str:
    """The column that ranks: for the conversion rate Kaplan-Meier's, else the mature one, else that so far; the first
    that has a value wherever there are sends."""
    if key == "conversion_rate":
        for name in ("km_conversion_rate", "mature_conversion_rate"):
            if name in m and len(m) and m.loc[m["sends"] > 0, name].notna().all():
                return name
    return key


def _pair(part: pd.DataFrame, data: ReplayData, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A template's leader, and whom it has to be ahead of: the control, or the runner-up if there is none or it
    leads itself."""
    ranked = part.sort_values(key, ascending=key in LESS_IS_BETTER, kind="stable")
    leader, *others = ranked.to_dict("records")
    return leader, next((r for r in others if r["variant_id"] == data.control), others[0])


def _ahead(a: dict[str, Any], b: dict[str, Any], key: str) -> bool:
    """Whether a is better than b beyond the root of the summed squares of the 95 % half-widths on the sides that
    face each other (Newcombe's interval of a difference). Unknown intervals: no."""
    if key in LESS_IS_BETTER:
        a, b = b, a  # then the one to be below is `a`
    down, up = a[key] - a[f"{key}_low"], b[f"{key}_high"] - b[key]
    return bool(a[key] - b[key] > (down**2 + up**2) ** 0.5)


def _doubted(a: dict[str, Any], b: dict[str, Any], data: ReplayData) -> bool:
    return data.doubted(a, b, data.key_metric in LESS_IS_BETTER)


def _over_same_days(a: dict[str, Any], b: dict[str, Any], data: ReplayData) -> str:
    """'; over the same mix of days 4.9 % against 5.0 %', where shares changed and that can be told."""
    both = data.mixed(a, b)
    if both is None or any(np.isnan(x) for x, _ in both):
        return ""
    x, y = (write(rate, _form(data.key_metric)) for rate, _ in both)
    return f"; over the same mix of days, on mature sends, {x} against {y}"


SHOWN = {"km_conversion_rate": "conversion rate (Kaplan-Meier)", "mature_conversion_rate": "mature conversion rate"}


def _name(metric: str) -> str:
    if metric in SHOWN:
        return SHOWN[metric]
    return RATES[metric][1] if metric in RATES else metric.replace("_", " ")


def _value(row: Any, metric: str) -> str:
    cell = Column(metric, "", _form(metric), interval=True).cell(dict(row))
    return f"{cell.text} ({cell.between})" if cell.between else cell.text


def _form(metric: str) -> Form:
    return "percent2" if metric in SHOWN else RATES[metric][2] if metric in RATES else "number"


def maturity(metrics: pd.DataFrame) -> Part:
    """The conversion rate by its estimators, the headline first."""
    rows = metrics.to_dict("records") if "km_conversion_rate" in metrics else []
    for row in rows:
        row["waiting"] = row["mature_sends"] - row["final_sends"]
    columns = [Column("template_id", "template"), Column("variant_id", "variant")]
    for prefix, name in (("km_", "Kaplan-Meier"), ("mature_", "mature"), ("", "so far"), ("exposure_", "by exposure")):
        counts = f"{prefix}conversions", f"{prefix}sends"
        columns.append(Column(f"{prefix}conversion_rate", name, "percent2", interval=True, over=counts))
    columns += [Column("waiting", "may still move", "int"), Column("mature_moved", "moved late", "int")]
    note = (
        "Kaplan-Meier is the one to read: it uses sends of all ages, young ones for as long as their window has been "
        "watched. Mature: right too, from fewer sends. So far: too low, the more so the younger the sends. By "
        "exposure: conversions over what has been watched, as if all variants of a template had the same delays. May "
        "still move: mature sends that are not final; moved late: mature sends whose conversion was heard of only then."
    )
    return Part("Conversion rate, whatever the age of the sends", note, rows, columns)


def captured(data: ReplayData) -> Part:
    """What each variant adds, and the part of it that the window sees."""
    rows = data.captured.to_dict("records")
    for row in rows:
        row |= {f"{k}{s}": 1000 * row[f"{k}{s}"] for k in ("total", "window") for s in ("", "_low", "_high")}
    rule = data.rule
    columns = [
        Column("variant_id", "variant"),
        Column("sends", "sends", "int"),
        Column("total", "adds per 1,000 sends", "one", True),
        Column("window", f"from day {rule.offset_days:g} to day {rule.upper_days:g}", "one", True),
        Column("share", "share that the window sees", "percent", True),
    ]
    text = f"{data.background} No share is shown where it cannot be told." if data.background else data.background
    return Part("What messages add, and what of it the window sees", text, rows, columns)


def results(metrics: pd.DataFrame, prefix: str, added: Sequence[Column] = ()) -> Part:
    """The five metrics on all sends (prefix '') or on mature ones ('mature_'); `added` columns after the sends."""
    n, rows = f"{prefix}sends", []
    for row in with_key(metrics.to_dict("records")):
        for rate, (count, _, _) in RATES.items():
            # The counts behind a rate are shown as a fraction only where that fraction is the rate: engagement
            # matures at another time than conversions, and some rules divide by users.
            whole, y, value = row[n], row.get(prefix + count), row[prefix + rate]
            same = (
                y is not None
                and value == value
                and value is not None
                and abs(value * whole - y) < 1e-6 * max(1, abs(y))
            )
            row[f"{prefix}{rate}_of"] = whole if same else None
        rows.append(row)
    columns = [Column("template_id", "template"), Column("variant_id", "variant"), Column(n, "sends", "int")]
    columns += added
    columns += [
        Column(prefix + rate, name, form, interval=True, over=(prefix + count, f"{prefix}{rate}_of"))
        for rate, (count, name, form) in RATES.items()
    ]
    if prefix:
        more = (
            " Differences are of the key metric; their intervals hold for all variants of the template and all days at "
            "once (none below 1,000 mature sends of either). Chance to be the best: within the template, "
            "by the same estimates as the differences, not by the plain rates. "
            f"{ALL}: every event once."
        )
        return Part("Results on mature sends", "Only sends whose window has closed: young sends still wait for theirs."
                    + (more if added else ""), rows, columns)  # fmt: skip
    return Part("Results so far", "All sends. Below each rate its 95 % interval and the counts. "
                f"{ALL}: every event once, because steps cannot be added up.", rows, columns)  # fmt: skip


def reasons(frame: pd.DataFrame) -> Part:
    """Where every event ended."""
    rows = [
        {"meaning": MEANING.get(r["reason"], "")} | r for r in frame[["kind", "reason", "events"]].to_dict("records")
    ]
    columns = (
        Column("kind", "kind"),
        Column("reason", "reason"),
        Column("meaning", "meaning"),
        Column("events", "events", "int"),
    )
    return Part("Where every event ended", "Every event of the input has exactly one reason.", rows, columns)


def last_shares(data: ReplayData) -> Part:
    """The shares at the end."""
    form: Form = RATES[data.key_metric][2] if data.key_metric in RATES else "number"
    s = data.shares
    rows = s[s["day"] == s["day"].max()].to_dict("records") if len(s) else []
    columns = [Column("template_id", "template"), Column("variant_id", "variant"), Column("share", "share", "percent")]
    if "sends" in s:
        columns.append(Column("sends", "sends by then", "int"))
    if "rate" in s:
        columns.append(Column("rate", f"{_name(data.key_metric)} by then", form))
    return Part("Shares at the end", "The shares it would have set on the data you had.", rows, columns)


def _pictures(data: ReplayData, out: Path) -> list[Picture]:
    window: dict[str, Any] = {
        "control": data.control,
        "offset_days": data.rule.offset_days,
        "lookback_days": data.rule.upper_days,
    }
    return [
        picture(
            plot_age(data.age, **window, overlapping=data.overlapping), out, "age", AGE[0],
            " ".join([AGE[1], WEIGHTS.get(data.weighting, "")]),
        ),
        picture(
            plot_delay(data.delay, **window), out, "delay", *DELAY,
        ),
        picture(
            plot_window_map(data.windows, **(window | {"lookback_days": data.rule.lookback_days}),
                            from_offset=data.rule.lookback_from == "offset_end"), out, "window_map",
            WINDOWS,
            "Every rectangle is a window. A coloured one has a leader: its lead over the second variant is beyond the "
            "bound that the largest of all windows passes in 5 % of logs of equal variants. " + ADVICE,
        ),
        picture(
            plot_reasons(data.reasons), out, "reasons", REASONED,
            "In the order in which the rule checks; the table below has all kinds of events.",
        ),
        picture(
            plot_shares(data.shares, control=data.control), out, "shares",
            "The share of each variant over time",
            "The shares it would have set on the data you had. Other shares would have brought other data.",
        ),
    ]  # fmt: skip
