"""The closed loop (choice, response, attribution, learning, allocation) beside what it could be done with.

python benchmarks/simulate.py [--reps 200] [--sends 20000]    simpy, NumPy's draws, one long replication, memory
python benchmarks/simulate.py --large 10000000                time and memory of one run of that many sends
python benchmarks/simulate.py --wire                          rows a second through a provider's payloads and back

Five messages over 13 days, 60 days, 4 arms with the control, daily refresh, default rule and policy. Every run of ours
is a process of its own, compiled beforehand. Processor time; ratios are what counts.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from statistics import NormalDist
from typing import Any

import msgspec
import numpy as np
import simpy

from justai_sim import streams_kernel
from justai_sim.bandit.choose import final_shares
from justai_sim.bandit.policy import Policy
from justai_sim.bandit.registry import policy
from justai_sim.bandit.tally import Shape, Tally
from justai_sim.clock import DAY, HOUR, MINUTE
from justai_sim.scenario import Scenario, parse
from justai_sim.sim.engine import Block, simulate_block
from justai_sim.streams import uniform_one
from justai_sim.tables import BOUNCE, CLICK, CONVERSION, OPEN, UNSUBSCRIBE
from justai_sim.world import laws
from justai_sim.world.codes import LATENCY, ORGANIC, SHARED_ID, event_code, purchase_code

DAYS, STEPS = 60, (0, 2, 5, 10, 13)
PER_SIGNUP = sum(DAYS - d for d in STEPS)
"""Sends in a run, for each user that signs up a day."""


def scenario(sends: int, esp: str = "generic") -> Scenario:
    """A world with about so many sends in a replication."""
    rates = {"control": 0.015, "benefit": 0.015, "story": 0.021, "discount": 0.012}
    arms = "".join(f'[[variants]]\nid = "{v}"\nconversion_rate = {r}\n' for v, r in rates.items())
    flow = "".join(f'[[flow]]\nid = "message-{i}"\nday = {d}\n' for i, d in enumerate(STEPS))
    text = f"""name = "loop"\ndays = {DAYS}\nesp = "{esp}"\n[program]\ngoals = ["purchase"]
[telemetry]\nclean = true\n[world]\nsignups_per_day = {sends / PER_SIGNUP}\n{arms}{flow}"""
    return parse(text, "benchmark")


# -- the obvious way: a simpy process a message --------------------------------------------------------------

Draw = Callable[..., float]


class Slow:
    """One replication, one process for each user's message and for each thing that comes back."""

    def __init__(self, s: Scenario, draw: Draw) -> None:
        self.s, self.world, self.u, self.env = s, s.world, draw, simpy.Environment(s.start_us)
        self.flow = sorted(s.flow, key=lambda step: step.id)
        self.arms = s.variants
        self.chosen: Policy = policy(s.program.policy.name)
        self.stop: dict[int, int] = {}
        self.sent: dict[tuple[int, int], dict[str, Any]] = {}
        self.n = np.zeros((len(self.flow), len(self.arms)))
        self.y = np.zeros_like(self.n)
        self.seen: list[tuple[Any, Any, Any]] = []
        self.shares: Any = None

    def run(self) -> Slow:
        self.env.process(self.refreshes())
        user = 0
        for day in range(self.s.days):
            for _ in range(self.poisson(self.world.signups_per_day, self.u("signups", day))):
                at = self.s.start_us + day * DAY + int(self.u("signup time", user) * DAY)
                self.env.process(self.organic(user, at))
                for template, step in enumerate(self.flow):
                    self.env.process(self.message(user, template, at + round(step.day * DAY)))
                user += 1
        self.env.run(self.s.end_us + 1)
        return self

    @staticmethod
    def poisson(mean: float, u: float) -> int:
        k, p = 0, math.exp(-mean)
        total = p
        while u > total:
            k += 1
            p *= mean / k
            total += p
        return k

    @staticmethod
    def exponential(mean: float, u: float) -> int:
        return int(-mean * math.log1p(-u))

    def latency(self, code: int) -> int:
        return self.exponential(self.s.telemetry.webhook_delay_minutes * MINUTE, self.u("webhook delay", code))

    def refreshes(self) -> Generator[Any, Any, None]:
        """Shares from what was heard so far."""
        program, K = self.s.program, len(self.arms)
        live = np.ones((1, K), bool)
        for _ in range(self.s.days + 1):
            out = []
            for n, y in zip(self.n, self.y, strict=True):
                tally = Tally(*(a.reshape(1, 1, K, 1) for a in (n, y, y)))
                state = self.chosen.init(program.policy, Shape(1, 1, K, metric=program.key_metric))
                shares = self.chosen.allocate(state, tally, live, int(self.env.now))
                out.append(final_shares(shares, live, program.control_share, 0.0, 0.0)[0, 0])
            self.shares = np.stack(out)
            self.edges = np.cumsum(self.shares, axis=1).tolist()
            self.seen.append((self.n.copy(), self.y.copy(), self.shares))
            yield self.env.timeout(program.refresh)

    def message(self, user: int, template: int, at: int) -> Generator[Any, Any, None]:
        if at >= self.s.end_us:
            return
        yield self.env.timeout(at - self.env.now)
        if self.stop.get(user, at + 1) <= at:
            return
        u, edges = self.u("choice", user, template), self.edges[template]
        arm = next((k for k, edge in enumerate(edges[:-1]) if u < edge), len(edges) - 1)
        variant, world = self.arms[arm], self.world
        send = {"template": template, "arm": arm, "at": at, "bounced": False, "heard": False, "converted": False,
                "revenue": 0.0, "opened": False, "clicked": False, "left": False}  # fmt: skip
        self.sent[user, template] = send
        self.env.process(self.arrives(send, at + self.latency(self.code(user, template, LATENCY))))
        if self.u("bounce", user, template) < world.bounce_rate:
            self.stop[user] = at
            self.env.process(self.bounces(send, at + 30_000_000 + self.latency(self.code(user, template, BOUNCE))))
            return
        if self.u("open", user, template) < variant.open_rate:
            opened = at + self.exponential(world.open_delay_hours * HOUR, self.u("open delay", user, template))
            self.env.process(self.responds(send, "opened", opened + self.latency(self.code(user, template, OPEN))))
            if self.u("click", user, template) < variant.click_rate:
                late = self.exponential(world.click_delay_minutes * MINUTE, self.u("click delay", user, template))
                at_click = opened + late + self.latency(self.code(user, template, CLICK))
                self.env.process(self.responds(send, "clicked", at_click))
        if self.u("unsubscribe", user, template) < variant.unsubscribe_rate:
            gone = at + self.exponential(
                world.unsubscribe_delay_hours * HOUR, self.u("unsubscribe delay", user, template)
            )
            self.stop[user] = min(self.stop.get(user, gone), gone)
            code = self.code(user, template, UNSUBSCRIBE)
            self.env.process(self.responds(send, "left", gone + self.latency(code)))
        if self.u("conversion", user, template) < variant.conversion_rate:
            bought = at + self.exponential(world.delay.mean_days * DAY, self.u("conversion delay", user, template))
            self.env.process(self.purchase(user, bought, self.code(user, template, CONVERSION)))

    @staticmethod
    def code(user: int, template: int, what: int) -> int:
        return int(event_code(user, template, what))  # type: ignore[arg-type]

    def organic(self, user: int, signed_up: int) -> Generator[Any, Any, None]:
        t = signed_up - round(self.world.history_days * DAY)
        for k in range(SHARED_ID):
            t += self.exponential(DAY / self.world.organic_per_user_day, self.u("organic", user, 0, k))
            if t >= self.s.end_us:
                return
            self.env.process(self.purchase(user, t, int(purchase_code(user, ORGANIC, k))))  # type: ignore[arg-type]
            yield self.env.timeout(max(t - self.env.now, 0))

    def arrives(self, send: dict[str, Any], at: int) -> Generator[Any, Any, None]:
        yield self.env.timeout(at - self.env.now)
        send["heard"] = True
        self.n[send["template"], send["arm"]] += not send["bounced"]

    def bounces(self, send: dict[str, Any], at: int) -> Generator[Any, Any, None]:
        yield self.env.timeout(at - self.env.now)
        send["bounced"] = True
        self.n[send["template"], send["arm"]] -= send["heard"]

    def responds(self, send: dict[str, Any], what: str, at: int) -> Generator[Any, Any, None]:
        yield self.env.timeout(at - self.env.now)
        send[what] = True

    def purchase(self, user: int, at: int, code: int) -> Generator[Any, Any, None]:
        """Credit, as soon as we hear of it, to the user's message of each template in the window."""
        value, rule = self.world.value, self.s.program.rule
        normal = NormalDist().inv_cdf(self.u("value", code))
        amount = round(value.mean * math.exp(value.sigma * normal - value.sigma**2 / 2), 2)
        yield self.env.timeout(max(at + self.latency(code) - self.env.now, 0))
        for template in range(len(self.flow)):
            send = self.sent.get((user, template))
            if send is None or send["bounced"] or not rule.offset <= at - send["at"] < rule.upper:
                continue
            send["revenue"] += amount
            self.y[template, send["arm"]] += not send["converted"]
            send["converted"] = True


def slow(s: Scenario, hashed: bool) -> Slow:
    """With our own draws, so that every number must agree; or with Python's, which are faster."""
    if hashed:
        return Slow(s, lambda purpose, user, place=0, k=0: uniform_one(s.seed, purpose, 0, user, place, k)).run()
    rng = random.Random(1)
    return Slow(s, lambda *_: rng.random()).run()


def agree(s: Scenario) -> bool:
    """Trials, conversions and shares of every refresh, revenue and clicks at the end."""
    theirs, block = slow(s, hashed=True), simulate_block(s, range(1))
    ours = block.ticks
    earned, n = block.state.earned, block.state.sends.n
    money = sum(x["revenue"] for x in theirs.sent.values())
    return (
        len(theirs.seen) == len(ours)
        and all(np.array_equal(n, t.n[:, 0]) and np.array_equal(y, t.y[:, 0])
                for (n, y, _), t in zip(theirs.seen, ours, strict=True))
        and all(np.allclose(x, t.shares[:, 0, 0], rtol=0, atol=1e-12)
                for (*_, x), t in zip(theirs.seen, ours, strict=True))
        and math.isclose(money, earned.revenue[:n].sum() / 1e6, rel_tol=1e-3)
        and sum(x["clicked"] for x in theirs.sent.values() if x["heard"]) == earned.clicks[:n].sum()
        and ours[-1].y.sum() > 50
    )  # fmt: skip


# -- drawing as many numbers ---------------------------------------------------------------------------------


def draws(s: Scenario, reps: int) -> list[tuple[str, int]]:
    """Law and number of every portion of random variates that a block of worlds draws."""
    found: list[tuple[str, int]] = []
    kernel, law = streams_kernel.uniforms, {k: getattr(laws, k) for k in ("exponential", "amount", "poisson", "delay")}

    def uniforms(key: Any, rep: Any, *rest: Any) -> Any:
        found.append(("random", len(rep)))
        return kernel(key, rep, *rest)

    def counted(name: str) -> Callable[..., Any]:
        def of(spec: Any, u: Any, *rest: Any) -> Any:
            found.append((name, len(u)))
            return law[name](spec, u, *rest)

        return of

    streams_kernel.uniforms = uniforms
    for name in law:
        setattr(laws, name, counted(name))
    try:
        simulate_block(s, range(reps))
    finally:
        streams_kernel.uniforms = kernel
        for name, f in law.items():
            setattr(laws, name, f)
    return found


def numpy_draws(portions: list[tuple[str, int]]) -> tuple[int, float]:
    """How many variates, and the seconds that numpy takes for them: each of its law, in the same portions."""
    rng = np.random.default_rng(1)
    of = {"exponential": rng.standard_exponential, "delay": rng.standard_exponential,
          "amount": lambda n: rng.lognormal(size=n), "poisson": lambda n: rng.poisson(70, n)}  # fmt: skip
    transformed = sum(n for law, n in portions if law != "random")
    total = sum(n for law, n in portions if law == "random")
    plain = [n for law, n in portions if law == "random"]
    share = 1 - transformed / total  # of each portion of uniforms so many become nothing else
    start = time.process_time()
    for n in plain:
        rng.random(round(n * share))
    for law, n in portions:
        if law != "random":
            of[law](n)
    return total, time.process_time() - start


# -- ours ----------------------------------------------------------------------------------------------------


def one(reps: int, sends: int, esp: str = "generic", wire: bool = False) -> dict[str, float]:
    """A run in a process of its own: seconds, sends, events, peak memory above the start."""
    args = [sys.executable, __file__, "--one", str(reps), str(sends), esp, str(int(wire))]
    out = subprocess.run(args, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(out)
    return found


def _one(reps: int, sends: int, esp: str, wire: bool) -> dict[str, float]:
    def run(reps: int, sends: int) -> Block:
        return simulate_block(scenario(sends, esp), range(reps), wire=wire)

    run(2, 1000)
    alone = bare(scenario(sends, esp)) if wire else 0.0
    before = peak()
    start = time.process_time()
    block = run(reps, sends)
    seconds = time.process_time() - start
    state = block.state
    return {"seconds": seconds, "sends": state.sends.n, "events": state.events.n, "bytes": peak() - before,
            "before": before, "bare": alone}  # fmt: skip


def peak() -> int:
    """The most memory that this process has held, bytes (what the system tells of a child includes its parent's)."""
    with open("/proc/self/status", encoding="ascii") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))


def beside(reps: int, sends: int) -> None:
    small = scenario(3000)
    print(f"simpy's trials, conversions, shares, clicks and revenue {'equal' if agree(small) else 'DIFFERENT'}\n")
    start = time.process_time()
    peer = slow(scenario(sends), hashed=False)
    simpy_each = (time.process_time() - start) / len(peer.sent)
    portions = draws(scenario(sends), reps)
    number, seconds = min((numpy_draws(portions) for _ in range(3)), key=lambda x: x[1])
    many, long = one(reps, sends), one(1, reps * sends)
    each = many["seconds"] / many["sends"]
    print("| what | sends | us a send | x ours |\n|---|---|---|---|")
    print(f"| justai_sim, {reps} x {sends:,} | {many['sends']:,} | {each * 1e6:.3f} | 1.00 |")
    for what, n, cost in (
        ("simpy, a process a message, 1 replication", len(peer.sent), simpy_each),
        (f"NumPy, {number / many['sends']:.1f} variates a send", many["sends"], seconds / many["sends"]),
        (f"justai_sim, 1 x {reps * sends:,}", long["sends"], long["seconds"] / long["sends"]),
    ):
        print(f"| {what} | {n:,} | {cost * 1e6:.3f} | {cost / each:.3g} |")
    print()
    for r in (many, long):
        print(memory(r))


def memory(r: dict[str, float]) -> str:
    per = r["bytes"] / r["sends"]
    total = (r["before"] + per * 50e6) / 2**30
    return f"{r['sends']:,} sends, {r['events']:,} events: {per:.0f} bytes a send; 50 M would take {total:.1f} GiB"


def bare(s: Scenario) -> float:
    """Seconds that msgspec takes to decode and encode a payload of one world, keeping nothing."""
    wire = simulate_block(s, range(1), wire=True, keep_journal=True).wire
    assert wire is not None
    bodies, found = [body for _, body in wire.journal[0]], []
    decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode
    for _ in range(5):
        start = time.process_time()
        for body in bodies:
            encode(decode(body))
        found.append(time.process_time() - start)
    return min(found) / len(bodies)


def through_the_wire() -> None:
    print("| provider | rows | rows a second | bare decode and encode | times as long |\n|---|---|---|---|---|")
    for esp in ("generic", "braze", "segment", "customerio", "iterable", "sfmc"):
        plain, wire = one(20, 4000, esp), one(20, 4000, esp, wire=True)
        rows = wire["sends"] + wire["events"]
        each = (wire["seconds"] - plain["seconds"]) / rows
        print(
            f"| {esp} | {rows:,} | {1 / each:,.0f} | {1 / wire['bare']:,.0f} | {each / wire['bare']:.1f} |", flush=True
        )


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--reps", type=int, default=200)
    p.add_argument("--sends", type=int, default=20_000)
    p.add_argument("--large", type=int)
    p.add_argument("--wire", action="store_true")
    p.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = p.parse_args()
    if given.one:
        reps, sends, esp, wire = given.one
        print(json.dumps(_one(int(reps), int(sends), esp, bool(int(wire)))))
    elif given.large:
        r = one(1, given.large)
        print(f"{r['seconds']:.1f} s, {r['seconds'] / r['sends'] * 1e6:.3f} us a send; {memory(r)}")
    elif given.wire:
        through_the_wire()
    else:
        beside(given.reps, given.sends)


if __name__ == "__main__":
    main()
