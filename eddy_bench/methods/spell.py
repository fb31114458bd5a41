"""SPELL: sparse repellency (Kirchhof et al., ICML 2025, arXiv 2410.06025)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from eddy_bench.errors import ParameterError
from eddy_bench.kernels import near, squared_distances, weighted_differences
from eddy_bench.methods.base import Positive
from eddy_bench.methods.guided import GuidingMethod, kernel_points, pulled_force
from eddy_bench.methods.potentials import shield_weights
from eddy_bench.sampling.state import State


@dataclass(frozen=True)
class Spell(GuidingMethod):
    """Denoised estimates that come nearer than a radius r push each other out to it.

    D_i = strength sum_j relu(r / |x0_i - x0_j| - 1) (x0_i - x0_j), g = D / sigma^2: one first-order
    step to the data's end moves x0 by D. Nothing acts on pairs beyond r. Both of a pair move, so
    that a pair at distance d ends at 2 r - d under strength 1. The paper's strength is 1.6; its
    radii were not found, they are in units of a model's latents. Of what the paper keeps of earlier
    batches, `earlier` takes the finished latents of the prompt's earlier seeds: x0_j that stay
    where they are. What that gains lies between the groups of a prompt.

    Args:
        radius: r over sqrt(2 d), the distance of independent points of unit variance; with
            kernel=features r itself.
        earlier: keep away from the finished latents of the prompt's earlier seeds too; with
            kernel=denoised. A run draws the seeds of a prompt in order, and draws again what it
            does not have at hand, so that a group depends on its prompt and seeds alone.
    """

    radius: Positive = 0.3
    earlier: bool = False

    name = "spell"
    summary = "pushes denoised estimates out of each other's balls; shifts the marginal"
    citation = "arXiv 2410.06025"
    cost = "denoised: O(N^2 d); features: 1 forward + 1 backward per step"
    preferred_kernel = "denoised"
    strengths = {"latent": 1.6, "denoised": 1.6, "features": 1.6}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.earlier and self.kernel not in ("auto", "denoised"):
            raise ParameterError(
                "Expected kernel=denoised of spell with earlier=true, as it compares finished "
                f"latents, got {self.kernel!r}. Leave kernel out, or earlier."
            )

    @property
    def remembers(self) -> bool:
        """Whether earlier seeds are seen."""
        return self.earlier

    def partners(self, state: State) -> int:
        """Return how many others a particle sees, of this group and of earlier ones."""
        return super().partners(state) + (0 if self._fixed(state) is None else 1)

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
        if (fixed := self._fixed(state)) is not None:
            force = force + fixed_force(points, fixed, radius)
        guidance: Tensor = (amount / state.sigma**2) * force.to(state.particles)
        return guidance

    def _fixed(self, state: State) -> Tensor | None:
        """Return the points that do not move, (G, M, d)."""
        return state.earlier if self.earlier else None


def fixed_force(points: Tensor, fixed: Tensor, radius: float) -> Tensor:
    """Return sum_j relu(radius / |x_i - y_j| - 1) (x_i - y_j), (G, N, d).

    Args:
        points: x, (G, N, d).
        fixed: y, (G, M, d).
        radius: of the balls around y.
    """
    fixed, centre = fixed.to(points), points.mean(1, keepdim=True)
    weights = shield_weights(near(squared_distances(points, fixed)), radius).to(points)
    return weighted_differences(weights, points - centre, fixed - centre)
