"""Check what may be compared with what; name methods as score files do."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from eddy_bench.compare.load import SETTINGS, ScoreSet, check_directions
from eddy_bench.errors import CompareError, EddyError
from eddy_bench.methods.registry import build_method, method_name, parameter_text
from eddy_bench.scoring.bad_images import bad_words
from eddy_bench.scoring.metrics import METRICS
from eddy_bench.storage.paths import as_path
from eddy_bench.storage.records import method_text
from eddy_bench.storage.run_folder import RunFolder
from eddy_bench.suites.method_spec import MethodSpec, is_file_plugin

SHOWN_LABELS = 8


def check_settings(candidate: ScoreSet, baseline: ScoreSet) -> None:
    """Raise CompareError where a candidate was drawn with other settings than its baseline."""
    different = []
    for name in SETTINGS:
        sides = (map(str, side.frame[name]) for side in (baseline, candidate))
        values = list(dict.fromkeys(value for side in sides for value in side))
        if len(values) > 1:
            different.append(f"{name} is {values[0]} in the baseline and {values[1]} now")
    different += _other_settings([*baseline.sources, *candidate.sources])
    if different:
        raise CompareError(
            f"The candidate was drawn with other settings: {'; '.join(different)}. "
            "Draw it as the baseline was, or make a new baseline."
        )


def _other_settings(sources: Sequence[str]) -> list[str]:
    """Say what run folders hold fixed beside the columns of scores.csv, where it differs."""
    folders = [RunFolder(as_path(source)) for source in dict.fromkeys(sources)]
    held = [folder.read_run().settings for folder in folders if folder.has_run]
    return [
        f"{name} differs: {held[0].as_dict().get(name)} and {settings.as_dict().get(name)}"
        for settings in held[1:]
        for name in held[0].differences(settings)
        if name not in SETTINGS
    ][:3]


def check_comparable(
    scores: ScoreSet, other: ScoreSet | None = None, partly: bool = False
) -> list[str]:
    """Say what differs between sources that are to be compared.

    Args:
        scores, other: one table, or two sides.
        partly: compare what both sides have.

    Returns:
        Notes on what was left out or differs, when `partly`.

    Raises:
        CompareError: settings, signatures or prompt sets differ and `partly` is not set.

    """
    sides = [scores] if other is None else [scores, other]
    frame = pd.concat([side.frame for side in sides], ignore_index=True)
    check_directions(frame)
    notes = []
    for name in SETTINGS:
        values = list(dict.fromkeys(map(str, frame[name])))
        if len(values) > 1:
            notes.append(f"{name} differs: {values[0]} and {values[1]}")
    notes += _other_settings([source for side in sides for source in side.sources])
    for column, signatures in frame.groupby("column")["signature"].unique().items():
        if len(signatures) > 1:
            notes.append(f"the signatures of {column} differ: {signatures[0]} and {signatures[1]}")
    notes += _other_prompts(frame)
    if notes and not partly:
        raise CompareError(
            f"Cannot compare: {'; '.join(notes)}. Add --partly to compare what both have."
        )
    return notes


def _other_prompts(frame: pd.DataFrame) -> list[str]:
    """Say where two methods hold different groups."""
    rows = frame[frame["prompt_id"] != ""]
    sets = {
        key: frozenset(zip(part["prompt_id"], part["prompt"], part["seed"], strict=True))
        for key, part in rows.groupby(["source", "label"])
    }
    first = next(iter(sets), None)
    second = next((key for key in sets if first and sets[key] != sets[first]), None)
    if first is None or second is None:
        return []
    missing = sorted(sets[first] ^ sets[second])
    identity, prompt, seed = missing[0]
    return [
        f"prompts differ: {identity!r} ({prompt[:40]!r}, seed {seed}) is not in both "
        f"{first[1]} ({first[0]}) and {second[1]} ({second[0]}), {len(missing)} in all"
    ]


def lacking(scores: ScoreSet) -> list[str]:
    """Say which methods have no value at all of a metric that others have."""
    notes = []
    for column, rows in scores.frame.groupby("column", sort=False):
        with_values = set(rows["label"])
        without = [label for label in scores.labels if label not in with_values]
        if without and not METRICS[rows["metric"].iloc[0]].implied:
            more = " and more" if len(without) > 5 else ""
            notes.append(
                f"{', '.join(without[:5])}{more}: no value of {column}, which other methods have"
            )
    return notes


def bad_notes(scores: ScoreSet, other: ScoreSet | None = None) -> list[str]:
    """Say how many images are none, by method, on each side."""
    there = [f"in the other run {note}" for note in bad_words(other.bad_images)] if other else []
    return [*bad_words(scores.bad_images), *there]


def canonical(text: str) -> str:
    """Return a method as score files name it; text that is no method stays what it is.

    Its parameters that are not the defaults stand in order.

    >>> canonical("pg:kernel=features,strength=2"), canonical("pg:kernel=auto")
    ('pg:strength=2,kernel=features', 'pg')
    """
    try:
        spec = MethodSpec.parse(text)
        parameters = (
            str(spec).removeprefix(spec.name).removeprefix(":")  # a file is not run for its name
            if is_file_plugin(spec.name)
            else parameter_text(build_method(spec))
        )
    except EddyError:
        return method_text(text, "")
    return method_text(method_name(spec), parameters)


def some_of(labels: Sequence[str], wanted: str) -> str:
    """Return a few labels, those of the same method first."""
    name = MethodSpec.of_label(wanted).name
    ordered = sorted(labels, key=lambda label: MethodSpec.of_label(label).name != name)
    more = len(ordered) - SHOWN_LABELS
    return ", ".join(ordered[:SHOWN_LABELS]) + (f" and {more} more" if more > 0 else "")
