"""How many rows go through decoder and guide network at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from eddy_bench.models.devices import (
    free_bytes,
    out_of_memory,
    peak_taken,
    release_memory,
    whole_float32,
)
from eddy_bench.sampling.feature_maps import Cotangent, GroupForce
from eddy_bench.sampling.session import replaced

Kind = Literal["forward", "backward"]
MOST = 64
SHARE = 0.7  # of the memory that is free
BACKWARD_SHARE = 6.0  # about how much more a row takes with its graph, decoders of 512 pixels


@dataclass
class RowLimit:
    """The rows at once, without and with a graph.

    They are settled by the first rows and by errors, and remembered for everything that follows.
    """

    forward: int = MOST  # rows at once without a graph
    backward: int = MOST  # rows at once with one
    fixed: bool = False  # the user set them, so that nothing is measured and nothing shrinks
    checkpointed: bool = False  # graphs keep the inputs of blocks only
    # bytes that one row took at its peak, where that was measured
    taken: dict[Kind, float] = field(default_factory=dict)

    @classmethod
    def of(cls, feature_batch: int | str) -> Self:
        """Return the limit of `--feature-batch`: a number of rows, or `auto`."""
        if feature_batch == "auto":
            return cls()
        return cls(int(feature_batch), int(feature_batch), fixed=True)

    def at_once(self, kind: Kind) -> int:
        """Return the rows at once."""
        return self.backward if kind == "backward" else self.forward

    def foresee(self, free: float) -> None:
        """Checkpoint at once where a row with a graph is not to be expected to fit."""
        if self.taken.get("forward", 0.0) * BACKWARD_SHARE > free:
            self.checkpointed = True

    def settle(self, kind: Kind, taken: float, free: float) -> None:
        """Take as many rows, a power of two, as fit into the memory that is free.

        Args:
            kind: without or with a graph.
            taken: bytes that one row takes; 0 where nothing tells, which leaves the limit.
            free: bytes.
        """
        self.taken[kind] = taken
        if taken <= 0 or taken * self.at_once(kind) <= SHARE * free:
            return
        fits = max(1, int(SHARE * free / taken))
        setattr(self, kind, min(self.at_once(kind), 2 ** (fits.bit_length() - 1)))

    def shrink(self, kind: Kind) -> bool:
        """Take half the rows, then checkpoint; returns whether there was something left to do."""
        if self.fixed:
            return False
        if self.at_once(kind) > 1:
            setattr(self, kind, self.at_once(kind) // 2)
            return True
        if kind == "backward" and not self.checkpointed:
            self.checkpointed = True
            return True
        return False

    @property
    def note(self) -> str:
        """What was settled, for the user; empty where nothing is less than what was hoped for."""
        if self.fixed or (min(self.forward, self.backward) == MOST and not self.checkpointed):
            return ""
        again = ", which compute their blocks again" if self.checkpointed else ""
        return (
            f"memory: decoder and guide network take {self.forward} images at once, "
            f"{self.backward} with backward passes{again}"
        )


@contextmanager
def checkpointed(modules: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Let every block of some networks keep its input alone, in forward and backward passes.

    Blocks are the parts of `Sequential` and `ModuleList` that have parts of their own. A block
    within a block is checkpointed too: memory is that of the blocks' inputs and of the innermost
    block, and each level of nesting costs one more forward pass (Chen et al., arXiv 1604.06174).
    Gradients stay what they are bit for bit.
    """
    with ExitStack() as stack:
        for module in modules:
            for block in blocks_of(module):
                stack.enter_context(replaced(block, "forward", _checkpointing(block.forward)))
        yield


def blocks_of(module: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the blocks of a network, each once."""
    chains = (torch.nn.Sequential, torch.nn.ModuleList)
    blocks = (
        part
        for chain in module.modules()
        if isinstance(chain, chains)
        for part in chain
        if any(True for _ in part.children()) and not isinstance(part, torch.nn.ModuleList)
    )
    return list(dict.fromkeys(blocks))


def _checkpointing(forward: Callable[..., Any]) -> Callable[..., Any]:
    def kept(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return kept


@dataclass
class FeatureCost:
    """Rows through the decoder, forward through the network, and backward through both."""

    decoder_calls: int = 0
    feature_forwards: int = 0
    feature_backwards: int = 0


@dataclass
class NetworkFeatures:
    """Features of the decoded denoised estimate."""

    # (rows, *shape) latents to (rows, c, h, w) images in [-1, 1]
    decode: Callable[[Tensor], Tensor]
    network: Callable[[Tensor], Tensor]  # images to (rows, features)
    shape: tuple[int, ...]  # of one particle
    # rows that go through at once; bounds the memory
    limit: RowLimit = field(default_factory=RowLimit)
    # the networks behind `decode` and `network`, whose blocks can be checkpointed
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
        if self.limit.fixed or kind in self.limit.taken:
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
