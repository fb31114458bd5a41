"""The ceiling of free diversity: its inequality, its estimate, its test, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from eddy_bench.compare.subsampling import Direction
from eddy_bench.ids import MethodId, MetricId
from eddy_bench.results.headroom import (
    Headroom,
    headroom,
    headrooms,
    paired_distances,
    why_no_headroom,
)
from eddy_bench.results.results import read_results
from eddy_bench.results.statistics import holm
from tests.conftest import Result
from tests.makers.score_files import frame, of, write

Array = NDArray[np.float64]


def mean_distance(points: Array) -> Array:
    """Mean squared distance of pairs, (groups,), of (groups, N, F) points."""
    count = points.shape[1]
    spread = np.square(points - points.mean(1, keepdims=True)).sum((1, 2))
    distances: Array = 2 * spread / (count - 1)
    return distances


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    particles=st.integers(2, 9),
    atoms=st.integers(1, 6),
    features=st.integers(1, 5),
)
def test_no_coupling_of_kept_distributions_passes_the_ceiling(
    seed: int, particles: int, atoms: int, features: int
) -> None:
    """Exactly, by summation: random laws on unit vectors, random joint laws of a group.

    Every joint law is a mixture of orders of the atoms that leaves each slot's law what it is: a
    random shift of all slots by the same amount along a circle of equally likely atoms.
    """
    rng = np.random.default_rng(seed)
    unit = rng.normal(size=(atoms, features))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    patterns = rng.integers(0, atoms, (4, particles))
    shifts = np.arange(atoms)
    groups = unit[(patterns[:, None, :] + shifts[:, None]) % atoms]  # (4, shifts, N, F)
    weights = rng.dirichlet(np.ones(4))
    coupled = float((weights[:, None] * mean_distance_of(groups)).sum() / atoms)
    mean = unit.mean(0)
    independent = 2 * (1 - float(mean @ mean))
    assert coupled <= particles / (particles - 1) * independent + 1e-12


def mean_distance_of(groups: Array) -> Array:
    flat = groups.reshape(-1, *groups.shape[2:])
    return mean_distance(flat).reshape(groups.shape[:2])


def test_groups_whose_mean_is_fixed_are_at_the_ceiling() -> None:
    """Opposite pairs: E D = 4 where independent unit vectors have 2."""
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(500, 1, 3))
    unit /= np.linalg.norm(unit, axis=2, keepdims=True)
    pairs = np.concatenate([unit, -unit], 1)
    assert headroom(mean_distance(pairs), np.full(500, 2.0), 2)[0] == pytest.approx(1.0)


def at_the_ceiling(rng: np.random.Generator, prompts: int, particles: int) -> tuple[Array, Array]:
    """Distances of a coupling that sits at the ceiling, and of i.i.d. samples, prompt by prompt.

    Angles equally spaced from a random start have the mean of their prompt's circle.
    """
    radius = rng.uniform(0.2, 0.9, (prompts, 1, 1))
    start = rng.uniform(0, 2 * np.pi, (prompts, 1))
    spaced = start + 2 * np.pi * np.arange(particles) / particles
    free = rng.uniform(0, 2 * np.pi, (prompts, particles))
    circles = (radius * np.stack([np.cos(angle), np.sin(angle)], 2) for angle in (spaced, free))
    coupled, independent = map(mean_distance, circles)
    return coupled, independent


@pytest.mark.parametrize("prompts", [12, 48])
def test_samples_that_kept_their_distribution_are_rarely_said_to_have_moved(prompts: int) -> None:
    """At most 5% (and 3 standard errors of 1,000 sets) at the ceiling, where it is hardest."""
    rng, alarms, sets = np.random.default_rng(prompts), 0, 1000
    for _ in range(sets):
        alarms += headroom(*at_the_ceiling(rng, prompts, 4), 4)[3] < 0.05
    assert alarms <= sets * 0.05 + 3 * (sets * 0.05 * 0.95) ** 0.5


@pytest.mark.parametrize(("prompts", "bias"), [(6, 0.25), (12, 0.12), (48, 0.04)])
def test_the_estimate_s_bias_is_small_and_falls_with_prompts(prompts: int, bias: float) -> None:
    """The mean over 2,000 sets of a coupling whose share is 1."""
    rng = np.random.default_rng(1)
    shares = [headroom(*at_the_ceiling(rng, prompts, 4), 4)[0] for _ in range(2000)]
    assert abs(np.mean(shares) - 1) < bias


def test_samples_that_moved_are_found() -> None:
    rng = np.random.default_rng(0)
    independent = rng.uniform(0.2, 0.4, 48)
    _, low, _, p = headroom(independent * 2.2 + rng.normal(0, 0.05, 48), independent, 4)
    assert p < 0.001
    assert low > 1


EFFECTS = {
    "iid": {"mss": 0.0, "vendi": 0.0},
    "antithetic": {"mss": -0.03, "vendi": 0.0},
    "pg": {"mss": -0.5, "vendi": 0.5},
}


@pytest.fixture
def rows() -> pd.DataFrame:
    return frame(EFFECTS, prompts=30, scatter=0.001)


def test_seeds_are_paired_and_missing_values_left_out(rows: pd.DataFrame, tmp_path: Path) -> None:
    """A second seed without values of a method changes nothing of it, and all of the others."""
    second = rows.assign(seed="1")
    lost = (second["method"] == "pg") & (of(second, "mss"))
    second.loc[lost, "value"] = np.nan
    moved = (second["method"] == "antithetic") & (of(second, "mss"))
    second.loc[moved, "value"] -= 0.02
    alone, both = (
        {str(own.method): own for own in headrooms(read_results([path]))}
        for path in (
            write(tmp_path / "alone.csv", rows),
            write(tmp_path / "both.csv", pd.concat([rows, second])),
        )
    )
    assert both["pg"].value == alone["pg"].value
    assert both["antithetic"].value > alone["antithetic"].value > 0
    assert both["antithetic"].prompts == 30


def test_without_iid_or_similarities_the_reason_is_said(
    rows: pd.DataFrame, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    lone = write(tmp_path / "lone.csv", rows[rows["method"] != "iid"])
    assert "iid is not in the run" in why_no_headroom(read_results([lone]))
    assert headrooms(read_results([lone])) == []
    done = cli("compare", lone, "--baseline", "antithetic")
    assert done.code == 0
    assert "iid is not in the run" in done.err
    single = write(tmp_path / "single.csv", rows.assign(particles=1))
    assert "two images or more" in why_no_headroom(read_results([single]))
    bare = write(tmp_path / "bare.csv", rows[~of(rows, "mss")])
    assert "needs the metric mss" in why_no_headroom(read_results([bare]))


def test_compare_shows_shares_in_every_format(
    rows: pd.DataFrame, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    csv = write(tmp_path / "s.csv", rows)
    for form in ("table", "markdown", "csv", "json"):
        done = cli("compare", csv, "--format", form, "--full")
        assert done.code == 0, done.err
        assert "headroom[fmnist-clip]" in done.out
        assert "marginals shifted" in done.out
        assert "nan%" not in done.out


def test_a_share_has_its_one_sided_test_and_is_never_called_better(
    rows: pd.DataFrame, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    """It is of what iid leaves free, also where another method is the baseline."""
    csv = write(tmp_path / "s.csv", rows)
    lines = json.loads(cli("compare", csv, "--format", "json").out)["differences"]
    shares = {line["method"]: line for line in lines if line["metric"].startswith("headroom")}
    assert shares["pg"]["p"] <= shares["pg"]["p_holm"] < 0.05 < shares["antithetic"]["p"]
    assert [line["better"] for line in shares.values()] == [None] * len(shares)
    table = cli("compare", csv, "--baseline", "antithetic", "--full").out
    assert "headroom[fmnist-clip] ↑   iid 0" in table


GATE = "checks:\n- {metric: 'headroom[fmnist-clip]', test: ceiling}\nmethods: [antithetic]\n"


def test_a_gate_fails_where_samples_are_shown_to_have_moved(
    rows: pd.DataFrame, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    csv = write(tmp_path / "s.csv", rows)
    gate = tmp_path / "gate.yaml"
    for methods, code in (("antithetic", 0), ("pg", 1), ("iid, antithetic", 0)):
        gate.write_text(GATE.replace("antithetic", methods))
        done = cli("compare", csv, "--against", csv, "--gate", gate)
        assert done.code == code, (methods, done.out, done.err)
    lone = write(tmp_path / "lone.csv", rows[rows["method"] != "iid"])
    gate.write_text(GATE)
    gate.write_text(GATE.replace("antithetic", "pg"))
    other = write(tmp_path / "other.csv", rows[rows["method"] != "pg"])
    done = cli("compare", other, "--against", csv, "--gate", gate)
    assert (done.code, "not in the candidate" in " ".join(done.out.split())) == (2, True)
    gate.write_text(GATE)
    done = cli("compare", lone, "--against", csv, "--gate", gate)
    assert (done.code, "iid is not in the run" in " ".join(done.out.split())) == (2, True)
    gate.write_text(GATE.replace("headroom", "vendi"))
    wrong = cli("compare", csv, "--against", csv, "--gate", gate)
    assert (wrong.code, "goes with headroom" in wrong.err) == (2, True)


@pytest.mark.parametrize(
    ("gain", "error", "closer"), [(14, 3, True), (-14, 3, False), (2, 3, None), (14, None, None)]
)
def test_a_direction_is_said_where_its_interval_shows_it(
    gain: float, error: float | None, closer: bool | None
) -> None:
    answer = Direction(MetricId("fd"), 62.0, 62.0 - gain, gain, error)
    assert answer.closer is closer
    assert ("untested" in answer.text) == (error is None)


def test_a_share_by_hand() -> None:
    """A tenth more distance than i.i.d. on each of 12 prompts, 4 particles: three tenths."""
    independent = np.linspace(0.2, 0.4, 12)
    value, low, high, p = headroom(1.1 * independent, independent, 4)
    assert [value, low, high] == pytest.approx([0.3] * 3)
    assert p > 0.9, "the ceiling is a third more"
    assert headroom(independent, independent, 4)[0] == pytest.approx(0)
    assert headroom(4 / 3 * independent, independent, 4)[0] == pytest.approx(1)
    value, low, high, _ = headroom(independent[::-1], independent, 2)
    assert value == pytest.approx(0)
    assert low < 0 < high
    none = np.zeros(12)
    assert np.isnan(headroom(independent, none, 4)).all()
    assert np.isnan(headroom(independent[:8], none[:8] + 1e-9, 4)).all(), "it may be rounding"
    assert np.isnan(headroom(none[:0], none[:0], 4)).all()


@pytest.mark.parametrize(
    ("value", "p_holm", "shifted"),
    [(1.1, 0.049, True), (1.1, 0.05, False), (1.0, 0.001, False), (1.1, float("nan"), False)],
)
def test_a_shift_is_said_of_a_share_above_1_with_a_p_below_5_percent(
    value: float, p_holm: float, shifted: bool
) -> None:
    own = Headroom(MethodId("pg"), MetricId("headroom"), value, 0.9, 1.3, 0.001, 12, p_holm)
    assert own.shifted is shifted
    assert ("no shift" in own.words) is not shifted
    assert replace(own, value=float("nan")).words == ""


def test_squared_distances_are_of_the_groups_that_both_have() -> None:
    """2 (1 - similarity), a mean over seeds for each prompt."""
    own, iid = (
        pd.DataFrame(lines, columns=["prompt_id", "seed", "value"])
        for lines in (
            [("b", "0", 0.5), ("a", "0", 0.9), ("a", "1", 0.7), ("a", "2", 0.0), ("c", "0", 0.1)],
            [("a", "1", 0.6), ("a", "0", 0.8), ("a", "2", np.nan), ("b", "0", 0.4)],
        )
    )
    distances, independent = paired_distances(own, iid)
    assert distances == pytest.approx([0.4, 1.0])
    assert independent == pytest.approx([0.6, 1.2])


def test_shares_are_of_groups_of_two_or_more_corrected_over_the_methods(
    rows: pd.DataFrame, tmp_path: Path
) -> None:
    found = headrooms(read_results([write(tmp_path / "s.csv", rows)]))
    assert [str(own.method) for own in found] == ["antithetic", "pg"]
    assert [own.p_holm for own in found] == pytest.approx(holm([own.p for own in found]))
    assert found[1].p_holm == pytest.approx(2 * found[1].p)
    pairs = headrooms(read_results([write(tmp_path / "two.csv", rows.assign(particles=2))]))
    assert [own.value for own in pairs] == pytest.approx([own.value / 3 for own in found])
    one = read_results([write(tmp_path / "one.csv", rows.assign(particles=1))])
    assert headrooms(one) == []


@pytest.mark.parametrize(
    ("gain", "closer"), [(1.97, True), (1.95, None), (-1.97, False), (-1.95, None), (0.0, None)]
)
def test_a_direction_needs_two_standard_errors(gain: float, closer: bool | None) -> None:
    assert Direction(MetricId("fd"), 62.0, 62.0 - gain, gain, 1.0).closer is closer
