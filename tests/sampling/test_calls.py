"""One call, one owner: a method acts in the calls of its pipeline, each anew, or it says so."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from eddy_bench import steer
from eddy_bench.errors import EddyError, ModelError, ParameterError
from eddy_bench.methods.base import Method
from eddy_bench.methods.registry import build_method, method_names
from eddy_bench.models.base import counted_rows
from eddy_bench.models.network_features import NetworkFeatures
from eddy_bench.sampling.state import State
from eddy_bench.suites.method_spec import MethodSpec
from tests.makers.pipelines import tiny_folder

NAMES = tuple(method_names())
STRONG = {
    "repulsion": "repulsion:strength=2,window=0..",
    "eddy-exact": "eddy-exact:strength=50",
    "eddy-fd": "eddy-fd:strength=2,kernel=denoised,window=0..,max_coordinates=4,scale=fixed",
    "eddy-hutch": "eddy-hutch:strength=2,kernel=denoised,window=0..,probes=2,scale=fixed",
    "spell": "spell:radius=50",
    "rke": "rke:every=1",
    "oscar": "oscar:window=0%..100%,kernel=denoised",
    "diverseflow": "diverseflow:kernel=denoised",
    "vendi-guidance": "vendi-guidance:kernel=denoised",
    "cads": "cads:tau1=0.3,tau2=0.5",
    "interval": "interval:window=0%..30%",
    "restart": "restart:low=0.5,high=5",
    "group-inference": "group-inference:m=4",
    "best-of-m": "best-of-m:m=4",
}
STOCHASTIC = {"coupled": {"eta": 1.0}}


def method(name: str) -> Method:
    return build_method(MethodSpec.parse(STRONG.get(name, name)))


def pipeline(cls: Any = diffusers.StableDiffusionPipeline, scheduler: Any = None) -> Any:
    pipe = cls.from_pretrained(tiny_folder())
    pipe.set_progress_bar_config(disable=True)
    if scheduler is not None:
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    return pipe


def draw(pipe: Any, prompt: Any = "a lamp", count: int = 4, **call: Any) -> Tensor:
    rows = count * (1 if isinstance(prompt, str) else len(prompt))
    call = {"num_inference_steps": 6, "guidance_scale": 3.0, "output_type": "latent"} | call
    torch.manual_seed(0)
    generator = [torch.Generator().manual_seed(k) for k in range(rows)]
    images: Tensor = pipe(prompt, num_images_per_prompt=count, generator=generator, **call).images
    return images


def features(shape: tuple[int, ...]) -> NetworkFeatures:
    from eddy_bench.audit.conformance import small_features

    return small_features(shape)


def block(pipe: Any, name: str, **settings: Any) -> Any:
    """A block of a method; one that chooses gets what it needs."""
    keep = {"keep": 2} if method(name).selects else {}
    return steer(pipe, method(name), features=features, **keep, **settings)


def picture(seed: int, bands: tuple[int, ...] = (3,)) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 255, (8, 8, *bands), dtype=np.uint8)
    return Image.fromarray(values)


# -- scope --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_another_pipeline_is_bare_and_all_is_bare_after_the_block(name: str) -> None:
    pipe, other = pipeline(), pipeline()
    sibling = diffusers.StableDiffusionPipeline(**pipe.components)  # shares the scheduler too
    call = STOCHASTIC.get(name, {})
    bare = draw(other, **call)
    before = copy.deepcopy(vars(pipe.scheduler))
    with block(pipe, name):
        first = draw(pipe, **call)
        assert torch.equal(draw(other, **call), bare)
        assert torch.equal(draw(sibling, **call), bare)
    assert torch.equal(draw(pipe, **call), bare)
    assert type(pipe) is diffusers.StableDiffusionPipeline
    assert vars(pipe.scheduler).keys() == before.keys()
    assert "forward" not in vars(pipe.unet)
    assert name in ("iid", "best-of-m") or not torch.equal(first, bare)


def test_a_pipeline_called_within_the_call_of_another_is_bare() -> None:
    pipe, other = pipeline(), pipeline()
    bare, seen = draw(other), []

    def inside(own: Any, step: int, timestep: Any, kept: Any) -> Any:
        seen.append(draw(other))
        return kept

    with steer(pipe, method("antithetic")):
        draw(pipe, callback_on_step_end=inside)
    assert all(torch.equal(images, bare) for images in seen)
    assert len(seen) == 6


@pytest.mark.parametrize("name", ["antithetic", "cads", "eddy-exact", "cno"])
def test_blocks_may_be_closed_in_any_order(name: str) -> None:
    pipe, other = pipeline(), pipeline()
    bare = draw(pipe)
    with block(pipe, name):
        alone = draw(pipe)
    for one in (other, pipe):  # of two pipelines, and two of one
        first, second = block(one, "lhs"), block(pipe, name)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert torch.equal(draw(pipe), alone)
        second.__exit__(None, None, None)
        assert torch.equal(draw(pipe), bare)
        assert torch.equal(draw(other), bare)
        assert torch.equal(draw(pipeline()), bare)
        assert type(pipe) is diffusers.StableDiffusionPipeline


def test_threads_and_tasks_are_bare_and_counted() -> None:
    pipe = pipeline()
    bare, seen = draw(pipe), []

    async def main() -> None:
        seen.append(await asyncio.create_task(_drawn(pipe)))

    with steer(pipe, method("antithetic")) as record:
        thread = threading.Thread(target=lambda: seen.append(draw(pipe)))
        thread.start()
        thread.join()
        asyncio.run(main())
        assert not torch.equal(draw(pipe), bare)
    assert record.calls_outside == 2
    assert all(torch.equal(images, bare) for images in seen)


async def _drawn(pipe: Any) -> Tensor:
    return draw(pipe)


# -- repetition ---------------------------------------------------------------------------------


class Cut(Exception):
    """Ends a call."""


def raising(pipe: Any, step: int, timestep: Any, kept: Any) -> Any:
    if step == 2:
        raise Cut
    return kept


def interrupting(pipe: Any, step: int, timestep: Any, kept: Any) -> Any:
    pipe._interrupt = step >= 2
    return kept


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cut", [raising, interrupting, KeyboardInterrupt])
def test_every_call_equals_the_first(name: str, cut: Any) -> None:
    """Also the first one after a call that raised, was interrupted, or ended early."""
    pipe, call = pipeline(), STOCHASTIC.get(name, {})

    def interrupted(*args: Any) -> Any:
        raise KeyboardInterrupt

    with block(pipe, name) as record:
        first = draw(pipe, **call)
        steps, finished = record.steps, record.finished
        try:
            end = interrupted if cut is KeyboardInterrupt else cut
            draw(pipe, callback_on_step_end=end, **call)
        except (Cut, KeyboardInterrupt):
            assert record.finished is None, "the call did not return"
        before = record.steps
        assert torch.equal(draw(pipe, **call), first)
        assert record.steps - before == steps
        assert finished is not None
        assert record.finished is not None
        assert torch.equal(record.finished, finished)
        assert torch.equal(draw(pipe, **call), first)


def test_given_generators_begin_each_call_as_they_were() -> None:
    pipe = pipeline()
    probes = [torch.Generator().manual_seed(3)]
    streams = [torch.Generator().manual_seed(k) for k in range(4)]
    for name in ("lhs", "cads"):
        with steer(pipe, method(name), probes=probes, streams=streams):
            assert torch.equal(draw(pipe), draw(pipe))


SOLVERS = (
    "DDIMScheduler",
    "PNDMScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "LCMScheduler",
)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    ("kind", "strength"), [("Img2Img", 0.5), ("Img2Img", 0.999), ("Inpaint", 0.999)]
)
def test_a_call_that_begins_later_goes_from_its_first_step_to_its_last(
    solver: str, kind: str, strength: float
) -> None:
    scheduler = getattr(diffusers, solver)
    pipe = pipeline(getattr(diffusers, f"StableDiffusion{kind}Pipeline"), scheduler)
    pipe.scheduler.register_to_config(skip_prk_steps=True)
    call: dict[str, Any] = {"image": picture(0), "strength": strength, "num_inference_steps": 10}
    call |= {"mask_image": picture(1, ())} if kind == "Inpaint" else {}
    plain, seen = draw(pipe, **call), list[State]()
    with steer(pipe, method("antithetic"), seen=seen.append):
        first, count = draw(pipe, **call), len(seen)
        assert torch.equal(draw(pipe, **call), first)
    assert not torch.equal(first, plain)
    shares = [state.share for state in seen[:count]]
    assert shares == [k / count for k in range(count)]
    assert shares == [state.share for state in seen[count:]]
    assert all(state.sigma_next <= state.sigma * (1 + 1e-6) for state in seen)
    assert len({state.sigma for state in seen}) >= count // 2


def test_denoising_end_is_the_end() -> None:
    from tests.makers.families import family_model

    pipe, seen = family_model("sdxl").pipe, list[State]()
    call = {"height": 64, "width": 64, "num_inference_steps": 10, "denoising_end": 0.6}
    with steer(pipe, method("lhs"), seen=seen.append) as record:
        first = draw(pipe, **call)
        assert record.finished is not None
        assert torch.equal(record.finished.reshape(first.shape), first)
        assert torch.equal(draw(pipe, **call), first)
    count = len(seen) // 2
    assert count < 10
    assert [state.share for state in seen] == [k / count for k in range(count)] * 2


# -- it acts or it says so ----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_groups_of_one_are_an_error_unless_they_were_asked_for(name: str) -> None:
    pipe, call = pipeline(), STOCHASTIC.get(name, {})
    each = method(name)
    with block(pipe, name):
        if not each.acting or not each.interacts:
            draw(pipe, ["a lamp"] * 4, count=1, **call)
            return
        with pytest.raises(ParameterError, match=r"num_images_per_prompt=4.*particles=4"):
            draw(pipe, ["a lamp"] * 4, count=1, **call)
    with block(pipe, name, particles=4):
        draw(pipe, ["a lamp"] * 4, count=1, **call)
    if not each.selects:
        with block(pipe, name, particles=1):
            alone = draw(pipe, ["a lamp"] * 4, count=1, **call)
        assert torch.equal(alone, draw(pipe, ["a lamp"] * 4, count=1, **call))


@pytest.mark.parametrize("name", [name for name in NAMES if method(name).selects])
def test_methods_that_choose_outside_the_loop_are_refused(name: str) -> None:
    with pytest.raises(ParameterError, match="chooses among them"), steer(pipeline(), method(name)):
        pass


def test_a_start_that_was_given_cannot_be_coupled() -> None:
    pipe = pipeline()
    with (
        steer(pipe, method("antithetic")),
        pytest.raises(ModelError, match=r"antithetic did not act.*`latents=` was passed"),
    ):
        draw(pipe, latents=torch.randn(4, 4, 4, 4))


@pytest.mark.parametrize("hook", ["guidance", "step_noise", "condition", "features_of"])
def test_a_hook_that_is_never_called_is_named(hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands between: here a loop that evaluates another network with another solver."""
    pipe = pipeline(scheduler=diffusers.EulerAncestralDiscreteScheduler)
    body = {hook: lambda self, *args: args[1] if hook == "features_of" else args[0]}
    if hook == "guidance":
        body = {hook: lambda self, state: None}
    each = type("Mine", (Method,), body)()

    class Elsewhere(diffusers.StableDiffusionPipeline):  # type: ignore[misc]
        def __call__(self, *args: Any, num_images_per_prompt: int = 1, **kwargs: Any) -> Any:
            return pipeline()(*args, num_images_per_prompt=num_images_per_prompt, **kwargs)

    Elsewhere.__name__ = "StableDiffusionPipeline"
    other = Elsewhere(**pipe.components)
    with (
        steer(other, each),
        pytest.raises(ModelError, match=f"Mine did not act: its hook '{hook}'"),
    ):
        draw(other)


@pytest.mark.parametrize("name", ["pg", "eddy-exact", "cads", "interval"])
def test_another_scheduler_inside_the_block_is_followed(name: str) -> None:
    euler = diffusers.EulerDiscreteScheduler
    other = pipeline(scheduler=euler)
    with block(other, name):
        expected = draw(other)
    pipe = pipeline()
    with block(pipe, name):
        draw(pipe)
        pipe.scheduler = euler.from_config(pipe.scheduler.config)
        assert torch.equal(draw(pipe), expected)
        pipe.scheduler = diffusers.IPNDMScheduler()
        if method(name).reads_state:
            with pytest.raises(EddyError, match="IPNDMScheduler"):
                draw(pipe)


def compiled(pipe: Any) -> None:
    pipe.unet.compile(backend="eager")


def wrapped(pipe: Any) -> None:
    pipe.unet = torch.compile(pipe.unet, backend="eager")


def one_block(pipe: Any) -> None:
    pipe.unet.mid_block.compile(backend="eager")


@pytest.mark.parametrize("way", [compiled, wrapped, one_block])
@pytest.mark.parametrize("name", ["pg", "antithetic", "cads", "interval", "apg", "cno", "dave"])
def test_compiled_networks_are_acted_on_or_refused(name: str, way: Callable[[Any], None]) -> None:
    """Compiled before the first call, so that nothing that is hooked later would be seen."""
    torch._dynamo.reset()
    pipe = pipeline()
    with block(pipe, name) if name != "dave" else block(pipe, "iid"):
        expected = draw(pipe)
    way(pipe)
    draw(pipe)
    if name == "dave":
        with pytest.raises(ModelError, match="compiled network has no blocks"), block(pipe, name):
            draw(pipe)
        return
    with block(pipe, name):
        drawn = draw(pipe)
    assert torch.allclose(drawn, expected, atol=1e-4)
    with counted_rows(pipe) as rows:
        draw(pipe)
    assert rows == [2 * 4 * 6], "network evaluations are counted all the same"


@pytest.mark.parametrize("name", ["probes", "streams"])
def test_generators_on_a_device_are_refused_by_name(name: str) -> None:
    given: Any = {name: [torch.Generator(), SimpleNamespace(device=torch.device("cuda:1"))]}
    with (
        pytest.raises(ParameterError, match=rf"Expected {name} of .*CPU.*got one on cuda:1"),
        steer(SimpleNamespace(scheduler=None), method("cads"), **given),
    ):
        pass
