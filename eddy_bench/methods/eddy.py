"""EDDY (arXiv 2605.06553): a drift made of antisymmetric pairwise matrices.

It is divergence-free against each particle's density.
psi_i = 1/(N-1) sum_{j != i} [ A_ij s_i + div_i A_ij ],  A_ij = r_ij v_j^T - v_j r_ij^T,
r_ij = -grad_i k_ij,  div_i A_ij = (lap k_ij) v_j - (hess k_ij) v_j,  v_j = -eps_j,
g_i = w(sigma) psi_i,  w = strength sigma / sqrt(1 + sigma^2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from eddy_bench.errors import ParameterError
from eddy_bench.kernels import (
    eddy_field,
    group_median_bandwidth,
    noise_bandwidth,
    rbf,
    squared_distances,
)
from eddy_bench.methods.base import Count, Positive
from eddy_bench.methods.forces import kernel_points
from eddy_bench.methods.guiding_method import GuidingMethod
from eddy_bench.methods.pairwise import Pairs
from eddy_bench.sampling.feature_maps import Identity
from eddy_bench.sampling.state import State

EXACT_LIMIT = 4096
# A single coordinate moves further than a direction: it changes the kernel less, and float32 would
# drown it.
COORDINATE_STEP = 4.0


@dataclass(frozen=True)
class Eddy(GuidingMethod):
    """The part that the three forms share.

    Args:
        v_source: `others` takes v_j, which does not depend on x_i (the theorem); `self` takes v_i,
            as in the authors' demo.
        div_sign: `derived`, or `published` (Eqs. 9-10 of version 1 print the opposite sign of the
            divergence term).

    """

    v_source: Literal["others", "self"] = "others"
    div_sign: Literal["derived", "published"] = "derived"

    citation: ClassVar[str] = "arXiv 2605.06553"
    windows: ClassVar[dict[str, str]] = {
        "latent": "0..",
        "denoised": "0%..20%",
        "features": "0%..20%",
    }
    # From benchmarks/embedded/tuning.csv and tuning_scale.csv.
    strengths: ClassVar[dict[str, float]] = {"latent": 20.0, "denoised": 0.1, "features": 0.1}
    shares: ClassVar[dict[str, float]] = {"denoised": 0.2, "features": 0.3}

    def acts(self, kernel: str, state: State) -> bool:
        """Return whether it acts: at alpha_t = 0 every denoised estimate is the data's mean."""
        return kernel == "latent" or not state.pure_noise

    def term(self, kernel: str, state: State, amount: float) -> Tensor:
        """Return w(sigma) psi, (G, N, d)."""
        weight = amount * state.sigma / (1 + state.sigma**2) ** 0.5
        guidance: Tensor = weight * self._psi(kernel, state).to(state.particles)
        return guidance

    def _psi(self, kernel: str, state: State) -> Tensor:
        points, features = kernel_points(kernel, state)
        velocity, own = -state.eps, self.v_source == "self"
        on_particles = isinstance(features, Identity)
        if on_particles and not self.closed_form:
            points = points.double()
        values = features.values(points.flatten(0, 1)).unflatten(0, points.shape[:2])
        square = squared_distances(values.double())
        gamma = self._gamma(kernel, state, square)
        if self.closed_form and on_particles:
            return eddy_field(
                points, state.score, velocity, gamma, own_velocity=own, divergence=self._sign
            )
        score, velocity = state.score.to(points), velocity.to(points)
        pairs = Pairs(points, features, values, square, gamma, score, velocity, own)
        scale: float | Tensor = (
            state.sigma if kernel == "latent" else points.square().mean((1, 2), keepdim=True).sqrt()
        )
        return self.field(pairs, state, scale)

    def _gamma(self, kernel: str, state: State, square: Tensor) -> Tensor | float:
        if kernel != "latent":
            return self.gamma(state, group_median_bandwidth(square))
        count, dimension = state.particles.shape[1:]
        return self.gamma(state, (noise_bandwidth(dimension, count) * state.sigma) ** 2)

    closed_form: ClassVar[bool] = False

    @property
    def _sign(self) -> float:
        return 1.0 if self.div_sign == "derived" else -1.0

    def field(self, pairs: Pairs, state: State, scale: float | Tensor) -> Tensor:
        """Return psi, (G, N, d), from derivatives of the kernel.

        Args:
            pairs: the kernel between all pairs.
            state: of the particles.
            scale: of the points, a number or (G, 1, 1).

        """
        raise NotImplementedError


@dataclass(frozen=True)
class EddyExact(Eddy):
    """EDDY with exact derivatives.

    The kernel on latents has a closed form, with gamma = (h sigma)^2 and h^2 = 2 d / log N unless
    `bandwidth` sets h; the others take automatic differentiation (d <= 4096).
    """

    name: ClassVar[str] = "eddy-exact"
    summary: ClassVar[str] = (
        "EDDY with exact derivatives; keeps each sample's law in the limit of fine steps"
    )
    cost: ClassVar[str] = "latent: O(N^2 d); features: d Hessian columns per pair, d <= 4096"
    closed_form: ClassVar[bool] = True

    def field(self, pairs: Pairs, state: State, scale: float | Tensor) -> Tensor:
        """Return psi by automatic differentiation."""
        dimension = pairs.points.shape[-1]
        if dimension > EXACT_LIMIT:
            raise ParameterError(
                f"eddy-exact without a closed form needs d <= {EXACT_LIMIT}, "
                f"this model has d = {dimension}. Use eddy-hutch, or kernel=latent."
            )
        groups, count, _ = pairs.points.shape
        gammas = torch.as_tensor(pairs.gamma, dtype=pairs.values.dtype).expand(groups, 1, 1)
        psi = torch.zeros_like(pairs.points)
        for group in range(groups):
            for i in range(count):
                gradient, hessian = _derivatives(
                    _kernel_of(pairs, group, gammas[group, 0, 0]), pairs.points[group, i]
                )
                for j in set(range(count)) - {i}:
                    v, s, r = (
                        pairs.velocity[group, i if pairs.own_velocity else j],
                        pairs.score[group, i],
                        -gradient[j],
                    )
                    curl = hessian[j].trace() * v - hessian[j] @ v
                    psi[group, i] += r * (v @ s) - v * (r @ s) + self._sign * curl
        return psi.detach() / (count - 1)


def _kernel_of(pairs: Pairs, group: int, gamma: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the function from a point (d,) to its kernel with every particle (N,)."""

    def kernel(point: Tensor) -> Tensor:
        # Fused attention has no second derivative.
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            value = pairs.features.differentiable(point[None])
        return rbf((value - pairs.values[group]).square().sum(-1), gamma)

    return kernel


def _derivatives(kernel: Callable[[Tensor], Tensor], point: Tensor) -> tuple[Tensor, Tensor]:
    """Return gradients (N, d) and Hessians (N, d, d), forward over reverse, by blocks."""
    slope = torch.func.jacrev(kernel)

    def column(tangent: Tensor) -> Tensor:
        return torch.func.jvp(slope, (point,), (tangent,))[1]  # type: ignore[no-any-return]

    basis = torch.eye(len(point), dtype=point.dtype, device=point.device)
    return slope(point), torch.cat(
        [torch.func.vmap(column)(part) for part in basis.split(64)]
    ).movedim(0, -1)


@dataclass(frozen=True)
class EddyFd(Eddy):
    """EDDY with every second derivative by central differences.

    Args:
        difference_step: relative to the scale of the latents (root mean square per coordinate);
            single coordinates move 4 times as far.
        max_coordinates: the Laplacian sums over all coordinates when d is at most this, else over a
            random subset of this size, rescaled so that it stays unbiased.

    """

    difference_step: Positive = 0.05
    max_coordinates: Count = 256

    name: ClassVar[str] = "eddy-fd"
    summary: ClassVar[str] = "EDDY by finite differences over coordinates"
    cost: ClassVar[str] = (
        "features: 2 min(d, max_coordinates) N forward, N (2 N - 1) backward per step"
    )
    preferred_kernel: ClassVar[str] = "features"

    def field(self, pairs: Pairs, state: State, scale: float | Tensor) -> Tensor:
        """Return psi by differences."""
        groups, _, dimension = pairs.points.shape
        step = self.difference_step * scale
        chosen = min(dimension, self.max_coordinates)
        if chosen == dimension:
            coordinates = torch.arange(dimension).expand(groups, -1)
        else:
            coordinates = torch.stack(
                [torch.randperm(dimension, generator=g)[:chosen] for g in state.generators]
            )
        directions = torch.nn.functional.one_hot(coordinates.T, dimension).to(pairs.points)
        laplacian = pairs.laplacian(directions, COORDINATE_STEP * step) * (dimension / chosen)
        return pairs.stein_field(laplacian, step, self._sign)


@dataclass(frozen=True)
class EddyHutch(Eddy):
    """EDDY with Hutchinson's estimate of the Laplacian.

    The estimate is the mean over Rademacher probes of z^T hess k z. Second differences of the
    scalar kernel give the probe values of all pairs from two forward passes per particle and probe,
    with a bias of O(difference_step^2).

    Args:
        probes: m; the paper uses 25. On the embedded model 5 gain as much.
        difference_step: relative to the scale of the latents (root mean square per coordinate).

    """

    probes: Count = 5
    difference_step: Positive = 0.05

    name: ClassVar[str] = "eddy-hutch"
    summary: ClassVar[str] = "EDDY with Hutchinson's Laplacian, forward passes only"
    cost: ClassVar[str] = "features: 2 m N forward, N (2 N - 1) backward per step"
    preferred_kernel: ClassVar[str] = "features"

    def field(self, pairs: Pairs, state: State, scale: float | Tensor) -> Tensor:
        """Return psi from probes."""
        dimension = pairs.points.shape[-1]
        bits = torch.stack(
            [torch.randint(0, 2, (self.probes, dimension), generator=g) for g in state.generators],
            1,
        )
        step = self.difference_step * scale
        directions = (bits * 2 - 1).to(pairs.points)  # (P, G, d)
        laplacian = pairs.laplacian(directions, step) / self.probes
        return pairs.stein_field(laplacian, step, self._sign)
