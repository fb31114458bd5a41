"""Rows through a network on a device, in batches that fit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy_bench.errors import MetricError
from eddy_bench.models.devices import out_of_memory, release_memory, whole_float32

Row = tuple[NDArray[Any], ...]  # arrays of one shape: an image, a pair of images, tokens
BATCH = 64


def first_of_each(rows: Sequence[Row]) -> tuple[Tensor, ...]:
    """Return the first array of each row as one batch."""
    return (torch.from_numpy(np.stack([row[0] for row in rows])),)


@dataclass
class Forward:
    """Send rows through a network on a device, as many at once as fit into its memory.

    name: of the network, for messages.
    network: maps what `collate` returns, on the device, to one result per row.
    device: where the network is.
    collate: makes tensors of a batch of rows.
    size: rows at once at most; halved when memory runs out, and never raised again.
    pixels: of a batch at most, so that larger images go in smaller batches; None for no bound.
    """

    name: str
    network: Callable[..., Tensor]
    device: torch.device
    collate: Callable[[Sequence[Row]], tuple[Tensor, ...]] = first_of_each
    size: int = BATCH
    pixels: int | None = None

    def __call__(self, rows: Iterable[Row]) -> Iterator[NDArray[Any]]:
        """Yield each row's result in order, floats in float32; rows are taken batch by batch.

        Rows of one shape that follow each other share a batch.

        Raises:
            MetricError: not even one row fits.

        """
        source = iter(rows)
        left: deque[Row] = deque(islice(source, 1))
        while left:
            left.extend(islice(source, max(0, self._most(left[0]) - len(left))))
            for result in self._fitting(self._begin(left)):
                left.popleft()
                yield result
            if not left:
                left.extend(islice(source, 1))

    def _most(self, row: Row) -> int:
        """Return how many rows like this one go at once."""
        if self.pixels is None:
            return self.size
        height, width = row[0].shape[:2]
        return int(max(1, min(self.size, self.pixels // (height * width))))

    def _begin(self, left: Iterable[Row]) -> list[Row]:
        """Return the rows that go at once next: of one shape, as many as may."""
        _, first = next(groupby(left, key=lambda row: row[0].shape))
        rows = list(first)
        return rows[: self._most(rows[0])]

    def _fitting(self, batch: Sequence[Row]) -> Sequence[NDArray[Any]]:
        """Return the results of a batch; none, and a smaller size, where memory ran out."""
        try:
            return list(self._results(batch))
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if len(batch) == 1:
                raise MetricError(
                    f"Not even one image at a time fits into the memory of {self.device} "
                    f"with {self.name}. Score on another device: eddy-bench score --device."
                ) from None
        release_memory()  # after the error, which holds what it left
        self.size = len(batch) // 2
        return []

    def _results(self, batch: Sequence[Row]) -> NDArray[Any]:
        with torch.inference_mode(), whole_float32(self.device):
            inputs = [tensor.to(self.device) for tensor in self.collate(batch)]
            results = self.network(*inputs)
            results = results.float() if results.is_floating_point() else results
            array: NDArray[Any] = results.cpu().numpy()
        return array
