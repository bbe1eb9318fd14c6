"""The replay page in a real browser: no request leaves it, no error, every tab opens, and it fits a phone."""

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
import pytest

import justai_sim as js
from justai_sim.pages.replay_page import TABS
from justai_sim.pages.table import write
from justai_sim.verdicts.verdict import Verdict
from tests.verdict_logs import made_log

HEADLESS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser: install chromium (apt-get install chromium)")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Whatever the page asks of anybody is refused, and told on the console."""
HARNESS = """<!DOCTYPE html><title>t</title><link rel="icon" href="data:,"><pre id="out"></pre>
<iframe id="wide" src="index.html" width="1280" height="900"></iframe>
<iframe id="phone" src="index.html" width="390" height="800"></iframe>
<script>
onload = () => {
  const out = {};
  for (const id of ["wide", "phone"]) {
    const doc = document.getElementById(id).contentDocument, view = doc.defaultView, seen = {};
    for (const label of doc.querySelectorAll(".tabs > label")) {
      label.click();
      seen[label.htmlFor] = {
        panes: [...doc.querySelectorAll(".pane")].filter(p => view.getComputedStyle(p).display != "none")
          .map(p => p.className),
        wide: doc.documentElement.scrollWidth - view.innerWidth,
        broken: [...doc.images].filter(i => i.offsetParent && i.complete && !i.naturalWidth).length,
      };
    }
    out[id] = seen;
  }
  document.getElementById("out").textContent = JSON.stringify(out);
};
</script>"""


class _Handler(http.server.SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        if self.path.startswith("/index.html"):
            self.send_header("Content-Security-Policy", POLICY)
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Verdict]:
    out = tmp_path_factory.mktemp("page")
    log = made_log(1, rates=(0.08, 0.04, 0.04), per_day=300, amounts=lambda rng, n: rng.uniform(10, 60, n))
    result = js.replay(log, goals=["purchase"])
    js.report(result, out)
    (out / "harness.html").write_text(HARNESS)
    return out, js.verdict(result)


@pytest.fixture(scope="module")
def server(made: tuple[Path, Verdict]) -> Iterator[Any]:
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
         "--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom", url],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def test_the_page_in_a_browser(made: tuple[Path, Verdict], server: Any, tmp_path: Path) -> None:
    _, got = made
    url = f"http://127.0.0.1:{server.server_address[1]}"
    dom, console = opened(f"{url}/harness.html", tmp_path / "one")
    assert console == ""
    asked = {p.split("?")[0] for p in server.asked} - {"/favicon.ico"}
    assert asked == {"/harness.html", "/index.html"}, "the page asked for something else"
    found = re.search(r'<pre id="out">(.*?)</pre>', dom, re.S)
    assert found is not None
    seen = json.loads(html.unescape(found.group(1)))
    for view in ("wide", "phone"):
        assert list(seen[view]) == [f"tab-{name}" for name, _ in TABS]
        for tab, what in seen[view].items():
            assert what["panes"] == [f"pane pane-{tab.removeprefix('tab-')}"]
            assert what["wide"] <= 0, (view, tab, "wider than the screen")
            assert what["broken"] == 0, (view, tab)
    page, console = opened(f"{url}/index.html", tmp_path / "two")
    assert console == ""
    assert html.escape(got.sentence.split(":")[0]) in page
    tables_and_figures_agree(page, got)


def tables_and_figures_agree(page: str, got: Verdict) -> None:
    """The differences in the table of the page, in the slide and at the end of the race."""
    page = page.split('<section class="pane pane-results">')[0]
    cells = {v: re.findall(r'<td class="n">([^<]+)<span>([^<]+)</span>', row)[0]
             for v, row in re.findall(r'<tr><td class="short">([^<]+)</td>(<td class="n">.*?)</tr>', page)
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
    url = f"http://127.0.0.1:{server.server_address[1]}/index.html"
    subprocess.run(
        [BROWSER, *HEADLESS, f"--user-data-dir={tmp_path / 'three'}",
         f"--print-to-pdf={file}", url], capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    assert len(re.findall(rb"/Type\s*/Page\b", file.read_bytes())) >= len(TABS)
