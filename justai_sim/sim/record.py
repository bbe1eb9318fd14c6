"""What a run leaves for the reports: long columns from a finished block of worlds."""

from __future__ import annotations

import numpy as np

from justai_sim.bandit.stopping import Look, Significance
from justai_sim.biases.identity import identity
from justai_sim.biases.match import HELD, Index
from justai_sim.biases.terms import ADDED, MISSED, TERM
from justai_sim.clock import DAY, HOUR
from justai_sim.estimate.age import FIRST_AGE, age_profile, countable
from justai_sim.estimate.windows import LOOKBACKS, OFFSETS, window_counts
from justai_sim.loop.segments import segment_of
from justai_sim.loop.step import Tick
from justai_sim.scenario import Scenario
from justai_sim.sim.block import Block, even_split, rates_of, values_of
from justai_sim.sim.plan import by_code
from justai_sim.tables import B1, F8, I8, NONE, PARTS, Array, Sends
from justai_sim.truth import Behind
from justai_sim.world.codes import user_of_event
from justai_sim.world.people import cell_shares, cells

Columns = dict[str, Array]


def true_metric(scenario: Scenario) -> tuple[F8, bool]:
    """True value of the key metric per send, (templates, arms), means over users and over the run, and whether lower is
    better; NaN where there is no arm."""
    metric = scenario.program.key_metric
    out = rates_of(scenario) @ cell_shares(scenario.world)
    value = values_of(scenario)
    for t, s in enumerate(by_code(scenario)):
        for a, v in enumerate(scenario.variants_of(s)):
            out[t, a] = {
                "conversion_rate": out[t, a],
                "revenue_per_send": out[t, a] * value[t, a],
                "open_rate": v.open_rate,
                "click_rate": v.open_rate * v.click_rate,
                "unsubscribe_rate": v.unsubscribe_rate,
            }[metric]
    return out, metric == "unsubscribe_rate"


def best_arms(scenario: Scenario) -> B1:
    """Which arms are best (ties all count, those that only rounding tells apart too), (templates, arms)."""
    value, lower = true_metric(scenario)
    return best_of(value, lower)


def best_of(value: F8, lower: bool) -> B1:
    """Which of the last axis are best; NaN is not there."""
    edge = np.nanmin(value, axis=-1, keepdims=True) if lower else np.nanmax(value, axis=-1, keepdims=True)
    return np.isclose(value, edge, rtol=1e-9, atol=0)


def metrics_of(block: Block) -> Columns:
    """Long columns: rep, template, arm, metric, value."""
    state, shape = block.state, block_shape(block)
    n = state.sends.n
    sends, e = state.sends.table, state.earned
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
    out |= causes_of(block)
    out["added"] = out["caused"] - replaced_of(block)
    out["true_rate"] = np.broadcast_to(block.rates, shape).ravel()
    out["share_at_end"] = np.moveaxis(served_at(block, block.ticks[-1], segment_shares(block)), 0, 1).ravel()
    return _long(block, out, shape)


def block_shape(block: Block) -> tuple[int, int, int]:
    return len(block.reps), len(block.machine.layout.live), block.machine.layout.arms


def causes_of(block: Block) -> dict[str, F8]:
    """The terms of the bias identity in conversions, by cell (rep, template, arm); ghosts and unknown sends apart."""
    state, shape = block.state, block_shape(block)
    behind = Behind(block.truth, block.origin, block.unheard)
    end = int(block.ticks[-1].now)
    found = identity(block.machine.bound, state.sends.table, state.events.table, behind, end, currency=0)
    here = (found.variant != HELD) & (found.template != NONE)
    arm = block.machine.layout.arm[found.template[here], found.variant[here]]
    cell = np.ravel_multi_index((found.rep[here], found.template[here], arm), shape)

    def total(which: str, *terms: str) -> F8:
        parts = found.amount[which][here][:, [TERM[t] for t in terms]].sum(axis=1)
        return np.bincount(cell, parts / PARTS, int(np.prod(shape))).astype(np.float64)

    out = {"conversion_count": total("events", "shown"), "caused": total("events", "caused"),
           "caused_sends": total("sends", "caused"), "capped": -total("sends", "capped")}  # fmt: skip
    out |= {"credited_own": total("events", "caused", *MISSED)}
    out |= {f"credited_{t}": total("events", t) for t in ADDED}
    out |= {f"missed_{t}": -total("events", t) for t in MISSED}
    out["uncounted"] = -total("events", "uncounted")
    return {k: v + 0.0 for k, v in out.items()}  # no -0


def replaced_of(block: Block) -> F8:
    """Organic purchases that did not happen, by the cell of the send whose purchase took their place."""
    truth, shape = block.replacing, block_shape(block)
    sends = Sends.concat([block.state.sends.table, block.unheard.sends])
    row = Index(sends.rep, sends.send).find(truth.rep, truth.cause)
    sends = sends.take(row[row >= 0])
    arm = block.machine.layout.arm[sends.template, sends.variant]
    cell = np.ravel_multi_index((sends.rep, sends.template, arm), shape)
    return np.bincount(cell, minlength=int(np.prod(shape))).astype(np.float64)


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
    right = right_of(block, n, y)
    y2 = np.stack([t.y2 for t in block.ticks])
    shipped, arm = _shipped(n, y, y2, lower) if block.program.shipping is None else shipped_by(block)
    good = best[np.arange(len(best))[:, None], arm]
    lost_per_10k, lost_revenue = lost_of(block)
    # From each tick on, whether the leader stays right until the end.
    for_good = np.logical_and.accumulate(right[::-1])[::-1]
    truth = block.truth
    since = (truth.occurred_at >= block.signed_up(truth.rep, user_of_event(truth.event))) & (truth.value >= 0)
    happened = np.stack(
        [np.bincount(truth.rep[since & (truth.occurred_at < t.now)], minlength=len(block.reps)) for t in block.ticks]
    )
    days = np.array([(t.now - block.scenario.start_us) / DAY for t in block.ticks])
    ticks, R = len(days), len(block.reps)
    return {
        "rep": np.tile(np.arange(R) + block.reps.start, ticks),
        "day": np.repeat(days, R),
        "right_leader": right.mean(axis=1).ravel(),
        "right_for_good": for_good.mean(axis=1).ravel(),
        "best_share": np.where(best[None, :, None], served(block), 0.0).sum(axis=-1).mean(axis=1).ravel(),
        "shipped_wrong": (shipped & ~good[None]).mean(axis=1).ravel(),
        "shipped_right": (shipped & good[None]).mean(axis=1).ravel(),
        "lost_per_10k": lost_per_10k.ravel(),
        "lost_revenue_per_10k": lost_revenue.ravel(),
        "happened": happened.ravel(),
    }


def right_of(block: Block, n: F8, y: F8) -> B1:
    """Whether the leader is the best one, (ticks, T, R), by trials and sums so far (ticks, T, R, K).

    The leader has the best rate of what is served: not of what was archived, nor of anything else once one is shipped.
    The best one is that of the variants that there are by `from_day` and `until_day`; what the program itself archived
    is there all the same. What is archived at an instant was there until then.
    """
    value, lower = true_metric(block.scenario)
    layout, shipping = block.machine.layout, block.program.shipping
    may, best = np.zeros(n.shape, bool), np.zeros((len(n), *value.shape), bool)
    for k, tick in enumerate(block.ticks):
        there = layout.live_at(tick.now - 1)
        gone = there & ~layout.live_at(tick.now)
        may[k] = tick.live | (gone[:, None] & block.ticks[max(k - 1, 0)].live)
        may[k, ..., 0] |= (tick.shares[..., 0] > 0).any(axis=2) | (shipping is None)
        there[:, 0] = True
        best[k] = best_of(np.where(there, value, np.nan), lower)
    worst = np.inf if lower else -np.inf
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = np.where(may & (n > 0), y / n, worst)
    leader = np.argmin(rate, axis=-1) if lower else np.argmax(rate, axis=-1)
    index = np.ogrid[tuple(map(slice, leader.shape))]
    return np.asarray(best[index[0], index[1], leader] & (y.sum(axis=-1) > 0))


def served(block: Block) -> F8:
    """The shares served after each tick (ticks, T, R, K)."""
    weight = segment_shares(block)
    return np.stack([served_at(block, t, weight) for t in block.ticks])


def served_at(block: Block, tick: Tick, weight: F8) -> F8:
    """The shares served after a tick (T, R, K): of contextual policies the mean over users, of an external split the
    provider's even one, whatever the policy would have set."""
    if block.program.split == "external":
        return even_split(tick.live)
    return np.asarray((tick.shares * weight[:, None]).sum(axis=2))


def segment_shares(block: Block) -> F8:
    """Part of the users who are served from each row of a tick's shares."""
    if not block.machine.segments:
        return np.ones(1)
    row = {"": 0} | {s: i + 1 for i, s in enumerate(block.machine.segments)}
    mine = [row[segment_of(block.program.segments, cell)] for cell in cells(block.scenario.world)]
    part = np.bincount(mine, cell_shares(block.scenario.world), len(block.machine.segments) + 1)
    return part.astype(np.float64)


def shares_of(block: Block) -> Columns:
    """Long columns: day, template, variant, and the sums over this block's worlds of the share (in parts of 1e9) and of
    its square (in parts of 1e12): integers, so that they are the same however blocks are cut."""
    share = served(block)
    layout = block.machine.layout
    ticks, T, R, K = share.shape
    tick, template, arm = (i.ravel() for i in np.indices((ticks, T, K)))
    total = np.rint(share * 1e9).astype(np.int64).sum(axis=2).ravel()
    squares = (np.rint(share * 1e6).astype(np.int64) ** 2).sum(axis=2).ravel()
    keep = layout.variant[template, arm] >= 0
    day = np.array([(t.now - block.scenario.start_us) / DAY for t in block.ticks])
    columns: Columns = {
        "day": day[tick], "template": template, "variant": layout.variant[template, arm], "share": total,
        "share_squared": squares, "worlds": np.full(len(tick), R),
    }  # fmt: skip
    return {k: v[keep] for k, v in columns.items()}


def lost_of(block: Block) -> tuple[F8, F8]:
    """True conversions, and their money, lost by each tick against the best arm for each user, among those that were
    there when the choice was made, per 10,000 messages that reached a user by then; (ticks, R), NaN before the first.
    What the program itself archives is there all the same."""
    state, n = block.state, block.state.sends.n
    sends = state.sends.table
    s = sends.take(state.earned.counted[:n] & ~state.earned.ghost[:n])
    arm = block.machine.layout.arm[s.template, s.variant]
    cell = block.users.cell[block.users.row(s.rep, s.user)]
    ends = np.array([t.now for t in block.ticks])
    shape = len(ends), len(block.reps)
    at = np.searchsorted(ends, s.sent_at, side="right") * shape[1] + s.rep
    size = (shape[0] + 1) * shape[1]

    def so_far(each: Array) -> F8:
        return np.cumsum(each.reshape(-1, shape[1])[: shape[0]], axis=0)

    many = so_far(np.bincount(at, np.ones(len(at)), size))
    there = np.stack([block.machine.layout.live_at(int(t)) for t in ends])
    there[:, :, 0] = True
    kinds, kind = np.unique(there, axis=0, return_inverse=True)
    kind = kind.ravel()[np.searchsorted(ends, s.sent_at, side="right") - 1]  # what the refresh before it could choose
    rates = rates_of(block.scenario)
    found = []
    for worth in (rates, rates * values_of(block.scenario)[:, :, None]):
        best = np.nanmax(np.where(kinds[..., None], worth, -np.inf), axis=2)
        regret = best[kind, s.template, cell] - worth[s.template, arm, cell]
        lost = so_far(np.bincount(at, regret, size))
        found.append(np.divide(lost * 1e4, many, out=np.full(shape, np.nan), where=many > 0))
    return found[0], found[1]


def shipped_by(block: Block) -> tuple[B1, I8]:
    """As `_shipped`, of the rule that the program itself ships by."""
    first, arm = np.full(block_shape(block)[1::-1], len(block.ticks)), np.zeros(block_shape(block)[1::-1], np.int64)
    for k, tick in enumerate(block.ticks):
        for change in tick.changes:
            if change.what == "ship":
                first[change.template, change.rep], arm[change.template, change.rep] = k, change.arm
    return np.arange(len(block.ticks))[:, None, None] >= first[None], arm


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
    out = {"metrics": metrics_of(block), "race": race_of(block), "shares": shares_of(block)}
    if full:
        out |= {"age": age_of(block), "windows": windows_of(block)}
    return out
