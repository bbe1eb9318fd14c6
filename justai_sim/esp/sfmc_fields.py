"""What the fields of Marketing Cloud mean: kinds by name, ids, times without a zone, variants in texts."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from justai_sim.clock import EARLIEST, LATEST, SECOND
from justai_sim.esp.values import Element, ElementError, first_ident, shown

SEND = "send"
MEANING = {
    "TransactionalSendEvents.EmailSent": SEND,
    "TransactionalSendEvents.EmailBounced": "bounce",
    "EngagementEvents.EmailOpen": "open",
    "EngagementEvents.EmailClick": "click",
    "EngagementEvents.EmailUnsubscribe": "unsubscribe",
}
"""ENS category -> what it becomes; `EmailNotSent`, SMS, push and what is new are counted by name."""

WORDS = {
    word: kind
    for kind, words in {
        SEND: "sent send sends",
        "open": "opens open opened",
        "click": "clicks click clicked",
        "bounce": "bounces bounce bounced hardbounce softbounce blockbounce",
        "unsubscribe": "unsubs unsub unsubscribe unsubscribes unsubscribed",
        "spam": "complaints complaint spam spamcomplaint",
        "conversion": "conversions conversion converted",
        "notsent": "notsent",
    }.items()
    for word in words.split()
}
"""A word of a file's name, or of `EventType` where the name tells nothing -> what its rows are."""

_OTHER_FILES = {
    "sendjobs", "sendjob", "jobs", "job", "subscribers", "lists", "listmembership", "listmembershipchanges",
    "listsubscribers", "attributes", "statuschanges", "surveys", "surveyresponse", "sendimpression",
    "sendimpressions", "clickimpression", "clickimpressions", "businessunitunsubscribes", "journey",
    "journeyactivity", "ftaf", "smsmessagetracking", "enterpriseattribute",
}  # fmt: skip
_CAPITALS = re.compile(r"(?<=[a-z])(?=[A-Z])")
_NO_LETTERS = re.compile(r"[^A-Za-z]+")

NO_KEY = ("", "NA")
"""What stands for no definition on engagement events."""
SOFT = "transient: soft bounce"
COPY_PATTERN = r"(?:^|[^A-Za-z0-9])copy_id[=:]([^&;|,\s]+)"
DEFAULT_ZONE = timezone(-timedelta(hours=6), "UTC-6")
"""Extracts and data views: six hours behind UTC in summer too."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SLASHED = re.compile(
    r"(\d{1,2})/(\d{1,2})/(\d{4})(?:,?\s+(\d{1,2}):(\d{2})(?::(\d{2})(?:\.\d{1,9})?)?\s*([AaPp])?\.?(?:[Mm]\.?)?)?",
    re.ASCII,
)


def file_kind(name: str) -> str:
    """What the rows of a file are by its name; 'other' for a file that holds no events, '' if it does not tell.

    >>> file_kind("Sent.csv"), file_kind("_Open 2026.csv"), file_kind("NotSent.csv"), file_kind("SendJobs.csv")
    ('send', 'open', 'notsent', 'other')
    >>> file_kind("acme_Unsubs_0716.txt"), file_kind("export.csv"), file_kind("sent_and_opens.csv")
    ('unsubscribe', '', '')
    """
    stem = name.rpartition("/")[2].removesuffix(".gz").rpartition(".")[0] or name
    words = [w for w in _NO_LETTERS.split(stem) if w]
    kinds = set()
    for word in words:
        low = word.lower()
        parts = [low] if low in WORDS or low in _OTHER_FILES else _CAPITALS.sub(" ", word).lower().split()
        for part in parts:
            if part in _OTHER_FILES:
                return "other"
            if part in WORDS:
                kinds.add(WORDS[part])
    return kinds.pop() if len(kinds) == 1 else ""


# ----------------------------------------------------------------------------------------------- time


@lru_cache(maxsize=4096)
def when(text: str, zone: tzinfo, day_first: bool) -> int:
    """`7/15/2024 9:02:11 AM` (or an ISO time) in `zone` to microseconds; ValueError if it is none.

    >>> from justai_sim.clock import parse
    >>> when("7/15/2024 12:05:00 AM", DEFAULT_ZONE, False) == parse("2024-07-15T06:05:00Z")
    True
    """
    if len(text) > 60:
        raise ValueError
    m = _SLASHED.fullmatch(text)
    if m is None:
        t = datetime.fromisoformat(text)
    else:
        first, second, year, hour, minute, seconds = (int(g or 0) for g in m.groups()[:6])
        if m[7]:
            if not 1 <= hour <= 12:
                raise ValueError
            hour = hour % 12 + (12 if m[7] in "Pp" else 0)
        month, day = (second, first) if day_first else (first, second)
        t = datetime(year, month, day, hour, minute, seconds)
    if t.tzinfo is None:
        t = t.replace(tzinfo=zone)
    return _in_range((t - _EPOCH) // _MICROSECOND)


def _in_range(t: int) -> int:
    if not EARLIEST <= t < LATEST:
        raise ValueError
    return t


def milliseconds(e: Element) -> int:
    """`timestampUTC` in microseconds."""
    value = e.get("timestampUTC")
    number = value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        number = int(value)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    # Below 1e11 it would be a count of seconds, or no time at all.
    if isinstance(number, bool) or not isinstance(number, int) or not 10**11 <= number < LATEST // 1000:
        raise ElementError("bad_time", f"timestampUTC: found {shown(value)}, expected milliseconds since 1970")
    return number * 1000


# ------------------------------------------------------------------------------------------------ ids


def send_key(job: str, batch: str, subscriber: str) -> str:
    """The id of a send: the vendor's own join; '' unless job and subscriber are there (a list send has batch 0)."""
    return f"{job}.{batch or '0'}.{subscriber}" if no_zero(job) and no_zero(subscriber) else ""


def no_zero(number: str) -> str:
    """A number that names something: 0 stands for none."""
    return "" if number in ("", "0", "0.0") else number


def event_key(who: str, kind: str, t: int, link: str = "") -> str:
    """The id of an event, which has none of its own: send (or user), kind, second and, for a click, its link.

    The same from ENS, an extract and a data view, so that loading two of them counts nothing twice.
    """
    return f"{who}/{kind}/{t // SECOND}" + (f"/{link}" if link else "")


def link_key(number: str, url: str) -> str:
    """What tells two clicks of one second apart: a hash of the page that the link leads to, else the link's number.

    The page and not the number, since the view `_Click` has none; without query and fragment, since those differ by
    where one looks (they are filled in by recipient, and cut after 900 characters). So two links of one message to
    the same page, clicked by the same person in the same second, are one click.

    >>> link_key("55", "https://X.com/a%20b/?utm=1#top") == link_key("", "http://x.com/a b"), link_key("55", " ")
    (True, '55')
    """
    page = re.split(r"[?#]", url.strip()[:900], maxsplit=1)[0]
    host, slash, path = page.partition("://")[2].partition("/") if "://" in page else (page, "", "")
    page = (host.lower() + slash + unquote(path)).rstrip("/")
    if not page:
        return no_zero(number)
    return hashlib.blake2b(page.encode("utf-8", "replace"), digest_size=6).hexdigest()


def composite(e: Element) -> tuple[str, str, str]:
    """(job, batch, subscriber) of an ENS event. `compositeId` is not read: its order differs by event."""
    parts = e.get("composite")
    if parts is None:
        raise ElementError("missing_field", "composite: found nothing, expected jobId, batchId and subscriberId")
    if not isinstance(parts, dict):
        raise ElementError("bad_value", f"composite: found {shown(parts)}, expected a JSON object")
    return tuple(first_ident(parts, (k,)) for k in ("jobId", "batchId", "subscriberId"))  # type: ignore[return-value]


# ------------------------------------------------------------------------------------------- variants


def copy_in_text(text: str, pattern: re.Pattern[str]) -> str:
    """The copy id that a message key carries by `pattern` (group 1, percent-decoded), else ''.

    >>> copy_in_text("order-17|copy_id=a%2Fb", re.compile(COPY_PATTERN))
    'a/b'
    """
    found = pattern.search(text)
    return unquote(found[1] or "").strip() if found else ""


def soft(told: str) -> bool:
    """Whether a bounce's category, code or type says that it is a soft one.

    >>> soft("Soft bounce"), soft("SOFT"), soft("SoftBounce"), soft("Hard bounce"), soft("")
    (True, True, True, False, False)
    """
    return told.strip().lower().startswith("soft")


def copy_in_url(url: Any) -> str:
    """The `copy_id` of a link's query, else ''.

    >>> copy_in_url("https://x.com/?a=1&copy_id=B#top"), copy_in_url("http://[bad?copy_id=B")
    ('B', '')
    """
    if not isinstance(url, str) or "copy_id" not in url:
        return ""
    try:
        return next((v.strip() for k, v in parse_qsl(urlsplit(url).query) if k == "copy_id"), "")
    except ValueError:
        return ""
