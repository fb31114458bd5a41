"""How many prompts a difference needs: against simulation, and on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eddy_bench.compare.paired import Difference
from eddy_bench.compare.power import prompts_needed
from eddy_bench.ids import MethodId, MetricId
from eddy_bench.results.statistics import detectable, zero_mean_p
from tests.conftest import Result
from tests.makers.scored_runs import make_run

PG = MethodId("pg")


def difference(scatter: float, gap: float = 0.2) -> Difference:
    return Difference(PG, MetricId("vendi", "x"), True, 40, 2.0, 2.0 + gap, gap, scatter=scatter)


def needed(scatter: float, effect: float, comparisons: int = 1) -> float:
    ((_, prompts),) = prompts_needed([difference(scatter)], effect, comparisons)
    return prompts


def test_that_many_prompts_show_it_four_times_in_five() -> None:
    count = int(needed(0.4, 0.05))  # a difference of 0.1 at a scatter of 0.4
    rng = np.random.default_rng(0)
    shown = np.mean([zero_mean_p(rng.normal(0.1, 0.4, (1, count)))[0] < 0.05 for _ in range(300)])
    assert abs(shown - 0.8) < 4 * (0.8 * 0.2 / 300) ** 0.5


def test_it_is_the_inverse_of_what_is_detectable() -> None:
    count = int(needed(0.4, 0.05, comparisons=8))
    values = np.resize([0.4, -0.4], count) * (1 - 1 / count) ** 0.5
    assert detectable(values, comparisons=8) == pytest.approx(0.1, rel=0.03)


def test_more_scatter_smaller_effects_and_more_methods_need_more() -> None:
    assert needed(0.2, 0.05) < needed(0.4, 0.05) < needed(0.4, 0.02)
    assert needed(0.4, 0.05) < needed(0.4, 0.05, comparisons=20)


def test_a_method_that_changes_nothing_needs_few() -> None:
    same = Difference(PG, MetricId("align", "x"), True, 40, 1.0, 1.0, 0.0, 0.0, 0.0, scatter=0.0)
    ((_, prompts),) = prompts_needed([same], 0.05, 1)
    assert prompts <= 8


def test_a_gain_and_a_loss_that_cancel_are_scatter() -> None:
    assert needed(0.4, 0.05) == prompts_needed([difference(0.4, gap=0.0)], 0.05, 1)[0][1]


def test_the_command_prints_a_number_per_method(cli: Callable[..., Result], tmp_path: Path) -> None:
    run = make_run(tmp_path / "made")
    done = cli("power", run, "--effect", "0.05")
    assert done.code == 0, done.err
    assert "pg:strength=2" in done.out
    assert "4 times in 5" in done.out


@pytest.mark.parametrize("options", [("--effect", "0"), ("--methods", "0"), ("--baseline", "lhs")])
def test_bad_options_are_refused(
    cli: Callable[..., Result], tmp_path: Path, options: tuple[str, str]
) -> None:
    done = cli("power", make_run(tmp_path / "made"), *options)
    assert done.code == 2
    assert done.err.count("Error:") == 1


def test_one_method_alone_is_refused(cli: Callable[..., Result], tmp_path: Path) -> None:
    assert cli("power", tmp_path / "nothing").code == 2
