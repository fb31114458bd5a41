"""EDDY (arXiv 2605.06553): a drift made of antisymmetric pairwise matrices.

It is divergence-free against each particle's density.
psi_i = 1/(N-1) sum_{j != i} [ A_ij s_i + div_i A_ij ],  A_ij = r_ij v_j^T - v_j r_ij^T,
r_ij = -grad_i k_ij,  div_i A_ij = (lap k_ij) v_j - (hess k_ij) v_j,  v_j = -eps_j,
g_i = w(sigma) psi_i,  w = strength sigma / sqrt(1 + sigma^2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from eddy_bench.errors import ParameterError
from eddy_bench.kernels import (
    eddy_field,
    exact,
    force_weights,
    group_median_bandwidth,
    near,
    noise_bandwidth,
    rbf,
    squared_distances,
    weighted_differences,
)
from eddy_bench.methods.base import Count, Positive
from eddy_bench.methods.guided import GuidingMethod, kernel_points
from eddy_bench.sampling.feature_maps import FeatureMap, Identity
from eddy_bench.sampling.state import State

EXACT_LIMIT = 4096
# A single coordinate moves further than a direction: it changes the kernel less, and rounding would
# drown it, that of features in float32 first.
COORDINATE_STEPS = {torch.float64: 4.0}
COORDINATE_STEP = 32.0


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

    citation = "arXiv 2605.06553"
    windows = {
        "latent": "0..",
        "denoised": "0%..20%",
        "features": "0%..20%",
    }
    # From benchmarks/embedded/tuning.csv and tuning_scale.csv.
    strengths = {"latent": 20.0, "denoised": 0.1, "features": 0.1}
    shares = {"denoised": 0.2, "features": 0.3}

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
        if on_particles:
            points = near(points) if self.closed_form else exact(points)
        values = features.values(points.flatten(0, 1)).unflatten(0, points.shape[:2])
        square = squared_distances(exact(values))
        gamma = self._gamma(kernel, state, square)
        if self.closed_form and on_particles:
            return eddy_field(
                points,
                near(state.score),
                near(velocity),
                gamma,
                own_velocity=own,
                divergence=self._sign,
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

    closed_form = False

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

    name = "eddy-exact"
    summary = "EDDY with exact derivatives; marginal-preserving in the limit of fine steps"
    cost = "latent: O(N^2 d); features: d Hessian columns per pair, d <= 4096"
    closed_form = True

    def field(self, pairs: Pairs, state: State, scale: float | Tensor) -> Tensor:
        """Return psi by automatic differentiation."""
        dimension = pairs.points.shape[-1]
        if dimension > EXACT_LIMIT:
            raise ParameterError(
                f"eddy-exact without a closed form needs d <= {EXACT_LIMIT}, "
                f"this model has d = {dimension}. Use eddy-hutch, or kernel=latent."
            )
        groups, count, _ = pairs.points.shape
        gammas = torch.as_tensor(pairs.gamma).to(pairs.values).expand(groups, 1, 1)
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
            single coordinates move 32 times as far, in float64 4 times.
        max_coordinates: the Laplacian sums over all coordinates when d is at most this, else over a
            random subset of this size, rescaled so that it stays unbiased.
    """

    difference_step: Positive = 0.05
    max_coordinates: Count = 256

    name = "eddy-fd"
    summary = "EDDY by finite differences over coordinates"
    cost = "features: 2 min(d, max_coordinates) N forward, N (2 N - 1) backward per step"
    preferred_kernel = "features"

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
        index = coordinates.T[:, :, None].to(pairs.points.device)  # (chosen, G, 1)
        directions = pairs.points.new_zeros(chosen, groups, dimension).scatter_(2, index, 1.0)
        far = COORDINATE_STEPS.get(pairs.values.dtype, COORDINATE_STEP)
        laplacian = pairs.laplacian(directions, far * step) * (dimension / chosen)
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

    name = "eddy-hutch"
    summary = "EDDY with Hutchinson's Laplacian, forward passes only"
    cost = "features: 2 m N forward, N (2 N - 1) backward per step"
    preferred_kernel = "features"

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


CHUNK_ELEMENTS = 2**24  # shifted points held at once, so that many probes of large latents fit
# Pair values held at once where no network is in between: they stay in the processor's cache.
CACHED_ELEMENTS = 2**18
LARGEST_EXPONENT = 300.0  # so that a product of two exponentials stays within float64


@dataclass(frozen=True)
class Pairs:
    """The kernel between all pairs at one step.

    Attributes:
        points: (G, N, d).
        features: the map phi.
        values: phi(points), (G, N, F).
        square: |phi_i - phi_j|^2, (G, N, N), float64.
        gamma: one number, or (G, 1, 1).
        score: (G, N, d).
        velocity: (G, N, d).
        own_velocity: A_ij is made with v_i, not v_j.
    """

    points: Tensor
    features: FeatureMap
    values: Tensor
    square: Tensor
    gamma: Tensor | float
    score: Tensor
    velocity: Tensor
    own_velocity: bool = False

    def stein_field(self, laplacian: Tensor, step: float | Tensor, sign: float) -> Tensor:
        """Return psi_i = 1/(N-1) sum_j [A_ij s_i + sign div_i A_ij], (G, N, d).

        Args:
            laplacian: lap k_ij, (G, N, N).
            step: size of the differences, in the units of the points; a number or (G, 1, 1).
            sign: of the divergence term.
        """
        divergence = self.on_velocity(laplacian.to(self.velocity)) - self.hessian_part(step)
        return (self.antisymmetric_part(step) + sign * divergence) / (self.points.shape[1] - 1)

    def on_velocity(self, weights: Tensor) -> Tensor:
        """Return sum_j w_ij v_ij, (G, N, d)."""
        return (
            weights.sum(-1, keepdim=True) * self.velocity
            if self.own_velocity
            else weights @ self.velocity
        )

    def laplacian(self, directions: Tensor, step: float | Tensor) -> Tensor:
        """Return the Laplacian of the kernel for all pairs, (G, N, N), with a zero diagonal.

        It is the sum over directions z of [k(x + e z) - 2 k(x) + k(x - e z)] / e^2, in float64, and
        takes 2 P N forward rows and no backward pass; none of either through the identity.

        Args:
            directions: (P, G, d), the same for all particles of a group so that their order does
                not matter.
            step: e, in the units of the points; a number or (G, 1, 1).
        """
        shifted = (
            self._plain_shifted_kernels
            if isinstance(self.features, Identity)
            else self._shifted_kernels
        )
        total = -2 * len(directions) * rbf(self.square, self.gamma)
        for kernels in shifted(directions, step):
            total = total + kernels
        return _without_diagonal(total) / (near(step) if isinstance(step, Tensor) else step) ** 2

    def _plain_shifted_kernels(self, directions: Tensor, step: float | Tensor) -> Iterator[Tensor]:
        """Yield sums over directions of the kernels of shifted particles, through the identity.

        With a = 2 e <z, x> / gamma, k(x_i + e z, x_j) = k_ij exp(-e^2 |z|^2 / gamma - a_i + a_j):
        the sum over directions is a matrix product of 2 P N exponentials, not P N^2 of them.
        """
        groups, count, _ = self.points.shape
        gamma = torch.as_tensor(
            self.gamma, dtype=self.square.dtype, device=self.square.device
        ).reshape(-1, 1)  # (G, 1) or (1, 1)
        step = torch.as_tensor(step, dtype=gamma.dtype, device=gamma.device).reshape(-1, 1)
        centred = self.points - self.points.mean(1, keepdim=True)
        kernel = rbf(self.square, self.gamma)
        for part in directions.split(max(1, CACHED_ELEMENTS // (groups * count))):
            along = torch.einsum("pgd,gnd->gpn", part, centred).double()
            along = along * (2 * step / gamma)[..., None]
            fall = (step**2 / -gamma) * part.square().sum(-1).double().mT  # (G, p)
            if along.abs().max() > LARGEST_EXPONENT:
                ahead = _kernels_one_by_one(self.square, gamma, along, fall)
            else:
                ahead = kernel * ((fall[..., None] - along).exp().mT @ along.exp())
            yield ahead  # k at x_i + e z
            yield ahead.mT  # x_i - e z is to x_j what x_j + e z is to x_i

    def _shifted_kernels(self, directions: Tensor, step: float | Tensor) -> Iterator[Tensor]:
        """Yield sums over directions of the kernels of shifted particles, through a network."""
        groups, count, dimension = self.points.shape
        for part in directions.split(max(1, CHUNK_ELEMENTS // (2 * groups * count * dimension))):
            shift = step * torch.cat([part, -part])[:, :, None]  # (2 p, G, 1, d)
            moved = self.features.values((self.points + shift).flatten(0, 2))
            moved = exact(moved).unflatten(0, (-1, count))
            square = squared_distances(moved, exact(self.values).repeat(len(shift), 1, 1))
            yield rbf(square.unflatten(0, (-1, groups)), self.gamma).sum(0)

    def antisymmetric_part(self, step: float | Tensor) -> Tensor:
        """Return sum_j A_ij s_i = sum_j r_ij <v_ij, s_i> - v_ij <r_ij, s_i>, (G, N, d).

        It takes a pull-back and a directional derivative (two forward rows) per particle.
        """
        weights = force_weights(self.square, self.gamma).to(self.values)
        centred = self.values - self.values.mean(1, keepdim=True)
        push = (
            (self.velocity * self.score).sum(-1)[:, :, None]
            if self.own_velocity
            else self.score @ self.velocity.mT
        )
        force = weighted_differences(weights * push.to(weights.dtype), centred).flatten(0, 1)
        first = self.features.pull(
            self.points.flatten(0, 1), lambda _, rows: force[rows]
        ).reshape_as(self.points)
        toward = self.along(self.score, step)
        along = weights * (
            (centred * toward).sum(-1, keepdim=True) - toward @ centred.mT
        )  # <r_ij, s_i>
        return first - self.on_velocity(along.to(self.velocity.dtype))

    def along(self, vectors: Tensor, step: float | Tensor) -> Tensor:
        """Return J times vectors by a central difference, (G, N, F)."""
        if isinstance(self.features, Identity):
            return vectors
        length = _length(vectors)
        shift = step * vectors / length
        moved = self.features.values(
            torch.stack([self.points + shift, self.points - shift]).flatten(0, 2)
        )
        moved = moved.unflatten(0, (2, *self.points.shape[:2]))
        derivative: Tensor = (moved[0] - moved[1]) * (length / (2 * step))
        return derivative

    def hessian_part(self, step: float | Tensor) -> Tensor:
        """Return sum_j (hess k_ij) v_ij by central differences of the gradient, (G, N, d).

        It takes 2 N (N - 1) forward and backward rows, or none through the identity.
        """
        if isinstance(self.features, Identity):
            return self._plain_hessian_part(step)
        groups, count, _ = self.points.shape
        # Differences j - i, some at once, so that memory grows with N and not with its square.
        at_once = max(1, self.features.chunk // (2 * groups * count))
        total = torch.zeros_like(self.points)
        particles = torch.arange(count, device=total.device)
        for shifts in particles[1:].split(at_once):
            i = particles.repeat(len(shifts))
            j = (i + shifts.repeat_interleave(count)) % count
            products = self._hessian_products(i, j, step)
            total += products.unflatten(1, (len(shifts), count)).sum(1)
        return total

    def _hessian_products(self, i: Tensor, j: Tensor, step: float | Tensor) -> Tensor:
        """Return (hess k_ij) v_ij, (G, P, d), of pairs (i, j), (P,) each, through a network."""
        groups = len(self.points)
        vectors = self.velocity[:, i if self.own_velocity else j]
        length = _length(vectors)
        shift = step * vectors / length
        moved = torch.stack([self.points[:, i] + shift, self.points[:, i] - shift])  # (2, G, P, d)
        anchors = self.values[:, j].flatten(0, 1)
        gamma = torch.as_tensor(self.gamma, dtype=self.values.dtype, device=anchors.device).expand(
            groups, 1, 1
        )
        gamma = gamma.expand(-1, len(i), -1).flatten(0, 1)

        def gradient(features: Tensor, rows: Tensor) -> Tensor:
            rows = rows % len(anchors)
            difference = features - anchors[rows]
            return (
                -2
                / gamma[rows]
                * rbf(difference.square().sum(-1, keepdim=True), gamma[rows])
                * difference
            )

        pulled = self.features.pull(moved.flatten(0, 2), gradient).unflatten(0, (2, groups, -1))
        products: Tensor = (pulled[0] - pulled[1]) * (length / (2 * step))
        return products

    def _plain_hessian_part(self, step: float | Tensor) -> Tensor:
        """Return the same through the identity, as matrix products.

        The gradient is -(2 / gamma) k (delta + h v).
        """
        length = _length(self.velocity)
        h = (step / length)[..., 0]  # (G, N), of v_i or v_j
        centred = self.points - self.points.mean(1, keepdim=True)
        if self.own_velocity:
            along = (centred * self.velocity).sum(-1)[..., :, None] - self.velocity @ centred.mT
            h = h[..., :, None]
            reach = (self.velocity.square().sum(-1)[..., :, None] * h**2).double()
        else:
            along = (
                centred @ self.velocity.mT - (centred * self.velocity).sum(-1)[..., None, :]
            )  # <delta_ij, v_j>
            h = h[..., None, :]
            reach = (self.velocity.square().sum(-1)[..., None, :] * h**2).double()
        shift = 2 * (h * along).double()
        plus, minus = (
            _without_diagonal(rbf(self.square + reach + sign * shift, self.gamma))
            for sign in (1, -1)
        )
        scale = -1 / (self.gamma * h)
        on_delta = (scale * (plus - minus)).to(centred)
        return weighted_differences(on_delta, centred) + self.on_velocity(
            (scale * h * (plus + minus)).to(centred)
        )


def _kernels_one_by_one(square: Tensor, gamma: Tensor, along: Tensor, fall: Tensor) -> Tensor:
    """Return the same sum, (G, N, N), with one exponential per pair and direction.

    Shapes: (G, N, N), (G, 1), (G, P, N), (G, P).
    """
    total = torch.zeros_like(square)
    for number in range(along.shape[1]):
        a = along[:, number]
        exponent = fall[:, number, None, None] - a[:, :, None] + a[:, None, :]
        total += torch.exp(exponent - square / gamma[..., None])
    return total


def _without_diagonal(values: Tensor) -> Tensor:
    """Set the diagonal of (..., N, N) to zero."""
    return values * (1 - torch.eye(values.shape[-1], dtype=values.dtype, device=values.device))


def _length(vectors: Tensor) -> Tensor:
    """Return the root mean square per coordinate, never 0."""
    return vectors.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-12)
