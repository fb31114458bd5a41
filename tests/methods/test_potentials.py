"""Forces against the gradient of the objective that they state, and its rise after a small step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from eddy_bench import State
from eddy_bench.kernels import squared_distances, weighted_differences
from eddy_bench.methods.diverseflow import DiverseFlow
from eddy_bench.methods.guided import DirectedMethod, GuidingMethod
from eddy_bench.methods.oscar import Oscar
from eddy_bench.methods.potentials import (
    determinant_weights,
    rke_weights,
    shield_weights,
    vendi_weights,
    volume_weights,
)
from eddy_bench.methods.registry import load_method, method_names
from eddy_bench.methods.rke import Rke
from eddy_bench.methods.spell import Spell
from eddy_bench.methods.vendi_guidance import VendiGuidance
from eddy_bench.sampling.feature_maps import UnitVectors
from eddy_bench.sampling.solver_view import Coordinates
from tests.makers.mixtures import draw, generators
from tests.methods.test_pg_repulsion import state_at

GAMMA, QUALITY = 1.7, torch.tensor([[1.0, 0.6, 0.9, 0.2, 1.0], [0.5, 1.0, 1.0, 0.7, 0.8]]).double()


def plain_squares(points: Tensor) -> Tensor:
    return (points[:, :, None] - points[:, None]).square().sum(-1)


def log_rke(points: Tensor) -> Tensor:
    kernel = torch.exp(-plain_squares(points) / GAMMA)
    return -(kernel / kernel.shape[-1]).square().sum((1, 2)).log()


def log_vendi(points: Tensor) -> Tensor:
    kernel = torch.exp(-plain_squares(points) / GAMMA)
    values = torch.linalg.eigvalsh(kernel / kernel.shape[-1])
    return -(values * values.clamp_min(1e-30).log()).sum(-1)


def log_probability(points: Tensor) -> Tensor:
    likeness = QUALITY[:, :, None] * QUALITY[:, None] * torch.exp(-plain_squares(points) / GAMMA)
    one = torch.eye(likeness.shape[-1]).double()
    likeness = likeness + 1e-6 * one
    return torch.logdet(likeness) - torch.logdet(likeness + one)


def volume(points: Tensor) -> Tensor:
    centred = points - points.mean(1, keepdim=True)
    return torch.logdet(torch.eye(points.shape[1]).double() + 0.8 * centred @ centred.mT) / 2


def apartness(points: Tensor) -> Tensor:
    square = plain_squares(points)
    count = points.shape[1]
    pairs = torch.triu_indices(count, count, 1)
    return -(2.5 - square[:, pairs[0], pairs[1]].sqrt()).clamp_min(0).square().sum(-1) / 2


OBJECTIVES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "rke": (log_rke, lambda square: rke_weights(square, GAMMA)),
    "vendi": (log_vendi, lambda square: vendi_weights(square, GAMMA)),
    "determinant": (
        log_probability,
        lambda square: determinant_weights(square, 1 / GAMMA, QUALITY),
    ),
    "volume": (volume, lambda square: volume_weights(square, 0.8)),
    "shield": (apartness, lambda square: shield_weights(square, 2.5)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_weights_are_the_gradient_and_a_step_raises_the_objective(name: str) -> None:
    objective, weights = OBJECTIVES[name]
    points = draw(2, 5, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(objective(points).sum(), points)
    force = weighted_differences(weights(squared_distances(points.detach())), points.detach())
    assert torch.allclose(force, gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))
    before, after = (objective(points.detach() + step * force) for step in (0.0, 1e-3))
    assert (after > before).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_equal_and_distant_points_are_finite(name: str) -> None:
    for points in (torch.zeros(1, 5, 3).double(), 1e4 * draw(1, 5, 3)):
        square = squared_distances(points)
        weights = (
            determinant_weights(square, 1.0, QUALITY[:1])
            if name == "determinant"
            else OBJECTIVES[name][1](square)
        )
        assert torch.isfinite(weights).all()


METHODS: list[GuidingMethod] = [
    *(DiverseFlow(kernel=kernel) for kernel in ("latent", "denoised", "features")),
    *(Rke(kernel=kernel) for kernel in ("latent", "denoised", "features")),
    *(VendiGuidance(kernel=kernel) for kernel in ("latent", "denoised", "features")),
    *(Oscar(kernel=kernel) for kernel in ("latent", "denoised", "features")),
    *(Spell(kernel=kernel, radius=2.0) for kernel in ("latent", "denoised", "features")),
]


def of(method: GuidingMethod, state: State) -> Tensor:
    guidance = method.guidance(replace(state, generators=generators(len(state.particles))))
    assert guidance is not None
    return guidance


def state(**changes: object) -> State:
    return replace(state_at(features=True), steps=100, sigma_next=3.0, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.name}-{m.kernel}")
@pytest.mark.parametrize("scale", ["fixed", "relative"])
def test_the_contract_of_guiding_methods(method: GuidingMethod, scale: str) -> None:
    method = replace(method, scale=scale)  # type: ignore[type-var]
    at = state()
    guidance = of(method, at)
    assert guidance.shape == at.particles.shape
    assert torch.isfinite(guidance).all()
    assert guidance.abs().max() > 0
    assert method.guidance(state_at(count=1, features=True)) is None, "N = 1 is iid"
    assert (of(replace(method, strength=0), at) == 0).all()  # type: ignore[type-var]
    order = torch.tensor([3, 0, 4, 1, 2])
    moved = replace(
        at,
        particles=at.particles[:, order],
        score=at.score[:, order],
        denoised=at.denoised[:, order],
    )
    assert torch.allclose(of(method, moved), guidance[:, order], rtol=1e-6, atol=1e-9)
    alone = replace(at, particles=at.particles[:1], score=at.score[:1], denoised=at.denoised[:1])
    assert torch.allclose(of(method, alone), guidance[:1], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kernel", ["latent", "denoised"])
@pytest.mark.parametrize("cls", [DiverseFlow, Rke, VendiGuidance, Spell])
def test_particles_part(cls: type[GuidingMethod], kernel: str) -> None:
    """The guidance of a near pair points apart: signs are what ports get wrong."""
    at = replace(state_at(count=2), steps=100, sigma_next=3.0)
    for name in ("particles", "denoised"):
        points = getattr(at, name).clone()
        points[:, 1] = points[:, 0] + 0.1 * draw(2, 1, 6)[:, 0]
        at = replace(at, **{name: points})
    guidance = of(cls(kernel=kernel, scale="fixed"), at)
    points = at.particles if kernel == "latent" else at.denoised
    apart = points[:, 0] - points[:, 1]
    assert ((guidance[:, 0] * apart).sum(-1) > 0).all()
    assert ((guidance[:, 1] * apart).sum(-1) < 0).all()


@pytest.mark.parametrize("cls", [DiverseFlow, Rke, VendiGuidance])
def test_a_step_has_its_stated_length(cls: type[DirectedMethod]) -> None:
    at = state()
    method = cls(kernel="latent", scale="fixed", strength=0.5)
    if isinstance(method, DiverseFlow):
        speed = (at.eps - at.denoised).norm(
            dim=-1
        )  # of a flow, which changes by sigma (1 + sigma) g
        expected = 0.5 * at.flow_time * speed / (at.sigma * (1 + at.sigma))
    else:  # the step moves xb by this share of |xb|
        expected = 0.5 * at.particles.norm(dim=-1) / (at.sigma * (at.sigma - at.sigma_next))
    assert torch.allclose(of(method, at).norm(dim=-1), expected, rtol=1e-9)


def seen_by(method: DirectedMethod, at: State) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Points of a method's kernel, and the map from them to what its docstring compares."""
    points = at.particles if method.kernel == "latent" else at.denoised
    if method.kernel == "features":
        assert at.features is not None
        through = at.features.differentiable
        return points, lambda leaf: through(leaf.flatten(0, 1)).unflatten(0, leaf.shape[:2])
    if isinstance(method, Rke):
        return points, lambda leaf: leaf / leaf.norm(dim=-1, keepdim=True)
    return points, lambda leaf: leaf


def stated(method: DirectedMethod, phi: Tensor, at: State) -> Tensor:
    """The objective of a method's docstring, by its own bandwidth, held constant."""
    square, count = plain_squares(phi), phi.shape[1]
    pairs = torch.triu_indices(count, count, 1)
    median = square.detach()[:, pairs[0], pairs[1]].median(-1).values[:, None, None]
    one = torch.eye(count).double()
    if isinstance(method, Rke):
        gamma = median / math.log(count) if method.kernel == "features" else 2 * 0.6**2
        return -torch.exp(-square / gamma).square().sum((1, 2)).log()
    if isinstance(method, VendiGuidance):
        kernel = torch.exp(-square / (median / math.log(count))) / count
        return torch.special.entr(torch.linalg.eigvalsh(kernel + 1e-6 * one)).sum(-1)
    quality = method.quality(at) if isinstance(method, DiverseFlow) else None
    assert quality is not None, "a new directed method states its objective here"
    likeness = quality[:, :, None] * quality[:, None] * torch.exp(-square / median) + 1e-6 * one
    return torch.logdet(likeness) - torch.logdet(likeness + one)


DIRECTED = [name for name in method_names() if issubclass(load_method(name), DirectedMethod)]


@pytest.mark.parametrize("kernel", ["latent", "denoised", "features"])
@pytest.mark.parametrize("name", DIRECTED)
def test_guidance_is_the_gradient_of_the_stated_objective(name: str, kernel: str) -> None:
    """By the particles themselves: through unit vectors and networks, with d x0 / d xb = 1."""
    method, at = load_method(name)(kernel=kernel, scale="relative"), state()
    points, map_ = seen_by(method, at)
    leaf = points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(stated(method, map_(leaf), at).sum(), leaf)
    guidance = method.term(kernel, at, 1.0)
    assert torch.allclose(guidance, gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


def test_the_pull_of_a_direction_is_its_derivative() -> None:
    points, force = (draw(2, 3, 5) for _ in range(2))
    leaf = points.clone().requires_grad_()
    (expected,) = torch.autograd.grad((UnitVectors().differentiable(leaf) * force).sum(), leaf)
    pulled = UnitVectors().pull_groups(points, lambda values: force)
    assert torch.allclose(pulled, expected, rtol=1e-9)
    rows = UnitVectors().pull(points.flatten(0, 1), lambda _, index: force.flatten(0, 1)[index])
    assert torch.allclose(rows, expected.flatten(0, 1), rtol=1e-9)
    assert (pulled * points).sum(-1).abs().max() < 1e-12
    assert torch.isfinite(UnitVectors().pull_groups(0 * points, lambda values: 0 * force)).all()


@pytest.mark.parametrize("time", [0.05, 0.5, 0.95])
def test_diverseflow_changes_a_velocity_by_its_share(time: float) -> None:
    """|dv| = strength t |v| in what a flow model hands to its solver."""
    at = replace(state_at(sigma=time / (1 - time)), steps=100)
    guidance = DiverseFlow(kernel="latent", scale="fixed", strength=0.2).guidance(at)
    assert guidance is not None
    space = Coordinates(1 - time, time, "flow_prediction")
    velocity = at.eps - at.denoised
    change = space.edit(velocity, at.sigma * guidance) - velocity
    assert torch.allclose(change.norm(dim=-1), 0.2 * time * velocity.norm(dim=-1))


def test_rke_acts_every_tenth_step() -> None:
    method = Rke(scale="fixed")
    acting = [step for step in range(30) if method.guidance(state(step=step)) is not None]
    assert acting == [0, 10, 20]


def test_spell_lands_on_the_radius() -> None:
    """One first-order step to the data's end: alone on r, two that move on 2 r - d."""
    at = state_at(groups=1, count=2)
    far = at.denoised.clone()
    far[:, 1] = far[:, 0]
    far[:, 1, 0] += 1.0  # a pair at distance 1
    at = replace(at, denoised=far, steps=100)
    radius = 1.5
    method = Spell(strength=1.0, scale="fixed", radius=radius / (2 * 6) ** 0.5)
    moved = far + at.sigma**2 * of(method, at)
    assert float((moved[0, 0] - moved[0, 1]).norm()) == pytest.approx(2 * radius - 1)
    one = far.clone()
    one[:, 0] += at.sigma**2 * of(method, at)[:, 0]
    assert float((one[0, 0] - one[0, 1]).norm()) == pytest.approx(radius)
    outside = Spell(strength=1.0, scale="fixed", radius=0.9 / (2 * 6) ** 0.5)
    assert (of(outside, at) == 0).all()


@pytest.mark.parametrize("kernel", ["latent", "denoised", "features"])
@pytest.mark.parametrize("scale", ["fixed", "relative"])
def test_oscar_raises_the_volume_across_the_flow(kernel: str, scale: str) -> None:
    at = state(step=10)
    method = Oscar(kernel=kernel, scale=scale)  # type: ignore[arg-type]
    guidance = of(method, at)
    velocity = at.eps - at.denoised
    along = (guidance * velocity).sum(-1).abs()
    assert (along < 1e-9 * guidance.norm(dim=-1) * velocity.norm(dim=-1)).all()
    points = at.particles if kernel == "latent" else at.denoised
    map_ = at.features if kernel == "features" else None

    def energy(step: float) -> Tensor:
        moved = points + step * guidance
        phi = moved if map_ is None else map_.values(moved.flatten(0, 1)).unflatten(0, (-1, 5))
        centred = phi - phi.mean(1, keepdim=True)
        one = torch.eye(5).double()
        return torch.logdet(one + centred @ centred.mT / unit) / 2

    unit = 1.0
    start = points if map_ is None else map_.values(points.flatten(0, 1)).unflatten(0, (-1, 5))
    centred = start - start.mean(1, keepdim=True)
    unit = centred.square().sum(-1).mean(1)[:, None, None]
    small = 1e-4 / float(guidance.abs().max())
    assert (energy(small) > energy(0.0)).all()
    assert (energy(-small) < energy(0.0)).all()


def test_oscar_s_push_is_cut_and_gated() -> None:
    at = state(step=10)
    strong = of(Oscar(kernel="denoised", scale="fixed", strength=1e9), at)
    change = strong * at.sigma * (1 + at.sigma)
    velocity = at.eps - at.denoised
    assert torch.allclose(change.norm(dim=-1), 0.3 * velocity.norm(dim=-1))
    method = Oscar(kernel="denoised")
    gates = [method.gate(state(step=step)) for step in range(100)]
    assert gates[10] == pytest.approx(1, abs=0.01)
    assert [step for step in range(100) if gates[step] > 0] == list(range(20))
    assert gates[:10] == sorted(gates[:10])
    assert gates[0] == pytest.approx(gates[19])
    assert replace(method, window="5%..15%").gate(state(step=4)) == 0
    assert replace(method, window="1..").gate(state(step=90)) == 1


def test_unlikely_particles_count_less() -> None:
    at = state()
    method = DiverseFlow(kernel="latent")
    odd = replace(at, score=at.score.clone())
    odd.score[:, 0] *= 10
    assert (method.quality(odd)[:, 0] == 0.01).all()
    assert torch.equal(replace(method, percentile=None).quality(odd), torch.ones(2, 5).double())
