"""Differentiable maps from particles to features, on which kernels are evaluated.

A map takes points (..., d) and offers values and pull-backs; both count their cost. The identity
and the unit vector are maps too, so the methods are written once for kernels on latents, on
denoised estimates and on a network's features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

GroupForce = Callable[[Tensor], Tensor]  # (g, N, F) features to (g, N, F) cotangents
# (features of some rows, their indices) to cotangents
Cotangent = Callable[[Tensor, Tensor], Tensor]


class FeatureMap(Protocol):
    """A differentiable map phi from points to the features of kernels."""

    @property
    def chunk(self) -> int:
        """Rows that go through at once with a graph."""

    def values(self, points: Tensor) -> Tensor:
        """Return phi at (rows, d) points, (rows, features), without a graph."""

    def pull(self, points: Tensor, cotangent: Cotangent) -> Tensor:
        """Return J(points)^T c, (rows, d), with c from the features of each chunk."""

    def pull_groups(self, points: Tensor, force: GroupForce) -> Tensor:
        """Return J^T f, (G, N, d), with f from the features of whole groups."""

    def differentiable(self, points: Tensor) -> Tensor:
        """Return phi with a graph, for exact derivatives; in one piece."""


class Identity:
    """phi(y) = y: kernels on the particles themselves, at no cost."""

    chunk = 2**31

    def values(self, points: Tensor) -> Tensor:
        """Return the points."""
        return points

    def pull(self, points: Tensor, cotangent: Cotangent) -> Tensor:
        """Return the cotangents."""
        return cotangent(points, torch.arange(len(points), device=points.device))

    def pull_groups(self, points: Tensor, force: GroupForce) -> Tensor:
        """Return the force itself."""
        return force(points)

    def differentiable(self, points: Tensor) -> Tensor:
        """Return the points."""
        return points


class UnitVectors:
    """phi(y) = y / |y|: kernels on directions, at no cost.

    J^T f = (f - <f, phi> phi) / |y|: what lies along a particle changes its length alone.
    """

    chunk = Identity.chunk

    def values(self, points: Tensor) -> Tensor:
        """Return the directions."""
        return torch.nn.functional.normalize(points, dim=-1)

    def pull(self, points: Tensor, cotangent: Cotangent) -> Tensor:
        """Return the cotangents' parts across the points."""
        index = torch.arange(len(points), device=points.device)
        return self._across(points, cotangent(self.values(points), index))

    def pull_groups(self, points: Tensor, force: GroupForce) -> Tensor:
        """Return the force's parts across the points."""
        return self._across(points, force(self.values(points)))

    def differentiable(self, points: Tensor) -> Tensor:
        """Return the directions."""
        return self.values(points)

    def _across(self, points: Tensor, force: Tensor) -> Tensor:
        unit, length = self.values(points), points.norm(dim=-1, keepdim=True)
        across = force - (force * unit).sum(-1, keepdim=True) * unit
        pulled: Tensor = across / length.clamp_min(1e-12)
        return pulled
