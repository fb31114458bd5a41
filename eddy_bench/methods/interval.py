"""Classifier-free guidance at middle noise levels only.

Kynkaanniemi et al., NeurIPS 2024, arXiv 2404.07724.
"""

from __future__ import annotations

from dataclasses import dataclass

from eddy_bench.methods.couplings import StartedMethod
from eddy_bench.methods.guided import parse_window
from eddy_bench.sampling.state import StepInfo


@dataclass(frozen=True)
class Interval(StartedMethod):
    """w inside an interval of noise levels, and 1 outside, where the null branch is not evaluated.

    The paper's intervals (sigma / alpha): (0.28, 5.42] for SDXL at w = 16, (0.28, 2.90] for EDM2-S
    at 2.1. Its code judges both evaluations of a Heun step by the first one's level; here each is
    judged by its own.

    Args:
        window: where guidance acts, `a..b` for a < sigma <= b, or `a%..b%` in share of steps.
    """

    window: str = "0.28..5.42"

    name = "interval"
    summary = "guidance at middle noise levels only; shifts the marginal"
    citation = "arXiv 2404.07724"
    cost = "less than iid: one branch outside the interval"
    interacts = False
    sweep = "window"

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_window(self.window)

    def guidance_scale(self, info: StepInfo) -> float | None:
        """Return None inside and 1 outside."""
        return None if parse_window(self.window).holds(info) else 1.0
