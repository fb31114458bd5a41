"""Differentiable maps from particles to features, on which kernels are evaluated.

A map takes points (..., d) and offers values and pull-backs; both count their cost. The identity is
a map too, so the methods are written once for kernels on latents, on denoised estimates and on a
network's features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

GroupForce = Callable[[Tensor], Tensor]  # (g, N, F) features to (g, N, F) cotangents
# (features of some rows, their indices) to cotangents
Cotangent = Callable[[Tensor, Tensor], Tensor]


@dataclass
class FeatureCost:
    """Rows through the decoder, forward through the network, and backward through both."""

    decoder_calls: int = 0
    feature_forwards: int = 0
    feature_backwards: int = 0


class FeatureMap(Protocol):
    """A differentiable map phi from points to the features of kernels."""

    @property
    def chunk(self) -> int:
        """Rows that go through at once."""

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


@dataclass
class NetworkFeatures:
    """Features of the decoded denoised estimate.

    Args:
        decode: (rows, *shape) latents to (rows, c, h, w) images in [-1, 1].
        network: images to (rows, features).
        shape: of one particle.
        chunk: rows that go through at once; bounds the memory.

    """

    decode: Callable[[Tensor], Tensor]
    network: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]
    chunk: int = 64
    cost: FeatureCost = field(default_factory=FeatureCost)

    def differentiable(self, points: Tensor) -> Tensor:
        """Return features with a graph."""
        self.cost.decoder_calls += len(points)
        self.cost.feature_forwards += len(points)
        return self.network(self.decode(points.reshape(-1, *self.shape)))

    def values(self, points: Tensor) -> Tensor:
        """Return features without a graph, chunk by chunk."""
        with torch.no_grad():
            return torch.cat([self.differentiable(part) for part in points.split(self.chunk)])

    def pull(self, points: Tensor, cotangent: Cotangent) -> Tensor:
        """Pull back with one forward and one backward pass per row, chunk by chunk."""
        rows = torch.arange(len(points), device=points.device)
        pulled = []
        for part, indices in zip(points.split(self.chunk), rows.split(self.chunk), strict=True):
            with torch.enable_grad():
                leaf = part.detach().requires_grad_()
                features = self.differentiable(leaf)
                (gradient,) = torch.autograd.grad(
                    features, leaf, cotangent(features.detach(), indices).to(features.dtype)
                )
            self.cost.feature_backwards += len(part)
            pulled.append(gradient)
        return torch.cat(pulled)

    def pull_groups(self, points: Tensor, force: GroupForce) -> Tensor:
        """Pull back with one forward and one backward pass per row.

        A second forward pass comes on top where a group is larger than a chunk.
        """
        count = points.shape[1]
        if count > self.chunk:
            flat = points.flatten(0, 1)
            cotangents = force(self.values(flat).unflatten(0, (-1, count))).flatten(0, 1)
            return self.pull(flat, lambda _, rows: cotangents[rows]).reshape(points.shape)
        pulled = [
            self.pull(
                part.flatten(0, 1),
                lambda features, _: force(features.unflatten(0, (-1, count))).flatten(0, 1),
            )
            for part in points.split(self.chunk // count)
        ]
        return torch.cat(pulled).reshape(points.shape)
