"""Selection that keeps the law: every candidate is as likely to be kept, whatever its features."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from eddy_bench.errors import ParameterError
from eddy_bench.methods.best_of_m import BestOfM, diverse_groups
from tests.conftest import Result


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(count: int, seed: int = 0) -> Tensor:
    """Two tight clusters of different sizes and one point far off."""
    near = torch.tensor([1.0, 0.0]) + 0.05 * torch.randn(count, 2, generator=generator(seed))
    near[: count // 3] = torch.tensor([0.0, 1.0]) + 0.05 * near[: count // 3]
    near[-1] = torch.tensor([-3.0, 0.1])
    return near


def within(features: Tensor, groups: Tensor) -> float:
    unit = torch.nn.functional.normalize(features.double(), dim=-1)
    return sum(float(torch.cdist(unit[g], unit[g]).square().sum()) / 2 for g in groups)


@pytest.mark.parametrize(("total", "size"), [(8, 4), (12, 3), (16, 4), (6, 1), (5, 5)])
def test_groups_are_a_partition(total: int, size: int) -> None:
    groups = diverse_groups(points(total), size, generator())
    assert groups.shape == (total // size, size)
    assert sorted(groups.flatten().tolist()) == list(range(total))


def test_features_that_are_no_numbers_end_the_exchange() -> None:
    features = points(8)
    features[3] = torch.nan
    groups = diverse_groups(features, 4, generator())
    assert sorted(groups.flatten().tolist()) == list(range(8))


def test_groups_of_few_points_are_the_best_there_are() -> None:
    """All splits of 8 points into two groups of 4 are tried one by one."""
    for seed in range(10):
        features = torch.randn(8, 3, generator=generator(seed))
        best = max(
            within(features, torch.tensor([half, [k for k in range(8) if k not in half]]))
            for half in map(list, itertools.combinations(range(8), 4))
        )
        assert within(features, diverse_groups(features, 4, generator())) >= 0.98 * best


@pytest.mark.parametrize("total", [8, 16])
def test_every_candidate_is_kept_as_often_whatever_its_features(total: int) -> None:
    """Within 4 standard errors of 4 / M, the point far off and the clusters alike."""
    features, draws, method = points(total), 2000, BestOfM(m=total, fair=True)
    kept = torch.zeros(total)
    chooser = generator(1)
    for _ in range(draws):
        kept[method.choose(features, 4, chooser)] += 1
    share = 4 / total
    error = (draws * share * (1 - share)) ** 0.5
    assert (kept - draws * share).abs().max() < 4 * error
    unfair = BestOfM(m=total).choose(features, 4, chooser)
    assert total - 1 in unfair, "the most different ones always hold the point far off"


def test_a_fair_group_is_more_different_than_a_random_one() -> None:
    gains = []
    for seed in range(50):
        features = torch.randn(16, 4, generator=generator(seed))
        chosen = torch.tensor([BestOfM(m=16, fair=True).choose(features, 4, generator(seed))])
        gains.append(within(features, chosen) - within(features, torch.arange(4)[None]))
    assert np.mean(gains) > 3 * np.std(gains) / len(gains) ** 0.5


def test_selection_has_a_stream_of_its_own() -> None:
    features = points(16)
    method = BestOfM(m=16, fair=True)
    assert method.choose(features, 4, generator(3)) == method.choose(features, 4, generator(3))
    several = {tuple(method.choose(features, 4, generator(seed))) for seed in range(20)}
    assert len(several) > 1


def test_candidates_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"multiple of the 4 particles.*got 10"):
        BestOfM(m=10, fair=True).drawn(4)
    assert BestOfM(m=10).drawn(4) == 10
    assert BestOfM(m=4, fair=True).choose(points(4), 4, generator()) == [0, 1, 2, 3]


@pytest.mark.slow
def test_the_audit_tells_fair_selection_from_unfair(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    """On a task whose law is known, the marginal is kept under one and shifted under the other."""
    call = ["audit", "--task", "anisotropic", "--scheduler", "ddim", "--steps", "25,50,100"]
    call += ["--particles", "4", "--groups", "2000", "--out", str(tmp_path / "audit")]
    call += ["--method", "best-of-m:m=8,fair=true", "--method", "best-of-m:m=8"]
    done = cli(*call)
    assert done.code == 0, done.err
    verdicts = {
        line.split()[0]: line for line in done.out.splitlines() if line.startswith("best-of-m")
    }
    assert "real gain, marginal kept" in verdicts["best-of-m:m=8,fair=True"]
    assert "marginal shifted" in verdicts["best-of-m:m=8"]
