"""The parameters of what comes back: how the provider's events differ from what happened."""

from __future__ import annotations

from justai_sim.errors import UsageError
from justai_sim.world.spec import Spec, between


class Outage(Spec, frozen=True, kw_only=True):
    """Our webhook does not answer from `day` of the run for `hours`. What the provider retries comes later, by its own
    schedule; the rest is lost. `backlog = false`: nothing of these hours ever comes."""

    day: float
    hours: float
    backlog: bool = True

    def __post_init__(self) -> None:
        between(self, 0, 3650, "day")
        between(self, 0, 24 * 365, "hours")


class Telemetry(Spec, frozen=True, kw_only=True):
    """Faults between what happened and what we hear; the defaults are those of an ordinary provider.

    `clean`: no faults at all, only the ordinary `webhook_delay_minutes`.
    Opens and clicks that no person made: `machine_open_share` of the users have a mail client that fetches every
    message, `scanner_share` a gateway that follows every link; `machine_flagged` is the part that the provider marks.
    On the way: `lost_share` of all webhooks; `late_share` come hours later (`late_hours` on average);
    `duplicate_share` come twice under one id, `recoded_share` under another. `outages`.
    Wrong contents, of purchases: `wrong_name_share` under another name (all of them from `renamed_from_day` on),
    `missing_user_share` (dropped by a provider that takes no purchase without a user), `clock_skew_seconds` (standard
    deviation), `zone_error_share` stamped `zone_error_hours` off; `test_purchases_per_user_day` that nobody made. A
    `reused_id_share` of them carry the user's number as their id.
    """

    clean: bool = False
    webhook_delay_minutes: float = 2
    machine_open_share: float = 0.45
    scanner_share: float = 0.02
    machine_flagged: float = 0.8
    lost_share: float = 0.001
    late_share: float = 0.005
    late_hours: float = 12
    duplicate_share: float = 0.005
    recoded_share: float = 0.0
    reused_id_share: float = 0.0
    outages: list[Outage] = []
    wrong_name_share: float = 0.0
    renamed_from_day: float | None = None
    missing_user_share: float = 0.002
    clock_skew_seconds: float = 2.0
    zone_error_share: float = 0.0
    zone_error_hours: int = -5
    test_purchases_per_user_day: float = 0.0

    def __post_init__(self) -> None:
        between(
            self, 0, 1, "machine_open_share", "scanner_share", "machine_flagged", "lost_share", "late_share",
            "duplicate_share", "recoded_share", "reused_id_share", "wrong_name_share", "missing_user_share",
            "zone_error_share",
        )  # fmt: skip
        between(self, 0, 1e7, "webhook_delay_minutes", "late_hours", "clock_skew_seconds")
        between(self, -26, 26, "zone_error_hours")
        between(self, 0, 100, "test_purchases_per_user_day")
        if self.renamed_from_day is not None and not 0 <= self.renamed_from_day <= 3650:
            raise UsageError(f"renamed_from_day is {self.renamed_from_day}; expected a day of the run")

    @property
    def faults(self) -> Telemetry:
        """What is in force: this, or nothing where it is clean."""
        return without_faults(self.webhook_delay_minutes) if self.clean else self


def without_faults(webhook_delay_minutes: float) -> Telemetry:
    """No fault at all."""
    return Telemetry(
        webhook_delay_minutes=webhook_delay_minutes, machine_open_share=0, scanner_share=0, lost_share=0, late_share=0,
        duplicate_share=0, missing_user_share=0, clock_skew_seconds=0,
    )  # fmt: skip


def misnamed(goal: str) -> str:
    """What a purchase is called once somebody has renamed the event. It sorts after the goal's own name."""
    return f"{goal}_v2"
