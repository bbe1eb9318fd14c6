"""Who an anonymous user of Segment turned out to be: calls that name both ids, and aliases."""

from __future__ import annotations

from pathlib import Path

from justai_sim.esp.documents import documents, json_like
from justai_sim.esp.jsonbytes import elements
from justai_sim.esp.parts import Files
from justai_sim.esp.rows import Rows
from justai_sim.esp.values import Element, ElementError, first_ident

_SEVERAL = ""


def known_as(found: Files, inherited: tuple[str, ...]) -> dict[str, str]:
    """Anonymous id -> user id, of all files; ids that several users had (a shared device) are left out.

    Any call with both ids tells it (identify, but track and page too), and an alias by its `previousId`.
    """
    claims: dict[str, str] = {}
    for file, place in found:
        if json_like(file):
            _read(file, place, claims, inherited)
    return {anonymous: user for anonymous, user in claims.items() if user != _SEVERAL}


def _read(file: Path, place: str, claims: dict[str, str], inherited: tuple[str, ...]) -> None:
    unheard = Rows()  # what is wrong with lines is told when they are read for their events
    for at, document in documents(file, place, Rows):
        if b"nonymous" in document or b"previousId" in document:
            for _, e, _ in elements(document, at, "batch", lambda: unheard, inherited):
                try:
                    user, anonymous = first_ident(e, ("userId", "user_id")), _anonymous(e)
                except ElementError:
                    continue
                if user and anonymous and user != anonymous and claims.setdefault(anonymous, user) != user:
                    claims[anonymous] = _SEVERAL
            unheard.rejects.clear()


def _anonymous(e: Element) -> str:
    names = ("anonymousId", "anonymous_id", *(("previousId", "previous_id") if e.get("type") == "alias" else ()))
    return first_ident(e, names)
