"""Diversities of a group's features, by the weights of their gradients.

Each function takes squared distances (G, N, N) and returns w, (G, N, N), such that the gradient of
the stated objective by phi_i is sum_j w_ij (phi_i - phi_j). Bandwidths are held constant. Float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

JITTER = 1e-6  # on the diagonal of kernel matrices that are near singular


def _identity(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)


def inverse(matrices: Tensor) -> Tensor:
    """Return inverses, (G, N, N); of a singular matrix what is not finite. Nothing waits for it."""
    inverses: Tensor = torch.linalg.inv_ex(matrices).inverse
    return inverses


def rke_weights(square: Tensor, gamma: Tensor | float) -> Tensor:
    """Return the gradient of log RKE, RKE = 1 / |K / N|_F^2, K = exp(-square / gamma).

    arXiv 2506.10173 writes gamma = 2 sigma^2: 4 k^2 / (sigma^2 |K|^2).
    """
    kernel = torch.exp(-square.double() / gamma)
    weights: Tensor = 8 * kernel.square() / (gamma * kernel.square().sum((1, 2), keepdim=True))
    return weights


def vendi_weights(square: Tensor, gamma: Tensor | float) -> Tensor:
    """Return the gradient of log Vendi, the entropy of the eigenvalues of K / N.

    d entropy = -tr((log(K / N) + 1) dK / N); the diagonal of K does not move.
    """
    kernel = torch.exp(-square.double() / gamma)
    count = kernel.shape[-1]
    values, vectors = torch.linalg.eigh(kernel / count + JITTER * _identity(kernel))
    logarithm = (vectors * values.clamp_min(JITTER / 2).log()[:, None, :]) @ vectors.mT
    weights: Tensor = 4 * logarithm * kernel / (gamma * count)
    return weights


def determinant_weights(square: Tensor, scale: Tensor | float, quality: Tensor) -> Tensor:
    """Return the gradient of log det L - log det(L + 1), L_ij = q_i q_j exp(-scale square).

    The log probability of a determinantal point process (arXiv 2504.07894).

    Args:
        square: (G, N, N).
        scale: h over the median squared distance.
        quality: q, (G, N), held constant.
    """
    kernel = torch.exp(-scale * square.double())
    likeness = quality[:, :, None] * quality[:, None, :] * kernel
    likeness = likeness + JITTER * _identity(kernel)
    inverses = inverse(likeness) - inverse(likeness + _identity(kernel))
    weights: Tensor = -4 * scale * inverses * likeness
    return weights


def volume_weights(square: Tensor, scale: Tensor | float) -> Tensor:
    """Return the gradient of 1/2 log det(1 + scale K), K the Gram matrix of centred features.

    The volume that a group spans (arXiv 2510.09060).
    """
    count = square.shape[-1]
    centring = _identity(square).double() - 1 / count
    gram = -centring @ square.double() @ centring / 2
    weights: Tensor = -scale * centring @ inverse(_identity(gram) + scale * gram) @ centring
    return weights


def shield_weights(square: Tensor, radius: Tensor | float) -> Tensor:
    """Return relu(radius / distance - 1): out of the ball of every other point (arXiv 2410.06025).

    It is minus the gradient of 1/2 relu(radius - distance)^2 summed over pairs.
    """
    distance = square.double().sqrt()
    inverse = torch.where(distance > 0, 1 / distance.clamp_min(1e-30), 0.0)
    return (radius * inverse - 1).clamp_min(0)
