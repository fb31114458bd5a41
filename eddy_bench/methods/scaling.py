"""Guidance measured by the model's own output, so that a strength means the same everywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from eddy_bench.sampling.state import State


def shares_of_output(guidance: Tensor, state: State) -> Tensor:
    """Return |sigma g_i| / |eps_i| of each particle, (G, N, 1): guidance over the model's output.

    Args:
        guidance: the score term g, (G, N, d).
        state: of the same particles.

    """
    output = state.eps.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(state.eps.dtype).tiny)
    shares: Tensor = state.sigma * guidance.norm(dim=-1, keepdim=True) / output
    return shares


def relative_guidance(
    guidance: Tensor, state: State, share: float, cap: float | None = None
) -> Tensor:
    """Rescale the guidance of each group to a share of the model's output.

    The root mean square over the particles of a group of |sigma g_i| / |eps_i| becomes |share|;
    single particles are cut back to `cap`. Directions stay, as do the proportions within a group up
    to the cap; guidance that is 0 stays 0. The factor depends on the particles themselves, so that
    a drift that was divergence-free is not any more (ours; measured in docs/audit.md).

    Args:
        guidance: the score term g, (G, N, d).
        state: of the same particles.
        share: of the output, for instance 0.3; a negative one turns the guidance round.
        cap: the largest share of a single particle; None for no bound.

    Returns:
        The rescaled score term, (G, N, d).

    """
    shares = shares_of_output(guidance, state)
    mean = shares.square().mean(1, keepdim=True).sqrt()
    factor = torch.where(mean > 0, share / mean.clamp_min(torch.finfo(mean.dtype).tiny), 0.0)
    if cap is not None:
        largest = cap / shares.clamp_min(torch.finfo(shares.dtype).tiny)
        factor = factor.clamp(-largest, largest)
    return factor * guidance
