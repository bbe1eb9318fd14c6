"""Personal data: addresses masked, ids replaced by a keyed hash, nothing of either in what is told of bad rows."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from justai_sim.errors import UsageError
from justai_sim.esp.rows import Reject

KEY_VARIABLE = "JUSTAI_SIM_HASH_KEY"
SHORTEST = 16
"""Bytes of a key: less could be guessed."""

_WORD = re.compile(r"[^\s\"'<>(),;:=\[\]]+")
_AT = ("@", "%40", "\\u0040")
"""As it stands, in a link, in JSON."""
_FOUND = re.compile(r"found .*(?=, expected)|found .*|'.*'|\".*\"", re.DOTALL)
_IDS = {
    "sends": ("user_id", "send_id"),
    "events": ("user_id", "send_id", "event_id", "order_id"),
    "decisions": ("user_id", "decision_id"),
}
"""The columns that hold ids: a provider may build any of them from the user's."""
_ANONYMOUS = "anon:"
"""Segment's mark of a user whose own id is not known; the address behind it keeps the hash that it has elsewhere."""
Tables = dict[str, pa.Table]


def mask_text(text: str) -> str:
    """The text with every e-mail address replaced.

    >>> mask_text('{"user_id": "Ann@x.org"}')
    '{"user_id": "***@***"}'
    """
    # Word by word, so that the time is linear in the text: a row may hold megabytes without a blank.
    return _WORD.sub(lambda m: "***@***" if _has_address(m[0]) else m[0], text) if any(a in text for a in _AT) else text


def _has_address(word: str) -> bool:
    inner = word[1:-1]
    return any(a in inner for a in _AT)


def mask_id(text: str, fold: bool = True) -> str:
    """An id that looks like an e-mail address as a stable hash; any other id as it is.

    `fold` compares without regard to case, as addresses are; other ids keep theirs.

    >>> mask_id("Ann@x.org") == mask_id("ann@x.org"), mask_id("u1")
    (True, 'u1')
    >>> mask_id("anon:Ann@x.org") == "anon:" + mask_id("Ann@x.org")
    True
    """
    if "@" not in text:
        return text
    if text.startswith(_ANONYMOUS):
        return _ANONYMOUS + mask_id(text.removeprefix(_ANONYMOUS), fold)
    body = (text.lower() if fold else text).encode()
    return "email:" + hashlib.blake2b(body, digest_size=8).hexdigest()


class Guard:
    """What becomes of personal data on its way to the disk. This one keeps everything."""

    name = "ids as they are"
    fingerprint = ""

    def tables(self, tables: Tables) -> Tables:
        """Text tables as they may be stored."""
        return tables

    def reject(self, reject: Reject) -> Reject:
        """A row that could not be read as it may be stored or shown."""
        return reject


class Masks(Guard):
    """Ids that are e-mail addresses become hashes without a key, addresses anywhere in rejects `***@***`."""

    def __init__(self, *, ids: bool = True, rejects: bool = True) -> None:
        self.ids, self.rejects = ids, rejects
        self.name = "ids that are addresses as hashes" if ids else Guard.name

    def tables(self, tables: Tables) -> Tables:
        if not self.ids:
            return tables
        return _replaced(tables, lambda column, text: mask_id(text, column == "user_id"), only_addresses=True)

    def reject(self, reject: Reject) -> Reject:
        return Reject(*map(mask_text, reject)) if self.rejects else reject


class Hashes(Guard):
    """Every id becomes a hash under a secret key; of rejects only place, reason and what was expected are kept.

    The same id has the same hash in every file and every load with the key, so joins stay. Without the key
    a list of known addresses recovers nobody. Addresses are hashed in small letters.
    """

    name = "ids as keyed hashes"

    def __init__(self, key: bytes) -> None:
        if len(key) < SHORTEST:
            raise UsageError(f"the key for hashing has {len(key)} bytes; expected at least {SHORTEST}")
        self._key = hashlib.blake2b(key, digest_size=32).digest()
        self.fingerprint = self.of("fingerprint", "justai_sim")

    def of(self, space: str, text: str) -> str:
        """The hash of an id; ids of users, sends, events and orders are told apart by their `space`."""
        body = text.lower() if space == "user_id" and "@" in text else text
        made = hashlib.blake2b(body.encode(), digest_size=12, key=self._key, person=space.encode()[:16])
        return "h:" + made.hexdigest()

    def tables(self, tables: Tables) -> Tables:
        return _replaced(tables, self.of, only_addresses=False)

    def reject(self, reject: Reject) -> Reject:
        return Reject(mask_text(reject.place), reject.reason, mask_text(_FOUND.sub("found ***", reject.message)), "")


def _replaced(tables: Tables, make: Callable[[str, str], str], *, only_addresses: bool) -> Tables:
    """The tables with each distinct id made anew."""
    out = dict(tables)
    for name, columns in _IDS.items():
        for column in columns:
            at = out[name].schema.get_field_index(column)
            ids = out[name].column(at)
            if only_addresses and not pc.any(pc.match_substring(ids, "@")).as_py():
                continue
            coded = ids.combine_chunks().dictionary_encode()
            texts = pa.array([make(column, t) for t in coded.dictionary.to_pylist()], pa.string())
            out[name] = out[name].set_column(at, out[name].schema.field(at), texts.take(coded.indices))
    return out


class Key(NamedTuple):
    """A secret key, and what to tell about where it came from ('' for nothing)."""

    secret: bytes
    said: str = ""


def hash_key(file: Path | None = None) -> Key:
    """The key of JUSTAI_SIM_HASH_KEY, else of the key file, which is made if there is none (readable by you alone).

    UsageError if the key is short or the file can be read by others.
    """
    given = os.environ.get(KEY_VARIABLE, "")
    if given and file is None:
        return Key(given.encode())
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    file = file or home / "justai-sim" / "hash.key"
    if file.is_dir():
        raise UsageError(f"{file} is a folder; expected a file that holds the key, or the name of one to be made")
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        made = secrets.token_hex(32)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
            f.write(made + "\n")
        return Key(made.encode(), f"a new key for hashing was written to {file}: keep it, and keep it secret")
    mode = file.stat().st_mode & 0o777
    if os.name == "posix" and mode & 0o077:
        raise UsageError(f"{file}: others can read this key (mode {mode:o}); expected mode 600: chmod 600 {file}")
    return Key(file.read_bytes().strip(), f"ids are hashed with the key in {file}")
