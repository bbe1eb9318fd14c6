"""What a segment's text says: the features by which contextual policies learn across segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from justai_sim.tables import F8


def features(segments: Sequence[str], themes: Sequence[Sequence[str]]) -> F8:
    """(segments + 1, arms, d): an intercept, an indicator for each `attribute=value` of a text like
    'industry=saas|size=small', and one for each theme of an arm. The first row stands for users of whom nothing is
    known; `themes` has one entry an arm, the control's first.

    >>> features(["plan=free|age=new", "plan=free|age=old"], [[]])[:, 0].tolist()
    [[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0]]
    >>> features([], [[], ["urgency"], ["price"]])[0].tolist()
    [[1.0, 0.0, 0.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    """
    parts = [set(), *({p for p in text.split("|") if p} for text in segments)]
    known, named = sorted(set().union(*parts)), sorted(set().union(*themes))
    x = np.array([[1.0, *(v in found for v in known)] for found in parts])
    own = np.array([[v in found for v in named] for found in themes], np.float64).reshape(len(themes), -1)
    shape = len(x), len(themes)
    return np.concatenate(
        [np.broadcast_to(x[:, None], (*shape, x.shape[1])), np.broadcast_to(own, (*shape, own.shape[1]))], 2
    )


def segment_of(definitions: Mapping[str, Sequence[str | float]], attrs: Mapping[str, Any] | None) -> str:
    """The text of a user's segment: each defined attribute with its value (any case) or bucket, 'other' for a value
    that is not defined; attributes that are not given are left out.

    >>> wanted = {"plan": ["free", "paid"], "age_days": [7.0, 30.0]}
    >>> segment_of(wanted, {"plan": "Free", "age_days": 12, "x": 1}), segment_of(wanted, {"plan": "?", "age_days": 99})
    ('plan=free|age_days<=30', 'plan=other|age_days>30')
    """
    parts = []
    for name, values in definitions.items():
        found = (attrs or {}).get(name)
        if found is None or found == "":
            continue
        parts.append(name + (_named(values, found) if isinstance(values[0], str) else _bucket(values, found)))
    return "|".join(parts)


def _named(values: Sequence[Any], found: Any) -> str:
    text = str(found).strip().lower()
    return f"={text if text in [str(v).lower() for v in values] else 'other'}"


def _bucket(ends: Sequence[Any], found: Any) -> str:
    try:
        number = float(found)
    except (TypeError, ValueError):
        number = float("nan")
    if number != number:
        return "=other"
    end = next((float(v) for v in ends if number <= float(v)), None)
    return f">{float(ends[-1]):g}" if end is None else f"<={end:g}"
