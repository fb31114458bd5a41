"""Pruning: which candidates are left, what it costs, and that the network runs on them alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from eddy_bench.errors import ModelError, ParameterError
from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.best_of_m import BestOfM
from eddy_bench.methods.group_inference import GroupInference
from eddy_bench.methods.iid import Iid
from eddy_bench.models.base import Model
from eddy_bench.models.load import load_model
from eddy_bench.sampling.feature_maps import Identity
from eddy_bench.sampling.state import State
from eddy_bench.sampling.steer import steer
from eddy_bench.suites.suite import Suite
from tests.conftest import Result
from tests.makers.families import FAMILIES, family_model, family_side

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
STEPS = 4
PROMPTS, SEEDS = ["a dark dress", "a sandal"], [0, 3]


@pytest.fixture(scope="module")
def fashion() -> Model:
    return load_model("fashion", device="cpu")


def draw(model: Model, method: Any, particles: int = 2) -> Any:
    call = {"num_inference_steps": STEPS, "guidance_scale": 2.0, "output_type": "pil"}
    images, cost = model.draw(PROMPTS, SEEDS, particles, method, call)
    return np.array([[np.asarray(image) for image in group] for group in images]), cost


def test_as_many_candidates_as_particles_is_iid(fashion: Model) -> None:
    plain, cost = draw(fashion, Iid())
    same, as_much = draw(fashion, GroupInference(m=2))
    assert np.array_equal(plain, same)
    assert cost.nfe == as_much.nfe


def test_what_pruning_costs(fashion: Model) -> None:
    """8, 4, 2 and 2 candidates of each of two groups, both branches, and the features of each."""
    images, cost = draw(fashion, GroupInference(m=8, prune=0.5))
    assert images.shape[:2] == (2, 2)
    assert cost.nfe == 2 * (8 + 4 + 2 + 2) / 2
    assert cost.feature_forwards == (8 + 4) / 2
    slow, more = draw(fashion, GroupInference(m=8, prune=0.01))
    assert more.nfe == 2 * (8 + 8 + 8 + 8) / 2
    assert slow.shape == images.shape


def test_survivors_are_those_of_the_candidates_alone(fashion: Model) -> None:
    """Those that are left end as they end among all: dead rows change nothing."""
    pruned, _ = draw(fashion, GroupInference(m=6, prune=0.4))
    everyone, _ = draw(fashion, Iid(), particles=6)
    for group in range(2):
        gaps = np.abs(pruned[group][:, None].astype(int) - everyone[group][None]).max((2, 3))
        assert (gaps.min(1) <= 1).all()


@pytest.mark.parametrize("seed", range(5))
def test_what_is_left_has_the_largest_sum_of_1_minus_cosine(seed: int) -> None:
    """As published; the largest sum of distances is another choice in 4 of these 5."""
    points = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(seed)).double()
    at = State(points, points, points, 1.0, step=0, steps=2, features=Identity())  # type: ignore[arg-type]
    left = GroupInference(m=7, prune=0.4).active(at, torch.ones(2, 7, dtype=torch.bool), 3)
    unit = points / points.norm(dim=-1, keepdim=True)
    for own, kept in zip(unit @ unit.mT, left, strict=True):
        sums = {
            subset: sum(1 - float(own[i, j]) for i, j in itertools.combinations(subset, 2))
            for subset in itertools.combinations(range(7), 5)
        }
        assert tuple(kept.nonzero()[:, 0].tolist()) == max(sums, key=sums.__getitem__)


def test_nothing_is_pruned_by_features_that_are_not_finite() -> None:
    points = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0))
    points[1, 3, 2] = torch.nan
    at = State(points, points, points, 1.0, step=0, steps=2, features=Identity())  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="features are not finite, so group-inference"):
        GroupInference(m=7).active(at, torch.ones(2, 7, dtype=torch.bool), 3)


class AtTheEnd(GroupInference):
    """Give nothing up before the last step."""

    def active(self, state: State, active: torch.Tensor, keep: int) -> torch.Tensor:
        last = state.step + 1 == state.steps
        return super().active(state, active, keep) if last else active


def test_pruning_at_the_end_is_best_of_m(fashion: Model) -> None:
    late, cost = draw(fashion, AtTheEnd(m=6))
    best, as_much = draw(fashion, BestOfM(m=6))
    assert cost.nfe == as_much.nfe
    assert np.abs(late.astype(int) - best).max() <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_pruned(family: str) -> None:
    model = family_model(family)
    setup = Setup(Suite(steps=STEPS, size=family_side(family), guidance_scale=2.0), model)
    arguments = {**setup.call_arguments(1), "output_type": "pil"}
    images, cost = model.draw(PROMPTS[:1], SEEDS[:1], 2, GroupInference(m=4), arguments)
    _, plain = model.draw(PROMPTS[:1], SEEDS[:1], 2, Iid(), arguments)
    assert len(images[0]) == 2
    assert plain.nfe < cost.nfe < 2 * plain.nfe


def test_it_works_in_anyones_code(fashion: Model) -> None:
    pipe = fashion.pipe
    maps = {"features": lambda shape: fashion.feature_map(shape)}
    call = {"num_images_per_prompt": 6, "num_inference_steps": STEPS, "guidance_scale": 2.0}
    with steer(pipe, GroupInference(m=6), keep=2, **maps) as record:
        pipe("a sandal", **call)
    assert record.active is not None
    assert int(record.active.sum()) == 2
    with (
        pytest.raises(ParameterError, match="pass keep="),
        steer(pipe, GroupInference(m=6), **maps),
    ):
        pass


def test_the_audit_shows_that_it_moves(cli: Callable[..., Result], tmp_path: Path) -> None:
    call = ["audit", "--task", "anisotropic", "--scheduler", "ddim", "--steps", "10"]
    call += ["--particles", "2", "--groups", "300", "--out", str(tmp_path / "audit")]
    done = cli(*call, "--method", "group-inference:m=8")
    assert done.code == 0, done.err
    frame = pd.read_csv(tmp_path / "audit" / "audit.csv")
    rows = frame[(frame["method"] != "iid") & (frame["steps"] == 10)]
    rows = rows.set_index("metric")
    assert rows.loc["marginal_shifted_p", "value"] < 0.01
    assert rows.loc["vendi_gain", "low"] > 0


def test_too_few_candidates_are_refused(cli: Callable[..., Result], tmp_path: Path) -> None:
    done = cli("run", "--method", "group-inference:m=2", "--out", tmp_path / "run")
    assert done.code == 2
    assert "at least the 4 particles, got 2" in done.err
