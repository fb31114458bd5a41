"""Contrastive noise optimisation of the start (arXiv 2510.03813, ICLR 2026)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from eddy_bench.kernels import exact
from eddy_bench.methods.base import Count, Positive
from eddy_bench.methods.couplings import StartedMethod
from eddy_bench.sampling.state import State


@dataclass(frozen=True)
class Cno(StartedMethod):
    """Starting noise that falls in a contrastive loss of its denoised estimates f_i.

    L = mean_i [-cos(f_i, f_i^ref) / (gamma tau) + log sum_j exp(cos(f_i, f_j) / tau)], gamma = 1 /
    (tau ln(N - 1) + 1). f is x0 after one evaluation at the first noise level, averaged to 16 x 16,
    and f^ref that of the noise as it was drawn. The network is held constant, so each iteration is
    one forward pass, which `nfe` counts.

    Found: loss, gamma, tau, window, the stopped gradient. Not found: optimiser, rate and
    iterations. Ours: the gradients of a group, scaled to a root mean square step of rate sqrt(d),
    which falls linearly to 0 over the iterations; it goes across each z, which keeps its own
    length, so that |z|^2 keeps its law exactly; estimates are of the conditional branch alone, as
    those of guidance 4 answer with the opposite sign and the loss rises (on the embedded model, at
    every rate). Packed latents are averaged where their tokens make a square, and points not at
    all.

    Args:
        iterations: extra network evaluations; 0 is off.
        rate: length of the first step over that of the noise.
        temperature: tau.
        window: height and width that latents are averaged to.
    """

    iterations: Annotated[int, Field(ge=0)] = 5
    rate: Positive = 0.05
    temperature: Positive = 0.1
    window: Count = 16

    name = "cno"
    summary = "starting noise optimised until estimates part; shifts the marginal"
    citation = "arXiv 2510.03813"
    cost = "network evaluations of its iterations"
    audited = False  # exact tasks have no network to see through
    sweep = "iterations"

    @property
    def acting(self) -> frozenset[str]:
        """The hooks that change something."""
        return super().acting - (set() if self.iterations else {"improved_start"})

    @property
    def extra_starts(self) -> int:
        """Return the iterations."""
        return self.iterations

    def improved_start(self, noise: Tensor, state: State) -> Tensor:
        """Return the noise after one iteration, (G, N, *shape)."""
        if noise.shape[1] == 1:
            return noise
        done = state.memory.setdefault("cno", 0)
        points = exact(state.denoised).reshape(noise.shape)
        reference = state.memory.setdefault("cno reference", pooled(points, self.window))
        state.memory["cno"] = done + 1
        with torch.enable_grad():
            leaf = points.detach().requires_grad_()
            losses = contrast(pooled(leaf, self.window), reference, self.temperature)
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        old, steep = exact(noise).flatten(2), gradient.flatten(2)
        steep = (
            steep - (steep * old).sum(-1, keepdim=True) / old.square().sum(-1, keepdim=True) * old
        )
        size = steep.square().sum(-1).mean(1).sqrt()[:, None, None].clamp_min(1e-30)
        rate = self.rate * (1 - done / self.iterations) * old.shape[-1] ** 0.5
        moved = old - rate * steep / size
        kept = old.norm(dim=-1, keepdim=True) / moved.norm(dim=-1, keepdim=True)
        better: Tensor = (kept * moved).reshape(noise.shape).to(noise)
        return better


def contrast(features: Tensor, reference: Tensor, temperature: float) -> Tensor:
    """Return the loss of each group, (G,), from features (G, N, F)."""
    count, unit = features.shape[1], normalize(features, dim=-1)
    gamma = 1 / (temperature * math.log(count - 1) + 1)
    kept = (unit * normalize(reference, dim=-1)).sum(-1) / (gamma * temperature)
    loss: Tensor = ((unit @ unit.mT / temperature).logsumexp(-1) - kept).mean(1)
    return loss


def pooled(points: Tensor, window: int) -> Tensor:
    """Return latents (G, N, *shape) averaged to at most window x window, (G, N, F)."""
    side = math.isqrt(points.shape[2])
    if points.ndim == 4 and side**2 == points.shape[2]:  # packed: tokens of a square image
        points = points.mT.unflatten(-1, (side, side))
    if points.ndim < 5:
        return points.flatten(2)
    height, width = (min(window, length) for length in points.shape[-2:])
    small = adaptive_avg_pool2d(points.flatten(0, 1), (height, width))
    return small.reshape(*points.shape[:2], -1)
