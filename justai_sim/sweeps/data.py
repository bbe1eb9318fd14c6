"""A finished sweep as frames."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from justai_sim.scenario import Point, Scenario


@dataclass(frozen=True)
class SweepData:
    """A finished sweep.

    metrics: one row a point, replication, template, variant, metric: `point` (name), one column per axis
    (label), `rep, template_id, variant_id, metric, value`. Metrics: sends, mature_sends, opens, clicks,
    conversions (numerator of the rate), conversion_count, unsubscribes, revenue (units), conversion_rate,
    true_rate (causal conversions per delivered send that the variant was given), caused (conversions that
    the variant's sends caused in the run, credited or not), credited_own (credited to the send that caused
    it), credited_borrowed (caused by another send), credited_organic, share_at_end (what the policy gives
    the variant at the end).
    race: `point`, axes, `rep, day` (days since start), `right_leader` (share of templates whose leading
    variant is the best), `right_for_good` (and stays so until the end), `best_share` (share of the traffic
    that the best variant gets from this day on), `shipped_wrong`, `shipped_right` (share of templates for
    which the program's shipping rule, else the product's, has fired for a wrong / the best variant),
    `lost_per_10k` (true conversions lost so far per 10,000 sends against always sending the best for each
    user; NaN before the first send), `lost_revenue_per_10k` (the same in money), `happened` (conversions of
    the world's users since they signed up, whatever caused them).
    shares: `point`, axes, `day, template_id, variant_id, share` (mean over worlds of what the policy gives the variant
    from this day on), `spread` (its standard deviation over worlds), `worlds`.
    reference: name of the point in use, the first. figures: name of the point behind age and windows.
    age: of the point `figures`: `group` (replication), `variant_id, age_day` (-7..29, the day [a, a+1)
    since the send), `conversions` (of the user, whatever caused them), `exposure` (send-days observed).
    windows: of the point `figures`: `group, offset_day, lookback_day, variant_id, conversions` (credited in
    that window), `sends` (those whose window is closed at the end).
    """

    scenario: Scenario
    points: list[Point]
    reference: str
    metrics: pd.DataFrame
    race: pd.DataFrame
    age: pd.DataFrame
    windows: pd.DataFrame
    shares: pd.DataFrame
    figures: str = ""


def figures_of(all_points: list[Point]) -> int:
    """The point behind the age and window figures: the first with a uniform policy, else the first.

    Where a policy learns, variants get their sends by what happened before, and pooled rates mix that in; an
    even split shows the windows alone.
    """
    for i, p in enumerate(all_points):
        if p.scenario.program.policy.name == "uniform":
            return i
    return 0
