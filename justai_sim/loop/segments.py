"""What a segment's text says: the features by which contextual policies learn across segments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from justai_sim.tables import F8


def features(segments: Sequence[str], arms: int) -> F8:
    """(segments + 1, arms, d): an intercept and an indicator for each `attribute=value` of a text like
    'industry=saas|size=small'. The first row stands for users of whom nothing is known.

    >>> features(["plan=free|age=new", "plan=free|age=old"], 1)[:, 0].tolist()
    [[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0]]
    """
    parts = [{p for p in text.split("|") if p} for text in segments]
    known = sorted(set().union(*parts)) if parts else []
    x = np.zeros((len(segments) + 1, 1 + len(known)))
    x[:, 0] = 1
    for i, found in enumerate(parts):
        x[i + 1, 1:] = [v in found for v in known]
    return np.ascontiguousarray(np.broadcast_to(x[:, None, :], (len(x), arms, x.shape[1])))
