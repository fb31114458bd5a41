"""Where samples that have moved went: towards the real images or away from them."""

from __future__ import annotations

from dataclasses import dataclass

from eddy_bench.compare.load import ScoreSet
from eddy_bench.compare.subsampling import Subsampling
from eddy_bench.scoring.metrics import METRICS, MetricSpec
from eddy_bench.storage.paths import as_path

JUDGES = ("fd", "fid", "kid", "recall")  # distances to the real images, and how many are reached
BASELINE = "iid"


@dataclass(frozen=True)
class Direction:
    """Hold a distance to the real images, of a method and of i.i.d. sampling.

    gain: towards the real images, in the metric's unit.
    error: its standard error by subsampling prompts; None where features are not at hand.
    """

    column: str
    independent: float
    value: float
    gain: float
    error: float | None

    @property
    def towards(self) -> bool | None:
        """True for towards, False for away, None where neither is shown."""
        if self.error is None or not abs(self.gain) > 1.96 * self.error:
            return None
        return self.gain > 0

    @property
    def text(self) -> str:
        """The figures: `fd[fmnist-clip] 62 -> 48`."""
        untested = "" if self.error is not None else ", untested without features"
        return f"{self.column} {self.independent:.3g} -> {self.value:.3g}{untested}"


def subsampling_of(scores: ScoreSet) -> Subsampling | None:
    """Return what compares methods of one run folder by its features; None for anything else."""
    folder = as_path(scores.sources[0])
    return Subsampling(folder, folder) if len(scores.sources) == 1 and folder.is_dir() else None


def directions(scores: ScoreSet, label: str, subsampling: Subsampling | None) -> list[Direction]:
    """Return what each metric of real images says of a method against i.i.d. sampling.

    Args:
        scores: of one run or several.
        label: of the method.
        subsampling: `subsampling_of` the scores, one for all methods.

    """
    frame = scores.frame
    answers = []
    for column in (name for name in scores.columns if MetricSpec.of_column(name).name in JUDGES):
        rows = frame[frame["column"] == column]
        own, iid = (rows[rows["label"] == name] for name in (label, BASELINE))
        if own.empty or iid.empty:
            continue
        sign = 1.0 if METRICS[MetricSpec.of_column(column).name].higher_is_better else -1.0
        value, independent = float(own["value"].iloc[0]), float(iid["value"].iloc[0])
        sampled = None
        if subsampling is not None:
            signature = str(own["signature"].iloc[0])
            sampled = subsampling.between(label, BASELINE, column, signature)
        answers.append(
            Direction(
                column,
                independent,
                value,
                sign * (value - independent),
                None if sampled is None else sampled[1],
            )
        )
    return answers


def direction_words(scores: ScoreSet, label: str, subsampling: Subsampling | None) -> str:
    """Say where a method's samples went; empty without a metric of real images."""
    answers = directions(scores, label, subsampling)
    if not answers:
        return ""
    if all(answer.error is None for answer in answers):
        return answers[0].text
    for towards, words in ((True, "towards the real images"), (False, "away from them")):
        shown = [answer for answer in answers if answer.towards is towards]
        against = [answer for answer in answers if answer.towards is (not towards)]
        if shown and not against:
            return f"{words} ({'; '.join(answer.text for answer in shown)})"
    return f"neither towards the real images nor away is shown ({answers[0].text})"
