"""Rows through a network on a device, in batches that fit; threads prepare them ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy_bench.errors import MetricError, counted
from eddy_bench.models.devices import out_of_memory, release_memory, whole_float32

Row = tuple[NDArray[Any], ...]  # arrays of one shape: an image, a pair of images, tokens
BATCH = 64
Item = TypeVar("Item")
Result = TypeVar("Result")
MOST_THREADS = 8


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
    halved: how often memory ran out.
    pixels: of a batch at most, so that larger images go in smaller batches; None for no bound.
    """

    name: str
    network: Callable[..., Tensor]
    device: torch.device
    collate: Callable[[Sequence[Row]], tuple[Tensor, ...]] = first_of_each
    size: int = BATCH
    pixels: int | None = None
    halved: int = 0

    @property
    def note(self) -> str:
        """What memory made of the batches, for the user; empty where all fitted."""
        if not self.halved:
            return ""
        times = counted(self.halved, "time")
        return f"memory ran out {times} in {self.name}, which takes {self.size} images at once now"

    def __call__(self, rows: Iterable[Row]) -> Iterator[NDArray[Any]]:
        """Yield each row's result in order, floats in float32; rows are taken batch by batch.

        Rows of one shape that follow each other share a batch.

        Raises:
            MetricError: not even one row fits.
        """
        source = iter(rows)
        left: deque[Row] = deque(islice(source, 1))
        while left:
            most = self._most(left[0])
            left.extend(islice(source, max(0, most - len(left))))
            _, alike = next(groupby(left, key=lambda row: row[0].shape))
            for result in self._fitting(list(islice(alike, most))):
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
        self.size, self.halved = len(batch) // 2, self.halved + 1
        return []

    def _results(self, batch: Sequence[Row]) -> NDArray[Any]:
        with torch.inference_mode(), whole_float32(self.device):
            inputs = [tensor.to(self.device) for tensor in self.collate(batch)]
            results = self.network(*inputs)
            results = results.float() if results.is_floating_point() else results
            array: NDArray[Any] = results.cpu().numpy()
        return array


@contextmanager
def ahead(
    function: Callable[[Item], Result], items: Iterable[Item], limit: int
) -> Iterator[Iterator[Result]]:
    """Yield the results of a function in the order of its items; threads work ahead.

    What the function raises is raised where its result would have come. When the block is left,
    by an error or Ctrl-C too, what was not begun is dropped and no thread remains.

    Args:
        function: safe to call in several threads.
        items: taken in this thread.
        limit: results that may wait, which bounds memory.
    """
    threads = min(MOST_THREADS, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead")
    try:
        yield _in_order(pool, function, items, limit)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], limit: int
) -> Iterator[Result]:
    begun: deque[Future[Result]] = deque()
    for item in items:
        begun.append(pool.submit(function, item))
        if len(begun) > limit:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()
