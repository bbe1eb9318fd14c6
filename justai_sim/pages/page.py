"""Pages: jinja2 templates with everything inside, and the figures beside them."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes

from justai_sim.pages.style import save

AGE = (
    "Conversions by days since the send, and leader minus control added up",
    "Above, conversions of a send's user by days since the send, whatever caused them. The dashed line is the level "
    "of the 7 days before the send. It includes what other messages do: where users get several messages it is an "
    "upper bound for the background. Below, what a variant adds over the control; each shaded band holds a "
    "whole curve with 95 % confidence. Only the tinted days count.",
)
WEIGHTS = {
    "inverse propensity": "Sends are weighted by the inverse of the probability with which their variant was drawn, so "
    "that every variant stands for the same days and templates.",
    "day": "The log has no probabilities of choice, so sends are weighted by template and day: every variant stands "
    "for the same days, apart from days on which it had no send.",
}
"""How the sends of the age figure are weighted."""
DELAY = (
    "Conversions that a send has added over the background, by days since the send",
    "All conversions of a send's user count, whatever the window. Sends of one user overlap: what each adds is told "
    "apart by a model in which their effects add up, and a send is followed for as long as the log goes. Each band "
    "holds a whole curve with 95 % confidence.",
)
WINDOWS = "The leading variant for every pair of first and last day of the window"


@dataclass(frozen=True)
class Picture:
    """A figure on a page: its files' stem, what a reader who cannot see it is told, and its sentence."""

    name: str
    alt: str
    text: str
    svg: str


def picture(ax: Axes, out: Path, name: str, alt: str, text: str) -> Picture:
    """Write NAME.png and NAME.svg into `out` and hold the SVG for the page."""
    save(ax, out / name)
    svg = base64.b64encode((out / f"{name}.svg").read_bytes()).decode("ascii")
    return Picture(name, alt, text, f"data:image/svg+xml;base64,{svg}")


def tidy(text: object) -> str:
    """Text that does not break inside '0-14' or before a percent sign."""
    return re.sub(r"(?<=\w)-(?=\w)", "\u2011", re.sub(r"(?<=\d) %", "\u00a0%", str(text)))


def write_page(template: str, out: Path, **values: Any) -> Path:
    """Render a template to `out`/index.html."""
    env = Environment(
        loader=PackageLoader("justai_sim.pages"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    env.filters["tidy"] = tidy
    path = out / "index.html"
    path.write_text(env.get_template(template).render(**values) + "\n", encoding="utf-8", newline="\n")
    return path
