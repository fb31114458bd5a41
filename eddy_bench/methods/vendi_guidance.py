"""Guidance by the gradient of the Vendi score of the group."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from eddy_bench.kernels import group_median_bandwidth
from eddy_bench.methods.guided import DirectedMethod
from eddy_bench.methods.potentials import vendi_weights
from eddy_bench.sampling.state import State


@dataclass(frozen=True)
class VendiGuidance(DirectedMethod):
    """Climbs log Vendi of the group under a Gaussian kernel, gamma = median / log N.

    c-VSG (arXiv 2406.04551, ECCV 2024) climbs the Vendi score of CLIP features against a memory
    bank and exemplars, through the network's own Jacobian; here the group itself is the set and
    d x0 / d xb = 1, so that it costs what particle guidance does: the in-batch form is ours. It
    scores nothing by the guide network. Length of a step at strength 1: |x|, as c-VSG's.
    """

    name = "vendi-guidance"
    summary = "ascent of the group's Vendi score; shifts the marginal"
    citation = "arXiv 2406.04551"
    cost = "features: 1 forward + 1 backward per particle and step"
    preferred_kernel = "features"
    audited = False  # of features, which few exact tasks have
    strengths = {"latent": 0.01, "denoised": 0.01, "features": 0.01}
    shares = {"denoised": 0.07, "features": 0.05}

    def weights(self, square: Tensor, state: State) -> Tensor:
        """Return the weights of the gradient, (G, N, N)."""
        return vendi_weights(square, self.gamma(state, group_median_bandwidth(square)))
