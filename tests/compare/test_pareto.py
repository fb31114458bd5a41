"""Fronts over strengths: against moocore and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eddy_bench.compare.fronts import Fronts, diversity_at_loss, front_differences, fronts
from eddy_bench.results.results import read_results
from tests.makers.score_files import frame, of, write

GRID = {
    "iid": {"vendi": 0.0, "clip": 0.0, "seconds_per_image": 0.0},
    "pg:strength=1": {"vendi": 0.2, "clip": -0.3, "seconds_per_image": 0.0},
    "pg:strength=4": {"vendi": 0.6, "clip": -1.5, "seconds_per_image": 0.0},
    "pg:strength=2": {"vendi": 0.4, "clip": -0.9, "seconds_per_image": 0.0},
    "pg:kernel=features,strength=1": {"vendi": 0.1, "clip": -3.0, "seconds_per_image": 0.05},
}


def test_families_fronts_and_equal_fidelity(tmp_path: Path) -> None:
    result = fronts(read_results([write(tmp_path / "s.csv", frame(GRID, scatter=1e-6))]))
    assert result is not None
    assert [family.name for family in result.families] == ["pg", "pg:kernel=features"]
    pg, features = result.families
    assert [point.strength for point in pg.points] == ["", "1", "2", "4"]
    assert [point.front for point in pg.points] == [True] * 4
    assert not features.points[1].front
    start = pg.points[0]
    allowed = 0.01 * start.fidelity.value  # about 0.605: between strengths 1 and 2
    expected = start.diversity.value + 0.2 + 0.2 * (allowed - 0.3) / 0.6
    assert pg.at_fidelity.value == pytest.approx(expected, abs=1e-4)
    assert features.at_fidelity.value == pytest.approx(
        start.diversity.value + 0.1 * allowed / 3, abs=1e-4
    )
    # the staircase over (iid's diversity, the worst fidelity)
    assert pg.hypervolume.value == pytest.approx(0.2 * 2.7 + 0.2 * 2.1 + 0.2 * 1.5, abs=1e-3)
    assert_both_planes(result)


def assert_both_planes(result: Fronts) -> None:
    """The same grid against seconds, the front of all, and its figures as differences."""
    pg, features = result.families
    assert not features.points[1].front_seconds
    assert [point.front_seconds for point in pg.points] == [False, False, False, True], (
        "as fast and more diverse"
    )
    assert pg.hypervolume_seconds.value == pytest.approx(0.6 * np.log2(0.15 / 0.1), abs=1e-3)
    start = pg.points[0]
    for point in pg.points:
        (index,) = np.flatnonzero(np.isclose(result.front.levels, point.fidelity.value, atol=1e-9))
        assert result.front.value[index] == pytest.approx(point.diversity.value)
        assert result.front.low[index] <= point.diversity.value + 1e-4
    assert result.front_seconds is not None
    assert result.front_seconds.value.max() == pytest.approx(start.diversity.value + 0.6, abs=1e-4)
    lines = {
        (str(line.method), str(line.metric).partition(" ")[0]): line
        for line in front_differences(result)
    }
    assert lines["pg", "vendi[fmnist-clip]"].difference == pytest.approx(
        0.2 + 0.2 * (0.01 * start.fidelity.value - 0.3) / 0.6, abs=1e-4
    )


def test_bands_are_of_the_difference_to_the_baseline(tmp_path: Path) -> None:
    """Prompts differ by far more than methods do: the bands must not show that."""
    result = fronts(read_results([write(tmp_path / "s.csv", frame(GRID, scatter=0.01))]))
    assert result is not None
    start, first = result.families[0].points[:2]
    assert start.diversity.high - start.diversity.low < 1e-9
    assert 0 < first.diversity.high - first.diversity.low < 0.02


def test_diversity_at_a_loss_of_fidelity() -> None:
    assert diversity_at_loss([1, 2], [100, 99.5]) == 2
    assert diversity_at_loss([1, 2], [100, 98]) == 1.5
    assert diversity_at_loss([2, 1], [100, 90]) == 2, "the baseline is always allowed"
    assert diversity_at_loss([1, 5, 3], [100, 90, 99.9]) == pytest.approx(3.0 + 2.0 * 0.9 / 9.9), (
        "on the way back as well"
    )


def test_without_another_method_or_a_fidelity_there_is_no_front(tmp_path: Path) -> None:
    assert (
        fronts(
            read_results([write(tmp_path / "a.csv", frame({"iid": {"vendi": 0.0, "clip": 0.0}}))])
        )
        is None
    )
    assert (
        fronts(
            read_results(
                [write(tmp_path / "b.csv", frame({"iid": {"vendi": 0.0}, "pg": {"vendi": 0.1}}))]
            )
        )
        is None
    )


def test_lower_is_better_is_turned_round(tmp_path: Path) -> None:
    rows = frame({"iid": {"vendi": 0.0, "clip": 0.0}, "pg": {"vendi": 0.2, "clip": -0.1}})
    result = fronts(read_results([write(tmp_path / "s.csv", rows)]))
    assert result is not None
    assert np.isnan(result.families[0].points[1].seconds)


def test_a_default_strength_has_its_place(tmp_path: Path) -> None:
    levels = {"vendi": 0.1, "clip": -0.1}
    grid = {
        "iid": {"vendi": 0.0, "clip": 0.0},
        **dict.fromkeys(
            (
                "pg:strength=6",
                "pg",
                "pg:strength=1",
                "pg:strength=-2",
                "pg:kernel=features,strength=1",
                "pg:kernel=features",
            ),
            levels,
        ),
    }
    result = fronts(read_results([write(tmp_path / "s.csv", frame(grid))]))
    assert result is not None
    assert {
        family.name: [str(point.method) for point in family.points[1:]]
        for family in result.families
    } == {
        "pg": ["pg:strength=1", "pg", "pg:strength=6"],
        "pg (negative)": ["pg:strength=-2"],
        "pg:kernel=features": ["pg:kernel=features", "pg:kernel=features,strength=1"],
    }


def test_best_of_m_is_a_family_over_m(tmp_path: Path) -> None:
    levels = {"vendi": 0.1, "clip": -0.1}
    grid = {"iid": {"vendi": 0.0, "clip": 0.0}, "best-of-m:m=17": levels, "best-of-m:m=5": levels}
    result = fronts(read_results([write(tmp_path / "s.csv", frame(grid))]))
    assert result is not None
    assert [
        (family.name, [point.strength for point in family.points]) for family in result.families
    ] == [("best-of-m", ["", "5", "17"])]


def test_levels_of_fidelity_are_reached_by_the_best_of_those_at_or_above_them(
    tmp_path: Path,
) -> None:
    """Where nothing scatters, the band is the front itself."""
    result = fronts(read_results([write(tmp_path / "s.csv", frame(GRID, scatter=0.0))]))
    assert result is not None
    front, pg = result.front, result.families[0].points
    worst = min(point.fidelity.value for point in result.families[1].points)
    assert (front.levels[0], front.levels[-1]) == (worst, pg[0].fidelity.value)
    assert (np.diff(front.levels) > 0).all()
    heights = sorted(point.diversity.value for point in pg)
    assert sorted(set(np.round(front.value, 9))) == pytest.approx(heights)
    assert (np.diff(front.value) <= 0).all()
    assert front.value[0] == pytest.approx(heights[-1])
    for band in (front.low, front.high):  # but for rounding at a method's own level
        assert np.isclose(band, front.value).mean() > 0.9
    assert result.reference == (pytest.approx(pg[0].diversity.value), pytest.approx(worst))
    alone = result.families[0].baseline_hypervolumes
    assert alone == pytest.approx((0.0, 0.0)), "the baseline is the least diverse"


def test_an_interval_is_of_95_percent_of_resampled_prompts(tmp_path: Path) -> None:
    """Of the paired difference, whose standard error is about normal."""
    rows = frame({"iid": {"vendi": 0.0, "clip": 0.0}, "pg": {"vendi": 0.3, "clip": -0.1}})
    result = fronts(read_results([write(tmp_path / "s.csv", rows)]))
    assert result is not None
    table = rows[of(rows, "vendi")].pivot(index="prompt_id", columns="method", values="value")
    gaps = (table["pg"] - table["iid"]).to_numpy()
    own, error = result.families[0].points[1].diversity, gaps.std() / 30**0.5
    assert own.value == pytest.approx(table["pg"].mean())
    assert own.low == pytest.approx(own.value - 1.96 * error, abs=0.25 * error)
    assert own.high == pytest.approx(own.value + 1.96 * error, abs=0.25 * error)


def test_prompts_that_a_method_lacks_are_left_out_of_all(tmp_path: Path) -> None:
    rows = frame({"iid": {"vendi": 0.0, "clip": 0.0}, "pg": {"vendi": 0.3, "clip": -0.1}})
    lacking = (rows["method"] == "pg") & (
        (of(rows, "vendi") & (rows["prompt_id"] < "p003"))
        | (of(rows, "clip") & (rows["prompt_id"] > "p027"))
    )
    result = fronts(read_results([write(tmp_path / "s.csv", rows[~lacking])]))
    assert result is not None
    assert result.prompts == 25
    rest = rows[of(rows, "vendi") & (rows["method"] == "iid")]["value"].to_numpy()[3:28]
    assert result.families[0].points[0].diversity.value == pytest.approx(rest.mean())
    one = rows[~lacking & (rows["prompt_id"] < "p004")]
    assert fronts(read_results([write(tmp_path / "one.csv", one)])) is None


def test_a_fidelity_whose_smaller_values_are_better_is_counted_up(tmp_path: Path) -> None:
    rows = frame({"iid": {"mss": 0.0, "clip": 0.0}, "pg": {"mss": -0.2, "clip": -0.1}})
    result = fronts(read_results([write(tmp_path / "s.csv", rows)]))
    assert result is not None
    start, own = (point.diversity.value for point in result.families[0].points)
    assert own - start == pytest.approx(0.2, abs=0.06)
    assert start < 0
