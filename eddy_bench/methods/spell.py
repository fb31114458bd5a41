"""SPELL: sparse repellency (Kirchhof et al., ICML 2025, arXiv 2410.06025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from eddy_bench.methods.base import Positive
from eddy_bench.methods.forces import kernel_points, pulled_force
from eddy_bench.methods.guiding_method import GuidingMethod
from eddy_bench.methods.potentials import shield_weights
from eddy_bench.sampling.state import State


@dataclass(frozen=True)
class Spell(GuidingMethod):
    """Denoised estimates that come nearer than a radius r push each other out to it.

    D_i = strength sum_j relu(r / |x0_i - x0_j| - 1) (x0_i - x0_j), g = D / sigma^2: one first-order
    step to the data's end moves x0 by D. Nothing acts on pairs beyond r. Both of a pair move, so
    that a pair at distance d ends at 2 r - d under strength 1. The paper's strength is 1.6; its
    radii were not found, they are in units of a model's latents. Earlier batches, which the paper
    keeps as well, are not seen.

    Args:
        radius: r over sqrt(2 d), the distance of independent points of unit variance; with
            kernel=features r itself.

    """

    radius: Positive = 0.3

    name: ClassVar[str] = "spell"
    summary: ClassVar[str] = "pushes denoised estimates out of each other's balls; moves the law"
    citation: ClassVar[str] = "arXiv 2410.06025"
    cost: ClassVar[str] = "denoised: O(N^2 d); features: 1 forward + 1 backward per step"
    preferred_kernel: ClassVar[str] = "denoised"
    windows: ClassVar[dict[str, str]] = {"latent": "0..", "denoised": "0..", "features": "0.."}
    strengths: ClassVar[dict[str, float]] = {"latent": 1.6, "denoised": 1.6, "features": 1.6}

    def acts(self, kernel: str, state: State) -> bool:
        """Return True: at alpha_t = 0 the edit of a velocity is D / sigma_t, which is finite."""
        return True

    def term(self, kernel: str, state: State, amount: float) -> Tensor:
        """Return the force, (G, N, d)."""
        points, features = kernel_points(kernel, state)
        radius = self.radius
        if kernel != "features":
            radius *= (2 * points.shape[-1]) ** 0.5
        if kernel == "latent":
            radius *= (1 + state.sigma**2) ** 0.5
        force = pulled_force(points, features, lambda square: shield_weights(square, radius))
        guidance: Tensor = (amount / state.sigma**2) * force.to(state.particles)
        return guidance
