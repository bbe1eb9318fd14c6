"""Who an unidentified profile of Braze turned out to be: rows that name both of its ids, and merged profiles.

Memory holds the profiles that some row tells of without an external id (mostly none) and the merged ones. Only where
there are some is the export read once more for their external ids.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from justai_sim.esp import avro, avro_columns
from justai_sim.esp import braze_fields as f
from justai_sim.esp.documents import documents, json_like
from justai_sim.esp.jsonbytes import elements
from justai_sim.esp.parts import Files
from justai_sim.esp.rows import Rows
from justai_sim.esp.values import Element, ident

ORPHAN = "users.UserOrphan"
_IDS = frozenset({"user_id", "external_user_id", "orphaned_by_id"})
_MERGES = 10
"""How often a profile is followed to the one that it was merged into."""
_SEVERAL = ""
_EMPTY = re.compile(rb'"external_user_id"\s*:\s*(?:null|"\s*")')
_Pair = tuple[Any, Any, Any]
"""(profile, external id, the profile that it was merged into) as they stand in a row."""


class _Look(NamedTuple):
    """What is looked at: documents of JSON, and rows of Avro by their two ids."""

    document: Callable[[bytes], bool]
    rows: Callable[[pa.Array, pa.Array], pa.Array]


def known_as(found: Files, reads: Callable[[str], bool]) -> dict[str, str]:
    """Profile -> external id, of the profiles that rows name without one; those that had several are left out.

    `reads`: whether events of a type become rows.
    """
    unnamed, merged = set[str](), dict[str, str]()
    for profile, own, into in _pairs(found, reads, _Look(_may_lack, _lacking)):
        if _id(into):
            merged[_id(profile)] = _id(into)
        elif not _id(own) and _id(profile):
            unnamed.add(_id(profile))
    if not unnamed:
        return {}
    claims = dict.fromkeys(chain(unnamed, *(_merges(profile, merged) for profile in unnamed)))
    wanted = pa.array(list(claims), pa.string())
    for profile, own, _ in _pairs(found, reads, _Look(lambda _: True, lambda ids, _: pc.is_in(ids, wanted))):
        if _id(own) and (key := _id(profile)) in claims:
            claims[key] = _id(own) if claims[key] in (None, _id(own)) else _SEVERAL
    named = {p: next((c for q in (p, *_merges(p, merged)) if (c := claims[q]) is not None), "") for p in unnamed}
    return {profile: own for profile, own in named.items() if own}


def _id(value: Any) -> str:
    try:
        return ident(value)
    except ValueError:  # or too long: told of when the row is read
        return ""


def _merges(profile: str, merged: dict[str, str]) -> Iterator[str]:
    for _ in range(_MERGES):
        if not (profile := merged.get(profile, "")):
            return
        yield profile


def _may_lack(document: bytes) -> bool:
    """Whether some event in it may have no external id: most documents have one for each user."""
    told = document.count(b'"external_user_id"')
    return told < document.count(b'"user_id"') or _EMPTY.search(document) is not None or b"UserOrphan" in document


def _lacking(_: pa.Array, own: pa.Array) -> pa.Array:
    return pc.fill_null(pc.or_(pc.equal(own, ""), pc.utf8_is_space(own)), True)


def _pairs(found: Files, reads: Callable[[str], bool], look: _Look) -> Iterator[_Pair]:
    for file, place in found:
        if file.name.lower().endswith(".avro"):
            yield from _of_avro(file, place, reads, look)
        elif json_like(file):
            yield from _of_json(file, place, reads, look)


def _of_json(file: Path, place: str, reads: Callable[[str], bool], look: _Look) -> Iterator[_Pair]:
    unheard = Rows()  # what is wrong with files is told when they are read for their events
    for at, document in documents(file, place, Rows):
        if look.document(document):
            for _, e, _ in elements(document, at, "events", lambda: unheard):
                kind, user, p = e.get("event_type"), e.get("user"), e.get("properties")
                if isinstance(user, dict) and isinstance(kind, str):
                    if kind == ORPHAN and isinstance(p, dict | None):
                        yield _pair({**(p or {}), **user})
                    elif reads(kind):
                        yield user.get("user_id"), user.get("external_user_id"), None
            unheard.rejects.clear()


def _pair(row: Element) -> _Pair:
    return row.get("user_id"), row.get("external_user_id"), row.get("orphaned_by_id")


def _of_avro(file: Path, place: str, reads: Callable[[str], bool], look: _Look) -> Iterator[_Pair]:
    with file.open("rb") as stream:
        try:
            source = avro.Avro(stream, lambda *_: None)
            name = source.schema.get("name", "") if isinstance(source.schema, dict) else ""
            kind = f.event_type(str(name), place)
            if kind != ORPHAN and not reads(kind):
                return
            flat = avro_columns.Flat.of(source.schema, _IDS)
            for group in avro_columns.groups(source.blocks(), avro_columns.RECORDS):
                columns = flat.read(group) if flat else None
                if columns is not None and kind != ORPHAN:
                    yield from _of_columns(columns, look)
                    continue
                for record in source.records(group):
                    if isinstance(record, dict):
                        found = _pair(record)
                        yield found if kind == ORPHAN else (*found[:2], None)
        except Exception:  # a damaged file can raise anything: its reading tells of it
            return


def _of_columns(columns: dict[str, pa.Array], look: _Look) -> Iterator[_Pair]:
    ids = columns.get("user_id")
    own = columns.get("external_user_id", pa.nulls(0 if ids is None else len(ids), pa.string()))
    if ids is None or not (pa.types.is_string(ids.type) and pa.types.is_string(own.type)):
        return
    mask = look.rows(ids, own)
    if pc.any(mask).as_py():
        pairs = zip(ids.filter(mask).to_pylist(), own.filter(mask).to_pylist(), strict=True)
        yield from ((profile, name, None) for profile, name in pairs)
