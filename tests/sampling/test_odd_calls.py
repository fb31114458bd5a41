"""Odd calls of a steered pipeline: each is drawn as it was asked for, or one line says why not."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from eddy_bench import steer
from eddy_bench.errors import ModelError, ParameterError
from eddy_bench.methods.base import Method
from eddy_bench.sampling.state import State
from tests.makers.families import family_folder
from tests.sampling.test_calls import NAMES, STOCHASTIC, block, draw, method, pipeline


class Plain(Method):
    """Combine the branches as pipelines do."""

    interacts = False

    def combine(self, conditional: Tensor, null: Tensor, scale: float, info: Any) -> Tensor:
        return null + scale * (conditional - null)


def copied(pipe: Any) -> Any:
    return copy.deepcopy(pipe)


def pickled(pipe: Any) -> Any:
    return pickle.loads(pickle.dumps(pipe))


def built(pipe: Any) -> Any:
    return type(pipe)(**pipe.components)


@pytest.mark.parametrize("way", [copied, pickled, built])
@pytest.mark.parametrize("name", ["antithetic", "pg", "cads"])
def test_a_copy_made_inside_the_block_is_bare(name: str, way: Callable[[Any], Any]) -> None:
    pipe = pipeline()
    bare = draw(pipe)
    with block(pipe, name):
        assert torch.equal(draw(way(pipe)), bare)
    if way is not built:
        with block(pipe, name):
            assert type(way(pipe)) is diffusers.StableDiffusionPipeline


PAIRS = ("apg", "interval", "guidance-schedule", "restart", "cno", "cads", "pg", "dave")


@pytest.mark.parametrize("first", PAIRS)
@pytest.mark.parametrize("second", PAIRS)
def test_two_blocks_both_act_or_are_refused(first: str, second: str) -> None:
    pipe, one, other = pipeline(), method(first), method(second)
    alone = []
    for name in (first, second):
        with block(pipe, name):
            alone.append(draw(pipe))
    one_can = (one.reguides and other.reguides) or (one.takes_steps and other.takes_steps)
    if one_can:
        with (
            block(pipe, first),
            pytest.raises(ParameterError, match="one method at a time"),
            block(pipe, second),
        ):
            pass
    else:
        with block(pipe, first), block(pipe, second):
            both = draw(pipe)
        assert not any(torch.equal(both, images) for images in alone)
    with block(pipe, first):
        assert torch.equal(draw(pipe), alone[0])


@pytest.mark.parametrize("inner", ["restart", "cno"])
def test_steps_of_a_methods_own_are_seen_by_no_other(inner: str) -> None:
    """Also where it was opened first; after going back, the others stand at the right level."""
    drawn, levels = [], []
    for order in ((inner, "cads"), ("cads", inner)):
        pipe, seen = pipeline(), list[State]()
        with block(pipe, order[0]), block(pipe, order[1], seen=seen.append):
            drawn.append(draw(pipe))
        levels.append([state.sigma for state in seen if state.sigma])
    assert torch.equal(*drawn)
    assert levels[0] == levels[1]


def exchanged(pipe: Any, step: int, timestep: Any, kept: Any) -> Any:
    if step == 1:
        pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
        pipe.scheduler.set_timesteps(6)
    return kept


def other_network(pipe: Any, step: int, timestep: Any, kept: Any) -> Any:
    if step == 1:
        pipe.unet = copy.copy(pipe.unet)
    return kept


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", [exchanged, other_network])
def test_what_is_exchanged_within_a_call_is_no_silent_end_of_a_method(
    name: str, change: Any
) -> None:
    pipe, each = pipeline(), method(name)
    network = each.changes_network or each.edits_features
    lost = network if change is other_network else each.reads_state
    call = STOCHASTIC.get(name, {})
    with block(pipe, name):
        if lost:
            with pytest.raises(ModelError, match="did not act in all of this call"):
                draw(pipe, callback_on_step_end=change, **call)
        else:
            draw(pipe, callback_on_step_end=change, **call)


def test_a_guidance_scale_that_a_callback_sets_is_followed() -> None:
    def weaker(pipe: Any, step: int, timestep: Any, kept: Any) -> Any:
        pipe._guidance_scale = 3.0 if step < 2 else 1.5
        return kept

    pipe = pipeline()
    bare = draw(pipe, callback_on_step_end=weaker)
    with steer(pipe, Plain()):
        drawn = draw(pipe, callback_on_step_end=weaker)
    assert torch.allclose(drawn, bare, atol=1e-4)
    assert not torch.allclose(drawn, draw(pipe), atol=1e-2)


@pytest.mark.parametrize(
    ("family", "call"),
    [
        ("sd15", {"guidance_rescale": 0.7}),
        ("sdxl", {"guidance_rescale": 0.7}),
        ("hunyuan-dit", {"guidance_rescale": 0.7}),
        ("sd3", {"skip_guidance_layers": [0]}),
        ("z-image", {"cfg_normalization": 0.5}),
        ("lumina2", {"cfg_normalization": False}),
        ("lumina2", {}),
    ],
)
def test_what_a_pipeline_does_to_guidance_is_kept_or_refused(
    family: str, call: dict[str, Any]
) -> None:
    pipe = diffusers.DiffusionPipeline.from_pretrained(family_folder(family))
    pipe.set_progress_bar_config(disable=True)
    call = {"height": 64, "width": 64, "num_inference_steps": 2, **call}
    bare = draw(pipe, count=2, **call)
    with steer(pipe, Plain()):
        if family == "lumina2":
            assert torch.allclose(draw(pipe, count=2, **call), bare, atol=1e-3, rtol=1e-3)
        else:
            with pytest.raises(ParameterError, match=f"so does {list(call)[-1]}"):
                draw(pipe, count=2, **call)
    with steer(pipe, method("antithetic")):  # which leaves guidance alone
        draw(pipe, count=2, **call)


@pytest.mark.parametrize("strength", [0.05, 0.2, 0.5])
def test_steps_of_a_methods_own_need_a_whole_call(strength: float) -> None:
    pipe = diffusers.FluxImg2ImgPipeline.from_pretrained(family_folder("flux"))
    pipe.set_progress_bar_config(disable=True)
    image = Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8))
    call = {"image": image, "height": 64, "width": 64}
    with steer(pipe, method("restart")), pytest.raises(ModelError, match="begins at pure noise"):
        draw(pipe, count=2, strength=strength, **call)


def late(mine: type[Method]) -> Method:
    mine.guidance = lambda self, state: state.score  # type: ignore[method-assign]
    return mine()


def own(mine: type[Method]) -> Method:
    each = mine()
    object.__setattr__(each, "guidance", lambda state: state.score)
    return each


def told(mine: type[Method]) -> Method:
    body = {"guidance": property(lambda self: lambda state: state.score)}
    return type("Told", (mine,), body)()


@pytest.mark.parametrize("way", [late, own, told])
def test_a_hook_acts_however_it_was_overridden(way: Callable[[type[Method]], Method]) -> None:
    pipe = pipeline()
    bare = draw(pipe)
    with steer(pipe, way(type("Mine", (Method,), {}))):
        assert not torch.equal(draw(pipe), bare)


@pytest.mark.parametrize("name", NAMES)
def test_inference_mode_changes_nothing(name: str) -> None:
    pipe, call = pipeline(), STOCHASTIC.get(name, {})
    with block(pipe, name):
        drawn = draw(pipe, **call)
        with torch.inference_mode():
            assert torch.equal(draw(pipe, **call), drawn)


def test_a_pipeline_without_a_number_of_images_is_counted_by_its_rows() -> None:
    class Numberless(diffusers.StableDiffusionPipeline):  # type: ignore[misc]
        def __call__(self, prompt: Any, **kwargs: Any) -> Any:
            return super().__call__(prompt, **kwargs)

    pipe = Numberless(**pipeline().components)
    pipe.set_progress_bar_config(disable=True)
    for name in ("pg", "antithetic"):
        with block(pipe, name), pytest.raises(ParameterError, match="particles=4"):
            pipe(["a lamp"] * 4, num_inference_steps=2)
        with block(pipe, name, particles=4):
            pipe(["a lamp"] * 4, num_inference_steps=2)
