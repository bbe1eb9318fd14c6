"""Every kind of page in a real browser: no request leaves it, no error, every tab opens, it fits a phone, and its
tables and figures show the same numbers."""

from __future__ import annotations

import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import justai_sim as js
from justai_sim.api import Sweep
from justai_sim.pages import reports
from justai_sim.pages.replay_page import TABS
from justai_sim.pages.surface_page import surface_data
from justai_sim.pages.table import write
from justai_sim.verdicts.verdict import Verdict
from tests.test_pages import sweep_data
from tests.verdict_logs import made_log

HEADLESS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser: install chromium (apt-get install chromium)")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Whatever the page asks of anybody is refused, and told on the console."""
HARNESS = """<!DOCTYPE html><title>t</title><link rel="icon" href="data:,"><pre id="out"></pre>
<script>
const pages = PAGES, views = {wide: 1280, phone: 390}, frames = [];
for (const page of pages) for (const view in views) {
  const f = document.createElement("iframe");
  [f.src, f.width, f.height] = [page + "/index.html", views[view], 900];
  frames.push([page, view, f]);
  document.body.append(f);
}
const held = (doc, view) => [...doc.querySelectorAll(".box")].filter(b => b.scrollWidth > b.clientWidth).map(box => {
  box.scrollLeft = 1e6;
  const cells = [...box.querySelectorAll("tbody .held")];
  return cells.length > 0 && cells.every(c => {
    const at = c.getBoundingClientRect(), edge = box.getBoundingClientRect();
    return at.width > 20 && at.left >= edge.left - 1 && at.right <= edge.right;
  });
});
const state = (doc, view) => ({
  panes: [...doc.querySelectorAll(".pane")].filter(p => view.getComputedStyle(p).display != "none")
    .map(p => p.className),
  wide: doc.documentElement.scrollWidth - view.innerWidth,
  broken: [...doc.images].filter(i => i.offsetParent && i.complete && !i.naturalWidth).length,
  held: held(doc, view),
  first: doc.querySelector("h1").getBoundingClientRect().top,
});
onload = () => {
  const out = {};
  for (const [page, view, f] of frames) {
    const doc = f.contentDocument, tabs = [...doc.querySelectorAll(".tabs > label")], seen = {};
    seen[""] = state(doc, doc.defaultView);
    for (const label of tabs) {
      label.click();
      seen[label.htmlFor] = state(doc, doc.defaultView);
    }
    const rows = t => [...t.rows].map(r => [...r.cells].map(c => [...c.childNodes].map(n => n.textContent)));
    const tables = [...doc.querySelectorAll("table")].map(rows);
    (out[page] ??= {})[view] = {seen, tables, h1: doc.querySelector("h1").textContent};
  }
  document.getElementById("out").textContent = JSON.stringify(out);
};
</script>"""


class _Handler(http.server.SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        if self.path.endswith("/index.html"):
            self.send_header("Content-Security-Policy", POLICY)
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]


WORLD = js.read_scenario("fast_converter", {"days": 14, "world.signups_per_day": 60})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with a page of every kind, and what the pages are made of."""
    out = tmp_path_factory.mktemp("pages")
    log = made_log(1, rates=(0.08, 0.04, 0.04), per_day=300, amounts=lambda rng, n: rng.uniform(10, 60, n))
    replayed, swept = js.replay(log, goals=["purchase"]), Sweep(sweep_data())
    theirs = pd.DataFrame({"variant_id": ["a", "b", "control"], "conversions": [600, 300, 70]})
    made: dict[str, Any] = {
        "replay": replayed, "verdict": js.verdict(replayed), "sweep": swept, "recommend": js.recommend(swept),
        "interpretations": js.interpretations(log, goals=["purchase"]), "doctor": js.doctor(log, goals=["purchase"]),
        "reconcile": js.reconcile(log, theirs, goals=["purchase"]), "what-if": js.what_if(log, goals=["purchase"]),
        "bias": js.bias(js.simulate(WORLD)),
    }  # fmt: skip
    for name, result in made.items():
        js.report(result, out / name)
    made["surface"] = surface_data(replayed, replayed.surface)
    reports.publish(made["surface"], out / "surface", "made")
    assert set(made) == {*reports.KINDS, reports.SWEEP}
    for example in sorted((Path(__file__).parents[1] / "reports" / "examples").iterdir()):
        if example.is_dir():
            shutil.copytree(example, out / f"example_{example.name}")
            made[f"example_{example.name}"] = None
    (out / "harness.html").write_text(HARNESS.replace("PAGES", json.dumps(list(made))))
    return out, made


@pytest.fixture(scope="module")
def server(made: tuple[Path, Any]) -> Iterator[Any]:
    handler = functools.partial(_Handler, directory=str(made[0]))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as s:
        s.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=s.serve_forever, daemon=True)
        thread.start()
        yield s
        s.shutdown()
        thread.join()


def opened(url: str, folder: Path) -> tuple[str, str]:
    """The page as the browser holds it, and what it had to say on its console."""
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, *HEADLESS, f"--user-data-dir={folder}", "--no-first-run",
         "--enable-logging=stderr", "--virtual-time-budget=10000", "--dump-dom", url],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.fixture(scope="module")
def seen(made: tuple[Path, Any], server: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the browser saw of every page, wide and narrow."""
    url = f"http://127.0.0.1:{server.server_address[1]}/harness.html"
    dom, console = opened(url, tmp_path_factory.mktemp("profile"))
    assert console == ""
    asked = {p.split("?")[0] for p in server.asked} - {"/favicon.ico"}
    assert asked == {"/harness.html", *(f"/{name}/index.html" for name in made[1])}, "a page asked for something else"
    found = re.search(r'<pre id="out">(.*?)</pre>', dom, re.S)
    assert found is not None
    return dict(json.loads(html.unescape(found.group(1))))


def test_every_page_fits_every_screen(made: tuple[Path, Any], seen: dict[str, Any]) -> None:
    assert list(seen) == list(made[1])
    scrolled = 0
    for name, views in seen.items():
        for view, what in views.items():
            tabs = [f"tab-{tab}" for tab, _ in TABS] if "replay" in name else []
            assert list(what["seen"]) == ["", *tabs], name
            for tab, got in what["seen"].items():
                where = (name, view, tab)
                assert got["panes"] == ([f"pane pane-{(tab or tabs[0]).removeprefix('tab-')}"] if tabs else []), where
                assert got["wide"] <= 0, (where, "wider than the screen")
                assert got["broken"] == 0, where
                assert got["first"] < 200, (where, "the answer is not what one sees first")
                assert all(got["held"]), (where, "a table is scrolled and its rows have no name")
                scrolled += len(got["held"])
    assert scrolled > 10, "no table was wider than a phone"


def points(ax: Any) -> list[float]:
    """Where the marks of a figure's only panel stand."""
    return [float(x[0]) for x in (line.get_xdata() for line in ax.child_axes[0].lines) if len(x) == 1]


def column(tables: list[list[list[list[str]]]], header: str) -> list[str]:
    """The numbers of the first table that has this column."""
    table = next(t for t in tables if [header] in t[0])
    return [row[table[0].index([header])][0] for row in table[1:]]


def test_tables_and_figures_show_the_same_numbers(made: tuple[Path, Any], seen: dict[str, Any]) -> None:
    of = made[1]
    for view in ("wide", "phone"):
        tables = {name: views[view]["tables"] for name, views in seen.items()}
        right = [line.get_ydata()[-1] for line in js.plot_race(of["sweep"].race).child_axes[0].lines]
        told = [float(x.removesuffix(" %")) for x in column(tables["sweep"], "right at the end")]
        assert told[::2] == pytest.approx(right, abs=0.5 + 1e-9), "one policy of two"
        drawn = points(js.plot_recommend(of["recommend"].table))
        assert [write(x / 100, "points") for x in drawn] == column(tables["recommend"], "minus the best, points")
        drawn = points(js.plot_interpretations(of["interpretations"].table))
        t = tables["interpretations"]
        leads = zip(column(t, "difference per 1,000"), column(t, "leader"), strict=True)
        assert [write(x, "number") for x in drawn] == [x for x, leader in leads if leader != "counts nothing"]
        got = of["what-if"]
        drawn = points(js.plot_what_if(got.estimates))
        assert [write(x / 100, "percent2") for x in drawn] == column(tables["what-if"], "conversion rate")
        bars = [b.get_width() for b in js.plot_bias(of["bias"].table).child_axes[0].patches]
        assert [write(x, "number") for x in bars] == column(tables["bias"], "ALL")
        bars = [b.get_width() for b in js.plot_receipt(of["reconcile"].receipt).child_axes[0].patches]
        for end, name in ((bars[0], "ours"), (bars[-1], "theirs")):
            assert sum(float(x.replace(",", "")) for x in column(tables["reconcile"], name)) == end
        use = of["surface"].surface
        said = column(tables["surface"], "leader")[column(tables["surface"], "window").index("day 3 to 14 (in use)")]
        drawn_text = " ".join(t.get_text() for t in js.plot_window_map(use).texts)
        assert f"The window in use (14/3): led by {said}" in drawn_text
        assert seen["sweep"][view]["h1"].replace("\u2011", "-").replace("\u00a0", " ") == of["sweep"].answer


def test_the_verdict_in_a_browser(made: tuple[Path, Any], server: Any, tmp_path: Path) -> None:
    got = made[1]["verdict"]
    page, console = opened(f"http://127.0.0.1:{server.server_address[1]}/replay/index.html", tmp_path / "two")
    assert console == ""
    assert html.escape(got.sentence.split(":")[0]) in page
    tables_and_figures_agree(page, got)


def tables_and_figures_agree(page: str, got: Verdict) -> None:
    """The differences in the table of the page, in the slide and at the end of the race."""
    page = page.split('<section class="pane pane-results">')[0]
    cells = {v: re.findall(r'<td class="n">([^<]+)<span>([^<]+)</span>', row)[0]
             for v, row in re.findall(r'<tr><td class="short held"[^>]*>([^<]+)</td>(<td class="n">.*?)</tr>', page)
             if v in set(got.table["variant_id"])}  # fmt: skip
    slide = js.plot_brief(got).child_axes[0]
    drawn = [line.get_xdata() for line in slide.lines if len(line.get_xdata()) == 2 and line.get_color() != "#222222"]
    points = [line.get_xdata()[0] for line in slide.lines if len(line.get_xdata()) == 1]
    top = js.plot_race(got.race).child_axes[0]
    ends = [line.get_ydata()[-1] for line in top.lines][: len(got.table)]
    for i, row in enumerate(got.table.to_dict("records")):
        want = [row[k] for k in ("difference_per_1000", "low_per_1000", "high_per_1000")]
        assert cells[row["variant_id"]] == (
            write(want[0], "number"), f"{write(want[1], 'number')} to {write(want[2], 'number')}"
        )  # fmt: skip
        np.testing.assert_allclose([points[i], *drawn[i]], want)
        assert ends[i] == pytest.approx(want[0])


def test_printing_shows_every_tab(server: Any, tmp_path: Path) -> None:
    assert BROWSER is not None
    file = tmp_path / "page.pdf"
    url = f"http://127.0.0.1:{server.server_address[1]}/replay/index.html"
    subprocess.run(
        [BROWSER, *HEADLESS, f"--user-data-dir={tmp_path / 'three'}",
         f"--print-to-pdf={file}", url], capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    assert len(re.findall(rb"/Type\s*/Page\b", file.read_bytes())) >= len(TABS)
