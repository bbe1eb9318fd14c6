"""The bias identity of one world as a frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from justai_sim.biases.identity import Identity
from justai_sim.biases.match import HELD
from justai_sim.biases.terms import IDENTITIES, MEANING, TERM
from justai_sim.tables import I8, MICRO, PARTS

ALL = "ALL"
HELD_OUT = "held_out"


@dataclass(frozen=True)
class Bias:
    """What separates the numbers that a dashboard shows from what the sends caused.

    table: one row a `template_id, variant_id, identity, term`, with `value`. Identities: `events` (credited weight
    against conversions caused), `sends` (converted sends as the rule's `repeat` counts them against sends that caused
    one), `revenue` (units of the declared currency). In each, the values of all terms from `caused` on add up to
    `shown`: exactly, in parts of 1e9 conversions and in micro-units. `ALL`: sums over variants and templates, without
    the ghost sends of held-out users (`held_out`). A conversion credited in two templates counts in both.
    """

    table: pd.DataFrame
    world: str

    @property
    def meaning(self) -> dict[str, str]:
        """What each term says."""
        return dict(MEANING)

    def wide(self, identity: str = "sends") -> pd.DataFrame:
        """One row a template and variant, one column a term that is not zero everywhere."""
        here = self.table[self.table["identity"] == identity]
        out = here.pivot_table(index=["template_id", "variant_id"], columns="term", values="value", sort=False)
        keep = [t for t in out.columns if t in ("caused", "shown") or (out[t] != 0).any()]
        return out[keep].reset_index().rename_axis(columns=None)

    def total(self, identity: str = "sends") -> pd.Series[float]:
        """The terms of all templates and variants together; those that are zero everywhere are left out."""
        return self.wide(identity).set_index(["template_id", "variant_id"]).loc[(ALL, ALL)].rename(self.world)

    def by_variant(
        self, identity: str = "sends", variant: str | None = None, template: str | None = None
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """A row a term that is not zero everywhere, a column a variant (of one template, or summed over all); and the
        names of these columns."""
        here = self.table[self.table["identity"] == identity]
        here = here[here["template_id"] == template] if template is not None else here[here["template_id"] != ALL]
        if variant is not None:
            here = here[here["variant_id"] == variant]
        wide = here.pivot_table(index="term", columns="variant_id", values="value", aggfunc="sum", sort=False)
        wide = wide.reindex([*IDENTITIES[identity]])
        wide = wide[[*(c for c in wide.columns if c != ALL), *(c for c in wide.columns if c == ALL)]]
        rows: list[dict[str, Any]] = [
            {"term": str(t), **{str(c): round(float(x), 6) for c, x in values.items()}}
            for t, values in wide.iterrows()
            if t in ("caused", "shown") or (values.round(9) != 0).any()
        ]
        return rows, [str(c) for c in wide.columns]

    def __repr__(self) -> str:
        return f"Bias({self.world}: {len(self.table):,} terms)"

    def _repr_html_(self) -> str:
        said = f"SIMULATED {escape(self.world)}. Converted sends: caused + the terms between = shown."
        return f"<p>{said}</p>" + self.wide().to_html(index=False, float_format=lambda x: f"{x:,.10g}")


def bias_table(found: Identity, text: Callable[[str, I8], list[str]]) -> pd.DataFrame:
    """The long table of one world; `text(space, codes)` gives the texts of templates and variants."""
    templates = np.array(text("template", found.template), dtype=object)
    variants = np.array(text("variant", found.variant), dtype=object)
    variants[found.variant == HELD] = HELD_OUT
    real = found.variant != HELD
    order = np.lexsort((found.variant, ~real, found.template))  # held-out users last
    pairs = dict.fromkeys(zip(templates[order], variants[order], strict=True))
    groups = [(t, v, (templates == t) & (variants == v)) for t, v in pairs]
    groups += [(t, ALL, (templates == t) & real) for t in dict.fromkeys(templates)]
    groups += [(ALL, v, variants == v) for v in dict.fromkeys(v for _, v in pairs)]
    groups.append((ALL, ALL, real))
    rows = []
    for template, variant, which in groups:
        for name, terms in IDENTITIES.items():
            unit = MICRO if name == "revenue" else PARTS
            total = found.amount[name][which].sum(axis=0)
            rows += [(template, variant, name, term, int(total[TERM[term]]) / unit) for term in terms]
    return pd.DataFrame(rows, columns=["template_id", "variant_id", "identity", "term", "value"])
