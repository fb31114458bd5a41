"""Compare each method with itself in another run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from eddy_bench.compare.load import ScoreSet
from eddy_bench.compare.paired import Difference, compare
from eddy_bench.scoring.statistics import holm

BEFORE, NOW = "before", "now"


def between(
    now: ScoreSet,
    before: ScoreSet,
    progress: Callable[[int], Callable[[int, str], None]] = lambda total: lambda count, label: None,
) -> list[Difference]:
    """Compare each method with itself in another run. progress: over methods."""
    differences = []
    shared = [label for label in now.labels if label in before.labels]
    advance = progress(len(shared))
    for label in shared:
        advance(0, label)
        parts = [
            side.frame[side.frame["label"] == label].assign(label=name)
            for side, name in ((before, BEFORE), (now, NOW))
        ]
        both = ScoreSet(pd.concat(parts, ignore_index=True), (*before.sources, *now.sources))
        differences += [replace(difference, label=label) for difference in compare(both, BEFORE)]
        advance(1, label)
    columns = list(dict.fromkeys(difference.column for difference in differences))
    corrected = []
    for column in columns:
        family = [difference for difference in differences if difference.column == column]
        adjusted = holm(
            [difference.p if difference.p == difference.p else 1.0 for difference in family]
        )
        corrected += [
            replace(difference, p_holm=p if difference.prompts else difference.p_holm)
            for difference, p in zip(family, adjusted, strict=True)
        ]
    return corrected
