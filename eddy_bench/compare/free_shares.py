"""How much of what is free each method gains, and whether its samples have moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from eddy_bench.compare.load import ScoreSet
from eddy_bench.compare.paired import Difference
from eddy_bench.scoring.ceiling import NAME, SIMILARITY, FreeShare, free_share, paired_distances
from eddy_bench.scoring.metrics import MetricSpec
from eddy_bench.scoring.statistics import holm

BASELINE = "iid"
LEVEL = 0.05


@dataclass(frozen=True)
class MethodShare:
    """Hold a method's share of what is free under one extractor.

    column: as in summary.csv, `free_share[fmnist-clip]`.
    p_holm: of kept distributions, corrected over the methods.
    """

    label: str
    column: str
    free: FreeShare
    p_holm: float = float("nan")

    @property
    def moved(self) -> bool:
        """Whether the scores prove that samples have moved."""
        return self.p_holm < LEVEL and self.free.share > 1

    @property
    def words(self) -> str:
        """What is shown, in words."""
        if self.free.share != self.free.share:
            return ""
        gain = f"{self.free.share:.0%} [{self.free.low:.0%}, {self.free.high:.0%}] of what is free"
        return f"{gain}: {'the samples moved' if self.moved else 'nothing shows that they moved'}"


def as_differences(shares: Sequence[MethodShare]) -> list[Difference]:
    """Return shares as lines beside other differences: 0 is i.i.d., nothing is called better."""
    return [
        Difference(
            share.label,
            share.column,
            True,
            share.free.prompts,
            0.0,
            share.free.share,
            share.free.share,
            share.free.low,
            share.free.high,
            p=share.free.p,
            p_holm=share.p_holm,
            warning=f"samples moved, p = {share.p_holm:.2g}" if share.moved else "",
        )
        for share in shares
    ]


def free_shares(scores: ScoreSet) -> list[MethodShare]:
    """Return the share of every method under every extractor with a mean similarity.

    Nothing without i.i.d. sampling, whose diversity is what shares are of (`why_none` says so), and
    for one particle.
    """
    frame = scores.frame
    similarities = frame[frame["metric"] == SIMILARITY]
    shares: list[MethodShare] = []
    for column, rows in similarities.groupby("column", sort=False):
        particles = int(rows["particles"].iloc[0])
        iid = rows[rows["label"] == BASELINE]
        if iid.empty or particles < 2 or rows["signature"].nunique() > 1:
            continue
        extractor = MetricSpec.of_column(str(column)).extractor
        shares += _corrected(
            [
                MethodShare(
                    str(label),
                    f"{NAME}[{extractor}]",
                    free_share(*paired_distances(own, iid), particles),
                )
                for label, own in rows.groupby("label", sort=False)
                if label != BASELINE
            ]
        )
    return shares


def why_none(scores: ScoreSet) -> str:
    """Say why there is no free share; empty where there is one."""
    frame: pd.DataFrame = scores.frame
    if SIMILARITY not in set(frame["metric"]):
        return f"no free share: it needs the metric {SIMILARITY}; eddy-bench score adds it"
    if BASELINE not in scores.labels:
        return "no free share: it is of what iid leaves free, and iid is not in the run"
    if (frame["particles"] < 2).all():
        return "no free share: it is of groups of two images or more, set --particles"
    return ""


def _corrected(shares: list[MethodShare]) -> list[MethodShare]:
    chances = holm([1.0 if share.free.p != share.free.p else share.free.p for share in shares])
    return [replace(share, p_holm=p) for share, p in zip(shares, chances, strict=True)]
