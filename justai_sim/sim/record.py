"""What a run leaves for the reports: long columns from a finished block of worlds."""

from __future__ import annotations

import numpy as np

from justai_sim.bandit.stopping import Look, Significance
from justai_sim.bias.split import credited_by_cause
from justai_sim.clock import DAY, HOUR
from justai_sim.estimate.age import FIRST_AGE, age_profile, countable
from justai_sim.estimate.windows import LOOKBACKS, OFFSETS, window_counts
from justai_sim.scenario import Scenario
from justai_sim.sim.engine import Block, by_code
from justai_sim.tables import B1, F8, I8, NONE, PARTS, Array
from justai_sim.truth import Truth
from justai_sim.world.world import user_of_event

Columns = dict[str, Array]


def true_metric(scenario: Scenario) -> tuple[F8, bool]:
    """True value of the key metric per send, (templates, arms), NaN where there is no arm; lower is better."""
    metric = scenario.program.key_metric
    steps = by_code(scenario)
    arms = max(len(scenario.variants_of(s)) for s in steps)
    out = np.full((len(steps), arms), np.nan)
    for t, s in enumerate(steps):
        for a, v in enumerate(scenario.variants_of(s)):
            out[t, a] = {
                "conversion_rate": v.conversion_rate,
                "revenue_per_send": v.conversion_rate * scenario.world.value.mean,
                "open_rate": v.open_rate,
                "click_rate": v.open_rate * v.click_rate,
                "unsubscribe_rate": v.unsubscribe_rate,
            }[metric]
    return out, metric == "unsubscribe_rate"


def best_arms(scenario: Scenario) -> B1:
    """Which arms are best (ties all count), (templates, arms)."""
    value, lower = true_metric(scenario)
    edge = np.nanmin(value, axis=1) if lower else np.nanmax(value, axis=1)
    return value == edge[:, None]


def metrics_of(block: Block) -> Columns:
    """Long columns: rep, template, arm, metric, value."""
    state, shape = block.state, block_shape(block)
    n = state.sends.n
    sends, events, e = state.sends.table, state.events.table, state.earned
    arm = block.machine.layout.arm[sends.template, sends.variant]
    cell = np.ravel_multi_index((sends.rep, sends.template, arm), shape)
    cells = int(np.prod(shape))
    use = e.counted[:n] & ~e.ghost[:n]
    end = int(block.ticks[-1].now)
    allowance = round(block.program.rule.mature_allowance_hours * HOUR)

    def total(v: Array | None = None, which: B1 = use) -> F8:
        return np.bincount(cell[which], None if v is None else v[:n][which], cells).astype(np.float64)

    out = {
        "sends": total(),
        "mature_sends": total(which=use & (e.close_at[:n] <= end - allowance)),
        "opens": total(e.opens), "clicks": total(e.clicks), "unsubscribes": total(e.unsubscribes),
        "conversions": total(e.numerator) / PARTS, "revenue": total(e.revenue) / 1e6,
    }  # fmt: skip
    with np.errstate(invalid="ignore"):
        out["conversion_rate"] = np.where(out["sends"] > 0, out["conversions"] / out["sends"], np.nan)
    reason = state.reason[: state.events.n]
    split = credited_by_cause(state.credits, reason, sends, events, block.truth, cell, cells)
    out["conversion_count"] = sum(split.values(), np.zeros(cells))
    out |= {f"credited_{k}": v for k, v in split.items()}
    out["caused"] = caused(block, cell, cells)
    out["true_rate"] = np.broadcast_to(block.rates, shape).ravel()
    out["share_at_end"] = np.moveaxis(block.ticks[-1].shares[:, :, 0], 0, 1).ravel()
    return _long(block, out, shape)


def block_shape(block: Block) -> tuple[int, int, int]:
    return len(block.reps), len(block.machine.layout.live), block.machine.layout.arms


def caused(block: Block, cell: I8, cells: int) -> F8:
    """Conversions that happened before the end of the run and were caused by the sends of each cell."""
    truth: Truth = block.truth.take((block.truth.cause != NONE) & (block.truth.occurred_at < block.ticks[-1].now))
    sends = block.state.sends.table
    span = block.state.send_span
    key = sends.rep.astype(np.int64) * span + sends.send
    order = np.argsort(key, kind="stable")
    wanted = truth.rep.astype(np.int64) * span + truth.cause
    at = np.minimum(np.searchsorted(key[order], wanted), max(len(order) - 1, 0))
    if not len(order):
        return np.zeros(cells)
    row = order[at]
    return np.bincount(cell[row[key[row] == wanted]], minlength=cells).astype(np.float64)


def _long(block: Block, values: dict[str, F8], shape: tuple[int, int, int]) -> Columns:
    there = np.broadcast_to(block.machine.layout.variant >= 0, shape).ravel()
    rep, template, arm = (i.ravel()[there] for i in np.indices(shape))
    names = list(values)
    return {
        "rep": np.repeat(rep + block.reps.start, len(names)),
        "template": np.repeat(template, len(names)),
        "variant": np.repeat(block.machine.layout.variant[template, arm], len(names)),
        "metric": np.tile(np.arange(len(names)), len(rep)),
        "value": np.stack([values[k][there] for k in names], axis=1).ravel(),
        "names": np.array(names),
    }


def race_of(block: Block) -> Columns:
    """Long columns: rep, day, measures that are means over the templates, and conversions that happened so far."""
    n = np.stack([t.n for t in block.ticks])  # (ticks, T, R, K)
    y = np.stack([t.y for t in block.ticks])
    best = best_arms(block.scenario)
    _, lower = true_metric(block.scenario)
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = np.where(n > 0, y / n, np.inf if lower else -np.inf)
    leader = np.argmin(rate, axis=-1) if lower else np.argmax(rate, axis=-1)
    template = np.arange(n.shape[1])[None, :, None]
    right = best[template, leader] & (y.sum(axis=-1) > 0)
    shipped, arm = _shipped(n, y, np.stack([t.y2 for t in block.ticks]), lower)
    good = best[template[0], arm]
    rates = block.rates[:, None, :]
    lost = np.nansum(n * (np.nanmax(rates, axis=-1, keepdims=True) - rates), axis=-1)
    sends = n.sum(axis=-1).sum(axis=1)  # (ticks, R)
    with np.errstate(invalid="ignore"):
        lost_per_10k = np.where(sends > 0, lost.sum(axis=1) / sends * 1e4, np.nan)  # nothing is lost before a send
    truth = block.truth
    since = truth.occurred_at >= block.signed_up(truth.rep, user_of_event(truth.event))
    happened = np.stack(
        [np.bincount(truth.rep[since & (truth.occurred_at < t.now)], minlength=len(block.reps)) for t in block.ticks]
    )
    days = np.array([(t.now - block.scenario.start_us) / DAY for t in block.ticks])
    ticks, R = len(days), len(block.reps)
    return {
        "rep": np.tile(np.arange(R) + block.reps.start, ticks),
        "day": np.repeat(days, R),
        "right_leader": right.mean(axis=1).ravel(),
        "shipped_wrong": (shipped & ~good[None]).mean(axis=1).ravel(),
        "shipped_right": (shipped & good[None]).mean(axis=1).ravel(),
        "lost_per_10k": lost_per_10k.ravel(),
        "happened": happened.ravel(),
    }


def _shipped(n: F8, y: F8, y2: F8, lower: bool) -> tuple[B1, I8]:
    """Whether the product's shipping rule has fired by each tick (ticks, T, R), and for which arm (T, R).

    It is looked at at every refresh; the first variant to be ready stays.
    """
    flat, total, squares = (a.reshape(-1, n.shape[-1]) for a in (n, y, y2))
    look = Look(flat, total, squares, np.ones(flat.shape, bool), 0.0, lower)
    ship = Significance().decide(look).ship.reshape(n.shape[:-1])
    ready = ship > 0
    first = np.argmax(ready, axis=0)
    return np.maximum.accumulate(ready, axis=0), np.take_along_axis(ship, first[None], 0)[0]


def age_of(block: Block) -> Columns:
    """Long columns: rep, variant, age day, conversions, exposure; all templates together."""
    state = block.state
    n, m = state.sends.n, state.events.n
    sends, events = state.sends.table, state.events.table
    use = state.earned.counted[:n] & ~state.earned.ghost[:n]
    R, V = len(block.reps), len(block.codes["variant"])
    start = block.scenario.start_us - round(block.scenario.world.history_days * DAY)
    got = age_profile(
        state.send_user[:n], sends.rep.astype(np.int64), np.where(use, sends.variant, -1), sends.sent_at,
        events, state.event_user[:m], countable(events.kind, state.reason[:m]), R, V, start,
        int(block.ticks[-1].now),
    )  # fmt: skip
    rep, variant, age = (i.ravel() for i in np.indices(got.conversions.shape))
    return {"rep": rep + block.reps.start, "variant": variant, "age_day": age + FIRST_AGE,
            "conversions": got.conversions.ravel(), "exposure": got.exposure.ravel()}  # fmt: skip


def windows_of(block: Block) -> Columns:
    """Long columns: rep, offset, lookback, variant, conversions, sends; all templates together."""
    sends, events = block.state.sends.table, block.state.events.table
    R, V = len(block.reps), len(block.codes["variant"])
    got = window_counts(
        block.machine.bound, sends, events, int(block.ticks[-1].now), OFFSETS, LOOKBACKS,
        sends.rep.astype(np.int64), sends.variant, R, V,
    )  # fmt: skip
    o, b, rep, variant = (i.ravel() for i in np.indices(got.sends.shape))
    keep = ~np.isnan(got.sends.ravel())
    columns: Columns = {
        "rep": rep + block.reps.start, "offset_day": np.array(OFFSETS)[o], "lookback_day": np.array(LOOKBACKS)[b],
        "variant": variant, "conversions": got.conversions.ravel(), "sends": got.sends.ravel(),
    }  # fmt: skip
    return {k: v[keep] for k, v in columns.items()}


def record(block: Block, full: bool) -> dict[str, Columns]:
    """All long columns of a block; age and windows only where `full` (the reference point)."""
    out = {"metrics": metrics_of(block), "race": race_of(block)}
    if full:
        out |= {"age": age_of(block), "windows": windows_of(block)}
    return out
