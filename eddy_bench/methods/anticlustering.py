"""Split points into groups that are each as different within as possible."""

from __future__ import annotations

import torch
from torch import Tensor

STARTS = 5  # random ones, of which the best is kept
LEAST_GAIN = 1e-9  # of the sum of squared distances, below which an exchange is a rounding error


def diverse_groups(features: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return a partition into groups of one size with large squared distances within.

    Anticlustering, or maximally diverse grouping (Spaeth 1986; Papenberg & Klau 2021): from random
    starts, the exchange of two points of different groups that gains most is made until none gains.

    Args:
        features: (M, F), M a multiple of `size`.
        size: of a group.
        generator: of the starts.

    Returns:
        Indices, (M / size, size), ascending in each group.

    """
    unit = torch.nn.functional.normalize(features.double(), dim=-1)
    distances = torch.cdist(unit, unit).square()
    best, most = torch.empty(0), -1.0
    for _ in range(STARTS):
        order = torch.randperm(len(features), generator=generator)
        labels = torch.empty_like(order)
        labels[order] = torch.arange(len(order)) // size
        value = _exchange(distances.cpu(), labels)
        if not value <= most:  # also where it is no number
            best, most = labels, value
    return best.argsort(stable=True).reshape(-1, size)


def _exchange(distances: Tensor, labels: Tensor) -> float:
    """Exchange points between groups while that gains; returns the sum of distances within."""
    groups = int(labels.max()) + 1
    while True:
        members = torch.nn.functional.one_hot(labels, groups).double()
        to_group = (distances @ members)[:, labels]  # of i to the group of j
        own = to_group.diagonal()
        gains = to_group + to_group.T - 2 * distances - own[:, None] - own[None, :]
        gains[labels[:, None] == labels[None, :]] = 0.0
        i, j = divmod(int(gains.argmax()), len(labels))
        if groups == 1 or not float(gains[i, j]) > LEAST_GAIN:  # a NaN ends it too
            return float(own.sum()) / 2
        labels[i], labels[j] = labels[j].clone(), labels[i].clone()
