"""EDDY's invariants (arXiv 2605.06553), in float64 on exact mixtures."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from eddy_bench import EddyExact, EddyFd, EddyHutch, State
from eddy_bench.errors import ParameterError
from eddy_bench.kernels import (
    eddy_field,
    noise_bandwidth,
    rbf,
    repulsive_force,
    row_median_bandwidth,
    squared_distances,
)
from eddy_bench.methods.eddy import Pairs
from eddy_bench.models.network_features import NetworkFeatures
from eddy_bench.sampling.feature_maps import Identity
from tests.makers.feature_maps import network_features
from tests.makers.mixtures import Mixture, draw, generators

SIGMA = 0.7


def divergence(
    method: EddyExact, mixture: Mixture, x: Tensor, score_scale: float = 1.0
) -> tuple[float, float]:
    """div_1 (p psi_1) / p = div psi_1 + <s_1, psi_1> by automatic differentiation, and the size of
    its terms.
    """

    def field(first: Tensor) -> Tensor:
        particles = torch.cat([first[None], x[1:]])[None]
        state = mixture.state(particles, SIGMA)
        guided = method.guidance(replace(state, score=state.score * score_scale))
        assert guided is not None
        return guided[0, 0]

    jacobian = torch.autograd.functional.jacobian(field, x[0])
    terms = [jacobian.diagonal(), mixture.score(x[0], SIGMA) * field(x[0])]
    return float(sum(term.sum() for term in terms)), float(sum(term.abs().sum() for term in terms))


@pytest.mark.parametrize("dimension", [2, 5, 16])
@pytest.mark.parametrize("count", [2, 4])
def test_field_is_divergence_free(dimension: int, count: int) -> None:
    for seed in range(3):
        mixture, x = Mixture.random(dimension, seed=seed), draw(1, count, dimension, seed)[0]
        residual, size = divergence(EddyExact(), mixture, x)
        assert abs(residual) < 1e-8 * size
        assert size > 1e-6


@pytest.mark.parametrize(
    ("method", "score_scale"),
    [(EddyExact(div_sign="published"), 1.0), (EddyExact(v_source="self"), 1.0), (EddyExact(), 1.5)],
    ids=["published sign", "own velocity", "rescaled score"],
)
def test_another_sign_velocity_or_score_breaks_the_divergence(
    method: EddyExact, score_scale: float
) -> None:
    mixture, x = Mixture.random(5), draw(1, 4, 5)[0]
    residual, size = divergence(method, mixture, x, score_scale)
    assert abs(residual) > 1e-3 * size


def test_a_bandwidth_that_depends_on_the_particle_breaks_the_divergence() -> None:
    mixture, x = Mixture.random(5), draw(1, 4, 5)[0]

    def field(first: Tensor) -> Tensor:
        particles = torch.cat([first[None], x[1:]])[None]
        score = mixture.score(particles, SIGMA)
        return eddy_field(
            particles, score, SIGMA * score, row_median_bandwidth(squared_distances(particles))
        )[0, 0]

    jacobian = torch.autograd.functional.jacobian(field, x[0])
    residual = jacobian.trace() + mixture.score(x[0], SIGMA) @ field(x[0])
    assert abs(residual) > 1e-3 * (jacobian.diagonal().abs().sum())


def test_the_published_sign_leaves_a_residual_on_a_standard_normal() -> None:
    """The derived sign is exact where the printed one leaves a residual of order 1."""
    for dimension in (2, 5):
        normal = Mixture(
            torch.zeros(1, dimension).double(),
            torch.tensor([1 - SIGMA**2]).double(),
            torch.ones(1).double(),
        )
        x = draw(1, 2, dimension)[0]
        derived, size = divergence(EddyExact(), normal, x)
        published, _ = divergence(EddyExact(div_sign="published"), normal, x)
        assert abs(derived) < 1e-10 * max(size, 1)
        assert abs(published) > 1e-2 * size


def slow_field(state: State, gamma: float, own: bool = False, sign: float = 1.0) -> Tensor:
    """psi straight from its definition, with autograd's gradient and Hessian of the kernel."""
    x, s, v = state.particles[0], state.score[0], -state.eps[0]
    psi = torch.zeros_like(x)
    for i in range(len(x)):
        for j in range(len(x)):
            if i == j:
                continue

            def kernel(point: Tensor, j: int = j) -> Tensor:
                return torch.exp(-(point - x[j]).square().sum() / gamma)

            r, hessian = -torch.func.grad(kernel)(x[i]), torch.func.hessian(kernel)(x[i])
            vj = v[i] if own else v[j]
            a = torch.outer(r, vj) - torch.outer(vj, r)
            psi[i] += a @ s[i] + sign * (hessian.trace() * vj - hessian @ vj)
    return psi / (len(x) - 1)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_closed_form_is_the_definition(own: bool, sign: float) -> None:
    state = Mixture.random(5).state(draw(1, 4, 5), SIGMA)
    expected = slow_field(state, 3.0, own, sign)
    field = eddy_field(
        state.particles, state.score, -state.eps, 3.0, own_velocity=own, divergence=sign
    )[0]
    assert torch.allclose(field, expected, rtol=1e-10, atol=1e-12)


def feature_state(dimension: int = 6, count: int = 4, groups: int = 2, seed: int = 0) -> State:
    """A state inside the window of the feature kernels."""
    return Mixture.random(dimension).state(
        draw(groups, count, dimension),
        SIGMA,
        features=network_features(dimension),
        generators=generators(groups, seed),
    )


def guided(method: EddyExact | EddyFd | EddyHutch, state: State) -> Tensor:
    guidance = method.guidance(state)
    assert guidance is not None
    return guidance


@pytest.mark.parametrize("kernel", ["latent", "denoised", "features"])
@pytest.mark.parametrize("v_source", ["others", "self"])
def test_finite_differences_converge_at_second_order(kernel: str, v_source: str) -> None:
    state = feature_state()
    exact = guided(EddyExact(kernel=kernel, v_source=v_source, scale="fixed"), state)
    errors = [
        float(
            (
                guided(
                    EddyFd(kernel=kernel, v_source=v_source, difference_step=step, scale="fixed"),
                    state,
                )
                - exact
            ).norm()
            / exact.norm()
        )
        for step in (0.02, 0.01, 0.005)
    ]
    assert errors[2] < 1e-2
    for coarse, fine in pairwise(errors):
        assert 3.5 < coarse / fine < 4.5


def test_a_random_subset_of_coordinates_is_unbiased() -> None:
    state = feature_state(groups=1)
    full = guided(EddyFd(difference_step=0.02, scale="fixed"), state)
    draws = torch.stack(
        [
            guided(
                EddyFd(difference_step=0.02, max_coordinates=2, scale="fixed"),
                replace(state, generators=generators(1, k)),
            )
            for k in range(400)
        ]
    )
    error = draws.std(0) / 20
    assert ((draws.mean(0) - full).abs() <= 4.5 * error + 1e-9).all()
    assert error.max() > 1e-4 * full.abs().max()


class LargestIntegers(TorchDispatchMode):
    """Sees the bytes of the largest tensor of whole numbers that is made."""

    most = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = operation(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.dtype == torch.int64:
            self.most = max(self.most, made.nbytes)
        return made


def test_coordinates_are_no_large_tensor_of_whole_numbers() -> None:
    """Of 256 coordinates at FLUX's size it was 537 MB a group and step, on the CPU."""
    points = torch.randn(1, 3, 1000, generator=torch.Generator().manual_seed(1)).double()
    state = State(points, -points, points, 1.0, generators=generators(1, 0))
    with LargestIntegers() as seen:
        EddyFd(max_coordinates=64, kernel="latent").guidance(state)
    assert 0 < seen.most <= 8 * 1000, "a permutation of the coordinates"


@pytest.mark.parametrize("kernel", ["latent", "features"])
def test_hutchinson_is_unbiased_up_to_its_step(kernel: str) -> None:
    state = feature_state(groups=1)
    exact = guided(EddyExact(kernel=kernel, scale="fixed"), state)
    step = 0.02
    draws = torch.stack(
        [
            guided(
                EddyHutch(kernel=kernel, probes=4, difference_step=step, scale="fixed"),
                replace(state, generators=generators(1, k)),
            )
            for k in range(400)
        ]
    )
    bias = float(
        (
            guided(EddyFd(kernel=kernel, difference_step=step * math.sqrt(6), scale="fixed"), state)
            - exact
        )
        .abs()
        .max()
    )
    assert ((draws.mean(0) - exact).abs() <= 4.5 * draws.std(0) / 20 + 6 * bias).all()


def test_hutchinson_variance_falls_as_one_over_probes() -> None:
    state = feature_state(groups=1)

    def variance(probes: int) -> float:
        draws = [
            guided(
                EddyHutch(probes=probes, scale="fixed"), replace(state, generators=generators(1, k))
            )
            for k in range(300)
        ]
        return float(torch.stack(draws).var(0).sum())

    ratio = variance(2) / variance(16)
    assert 8 * 0.7 < ratio < 8 * 1.4


def test_hutchinson_is_exact_in_one_dimension() -> None:
    state = feature_state(dimension=1, groups=1)
    first, second = (
        guided(EddyHutch(probes=1), replace(state, generators=generators(1, k))) for k in (0, 1)
    )
    assert torch.allclose(first, second, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "method",
    [EddyExact(kernel="features"), EddyFd(max_coordinates=3), EddyHutch(probes=5)],
    ids=lambda m: m.title(),
)
def test_permuting_particles_permutes_the_guidance(method: EddyExact) -> None:
    state = feature_state()
    order = torch.tensor([2, 0, 3, 1])
    permuted = replace(
        state,
        particles=state.particles[:, order],
        score=state.score[:, order],
        denoised=state.denoised[:, order],
        generators=generators(2),
    )
    first = guided(method, state)
    assert torch.allclose(guided(method, permuted), first[:, order], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    "method",
    [EddyExact(), EddyExact(kernel="features"), EddyFd(max_coordinates=3), EddyHutch(probes=5)],
    ids=lambda m: m.kernel + m.title(),
)
def test_prompts_never_see_each_other(method: EddyExact) -> None:
    together = guided(method, feature_state())
    whole = feature_state()
    for group in range(2):
        alone = replace(
            whole,
            particles=whole.particles[group, None],
            score=whole.score[group, None],
            denoised=whole.denoised[group, None],
            generators=(generators(2)[group],),
        )
        assert torch.allclose(guided(method, alone)[0], together[group], rtol=1e-9, atol=1e-12)


def test_exact_features_refuse_many_dimensions() -> None:
    state = Mixture.random(4097).state(draw(1, 2, 4097), SIGMA, features=network_features(4097))
    with pytest.raises(ParameterError, match="eddy-hutch"):
        EddyExact(kernel="features").guidance(state)


def test_the_bandwidth_keeps_the_kernel_alive_in_high_dimension() -> None:
    """h^2 = 2 d / log N puts k near 1 / N between pure-noise particles at any dimension; a fixed h
    silently gives k = 0.
    """
    for dimension in (64, 4096):
        x = torch.randn(1, 8, dimension, generator=torch.Generator().manual_seed(0)) * 5
        square = squared_distances(x)[0][~torch.eye(8, dtype=torch.bool)]
        assert 0.5 < float(rbf(square, (noise_bandwidth(dimension, 8) * 5) ** 2).mean()) * 8 < 2
        assert float(rbf(square, 25.0).max()) < 1e-20


def test_repulsive_force_is_the_gradient_of_its_potential() -> None:
    x = draw(2, 5, 3).requires_grad_()
    potential = -0.5 * torch.exp(-squared_distances(x) / 1.7).sum()
    (gradient,) = torch.autograd.grad(potential, x)
    assert torch.allclose(repulsive_force(x.detach(), 1.7), gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("v_source", ["others", "self"])
@pytest.mark.parametrize("kernel", ["latent", "denoised"])
@pytest.mark.parametrize("form", [EddyFd, EddyHutch])
def test_the_shortcut_through_the_identity_changes_nothing(
    form: type[EddyFd | EddyHutch], kernel: str, v_source: str
) -> None:
    """Differences through the identity are matrix products; the same field by shifted points
    through a map that does nothing.
    """
    mixture = Mixture.random(5)
    state = mixture.state(draw(3, 4, 5), SIGMA, generators=generators(3))
    method = form(kernel=kernel, window="0..", v_source=v_source, strength=1)
    short = method.guidance(state)
    slow_map = NetworkFeatures(lambda latents: latents, lambda images: images, (5,))
    slow = replace(method, kernel="features", bandwidth=1.0).guidance(
        replace(state, features=slow_map, generators=generators(3))
    )
    shortcut = replace(method, kernel="denoised", bandwidth=1.0).guidance(
        replace(state, generators=generators(3))
    )
    assert short is not None
    assert torch.isfinite(short).all()
    torch.testing.assert_close(shortcut, slow, rtol=1e-7, atol=1e-12)


def test_shifted_kernels_are_the_same_by_products_and_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Products of exponentials are left where one of them would overflow."""
    generator = torch.Generator().manual_seed(0)
    points, score, velocity = torch.randn(3, 5, 4, 3, generator=generator, dtype=torch.float64)
    directions = torch.randn(6, 5, 3, generator=generator, dtype=torch.float64)
    gamma = torch.rand(5, 1, 1, generator=generator, dtype=torch.float64) + 0.5

    def laplacian(scale: float) -> torch.Tensor:
        x = scale * points
        square = squared_distances(x)
        pairs = Pairs(x, Identity(), x, square, gamma, score, velocity)
        return pairs.laplacian(directions, 0.05)

    by_products = laplacian(1.0)
    assert torch.isfinite(laplacian(1e7)).all()
    monkeypatch.setattr("eddy_bench.methods.eddy.LARGEST_EXPONENT", 0.0)
    assert torch.allclose(laplacian(1.0), by_products, rtol=1e-9, atol=1e-9)
    assert by_products.abs().max() > 0.1


@pytest.mark.parametrize("method", [EddyFd(max_coordinates=64), EddyHutch()], ids=lambda m: m.name)
def test_features_in_float32_give_the_laplacian_of_float64(method: EddyFd | EddyHutch) -> None:
    """Their differences stand out from rounding, so that images carry over to another device."""
    x = draw(2, 4, 256)
    mixture = Mixture.random(256)
    taken: list[Tensor] = []

    class Kept(Pairs):
        def laplacian(self, directions: Tensor, step: float | Tensor) -> Tensor:
            taken.append(super().laplacian(directions, step))
            return taken[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eddy_bench.methods.eddy.Pairs", Kept)
        patch.setattr("eddy_bench.methods.eddy.COORDINATE_STEPS", {})  # as far in both
        for dtype in (torch.float64, torch.float32):
            features = network_features(256)
            features.network.to(dtype)
            state = mixture.state(x, SIGMA)
            state = replace(
                state,
                particles=state.particles.to(dtype),
                score=state.score.to(dtype),
                denoised=state.denoised.to(dtype),
                features=features,
                generators=generators(2),
                steps=10,
            )
            method.guidance(state)
    exact, rounded = taken
    assert float((rounded - exact).norm() / exact.norm()) < 1e-4
