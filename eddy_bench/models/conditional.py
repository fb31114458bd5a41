"""Classes of a mixture with a condition, whose guidance is exact."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from eddy_bench.models.mixture import Mixture


@dataclass(frozen=True)
class Classes:
    """Classes c that share the components of a mixture, with weights p(k | c) = softmax(W e_c).

    p(x) is the average over classes, the law of the null embedding; scores of both are closed
    form, so null + w (conditional - null) is exact classifier-free guidance at any w. A changed
    embedding stands for changed weights.

    Args:
        mixture: the components; its weights are not used.
        shares: p(k | c), (C, K), positive.
        turn: W, (K, K), orthogonal.

    """

    mixture: Mixture
    shares: Tensor
    turn: Tensor

    @property
    def null(self) -> Tensor:
        """The embedding of p(x), (K,)."""
        null: Tensor = self.turn.mT @ self.shares.mean(0).log()
        return null

    def number(self, prompt: str) -> int:
        """Return the class that a prompt names by its last number; 0 without one."""
        found = re.findall(r"\d+", prompt)
        return int(found[-1]) % len(self.shares) if found else 0

    def embedding(self, prompt: str) -> Tensor:
        """Return e_c, (K,)."""
        embedding: Tensor = self.turn.mT @ self.shares[self.number(prompt)].log()
        return embedding

    def law(self, prompt: str) -> Mixture:
        """Return p(x | c)."""
        return replace(self.mixture, weights=self.shares[self.number(prompt)])

    def denoise(self, x: Tensor, alpha_t: float, sigma_t: float, embeds: Tensor) -> Tensor:
        """Return E[x0 | x, e] for x = alpha_t x0 + sigma_t eps, (rows, d). embeds: (rows, K)."""
        log_weights = torch.log_softmax(embeds.double() @ self.turn.mT, -1)
        return self.mixture.denoise(x, alpha_t, sigma_t, log_weights)


def orthogonal(size: int, seed: int) -> Tensor:
    """Return a random orthogonal matrix, (size, size), float64."""
    generator = torch.Generator().manual_seed(seed)
    turn: Tensor = torch.linalg.qr(
        torch.randn(size, size, generator=generator, dtype=torch.float64)
    )[0]
    return turn
