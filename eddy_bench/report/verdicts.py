"""Say what a comparison shows, a sentence per method, and what speaks against it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from eddy_bench.compare.advice import of_aspect
from eddy_bench.compare.comparable import drawn_elsewhere
from eddy_bench.compare.comparison import Comparison
from eddy_bench.compare.paired import Difference
from eddy_bench.compare.subsampling import direction_words, subsampling_of
from eddy_bench.ids import CIRCULAR, SMALL_SAMPLE, MethodId, MetricId
from eddy_bench.results.results import Results
from eddy_bench.storage.run_folder import RunFolder

FEW = 6  # names of methods in a sentence


def verdicts(comparison: Comparison) -> list[tuple[str, str]]:
    """Return (method, sentence) for every method but the baseline."""
    differences = comparison.differences
    further = _headroom_words(comparison)
    return [
        (
            str(method),
            _sentence([own for own in differences if own.method == method], comparison, method)
            + further.get(method, ""),
        )
        for method in dict.fromkeys(own.method for own in differences)
    ]


def _headroom_words(comparison: Comparison) -> dict[MethodId, str]:
    """Say of each method how much headroom it uses, and where shifted samples went."""
    sentences: dict[MethodId, str] = {}
    results, subsampling = comparison.results, subsampling_of(comparison.results)
    for own in comparison.headrooms:
        if not own.words or own.method in sentences:
            continue
        words = [own.words]
        words += [direction_words(results, own.method, subsampling)] if own.shifted else []
        sentences[own.method] = f" {', '.join(filter(None, words))}."
    return sentences


def _sentence(mine: Sequence[Difference], comparison: Comparison, method: MethodId) -> str:
    results, parts = comparison.results, []
    for own in of_aspect("diversity", mine, results)[:1]:
        words = {
            True: "More diverse than",
            False: "Less diverse than",
            None: "No significant difference in diversity to",
        }[own.better]
        parts.append(
            f"{words} {results.baseline}: {figures(own)}, better on {own.wins:.0%} of prompts"
        )
    fidelity = of_aspect("fidelity", mine, results)
    parts += [f"more faithful: {figures(own)}" for own in fidelity if own.better]
    for better, words in (
        (False, "less faithful"),
        (None, "no significant difference in fidelity, nor is one excluded"),
    ):
        if some := [figures(own) for own in fidelity if own.better is better]:
            parts.append(f"{words}: {'; '.join(some)}")
    parts += _drift(results, method)
    parts += [
        f"{own.ratio:.2f} times the seconds"
        for own in mine
        if results.metric(own.metric).role == "seconds" and own.baseline > 0 and own.ratio > 0
    ]
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def figures(own: Difference) -> str:
    """Return `vendi[fmnist-clip] +0.09 [+0.03, +0.14]`."""
    return f"{own.metric} {own.difference:+.3g} [{own.low:+.3g}, {own.high:+.3g}]"


def _drift(results: Results, method: MethodId) -> list[str]:
    """Say how far a method's single images are from i.i.d. ones, in the floor's units."""

    def of_role(role: str) -> MetricId | None:
        own = [column for column in results.columns if results.metric(column).role == role]
        return own[0] if own else None

    drift, floor = of_role("hold-out"), of_role("hold-out floor")
    if drift is None or floor is None:
        return []
    values = results.rows(method, drift)["value"], results.rows(column=floor)["value"]
    if not len(values[0]) or not len(values[1]) or not values[1].iloc[0] > 0:
        return []
    small = any(own.has(SMALL_SAMPLE) for own in set(results.rows(column=drift)["signature"]))
    care = " (a small sample: a ratio near 1 says little)" if small else ""
    return [f"drift {values[0].iloc[0] / values[1].iloc[0]:.2f} times its floor{care}"]


def warnings(comparison: Comparison, folders: Sequence[Path]) -> list[str]:
    """Name metrics and methods that need care."""
    differences, notes = comparison.differences, []
    marked = {
        mark: sorted({str(own.metric) for own in differences if mark in own.warning})
        for mark in (SMALL_SAMPLE, CIRCULAR)
    }
    if small := marked[SMALL_SAMPLE]:
        notes.append(
            f"Small samples: {', '.join(small)} are biased upwards at this number of images: "
            "read them as ratios between methods of this run at most."
        )
    if circular := marked[CIRCULAR]:
        notes.append(
            f"Circular: {', '.join(circular)} are computed with a network that also guided."
        )
    kernels = _kernels(comparison.results, folders)
    if len(kernels) > 1:
        shown = "; ".join(f"{kernel}: {_few(names)}" for kernel, names in sorted(kernels.items()))
        notes.append(
            f"The methods use different kernels ({shown}): compare methods only within one kernel."
        )
    few = sorted({own.prompts for own in differences if 0 < own.prompts < 20})
    if few:
        notes.append(
            f"Only {few[0]} prompt{'' if few[0] == 1 else 's'}: "
            "only large differences can be significant, or none."
        )
    frame = comparison.results.frame
    columns = comparison.results.columns
    costs = [own for own in columns if comparison.results.metric(own).scope == "cost"]
    frame = frame[~(drawn_elsewhere(frame) & frame["metric"].isin(costs))]
    missing = frame[pd.isna(frame["value"])].groupby("metric", sort=False, observed=True).size()
    if lost := [f"{metric} ({count})" for metric, count in missing.items()]:
        notes.append(
            "Groups for which a metric has no value, as where a prompt leaves nothing to judge: "
            f"{', '.join(lost)}."
        )
    return notes


def _kernels(results: Results, folders: Sequence[Path]) -> dict[str, list[str]]:
    """Return the methods that are compared, by their kernel."""
    kernels: dict[str, dict[str, None]] = {}
    for path in folders:
        for group in RunFolder(path).finished(broken=[]):
            if group.group.kernel and group.group.id in results.methods:
                kernels.setdefault(group.group.kernel, {})[group.group.name] = None
    return {kernel: sorted(names) for kernel, names in kernels.items()}


def _few(names: Sequence[str]) -> str:
    """Return names, or how many there are where they would fill lines."""
    return ", ".join(names) if len(names) <= FEW else f"{len(names)} methods"
