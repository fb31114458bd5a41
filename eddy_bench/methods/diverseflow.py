"""DiverseFlow: a determinantal point process (arXiv 2504.07894, CVPR 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from eddy_bench.kernels import exact, lower_median
from eddy_bench.methods.base import Positive
from eddy_bench.methods.guided import DirectedMethod
from eddy_bench.methods.potentials import determinant_weights
from eddy_bench.sampling.state import State

LEAST_QUALITY = 0.01


@dataclass(frozen=True)
class DiverseFlow(DirectedMethod):
    """Climbs log det L - log det(L + 1), L_ij = exp(-h |phi_i - phi_j|^2 / median) q_i q_j.

    q is 1 where |eps|^2 is within a quantile of its chi-squared law and falls as exp(-excess)
    beyond, never below 0.01. The paper prints the update with a sign that lowers the objective in
    velocities towards the data; here it rises. Its h, its schedule and its quantile were not found
    (third parties: h = 1, length t |v|, 0.95), nor whether the median is of distances or of squared
    ones (here: squared). At strength 1 a flow's velocity v = eps - x0 changes by t |v|, t = sigma /
    (1 + sigma); of other models too, in the coordinates of a flow: |sigma g| = t |v| / (1 + sigma).

    Args:
        bandwidth: h.
        percentile: of the chi-squared law of |eps|^2; None for q = 1.
    """

    bandwidth: Positive | None = 1.0
    percentile: Annotated[float, Field(gt=0, lt=1)] | None = 0.95

    name = "diverseflow"
    summary = "ascent of a determinantal point process; shifts the marginal"
    citation = "arXiv 2504.07894"
    cost = "features: 1 forward + 1 backward per particle and step"
    preferred_kernel = "features"
    audited = False  # of features, which few exact tasks have
    strengths = {"latent": 0.1, "denoised": 0.1, "features": 0.1}
    shares = {"denoised": 0.07, "features": 0.05}

    def weights(self, square: Tensor, state: State) -> Tensor:
        """Return the weights of the gradient, (G, N, N)."""
        count = square.shape[-1]
        upper = torch.triu_indices(count, count, 1, device=square.device)
        median = lower_median(square.double()[:, upper[0], upper[1]])[..., None]
        return determinant_weights(square, (self.bandwidth or 1.0) / median, self.quality(state))

    def quality(self, state: State) -> Tensor:
        """Return q, (G, N)."""
        energy = exact(state.eps).square().sum(-1)
        if self.percentile is None:
            return torch.ones_like(energy)
        from scipy.stats import chi2

        excess = energy - float(chi2.ppf(self.percentile, state.eps.shape[-1]))
        return torch.exp(-excess.clamp_min(0)).clamp_min(LEAST_QUALITY)

    def length(self, state: State) -> Tensor:
        """Return t |v| / (sigma (1 + sigma)), (G, N, 1)."""
        speed = (state.eps - state.denoised).norm(dim=-1, keepdim=True)
        length: Tensor = state.flow_time * speed / (state.sigma * (1 + state.sigma))
        return length
