"""What the window leaves out, and what another would credit: never without what that is worth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import special

from justai_sim.checks.facts import Facts
from justai_sim.checks.finding import LEVEL, Finding, NotChecked, Number, Said, at_least, count, percent
from justai_sim.checks.price import MORE_IS_NOT_BETTER, Price, Prices
from justai_sim.clock import DAY
from justai_sim.tables import REASON

MATERIAL = 0.05
"""Part of the goal conversions of users with a send from which on it is worth a line."""


def window(f: Facts) -> Iterator[Said]:
    """Conversions in the ignored first days, and after the window."""
    if not len(f.goal) or not len(f.sent):
        yield NotChecked("window", "there are no goal conversions, or no sends")
        return
    oldest = int(f.log.sends.sent_at[f.sent].min())
    if f.as_of - oldest < f.rule.offset:
        yield Finding(
            "too_early", "note",
            f"The oldest send is {(f.as_of - oldest) / DAY:.1f} days old, and the first {f.rule.offset_days:g} days "
            "are ignored: nothing can count yet.", "Wait; an empty result is expected until then.",
            {"oldest_send_days": (f.as_of - oldest) / DAY},
        )  # fmt: skip
    reason = f.got.reason[f.goal]
    n = {k: int((reason == REASON[k]).sum()) for k in ("credited", "in_offset", "past_lookback")}
    prices = Prices(f)
    whole = sum(n.values())
    if at_least(n["in_offset"], whole) > MATERIAL:
        yield _in_offset(f, prices, n, whole)
    if at_least(n["past_lookback"], whole) > MATERIAL:
        yield _past_lookback(f, prices, n, whole)


def _in_offset(f: Facts, prices: Prices, n: dict[str, int], whole: int) -> Finding:
    times = _early(f)
    days = sorted({0.0, 1.0} & {d for d in (0.0, 1.0) if d < f.rule.offset_days})
    numbers: dict[str, Number] = {"conversions": n["in_offset"], "share": n["in_offset"] / whole, "early_rate": times}
    said, more = _compared(prices, n["credited"], {f"offset {d:g}": {"offset_days": d} for d in days})
    faster = f" They come {times:.1f} times as fast there as inside the window." if times > 1 else ""
    return Finding(
        "in_offset", "doubtful" if times > 1 else "note",
        f"{MORE_IS_NOT_BETTER}: {count(n['in_offset'], 'goal conversion')} ({percent(n['in_offset'], whole)}) fell "
        f"into the ignored first {f.rule.offset_days:g} days.{faster} {said}",
        "Compare the windows with justai-sim surface; choose by what tells variants apart, not by what credits most.",
        numbers | more,
    )  # fmt: skip


def _early(f: Facts) -> float:
    """How many times as fast goal conversions come in the offset as in the window, since the latest send; 1 where
    that is not beyond chance."""
    rule = f.rule
    age = f.ages.since(f.user[f.goal], f.occurred[f.goal])
    days = f.ages.exposure(np.array([0, rule.offset, rule.upper], np.float64))
    early = int(((age >= 0) & (age < rule.offset)).sum())
    later = int(((age >= rule.offset) & (age < rule.upper)).sum())
    if not days.min() > 0 or early + later == 0:
        return 1.0
    p = float(special.bdtrc(early - 1, early + later, days[0] / days.sum())) if early else 1.0
    return (early / days[0]) / (max(later, 1) / days[1]) if p < LEVEL else 1.0


def _past_lookback(f: Facts, prices: Prices, n: dict[str, int], whole: int) -> Finding:
    longer = min(2 * f.rule.lookback_days, 36_500)
    said, more = _compared(prices, n["credited"], {f"lookback {longer:g}": {"lookback_days": longer}})
    return Finding(
        "past_lookback", "note",
        f"{MORE_IS_NOT_BETTER}: {count(n['past_lookback'], 'goal conversion')} ({percent(n['past_lookback'], whole)}) "
        f"came after day {f.rule.upper_days:g}. {said}",
        "Look at the age figure of justai-sim replay --out: what comes at a level rate would have come anyway.",
        {"conversions": n["past_lookback"], "share": n["past_lookback"] / whole} | more,
    )  # fmt: skip


def _compared(
    prices: Prices, credited: int, windows: dict[str, dict[str, float]]
) -> tuple[str, dict[str, Number]]:  # fmt: skip
    """What each window would give, beside the one in use, in words and numbers."""
    use = told = prices.of()
    said, numbers = [f"In use, {credited:,} are credited ({use.words()})."], _prefixed("in_use", use)
    for name, change in windows.items():
        price = prices.of(**change)
        told = told if np.isfinite(told.needed) else price
        said.append(f"{name[:1].upper()}{name[1:]} would give {price.credited - credited:,} more ({price.words()}).")
        numbers |= {f"{name.replace(' ', '_')}_more": price.credited - credited} | _prefixed(name, price)
    return " ".join([*said, told.terms()]), numbers


def _prefixed(name: str, price: Price) -> dict[str, Number]:
    return {f"{name.replace(' ', '_')}_{k}": v for k, v in price.numbers().items()}
