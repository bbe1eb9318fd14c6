"""A finished sweep as frames."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pandas as pd

from justai_sim.scenario import Point, Scenario


class Stopped(msgspec.Struct, frozen=True):
    """A point that left the race: after how many worlds, and how far it then was behind which other one."""

    point: str
    worlds: int
    against: str
    difference: float
    low: float
    high: float


class Raced(msgspec.Struct, frozen=True):
    """How a race went. looks: numbers of worlds at which it was looked; level: of each of its intervals, so that all
    pairs of points at all looks hold together with 98 % (Bonferroni)."""

    criterion: str
    looks: list[int]
    level: float
    stopped: list[Stopped]


@dataclass(frozen=True)
class SweepData:
    """A finished sweep.

    metrics: one row a point, replication, template, variant, metric: `point` (name), one column per axis
    (label), `rep, template_id, variant_id, metric, value`. Metrics: sends, mature_sends, opens, clicks,
    conversions (numerator of the rate), conversion_count, unsubscribes, revenue (units), conversion_rate,
    true_rate (causal conversions per delivered send that the variant was given), share_at_end (what the policy
    gives the variant at the end); and the bias identity (`biases.terms`), counted as conversions: caused (by the
    variant's sends in the run, credited or not), added (less the purchases whose place they took),
    caused_sends (those that caused one), credited_own (credited to
    the send that caused it), credited_organic, credited_borrowed (caused by another send),
    credited_extra_copies, credited_spurious, missed_TERM (caused, and not credited to the send that caused it,
    by the first reason that applies: lost, not_yet_known, heard_too_late, wrong_event, machine, currency,
    identity, not_delivered, too_early, too_late, elsewhere), uncounted, capped (by `repeat`). So conversion_count
    = caused + credited_organic, _borrowed, _extra_copies, _spurious - all missed_ - uncounted, and conversions
    = conversion_count - capped.
    race: `point`, axes, `rep, day` (days since start), `right_leader` (share of templates whose leader, of
    the variants that are served, is the best of those that there are), `right_for_good` (and stays so until
    the end), `best_share` (share of the traffic that the best variant gets from this day on),
    `shipped_wrong`, `shipped_right` (share of templates for which the program's shipping rule, else the
    product's, has fired for a wrong / the best variant),
    `lost_per_10k` (true conversions lost so far per 10,000 sends against always sending the best for each
    user; NaN before the first send), `lost_revenue_per_10k` (the same in money), `happened` (conversions of
    the world's users since they signed up, whatever caused them).
    shares: `point`, axes, `day, template_id, variant_id, share` (mean over worlds of what the policy gives the variant
    from this day on), `spread` (its standard deviation over worlds), `worlds`.
    reference: name of the point in use, the first. figures: name of the point behind age and windows.
    age: of the point `figures`: `group` (replication), `variant_id, age_day` (-7..29, the day [a, a+1)
    since the send), `conversions` (of the user, whatever caused them), `exposure` (send-days observed).
    raced: how points that were clearly worse stopped early; these have fewer worlds, the first ones.
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
    raced: Raced | None = None

    def __repr__(self) -> str:
        return f"SweepData({self.scenario.name}: {len(self.points)} points, {self.scenario.replications} worlds)"


def figures_of(all_points: list[Point]) -> int:
    """The point behind the age and window figures: the first with a uniform policy, else the first.

    Where a policy learns, variants get their sends by what happened before, and pooled rates mix that in; an
    even split shows the windows alone.
    """
    for i, p in enumerate(all_points):
        if p.scenario.program.policy.name == "uniform":
            return i
    return 0
