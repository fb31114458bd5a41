"""Check what may be compared with what; name methods as score files do."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from eddy_bench.errors import CompareError, EddyError, unknown
from eddy_bench.ids import MethodId
from eddy_bench.methods.registry import build_method, method_name, method_names, parameter_text
from eddy_bench.results.io import SETTINGS, metrics_of
from eddy_bench.results.results import Results, bad_words
from eddy_bench.storage.paths import as_path
from eddy_bench.storage.run_folder import RunFolder
from eddy_bench.suites.method_spec import MethodSpec, is_file_plugin

LISTED = 8  # methods in a message


def check_settings(candidate: Results, baseline: Results) -> None:
    """Raise CompareError where a candidate was drawn with other settings than its baseline."""
    different = []
    for name in SETTINGS:
        values = list(dict.fromkeys(v for side in (baseline, candidate) for v in side.frame[name]))
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
    runs = [folder.read_run().settings for folder in folders if folder.has_run]
    held = [settings for settings in runs if not settings.imported]
    return [
        f"{name} differs: {held[0].as_dict().get(name)} and {settings.as_dict().get(name)}"
        for settings in held[1:]
        for name in held[0].differences(settings)
        if name not in SETTINGS
    ][:3]


def check_comparable(
    results: Results, other: Results | None = None, allow_missing: bool = False
) -> list[str]:
    """Say what differs between sources that are to be compared.

    Args:
        results, other: one, or two sides.
        allow_missing: compare what both sides have.

    Returns:
        Notes on what was left out or differs, when `allow_missing`; on bad images and on methods
        without any value of a metric.

    Raises:
        CompareError: settings, signatures or prompt sets differ and `allow_missing` is not set.

    """
    sides = [results] if other is None else [results, other]
    frame = pd.concat([side.frame for side in sides], ignore_index=True)
    metrics_of(frame)
    notes = []
    drawn = frame[~drawn_elsewhere(frame)]
    for name in SETTINGS:
        values = list(dict.fromkeys((frame if name == "particles" else drawn)[name]))
        if len(values) > 1:
            notes.append(f"{name} differs: {values[0]} and {values[1]}")
    notes += _other_settings([source for side in sides for source in side.sources])
    for column, rows in frame.groupby("metric", sort=False, observed=True):
        signatures = list(dict.fromkeys(rows["signature"]))
        if len(signatures) > 1:
            notes.append(f"the signatures of {column} differ: {signatures[0]} and {signatures[1]}")
    notes += _other_prompts(frame)
    if notes and not allow_missing:
        raise CompareError(
            f"Cannot compare: {'; '.join(notes)}. Add --allow-missing to compare what both have."
        )
    notes += _elsewhere(frame)
    notes += bad_words(results.bad_images)
    if other:
        notes += [f"in the other run {note}" for note in bad_words(other.bad_images)]
    return [*notes, *_without_values(results)]


def drawn_elsewhere(frame: pd.DataFrame) -> pd.Series:
    """Return which rows are of imported images, whose solver is not known."""
    return (frame["scheduler"] == "").astype(bool)


def _elsewhere(frame: pd.DataFrame) -> list[str]:
    own = frame[drawn_elsewhere(frame)]
    if own.empty:
        return []
    names = ", ".join(map(str, dict.fromkeys(own["method"])))
    models = ", ".join(map(str, dict.fromkeys(own["model"])))
    return [
        f"the images of {names} were drawn elsewhere ({models}), with settings that are not known: "
        "paired over prompts, not over noise"
    ]


def _other_prompts(frame: pd.DataFrame) -> list[str]:
    """Say where two methods hold different groups."""
    rows = frame[frame["prompt_id"] != ""]
    sets = {
        key: frozenset(zip(part["prompt_id"], part["prompt"], part["seed"], strict=True))
        for key, part in rows.groupby(["source", "method"], sort=False, observed=True)
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


def _without_values(results: Results) -> list[str]:
    """Say which methods have no value at all of a metric that others have."""
    notes = []
    for column in results.columns:
        there = set(results.rows(column=column)["method"])
        without = [str(method) for method in results.methods if method not in there]
        if without and not results.metric(column).implied:
            more = " and more" if len(without) > 5 else ""
            notes.append(
                f"{', '.join(without[:5])}{more}: no value of {column}, which other methods have"
            )
    return notes


def with_baseline(results: Results, text: str) -> Results:
    """Return results whose methods are compared with the one that a text names."""
    typed = MethodId.parse(text)
    return replace(results, baseline=typed if typed in results.methods else canonical(text))


def canonical(text: str) -> MethodId:
    """Return a method as score files name it; text that is no method stays what it is.

    Its parameters that are not the defaults stand in order.

    >>> str(canonical("pg:kernel=features,strength=2")), str(canonical("pg:kernel=auto"))
    ('pg:strength=2,kernel=features', 'pg')
    """
    try:
        spec = MethodSpec.parse(text)
        if is_file_plugin(spec.name):  # a file is not run for its name
            return MethodId(method_name(spec), MethodId.parse(str(spec)).parameters)
        return MethodId(method_name(spec), parameter_text(build_method(spec)))
    except EddyError:
        return MethodId.parse(text)


def some_of(methods: Sequence[MethodId], wanted: MethodId) -> str:
    """Return a few methods, those of the same name first."""
    ordered = sorted(methods, key=lambda method: method.name != wanted.name)
    more = len(ordered) - LISTED
    return ", ".join(map(str, ordered[:LISTED])) + (f" and {more} more" if more > 0 else "")


def misspelt(baseline: MethodId, drawn: Sequence[MethodId]) -> CompareError | None:
    """Return the error of a baseline that no method is called; None for a method's name."""
    if is_file_plugin(str(baseline)) or baseline.name in method_names():
        return None
    message = unknown("baseline", str(baseline), map(str, drawn))
    return CompareError(message.replace("Available", "The run holds"))


def no_baseline(results: Results) -> CompareError:
    """Return the error of a baseline that is not there: drawn by nobody, or misspelt."""
    baseline = results.baseline
    if error := misspelt(baseline, results.methods):
        return error
    folder = next((source for source in results.sources if as_path(source).is_dir()), "")
    out = shlex.quote(folder) if folder else "RUN"
    name = shlex.quote(str(baseline))
    cure = f"Add it: eddy-bench run --method {name} --out {out}"
    if drawn_elsewhere(results.frame).all():
        cure = f"Give a run that has it, too: eddy-bench compare RUN {out}"
    return CompareError(
        f"The baseline {str(baseline)!r} is not in {', '.join(results.sources)}, which holds "
        f"{some_of(results.methods, baseline)}. {cure}; or name another: --baseline."
    )
