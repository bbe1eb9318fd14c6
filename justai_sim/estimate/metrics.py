"""The results table: per template and variant the five metrics, with numerators, denominators, intervals."""

from __future__ import annotations

from typing import Any

import numpy as np

from justai_sim import stats
from justai_sim.attribution import Attribution, Bound
from justai_sim.attribution.earnings import capped
from justai_sim.attribution.events import money_share
from justai_sim.estimate import maturity
from justai_sim.estimate.maturity import Rate, Waiting
from justai_sim.tables import B1, CONVERSION, F8, I8, PARTS, REASON, Log

ALL = "ALL (distinct)"
HELD_OUT = "held_out"
"""The row of the ghost sends of held-out users, one a template."""
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
    has closed. Ghost sends of held-out users form a row `held_out` of their own, without engagement, and are
    not in `ALL`. `_low`, `_high` is a 95 % interval: Wilson for shares, Student's for the rest; where users
    have several sends it allows for what they have in common, and is never narrower than over sends. An
    empty denominator gives None. Revenue in units of the declared currency.

    `km_conversion_rate` is the headline: Kaplan-Meier with the clock started when the window opens, from
    `km_conversions` of `km_sends`. `exposure_conversion_rate` divides the conversions so far by the exposure
    `exposure_sends`, for delays pooled over the variants of the template. Both are None for rules without
    0/1 outcomes (`maturity.no_survival` says why). `final_sends`: sends whose value no longer moves;
    `mature_moved`: mature sends whose conversion was heard of only after they had matured.
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
        self.names = [*log.names("variant"), HELD_OUT]
        self.variant = np.where(o.ghost, len(self.names) - 1, log.sends.variant[o.send_row])
        self.user = log.sends.user[o.send_row]
        rule = bound.rule
        everyone = np.ones(len(o), bool)
        self.use: B1 = o.reached if rule.denominator != "sends" else everyone
        # A send without its anchor is in no conversion denominator.
        anchored = self.use & (o.close_at != np.iinfo(np.int64).min)
        engaged = self.use & ~o.ghost
        self.denominator = {m: (anchored if m in ("conversions", "revenue") else engaged) for m in COUNTS}
        self.ripe = {m: (got.mature() if m in ("conversions", "revenue") else got.mature_engagement()) for m in COUNTS}
        self.value: dict[str, F8] = {
            "opens": o.opens.astype(np.float64),
            "clicks": o.clicks.astype(np.float64),
            "conversions": o.numerator / PARTS,
            "unsubscribes": o.unsubscribes.astype(np.float64),
            "revenue": capped_revenue(got) / 1e6,
        }
        self.final = got.final()
        self.survival = not maturity.no_survival(rule)
        event, send = maturity.paid_credits(log, got)
        counts = o.numerator[send] > 0
        self.waiting = maturity.waiting(log, got, (event[counts], send[counts]))
        self.once: tuple[I8, I8] | None = None
        """Event and outcome rows of the conversions of `ALL`."""
        self.inside: dict[int, Any] = {}

    def cells(self) -> list[tuple[int, int]]:
        pairs = np.unique(self.template * len(self.names) + self.variant)
        return [divmod(int(p), len(self.names)) for p in pairs]

    def row(self, template: int, variant: int) -> dict[str, Any]:
        here = (self.template == template) & (self.variant == variant)
        names = {
            "template_id": self.log.text("template", np.array([template]))[0],
            "variant_id": self.names[variant],
        }
        totals = {m: (self.value[m][here & self.denominator[m]],) for m in COUNTS}
        ripe = {m: self.value[m][here & self.denominator[m] & self.ripe[m]] for m in COUNTS}
        figures = self.figures(here, {m: v[0] for m, v in totals.items()}, ripe)
        return names | figures | self.survivals(here, self.waiting, template, variant == len(self.names) - 1)

    def survivals(self, here: B1, waiting: Waiting, template: int, ghost: bool = False) -> dict[str, Any]:
        """The rates that count young sends for what they are; `template` -1 is all of them."""
        use = here & self.denominator["conversions"]
        km = exposure = Rate(None, None, None, 0.0, 0.0)
        if self.survival:
            if template not in self.inside:
                pool = self.denominator["conversions"] & ~self.got.outcomes.ghost
                pool &= (self.template == template) | (template < 0)
                self.inside[template] = maturity.inside_window(waiting.first[pool], waiting.seen[pool], waiting.last)
            first, seen, user = waiting.first[use], waiting.seen[use], self.user[use]
            km = maturity.kaplan_meier_rate(first, seen, waiting.last, user)
            if (inside := self.inside[template]) is not None and not ghost:
                exposure = maturity.exposure_rate(first, seen, inside, user)
        return {
            **km.columns("km_conversion_rate", "km_conversions", "km_sends"),
            **exposure.columns("exposure_conversion_rate", "exposure_conversions", "exposure_sends"),
            "final_sends": int((use & self.final).sum()),
            "mature_moved": int((use & self.ripe["conversions"] & waiting.moved).sum()),
        }

    def figures(self, here: B1, values: dict[str, F8], ripe: dict[str, F8]) -> dict[str, Any]:
        """The row's numbers from per-send values; `here` flags its sends."""
        n, mature = values["conversions"].shape[0], ripe["conversions"].shape[0]
        out: dict[str, Any] = {"sends": n, "mature_sends": mature}
        out |= {m: _plain(values[m].sum()) for m in COUNTS}
        by_user = self.bound.rule.denominator == "users"
        for prefix, chosen in (("", values), ("mature_", ripe)):
            for rate, m in RATES.items():
                use = here & self.denominator[m] & (self.ripe[m] if prefix else True)
                if by_user:
                    out |= _rate(prefix + rate, _per_user(self.user[use], chosen[m], rate), None)
                else:
                    out |= _rate(prefix + rate, chosen[m], self.user[use])
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
        real = ~self.got.outcomes.ghost
        once = self.distinct()
        values = {m: once.get(m, self.value[m])[self.denominator[m] & real] for m in COUNTS}
        ripe = {m: once.get(m, self.value[m])[self.denominator[m] & self.ripe[m] & real] for m in COUNTS}
        row = self.figures(real, values, ripe)
        count = float(once["count"][self.denominator["conversions"] & real].sum())
        waiting = maturity.waiting(self.log, self.got, self.once)
        row |= self.survivals(real, waiting, -1)
        return {"template_id": ALL, "variant_id": ""} | row | {"conversion_count": _plain(count)}

    def distinct(self) -> dict[str, F8]:
        """Per send, with each event credited in its first template only (and to one send, where a rule gives
        each of several a whole credit): `conversions` as `repeat` counts them, `count`, `revenue`."""
        got, c, n = self.got, self.got.credits, len(self.template)
        position = np.full(len(self.log.sends), -1, np.int64)
        position[got.outcomes.send_row] = np.arange(n)
        conversion = self.log.events.kind[c.event_row] == CONVERSION
        conversion &= ~got.outcomes.ghost[position[c.send_row]]
        row, send, weight = c.event_row[conversion], position[c.send_row[conversion]], c.weight[conversion]
        order = np.lexsort((send, self.template[send], row))
        row, send, weight = row[order], send[order], weight[order]
        lead, index = np.unique(row, return_index=True)
        scope = self.bound.scope[self.template]  # templates that compete share one credit
        first = scope[send[index]]
        keep = scope[send] == first[np.searchsorted(lead, row)]
        row, send, weight = row[keep], send[keep], weight[keep]
        _, at, group = np.unique(row, return_index=True, return_inverse=True)
        total = np.bincount(group, weight, len(at))
        whole = (total[group] <= PARTS) | (np.arange(len(row)) == at[group])
        row, send, weight = row[whole], send[whole], weight[whole]
        paid = got.reason[row] == REASON["credited"]
        share = money_share(got.value[row], weight, PARTS)
        out = {"count": np.bincount(send[paid], weight[paid], n) / PARTS, "conversions": np.zeros(n)}
        out["revenue"] = _capped(got, np.bincount(send, share, n).astype(np.float64)) / 1e6
        repeat = self.bound.rule.repeat
        if repeat == "once_per_user":
            when = np.lexsort((self.log.events.event[row], self.log.events.occurred_at[row], self.user[send]))
            when = when[paid[when]]
            _, firsts = np.unique(self.user[send[when]], return_index=True)
            chosen = np.isin(row, row[when[firsts]]) & paid
            out["conversions"] = np.bincount(send[chosen], weight[chosen], n) / PARTS
            self.once = row[chosen], send[chosen]
        else:
            self.once = row[paid], send[paid]
            out["conversions"] = out["count"] if repeat == "every" else np.minimum(out["count"], 1.0)
        return out


def capped_revenue(got: Attribution) -> F8:
    """Net revenue of each outcome in micro-units, capped as the rule says (rule 29)."""
    return _capped(got, got.outcomes.revenue.astype(np.float64))


def _capped(got: Attribution, revenue: F8) -> F8:
    return capped(got.rule, revenue, got.mature() & got.outcomes.reached)


def _per_user(user: I8, value: F8, rate: str) -> F8:
    """One value a user: any (shares) or the sum (money)."""
    _, index = np.unique(user, return_inverse=True)
    total: F8 = np.bincount(index, value, int(index.max()) + 1 if len(index) else 0).astype(np.float64)
    return total if rate == "revenue_per_send" else np.minimum(total, 1.0)


def _rate(name: str, v: F8, user: I8 | None) -> dict[str, Any]:
    """Mean and interval of one value a row; `user` of each row, None where the rows are users."""
    n = len(v)
    if n == 0:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    if name.endswith("revenue_per_send") or not np.isin(v, (0.0, 1.0)).all():
        p, lowest = float(v.mean()), 0.0 if v.min() >= 0 else -np.inf
        if n == 1:  # one value has no spread to speak of
            return {name: p, f"{name}_low": None, f"{name}_high": None}
        low, high = (float(x) for x in stats.mean_interval(v.sum(), (v * v).sum(), float(n)))
        if user is not None and maturity.repeats(user):
            half = max(high - p, stats.z_value(0.95) * stats.mean_error(v, user))
            low, high = p - half, p + half
        return {name: p, f"{name}_low": max(low, lowest), f"{name}_high": high}
    got = maturity.share_rate(v, user)
    return {name: got.rate, f"{name}_low": got.low, f"{name}_high": got.high}


def _plain(x: Any) -> float | int:
    """Whole numbers as int, so that tables read well."""
    f = round(float(x), 9)
    return int(f) if f == int(f) else f
