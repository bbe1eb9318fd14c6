"""The smallest lift that a stopping rule can see, as a number and as a sentence."""

from __future__ import annotations

import math

from scipy import special

from justai_sim import stats
from justai_sim.bandit.stopping import READY_SENDS, Significance, Stop, root


def smallest_lift(
    rule: Stop, base: float, control: float, variant: float, power: float = 0.8, *, variants: int = 1
) -> float:
    """The smallest relative lift over a base rate that `rule` ships, at one look at these counts, with that power.

    `control` and `variant` trials, `variants` compared at once. Upwards: where lower is better turn the outcome round.
    Solves q - p = needed + z_power se for the lifted rate q, se with each group's own variance (Fleiss, Levin & Paik
    2003, ch. 4, for the pooled test: then it equals `stats.min_detectable_lift(..., variance="solved")`). The usual
    planning formula takes the base rate's variance for both and promises more. Inf where no lift up to a rate of 1 is
    seen, nan without trials.

    >>> [round(smallest_lift(Significance(), 0.02, n, 1000), 2) for n in (1000, 333)]
    [1.08, 1.74]
    """
    if not (0 < base < 1 and control > 0 and variant > 0):
        return math.nan
    z_power = float(special.ndtri(power))

    def excess(q: float) -> float:
        own = math.sqrt(base * (1 - base) / control + q * (1 - q) / variant)
        return rule.needed(base, q, control, variant, variants) + z_power * own - (q - base)

    return math.inf if excess(1.0) > 0 else root(excess, base, 1.0) / base - 1


def sees(base: float, control: float, variant: float = READY_SENDS, *, power: float = 0.8) -> str:
    """What the product's test can see when a variant is ready, in a sentence: for wherever 1,000 sends are mentioned.

    >>> print(sees(0.02, 1000))
    at 2 %, 1,000 sends against 1,000 of the control see +108 % (80 % power; the planning formula says +88 %)
    >>> print(sees(0.02, 333))
    at 2 %, 1,000 sends against 333 of the control see +174 % (80 % power; the planning formula says +124 %)
    """
    own = smallest_lift(Significance(), base, control, variant, power)
    planned = stats.min_detectable_lift(base, control, variant, power)
    return (
        f"at {base * 100:.2g} %, {variant:,.0f} sends against {control:,.0f} of the control see {_percent(own)} "
        f"({power * 100:.0f} % power; the planning formula says {_percent(planned)})"
    )


def _percent(lift: float) -> str:
    return "nothing" if not math.isfinite(lift) else f"{lift * 100:+.0f} %"
