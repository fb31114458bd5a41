"""A smooth network of random weights, in the place of a guide network on exact tasks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eddy_bench.models.mixture import Mixture
from eddy_bench.models.network_features import NetworkFeatures
from eddy_bench.models.row_limit import RowLimit

HIDDEN, FEATURES = 64, 16
ROWS = 2**13  # points at once: their hidden values stay near the processor's cache
SEED = 16


@dataclass(frozen=True)
class RandomNetwork:
    """Features phi(x) = tanh(tanh((x - centre) W / scale + b) V), float64.

    Two layers of tanh, d -> 64 -> 16, with curvature everywhere: what a feature kernel needs, and
    nothing that knows of the task's modes.

    Args:
        centre: the mixture's mean, (d,).
        scale: the mixture's standard deviation.
        first: W, (d, 64).
        bias: b, (64,).
        second: V, (64, 16).

    """

    centre: Tensor
    scale: float
    first: Tensor
    bias: Tensor
    second: Tensor

    @classmethod
    def of(cls, mixture: Mixture) -> RandomNetwork:
        """Return the network of a task: always the same weights for a number of dimensions.

        W has variance 2 / d, so that typical points reach the bends of tanh, V 1 / 64.
        """
        generator = torch.Generator().manual_seed(SEED)
        dimension = mixture.dimension
        first, bias, second = (
            torch.randn(shape, generator=generator, dtype=torch.float64) * scale
            for shape, scale in (
                ((dimension, HIDDEN), (2 / dimension) ** 0.5),
                ((HIDDEN,), 0.5),
                ((HIDDEN, FEATURES), HIDDEN**-0.5),
            )
        )
        return cls(mixture.weights @ mixture.means, mixture.scale(), first, bias, second)

    def __call__(self, points: Tensor) -> Tensor:
        """Return phi at points (rows, d), (rows, 16), each within (-1, 1)."""
        hidden = torch.tanh((points - self.centre) / self.scale @ self.first + self.bias)
        return torch.tanh(hidden @ self.second)

    def feature_map(self, shape: tuple[int, ...]) -> NetworkFeatures:
        """Return the network as the map that feature kernels see."""
        return NetworkFeatures(_points, self, shape, RowLimit.of(ROWS))


def _points(latents: Tensor) -> Tensor:
    """Return points as they are: there is no decoder."""
    return latents.flatten(1).double()
