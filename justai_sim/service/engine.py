"""The service without HTTP: bodies in, decisions out, results from everything stored."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from justai_sim import clock, streams
from justai_sim.attribution import with_settings
from justai_sim.bandit.choose import choose, pinned, requested
from justai_sim.bandit.policy import PolicySpec
from justai_sim.bandit.registry import policy
from justai_sim.errors import UsageError, nearest
from justai_sim.esp.base import adapter
from justai_sim.estimate.metrics import metrics_table
from justai_sim.log import conversion_names
from justai_sim.loop.program import Program, Template
from justai_sim.loop.replay import attribute_log
from justai_sim.loop.segments import segment_of
from justai_sim.loop.step import Tick
from justai_sim.service.book import Book, read_arrival, refresh
from justai_sim.service.store import Decision, Store, StoreError
from justai_sim.service.variants import Change, NotFoundError, changed, check_variants, gone, served
from justai_sim.service.words import rule_in_words
from justai_sim.tables import B1, F8, I1, KINDS, REASONS, Log

SCHEMA_VERSION = 1
REPEAT = 10 * clock.MINUTE
"""Requests for the same user and template within this time of a decision share it: one message may ask thrice."""
_ORG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LOCKS = 64
_MAX_ID = 512


@dataclass(frozen=True)
class Receipt:
    """What a webhook body held. It is stored whatever the counts are; `error` is the first reason of a reject."""

    serial: int
    received_at: int
    accepted: int
    rejected: int
    skipped: int
    error: str = ""

    @property
    def readable(self) -> bool:
        """Whether anything in the body could be read, or nothing was wrong with it."""
        return not self.rejected or self.accepted + self.skipped > 0


@dataclass(frozen=True)
class Shares:
    """What `choose` draws from since the refresh `at`: template id -> (1, C, K), K arms, control first; the first
    of the C rows is for users of no known segment; `templates` as the program had them then."""

    at: int
    by_template: dict[str, F8]
    live: dict[str, B1]
    templates: dict[str, Template]
    segments: tuple[str, ...] = ()


def now_us() -> int:
    """The wall clock, microseconds since the epoch."""
    return time.time_ns() // 1000


class Engine:
    """The service's core. All methods may be called from any thread.

    Shares and results are pure functions of what is stored; what is kept in memory only saves time.
    """

    def __init__(
        self,
        program: Program,
        store: Store,
        clock: Callable[[], int] = now_us,
        seed: int = 1,
        declared_in: Path | str = "program.toml",
        keep: Callable[[Program], None] = lambda _: None,
    ) -> None:
        """`declared_in`: the file that the program was read from, for messages; `keep` writes a changed one."""
        if not program.templates:
            raise UsageError("the program has no templates; the service needs at least one [[templates]]")
        for name, usual in (("split", "internal"), ("holdout_share", 0.0)):
            if getattr(program, name) != usual:
                raise UsageError(f"{name} is {getattr(program, name)!r}; the service draws every choice itself, so "
                                 f"expected {usual!r} (the others are for simulations)")  # fmt: skip
        self.program, self.store, self.clock, self.seed = program, store, clock, seed
        self.declared_in, self._keep = declared_in, keep
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._books: dict[str, Book] = {}
        self._shares: dict[str, Shares] = {}
        self._lock = threading.RLock()

    @property
    def templates(self) -> dict[str, Template]:
        return {t.id: t for t in self.program.templates}

    def change(self, change: Change) -> Program:
        """Add, archive or reset a variant from now on, durably. An archived one is served no more at once; an added one
        is from the next refresh on. UsageError for what cannot be; then nothing has changed."""
        check_id("variant_id", change.variant_id)
        with self._lock:
            program = changed(self.program, change, self.store.now(self.clock))
            try:
                self._keep(program)
            except OSError as e:
                raise StoreError(f"{self.declared_in}: could not be written ({e})") from e
            self.program = program
            self._shares.clear()
            return program

    # -- webhooks ------------------------------------------------------------------------------------

    def receive(self, esp: str, org: str, body: bytes) -> Receipt:
        """Store a webhook body with our time of receipt, then say what it holds."""
        adapter(esp)
        check_org(org)
        arrival = self.store.append_arrival(org, esp, body, self.clock)
        rows = read_arrival(arrival)
        first = rows.rejects[0].message if rows.rejects else ""
        return Receipt(
            arrival.serial, arrival.received_at, len(rows), len(rows.rejects), rows.skipped.total(), first
        )  # fmt: skip

    # -- choices -------------------------------------------------------------------------------------

    def generate(
        self,
        org: str,
        template_id: str,
        user_id: str,
        tracking_id: str = "",
        attrs: Mapping[str, Any] | None = None,
        copy_id: str = "",
        epsilon: float = 0.0,
        eligible: Sequence[str] | None = None,
    ) -> Decision:
        """Choose a variant, durably, or give the decision that this message already has.

        An equal `tracking_id` (same user and template) shares its decision at any time; so does the same user
        and template within 10 minutes, unless both requests name different tracking ids or another variant
        is forced by `copy_id`. `attrs` place the user in a segment, `epsilon` is this request's own part that is drawn
        evenly from the live variants, on top of the policy's; `eligible`: the variants that this user may have besides
        the control (None: all), which share the treatment traffic in proportion.
        """
        check_org(org)
        if not 0 <= epsilon <= 1:
            raise UsageError(f"epsilon is {epsilon}; expected a number from 0 to 1")
        given = {"template_id": template_id, "user_id": user_id, "tracking_id": tracking_id, "copy_id": copy_id}
        for field, value in given.items():
            if not value and field in ("template_id", "user_id"):
                raise UsageError(f"{field} is missing; expected the id of the {field[:-3]}")
            check_id(field, value)
        if template_id not in self.templates:
            raise NotFoundError(
                f"template_id {template_id!r} is not in the program; {nearest(template_id, self.templates)} "
                f"(templates are declared in {self.declared_in})"
            )
        template = self.templates[template_id]
        check_variants(template, copy_id, eligible)
        may = frozenset(template.variants) if eligible is None else frozenset((template.variants[0], *eligible))
        who = _hash(org, user_id)
        with self._locks[(who ^ _hash(template_id)) % _LOCKS]:
            last = self.store.latest(org, user_id, template_id)
            found = self._shared(org, user_id, template_id, tracking_id, copy_id, last)
            segment = segment_of(self.program.segments, attrs)
            if found is not None and found.variant_id in may:
                return found
            return self._decide(org, template_id, user_id, tracking_id, copy_id, last, segment, epsilon, may)

    def _shared(
        self, org: str, user: str, template: str, tracking: str, copy: str, last: tuple[int, Decision] | None
    ) -> Decision | None:
        """The decision that this request shares, if there is one."""
        found = self.store.tracked(org, user, template, tracking) if tracking else None
        if found is None and last is not None:
            d = last[1]
            other = tracking and d.tracking_id != d.decision_id
            if not other and self.store.now(self.clock) - d.decided_at <= REPEAT:
                found = d
        return found if found is not None and copy in ("", found.variant_id) else None

    def _decide(
        self, org: str, template: str, user: str, tracking: str, copy: str, last: tuple[int, Decision] | None,
        segment: str, epsilon: float, may: frozenset[str],
    ) -> Decision:  # fmt: skip
        """A new decision; `last` is the last one for this user and template, with its serial."""
        now, serial = self.store.now(self.clock), last[0] if last else 0
        stays = self._stays(org, user, template, now, may) if self.program.sticky == "variant" and not copy else None
        if copy:
            variant, propensity, mode = copy, float("nan"), "forced"
        elif stays is not None:
            variant, propensity, mode = stays.variant_id, stays.propensity, "sticky"
        else:
            variant, propensity = self._draw(org, template, user, serial, segment, epsilon, now, may)
            mode = "policy"
        name = f"dec_{_hash(org, user, template, str(serial)):016x}"
        d = Decision(name, tracking or name, org, user, template, variant, segment, now, propensity, mode)
        self.store.append_decision(d)
        return d

    def _draw(
        self, org: str, template: str, user: str, serial: int, segment: str, epsilon: float, now: int,
        may: frozenset[str],
    ) -> tuple[str, float]:  # fmt: skip
        """A variant from the shares of the latest refresh, and its propensity."""
        found = self.shares(org, now)
        shares, zero, t = found.by_template[template], np.zeros(1, np.int64), found.templates[template]
        row = np.array([found.segments.index(segment) + 1 if segment in found.segments else 0])
        u = np.array([streams.uniform_one(self.seed, "choice", 0, _hash(org, user), _hash(template), serial)])
        if self.program.sticky == "arm":
            split = streams.uniform_one(self.seed, "split", 0, _hash(org, user))
            u = pinned(u, np.array([split]), shares[0, row, 0])
        own = np.array([epsilon]) if epsilon else None
        # What was archived after the refresh still has a share, but is not served.
        mask = served(t, may, now, shares.shape[2])
        eligible = None if mask[0, : len(t.variants)].all() else mask
        arm, p = choose(shares, zero, row, u, eligible=eligible, epsilon=own, live=found.live[template])
        return t.variants[int(arm[0])], float(p[0])

    def _stays(self, org: str, user: str, template: str, now: int, may: frozenset[str]) -> Decision | None:
        """The choice that a user keeps: the last that was not forced, unless its variant is no longer served."""
        found, shares = self.store.chosen(org, user, template), self.shares(org, now)
        t = shares.templates[template]
        if found is None or found.variant_id not in t.variants or found.variant_id not in may:
            return None
        if gone(t, found.variant_id, now):
            return None
        arm = t.variants.index(found.variant_id)
        stopped = self.program.shipping is not None and not shares.live[template][0, arm]
        return None if stopped and (arm or shares.by_template[template][0, 0, 0] == 0) else found

    def shares(self, org: str, now: int | None = None) -> Shares:
        """The shares of the latest refresh t_k <= now, from everything received up to t_k."""
        now = self.store.now(self.clock) if now is None else now
        with self._lock:
            cached = self._shares.get(org)
            if cached is not None and cached.at <= now < cached.at + self.program.refresh:
                return cached
            templates = self.templates
            tick, rows, segments = self.tick(org, now)
            shares, live = ({t: a[i] for t, i in rows.items()} for a in (tick.shares, tick.live))
            found = Shares(tick.now, shares, live, templates, segments)
            if tick.now < now:  # at the very instant of a refresh, a row received at that instant may still come
                self._shares[org] = found
            return found

    def tick(self, org: str, now: int) -> tuple[Tick, dict[str, int], tuple[str, ...]]:
        """The latest refresh t_k <= now, the row of each of the program's templates in it, and its segments."""
        with self._lock:
            log, book = self._log(org)
            start = book.start(log, clock.days(self.program.rule.lateness_days), now)
            at = start + (now - start) // self.program.refresh * self.program.refresh
            return refresh(self.program, book.at(log, at), start, at)

    def _log(self, org: str) -> tuple[Log, Book]:
        """Everything stored of an organisation."""
        with self._lock:
            # Rows stamped before now are on disk once no commit is under way.
            self.store.settled()
            book = self._books.setdefault(org, Book(self.store, org))
            return book.log(), book

    # -- results -------------------------------------------------------------------------------------

    def org(self, name: str = "") -> str:
        """The organisation meant: the one named, else the only one there is."""
        found = self.store.orgs()
        if name in found:
            return name
        if name:
            raise NotFoundError(f"org {check_org(name)!r} has nothing stored; {nearest(name, found)}")
        if len(found) > 1:
            raise UsageError(f"org is missing; expected one of {', '.join(found)}")
        return found[0] if found else ""

    def results(self, as_of: int | None = None, org: str = "") -> dict[str, Any]:
        """Metrics, reasons, notes and shares in use, from everything received up to `as_of` (default: now)."""
        return self.replay({}, as_of, None, org) | {"shares": self._shares_table(self.org(org))}

    def replay(
        self,
        settings: Mapping[str, Any] | None = None,
        as_of: int | None = None,
        goals: list[str] | None = None,
        org: str = "",
    ) -> dict[str, Any]:
        """The same under another rule: options of the program's rule replaced by `settings`, and other goals.

        UsageError for a goal of which no conversion was received, when others were.
        """
        # Nothing is learnt from a replay, so the policy may not refuse a rule that it could not learn from.
        rule = with_settings(self.program.rule, dict(settings or {}))
        changes: dict[str, Any] = {"rule": rule, "policy": PolicySpec(name="uniform")}
        if goals is not None:
            changes["goals"] = goals
        program = msgspec.structs.replace(self.program, **changes)
        org = self.org(org)
        now = self.store.now(self.clock)
        as_of = now if as_of is None else as_of
        log, _ = self._log(org)
        _check_goals(goals or (), log)
        bound, got = attribute_log(program, log, as_of)
        notes = [*log.notes, *_goal_notes(program, log), *_late_notes(program, log)]
        if as_of > now:
            notes.append("as_of lies after now: sends are called mature whose conversions may still come")
        return {
            "schema_version": SCHEMA_VERSION,
            "org": org,
            "as_of": clock.iso(as_of),
            "rule": msgspec.to_builtins(program.rule),
            "rule_in_words": rule_in_words(program.rule, program.goals),
            "key_metric": program.key_metric,
            "metrics": metrics_table(log, bound, got),
            "reasons": _reasons(log, got.reason),
            "rows": {n: len(getattr(log, n)) for n in ("sends", "events", "decisions")},
            "rejects": log.rejects,
            "skipped": log.skipped,
            "notes": notes,
        }

    def _shares_table(self, org: str) -> dict[str, Any]:
        now = self.store.now(self.clock)
        found, table = self.shares(org, now), {}
        for t in found.templates.values():
            mask = served(t, frozenset(t.variants), now, found.by_template[t.id].shape[2])
            rows = requested(found.by_template[t.id][0, :1], np.zeros(1, np.int64), mask, None, found.live[t.id])
            table[t.id] = dict(zip(t.variants, rows[0].tolist(), strict=False))
        sure = policy(self.program.policy.name).deterministic
        return {"refreshed_at": clock.iso(found.at), "deterministic": sure, "by_template": table}


def check_org(org: str) -> str:
    if not _ORG.fullmatch(org):
        raise UsageError(f"organisation {org[:80]!r}: expected 1 to 64 letters, digits, '.', '_' or '-'")
    return org


def check_id(field: str, text: str) -> str:
    """An id that can be stored: text of reasonable length that UTF-8 can hold."""
    if len(text) > _MAX_ID:
        raise UsageError(f"{field} has {len(text):,} characters; expected at most {_MAX_ID}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{field} holds half a surrogate pair; expected text") from None
    return text


def _hash(*texts: str) -> int:
    """62 bits of texts; their lengths keep ('ab', 'c') and ('a', 'bc') apart."""
    body = b"".join(len(b).to_bytes(4, "little") + b for b in (t.encode() for t in texts))
    return int.from_bytes(hashlib.blake2b(body, digest_size=8).digest(), "little") >> 2


def _check_goals(goals: Sequence[str], log: Log) -> None:
    names = [c.name or "(no name)" for c in conversion_names(log)]
    for g in goals:
        if names and g not in names:
            raise UsageError(f"goals: no conversion named {g[:80]!r} was received; {nearest(g[:80], names)}")


def _goal_notes(program: Program, log: Log) -> list[str]:
    """What a wrong or missing event name looks like: the commonest reason for no conversions."""
    found = {c.name: c.events for c in conversion_names(log)}
    said = ", ".join(f"{name or '(no name)'} {n:,}" for name, n in found.items())
    missing = [g for g in program.goals if g not in found]
    if missing and found:
        return [f"no conversion named {' or '.join(missing)} was received; received were {said}"]
    if not program.goals and len(found) > 1:
        return [f"no goal is named, so every conversion counts: {said}"]
    return []


def _late_notes(program: Program, log: Log) -> list[str]:
    """Events have a reason each; sends that the rule forgets would go unnoticed."""
    days = program.rule.lateness_days
    late = int((log.sends.received_at - log.sends.sent_at > clock.days(days)).sum())
    return [f"sends received more than {days:g} days after they left, which are not counted: {late:,}"] if late else []


def _reasons(log: Log, reason: I1) -> list[dict[str, Any]]:
    """Events by kind and reason, most frequent first within a kind."""
    pairs, counts = np.unique(np.stack([log.events.kind, reason]), axis=1, return_counts=True)
    found = zip(pairs[0].tolist(), pairs[1].tolist(), counts.tolist(), strict=True)
    return [
        {"kind": KINDS[k], "reason": REASONS[r], "events": n} for k, r, n in sorted(found, key=lambda f: (f[0], -f[2]))
    ]
