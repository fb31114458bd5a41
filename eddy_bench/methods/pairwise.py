"""Derivatives of a radial kernel between all pairs of a group, by differences.

They go through any feature map. Costs are in rows through the map, per step and group of N
particles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from eddy_bench.kernels import force_weights, rbf, squared_distances, weighted_differences
from eddy_bench.sampling.feature_maps import FeatureMap, Identity

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
        divergence = self.on_velocity(laplacian.to(self.velocity.dtype)) - self.hessian_part(step)
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
        return _without_diagonal(total) / step**2

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
            moved = moved.double().unflatten(0, (-1, count))
            square = squared_distances(moved, self.values.double().repeat(len(shift), 1, 1))
            yield rbf(square.unflatten(0, (-1, groups)), self.gamma).sum(0)

    def antisymmetric_part(self, step: float | Tensor) -> Tensor:
        """Return sum_j A_ij s_i = sum_j r_ij <v_ij, s_i> - v_ij <r_ij, s_i>, (G, N, d).

        It takes a pull-back and a directional derivative (two forward rows) per particle.
        """
        weights = force_weights(self.square, self.gamma).to(self.values.dtype)
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
        for shifts in torch.arange(1, count).split(at_once):
            i = torch.arange(count).repeat(len(shifts))
            j = (i + shifts.repeat_interleave(count)) % count
            products = self._hessian_products(i.to(total.device), j.to(total.device), step)
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
