"""CADS: noise on the condition, annealed (Sadat et al., ICLR 2024, arXiv 2310.17347)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from eddy_bench.errors import ParameterError
from eddy_bench.methods.couplings import StartedMethod
from eddy_bench.sampling.state import StepInfo

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


@dataclass(frozen=True)
class Cads(StartedMethod):
    """Text embeddings y become sqrt(gamma) y + s sqrt(1 - gamma) n, rescaled to y's own moments.

    gamma(t) = 1 for t <= tau1, 0 for t >= tau2 and linear between, t the timestep over the number
    of training steps (1 is pure noise). Mean and deviation are scalars over the tokens of one
    sample, padding aside, for each of a model's text embeddings; pooled ones are noised too, as in
    third-party ports. The null branch is left alone: whether the paper noises it was not found.
    With psi = 1 and gamma = 0 the deviation divides s out, so tau1 is the sweep.

    Args:
        tau1: where the condition is whole again; 1 is off.
        tau2: where noise begins to give way.
        s: scale of the noise; 0 is off. The paper's 0.25 on Stable Diffusion; 0.05 to 0.1 in its
            ablation; 0.1 was tuned on the embedded model (benchmarks/embedded/tuning_methods.csv).
        psi: how much of the rescaled embedding is mixed in; the paper's 1.
    """

    tau1: Share = 0.6
    tau2: Share = 0.9
    s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    psi: Share = 0.5

    name = "cads"
    summary = "annealed noise on the text embedding; shifts the marginal"
    citation = "arXiv 2310.17347"
    interacts = False
    sweep = "tau1"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tau1 < 1 and self.tau1 >= self.tau2:
            raise ParameterError(
                f"Expected tau1 of cads below tau2, or 1 for none, got {self.tau1:g} and "
                f"{self.tau2:g}."
            )

    def condition(self, embeds: Tensor, mask: Tensor, info: StepInfo) -> Tensor:
        """Return the noised embeddings, (N, tokens, width)."""
        noise = info.noise(embeds)  # drawn at every step, so that tau moves nothing else
        gamma = self.gamma(info.time)
        if gamma == 1 or self.s == 0:
            return embeds
        noised = gamma**0.5 * embeds + self.s * (1 - gamma) ** 0.5 * noise
        mean, deviation = _moments(noised, mask)
        own_mean, own_deviation = _moments(embeds, mask)
        rescaled = (noised - mean) / deviation * own_deviation + own_mean
        mixed: Tensor = self.psi * rescaled + (1 - self.psi) * noised
        return mixed

    def gamma(self, time: float) -> float:
        """Return how much of the embedding is left at a time in [0, 1]."""
        if self.tau1 >= 1:
            return 1.0
        return min(max((self.tau2 - time) / (self.tau2 - self.tau1), 0.0), 1.0)


def _moments(embeds: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation over the tokens of each sample, (N, 1, 1)."""
    kept = mask[..., None].to(embeds)
    count = (kept.sum((1, 2), keepdim=True) * embeds.shape[-1]).clamp_min(1)
    mean = (embeds * kept).sum((1, 2), keepdim=True) / count
    square = ((embeds - mean).square() * kept).sum((1, 2), keepdim=True) / count
    return mean, square.sqrt().clamp_min(1e-12)
