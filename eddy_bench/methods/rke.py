"""SPARKE's direction within a batch: the order-2 Renyi kernel entropy (arXiv 2506.10173)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from eddy_bench.kernels import group_median_bandwidth
from eddy_bench.methods.base import Count
from eddy_bench.methods.guided import DirectedMethod
from eddy_bench.methods.potentials import rke_weights
from eddy_bench.sampling.state import State

SIGMA = 0.6  # of the authors' demo on unit vectors; 0.8 in their README


@dataclass(frozen=True)
class Rke(DirectedMethod):
    """Climbs log RKE of the group, RKE = 1 / |K / N|_F^2.

    SPARKE guides one image at a time against a bank of finished ones, weighted by the likeness of
    their prompts; within the group of one prompt that weight is 1. The in-batch form is ours.
    Unit vectors of latents or denoised estimates under gamma = 2 0.6^2, features under their median
    squared distance over log N. The step lies across a particle, whose length no unit vector sees.
    Every tenth step moves the latent by strength |x| (0.02 on Stable
    Diffusion 2.1, 0.025 on SDXL in the authors' demo) between the network and the solver's step.

    Args:
        bandwidth: h, gamma = h^2.
        every: steps from one that acts to the next.
    """

    every: Count = 10

    name = "rke"
    summary = "ascent of the Renyi kernel entropy (SPARKE in the batch); moves it"
    citation = "arXiv 2506.10173"
    cost = "latent: O(N^2 d); features: 1 forward + 1 backward per step that acts"
    unit = True
    strengths = {"latent": 0.05, "denoised": 0.02, "features": 0.02}
    shares = {"denoised": 0.07, "features": 0.05}

    def acts(self, kernel: str, state: State) -> bool:
        """Return whether this step is one of every `every`."""
        return state.step % self.every == 0 and not state.pure_noise

    def weights(self, square: Tensor, state: State) -> Tensor:
        """Return the weights of the gradient, (G, N, N)."""
        default: Tensor | float = 2 * SIGMA**2
        if self.resolved_kernel(state.features is not None) == "features":
            default = group_median_bandwidth(square)
        return rke_weights(square, default if self.bandwidth is None else self.bandwidth**2)
