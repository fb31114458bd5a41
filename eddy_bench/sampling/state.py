"""The state of a group's particles that a method sees at a step of a solver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from eddy_bench.sampling.feature_maps import FeatureMap


@dataclass(frozen=True)
class StepInfo:
    """The info of a network evaluation.

    Args:
        step: steps done.
        steps: of the whole call.
        sigma: noise level sigma_t / alpha_t before the step.
        sigma_next: noise level after the step.
        time: timestep over the number of training steps, in [0, 1]: 1 is pure noise; of a flow it
            is sigma_t.
        pure_noise: alpha_t is 0 here, and sigma stands for a limit.
        scale: w of the call's guidance null + w (conditional - null); None without guidance.
        memory: of the method, kept over the steps of a call, empty at its beginning.
        streams: a generator per particle of the group at hand, its own in every batch.
    """

    step: int
    steps: int
    sigma: float
    sigma_next: float
    time: float = 0.0
    pure_noise: bool = False
    scale: float | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    streams: tuple[torch.Generator, ...] = ()

    @property
    def share(self) -> float:
        """Steps done / steps, in [0, 1)."""
        return self.step / self.steps

    def noise(self, like: Tensor) -> Tensor:
        """Return independent normal noise of the shape (N, ...) of `like`, by particle."""
        drawn = [
            torch.randn(like.shape[1:], generator=stream, dtype=torch.float32)
            for stream in self.streams
        ]
        return torch.stack(drawn).to(like)


@dataclass(frozen=True)
class State:
    """The particles of G groups in variance-exploding coordinates, before a step and any edit.

    A solver's sample is x = alpha_t x0 + sigma_t eps.

    Args:
        particles: xb = x / alpha_t, (G, N, d).
        score: grad log p(xb) = -eps / sigma, (G, N, d).
        denoised: E[x0 | xb], (G, N, d).
        sigma: noise level sigma_t / alpha_t of the particles.
        share: steps done / steps, in [0, 1).
        step: steps done.
        steps: of the whole call.
        pure_noise: alpha_t is 0 here, so that xb and sigma stand for a limit: forces that grow as
            1 / alpha_t must skip this step.
        generators: one per group, for probes.
        features: map on denoised estimates, or None where the model has none.
        sigma_next: noise level after the step.
        memory: of the method, kept over the steps of a call, empty at its beginning.
        earlier: finished latents of each prompt's earlier groups, (G, M, d), for a method that
            remembers them; None where there are none.
        quality: from denoised estimates (G, n, d) to how well each fits its prompt, (G, n); None
            where nothing judges that.
    """

    particles: Tensor
    score: Tensor
    denoised: Tensor
    sigma: float
    share: float = 0.0
    step: int = 0
    steps: int = 1
    pure_noise: bool = False
    generators: tuple[torch.Generator, ...] = ()
    features: FeatureMap | None = None
    sigma_next: float = 0.0
    memory: dict[str, Any] = field(default_factory=dict)
    earlier: Tensor | None = None
    quality: Callable[[Tensor], Tensor] | None = None

    @property
    def flow_time(self) -> float:
        """The noise level as a flow's time, sigma / (1 + sigma), in [0, 1]: 1 is pure noise."""
        return 1.0 if self.pure_noise else self.sigma / (1 + self.sigma)

    @property
    def eps(self) -> Tensor:
        """The predicted noise, (G, N, d)."""
        return -self.sigma * self.score
