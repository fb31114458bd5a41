"""Particle guidance (arXiv 2310.13102) and repulsion against their formulas, pair by pair."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from eddy_bench import (
    EddyExact,
    EddyFd,
    EddyHutch,
    Iid,
    KernelMethod,
    Method,
    ParticleGuidance,
    Repulsion,
    State,
)
from eddy_bench.errors import ParameterError
from eddy_bench.kernels import lower_median, row_median_bandwidth, squared_distances
from eddy_bench.methods.guided import parse_window
from eddy_bench.methods.registry import METHODS, load_method, method_names
from tests.makers.feature_maps import network_features
from tests.makers.mixtures import Mixture, draw, generators

SIGMA = 4.0  # inside pg's windows, past the fade of their ends


def state_at(
    sigma: float = SIGMA, count: int = 5, features: bool = False, groups: int = 2
) -> State:
    dimension = 6
    return Mixture.random(dimension).state(
        sigma * draw(groups, count, dimension),
        sigma,
        features=network_features(dimension) if features else None,
        generators=generators(groups),
    )


def pair_bandwidths(points: Tensor) -> Tensor:
    """gamma_i = median_{j != i}(|delta|)^2 / log(N - 1), one row at a time."""
    count = len(points)
    rows = [
        sorted(float((points[i] - points[j]).norm()) for j in range(count) if j != i)
        for i in range(count)
    ]
    return torch.tensor(
        [row[(count - 2) // 2] ** 2 / math.log(count - 1 if count > 2 else 2) for row in rows],
        dtype=torch.float64,
    )


def pair_forces(points: Tensor, normalised: bool = False) -> Tensor:
    """sum_j r_ij, by hand."""
    gamma = pair_bandwidths(points)
    force = torch.zeros_like(points)
    for i in range(len(points)):
        density = torch.ones(())
        for j in range(len(points)):
            if i != j:
                delta = points[i] - points[j]
                k = torch.exp(-delta.square().sum() / gamma[i])
                density = density + k
                force[i] += 2 / gamma[i] * k * delta
        if normalised:
            force[i] /= density
    return force


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_pg_on_latents_is_the_formula_of_the_authors(count: int) -> None:
    state = state_at(count=count)
    guidance = ParticleGuidance(strength=30).guidance(state)
    assert guidance is not None
    for group in range(2):
        expected = 30 * math.sqrt(1 + SIGMA**2) * pair_forces(state.particles[group])
        assert torch.allclose(guidance[group], expected, rtol=1e-6, atol=1e-12)


def test_pg_on_features_is_the_formula_of_the_authors() -> None:
    state = state_at(features=True)
    guidance = ParticleGuidance(strength=8, kernel="features", scale="fixed").guidance(state)
    assert guidance is not None
    assert state.features is not None
    for group in range(2):
        leaf = state.denoised[group].clone().requires_grad_()
        values = state.features.differentiable(leaf)
        (pulled,) = torch.autograd.grad(values, leaf, pair_forces(values.detach()))
        sigma = SIGMA / math.sqrt(1 + SIGMA**2)
        assert torch.allclose(guidance[group], 8 / sigma * pulled, rtol=1e-6, atol=1e-12)


def test_repulsion_is_normalised_by_density() -> None:
    state = state_at()
    guidance = Repulsion(strength=3).guidance(state)
    assert guidance is not None
    assert torch.allclose(
        guidance[0], 3 * pair_forces(state.particles[0], normalised=True), rtol=1e-6, atol=1e-12
    )


def test_first_order_methods_pull_back_once_per_particle() -> None:
    for count in (4, 16):
        state = state_at(count=count, features=True, groups=1)
        ParticleGuidance(kernel="features").guidance(state)
        cost = state.features.cost  # type: ignore[union-attr]
        assert (cost.feature_forwards, cost.feature_backwards) == (count, count)


def test_hutchinson_costs_the_stated_forward_and_backward_passes() -> None:
    state = replace(state_at(count=4, features=True, groups=1), share=0.0)
    EddyHutch(probes=5).guidance(state)
    cost = state.features.cost  # type: ignore[union-attr]
    pairs = 4 * 3
    assert cost.feature_backwards == 4 + 2 * pairs
    assert cost.feature_forwards == 4 + 2 * 5 * 4 + 4 + 2 * 4 + 2 * pairs


def test_guidance_fades_out_at_the_ends_of_its_window() -> None:
    pg = ParticleGuidance()
    assert pg.guidance(state_at(0.9)) is None
    faded, full = pg.gate(state_at(1.125)), pg.gate(state_at(1.3))
    assert 0.4 < faded < 0.6
    assert full == 1
    hutch = EddyHutch()
    inside = [
        replace(state_at(features=True), share=share, steps=20) for share in (0.0, 0.05, 0.1, 0.15)
    ]
    assert [hutch.gate(state) for state in inside] == pytest.approx([1, 1, 1, 0.5]), (
        "the end is faded over two steps"
    )
    assert hutch.guidance(replace(inside[0], share=0.2)) is None
    assert parse_window("2..5").weight(state_at(4.0)) == 1
    assert parse_window("2..5").weight(state_at(6.0)) == 0
    for text in ("", "3", "5..2", "a..b", "0%..2", "0%..200%", "-1..2"):
        with pytest.raises(ParameterError):
            parse_window(text)


def test_the_kernel_falls_back_to_latents_only_when_it_was_not_asked_for() -> None:
    state = replace(state_at(), share=0.0)
    assert EddyHutch().resolved_kernel(False) == "latent"
    assert EddyHutch().resolved_kernel(True) == "features"
    assert EddyHutch().guidance(state) is not None
    with pytest.raises(ParameterError, match="no guide network"):
        EddyHutch(kernel="features").guidance(state)


def test_the_bandwidth_is_the_lower_median_of_each_row_unless_it_is_set() -> None:
    assert float(lower_median(torch.tensor([4.0, 1, 3, 2]))) == 2
    square = squared_distances(draw(1, 4, 3))
    assert torch.allclose(
        row_median_bandwidth(square)[0, :, 0], pair_bandwidths(draw(1, 4, 3)[0]), rtol=1e-9
    )
    state = state_at()
    narrow, wide = (ParticleGuidance(bandwidth=h).guidance(state) for h in (0.5, 5.0))
    assert narrow is not None
    assert wide is not None
    assert not torch.allclose(narrow, wide)


ALL = [load_method(name) for name in METHODS]


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.name)
def test_every_method_keeps_the_contract(cls: type[Method]) -> None:
    assert cls.name in METHODS
    assert cls.summary
    for features in (False, True):
        state = replace(state_at(features=features), share=0.0, step=0, steps=10)
        if cls.interacts:
            alone = cls().guidance(state_at(count=1))
            assert alone is None or not alone.any(), "N = 1 is iid"
        guidance = cls().guidance(state)
        if "guidance" not in cls.hooks:
            assert guidance is None
        if "guidance" not in cls.hooks or not issubclass(cls, KernelMethod):
            continue
        one, none, two = (
            cls(strength=strength, scale="fixed").guidance  # type: ignore[call-arg]
            for strength in (1, 0, 2)
        )
        guidance = one(replace(state, generators=generators(2)))
        assert guidance is not None
        assert guidance.shape == state.particles.shape
        assert torch.isfinite(guidance).all()
        again = one(replace(state, generators=generators(2)))
        assert torch.equal(guidance, again)
        zero = none(replace(state, generators=generators(2)))
        assert zero is not None
        assert (zero == 0).all(), "the whole guidance is computed, and is zero"
        double = two(replace(state, generators=generators(2)))
        assert torch.allclose(double, 2 * guidance, rtol=1e-6)


@pytest.mark.parametrize(
    "cls", [ParticleGuidance, Repulsion, EddyExact, EddyFd, EddyHutch], ids=lambda cls: cls.name
)
@pytest.mark.parametrize("kernel", ["latent", "denoised", "features"])
def test_guidance_permutes_with_particles_and_ignores_other_prompts(
    cls: type[KernelMethod], kernel: str
) -> None:
    state = replace(state_at(features=True), share=0.0)
    order = torch.tensor([4, 2, 0, 1, 3])
    method = cls(kernel=kernel)  # type: ignore[arg-type]
    first = method.guidance(state)
    shuffled = replace(
        state,
        particles=state.particles[:, order],
        score=state.score[:, order],
        denoised=state.denoised[:, order],
        generators=generators(2),
    )
    permuted = method.guidance(shuffled)
    assert first is not None
    assert permuted is not None
    assert torch.allclose(permuted, first[:, order], rtol=1e-6, atol=1e-10)
    alone = replace(
        state,
        particles=state.particles[1:],
        score=state.score[1:],
        denoised=state.denoised[1:],
        generators=generators(2)[1:],
    )
    single = method.guidance(alone)
    assert single is not None
    assert torch.allclose(single[0], first[1], rtol=1e-6, atol=1e-10)


def test_guidance_of_identical_particles_is_finite() -> None:
    x = torch.zeros(1, 4, 6, dtype=torch.float64)
    state = replace(
        Mixture.random(6).state(x, SIGMA, features=network_features(6)),
        generators=generators(1),
        share=0.0,
    )
    for cls in (ParticleGuidance, Repulsion, EddyExact, EddyFd, EddyHutch):
        for kernel in ("latent", "denoised", "features"):
            guidance = cls(kernel=kernel).guidance(replace(state, generators=generators(1)))
            assert guidance is not None
            assert torch.isfinite(guidance).all(), (cls, kernel)


def test_parameters_are_checked_in_python_too() -> None:
    with pytest.raises(ParameterError, match="probes"):
        EddyHutch(probes=0)
    with pytest.raises(ParameterError, match="kernel"):
        ParticleGuidance(kernel="pixels")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="v_source"):
        EddyExact(v_source="other")  # type: ignore[arg-type]
    assert Iid().parameters() == {}
    assert "iid" in method_names()


def test_the_default_strength_is_the_one_tuned_for_the_kernel() -> None:
    for cls in (ParticleGuidance, Repulsion, EddyExact, EddyFd, EddyHutch):
        for features in (False, True):
            method = cls()
            kernel = method.resolved_kernel(features)
            spelled = method.resolved(features)
            tuned = cls.shares if method.resolved_scale(kernel) == "relative" else cls.strengths
            assert (spelled.kernel, spelled.strength) == (kernel, tuned[kernel])
            state = replace(state_at(features=features), share=0.0, step=0, steps=10)
            first = method.guidance(state)
            second = spelled.guidance(replace(state, generators=generators(2)))
            assert first is not None
            assert second is not None
            assert torch.equal(first, second)
