"""The radial kernel k = exp(-|delta|^2 / gamma) between the particles of a group.

Shapes: G groups, N particles each, d coordinates. Differences x_i - x_j are never stored: every sum
over pairs is a matrix product, so the cost is O(N^2 d) time and O(N^2 + N d) memory per group.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor


@functools.cache
def has_float64(device: torch.device) -> bool:
    """Return whether a device computes in float64; Apple's MPS does not."""
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return False
    return True


def near(values: Tensor) -> Tensor:
    """Return values where work between the particles is done.

    That is their own device, or the CPU where it has no float64.
    """
    return values if has_float64(values.device) else values.cpu()


def exact(values: Tensor) -> Tensor:
    """Return values in float64, where work between the particles is done (`near`)."""
    return near(values).double()


def squared_distances(x: Tensor, y: Tensor | None = None) -> Tensor:
    """Return |x_i - y_j|^2 within each group.

    Args:
        x: (G, N, d).
        y: (G, M, d), or None for x itself (then the diagonal is exactly 0).

    Returns:
        (G, N, M), never negative.

    """
    centre = x.mean(1, keepdim=True)  # nearby points far from the origin would cancel
    a = x - centre
    b = a if y is None else y - centre
    square = (
        a.square().sum(-1)[:, :, None] + b.square().sum(-1)[:, None, :] - 2 * a @ b.mT
    ).clamp_min(0)
    return square * _off_diagonal(square) if y is None else square


def _off_diagonal(like: Tensor) -> Tensor:
    return 1 - torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)


def rbf(square: Tensor, gamma: Tensor | float) -> Tensor:
    """Return exp(-square / gamma)."""
    return torch.exp(-square / gamma)


def lower_median(values: Tensor) -> Tensor:
    """Return the lower middle over the last dimension, which is kept; never 0."""
    return values.median(-1, keepdim=True).values.clamp_min(torch.finfo(values.dtype).eps ** 2)


def _without_diagonal(square: Tensor) -> Tensor:
    """Drop the diagonal of (G, N, N): (G, N, N - 1).

    In one row after another each element of the diagonal begins a run of N + 1.
    """
    groups, count = square.shape[:2]
    runs = square.flatten(1)[:, :-1].reshape(groups, count - 1, count + 1)
    return runs[:, :, 1:].reshape(groups, count, count - 1)


def row_median_bandwidth(square: Tensor) -> Tensor:
    """Return particle guidance's gamma_i, (G, N, 1), as in the authors' code (arXiv 2310.13102).

    gamma_i = median_{j != i}(|delta_ij|)^2 / log(N - 1). At N = 2 that is infinite, so log N is
    used instead. It differs by row, so forces are not reciprocal.
    """
    count = square.shape[-1]
    return lower_median(_without_diagonal(square)) / math.log(count - 1 if count > 2 else 2)


def group_median_bandwidth(square: Tensor) -> Tensor:
    """Return the median of all squared distances of a group over log N, (G, 1, 1)."""
    return (lower_median(_without_diagonal(square).flatten(1)) / math.log(square.shape[-1]))[
        ..., None
    ]


def noise_bandwidth(dimension: int, count: int) -> float:
    """Return EDDY's h with h^2 = 2 d / log N.

    Two particles of pure noise at sigma = 1 then have k = 1 / N.
    """
    return math.sqrt(2 * dimension / math.log(max(count, 2)))


def force_weights(square: Tensor, gamma: Tensor | float) -> Tensor:
    """Return c_ij = (2 / gamma) k_ij with a zero diagonal, (G, N, N).

    So r_ij = -grad_i k_ij = c_ij (x_i - x_j).
    """
    return (2 / gamma) * rbf(square, gamma) * _off_diagonal(square)


def weighted_differences(weights: Tensor, x: Tensor, y: Tensor | None = None) -> Tensor:
    """Return sum_j w_ij (x_i - y_j): (G, N, M), (G, N, d), (G, M, d) -> (G, N, d)."""
    return weights.sum(-1, keepdim=True) * x - weights @ (x if y is None else y)


def repulsive_force(x: Tensor, gamma: Tensor | float) -> Tensor:
    """Return sum_j r_ij, minus the gradient of sum_j k_ij with respect to x_i, (G, N, d)."""
    centred = x - x.mean(1, keepdim=True)
    return weighted_differences(force_weights(squared_distances(x), gamma), centred)


def eddy_field(
    x: Tensor,
    score: Tensor,
    velocity: Tensor,
    gamma: Tensor | float,
    *,
    own_velocity: bool = False,
    divergence: float = 1.0,
) -> Tensor:
    """Return EDDY's Stein field with the kernel on the particles themselves (arXiv 2605.06553).

    psi_i = 1/(N-1) sum_j c_ij { [<v_j, s_i> - (2/gamma) <delta, v_j>] delta
                                 + [(2/gamma) |delta|^2 - (d-1) - <delta, s_i>] v_j }

    Args:
        x: (G, N, d).
        score: (G, N, d).
        velocity: (G, N, d).
        gamma: one number, or (G, 1, 1).
        own_velocity: take v_i in place of v_j (no longer divergence-free).
        divergence: factor of the divergence term, 1 as derived, -1 as printed in version 1 of the
            paper.

    Returns:
        psi, (G, N, d); zero at N = 1.

    """
    count, dimension = x.shape[1:]
    x = x - x.mean(1, keepdim=True)
    square = squared_distances(x)
    gamma = gamma.to(x.dtype) if isinstance(gamma, Tensor) else gamma
    weights = force_weights(square, gamma) / max(count - 1, 1)
    along_score = (x * score).sum(-1)[:, :, None] - score @ x.mT  # <delta_ij, s_i>
    if own_velocity:
        push = (velocity * score).sum(-1)[:, :, None]
        along_velocity = (x * velocity).sum(-1)[:, :, None] - velocity @ x.mT  # <delta_ij, v_i>
    else:
        push = score @ velocity.mT
        along_velocity = x @ velocity.mT - (x * velocity).sum(-1)[:, None, :]  # <delta_ij, v_j>
    on_delta = weights * (push - divergence * (2 / gamma) * along_velocity)
    on_velocity = weights * (divergence * ((2 / gamma) * square - (dimension - 1)) - along_score)
    drag = on_velocity.sum(-1, keepdim=True) * velocity if own_velocity else on_velocity @ velocity
    return weighted_differences(on_delta, x) + drag
