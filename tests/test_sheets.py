"""Texts of a log in CSV files and pages: never a formula, never markup, always to be read back."""

from __future__ import annotations

import csv
import html
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from justai_sim.cli import run
from justai_sim.sheets import quoted, unquoted, write_csv

T0 = 1_767_571_200_000_000
DAY = 86_400_000_000
HOSTILE = [
    "=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1:A9)", "\t=1", "＝1+1", "'=1", "''", "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>', "{{ 7 * 7 }}", "$\\frac{x$", "a,b;c\nd", "&lt;b&gt;", "\u202eevil",
]  # fmt: skip
texts = st.text(st.sampled_from("=+-@\t\r\n'a1,;\"＝ "), max_size=8) | st.text(max_size=20)


@given(texts)
def test_a_quoted_text_is_no_formula_and_comes_back(text: str) -> None:
    assert quoted(text)[:1] not in tuple("=+-@\t\r\n＝＋－＠")
    assert unquoted(quoted(text)) == text


@given(st.lists(st.tuples(texts.filter(lambda t: "\r" not in t), st.floats(-9, 9)), min_size=1, max_size=5))
def test_a_file_keeps_numbers_and_texts(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, float]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "cells.csv"
    frame = pd.DataFrame(rows, columns=["=name", "value"])
    write_csv(frame, path)
    with path.open(newline="", encoding="utf-8") as f:
        found = list(csv.reader(f))
    assert [unquoted(c) for c in found[0]] == ["=name", "value"]
    assert [(unquoted(a), float(b)) for a, b in found[1:]] == rows
    assert not any(c[:1] in tuple("=+@\t") for line in found for c in line)


def hostile_log(folder: Path) -> Path:
    folder.mkdir()
    sends, events = [], []
    for i in range(60 * len(HOSTILE)):
        name, user = HOSTILE[i % len(HOSTILE)], f"u{i}"
        sends.append({"send_id": f"s{i}", "user_id": user, "template_id": HOSTILE[i % 2], "variant_id": name,
                      "sent_at": T0 + i, "segment": name})  # fmt: skip
        if i % 7 < 3:
            events.append({"event_id": f"e{i}", "user_id": user, "kind": "conversion", "name": HOSTILE[0],
                           "occurred_at": T0 + 5 * DAY + i})  # fmt: skip
    for table, rows in (("sends", sends), ("events", events)):
        (folder / f"{table}.ndjson").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that commands write about a log whose every name is hostile."""
    root = tmp_path_factory.mktemp("hostile")
    log, out = hostile_log(root / "log"), root / "out"
    given = ["--goal", HOSTILE[0], "--control", HOSTILE[3]]
    as_of = ["--as-of", str(T0 + 30 * DAY)]
    assert run(["replay", str(log), *given, *as_of, "--out", str(out / "replay")]) == 0
    assert run(["surface", str(log), *given, *as_of, "--offsets", "0:1", "--lookbacks", "7:8", "--out",
                str(out / "surface")]) == 0  # fmt: skip
    assert run(["interpretations", str(log), *given, *as_of, "--out", str(out / "readings")]) == 0
    assert run(["reconcile", str(log), "--against", str(out / "replay" / "metrics.csv"), "--goal", HOSTILE[0], *as_of,
                "--out", str(out / "reconcile")]) == 0  # fmt: skip
    assert run(["what-if", str(log), *given, *as_of, "--out", str(out / "whatif")]) in (0, 3)
    return out


def test_nothing_else_writes_csv() -> None:
    """But the exports in a provider's own format, whose cells are as the provider writes them."""
    package = Path(__file__).parents[1] / "justai_sim"
    writers = [
        p.name for p in sorted(package.rglob("*.py")) if re.search(r"to_csv\(|csv\.writer|DictWriter", p.read_text())
    ]
    assert writers == ["iterable_writer.py", "sfmc_writer.py", "sheets.py"]


def test_no_cell_is_a_formula(written: Path) -> None:
    files = list(written.rglob("*.csv"))
    assert len(files) >= 9
    for file in files:
        with file.open(newline="", encoding="utf-8") as f:
            for row in csv.reader(f):
                for cell in row:
                    if cell[:1] in tuple("=+@\t\r＝") or (
                        cell[:1] == "-" and not re.fullmatch(r"-[\d.e+-]+|-inf", cell)
                    ):
                        raise AssertionError(f"{file.name}: {cell!r}")


def test_our_own_csv_is_read_back(written: Path) -> None:
    """`reconcile` against our own metrics found every variant under its name, and no difference."""
    found = pd.read_csv(written / "reconcile" / "comparison.csv")
    assert {unquoted(v) for v in found["variant_id"]} >= {h for h in HOSTILE if h.strip() and "\t" not in h}


def test_pages_hold_no_markup_of_a_log(written: Path) -> None:
    pages = list(written.rglob("*.html")) + list(written.rglob("*.svg"))
    assert pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for bad in ("<script>alert", "<img src=x", ">49<", "onerror=alert(2)>"):
            assert bad not in text, (page.name, bad)
    report = (written / "replay" / "index.html").read_text(encoding="utf-8")
    assert html.escape(HOSTILE[8]) in report or "&lt;script&gt;" in report
