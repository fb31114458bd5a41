"""Repulsion: the force of repulsive ensembles, normalised by the local density.

D'Angelo & Fortuin 2021, arXiv 2106.11642.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from eddy_bench.kernels import force_weights, rbf, row_median_bandwidth
from eddy_bench.methods.guided import GuidingMethod, kernel_points, pulled_force
from eddy_bench.sampling.state import State


@dataclass(frozen=True)
class Repulsion(GuidingMethod):
    """g_i = strength * sum_j r_ij / sum_j k_ij, where sum_j k_ij includes j = i.

    Bandwidth and windows are those of particle guidance.
    """

    name = "repulsion"
    summary = "density-normalised kernel repulsion; shifts the marginal"
    citation = "arXiv 2106.11642"
    cost = "latent: O(N^2 d); features: 1 forward + 1 backward per particle and step"
    windows = {"latent": "1..", "denoised": "3..", "features": "3.."}
    # From benchmarks/embedded/tuning.csv and tuning_scale.csv.
    strengths = {"latent": 36.0, "denoised": 1.0, "features": 1.0}
    shares = {"denoised": 0.07, "features": 0.05}

    def term(self, kernel: str, state: State, amount: float) -> Tensor:
        """Return the force, (G, N, d)."""

        def weights(square: Tensor) -> Tensor:
            gamma = self.gamma(state, row_median_bandwidth(square))
            density = rbf(square, gamma).sum(-1, keepdim=True)  # the diagonal counts 1
            return force_weights(square, gamma) / density

        return amount * pulled_force(*kernel_points(kernel, state), weights)
