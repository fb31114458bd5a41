"""Say what a comparison shows, a sentence per method, and what speaks against it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from eddy_bench.compare.direction import direction_words, subsampling_of
from eddy_bench.compare.free_shares import MethodShare
from eddy_bench.compare.load import ScoreSet
from eddy_bench.compare.paired import Difference
from eddy_bench.scoring.metrics import MetricSpec, judging
from eddy_bench.scoring.signature import CIRCULAR, SMALL_SAMPLE, Signature

FEW = 6  # names of methods in a sentence


def verdicts(
    differences: Sequence[Difference],
    scores: ScoreSet,
    shares: Sequence[MethodShare],
    baseline: str,
) -> list[tuple[str, str]]:
    """Return (method, sentence) for every method but the baseline."""
    labels = list(dict.fromkeys(difference.label for difference in differences))
    ceiling = _ceiling(scores, shares)
    return [
        (
            label,
            _sentence(
                [difference for difference in differences if difference.label == label],
                scores,
                label,
                baseline,
            )
            + ceiling.get(label, ""),
        )
        for label in labels
    ]


def _ceiling(scores: ScoreSet, shares: Sequence[MethodShare]) -> dict[str, str]:
    """Say of each method how much of what is free it gains, and where moved samples went."""
    sentences: dict[str, str] = {}
    subsampling = subsampling_of(scores)
    for share in shares:
        words = share.words
        if words and share.moved:
            words = ", ".join(
                filter(None, [words, direction_words(scores, share.label, subsampling)])
            )
        if words and share.label not in sentences:
            sentences[share.label] = f" Gains {words}."
    return sentences


def _of_metrics(mine: Sequence[Difference], names: Sequence[str]) -> list[Difference]:
    """Return the differences of some metrics that were compared per prompt, metric by metric."""
    return [
        difference
        for name in names
        for difference in mine
        if MetricSpec.of_column(difference.column).name == name and difference.prompts
    ]


def _sentence(mine: Sequence[Difference], scores: ScoreSet, label: str, baseline: str) -> str:
    parts = []
    for difference in _of_metrics(mine, judging("diversity"))[:1]:
        words = {
            True: "More diverse than",
            False: "Less diverse than",
            None: "No shown difference in diversity to",
        }[difference.better]
        parts.append(
            f"{words} {baseline}: {figures(difference)}, better on {difference.wins:.0%} of prompts"
        )
    faithful = {
        better: [item for item in _of_metrics(mine, judging("fidelity")) if item.better is better]
        for better in (True, False, None)
    }
    parts += [f"more faithful: {figures(difference)}" for difference in faithful[True]]
    if faithful[False]:
        parts.append("less faithful: " + "; ".join(map(figures, faithful[False])))
    if faithful[None]:
        parts.append(
            "no difference in fidelity shown, nor excluded: "
            + "; ".join(map(figures, faithful[None]))
        )
    parts += [f"drift {text}" for text in _drift(scores, label)]
    seconds = next(
        (
            difference
            for difference in mine
            if difference.column == "seconds_per_image" and difference.baseline > 0
        ),
        None,
    )
    if seconds is not None:
        parts.append(f"{seconds.value / seconds.baseline:.2f} times the seconds")
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def figures(difference: Difference) -> str:
    """Return `vendi +0.09 [0.03, 0.14]`."""
    interval = f"[{difference.low:+.3g}, {difference.high:+.3g}]"
    return f"{difference.column} {difference.difference:+.3g} {interval}"


def _drift(scores: ScoreSet, label: str) -> list[str]:
    frame = scores.frame
    own = frame[(frame["metric"] == "drift") & (frame["label"] == label)]["value"]
    floor = frame[frame["metric"] == "drift_floor"]["value"]
    texts = frame[frame["metric"] == "drift"]["signature"].unique()
    small = any(Signature.parse(text).has(SMALL_SAMPLE) for text in texts)
    care = " (a small sample: a ratio near 1 says little)" if small else ""
    return (
        [f"{own.iloc[0] / floor.iloc[0]:.2f} times its floor{care}"]
        if len(own) and len(floor) and floor.iloc[0] > 0
        else []
    )


def warnings(
    differences: Sequence[Difference], scores: ScoreSet, kernels: dict[str, str]
) -> list[str]:
    """Name metrics and methods that need care."""
    notes = []
    small = sorted(
        {difference.column for difference in differences if SMALL_SAMPLE in difference.warning}
    )
    if small:
        notes.append(
            f"Small samples: {', '.join(small)} are biased upwards at this number of images: "
            "read them as ratios between methods of this run at most."
        )
    circular = sorted(
        {difference.column for difference in differences if CIRCULAR in difference.warning}
    )
    if circular:
        notes.append(
            f"Circular: {', '.join(circular)} are seen through a network that also guided."
        )
    used = {kernel for kernel in kernels.values() if kernel}
    if len(used) > 1:
        shown = "; ".join(
            f"{kernel}: {_few(sorted(key for key, own in kernels.items() if own == kernel))}"
            for kernel in sorted(used)
        )
        notes.append(
            f"The methods use different kernels ({shown}): compare methods only within one kernel."
        )
    few = sorted({difference.prompts for difference in differences if 0 < difference.prompts < 20})
    if few:
        notes.append(
            f"Only {few[0]} prompt{'' if few[0] == 1 else 's'}: "
            "large differences alone can be shown, or none."
        )
    missing = pd.isna(scores.frame["value"]).groupby(scores.frame["column"]).sum()
    lost = [f"{column} ({int(count)})" for column, count in missing.items() if count]
    if lost:
        notes.append(
            "Groups for which a metric has no value, as where a prompt leaves nothing to judge: "
            f"{', '.join(lost)}."
        )
    return notes


def _few(labels: Sequence[str]) -> str:
    """Return names, or how many there are where they would fill lines."""
    return ", ".join(labels) if len(labels) <= FEW else f"{len(labels)} methods"
