"""The simulator once more, slow and obvious: one simpy process a message, one a user for what he buys anyway.

Written from the documented parameters, with plain numbers. Shared with the engine are the names of the draws, the
codes of ids, the structs of a scenario, the table of retries, and production itself (`step`), which is called at the
refreshes with the rows that the twin has collected. numpy's exp, log1p and power are called on single numbers, because
those of the math module differ from them in the last bit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import simpy
from scipy import special

from justai_sim.attribution import bind
from justai_sim.clock import DAY, HOUR, MINUTE, MISSING, SECOND
from justai_sim.clock import zone as zone_of
from justai_sim.esp.base import adapter
from justai_sim.loop.segments import segment_of
from justai_sim.loop.state import State
from justai_sim.loop.step import Batch, Machine, Tick, step
from justai_sim.scenario import Blast, Scenario, Step, Touch, Trigger
from justai_sim.sim.plan import most_times
from justai_sim.streams import uniform_one
from justai_sim.tables import (
    BOUNCE,
    CLICK,
    CONVERSION,
    HELD_OUT,
    NONE,
    OPEN,
    SENT,
    SUPPRESSED,
    UNSUBSCRIBE,
    Events,
    Sends,
    Table,
)
from justai_sim.world import codes
from justai_sim.world.faults import RETRIES
from justai_sim.world.spec import Delay, Value, Variant

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CENTURY = 36_500.0
Row = dict[str, Any]


def waiting(mean: float, u: float) -> int:
    """An exponential time in microseconds."""
    return int(-mean * np.log1p(-u))


def spread_factor(spread: float, u: float) -> float:
    return float(special.gammaincinv(1 / spread**2, u) / (1 / spread**2)) if spread else 1.0


def days_of(law: Delay, u: float) -> float:
    if law.law == "exponential":
        return float(-law.mean_days * np.log1p(-u))
    if law.law == "weibull":
        return float(law.scale_days * np.power(-np.log1p(-u), 1 / law.shape))
    if law.law == "gamma":
        return float(law.scale_days * special.gammaincinv(law.shape, u))
    if law.law == "lognormal":
        return float(law.median_days * np.exp(law.sigma * special.ndtri(u)))
    if law.law == "empirical":
        seen = sorted(law.days)
        return float(np.interp(u, np.linspace(0, 1, len(seen)), seen))
    ends = [w / sum(law.weights) for w in itertools.accumulate(law.weights)]
    start = 0.0
    for part, end in zip(law.parts, ends, strict=True):
        if u < end:
            return days_of(part, (u - start) / (end - start))
        start = end
    raise AssertionError(u)


def amount_of(law: Value, u: float, grid: int) -> int:
    if u < law.zero_share:
        return 0
    if law.zero_share:
        u = (u - law.zero_share) / (1 - law.zero_share)
    if law.law == "fixed":
        x = law.mean
    elif law.law == "pareto":
        x = float(law.mean * (1 - 1 / law.tail) * np.power(1 - u, -1 / law.tail))
    else:
        x = float(law.mean * np.exp(law.sigma * special.ndtri(u) - law.sigma**2 / 2))
    return round(x * (1_000_000 / grid)) * grid


def part_of(u: float, weights: list[float]) -> int:
    total = sum(weights)
    for i, edge in enumerate(itertools.accumulate(weights)):
        if u < edge / total:
            return i
    return len(weights) - 1


def count_of(mean: float, u: float) -> int:
    """Poisson by inversion: the smallest count whose distribution function reaches u."""
    k = 0
    while mean and special.pdtr(k, mean) < u:
        k += 1
    return k


@dataclass
class User:
    rep: int
    number: int
    signed_up: int
    fresh: bool
    has: dict[str, str]
    zone: str
    stop_at: float = math.inf
    load: float = 0.0
    loaded_at: int = 0
    carried: float = 0.0
    kept: dict[int, tuple[int, float]] = field(default_factory=dict)
    brought_forward: list[int] = field(default_factory=list)
    """Instants of caused purchases in whose stead an organic one will not happen."""


class Twin:
    """Worlds 0 to `reps` - 1 of a scenario. After `run`: `batches` (rows by refresh), `ticks`, `truth`, `suppressed`,
    `unheard_sends`, `unheard_events`; `lost`: webhooks of events that nobody will ever hear of."""

    def __init__(self, scenario: Scenario, reps: int) -> None:
        self.s, self.world, self.t = scenario, scenario.world, scenario.telemetry.faults
        self.program = scenario.full_program()
        self.start, self.end = scenario.start_us, scenario.end_us
        self.esp = adapter(scenario.esp)
        # Braze has a place for the amount of a purchase of that name only, and none for its order.
        self.orders = scenario.esp != "braze"
        self.valued = [True, scenario.esp != "braze"] if "purchase" in self.program.goals else [self.orders] * 2
        self.needs_user = scenario.esp in ("braze", "iterable")
        self.touches: list[Touch] = sorted(scenario.touches, key=lambda t: t.id.encode())
        self.times = max(most_times(t, scenario.days) for t in self.touches)
        self.rate_at: dict[tuple[str, int], float] = {}
        first, factor, last = RETRIES[scenario.esp]
        self.tries, wait, gone = [], float(first), float(first)
        while gone <= last:
            self.tries.append(round(gone * MINUTE))
            wait *= factor
            gone += wait
        self.users = [u for rep in range(reps) for u in self.users_of(rep)]
        self.produce(reps)
        self.on_the_way: list[Row] = []
        self.sends_on_the_way: list[Row] = []
        self.batches: list[tuple[list[Row], list[Row]]] = []
        self.ticks: list[Tick] = []
        self.truth: list[Row] = []
        self.suppressed: list[Row] = []
        self.lost_sends: list[Row] = []
        self.planned = self.stopped = self.lost = 0

    def produce(self, reps: int) -> None:
        """Production as it is told of these templates, variants and names."""
        templates = [t.id for t in self.touches]
        names = {v.id for t in self.touches for v in self.s.variants_of(t)}
        self.variant_codes = sorted(names, key=lambda v: v.encode())
        goal = self.program.goals[0] if self.program.goals else "purchase"
        found = {segment_of(self.program.segments, u.has) for u in self.users}
        for values in itertools.product(*self.world.attributes.values()):
            has = dict(zip(self.world.attributes, values, strict=True))
            found.add(segment_of(self.program.segments, has))
        self.segments = sorted((x for x in found if x), key=lambda x: x.encode())
        bound = bind(self.program.rule, templates=templates, names=[goal, f"{goal}_v2"],
                     currencies=[self.world.value.currency], goals=self.program.goals or None)  # fmt: skip
        self.machine = Machine.of(self.program, bound, templates, self.variant_codes, self.segments)
        span = max((u.number for u in self.users), default=0) + 1
        self.state = State(reps, span, span * len(templates) * self.times, self.start)

    def u(self, purpose: str, user: User, place: int = 0, k: int = 0) -> float:
        return uniform_one(self.s.seed, purpose, user.rep, user.number, place, k)

    def of(self, purpose: str, rep: int, code: int, k: int = 0) -> float:
        """A draw that belongs to an event."""
        return uniform_one(self.s.seed, purpose, rep, code, 0, k)

    def floor(self, t: int) -> int:
        return t - t % self.esp.time_grid

    # People

    def users_of(self, rep: int) -> list[User]:
        came: list[int | None] = [None] * self.world.initial_users
        for day in range(self.s.days):
            came += [day] * count_of(self.world.signups_per_day, uniform_one(self.s.seed, "signups", rep, day))
        return [self.user_of(rep, number, day) for number, day in enumerate(came)]

    def user_of(self, rep: int, number: int, day: int | None) -> User:
        new = User(rep, number, self.start, day is not None, {}, "UTC", loaded_at=self.start)
        if day is not None:
            new.signed_up = self.floor(self.start + day * DAY + int(self.u("signup time", new) * DAY))
        for name, values in self.world.attributes.items():
            new.has[name] = list(values)[part_of(self.u(f"attribute {name}", new), list(values.values()))]
        if self.world.time_zones:
            zones = self.world.time_zones
            new.zone = list(zones)[part_of(self.u("time zone", new), list(zones.values()))]
        return new

    def factor(self, user: User, factors: dict[str, float]) -> float:
        return math.prod(factors.get(f"{name}={value}", 1.0) for name, value in user.has.items())

    def later(self, user: User, t: int, wait: int, organic: bool = False) -> int:
        """The instant at which `wait` of activity has gone by since t, step by step; after the end time is even."""
        shocks = self.world.shocks if organic else []
        if not (self.world.hours or self.world.weekdays or shocks):
            return t + wait
        edges = sorted(self.start + round(d * DAY) for s in shocks for d in (s.day, s.day + s.days))
        here, left = float(t), float(wait)
        while here < self.end:
            quarter = int(here // (15 * MINUTE))  # local hours begin at any of them
            stop = min([(quarter + 1) * 15 * MINUTE, *(e for e in edges if e > here)])
            rate = self.activity(user.zone, quarter)
            for s in shocks:
                low, high = self.start + round(s.day * DAY), self.start + round((s.day + s.days) * DAY)
                rate *= s.organic if low <= here < high else 1.0
            if left < rate * (stop - here):
                return int(here + left / rate)
            left -= rate * (stop - here)
            here = stop
        return int(here + left)

    def activity(self, zone: str, quarter: int) -> float:
        if (zone, quarter) not in self.rate_at:
            local = datetime.fromtimestamp(quarter * 900, UTC).astimezone(zone_of(zone))
            hours, days = self.world.hours or [1.0] * 24, self.world.weekdays or [1.0] * 7
            rate = hours[local.hour] / (sum(hours) / 24) * days[local.weekday()] / (sum(days) / 7)
            self.rate_at[zone, quarter] = rate
        return self.rate_at[zone, quarter]

    # The plan

    def planned_for(self, user: User) -> list[tuple[int, int]]:
        """Instant and place of every message of a user, in the order in which they go out."""
        out = []
        for template, touch in enumerate(self.touches):
            n = 0
            for n, t in enumerate(self.instants(user, template, touch)):
                at = None if t is None else self.floor(t)
                if at is not None and self.start <= at < self.end:
                    out.append((at, template + codes.TEMPLATES * n))
        return sorted(out)

    def instants(self, user: User, template: int, touch: Touch) -> Generator[int | None, None, None]:
        if isinstance(touch, Step):
            for n in range(touch.times if user.fresh else 0):
                after = round((touch.day + n * touch.every_days) * DAY)
                yield self.at_hour(user.signed_up + after, touch.hour, user.zone)
        elif isinstance(touch, Blast):
            for n in range(touch.times):
                day = self.start + round((touch.day + n * touch.every_days) * DAY)
                spread = int(self.u("blast time", user, template, n) * touch.spread_hours * HOUR)
                t = self.at_hour(day, touch.hour, user.zone) + spread
                chosen = self.u("blast share", user, template, n) < touch.share
                yield t if chosen and user.signed_up <= t else None
        elif isinstance(touch, Trigger):
            t = user.signed_up
            for n in range(touch.times):
                t += waiting(DAY / touch.per_user_day, self.u("trigger", user, template, n))
                if t >= self.end:
                    return
                yield t

    @staticmethod
    def at_hour(t: int, hour: float | None, zone: str) -> int:
        """The next instant at which it is `hour` o'clock in the zone."""
        if hour is None:
            return t
        local = (EPOCH + timedelta(microseconds=t)).astimezone(zone_of(zone))
        at = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        at += timedelta(microseconds=round(hour * HOUR))
        if at.replace(tzinfo=None) < local.replace(tzinfo=None):
            at += timedelta(days=1)
        return (at.astimezone(UTC) - EPOCH) // timedelta(microseconds=1)

    # What happens

    def run(self) -> Twin:
        env = self.env = simpy.Environment(initial_time=self.start - round(self.world.history_days * DAY))
        # Made first, so that a refresh comes before everything else of its instant.
        for at in [*range(self.start, self.end, self.program.refresh), self.end]:
            env.process(self.refresh(at))
        for user in self.users:
            env.process(self.buys_anyway(user))
            env.process(self.tested(user))
            for at, place in self.planned_for(user):
                env.process(self.message(user, at, place))
        env.run()
        self.unheard_sends = self.sends_on_the_way + self.lost_sends
        self.unheard_events = self.on_the_way
        return self

    def until(self, t: int) -> Any:
        return self.env.timeout(t - self.env.now)

    def refresh(self, at: int) -> Generator[Any, Any, None]:
        yield self.until(at)
        sends = [r for r in self.sends_on_the_way if r["received_at"] <= at]
        events = [r for r in self.on_the_way if r["received_at"] <= at]
        self.sends_on_the_way = [r for r in self.sends_on_the_way if r["received_at"] > at]
        self.on_the_way = [r for r in self.on_the_way if r["received_at"] > at]
        self.state, tick = step(self.machine, self.state, Batch(table(Sends, sends), table(Events, events)), at)
        self.batches.append((sends, events))
        self.ticks.append(tick)

    def buys_anyway(self, user: User) -> Generator[Any, Any, None]:
        rate = self.world.organic_per_user_day * self.factor(user, self.world.organic_by)
        rate *= spread_factor(self.world.organic_spread, self.u("organic spread", user))
        t = user.signed_up - round(self.world.history_days * DAY)
        for k in itertools.count() if rate else ():
            wait = min(-float(np.log1p(-self.u("organic", user, 0, k))) * (DAY / rate), CENTURY * DAY)
            t = self.later(user, t, int(wait), organic=True)
            if t >= self.end:
                return
            yield self.until(t)
            earlier = [x for x in user.brought_forward if x < self.floor(t)]
            if earlier:
                user.brought_forward.remove(min(earlier))
                continue
            self.purchase(user, codes.purchase_code(user.number, codes.ORGANIC, k), t, self.world.value, NONE)

    def tested(self, user: User) -> Generator[Any, Any, None]:
        rate, t = self.t.test_purchases_per_user_day, user.signed_up
        for k in itertools.count() if rate else ():
            t += waiting(DAY / rate, self.u("test purchase", user, 0, k))
            if t >= self.end:
                return
            yield self.until(t)
            code = codes.purchase_code(user.number, codes.TESTED, k)
            self.tell(self.event(user, CONVERSION, code, t, value=40_000_000, name=0, currency=0), NONE)

    def message(self, user: User, at: int, place: int) -> Generator[Any, Any, None]:
        yield self.until(at)
        self.planned += 1
        if user.stop_at <= at:
            self.stopped += 1
            return
        template = place % codes.TEMPLATES
        arm, propensity = self.chosen(user, place, template)
        held = self.u("holdout", user) < self.program.holdout_share
        if held:
            arm, propensity = 0, math.nan
        suppressed = not held and self.u("suppressed", user, place) < self.world.suppressed_rate
        variant = self.s.variants_of(self.touches[template])[arm]
        segment = segment_of(self.program.segments, user.has)
        send = {
            "send": codes.send_code(user.number, place, len(self.touches), self.times),
            "rep": user.rep, "user": user.number, "template": template, "variant": self.variant_codes.index(variant.id),
            "sent_at": at, "decided_at": at, "received_at": at, "propensity": propensity,
            "status": HELD_OUT if held else SUPPRESSED if suppressed else SENT,
            "segment": self.segments.index(segment) if segment else NONE,
        }  # fmt: skip
        if held:
            self.sends_on_the_way.append(send | {"received_at": at + 1})
        elif suppressed:
            self.suppressed.append(send)
        else:
            self.webhook(user, send, place)
            self.respond(user, send["send"], at, place, variant)

    def chosen(self, user: User, place: int, template: int) -> tuple[int, float]:
        tick, u = self.ticks[-1], self.u("choice", user, place)
        live = tick.live[template, user.rep]
        if self.program.split == "external":
            may = [0, *(a for a in range(1, len(live)) if live[a])]
            arm, propensity = may[int(u * len(may))], math.nan
        else:
            row = 0
            if self.machine.segments:
                segment = segment_of(self.program.segments, user.has)
                row = self.segments.index(segment) + 1 if segment else 0
            shares = tick.shares[template, user.rep, row].tolist()
            if self.program.sticky == "arm":  # the user's own draw says control or treatment, this one which treatment
                control = shares[0]
                if self.u("split", user) < control:
                    u = control * u
                else:
                    u = min(control + (1 - control) * u, math.nextafter(1.0, 0.0))
            arm = next((a for a, edge in enumerate(itertools.accumulate(shares)) if u < edge and shares[a]), -1)
            arm = arm if arm >= 0 else max(a for a, share in enumerate(shares) if share)
            propensity = shares[arm]
        if self.program.sticky == "variant":
            kept = user.kept.get(template, (-1, math.nan))
            shipped = self.program.shipping is not None and tick.shares[template, user.rep, 0, 0] == 0
            if (kept[0] > 0 and live[kept[0]]) or (kept[0] == 0 and not shipped):
                arm, propensity = kept
            user.kept[template] = arm, propensity
        return arm, propensity

    def respond(self, user: User, send: int, t: int, place: int, v: Variant) -> None:
        world = self.world

        def draw(purpose: str) -> float:
            return self.u(purpose, user, place)

        def told(kind: int, at: int, machine: int = -1) -> None:
            code = codes.event_code(user.number, place, kind)
            self.tell(self.event(user, kind, code, at, send=send, machine=machine), code)

        if draw("bounce") < world.bounce_rate:
            user.stop_at = t
            told(BOUNCE, t + 30 * SECOND)
            return
        faded = float(np.exp(-math.log(2) * (t - user.loaded_at) / (world.fatigue_days * DAY)))
        tired = user.load * faded
        user.load, user.loaded_at = tired + 1, t
        worn = float(np.exp(-world.fatigue * tired))
        engaged = spread_factor(world.engagement_spread, self.u("engagement spread", user))
        opening = min(v.open_rate * engaged, 1.0) * worn
        opened = draw("open") < opening
        clicked = opened and draw("click") < v.click_rate
        leaving = min(v.unsubscribe_rate * float(np.exp(world.fatigue_unsubscribe * tired)), 1.0)
        open_at = self.later(user, t, waiting(world.open_delay_hours * HOUR, draw("open delay")))
        if opened:
            told(OPEN, open_at, 0)
        if clicked:
            told(CLICK, open_at + waiting(world.click_delay_minutes * MINUTE, draw("click delay")), 0)
        if draw("unsubscribe") < leaving:
            leave_at = self.later(user, t, waiting(world.unsubscribe_delay_hours * HOUR, draw("unsubscribe delay")))
            told(UNSUBSCRIBE, leave_at)
            user.stop_at = min(user.stop_at, leave_at)
        if draw("conversion") < self.buying(user, t, v, worn) * self.lift(opening, v.click_rate, opened, clicked):
            self.caused(user, send, t, place, v)
        self.machines(user, send, t, place)

    def buying(self, user: User, t: int, v: Variant, worn: float) -> float:
        p = v.conversion_rate * self.factor(user, v.segments)
        p *= float(np.exp(v.drift * (t - self.start) / (30 * DAY)))
        since = max(t - (self.start + v.from_day * DAY), 0)
        p *= 1 + v.novelty * float(np.exp(-since / (v.novelty_days * DAY)))
        p *= spread_factor(self.world.conversion_spread, self.u("conversion spread", user))
        for s in self.world.shocks:
            if self.start + s.day * DAY <= t < self.start + (s.day + s.days) * DAY:
                p *= s.conversion
        p = p * worn + self.world.carry_over * user.carried
        user.carried = v.conversion_rate
        return min(p, 1.0)

    def lift(self, opening: float, clicking: float, opened: bool, clicked: bool) -> float:
        """How much likelier this user buys, having opened or clicked or neither; 1 on average."""
        a, b = self.world.open_effect, self.world.click_effect
        mean = 1 - opening + opening * ((1 - clicking) * a + clicking * b)
        return (b if clicked else a if opened else 1.0) / mean if mean else 0.0

    def caused(self, user: User, send: int, t: int, place: int, v: Variant) -> None:
        law = v.delay or self.world.delay
        for j in range(9):
            days = min(days_of(law, self.u("conversion delay", user, place, j)), CENTURY)
            t = self.later(user, t, int(days * DAY))
            code = codes.event_code(user.number, place, CONVERSION if j == 0 else codes.AGAIN + j - 1)
            self.purchase(user, code, t, v.value or self.world.value, send)
            if self.u("again", user, place, j) >= self.world.repeat_rate:
                return

    def purchase(self, user: User, code: int, t: int, law: Value, cause: int) -> None:
        amount = amount_of(law, self.of("value", user.rep, code), self.esp.money_grid)
        order = code if self.orders and self.world.refund_rate else NONE
        bought = self.event(user, CONVERSION, code, t, value=amount, name=0, currency=0, order=order)
        self.happened(bought, cause)
        if cause != NONE and self.of("replaces", user.rep, code) < self.world.replaces_organic:
            user.brought_forward.append(self.floor(t))
        if amount > 0 and self.of("refund", user.rep, code) < self.world.refund_rate:
            back = t + waiting(self.world.refund_delay_days * DAY, self.of("refund delay", user.rep, code))
            self.happened(
                bought | {"event": code + codes.REFUND, "occurred_at": self.floor(back), "value": -amount}, cause
            )

    def happened(self, e: Row, cause: int) -> None:
        self.truth.append({k: e[k] for k in ("event", "rep", "occurred_at", "value")} | {"cause": cause})
        self.tell(e, e["event"])

    def event(self, user: User, kind: int, code: int, t: int, **columns: Any) -> Row:
        return {
            "event": code,
            "rep": user.rep,
            "user": user.number,
            "kind": kind,
            "occurred_at": self.floor(t),
            **columns,
        }

    # What we are told

    def webhook(self, user: User, send: Row, place: int) -> None:
        code = codes.event_code(user.number, place, codes.LATENCY)
        heard = []
        for k in (0, 1):
            if k == 0 or self.of("duplicate", user.rep, code) < self.t.duplicate_share:
                received, lost = self.arrival(user.rep, code, send["sent_at"], k)
                heard += [] if lost else [send | {"received_at": received}]
        self.sends_on_the_way += heard
        self.lost_sends += [] if heard else [send | {"received_at": MISSING}]

    def machines(self, user: User, send: int, t: int, place: int) -> None:
        """Mail clients that fetch every message, and gateways that follow every link."""
        for purpose, share, kind, what, mean in (
            ("machine client", self.t.machine_open_share, OPEN, codes.MACHINE_OPEN, MINUTE),
            ("scanner", self.t.scanner_share, CLICK, codes.SCANNER_CLICK, 20 * SECOND),
        ):
            if self.u(purpose, user) < share:
                code = codes.event_code(user.number, place, what)
                at = t + waiting(mean, self.of("machine delay", user.rep, code))
                flagged = self.of("machine flagged", user.rep, code) < self.t.machine_flagged
                self.tell(self.event(user, kind, code, at, send=send, machine=int(flagged)), NONE)

    def tell(self, true: Row, origin: int) -> None:
        rep, code = true["rep"], true["event"]
        told = self.garbled(true)
        paid = true["kind"] == CONVERSION
        refused = paid and (
            (told["user"] == NONE and self.needs_user) or (true["value"] < 0 and told["value"] == MISSING)
        )
        copies = [(0, 1.0, ""), (1, self.t.duplicate_share, "duplicate"), (2, self.t.recoded_share, "recoded")]
        for k, share, purpose in copies:
            if k and self.of(purpose, rep, code) >= share:
                continue
            received, lost = self.arrival(rep, code, true["occurred_at"], k)
            if lost or refused:
                self.lost += 1
                continue
            event = told["event"] + codes.RECODED * (k == 2)
            self.on_the_way.append(told | {"event": event, "received_at": received, "origin": origin})

    def garbled(self, true: Row) -> Row:
        if true["kind"] != CONVERSION:
            return true
        t, rep, code, told = self.t, true["rep"], true["event"], dict(true)
        if self.of("reused id", rep, code) < t.reused_id_share:
            told["event"] = codes.purchase_code(true["user"], codes.ORGANIC, codes.SHARED_ID)
        renamed = t.renamed_from_day is not None and true["occurred_at"] >= self.start + round(t.renamed_from_day * DAY)
        if renamed or self.of("wrong name", rep, code) < t.wrong_name_share:
            told["name"] = 1
            told["event"] += codes.MISNAMED
        if not self.valued[told["name"]]:
            told |= {"value": MISSING, "currency": NONE}
        if self.of("missing user", rep, code) < t.missing_user_share:
            told["user"] = NONE
        if t.clock_skew_seconds:
            skew = t.clock_skew_seconds * float(special.ndtri(self.of("clock skew", rep, code))) * 1e6
            told["occurred_at"] = self.floor(told["occurred_at"] + round(skew))
        if self.of("zone error", rep, code) < t.zone_error_share:
            told["occurred_at"] += t.zone_error_hours * HOUR
        return told

    def arrival(self, rep: int, code: int, t: int, k: int) -> tuple[int, bool]:
        """When the k-th copy of a webhook reaches us, and whether it never does."""
        f = self.t
        at = t + waiting(f.webhook_delay_minutes * MINUTE, self.of("webhook delay", rep, code, k))
        if k:
            at += waiting(6 * HOUR, self.of("copy delay", rep, code, k))
        if self.of("late", rep, code, k) < f.late_share:
            at += waiting(f.late_hours * HOUR, self.of("late by", rep, code, k))
        at = max(at, t + 1)
        lost = self.of("lost", rep, code, k) < f.lost_share
        for tried in [at, *(at + a for a in self.tries)]:
            down = [
                o for o in sorted(f.outages, key=lambda o: o.day)
                if self.start + round(o.day * DAY) <= tried < self.start + round(o.day * DAY) + round(o.hours * HOUR)
            ]  # fmt: skip
            if not down:
                return tried, lost
            if not down[0].backlog:
                break
        return at, True


def table(kind: type[Table], rows: list[Row]) -> Any:
    """A table of rows; what a row does not say is missing."""
    columns = {}
    for c in kind.SCHEMA:
        if any(c.name in r for r in rows):
            columns[c.name] = [r.get(c.name, c.missing) for r in rows]
    return kind.build(len(rows), **columns) if rows else kind.empty()
