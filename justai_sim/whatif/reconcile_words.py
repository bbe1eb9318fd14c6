"""A reconciliation in sentences."""

from __future__ import annotations

from justai_sim.attribution.presets import PRESETS
from justai_sim.errors import listed
from justai_sim.whatif import words
from justai_sim.whatif.reconcile import ALL, IN_USE, Reconciliation


def verdict(got: Reconciliation) -> list[str]:
    """What a reconciliation comes to, the answer first."""
    what, name = got.measure.replace("_", " "), got.closest[0]
    off = f"{words.off(got.distance)} of their {what} apart" if got.distance > 0 else f"its {what} are the same"
    if not got.close:
        first = (
            f"The dashboard's {what} are all 0, and every preset counts some." if got.empty
            else f"No preset comes close to the dashboard; the nearest is {name} ({off})."
        )  # fmt: skip
        return [first, "no receipt: it would lead to a reading that is not the dashboard's; see whether both show "
                "the same days, templates and goal (--since, --until, --template, --goal)"]  # fmt: skip
    lines = [f"The dashboard counts most like {name} ({off})."]
    if got.contradicts:
        others = ", ".join(f"{m.replace('_', ' ')} ({words.off(d)} apart)" for m, d in got.contradicts.items())
        lines.append(f"other numbers of the dashboard are not those of {name}: {others}")
    left = got.receipt[got.receipt["step"] == "unexplained"]
    whole, each = left[left["template_id"] == ALL]["conversions"], left[left["template_id"] != ALL]["conversions"]
    if each.abs().sum() > whole.abs().sum() + 0.5:
        lines.append(f"unexplained variant by variant: {each.abs().sum():,.0f}; over all of them part of it cancels")
    if len(got.closest) > 1:
        lines.append(f"cannot be told apart by these numbers: {listed(got.closest, most=4)}")
    p = got.presets
    equal = p.loc[(p["distance"] <= got.distance + 1e-9) & ~p["closest"], "preset"]
    if len(equal):
        lines.append(f"the same {what} under: {', '.join(equal)}; the dashboard's other numbers tell them apart")
    options = ", ".join(f"{k}={v}" for k, v in got.options.items())
    lines.append(f"differs from the default rule in: {options}" if options else "credits as the default rule")
    known = PRESETS.get(name.split(" with ")[0])
    if name != IN_USE and known is not None:
        lines += [f"follows {known.source}: {known.follows}"] if known.source else []
        lines += [f"which the rule cannot express: {known.lacks}"] if known.lacks else []
    return lines
