"""Particle guidance: the gradient of a joint repulsive potential.

Corso et al., ICLR 2024, arXiv 2310.13102.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from eddy_bench.kernels import force_weights, row_median_bandwidth
from eddy_bench.methods.guided import GuidingMethod, kernel_points, pulled_force
from eddy_bench.sampling.state import State


@dataclass(frozen=True)
class ParticleGuidance(GuidingMethod):
    """g_i = c(sigma) sum_j r_ij, minus the gradient of 1/2 sum_ij k_ij.

    The schedules are those of the authors' code. Latent kernel: c = strength sqrt(1 + sigma^2),
    while sigma >= 1 (their coefficient on Stable Diffusion 1.5 is 30). Other kernels:
    c = strength sqrt(1 + sigma^2) / sigma, while sigma > 3 (theirs is 8), through one pull-back
    with d x0 / d xb = 1. Bandwidth: the median of each row over log(N - 1). The end of the window
    is faded over sigma in [a, 1.25 a], where the authors cut.
    """

    name = "pg"
    summary = "particle guidance: gradient of a joint repulsive potential; shifts the marginal"
    citation = "arXiv 2310.13102"
    cost = "latent: O(N^2 d); features: 1 forward + 1 backward per particle and step"
    windows = {"latent": "1..", "denoised": "3..", "features": "3.."}
    # From benchmarks/embedded/tuning.csv and tuning_scale.csv.
    strengths = {"latent": 3.0, "denoised": 0.6, "features": 0.6}
    shares = {"denoised": 0.07, "features": 0.05}

    def term(self, kernel: str, state: State, amount: float) -> Tensor:
        """Return the force, (G, N, d)."""
        root = (1 + state.sigma**2) ** 0.5
        scale = root if kernel == "latent" else root / state.sigma
        force = pulled_force(
            *kernel_points(kernel, state),
            lambda square: force_weights(square, self.gamma(state, row_median_bandwidth(square))),
        )
        guidance: Tensor = amount * scale * force
        return guidance
