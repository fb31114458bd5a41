"""How often a non-inferiority gate is wrong, by simulation over 1,000 pairs of runs."""

from __future__ import annotations

import numpy as np
import pytest

from eddy_bench.compare.gate import PASS, REGRESSION, TOO_FEW, judge_gaps
from eddy_bench.results.statistics import detectable

SCATTER = 0.2
PROMPTS = 48
SIMULATIONS = 1000
ALARMS = 64  # of 1,000: 5% and two standard errors


def outcomes(margin: float, times: float) -> dict[int, int]:
    """How often each outcome comes, where a loss is `times` the smallest that is seen."""
    rng, counts = np.random.default_rng(11), dict.fromkeys((PASS, REGRESSION, TOO_FEW), 0)
    for _ in range(SIMULATIONS):
        gaps = rng.normal(0, SCATTER, PROMPTS)
        counts[judge_gaps(gaps - times * (margin + detectable(gaps)), margin)[0]] += 1
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("margin", [0.0, 0.05, 0.1])
def test_false_alarms_stay_within_five_percent(margin: float) -> None:
    counts = outcomes(margin, times=0.0)
    assert counts[REGRESSION] <= (ALARMS if margin == 0 else 0)


@pytest.mark.slow
@pytest.mark.parametrize("margin", [0.0, 0.05, 0.1])
def test_twice_the_detectable_loss_is_always_caught(margin: float) -> None:
    assert outcomes(margin, times=2.0)[REGRESSION] == SIMULATIONS
