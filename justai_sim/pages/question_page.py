"""The page of a single question: the answer, the figures and tables behind it, source and rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from justai_sim import clock
from justai_sim.attribution import Rule
from justai_sim.pages.page import Picture, write_page
from justai_sim.pages.rule_words import rule_words, window_words
from justai_sim.pages.table import Part


def write_question_page(
    out: Path, *, title: str, headline: str, blocks: Sequence[Picture | Part], simulated: bool, top: str = "",
    lines: Sequence[str] = (), about: str = "Source and rule", rule: Rule | None = None, as_of: int | None = None,
    facts: Sequence[tuple[str, str]] = (), notes: Sequence[str] = (), files: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Write index.html into `out`: `headline` first, `lines` below it, then figures and tables in their order.

    `files`: tables beside the page that it points to.
    """
    when = [] if as_of is None else [("as of", clock.iso(as_of))]
    return write_page(
        "question.html.j2", out, title=title, headline=headline, blocks=blocks, simulated=simulated, about=about,
        top=top or ("" if rule is None else window_words(rule)), lines=[x for x in lines if x],
        rule="" if rule is None else rule_words(rule), facts=[*when, *facts], notes=notes, files=files,
    )  # fmt: skip
