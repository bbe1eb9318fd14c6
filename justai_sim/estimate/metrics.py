"""The results table: per template and variant the five metrics, with numerators, denominators, intervals."""

from __future__ import annotations

from typing import Any

import numpy as np

from justai_sim import stats
from justai_sim.attribution import Attribution, Bound
from justai_sim.tables import B1, CONVERSION, F8, I8, PARTS, REASON, Log

ALL = "ALL (distinct)"
COUNTS = ("opens", "clicks", "conversions", "unsubscribes", "revenue")
RATES = {
    "open_rate": "opens",
    "click_rate": "clicks",
    "conversion_rate": "conversions",
    "unsubscribe_rate": "unsubscribes",
    "revenue_per_send": "revenue",
}
"""Metric -> its numerator; the denominator is `sends`."""


def metrics_table(log: Log, bound: Bound, got: Attribution) -> list[dict[str, Any]]:
    """One row a template and variant, and a last one `ALL (distinct)` in which every event counts once.

    Rates are per send (rule's denominator), on all sends and, with prefix `mature_`, on those whose window
    has closed; `_low`, `_high` is a 95 % interval over sends: Wilson for shares, normal for the rest. An
    empty denominator gives None. Revenue in units of the declared currency.
    """
    table = _PerSend(log, bound, got)
    rows = [table.row(t, v) for t, v in table.cells()]
    return [*rows, table.all_row()]


class _PerSend:
    """Columns by outcome row."""

    def __init__(self, log: Log, bound: Bound, got: Attribution) -> None:
        self.log, self.bound, self.got = log, bound, got
        o = got.outcomes
        self.template = log.sends.template[o.send_row]
        self.variant = log.sends.variant[o.send_row]
        self.user = log.sends.user[o.send_row]
        rule = bound.rule
        everyone = np.ones(len(o), bool)
        self.use: B1 = o.reached if rule.denominator != "sends" else everyone
        # A send without its anchor is in no conversion denominator.
        anchored = self.use & (o.close_at != np.iinfo(np.int64).min)
        self.denominator = {m: (anchored if m in ("conversions", "revenue") else self.use) for m in COUNTS}
        self.ripe = {m: (got.mature() if m in ("conversions", "revenue") else got.mature_engagement()) for m in COUNTS}
        self.value: dict[str, F8] = {
            "opens": o.opens.astype(np.float64),
            "clicks": o.clicks.astype(np.float64),
            "conversions": o.numerator / PARTS,
            "unsubscribes": o.unsubscribes.astype(np.float64),
            "revenue": capped_revenue(got) / 1e6,
        }

    def cells(self) -> list[tuple[int, int]]:
        pairs = np.unique(np.stack([self.template, self.variant]), axis=1)
        return [(int(t), int(v)) for t, v in pairs.T]

    def row(self, template: int, variant: int) -> dict[str, Any]:
        here = (self.template == template) & (self.variant == variant)
        names = {
            "template_id": self.log.text("template", np.array([template]))[0],
            "variant_id": self.log.text("variant", np.array([variant]))[0],
        }
        totals = {m: (self.value[m][here & self.denominator[m]],) for m in COUNTS}
        ripe = {m: self.value[m][here & self.denominator[m] & self.ripe[m]] for m in COUNTS}
        return names | self.figures(here, {m: v[0] for m, v in totals.items()}, ripe)

    def figures(self, here: B1, values: dict[str, F8], ripe: dict[str, F8]) -> dict[str, Any]:
        """The row's numbers from per-send values; `here` flags its sends."""
        n, mature = values["conversions"].shape[0], ripe["conversions"].shape[0]
        out: dict[str, Any] = {"sends": n, "mature_sends": mature}
        out |= {m: _plain(values[m].sum()) for m in COUNTS}
        by_user = self.bound.rule.denominator == "users"
        for prefix, chosen in (("", values), ("mature_", ripe)):
            for rate, m in RATES.items():
                use = here & self.denominator[m] & (self.ripe[m] if prefix else True)
                v = _per_user(self.user[use], chosen[m], rate) if by_user else chosen[m]
                out |= _rate(prefix + rate, v)
        out |= {"mature_" + m: _plain(ripe[m].sum()) for m in COUNTS}
        weight = self.got.outcomes.weight[here & self.denominator["conversions"]].sum() / PARTS
        known = int(here.sum())
        return out | {
            "conversion_count": _plain(weight),
            "known_sends": known,
            "undelivered": int((here & ~self.got.outcomes.reached).sum()),
        }

    def all_row(self) -> dict[str, Any]:
        """Every event once: a conversion credited in two templates is one conversion here."""
        everywhere = np.ones(len(self.template), bool)
        values = {m: self.value[m][self.denominator[m]] for m in COUNTS}
        ripe = {m: self.value[m][self.denominator[m] & self.ripe[m]] for m in COUNTS}
        out: dict[str, Any] = {"template_id": ALL, "variant_id": ""} | self.figures(everywhere, values, ripe)
        mature_row = np.zeros(len(self.log.sends), bool)
        o = self.got.outcomes
        mature_row[o.send_row] = self.got.mature()
        for prefix, rows in (
            ("", np.ones(len(self.got.credits), bool)),
            ("mature_", mature_row[self.got.credits.send_row]),
        ):
            events = np.unique(self.got.credits.event_row[rows])
            conversion = events[self.log.events.kind[events] == CONVERSION]
            count = int((self.got.reason[conversion] == REASON["credited"]).sum())
            revenue = float(self.got.value[conversion].sum()) / 1e6
            n = out["mature_sends" if prefix else "sends"]
            out |= {f"{prefix}conversions": count, f"{prefix}revenue": revenue}
            out |= _share(f"{prefix}conversion_rate", count, n)
            mean = revenue / n if n else None
            out |= {
                f"{prefix}revenue_per_send": mean,
                f"{prefix}revenue_per_send_low": None,
                f"{prefix}revenue_per_send_high": None,
            }
        return out | {"conversion_count": out["conversions"]}


def capped_revenue(got: Attribution) -> F8:
    """Net revenue of each outcome in micro-units, capped as the rule says (rule 29)."""
    rule, revenue = got.rule, got.outcomes.revenue.astype(np.float64)
    cap = None if rule.cap is None else rule.cap * 1e6
    if rule.cap_quantile is not None:
        paid = revenue[got.mature() & got.outcomes.reached & (revenue > 0)]
        cap = float(np.quantile(paid, rule.cap_quantile)) if len(paid) else None
    return revenue if cap is None else np.minimum(revenue, cap)


def _per_user(user: I8, value: F8, rate: str) -> F8:
    """One value a user: any (shares) or the sum (money)."""
    _, index = np.unique(user, return_inverse=True)
    total: F8 = np.bincount(index, value, int(index.max()) + 1 if len(index) else 0).astype(np.float64)
    return total if rate == "revenue_per_send" else np.minimum(total, 1.0)


def _rate(name: str, v: F8) -> dict[str, Any]:
    n = len(v)
    if n == 0:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    if name.endswith("revenue_per_send") or not np.isin(v, (0.0, 1.0)).all():
        low, high = stats.mean_interval(np.array([v.sum()]), np.array([(v * v).sum()]), np.array([float(n)]))
        return {name: float(v.mean()), f"{name}_low": float(low[0]), f"{name}_high": float(high[0])}
    return _share(name, float(v.sum()), n)


def _share(name: str, y: float, n: int) -> dict[str, Any]:
    """A count per send; more than one a send has no Wilson interval and gets a Poisson-like normal one."""
    if n == 0:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    if y <= n:
        low, high = stats.wilson(np.array([float(y)]), np.array([float(n)]))
        lo, hi = float(low[0]), float(high[0])
    else:
        lo, hi = (y - 1.959964 * y**0.5) / n, (y + 1.959964 * y**0.5) / n
    return {name: y / n, f"{name}_low": lo, f"{name}_high": hi}


def _plain(x: Any) -> float | int:
    """Whole numbers as int, so that tables read well."""
    f = round(float(x), 9)
    return int(f) if f == int(f) else f
