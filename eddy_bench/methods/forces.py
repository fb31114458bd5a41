"""Forces of a radial potential on the particles, through the map that the kernel sees."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from eddy_bench.kernels import squared_distances, weighted_differences
from eddy_bench.sampling.feature_maps import FeatureMap, Identity
from eddy_bench.sampling.state import State


def kernel_points(kernel: str, state: State) -> tuple[Tensor, FeatureMap]:
    """Return the points of a kernel, (G, N, d), and the map from them to what it compares."""
    if kernel == "latent":
        return state.particles, Identity()
    if kernel == "denoised" or state.features is None:
        return state.denoised, Identity()
    return state.denoised, state.features


def pulled_force(
    points: Tensor, features: FeatureMap, weights: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return J^T sum_j w_ij (phi_i - phi_j), (G, N, d), at one pull-back per particle.

    Args:
        points: (G, N, d).
        features: the map phi.
        weights: from squared feature distances to w, both (G, N, N).

    """
    return features.pull_groups(
        points,
        lambda values: weighted_differences(
            weights(squared_distances(values)).to(values), values - values.mean(1, keepdim=True)
        ),
    )
