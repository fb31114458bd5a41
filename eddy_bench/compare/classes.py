"""A comparison class by class: by what the prompt set says of its prompts, or by their length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from eddy_bench.compare.paired import Difference, compare, corrected
from eddy_bench.errors import CompareError
from eddy_bench.results.io import TAG, tag_columns
from eddy_bench.results.results import Results

LENGTH = "length"  # of prompts in words
NONE = "(none)"  # the class of prompts that the set says nothing of
MAX_CLASSES = 50


@dataclass(frozen=True)
class ClassDifferences:
    """The differences over the prompts of one class.

    name: of the class. results: its rows. prompts: how many it has.
    """

    name: str
    results: Results
    prompts: int
    differences: list[Difference]


def by_class(results: Results, by: str) -> list[ClassDifferences]:
    """Compare every method with the baseline on each class of prompts.

    Pooled metrics have no prompts and are left out. p is corrected over methods and classes.

    Args:
        results: of all methods.
        by: a tag of the prompts, such as `category`, or `length`: their words in terciles.

    Raises:
        CompareError: the prompts have no such tag, or more than 50 values of it.

    """
    own = results.frame[results.frame["prompt_id"] != ""]
    classes = _lengths(own["prompt"]) if by == LENGTH else _tags(results, own, by)
    names = list(dict.fromkeys(classes[classes != NONE])) + [NONE] * bool((classes == NONE).any())
    if len(names) > MAX_CLASSES:
        raise CompareError(
            f"Expected at most {MAX_CLASSES} classes of prompts, got {len(names)} of {by!r}."
        )
    found = []
    for name in sorted(names, key=_first_number) if by == LENGTH else names:
        frame = own[(classes == name).to_numpy()]
        part = replace(results, frame=frame)
        differences = compare(part) if results.baseline in set(frame["method"]) else []
        found.append(ClassDifferences(name, part, frame["prompt_id"].nunique(), differences))
    return list(_corrected(found))


def classes_of(results: Results) -> list[str]:
    """Return what prompts can be compared by: the tags of several prompts each, then length."""
    own = results.frame[results.frame["prompt_id"] != ""].drop_duplicates("prompt_id")
    names = [
        name
        for name in tag_columns([own])
        if 1 < own[name].nunique() <= min(MAX_CLASSES, len(own) / 2)
    ]
    return [*(name.removeprefix(TAG) for name in names), LENGTH]


def _tags(results: Results, own: pd.DataFrame, by: str) -> pd.Series:
    names = [name.removeprefix(TAG) for name in tag_columns([own])]
    alike = [name for name in names if name.lower() == by.lower()]
    if by not in names and len(alike) == 1:
        by = alike[0]
    if TAG + by not in own:
        raise CompareError(
            f"Expected --by with what the prompt set says of its prompts, got {by!r}. "
            f"{', '.join(results.sources)} has {', '.join([*names, LENGTH])}."
        )
    return own[TAG + by].astype(object).replace("", NONE)


def _lengths(prompts: pd.Series) -> pd.Series:
    """Return the tercile of each prompt's number of words, as `3 to 5 words`."""
    counts = {text: len(str(text).split()) for text in prompts.unique()}
    words = np.array(sorted(counts.values()))
    cuts = np.unique(np.quantile(words, [1 / 3, 2 / 3], method="inverted_cdf"))
    places = {text: int(np.searchsorted(cuts, count)) for text, count in counts.items()}
    names = {}
    for place in set(places.values()):
        own = [counts[text] for text, held in places.items() if held == place]
        ends = dict.fromkeys([min(own), max(own)])
        names[place] = f"{' to '.join(map(str, ends))} word{'' if max(own) == 1 else 's'}"
    return prompts.map({text: names[place] for text, place in places.items()}).astype(object)


def _first_number(name: str) -> int:
    return int(name.split()[0])


def _corrected(found: list[ClassDifferences]) -> Iterator[ClassDifferences]:
    """Yield classes whose p is corrected over the methods of all of them, metric by metric."""
    flat = [(k, own) for k, part in enumerate(found) for own in part.differences]
    fixed: dict[int, list[Difference]] = {k: [] for k in range(len(found))}
    for metric in dict.fromkeys(own.metric for _, own in flat):
        of_metric = [(k, own) for k, own in flat if own.metric == metric]
        paired = of_metric[0][1].prompts > 0
        lines = [own for _, own in of_metric]
        for (k, _), own in zip(of_metric, corrected(lines) if paired else lines, strict=True):
            fixed[k].append(own)
    for k, part in enumerate(found):
        yield replace(part, differences=fixed[k])
