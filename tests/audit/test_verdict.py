"""Verdicts from made-up measurements whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from eddy_bench.audit.estimates import Estimate, frequency_chi2
from eddy_bench.audit.measure import Measured, Row
from eddy_bench.audit.verdict import SHIFT_MARGIN, frequency_p, judge_block, limit_gain

STEPS = (25, 50, 100, 200, 400)
GROUPS = 4000


def measured(
    gain: float,
    *,
    shift: float = 0.0,
    spread: float = 0.0,
    seed: int = 0,
    groups: int = GROUPS,
    slot_p: float = 1.0,
) -> Measured:
    """Groups whose mean gain is exactly `gain`, with a standard deviation of 1."""
    noise = np.random.default_rng(seed).normal(size=groups)
    noise = (noise - noise.mean()) / noise.std()
    energy = Estimate(shift**2 / 4, 0.1 / groups, groups)
    return Measured(gain + noise, energy, Estimate(spread, 0.3 / groups**0.5, groups), slot_p, ())


def verdict(
    gains: Sequence[float],
    *,
    groups: int = GROUPS,
    shift: float = 0.0,
    spread: float = 0.0,
    slot_p: float = 1.0,
) -> str:
    step_counts = [
        measured(gain, shift=shift, spread=spread, seed=k, groups=groups, slot_p=slot_p)
        for k, gain in enumerate(gains)
    ]
    return judge_block(STEPS[: len(gains)], [step_counts], 0.1)[0].text


@pytest.mark.parametrize(
    ("gains", "options", "expected"),
    [
        ([0.5] * 5, {}, "real gain, marginal kept"),
        ([0.5] * 5, {"shift": 0.3}, "real gain, marginal shifted (by 0.30 std, spread x1.00)"),
        ([0.5] * 5, {"spread": 0.36}, "real gain, marginal shifted (by 0.00 std, spread x1.36)"),
        ([0.5] * 5, {"slot_p": 1e-6}, "real gain, marginal shifted (by 0.00 std, spread x1.00)"),
        ([0.48, 0.31, 0.15, 0.08, 0.0], {}, "gain vanishes with finer steps"),
        ([2.4, 1.2, 0.6, 0.3, 0.15], {}, "gain persists, cause unresolved"),
        ([0.5], {}, "gain persists, cause unresolved"),
        ([0.5, 0.5], {}, "gain persists, cause unresolved"),
        ([0.43, 0.5, 0.62, 0.65, 0.46], {}, "gain persists, cause unresolved"),
        ([0.0] * 5, {}, "no gain"),
        ([0.04] * 5, {}, "no gain"),
        ([0.0] * 5, {"shift": 0.3}, "no gain, marginal shifted"),
        ([-0.5] * 5, {}, "loss"),
        ([0.0] * 5, {"groups": 100}, "not enough groups to tell (need about 630)"),
        ([0.6] * 5, {"groups": 40, "spread": 0.04}, "not enough groups to tell (need about 400)"),
    ],
)
def test_gains_over_steps_have_the_verdict_that_fits_them(
    gains: list[float], options: dict[str, float], expected: str
) -> None:
    assert verdict(gains, **options) == expected  # type: ignore[arg-type]


def test_the_number_of_groups_it_asks_for_is_enough() -> None:
    assert verdict([0.0] * 5, groups=630) == "no gain"


def test_the_limit_of_fine_steps_is_that_of_a_straight_line() -> None:
    gains = [0.2 + 3 / steps + np.zeros(10) for steps in STEPS]
    limit = limit_gain(STEPS, gains)
    assert limit is not None
    assert limit.value == pytest.approx(0.2)
    assert limit_gain((25,), gains[:1]) is None


def test_more_methods_make_a_claim_harder() -> None:
    """A gain that one method alone shows is not shown among twenty."""
    gains = [0.2] * 3
    step_counts = [measured(gain, seed=k, groups=170) for k, gain in enumerate(gains)]
    nothing = [measured(0.0, seed=50 + k, groups=170) for k in range(3)]
    assert judge_block(STEPS[:3], [step_counts], 0.01)[0].tests.gain[-1] < 0.05  # type: ignore[union-attr]
    assert judge_block(STEPS[:3], [step_counts] + [nothing] * 19, 0.01)[0].text.startswith(
        "not enough groups"
    )


def test_a_difference_within_the_margin_is_kept_however_significant() -> None:
    step_counts = [measured(0.5, shift=SHIFT_MARGIN / 2, seed=k) for k in range(5)]
    verdict = judge_block(STEPS, [step_counts], 0.1)[0]
    assert verdict.tests is not None
    assert verdict.tests.shifted < 1e-6
    assert verdict.marginal == "kept"


def test_a_spread_that_still_changes_leaves_the_cause_open() -> None:
    """A strong drift may gain the same at several step counts while the solver does not follow it
    yet.
    """
    step_counts = [
        measured(0.5, spread=spread, seed=k) for k, spread in enumerate((9.0, 6.0, 4.0, 2.0, 1.0))
    ]
    assert judge_block(STEPS, [step_counts], 0.1)[0].text == "gain persists, cause unresolved"


def test_a_mixture_with_other_weights_is_shifted() -> None:
    """Neighbouring modes reweighted against each other hardly move the energy distance; their
    frequencies tell.
    """
    from eddy_bench.audit.measure import Baseline, Groups
    from eddy_bench.models.mixture import Mixture
    from eddy_bench.models.tasks import load_task

    task = load_task("grid25")
    weights = torch.where(torch.arange(25) % 2 == 0, 1.4, 0.6).double()
    other = Mixture(task.mixture.means, task.mixture.variances, weights / weights.sum())

    def draw(mixture: Mixture, seed: int) -> torch.Tensor:
        return mixture.sample(1500 * 8, torch.Generator().manual_seed(seed)).reshape(1500, 8, 2)

    base = Baseline(task, *(Groups.of(task, draw(task.mixture, seed)) for seed in range(4)))
    assert judge_block((25,), [[base.measure(draw(other, 9))]], 0.1)[0].marginal == "shifted"
    assert judge_block((25,), [[base.measure(draw(task.mixture, 9))]], 0.1)[0].marginal == "kept"


def test_a_few_equal_groups_prove_nothing() -> None:
    same = Measured(np.full(2, -1.0), Estimate(0.0, 1e-5, 2), Estimate(0.0, 1e-5, 2), 1.0, ())
    assert judge_block((3, 6), [[same, same]], 0.1)[0].text.startswith("not enough groups")


@pytest.mark.parametrize(("groups", "modes"), [(30, 25), (100, 20)])
def test_mode_frequencies_hold_their_level_at_few_groups(groups: int, modes: int) -> None:
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(400):
        counts = [
            rng.multinomial(8, np.full(modes, 1 / modes), groups).astype(float) for _ in range(2)
        ]
        statistic, freedom, _ = frequency_chi2(*counts)
        rows = (Row("mode_chi2_to_iid", statistic, floor=freedom),)
        alarms += (
            frequency_p(
                Measured(
                    np.zeros(groups), Estimate(0, 1, groups), Estimate(0, 1, groups), 1.0, rows
                )
            )
            < 0.05
        )
    assert alarms < 400 * 0.05 + 4 * (400 * 0.05 * 0.95) ** 0.5
