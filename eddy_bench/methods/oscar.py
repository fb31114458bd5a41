"""OSCAR: the volume of a group's features, across the flow (arXiv 2510.09060, ICML 2026)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from eddy_bench.methods.base import Positive
from eddy_bench.methods.guided import GuidingMethod, kernel_points, parse_window, pulled_force
from eddy_bench.methods.potentials import volume_weights
from eddy_bench.sampling.state import State


@dataclass(frozen=True)
class Oscar(GuidingMethod):
    """Falls in E = -1/2 log det(1 + tau K), K the Gram matrix of centred features of x0.

    The push is orthogonal to the velocity v = eps - x0 of each particle: a = P (-grad E), P = 1 -
    v v^T / |v|^2. Under scale=fixed it is strength a, cut to |a| <= ratio |v|, as a change of a
    flow's velocity: g = a / (sigma (1 + sigma)). It is weighted by sin^2 over its window. Centred
    features are measured by their mean square length (ours), so that tau means the same for all of
    them; the paper's are CLIP's. d x0 / d xb = 1 (ours).

    The authors' script was read besides texts about the paper: gamma = 0.12, ratio 0.3, tau 1, the
    gate from 5% to 15% of the time; it takes away 0.95 of what lies along v, adds the gradient of E
    with the sign that shrinks the volume, and takes groups apart in chunks of 2. Here the volume
    rises, of whole groups. Ours: the window is the first fifth of the steps, which few steps hit;
    the share of the output. The paper adds noise that is orthogonal to v; the formula of its size
    was not found (in the script it comes out as 0), and it is left out.

    Args:
        bandwidth: not used.
        tau: of the volume.
        ratio: the longest push over |v| under scale=fixed.
    """

    tau: Positive = 1.0
    ratio: Positive = 0.3

    name = "oscar"
    summary = "ascent of the volume of features, across the flow; shifts the marginal"
    citation = "arXiv 2510.09060"
    cost = "features: 1 forward + 1 backward per particle and step that acts"
    preferred_kernel = "features"
    audited = False  # of features, which few exact tasks have
    windows = dict.fromkeys(("latent", "denoised", "features"), "0%..20%")
    strengths = {"latent": 0.12, "denoised": 0.12, "features": 0.12}
    shares = {"latent": 0.1, "denoised": 0.15, "features": 0.2}

    def gate(self, state: State) -> float:
        """Return sin^2 of the middle of this step in a window of steps; 0 at both of its ends."""
        kernel = self.resolved_kernel(state.features is not None)
        window = parse_window(self.windows[kernel] if self.window == "auto" else self.window)
        if not window.share:
            return window.weight(state)
        middle = (state.step + 0.5) / state.steps
        inside = (middle - window.low) / (window.high - window.low)
        return math.sin(math.pi * inside) ** 2 if 0 < inside < 1 else 0.0

    def term(self, kernel: str, state: State, amount: float) -> Tensor:
        """Return the push as a score term, (G, N, d)."""
        points, features = kernel_points(kernel, state)
        force = pulled_force(points, features, self.weights).to(state.particles)
        velocity = state.eps - state.denoised
        speed = velocity.norm(dim=-1, keepdim=True).clamp_min(1e-30)
        unit = velocity / speed
        across = amount * (force - (force * unit).sum(-1, keepdim=True) * unit)
        if self.resolved_scale(kernel) == "fixed":
            length = across.norm(dim=-1, keepdim=True).clamp_min(1e-30)
            across = across * (self.ratio * speed / length).clamp(max=1)
        guidance: Tensor = across / (state.sigma * (1 + state.sigma))
        return guidance

    def weights(self, square: Tensor) -> Tensor:
        """Return the weights of -grad E, (G, N, N), with the unit of length held constant."""
        length = square.double().mean((1, 2), keepdim=True) / 2
        return volume_weights(square, self.tau / length.clamp_min(1e-30))
