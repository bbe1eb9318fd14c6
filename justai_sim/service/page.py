"""The results page: one self-contained HTML file, no script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

RATES = {
    "open_rate": ("Opens", "opens"),
    "click_rate": ("Clicks", "clicks"),
    "conversion_rate": ("Conversions", "conversions"),
    "unsubscribe_rate": ("Unsubscribes", "unsubscribes"),
    "revenue_per_send": ("Revenue per send", "revenue"),
}
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1a1a1a;background:#fff}
h1{font-size:1.5rem;margin:0}h2{font-size:1.15rem;margin:2rem 0 .4rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .7rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:#fff}.key{font-weight:600}small,.quiet{color:#555}
td small{display:block;font-size:.8rem}
"""


def results_page(results: Mapping[str, Any], orgs: Sequence[str]) -> str:
    """The page of what `Engine.results` gives; `orgs` are all organisations with anything stored."""
    rows: list[dict[str, Any]] = results["metrics"]
    title = f"Results: {results['org']}" if results["org"] else "Results"
    currency = str(results["rule"]["currency"])
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=quiet>As of {escape(results['as_of'])}. {_counts(results['rows'])}</p>",
        f"<p>{escape(results['rule_in_words'])}</p>",
        f"<p class=quiet>Each cell: rate per send, count and 95 % interval; revenue in {escape(currency)}. "
        "Mature sends are those whose window has closed. The key metric is bold.</p>",
        _links(orgs, results["org"]),
    ]
    if len(rows) <= 1:
        parts.append("<p>No message has been reported yet. Post sends and events to /api/webhook/…</p>")
    for template in dict.fromkeys(r["template_id"] for r in rows[:-1]):
        shares = results["shares"]["by_template"].get(template, {})
        here = [r for r in rows[:-1] if r["template_id"] == template]
        order = {v: i for i, v in enumerate(shares)}  # the control first, as in the program
        here.sort(key=lambda r: order.get(r["variant_id"], len(order)))
        parts.append(f"<h2>{escape(template)}</h2>" + _table(here, results["key_metric"], shares))
    if len(rows) > 1:
        parts.append("<h2>Everything, each event once</h2>" + _table(rows[-1:], results["key_metric"], {}))
    parts += [_reasons(results["reasons"]), _notes(results)]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style><main>{''.join(parts)}</main></html>"
    )


def _counts(rows: Mapping[str, int]) -> str:
    said = [f"{rows[n]:,} {n[:-1] if rows[n] == 1 else n}" for n in ("sends", "events", "decisions")]
    return f"{', '.join(said)} stored."


def _links(orgs: Sequence[str], current: str) -> str:
    if len(orgs) < 2:
        return ""
    links = [escape(o) if o == current else f'<a href="/?org={quote(o)}">{escape(o)}</a>' for o in orgs]
    return f"<p>Organisations: {' · '.join(links)}</p>"


def _table(rows: Sequence[Mapping[str, Any]], key_metric: str, shares: Mapping[str, float]) -> str:
    head = ["Variant", "Sends", *(title for title, _ in RATES.values())] + (["Share now"] if shares else [])
    marks = ["", "", *(' class="key"' if r == key_metric else "" for r in RATES)] + ([""] if shares else [])
    out = ["<tr>", *(f"<th{m}>{escape(h)}</th>" for h, m in zip(head, marks, strict=True)), "</tr>"]
    for r in rows:
        cells = [escape(str(r["variant_id"] or r["template_id"])), _sends(r), *(_cell(r, rate) for rate in RATES)]
        if shares:
            cells.append(f"{shares[r['variant_id']]:.1%}" if r["variant_id"] in shares else "not served")
        out += ["<tr>", *(f"<td{m}>{c}</td>" for c, m in zip(cells, marks, strict=True)), "</tr>"]
    return f"<div class=scroll><table>{''.join(out)}</table></div>"


def _sends(row: Mapping[str, Any]) -> str:
    return f"{row['sends']:,}<small>{row['mature_sends']:,} mature</small>"


def _cell(row: Mapping[str, Any], rate: str) -> str:
    """A rate with its count and, where there is one, its 95 % interval."""
    value, low, high, count = row[rate], row[f"{rate}_low"], row[f"{rate}_high"], row[RATES[rate][1]]
    if value is None:
        return "no value"
    form = "{:.2f}" if rate == "revenue_per_send" else "{:.2%}"
    between = "" if low is None or low != low else f"<small>{form.format(low)} to {form.format(high)}</small>"
    counted = f"{count:,.2f}" if rate == "revenue_per_send" else f"{count:,.6g}" if count % 1 else f"{int(count):,}"
    return f"{form.format(value)} <small>{counted}</small>{between}"


def _reasons(reasons: Sequence[Mapping[str, Any]]) -> str:
    if not reasons:
        return ""
    rows = "".join(f"<tr><td>{r['kind']}</td><td>{r['reason']}</td><td>{r['events']:,}</td></tr>" for r in reasons)
    head = "<tr><th>Kind</th><th>What became of it</th><th>Events</th></tr>"
    return f"<h2>What became of every event</h2><div class=scroll><table>{head}{rows}</table></div>"


def _notes(results: Mapping[str, Any]) -> str:
    notes = [*results["notes"]]
    notes += [f"refused, {reason}: {n:,}" for reason, n in sorted(results["rejects"].items())]
    notes += [f"passed over, {what}: {n:,}" for what, n in sorted(results["skipped"].items())]
    return "<h2>Notes</h2><ul>" + "".join(f"<li>{escape(n)}</li>" for n in notes) + "</ul>" if notes else ""
