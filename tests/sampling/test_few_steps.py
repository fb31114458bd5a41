"""Few-step solvers: consistency models under LCM, TCD and SCM, Turbo and Lightning settings."""

from __future__ import annotations

import inspect
import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import diffusers
import pytest
import torch
from torch import Tensor

from eddy_bench import EddyExact, Method, ParticleGuidance, State, steer
from eddy_bench.errors import ParameterError, SchedulerError
from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.coupled import Coupled
from eddy_bench.methods.registry import build_method
from eddy_bench.models.exact import ExactDenoiser
from eddy_bench.models.load import load_model
from eddy_bench.models.mixture import Mixture
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.sampling.solver_view import check_stochastic, view_of
from eddy_bench.sampling.state import StepInfo
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.suite import Suite
from tests.makers.families import family_model, family_side
from tests.makers.solvers import draw, make_pipeline

FEW = ("lcm", "tcd", "scm")


@dataclass(frozen=True)
class Constant(Method):
    """A fixed drift, at every step or at one, that keeps the states that it saw."""

    size: float = 0.3
    position: int | None = None
    name: ClassVar[str] = "constant"
    seen: ClassVar[list[State]] = []

    def guidance(self, state: State) -> Tensor | None:
        self.seen.append(state)
        here = self.position in (None, state.step)
        return torch.full_like(state.particles, self.size) if here else None


def method(text: str) -> Method:
    return build_method(MethodSpec.parse(text))


def steps_of(solver: str, count: int, each: Any, **call: Any) -> list[tuple[float, Tensor, Tensor]]:
    """Draw under `each` and return of every step (timestep, next sample, second output)."""
    pipe = make_pipeline(solver)
    inner, kept = pipe.scheduler.step, []

    def step(*args: Any, **kwargs: Any) -> Any:
        output = inner(*args, **kwargs)
        kept.append((float(args[1]), *output[:2]))
        return output

    pipe.scheduler.step = step
    step.__signature__ = inspect.signature(inner)  # type: ignore[attr-defined]
    with steer(pipe, each):
        draw(pipe, rows=2, steps=count, **call)
    return kept


@pytest.mark.parametrize("solver", FEW)
def test_levels_follow_each_other_down_to_the_data(solver: str) -> None:
    Constant.seen.clear()
    with steer(pipe := make_pipeline(solver), Constant(size=0.0)) as record:
        draw(pipe, steps=4)
    seen = list(Constant.seen)
    assert record.steps == 4
    assert [state.share for state in seen] == [0, 0.25, 0.5, 0.75]
    after = [state.sigma_next for state in seen]
    assert after[:-1] == pytest.approx([state.sigma for state in seen[1:]], rel=1e-6)
    last = {"tcd": 0.0292}.get(solver, 0.0)  # TCD ends at timestep 0
    assert after[-1] == pytest.approx(last, abs=1e-4)
    assert seen[0].pure_noise is (solver == "scm")
    view = view_of(pipe.scheduler)
    assert len(view.timesteps) == 4
    times = [view.time(index) for index in range(4)]
    assert times == sorted(times, reverse=True)
    assert times[0] == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("solver", FEW)
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_every_step_moves_as_a_deterministic_one(solver: str, steps: int) -> None:
    """The first and the last step too: by (sigma - sigma_next) sigma g, whatever is re-noised."""
    for position in range(steps):
        Constant.seen.clear()
        plain, moved = (
            steps_of(solver, steps, Constant(size, position))[position][1] for size in (0.0, 0.3)
        )
        state = Constant.seen[position]
        unit = 0.5 if solver == "scm" else 1.0
        alpha = 1 / math.sqrt(1 + state.sigma_next**2)
        shift = (moved - plain) / unit / alpha
        expected = (state.sigma - state.sigma_next) * state.sigma * 0.3
        tolerance = 2e-3 if state.pure_noise else 5e-4  # their tables are float32
        assert torch.allclose(shift, torch.full_like(shift, expected), rtol=tolerance)


@pytest.mark.parametrize("solver", ["lcm", "tcd"])
def test_a_strength_means_the_same_as_without_noise(solver: str) -> None:
    """On one wide Gaussian a constant g moves the mean by the sum of what the steps move.

    Not SCM, whose first step is at alpha = 0, where sigma stands for a limit.
    """
    wide = Mixture(
        torch.zeros(1, 2).double(), torch.full((1,), 1e4).double(), torch.ones(1).double()
    )
    results = []
    for size in (0.0, 0.02):
        Constant.seen.clear()
        pipe = make_pipeline(solver)
        pipe.denoiser = ExactDenoiser(wide)
        with steer(pipe, Constant(size=size)):
            results.append(draw(pipe, rows=4, steps=8))
    expected = sum((s.sigma - s.sigma_next) * s.sigma * 0.02 for s in Constant.seen)
    assert float((results[1] - results[0]).mean()) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("solver", FEW)
def test_step_noise_is_coupled(solver: str) -> None:
    """At N = 2 the rows' noise is opposite, but in the last step, which adds none."""
    coupled = Coupled(strength=1.0)
    eta = {"eta": 0.3} if solver == "tcd" else {}
    for each, opposite in ((coupled, True), (method("iid"), False)):
        steps = steps_of(solver, 3, each, **eta)
        for timestep, following in itertools.pairwise(steps):
            _, sample, estimate = timestep
            noise = sample - centre(solver, estimate, timestep[0], following[0])
            assert noise.abs().max() > 0.05
            assert torch.allclose(noise[0], -noise[1], atol=5e-3) is opposite
        assert torch.equal(steps[-1][1], steps[-1][2]), "none in the last step"


def centre(solver: str, estimate: Tensor, timestep: float, following: float) -> Tensor:
    """What a step adds its noise to."""
    if solver == "scm":
        return math.cos(following) * estimate
    product = make_pipeline(solver).scheduler.alphas_cumprod
    after = product[int(following)]
    if solver == "lcm":
        return after.sqrt() * estimate
    lower = product[int(torch.floor((1 - 0.3) * torch.tensor(int(following))))]
    return (after / lower).sqrt() * estimate


@pytest.mark.parametrize("solver", FEW)
def test_one_step_has_no_noise_to_couple(solver: str) -> None:
    pipe = make_pipeline(solver)
    eta = {"eta": 0.3} if solver == "tcd" else {}
    with steer(pipe, Coupled()), pytest.raises(SchedulerError, match="1 step leaves none"):
        draw(pipe, steps=1, **eta)
    check_stochastic(pipe.scheduler, 0.3)
    if solver == "tcd":
        with pytest.raises(SchedulerError, match="with eta = 0"):
            check_stochastic(pipe.scheduler, 0.0)


def test_the_first_step_of_a_consistency_model_at_alpha_zero_is_finite() -> None:
    for solver, config in (
        ("scm", {}),
        ("lcm", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}),
        ("tcd", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}),
    ):
        pipe = make_pipeline(solver, **config)
        bare = draw(pipe, steps=1)
        with steer(pipe, EddyExact(strength=5)):
            guided = draw(pipe, steps=1)
        assert torch.isfinite(guided).all()
        assert 1e-3 < (guided - bare).abs().max() < 50
        with steer(pipe, ParticleGuidance(strength=5)):
            assert torch.equal(draw(pipe, steps=1), bare)
        pipe.scheduler.set_timesteps(2)
        view = view_of(pipe.scheduler)
        at = view.at(0)
        assert at.pure_noise
        assert math.isfinite(at.gain)
        assert math.isfinite(view.sigma_next(0))


def test_names_on_the_command_line() -> None:
    pipe = load_model("fashion", device="cpu").pipe
    assert set_scheduler(pipe, "lcm", {}) == {}
    assert set_scheduler(pipe, "tcd", {}) == {"eta": 0.3}
    assert set_scheduler(pipe, "tcd", {"eta": "0.7"}) == {"eta": 0.7}
    assert pipe.scheduler.config.beta_schedule == "scaled_linear"
    with pytest.raises(ParameterError, match="between 0 and 1"):
        set_scheduler(pipe, "tcd", {"eta": "2"})
    with pytest.raises(SchedulerError, match="timesteps of its model's distillation"):
        set_scheduler(pipe, "lcm", {}, "trailing")
    with pytest.raises(SchedulerError, match="at most 50 steps, got 51"):
        set_scheduler(pipe, "lcm", {}, steps=51)
    assert set_scheduler(pipe, "lcm", {"original_inference_steps": "100"}, steps=51) == {}
    with pytest.raises(SchedulerError, match="noise-predicting model and cannot take"):
        set_scheduler(pipe, "scm", {})
    sprint = family_model("sana-sprint").pipe
    with pytest.raises(SchedulerError, match=r"trigflow model and cannot take.*one of: scm"):
        set_scheduler(sprint, "ddim", {})
    assert set_scheduler(sprint, "scm", {}) == {}


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_turbo_and_lightning_settings(family: str, steps: int, scale: float) -> None:
    """Trailing timesteps from pure noise, 1 to 4 steps, no null branch."""
    model = family_model(family)
    own = model.pipe.scheduler
    suite = Suite(steps=steps, size=family_side(family), guidance_scale=scale)
    settings = {**Setup(suite, model).call_arguments(1), "output_type": "latent"}
    drawn: dict[tuple[str, str], Tensor] = {}
    try:
        for solver in ("euler", "euler-ancestral", "lcm", "tcd", "ddim"):
            spacing = "default" if solver in FEW else "trailing"
            call = set_scheduler(model.pipe, solver, {}, spacing, steps)
            for name in ("iid", "antithetic", "pg:kernel=latent,strength=5,window=0..", "coupled"):
                if name == "coupled" and (
                    solver in ("euler", "ddim") or (solver in FEW and steps == 1)
                ):
                    continue
                rows, cost = model.draw(["a red dress"], [0], 2, method(name), settings | call)
                assert cost.nfe == steps, "one branch"
                assert model.pipe.scheduler.timesteps[0] == 999
                drawn[solver, name[:2]] = torch.stack(rows[0])
        for (solver, name), latents in drawn.items():
            assert torch.isfinite(latents).all()
            if name in ("an", "pg"):
                assert not torch.equal(latents, drawn[solver, "ii"]), (solver, name)
    finally:
        model.pipe.scheduler = own


def test_trailing_is_refused_where_it_means_nothing() -> None:
    with pytest.raises(SchedulerError, match=r"cannot space.*trailing.*These can: .*euler"):
        set_scheduler(family_model("sd3").pipe, "flow-euler", {}, "trailing")
    with pytest.raises(SchedulerError, match="flow model by 'trailing'"):
        set_scheduler(family_model("sana").pipe, "unipc", {}, "trailing")


class OddScheduler(diffusers.DDIMScheduler):  # type: ignore[misc]
    """One that is not known here."""


def test_an_unknown_scheduler_still_takes_couplings_of_the_start_and_selection() -> None:
    model = load_model("fashion", device="cpu")
    call = {"num_inference_steps": 3, "guidance_scale": 2.0}
    known = {
        name: model.draw(["a red dress"], [0], 2, method(name), call)[0][0]
        for name in ("iid", "antithetic", "lhs", "sobol", "best-of-m:m=3")
    }
    model.pipe.scheduler = OddScheduler.from_config(model.pipe.scheduler.config)
    assert set_scheduler(model.pipe, "default", {}) == {}
    for name, images in known.items():
        drawn, cost = model.draw(["a red dress"], [0], 2, method(name), call)
        assert [image.tobytes() for image in drawn[0]] == [image.tobytes() for image in images]
        assert cost.nfe > 0
    for name in ("pg", "eddy-exact", "coupled", "cads", "interval", "best-of-m:m=3,preview=1"):
        with pytest.raises(SchedulerError, match="got OddScheduler, under which only iid") as told:
            model.draw(["a red dress"], [0], 2, method(name), call)
        assert "\n" not in str(told.value)


@dataclass(frozen=True)
class Scales(Method):
    """Keep the guidance scale that each evaluation is told of."""

    name: ClassVar[str] = "scales"
    seen: ClassVar[list[float | None]] = []

    def condition(self, embeds: Tensor, mask: Tensor, info: StepInfo) -> Tensor:
        self.seen.append(info.scale)
        return embeds


@pytest.mark.parametrize(
    ("family", "given", "scale"),
    [
        ("z-image", 0.0, None),
        ("z-image", 2.0, 3.0),
        ("sd15", 0.0, None),
        ("sd15", 1.0, None),
        ("sd15", 2.0, 2.0),
    ],
)
def test_a_scale_of_0_is_no_guidance(family: str, given: float, scale: float | None) -> None:
    model = family_model(family)
    suite = Suite(steps=2, size=family_side(family), guidance_scale=given)
    Scales.seen.clear()
    model.draw(["a red dress"], [0], 2, Scales(), Setup(suite, model).call_arguments(1))
    assert set(Scales.seen) == {scale}
