"""Steps beyond the scheduler's own: at the start, and back to higher noise levels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from eddy_bench import steer
from eddy_bench.errors import SchedulerError
from eddy_bench.methods.base import Method
from eddy_bench.methods.cno import Cno, contrast, pooled
from eddy_bench.methods.iid import Iid
from eddy_bench.methods.restart import Restart
from eddy_bench.models.base import Model
from eddy_bench.models.load import load_model
from eddy_bench.sampling.families import family_of
from eddy_bench.sampling.noise import condition_generators
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.sampling.state import State
from tests.conftest import Result
from tests.makers.families import FAMILIES, family_model
from tests.makers.mixtures import draw as random
from tests.makers.solvers import SOLVERS, make_pipeline, ring
from tests.makers.solvers import draw as draw_points
from tests.methods.test_pg_repulsion import state_at
from tests.sampling.test_branches import PROMPTS, draw

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")


class Watch(Method):
    """Look at the starts, and turn them round where asked to."""

    def __init__(self, count: int, turned: bool = False) -> None:
        object.__setattr__(self, "count", count)
        object.__setattr__(self, "turned", turned)
        object.__setattr__(self, "noises", [])
        object.__setattr__(self, "states", [])

    count: int
    turned: bool
    noises: list[Tensor]
    states: list[State]

    @property
    def extra_starts(self) -> int:
        return self.count

    def improved_start(self, noise: Tensor, state: State) -> Tensor:
        self.noises.append(noise)
        self.states.append(state)
        return -noise if self.turned else noise

    def guidance(self, state: State) -> None:
        self.states.append(state)


@pytest.mark.parametrize("solver", SOLVERS)
def test_looking_at_the_start_is_neutral_under_every_solver(solver: str) -> None:
    pipe = make_pipeline(solver)
    bare = draw_points(pipe)
    watch = Watch(3)
    with steer(pipe, watch, particles=4) as record:
        for _ in range(2):
            assert torch.equal(draw_points(pipe), bare)
    assert record.steps == len(watch.states) - 6
    first = watch.states[0]
    for state in watch.states[1:4]:
        assert torch.equal(state.particles, first.particles)
        assert torch.equal(state.denoised, first.denoised)
        assert (state.step, state.sigma) == (0, first.sigma)
    noise = watch.noises[0].flatten(0, 1)
    expected = torch.stack(
        [torch.randn(2, generator=torch.Generator().manual_seed(k)) for k in range(8)]
    )
    assert torch.allclose(noise, expected, rtol=1e-5, atol=1e-6), "the noise as it was drawn"
    with steer(pipe, Watch(1, turned=True), particles=4):
        turned = draw_points(pipe)
    by_hand = draw_points(pipe, latents=-expected)
    if solver in ("lcm", "tcd", "scm", "ddpm", "euler-a", "sa", "dpmpp-sde"):
        return  # latents that are given leave the generators where they were
    assert torch.allclose(turned, by_hand, rtol=1e-4, atol=1e-5)
    assert torch.equal(draw_points(pipe), bare)


@pytest.mark.parametrize("family", FAMILIES)
def test_starts_on_every_family(family: str) -> None:
    pipe = family_model(family).pipe
    prompts = PROMPTS[:1] if family_of(pipe).one_prompt else PROMPTS
    plain, cost = draw(family, Iid(), prompts)
    for method in (Watch(2), Cno(iterations=2)):
        drawn, more = draw(family, method, prompts)
        assert more.nfe == cost.nfe + 2, "the conditional branch alone"
        assert torch.isfinite(drawn).all()
        assert torch.equal(drawn, plain) == isinstance(method, Watch)
    off, as_much = draw(family, Cno(iterations=0), prompts)
    assert torch.equal(off, plain)
    assert as_much.nfe == cost.nfe
    assert "set_timesteps" not in vars(pipe.scheduler)
    if not family_of(pipe).pads_to_longest:
        alone, _ = draw(family, Cno(iterations=2), prompts[:1])
        assert (alone - drawn[:2]).abs().max() < 5e-3 * drawn.abs().max()


def test_one_particle_is_iid_at_no_cost() -> None:
    model = load_model("fashion", device="cpu")
    call = {"num_inference_steps": 4, "guidance_scale": 3.0, "output_type": "latent"}
    plain, cost = model.draw(PROMPTS, [0, 0], 1, Iid(), call)
    same, as_much = model.draw(PROMPTS, [0, 0], 1, Cno(), call)
    assert torch.equal(plain[0][0], same[0][0])
    assert cost.nfe == as_much.nfe


@pytest.fixture(scope="module")
def fashion() -> Model:
    model = load_model("fashion", device="cpu")
    set_scheduler(model.pipe, "ddim", {})
    return model


class Measured(Cno):
    """Keep losses and noise."""

    def improved_start(self, noise: Tensor, state: State) -> Tensor:
        features = pooled(state.denoised.double().reshape(noise.shape), self.window)
        reference = state.memory.get("cno reference", features)
        kept.append((contrast(features, reference, self.temperature), noise))
        return super().improved_start(noise, state)


kept: list[tuple[Tensor, Tensor]] = []


@pytest.mark.parametrize("count", [2, 4, 8])
def test_the_loss_falls_and_noise_keeps_its_length(fashion: Model, count: int) -> None:
    kept.clear()
    call = {"num_inference_steps": 3, "guidance_scale": 4.0, "output_type": "latent"}
    fashion.draw(PROMPTS, [0, 0], count, Measured(), call)
    losses = torch.stack([loss for loss, _ in kept])
    assert (losses[-1] < losses[0]).all()
    first, last = (noise.flatten(2).square().mean(-1) for _, noise in (kept[0], kept[-1]))
    assert torch.allclose(first, last, rtol=1e-5)
    step = (kept[1][1] - kept[0][1]).flatten(
        2
    )  # across the noise, so that keeping lengths cuts none
    assert torch.allclose(step.square().mean((1, 2)).sqrt(), torch.tensor(0.05), rtol=3e-3)
    assert (last - 1).abs().max() < 0.2


def test_the_gradient_is_the_loss_s_and_a_small_step_lowers_it() -> None:
    """Where the estimate is the noise plus a constant, as with the network held constant."""
    at = state_at(groups=2, count=5)
    noise = random(2, 5, 6)
    reference = noise + 0.3 * random(2, 5, 6)
    method = Cno(rate=1e-4)

    def loss(points: Tensor) -> Tensor:
        unit = points / points.norm(dim=-1, keepdim=True)
        other = reference / reference.norm(dim=-1, keepdim=True)
        gamma = 1 / (0.1 * torch.tensor(4.0).log() + 1)
        kept = (unit * other).sum(-1) / (gamma * 0.1)
        return ((unit @ unit.mT / 0.1).exp().sum(-1).log() - kept).mean(1)

    memory = {"cno reference": reference, "cno": 0}
    moved = method.improved_start(noise, replace(at, denoised=noise, memory=memory))
    leaf = noise.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf).sum(), leaf)
    step = moved - noise
    radial = (gradient * noise).sum(-1).abs()
    assert (radial < 1e-9).all(), "a cosine knows no length"
    cosine = (step * -gradient).flatten(1).sum(-1) / (
        step.flatten(1).norm(dim=-1) * gradient.flatten(1).norm(dim=-1)
    )
    assert (cosine > 1 - 1e-6).all()
    assert (loss(moved) < loss(noise)).all()
    assert torch.allclose(contrast(noise, reference, 0.1), loss(noise))
    order = torch.tensor([3, 0, 4, 1, 2])
    memory = {"cno reference": reference[:, order], "cno": 0}
    turned = method.improved_start(
        noise[:, order], replace(at, denoised=noise[:, order], memory=memory)
    )
    assert torch.allclose(turned, moved[:, order], rtol=1e-9)
    memory = {"cno reference": reference[:1], "cno": 0}
    alone = method.improved_start(noise[:1], replace(at, denoised=noise[:1], memory=memory))
    assert torch.allclose(alone, moved[:1], rtol=1e-9)
    same = torch.ones(1, 4, 6).double()
    at = replace(at, denoised=same, memory={})
    assert torch.isfinite(method.improved_start(random(1, 4, 6), at)).all()


def test_what_is_averaged() -> None:
    assert pooled(torch.randn(2, 3, 4, 32, 64), 16).shape == (2, 3, 4 * 16 * 16)
    assert pooled(torch.randn(2, 3, 4, 8, 8), 16).shape == (2, 3, 4 * 8 * 8)
    grid = torch.randn(2, 3, 4, 32, 32)
    tokens = grid.flatten(3).mT
    assert torch.allclose(pooled(grid, 16), pooled(tokens, 16))
    assert pooled(torch.randn(2, 3, 30, 4), 16).shape == (2, 3, 120)
    assert pooled(torch.randn(2, 3, 7), 16).shape == (2, 3, 7)


RESTARTABLE = ("ddim", "euler", "flow-euler")


@pytest.mark.parametrize("solver", RESTARTABLE)
def test_restart_is_its_algorithm(solver: str) -> None:
    """Step by step by hand: down, noise from low to high, down again, K times."""
    pipe = make_pipeline(solver)
    rows, steps, times, low, high = 4, 12, 2, 0.2, 3.0
    bare = draw_points(pipe, rows=rows, steps=steps)
    watch = Levels(low, high, times)
    with steer(pipe, watch, particles=2, seed=7) as record:
        drawn = draw_points(pipe, rows=rows, steps=steps)
    assert torch.equal(draw_points(pipe, rows=rows, steps=steps), bare)
    order = [state.step for state in watch.states]
    first, last = (
        min(range(steps), key=lambda k: abs(math.log(watch.level(k) / end))) for end in (high, low)
    )
    again = list(range(first, last)) * times
    assert order == [*range(last), *again, *range(last, steps)]
    assert record.steps == steps + times * (last - first)
    streams = [g for group in range(2) for g in condition_generators(7, str(group), range(2))]
    for before, after in itertools.pairwise(watch.states):
        x = before.particles + (before.sigma_next - before.sigma) * before.eps
        if after.step != before.step + 1:
            noise = torch.stack([torch.randn(2, generator=each) for each in streams])
            spread = (after.sigma**2 - before.sigma_next**2) ** 0.5
            x = x + spread * noise.reshape(x.shape)
        assert after.particles.shape == x.shape
        assert torch.allclose(after.particles, x, rtol=2e-3, atol=2e-3 * after.sigma)
    assert torch.isfinite(drawn).all()


class Levels(Method):
    """Restart, and keep the states."""

    def __init__(self, low: float, high: float, times: int) -> None:
        object.__setattr__(self, "interval", (low, high, times))
        object.__setattr__(self, "states", [])

    interval: tuple[float, float, int]
    states: list[State]

    @property
    def restarts(self) -> tuple[tuple[float, float, int], ...]:
        return (self.interval,)

    def guidance(self, state: State) -> None:
        self.states.append(state)

    def level(self, step: int) -> float:
        return next(state.sigma for state in self.states if state.step == step)


@pytest.mark.parametrize("solver", sorted(SOLVERS.keys() - set(RESTARTABLE)))
def test_solvers_with_a_memory_are_refused(solver: str) -> None:
    pipe = make_pipeline(solver)
    with (
        pytest.raises(SchedulerError, match="Use ddim, euler or flow-euler"),
        steer(pipe, Restart()),
    ):
        pass


def test_off_is_iid_and_cost_is_counted(fashion: Model) -> None:
    call = {"num_inference_steps": 20, "guidance_scale": 3.0, "output_type": "latent"}
    plain, cost = fashion.draw(PROMPTS, [0, 0], 2, Iid(), call)
    same, as_much = fashion.draw(PROMPTS, [0, 0], 2, Restart(times=0), call)
    assert all(torch.equal(a, b) for a, b in zip(plain[0], same[0], strict=True))
    assert cost.nfe == as_much.nfe
    more, paid = fashion.draw(PROMPTS, [0, 0], 2, Restart(times=1), call)
    _, paid_twice = fashion.draw(PROMPTS, [0, 0], 2, Restart(times=2), call)
    assert paid.nfe - cost.nfe == (paid_twice.nfe - cost.nfe) / 2 > 0
    assert not torch.equal(more[0][0], plain[0][0])
    alone, _ = fashion.draw(PROMPTS[1:], [0], 2, Restart(times=1), call)
    assert (alone[0][1] - more[1][1]).abs().max() < 1e-3, "prompts do not see each other"
    single, _ = fashion.draw(PROMPTS[:1], [0], 1, Restart(times=1), call)
    assert (single[0][0] - more[0][0]).abs().max() < 1e-3, "nor do particles"


@pytest.mark.parametrize("coupling", ["antithetic", "lhs", "sobol"])
def test_a_coupling_keeps_each_particle_s_law(coupling: Any) -> None:
    """Against Restart without one, particle by particle (Kolmogorov-Smirnov), and it couples."""
    pipe = make_pipeline("euler")
    groups, count = 600, 4
    drawn = {}
    for method in (Restart(low=0.05, high=20.0), Restart(low=0.05, high=20.0, coupling=coupling)):
        with steer(pipe, method, particles=count, seed=1):
            samples = draw_points(pipe, rows=groups * count, steps=12)
        drawn[method.coupling] = samples.unflatten(0, (groups, count))
    free, coupled = drawn["iid"], drawn[coupling]
    assert not torch.equal(free, coupled)
    for slot in range(count):
        for axis in range(2):
            pair = free[:, slot, axis].numpy(), coupled[:, slot, axis].numpy()
            assert stats.ks_2samp(*pair).pvalue > 1e-4
    assert coupled.mean(1).square().mean() < 0.8 * free.mean(1).square().mean()


def test_restart_undoes_errors_of_the_steps_before() -> None:
    """A start that is bent towards one mode: the more restarts, the nearer to equal shares."""
    pipe, rows = make_pipeline("euler"), 1000
    noise = torch.randn(rows, 2, generator=torch.Generator().manual_seed(0))
    latents = noise + 2 * torch.tensor([1.0, 0.0])
    far = []
    for times in (0, 1, 4):
        with steer(pipe, Restart(low=0.5, high=10.0, times=times), particles=1):
            points = draw_points(pipe, rows=rows, steps=20, latents=latents).double()
        nearest = (points[:, None] - ring().means).norm(dim=-1).argmin(1)
        shares = torch.bincount(nearest, minlength=5) / rows
        far.append(float((shares - 0.2).abs().sum()))
    assert far[0] > far[1] > far[2]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (("--method", "restart:low=2,high=1"), "low of restart below high"),
        (("--method", "restart", "--scheduler", "dpmpp-2m"), "Use ddim, euler or flow-euler"),
        (("--method", "restart:low=1,high=1.01"), "at different noise levels of the solver"),
        (("--method", "cno:iterations=-1"), "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    call: tuple[str, ...], expected: str, cli: Callable[..., Result], tmp_path: Path
) -> None:
    done = cli("run", *call, "--limit", "1", "--out", tmp_path / "run")
    assert done.code == 2
    assert expected in done.err
