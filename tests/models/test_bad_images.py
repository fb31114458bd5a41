"""One image of four that is none costs the other three nothing and is known, on every family."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest

from eddy_bench.errors import ModelError
from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.registry import build_method
from eddy_bench.models.base import Model
from eddy_bench.models.images import fault
from eddy_bench.models.load import load_model
from eddy_bench.models.pipeline_class import pipeline_class
from eddy_bench.sampling.session import replaced
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.suite import Suite
from tests.makers.families import FAMILIES, family_model, family_side

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
WORST, STEPS = 2, 2
TASKS = ("exact:ring8", "exact:mixture-64d", "exact:class-ring")


@functools.cache
def opened(name: str) -> tuple[Model, dict[str, Any]]:
    """Return a model, and the arguments of its call."""
    model = load_model(name, device="cpu") if name in TASKS else family_model(name)
    size = None if name in TASKS else family_side(name)
    suite = Suite(steps=STEPS, size=size, guidance_scale=1.0)
    return model, Setup(suite, model).call_arguments(1)


def draw(name: str, text: str = "iid", count: int = 4) -> list[Any]:
    model, arguments = opened(name)
    method = build_method(MethodSpec.parse(text))
    return model.draw(["a red dress"], [0], count, method, arguments)[0][0]


def faults(images: list[Any]) -> list[str | None]:
    return [fault(image) for image in images]


def spoilt(inner: Callable[..., Any], value: float) -> Callable[..., Any]:
    """Return a decoder or a step that puts a value into the third of every four rows."""
    rows = itertools.count()

    @functools.wraps(inner)
    def tampered(*args: Any, **kwargs: Any) -> Any:
        result = inner(*args, **kwargs)
        for row in result[0]:
            if next(rows) % 4 == WORST:
                row[(-1,) * row.ndim] = value
        return result

    return tampered


def check(images: list[Any], plain: list[Any]) -> None:
    """The third image is known to be none, the others are what they were."""
    assert faults(images) == [None, None, "not finite", None]
    assert faults(plain) == [None] * 4
    assert all((np.asarray(images[k]) == np.asarray(plain[k])).all() for k in {0, 1, 3})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("family", FAMILIES)
def test_pixels_that_are_not_finite_are_seen_before_they_are_bytes(
    family: str, value: float
) -> None:
    vae, plain = family_model(family).pipe.vae, draw(family)
    with replaced(vae, "decode", spoilt(vae.decode, value)):
        check(draw(family), plain)


@pytest.mark.parametrize("name", [*FAMILIES, *TASKS])
def test_latents_that_are_not_finite_are_seen_without_an_image_processor(name: str) -> None:
    pipe, plain = opened(name)[0].pipe, draw(name)
    with replaced(pipe.scheduler, "step", spoilt(pipe.scheduler.step, float("nan"))):
        check(draw(name), plain)


@pytest.mark.parametrize("family", ["sd15", "sdxl", "hunyuan-dit", "lcm"])
def test_what_a_safety_checker_blacks_out_is_seen(family: str) -> None:
    model = family_model(family)
    cls = type(model.pipe)

    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = cls.__call__(self, *args, **kwargs)
        output.nsfw_content_detected = [False, False, True, False]
        return output

    model.pipe.__class__ = type(cls.__name__, (cls,), {"__call__": checked})
    try:
        assert faults(draw(family)) == [None, None, "safety checker", None]
    finally:
        model.pipe.__class__ = cls


def test_a_method_that_chooses_hands_on_the_faults_of_what_it_keeps() -> None:
    vae = family_model("sd15").pipe.vae
    with replaced(vae, "decode", spoilt(vae.decode, float("nan"))):
        drawn = {image.tobytes(): fault(image) for image in draw("sd15", count=8)}
        kept = draw("sd15", "best-of-m:m=8", count=3)
    assert list(drawn.values()).count("not finite") == 2
    assert faults(kept) == [drawn[image.tobytes()] for image in kept]


def test_every_pipeline_that_can_be_loaded_makes_its_images_where_they_are_watched() -> None:
    unseen = []
    for name in dir(diffusers):
        cls = getattr(diffusers, name, None)
        if not (inspect.isclass(cls) and issubclass(cls, diffusers.DiffusionPipeline)):
            continue
        try:
            pipeline_class(name)
        except ModelError:
            continue
        source = inspect.getsource(inspect.getmodule(cls))  # type: ignore[arg-type]
        if not any(way in source for way in ("processor.postprocess(", "self.numpy_to_pil(")):
            unseen.append(name)
    # the former draw videos, the latter hand their call on to two pipelines and are not steered
    assert [name for name in unseen if not name.startswith(("Helios", "Kandinsky"))] == []
