"""SPELL's memory: what it sees of earlier seeds, and that nothing else decides about a group."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from eddy_bench import steer
from eddy_bench.audit.plan import make_plan
from eddy_bench.errors import ParameterError
from eddy_bench.experiment.batches import planned_batches
from eddy_bench.methods.spell import Spell, fixed_force
from eddy_bench.models.base import Model
from eddy_bench.models.load import load_model
from tests.conftest import Result
from tests.makers.mixtures import draw
from tests.makers.runs import RUN, image_hashes
from tests.methods.test_pg_repulsion import state_at

Cli = Callable[..., Result]
FAR = Spell(earlier=True, radius=5.0)  # every ball reaches everything
ARGUMENTS = {"num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "np"}


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("fashion")


def pixels(groups: list[list[Any]]) -> NDArray[Any]:
    return np.stack([np.stack(group) for group in groups])


def test_the_force_of_points_that_stay_is_the_formula() -> None:
    points, fixed, radius = draw(2, 3, 4), draw(2, 5, 4, seed=2), 4.0
    differences = points[:, :, None] - fixed[:, None]
    weights = (radius / differences.norm(dim=-1, keepdim=True) - 1).clamp_min(0)
    expected = (weights * differences).sum(2)
    assert torch.allclose(fixed_force(points, fixed, radius), expected)


def test_one_particle_leaves_the_ball_of_an_earlier_one_at_its_edge() -> None:
    at = state_at(groups=1, count=1)
    earlier = at.denoised.clone()
    earlier[..., 0] += 1.0
    radius = 1.5 / (2 * at.denoised.shape[-1]) ** 0.5
    method = Spell(earlier=True, strength=1.0, scale="fixed", radius=radius)
    guidance = method.guidance(replace(at, steps=100, earlier=earlier))
    assert guidance is not None
    moved = at.denoised + at.sigma**2 * guidance
    assert float((moved - earlier).norm()) == pytest.approx(1.5)
    assert method.guidance(replace(at, steps=100)) is None, "the first seed at N = 1 is iid"


def test_without_memory_earlier_latents_are_not_looked_at() -> None:
    at = replace(state_at(), steps=100)
    plain = Spell(radius=2.0).guidance(at)
    blind = Spell(radius=2.0).guidance(replace(at, earlier=at.denoised + 0.1))
    assert plain is not None
    assert blind is not None
    assert torch.equal(plain, blind)


def test_a_group_depends_on_its_prompt_and_seeds_alone(model: Model) -> None:
    prompts = ["dress", "dark coat"]
    model.earlier = None
    in_order = [pixels(model.draw(prompts, [s, s], 2, FAR, ARGUMENTS)[0]) for s in range(3)]
    first = pixels(model.draw(prompts, [0, 0], 2, replace(FAR, earlier=False), ARGUMENTS)[0])
    assert (in_order[0] == first).all(), "there is nothing to remember yet"
    plain = pixels(model.draw(prompts, [2, 2], 2, replace(FAR, earlier=False), ARGUMENTS)[0])
    assert not np.allclose(in_order[2], plain, atol=1e-3)
    model.earlier = None
    anew = pixels(model.draw(prompts, [2, 2], 2, FAR, ARGUMENTS)[0])
    assert (anew == in_order[2]).all()
    model.draw(["sandal", "dress"], [1, 1], 2, FAR, ARGUMENTS)  # other prompts, other slots
    among_others = pixels(model.draw(["dark coat", "dress"], [2, 2], 2, FAR, ARGUMENTS)[0])
    assert (among_others[::-1] == in_order[2]).all()


def test_redrawing_is_not_the_cost_of_a_group(model: Model) -> None:
    model.earlier = None
    _, cost = model.draw(["dress"], [2], 2, FAR, ARGUMENTS)
    assert cost.nfe == 6


def test_a_batch_of_several_seeds_is_refused(model: Model) -> None:
    with pytest.raises(ParameterError, match="one seed for all prompts"):
        model.draw(["dress", "coat"], [0, 1], 2, FAR, ARGUMENTS)


def test_steer_hands_finished_latents_on(model: Model) -> None:
    def call(method: Spell, earlier: torch.Tensor | None) -> tuple[torch.Tensor, NDArray[Any]]:
        generator = [torch.Generator().manual_seed(k) for k in range(2)]
        with steer(model.pipe, method, earlier=earlier) as record:
            done = model.pipe(
                "dress", num_images_per_prompt=2, generator=generator, **ARGUMENTS
            ).images
        assert record.finished is not None
        return record.finished, np.stack(done)

    finished, first = call(FAR, None)
    assert finished.shape == (1, 2, 256)
    assert not np.allclose(call(FAR, finished)[1], first, atol=1e-3)
    with pytest.raises(ParameterError, match=r"Expected earlier of shape \(1, M, 256\)"):
        call(FAR, finished[0])


MEMORY = (*RUN[:-4], "--method", "spell:earlier=true,radius=5", "--seeds", "3", "--limit", "3")


def test_shards_and_interrupted_runs_end_with_the_same_images(cli: Cli, tmp_path: Path) -> None:
    assert cli(*MEMORY, "--out", tmp_path / "whole").code == 0
    expected = image_hashes(tmp_path / "whole")
    assert len(expected) == 3 * 3 * 2
    for group in [*tmp_path.glob("whole/samples/*/*/1"), *tmp_path.glob("whole/samples/*/*/2")][1:]:
        shutil.rmtree(group)
    assert cli(*MEMORY, "--out", tmp_path / "whole").code == 0
    assert image_hashes(tmp_path / "whole") == expected
    for k in (1, 2):
        assert cli(*MEMORY, "--shard", f"{k}/2", "--out", tmp_path / "x").code == 0
    assert cli("merge", tmp_path / "x", *sorted(tmp_path.glob("x-shard-*"))).code == 0
    assert image_hashes(tmp_path / "x") == expected


def test_batches_go_seed_after_seed_a_few_prompts_at_a_time() -> None:
    from tests.makers.groups import make_group

    class Plan:
        def groups_together(self, group: object) -> int:
            return 2

        def method_of(self, group: object) -> Spell:
            return FAR

    groups = [make_group(prompt_id=f"p{p}", seed=s) for p in range(3) for s in range(2)]
    batches = planned_batches(Plan(), groups)  # type: ignore[arg-type]
    order = [[(g.prompt_id, g.seed) for g in batch.groups] for batch in batches]
    assert order == [
        [("p0", 0), ("p1", 0)],
        [("p0", 1), ("p1", 1)],
        [("p2", 0)],
        [("p2", 1)],
    ]


def test_where_it_cannot_be_it_is_refused_in_one_line(cli: Cli, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="Expected kernel=denoised"):
        Spell(earlier=True, kernel="features")
    with pytest.raises(ParameterError, match="an audit has one group"):
        make_plan(["ring8"], ["spell:earlier=true"])
    done = cli(*RUN[:-4], "--method", "spell:earlier=true", "--limit", "1", "--out", tmp_path / "x")
    assert (done.code, "raise --seeds" in done.err) == (0, True)


def test_methods_take_turns_and_shards_have_their_share_of_each() -> None:
    from eddy_bench.experiment.batches import method_batches
    from eddy_bench.methods.iid import Iid
    from tests.makers.groups import make_group

    class Plan:
        def groups_together(self, group: object) -> int:
            return 2

        def method_of(self, group: object) -> Iid:
            return Iid()

    groups = [make_group(label=name, prompt_id=f"p{k}") for name in "abc" for k in range(4)]
    turns = planned_batches(Plan(), groups)  # type: ignore[arg-type]
    assert [batch.groups[0].label for batch in turns] == list("abcabc")
    apart = [b for own in method_batches(Plan(), groups) for b in own]  # type: ignore[arg-type]
    assert {batch.groups[0].label for batch in apart[::2]} == set("abc")
