"""Group inference: candidates are pruned on the way (arXiv 2508.15773, ICLR 2026)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from eddy_bench.errors import ParameterError
from eddy_bench.methods.base import Count, Method
from eddy_bench.methods.best_of_m import check_finite, most_distant, unit_distances
from eddy_bench.methods.guided import kernel_points
from eddy_bench.sampling.state import State


@dataclass(frozen=True)
class GroupInference(Method):
    """After each step keep the most different of the candidates that are left, until N are.

    A step leaves max(ceil((1 - prune) size), N) of them: those with the largest sum over pairs of
    1 - cosine between guide-network features of their denoised estimates, plus `quality_weight`
    times the sum of cosines between image and prompt where `quality` names a network. The paper
    weighs pairs by lambda = 1.5 against cosines by 1. The denoiser is run on what is left alone. It
    compares DINOv2 patch tokens by place, solves each choice by an integer program, and reads the
    estimate one noise level off; here it is the guide network's features, an exact choice up to
    20,000 subsets and a greedy one beyond, and the step's own estimate.

    Args:
        m: candidates; the paper's 64 on FLUX.1 schnell, 128 on dev.
        prune: share that a step gives up; the paper's 0.9 in 4 steps, 0.5 in 20.
        quality: `open_clip:MODEL/WEIGHTS` that judges image and prompt (the paper's is CLIP
            ViT-B/32), one that does not score; empty for pairs alone.
        quality_weight: of the cosines; the paper's is 1 / lambda.
    """

    m: Count = 16
    prune: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.5
    quality: str = ""
    quality_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2 / 3

    name = "group-inference"
    summary = "prunes M candidates to the N most different ones; shifts the marginal"
    citation = "arXiv 2508.15773"
    cost = (
        "the candidates left at each step; while pruning a feature forward each, two with quality"
    )
    selects = True
    sweep = "m"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quality and not re.fullmatch(r"open_clip:[^/]+/.+", self.quality):
            raise ParameterError(
                "Expected quality of group-inference as open_clip:MODEL/WEIGHTS, "
                f"got {self.quality!r}."
            )

    @property
    def judge(self) -> str:
        """The network of the quality term; empty where it has no weight."""
        return self.quality if self.quality_weight else ""

    def drawn(self, particles: int) -> int:
        """Return M."""
        if self.m < particles:
            raise ParameterError(
                f"Expected m of group-inference to be at least the {particles} particles, "
                f"got {self.m}."
            )
        return self.m

    def active(self, state: State, active: Tensor, keep: int) -> Tensor:
        """Return which candidates go on, (G, M), bool."""
        size = int(active[0].sum())
        last = state.step + 1 >= state.steps
        target = keep if last else max(math.ceil((1 - self.prune) * size), keep)
        points, features = kernel_points("features", state)
        kept = active.to(points.device)
        left = features.values(points[kept]).unflatten(0, (len(active), size))
        check_finite(left, self)
        merits = self.merits(points[kept].unflatten(0, (len(active), size)), state)
        after = torch.zeros_like(active)
        for group, (values, merit) in enumerate(zip(left, merits, strict=True)):
            own = active[group].nonzero()[:, 0]
            unlikeness = unit_distances(values.cpu()).square() / 2  # 1 - cosine
            after[group, own[most_distant(unlikeness, target, merit)]] = True
        return after

    def merits(self, points: Tensor, state: State) -> Tensor:
        """Return the weighted quality of each point, (G, n), on the CPU; points: (G, n, d)."""
        if not self.judge:
            return torch.zeros(points.shape[:2])
        if state.quality is None:
            raise ParameterError(
                "Nothing judges the quality of group-inference here. "
                "Leave quality out, or give steer(..., quality=)."
            )
        return self.quality_weight * state.quality(points).cpu()
