"""Best of M: draw more independent images than needed and keep the most different ones."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from eddy_bench.errors import ModelError, ParameterError
from eddy_bench.kernels import exact
from eddy_bench.methods.base import Count, Method

EXACT_CHOICES = 20_000  # subsets that are tried one by one


@dataclass(frozen=True)
class BestOfM(Method):
    """Keep the N of M independent images whose guide-network features are farthest apart.

    It is the baseline to beat at equal cost.

    Args:
        m: how many are drawn, at least N; None sets it, when a run is planned, so that it takes as
            long as another method (under `fair` at most N more candidates, up to a multiple).
        equal: that method, as on the command line with `;` for `,`; empty is the slowest one of
            the run.
        fair: split the candidates into M / N groups that are each as different as possible and
            keep one of them at random. Every candidate is then kept with probability N / M
            whatever its features, so that a kept image has the distribution of a candidate.
        preview: choose on the denoised estimates of all M after so many steps, then draw the
            chosen ones from their beginning: preview M + T N network evaluations in T steps. None
            chooses on finished images. Under `fair` the law is kept at every preview.
    """

    m: Count | None = None
    equal: str = ""
    fair: bool = False
    preview: Count | None = None

    name = "best-of-m"
    summary = (
        "draws M i.i.d. images, keeps the N most different by the guide network; "
        "selection shifts the marginal, fair=true keeps it"
    )
    citation = "max-sum dispersion (Ravi et al. 1994); fair: Papenberg & Klau 2021"
    cost = "M / N times iid, with preview=k of T steps 1 + k M / (T N); M feature forwards"
    selects = True
    sweep = "m"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preview is not None and self.m is None:
            raise ParameterError(
                "Expected m beside preview of best-of-m: what takes as long as another method is "
                "measured on whole draws. Use best-of-m:m=16,preview=2."
            )

    @property
    def preserves_marginal(self) -> bool:
        """Return whether the selection is fair."""
        return self.fair

    @property
    def previewed(self) -> int | None:
        """Return `preview`."""
        return self.preview

    def equal_cost_to(self) -> str | None:
        """Return `equal` where M is not set."""
        return self.equal.replace(";", ",") if self.m is None else None

    def matched_sweep(self, images: int, particles: int) -> int:
        """Return M for as many images: under `fair` the next multiple of N."""
        return math.ceil(images / particles) * particles if self.fair else images

    def drawn(self, particles: int) -> int:
        """Return M."""
        if self.m is None:
            raise ParameterError(
                "Expected m for best-of-m here: there is no other method to take as long as. "
                "Use best-of-m:m=16."
            )
        if self.m < particles:
            raise ParameterError(
                f"Expected m of best-of-m to be at least the {particles} particles, got {self.m}."
            )
        if self.fair and self.m % particles:
            raise ParameterError(
                f"Expected m of best-of-m:fair=true to be a multiple of the {particles} particles, "
                f"so that every candidate is as likely to be kept, got {self.m}."
            )
        return self.m

    def choose(self, features: Tensor, count: int, generator: torch.Generator) -> list[int]:
        """Return the indices of `count` of (M, F) features, ascending: the most different ones.

        Under `fair` those of one of M / N groups that are each as different as possible.
        """
        if not self.fair:
            return most_distant(unit_distances(features), count)
        groups = diverse_groups(features, count, generator)
        kept = torch.randint(len(groups), (1,), generator=generator)
        return [int(index) for index in groups[int(kept)]]


def check_finite(features: Tensor, method: Method) -> None:
    """Raise ModelError for features that nothing can be chosen by: all sums with them are NaN."""
    if not bool(torch.isfinite(features).all()):
        raise ModelError(
            f"The guide network's features are not finite, so {method.title()} cannot choose "
            "by them. Use --dtype float32 or bfloat16, another --scheduler, or a later preview."
        )


def unit_distances(features: Tensor) -> Tensor:
    """Return Euclidean distances between unit features, (M, M), of (M, F)."""
    unit = torch.nn.functional.normalize(exact(features), dim=-1)
    return torch.cdist(unit, unit)


def most_distant(distances: Tensor, count: int, merits: Tensor | None = None) -> list[int]:
    """Return the subset with the largest sum of distances, ascending.

    All subsets are tried when they are at most 20,000; beyond that the subset is grown from the
    best pair by the point that adds most, which reaches at least half of the best sum of Euclidean
    distances alone.

    Args:
        distances: (M, M).
        count: how many to keep, at most M.
        merits: (M,), what each point adds to the sum beside its distances; None for nothing.
    """
    if merits is None:
        merits = torch.zeros(len(distances))
    merits = merits.to(distances)
    total = len(distances)
    if count >= total:
        return list(range(total))
    if math.comb(total, count) <= EXACT_CHOICES:
        subsets = torch.tensor(list(itertools.combinations(range(total), count)))
        twice = distances[subsets[:, :, None], subsets[:, None, :]].sum((1, 2))
        sums = twice + 2 * merits[subsets].sum(1)
        return [int(index) for index in subsets[int(sums.argmax())]]
    return _grown(distances, count, merits)


def _grown(distances: Tensor, count: int, merits: Tensor) -> list[int]:
    """Return a subset (ascending) grown greedily from the best pair; merits: (M,)."""
    pairs = distances + merits[:, None] + merits
    pairs.fill_diagonal_(-torch.inf)
    chosen = (
        [int((distances.sum(1) + merits).argmax())]
        if count == 1
        else list(divmod(int(pairs.argmax()), len(distances)))
    )
    while len(chosen) < count:
        gain = distances[chosen].sum(0) + merits
        gain[chosen] = -torch.inf
        chosen.append(int(gain.argmax()))
    return sorted(chosen)


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
    unit = torch.nn.functional.normalize(exact(features), dim=-1)
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
