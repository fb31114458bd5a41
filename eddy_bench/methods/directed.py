"""Methods that climb a diversity of the group by a step of a stated length."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from eddy_bench.methods.forces import kernel_points, pulled_force
from eddy_bench.methods.guiding_method import GuidingMethod
from eddy_bench.sampling.feature_maps import Identity, UnitVectors
from eddy_bench.sampling.state import State


@dataclass(frozen=True)
class DirectedMethod(GuidingMethod):
    """A method that follows the gradient of an objective of the group's features.

    Under scale=fixed each particle's step has the length that its paper gives it (`length`), in the
    gradient's direction; under scale=relative the gradients keep their proportions.
    """

    windows: ClassVar[dict[str, str]] = {"latent": "0..", "denoised": "0..", "features": "0.."}
    unit: ClassVar[bool] = False  # latents and denoised estimates are compared by direction

    def term(self, kernel: str, state: State, amount: float) -> Tensor:
        """Return the score term, (G, N, d)."""
        points, features = kernel_points(kernel, state)
        if self.unit and isinstance(features, Identity):
            features = UnitVectors()
        force = pulled_force(points, features, lambda square: self.weights(square, state))
        force = force.to(state.particles)
        if self.resolved_scale(kernel) == "relative":
            return amount * force
        tiny = torch.finfo(force.dtype).tiny
        direction = force / force.norm(dim=-1, keepdim=True).clamp_min(tiny)
        guidance: Tensor = amount * self.length(state) * direction
        return guidance

    @abstractmethod
    def weights(self, square: Tensor, state: State) -> Tensor:
        """Return the weights of the gradient, (G, N, N), from squared distances."""

    def length(self, state: State) -> Tensor:
        """Return the length of a particle's g at strength 1, (G, N, 1).

        |xb| / (sigma (sigma - sigma_next)) unless a paper says otherwise: the step moves xb by
        |xb| then.
        """
        fall = max(state.sigma - state.sigma_next, 1e-12)
        length: Tensor = state.particles.norm(dim=-1, keepdim=True) / (state.sigma * fall)
        return length
