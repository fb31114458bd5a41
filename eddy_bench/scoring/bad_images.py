"""How many images are none: rows of scores.csv beside those of metrics, and what is said of them.

A group with a bad image has no value of any metric; what looks at all images of a method leaves bad
ones out, and what looks at groups of them those groups. Only groups with bad images have such rows,
one for each reason, which stands where a metric has its extractor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from eddy_bench.errors import counted
from eddy_bench.scoring.readings import Measured
from eddy_bench.scoring.rows import row_of
from eddy_bench.scoring.signature import BAD_IMAGES, Signature
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.records import RunSettings

ByLabel = Mapping[str, Sequence[FinishedGroup]]


def bad_rows(by_label: ByLabel, settings: RunSettings) -> list[dict[str, Any]]:
    """Return a row per group with bad images and reason: how many there are."""
    return [
        row_of(Measured(group.group, BAD_IMAGES, reason, float(count), _signature(group)), settings)
        for groups in by_label.values()
        for group in groups
        for reason, count in Counter(group.bad.values()).items()
    ]


def _signature(group: FinishedGroup) -> Signature:
    return Signature(BAD_IMAGES, (("N", str(group.group.particles)),))


def count_bad(groups: Iterable[FinishedGroup]) -> int:
    """Return how many images of groups are none."""
    return sum(len(group.bad) for group in groups)


def bad_note(groups: Iterable[FinishedGroup], held_out: Iterable[FinishedGroup]) -> list[str]:
    """Say how many images of a run are none, by method; `held_out` is its set for drift."""
    named = [(group.group.name, group) for group in groups]
    named += [("the set for drift", group) for group in held_out]
    return bad_words(Counter((name, why) for name, own in named for why in own.bad.values()))


def bad_words(parts: Mapping[tuple[str, str], int]) -> list[str]:
    """Say how many images are none, by (method, reason); nothing where there are none."""
    if not parts:
        return []
    listed = ", ".join(f"{name} {count} ({reason})" for (name, reason), count in parts.items())
    count = sum(parts.values())
    return [
        f"{counted(count, 'bad image')}: {listed}. Their groups have no score, "
        "and metrics of whole sets leave them out."
    ]


def bad_counts(rows: pd.DataFrame) -> dict[tuple[str, str], int]:
    """Return how many images are none by (method, reason), from rows of scores.csv."""
    counts: Counter[tuple[str, str]] = Counter()
    for label, reason, count in zip(rows["label"], rows["extractor"], rows["value"], strict=True):
        counts[label, reason] += int(count)
    return counts
