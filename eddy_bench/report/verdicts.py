"""What a comparison shows, in a sentence per method, and what speaks against reading too much into it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from eddy_bench.compare.load import ScoreSet
from eddy_bench.compare.paired import Difference

DIVERSITY = ("vendi", "pdist", "lpips", "mss")
FIDELITY = ("clip", "align")


def bare(column: str) -> str:
    """The metric of a column."""
    return column.partition("[")[0].partition("-q")[0]


def verdicts(found: Sequence[Difference], scores: ScoreSet, baseline: str) -> list[tuple[str, str]]:
    """(method, sentence) for every method but the baseline."""
    labels = list(dict.fromkeys(one.label for one in found))
    return [
        (label, _sentence([one for one in found if one.label == label], scores, label, baseline))
        for label in labels
    ]


def _sentence(mine: Sequence[Difference], scores: ScoreSet, label: str, baseline: str) -> str:
    parts = []
    diverse = next(
        (one for name in DIVERSITY for one in mine if bare(one.column) == name and one.prompts),
        None,
    )
    if diverse is not None:
        said = {
            True: "More diverse than",
            False: "Less diverse than",
            None: "No shown difference in diversity to",
        }[diverse.better]
        parts.append(
            f"{said} {baseline}: {figures(diverse)}, better on {diverse.wins:.0%} of prompts"
        )
    faithful = [
        one for name in FIDELITY for one in mine if bare(one.column) == name and one.prompts
    ]
    parts += [f"more faithful: {figures(one)}" for one in faithful if one.better is True]
    losses = [one for one in faithful if one.better is False]
    open_losses = [one for one in faithful if one.better is None]
    if losses:
        parts.append("less faithful: " + "; ".join(figures(one) for one in losses))
    if open_losses:
        parts.append(
            "no difference in fidelity shown, nor excluded: "
            + "; ".join(figures(one) for one in open_losses)
        )
    parts += [f"drift {text}" for text in _drift(scores, label)]
    seconds = next(
        (one for one in mine if one.column == "seconds_per_image" and one.baseline > 0), None
    )
    if seconds is not None:
        parts.append(f"{seconds.value / seconds.baseline:.2f} times the seconds")
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def figures(one: Difference) -> str:
    """`vendi +0.09 [0.03, 0.14]`."""
    return f"{one.column} {one.difference:+.3g} [{one.low:+.3g}, {one.high:+.3g}]"


def _drift(scores: ScoreSet, label: str) -> list[str]:
    frame = scores.frame
    own = frame[(frame["metric"] == "drift") & (frame["label"] == label)]["value"]
    floor = frame[frame["metric"] == "drift_floor"]["value"]
    small = frame[frame["metric"] == "drift"]["signature"].str.contains("small-sample").any()
    care = " (a small sample: a ratio near 1 says little)" if small else ""
    return (
        [f"{own.iloc[0] / floor.iloc[0]:.2f} times its floor{care}"]
        if len(own) and len(floor) and floor.iloc[0] > 0
        else []
    )


def warnings(found: Sequence[Difference], scores: ScoreSet, kernels: dict[str, str]) -> list[str]:
    """Metrics and methods that need care."""
    notes = []
    small = sorted({one.column for one in found if "small-sample" in one.warning})
    if small:
        notes.append(
            f"Small samples: {', '.join(small)} are biased upwards at this number of images: read them as ratios between methods of this run at most."
        )
    circular = sorted({one.column for one in found if "circular" in one.warning})
    if circular:
        notes.append(
            f"Circular: {', '.join(circular)} are seen through a network that also guided."
        )
    used = {kernel for kernel in kernels.values() if kernel}
    if len(used) > 1:
        shown = "; ".join(
            f"{kernel}: {', '.join(sorted(label for label, own in kernels.items() if own == kernel))}"
            for kernel in sorted(used)
        )
        notes.append(
            f"The methods use different kernels ({shown}): compare methods only within one kernel."
        )
    few = sorted({one.prompts for one in found if 0 < one.prompts < 20})
    if few:
        notes.append(
            f"Only {few[0]} prompt{'' if few[0] == 1 else 's'}: large differences alone can be shown, or none."
        )
    missing = pd.isna(scores.frame["value"]).groupby(scores.frame["column"]).sum()
    lost = [f"{column} ({int(count)})" for column, count in missing.items() if count]
    if lost:
        notes.append(
            f"Groups for which a metric has no value, as where a prompt leaves nothing to judge: {', '.join(lost)}."
        )
    return notes
