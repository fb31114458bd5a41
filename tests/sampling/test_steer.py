"""The insertion point, under every solver: neutral at strength 0, the same drift in every
parameterisation, finite at alpha = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import diffusers
import pytest
import torch
from torch import Tensor

from eddy_bench import (
    EddyExact,
    EddyFd,
    EddyHutch,
    Method,
    ParticleGuidance,
    Repulsion,
    State,
    steer,
)
from eddy_bench.errors import EddyError, ModelError, ParameterError, SchedulerError
from eddy_bench.models.exact import ExactDenoiser, ExactPipeline
from eddy_bench.models.mixture import Mixture
from eddy_bench.sampling.solver_view import view_of
from tests.makers.solvers import SOLVERS, draw, make_pipeline, ring

METHODS = [
    ParticleGuidance(strength=0),
    Repulsion(strength=0),
    EddyExact(strength=0),
    EddyFd(strength=0, window="0.."),
    EddyHutch(strength=0, window="0.."),
    EddyHutch(strength=0, kernel="denoised", window="0.."),
]


@pytest.mark.parametrize("solver", SOLVERS)
def test_strength_zero_is_the_bare_pipeline_bit_for_bit(solver: str) -> None:
    bare = draw(make_pipeline(solver))
    assert torch.isfinite(bare).all()
    for method in METHODS:
        pipe = make_pipeline(solver)
        with steer(pipe, method, particles=4) as record:
            steered = draw(pipe)
        assert torch.equal(steered, bare), method
        assert record.steps >= 8
        assert torch.equal(draw(pipe), bare), "the scheduler is put back"


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    "method",
    [EddyExact(strength=20), EddyHutch(strength=20, window="0.."), ParticleGuidance(strength=2)],
    ids=lambda m: m.title(),
)
def test_guidance_is_seen_and_finite(solver: str, method: Method) -> None:
    pipe = make_pipeline(solver)
    bare = draw(pipe)
    with steer(pipe, method):
        guided = draw(pipe)
    assert torch.isfinite(guided).all()
    assert (guided - bare).abs().max() > 1e-4


@dataclass(frozen=True)
class Constant(Method):
    """A fixed drift, to see where a step moves."""

    size: float = 0.3
    name: ClassVar[str] = "constant"

    def guidance(self, state: State) -> Tensor:
        return torch.full_like(state.particles, self.size)


@pytest.mark.parametrize("solver", SOLVERS)
def test_samples_go_where_the_drift_points(solver: str) -> None:
    """Every coordinate of every sample, whatever the solver does with its noise."""
    along, against = make_pipeline(solver), make_pipeline(solver)
    with steer(along, Constant(size=0.3)):
        up = draw(along)
    with steer(against, Constant(size=-0.3)):
        down = draw(against)
    assert (up > down).all()


class OneStep(ExactPipeline):
    """A call is one step of the solver."""

    def __call__(self, output: Tensor, timestep: Any, sample: Tensor) -> Tensor:  # type: ignore[override]
        stepped: Tensor = self.scheduler.step(output, timestep, sample, return_dict=False)[0]
        return stepped


def moved(scheduler: Any, prediction: str, position: int = 3) -> tuple[Tensor, float, float]:
    """How far one first-order step of a scheduler moves xb for g = 0.3, and the sigma before and
    after it.
    """
    set_steps(scheduler)
    timestep = scheduler.timesteps[position]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(position)
    at = view_of(scheduler).at(position)
    pipe = OneStep(ExactDenoiser(ring()), scheduler)
    x0, eps = torch.randn(4, 2, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    x = at.alpha_t * x0 + at.sigma_t * eps
    output = at.unit * pipe.denoiser(x, at.alpha_t, at.sigma_t, prediction)[0]
    sample = x / at.alpha_t if at.scaled else x * at.unit
    results = []
    for size in (0.0, 0.3):
        set_steps(scheduler)
        torch.manual_seed(0)  # the same noise: the difference is the drift alone
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(position)
        if at.scaled:
            scheduler.scale_model_input(sample, timestep)
        with steer(pipe, Constant(size=size)):
            results.append(pipe(output.clone(), timestep, sample.clone()))
        if hasattr(scheduler, "_step_index"):
            scheduler._step_index = None
    view = view_of(scheduler)
    alpha_t = 1.0 if at.scaled else view.levels_after(position)[0]
    return (results[1] - results[0]) / at.unit / alpha_t, at.sigma, view.sigma_next(position)


def set_steps(scheduler: Any, steps: int = 10) -> None:
    """Set the timesteps; SCM's own setting is one for 2 steps."""
    settings = {"intermediate_timesteps": None} if "SCM" in type(scheduler).__name__ else {}
    scheduler.set_timesteps(steps, **settings)


@pytest.mark.parametrize(
    "solver", ["ddim", "dpmpp-2m", "euler", "unipc", "deis", "lms", "lcm", "tcd"]
)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_one_step_moves_the_same_in_every_parameterisation(solver: str, prediction: str) -> None:
    name, settings = SOLVERS[solver]
    if solver == "unipc":
        settings = {**settings, "solver_order": 1}
    position = 0 if solver == "lms" else 3  # later steps of LMS are first-order only with a history
    shift, sigma, following = moved(
        getattr(diffusers, name)(**settings, prediction_type=prediction), prediction, position
    )
    expected = (sigma - following) * sigma * 0.3
    assert torch.allclose(shift, torch.full_like(shift, expected), rtol=2e-4, atol=1e-5 * sigma)


@pytest.mark.parametrize(
    ("name", "prediction"),
    [("FlowMatchEulerDiscreteScheduler", "flow_prediction"), ("SCMScheduler", "v_prediction")],
)
def test_one_flow_step_moves_the_same(name: str, prediction: str) -> None:
    shift, sigma, following = moved(getattr(diffusers, name)(), prediction)
    assert torch.allclose(
        shift, torch.full_like(shift, (sigma - following) * sigma * 0.3), rtol=1e-4
    )


@pytest.mark.parametrize(("solver", "config"), [("flow-euler", {}), ("ddim", {"rebalance": True})])
def test_the_first_step_at_alpha_zero_is_finite(solver: str, config: dict[str, Any]) -> None:
    """Guidance by EDDY is finite and seen where alpha is 0; forces that grow as 1 / alpha skip that
    step.
    """
    settings = (
        {
            "rescale_betas_zero_snr": True,
            "timestep_spacing": "trailing",
            "prediction_type": "v_prediction",
        }
        if config
        else {}
    )
    seen: list[State] = []

    @dataclass(frozen=True)
    class Watching(EddyExact):
        def guidance(self, state: State) -> Tensor | None:
            seen.append(state)
            return super().guidance(state)

    pipe = make_pipeline(solver, **settings)
    bare = draw(pipe, steps=1)
    with steer(pipe, Watching(strength=5)):
        guided = draw(pipe, steps=1)
    assert seen[0].pure_noise
    assert torch.isfinite(guided).all()
    assert 1e-3 < (guided - bare).abs().max() < 50
    with steer(pipe, ParticleGuidance(strength=5)):
        assert torch.equal(draw(pipe, steps=1), bare)


def test_half_precision_is_edited_in_float32() -> None:
    pipe = make_pipeline("euler")
    with steer(pipe, EddyExact(strength=0), particles=4):
        guided = draw(pipe, dtype=torch.float16)
    assert torch.equal(guided, draw(pipe, dtype=torch.float16))
    pipe.scheduler.set_timesteps(10)
    at = view_of(pipe.scheduler).at(0)
    output = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).half()
    delta = torch.full((4, 2), 3e-4)
    edited = at.edit(output, delta)
    assert edited.dtype == torch.float16
    assert torch.equal(edited, (output.float() - delta).half())


def test_stochastic_solvers_give_a_strength_the_same_meaning() -> None:
    """On one wide Gaussian a constant g moves the mean as far under DDIM with eta = 1 as with eta =
    0.
    """
    wide = Mixture(
        torch.zeros(1, 2).double(), torch.full((1,), 100.0).double(), torch.ones(1).double()
    )
    shifts = {}
    for eta in (0.0, 1.0):
        results = []
        for size in (0.0, 0.02):
            pipe = make_pipeline("ddim")
            pipe.denoiser = ExactDenoiser(wide)
            with steer(pipe, Constant(size=size)):
                results.append(draw(pipe, rows=16, steps=400, eta=eta))
        shifts[eta] = float(
            (results[1] - results[0]).mean()
        )  # the same noise: the difference is the drift alone
    assert shifts[0.0] > 0.1
    assert shifts[1.0] == pytest.approx(shifts[0.0], rel=0.1)


def test_particles_are_read_off_the_call() -> None:
    """Two prompts in one call are two groups, and each is guided as it is alone."""

    class Encoding(ExactPipeline):
        def encode_prompt(self, prompt: Any, num_images_per_prompt: int = 1) -> None:
            """As text-to-image pipelines do."""

        def __call__(self, prompt: Any = "", num_images_per_prompt: int = 1, **kwargs: Any) -> Any:
            self.encode_prompt(prompt, num_images_per_prompt=num_images_per_prompt)
            return super().__call__(prompt, num_images_per_prompt, **kwargs)

    name, settings = SOLVERS["euler"]
    pipe = Encoding(ExactDenoiser(ring()), getattr(diffusers, name)(**settings))
    noise = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    with steer(pipe, EddyExact(strength=20)):
        both = pipe(
            ["a", "b"], num_images_per_prompt=4, latents=noise, num_inference_steps=6
        ).images
        alone = pipe("b", num_images_per_prompt=4, latents=noise[4:], num_inference_steps=6).images
    assert torch.allclose(both[4:], alone, atol=1e-5)


def test_what_cannot_be_steered_is_refused_with_its_reason() -> None:
    pipe = make_pipeline("ddim")
    with (
        steer(pipe, EddyExact(), particles=3),
        pytest.raises(ParameterError, match="multiple of 3"),
    ):
        draw(pipe)

    class Demanding(EddyExact):
        min_particles: ClassVar[int] = 9

    with steer(pipe, Demanding()), pytest.raises(ParameterError, match="at least 9"):
        draw(pipe)

    @dataclass(frozen=True)
    class Broken(Method):
        def guidance(self, state: State) -> Tensor:
            return torch.full_like(state.particles, float("nan"))

    with steer(pipe, Broken()), pytest.raises(EddyError, match="not finite"):
        draw(pipe)
    other = ExactPipeline(ExactDenoiser(ring()), diffusers.IPNDMScheduler())
    with pytest.raises(SchedulerError, match="IPNDMScheduler"), steer(other, EddyExact()):
        pass

    class KandinskyCombinedPipeline(ExactPipeline):
        pass

    with (
        pytest.raises(ModelError, match="Kandinsky"),
        steer(KandinskyCombinedPipeline(ExactDenoiser(ring()), pipe.scheduler), EddyExact()),
    ):
        pass


def test_a_second_call_in_one_block_is_guided_as_the_first() -> None:
    """Windows in share of steps begin anew with each call of the pipeline, also after one that was
    cut short.
    """
    pipe = make_pipeline("ddim")
    method = EddyHutch(strength=20, kernel="denoised", scale="fixed")
    with steer(pipe, method, particles=4):
        first, second = draw(pipe), draw(pipe)

        class Stop(Exception):
            pass

        def stop(*args: Any) -> None:
            if len(calls) == 3:
                raise Stop
            calls.append(args)

        calls: list[Any] = []
        handle = pipe.denoiser.register_forward_pre_hook(stop)
        with pytest.raises(Stop):
            draw(pipe)
        handle.remove()
        third = draw(pipe)
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert not torch.equal(first, draw(pipe))
