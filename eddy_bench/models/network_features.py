"""Features of decoded denoised estimates, as many rows at once as memory holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eddy_bench.models.checkpointing import checkpointed
from eddy_bench.models.memory import free_bytes, out_of_memory, peak_taken, release_memory
from eddy_bench.models.precision import whole_float32
from eddy_bench.models.row_limit import Kind, RowLimit
from eddy_bench.sampling.feature_maps import Cotangent, GroupForce


@dataclass
class FeatureCost:
    """Rows through the decoder, forward through the network, and backward through both."""

    decoder_calls: int = 0
    feature_forwards: int = 0
    feature_backwards: int = 0


@dataclass
class NetworkFeatures:
    """Features of the decoded denoised estimate.

    Args:
        decode: (rows, *shape) latents to (rows, c, h, w) images in [-1, 1].
        network: images to (rows, features).
        shape: of one particle.
        limit: rows that go through at once; bounds the memory.
        modules: the networks behind `decode` and `network`, whose blocks can be checkpointed.

    """

    decode: Callable[[Tensor], Tensor]
    network: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]
    limit: RowLimit = field(default_factory=RowLimit)
    modules: Sequence[torch.nn.Module] = ()
    cost: FeatureCost = field(default_factory=FeatureCost)

    @property
    def chunk(self) -> int:
        """Rows that go through at once with a graph."""
        return self.limit.backward

    def differentiable(self, points: Tensor) -> Tensor:
        """Return features with a graph."""
        self._count(len(points))
        return self._through(points)

    def values(self, points: Tensor) -> Tensor:
        """Return features without a graph, part by part."""
        parts = self._in_parts("forward", points, 1, lambda rows: self._forward(points[rows]))
        return torch.cat(parts)

    def pull(self, points: Tensor, cotangent: Cotangent) -> Tensor:
        """Pull back with one forward and one backward pass per row, part by part."""
        index = torch.arange(len(points), device=points.device)
        parts = self._in_parts(
            "backward", points, 1, lambda rows: self._pulled(points[rows], cotangent, index[rows])
        )
        return torch.cat(parts)

    def pull_groups(self, points: Tensor, force: GroupForce) -> Tensor:
        """Pull back with one forward and one backward pass per row.

        A second forward pass comes on top where a group is larger than what goes through at once.
        """
        count, flat = points.shape[1], points.flatten(0, 1)

        def grouped(features: Tensor, rows: Tensor) -> Tensor:
            return force(features.unflatten(0, (-1, count))).flatten(0, 1)

        index = torch.arange(len(flat), device=flat.device)
        pulled = self._in_parts(
            "backward", flat, count, lambda rows: self._pulled(flat[rows], grouped, index[rows])
        )
        if len(rest := flat[sum(map(len, pulled)) :]):
            cotangents = grouped(self.values(rest), index)
            pulled.append(self.pull(rest, lambda _, rows: cotangents[rows]))
        return torch.cat(pulled).reshape(points.shape)

    def _through(self, points: Tensor) -> Tensor:
        with whole_float32(points.device):
            return self.network(self.decode(points.reshape(-1, *self.shape)))

    def _forward(self, points: Tensor) -> Tensor:
        with torch.no_grad():
            features = self._through(points)
        self._count(len(points))
        return features

    def _pulled(self, points: Tensor, cotangent: Cotangent, rows: Tensor) -> Tensor:
        gradient = self._gradient(points, lambda features: cotangent(features, rows))
        self._count(len(points))
        self.cost.feature_backwards += len(points)
        return gradient

    def _gradient(self, points: Tensor, cotangent: Callable[[Tensor], Tensor]) -> Tensor:
        modules = self.modules if self.limit.checkpointed else ()
        with torch.enable_grad(), whole_float32(points.device), checkpointed(modules):
            leaf = points.detach().requires_grad_()
            features = self._through(leaf)
            along = cotangent(features.detach()).to(features.dtype)
            (gradient,) = torch.autograd.grad(features, leaf, along)
        return gradient

    def _count(self, rows: int) -> None:
        self.cost.decoder_calls += rows
        self.cost.feature_forwards += rows

    def _in_parts(
        self, kind: Kind, points: Tensor, unit: int, through: Callable[[slice], Tensor]
    ) -> list[Tensor]:
        """Call `through` on consecutive rows, on fewer at once when memory runs out.

        It stops where not even `unit` rows, which belong together, go through at once.
        """
        self._measure(kind, points[:1])
        parts: list[Tensor] = []
        start = 0
        while start < len(points) and (size := self.limit.at_once(kind) // unit * unit):
            try:
                parts.append(through(slice(start, start + size)))
            except Exception as error:
                if not (out_of_memory(error) and self.limit.shrink(kind)):
                    raise
                size = 0
            if not size:
                release_memory()
            start += size
        return parts

    def _measure(self, kind: Kind, row: Tensor) -> None:
        """Settle how many rows fit by what one takes; its passes are not counted."""
        if not self.limit.wants_measure(kind):
            return
        if kind == "backward":
            self._measure("forward", row)
            self.limit.foresee(free_bytes(row.device))
        with peak_taken(row.device) as taken:
            try:
                if kind == "forward":
                    with torch.no_grad():
                        self._through(row)
                else:
                    self._gradient(row, torch.ones_like)
            except Exception as error:
                if not out_of_memory(error):
                    raise
            peak = taken()
        release_memory()
        self.limit.settle(kind, peak, free_bytes(row.device))
