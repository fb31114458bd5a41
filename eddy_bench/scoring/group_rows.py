"""Images of finished groups, or pairs of them, through a network."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import combinations, islice
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eddy_bench.errors import MetricError
from eddy_bench.scoring.ahead import ahead
from eddy_bench.scoring.forward import BATCH, Row
from eddy_bench.storage.group import FinishedGroup

GROUPS_TOGETHER = 16  # whose images may share a batch


def rows_of_groups(
    forward: Callable[[Iterable[Row]], Iterator[Any]],
    prepare: Callable[[Image.Image], NDArray[Any]],
    groups: Sequence[FinishedGroup],
    together: int = 1,
    beside: Callable[[str], Any] | None = None,
) -> Generator[tuple[FinishedGroup, NDArray[Any]], None, None]:
    """Yield each group with the network's results of its images, or of its pairs, in order.

    Files are read, checked, decoded and prepared in threads while the network is at work.

    Args:
        forward: of rows of `together` prepared images.
        prepare: an image for the network.
        groups: of equally many images.
        together: 1 for single images; 2 for pairs i < j.
        beside: from a prompt to what stands behind its images in each row; None for nothing.

    Yields:
        (group, (N, ...)), or (group, (N (N - 1) / 2, ...)) for pairs.

    Raises:
        StoreError: an image is missing or was changed.
        MetricError: not even one row fits into memory; there are more results than rows, or fewer.

    """

    def prepared(group: FinishedGroup) -> list[NDArray[Any]]:
        return [prepare(image) for image in group.images()]

    waiting = -(-2 * BATCH // groups[0].group.particles) if groups else 0
    with ahead(prepared, groups, waiting) as read:
        for start in range(0, len(groups), GROUPS_TOGETHER):
            part = groups[start : start + GROUPS_TOGETHER]
            images = islice(read, len(part))
            texts = [() if beside is None else (beside(group.group.prompt),) for group in part]
            results = forward(
                (*row, *text)
                for own, text in zip(images, texts, strict=True)
                for row in combinations(own, together)
            )
            for group in part:
                count = comb(group.group.particles, together)
                own = list(islice(results, count))
                if len(own) < count:
                    raise MetricError(f"Expected {count} results of a group, got {len(own)}.")
                yield group, np.array(own)
            if next(iter(results), None) is not None:
                raise MetricError("Expected one result for each image or pair, got more.")
