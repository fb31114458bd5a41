"""Every family of pipelines with random weights: each method draws, strength 0 is the bare
pipeline, decoding is the pipeline's own.
"""

from __future__ import annotations

import functools
import inspect
import re
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from eddy_bench.errors import ModelError, ParameterError, SchedulerError
from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.base import Method
from eddy_bench.methods.registry import build_method, method_names
from eddy_bench.models.decoding import make_decode
from eddy_bench.sampling.families import FAMILIES as FAMILY_TABLE
from eddy_bench.sampling.families import family_of
from eddy_bench.sampling.noise import particle_generators
from eddy_bench.sampling.state import State
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.suite import Suite
from tests.makers.families import FAMILIES, family_model, family_side

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
PROMPTS = ["a red dress", "a blue coat"]
UNEVEN = [
    "a red dress",
    "a blue and dark and red coat on a green bicycle",
]  # of different lengths in tokens
STEPS = 3
EVERY_METHOD = ("sd15", "sd3", "qwen-image")  # one batch, a flow, two calls
ONE_OF_EACH_KIND = ("pg", "eddy-hutch", "antithetic", "coupled", "cads", "interval", "best-of-m")
STOCHASTIC = ("hunyuan-dit", "sana-sprint", "lcm")  # their own solver draws noise
FIRST_ORDER = ("sd3", "qwen-image")  # of those that every method draws with
UNGUIDED = ("flux2", "flux", "sana-sprint", "lcm")  # distilled, without a negative prompt
STRONG = {
    "pg": "pg:strength=5,window=0..",
    "repulsion": "repulsion:strength=20,window=0..",
    "eddy-exact": "eddy-exact:strength=20",
    "eddy-fd": "eddy-fd:strength=5,scale=fixed,window=0..,max_coordinates=4",
    "eddy-hutch": "eddy-hutch:strength=5,scale=fixed,window=0..,probes=2",
    "best-of-m": "best-of-m:m=3",
    "interval": "interval:window=0%..30%",
    "spell": "spell:radius=500",
    "rke": "rke:every=1",
    "oscar": "oscar:window=0%..100%",
    "restart": "restart:low=0.01,high=1e5",
}


def arguments(family: str, rows: int, **changes: Any) -> dict[str, Any]:
    suite = Suite(steps=STEPS, size=family_side(family), guidance_scale=3.0)
    return {**Setup(suite, family_model(family)).call_arguments(rows), **changes}


def latents(
    family: str, method: Method, prompts: list[str], particles: int = 2, steps: int = STEPS
) -> Tensor:
    """What the solver ends with."""
    model = family_model(family)
    kept: list[Tensor] = []
    inner = type(model.pipe.scheduler).step

    def step(*args: Any, **kwargs: Any) -> Any:
        output = inner(model.pipe.scheduler, *args, **kwargs)
        kept.append(output[0] if isinstance(output, tuple) else output.prev_sample)
        return output

    model.pipe.scheduler.step = functools.wraps(model.pipe.scheduler.step)(step)
    try:
        model.draw(
            prompts,
            [0] * len(prompts),
            particles,
            method,
            arguments(family, len(prompts), num_inference_steps=steps),
        )
    finally:
        del model.pipe.scheduler.step
    return kept[-1] / getattr(model.pipe.scheduler.config, "sigma_data", 1.0)


def method(text: str) -> Method:
    return build_method(MethodSpec.parse(text))


@pytest.mark.parametrize("family", FAMILIES)
def test_strength_zero_is_the_bare_pipeline_bit_for_bit(family: str) -> None:
    model = family_model(family)
    generators = [g for prompt in PROMPTS for g in particle_generators(0, prompt, 2)]
    takes = model.pipe.scheduler.step
    rows = {
        "prompt": list(PROMPTS),
        "num_images_per_prompt": 2,
        **model.call,
        **arguments(family, 2),
    }
    if family in (
        "sana",
        "sana-sprint",
        "lumina2",
        "qwen-image",
        "hunyuan-dit",
    ):  # whose rows are only their own when the prompts are repeated
        rows |= {"prompt": [text for text in PROMPTS for _ in range(2)], "num_images_per_prompt": 1}
        rows |= {"negative_prompt": [" "] * 4} if "negative_prompt" in rows else {}
    bare = [np.asarray(image) for image in model.pipe(generator=generators, **rows).images]
    assert model.pipe.scheduler.step == takes
    drawn, cost = model.draw(PROMPTS, [0, 0], 2, method("pg:strength=0"), arguments(family, 2))
    assert all(
        (np.asarray(image) == other).all()
        for image, other in zip([i for group in drawn for i in group], bare, strict=True)
    )
    assert cost.nfe >= STEPS
    assert not all((bare[0] == other).all() for other in bare[1:]), "seeds matter"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_draws_and_guidance_is_seen(family: str) -> None:
    plain = latents(family, method("iid"), PROMPTS[:1])
    for name in method_names() if family in EVERY_METHOD else ONE_OF_EACH_KIND:
        chosen = method(STRONG.get(name, name))
        if name == "coupled" and family not in STOCHASTIC:
            with pytest.raises(SchedulerError, match="stochastic"):
                latents(family, chosen, PROMPTS[:1])
            continue
        if name == "restart" and family not in FIRST_ORDER:
            with pytest.raises(SchedulerError, match="first-order"):
                latents(family, chosen, PROMPTS[:1])
            continue
        if chosen.reguides and family in UNGUIDED:
            with pytest.raises(ModelError, match="classifier-free guidance"):
                latents(family, chosen, PROMPTS[:1])
            continue
        guided = latents(family, chosen, PROMPTS[:1])
        assert torch.isfinite(guided).all(), name
        if name != "iid" and not chosen.selects:  # what is kept is among the candidates
            assert (guided - plain).abs().max() > 1e-6, name
    assert torch.isfinite(
        latents(family, method("pg:strength=5,scale=fixed,window=0..,kernel=features"), PROMPTS[:1])
    ).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_denoised_estimate_is_decoded_as_the_pipeline_decodes(family: str) -> None:
    """Where the solver ends, its latents are the denoised estimate, and their pictures the
    pipeline's own.
    """
    model = family_model(family)
    size = family_side(family)
    last = latents(family, method("iid"), PROMPTS[:1])
    decode = make_decode(model.pipe, model.pipe.vae, (size, size))
    pictures = ((decode(last).clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    drawn, _ = model.draw(PROMPTS[:1], [0], 2, method("iid"), arguments(family, 1))
    assert (
        np.abs(pictures - np.stack([np.asarray(image.convert("RGB")) for image in drawn[0]])).max()
        <= 1
    )
    assert family_of(model.pipe).decoding != "unknown"
    points = last.flatten(1).requires_grad_()
    (gradient,) = torch.autograd.grad(
        model.feature_map(tuple(last.shape[1:]), (size, size)).differentiable(points).sum(), points
    )
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_of_a_batch_do_not_see_each_other(family: str) -> None:
    guided = method("pg:strength=5,window=0..")
    if Setup(Suite(), family_model(family)).prompts_together == 1:
        assert family == "cogview4"
        return
    both = latents(family, guided, UNEVEN)
    for k, prompt in enumerate(UNEVEN):
        alone = latents(family, guided, [prompt])
        assert torch.allclose(both[2 * k : 2 * k + 2], alone, atol=2e-3, rtol=1e-3), (
            (both[2 * k : 2 * k + 2] - alone).abs().max()
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_guidance_from_the_first_step_is_finite(family: str) -> None:
    """Alpha is 0 there in some families; what a method sees and returns stays finite."""
    seen: list[State] = []

    class Watching(Method):
        def guidance(self, state: State) -> Tensor:
            seen.append(state)
            return 0.01 * state.score

    assert torch.isfinite(latents(family, Watching(), PROMPTS[:1])).all()
    # older pipelines of Z-Image end with a step at noise level 0, which no method sees
    assert len(seen) >= STEPS - (family == "z-image")
    assert all(
        torch.isfinite(torch.cat([state.particles, state.score, state.denoised])).all()
        for state in seen
    )
    assert seen[0].sigma > seen[-1].sigma


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in UNGUIDED])
def test_a_negative_prompt_reaches_the_network(family: str) -> None:
    suite = Suite(
        steps=STEPS,
        size=family_side(family),
        guidance_scale=3.0,
        negative_prompt="a dark coat on a red bicycle",
    )
    model = family_model(family)
    with_it, without = (
        model.draw(
            list(PROMPTS), [0, 0], 2, method("iid"), Setup(variant, model).call_arguments(2)
        )[0]
        for variant in (suite, suite.model_copy(update={"negative_prompt": ""}))
    )
    assert any(
        (np.asarray(a) != np.asarray(b)).any() for a, b in zip(with_it[0], without[0], strict=True)
    )


def test_a_negative_prompt_is_refused_where_none_is_taken() -> None:
    with pytest.raises(ParameterError, match="takes no negative prompt"):
        Setup(Suite(negative_prompt="blurry"), family_model("flux2")).call_arguments(1)


def passes_a_generator(name: str) -> bool:
    """Whether a pipeline's own code hands `generator` to the steps of its scheduler."""
    code = inspect.getsource(getattr(diffusers, name).__call__)
    step = code[code.index("scheduler.step(") :]
    return "extra_step_kwargs" in step[: step.index("[0]")]


def test_documents_name_the_pipelines_whose_steps_get_no_generator() -> None:
    """There a bare pipeline under a solver that draws noise differs from a run, and from itself."""
    names = [family.class_name for family in FAMILY_TABLE if family.class_name != "ExactPipeline"]
    known = [name for name in names if inspect.isfunction(getattr(diffusers, name).__call__)]
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    (named,) = re.findall(r"differs from the bare pipeline\. They are (.+)\.\n", page)
    expected = sorted(name for name in known if not passes_a_generator(name))
    assert re.findall(r"`(\w+)`", named) == expected


def test_a_step_that_gets_no_generator_is_given_the_particles_own() -> None:
    model = family_model("sd3")
    model.pipe.scheduler.register_to_config(stochastic_sampling=True)
    try:
        first, again = (latents("sd3", method("iid"), PROMPTS[:1]) for _ in range(2))
        alone = latents("sd3", method("iid"), PROMPTS[:1], particles=1)
    finally:
        model.pipe.scheduler.register_to_config(stochastic_sampling=False)
    assert torch.equal(first, again)
    assert not torch.equal(first, latents("sd3", method("iid"), PROMPTS[:1]))
    assert (alone[0] - first[0]).abs().max() < 1e-3 * first.abs().max()
