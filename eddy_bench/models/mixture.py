"""Gaussian mixtures: exact denoiser, score, density and samples, and a point's component."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture with K components in d dimensions, float64.

    Component k has covariance Q_k diag(variances_k) Q_k^T.
    """

    means: Tensor  # (K, d)
    variances: Tensor  # (K,) for isotropic components, or (K, d)
    weights: Tensor  # (K,), positive, summing to 1
    # the eigenvectors Q_k as columns, (K, d, d); None is the coordinate axes
    basis: Tensor | None = None

    @property
    def dimension(self) -> int:
        """Number of coordinates of a point, d."""
        return self.means.shape[1]

    def denoise(
        self, x: Tensor, alpha_t: float, sigma_t: float, log_weights: Tensor | None = None
    ) -> Tensor:
        """Return E[x0 | x] for x = alpha_t x0 + sigma_t eps, (..., d); exact at alpha_t = 0 too.

        It is the mean over components, weighted by their posterior, of
        mu_k + alpha_t C_k (alpha_t^2 C_k + sigma_t^2)^-1 (x - alpha_t mu_k).

        Args:
            x: (..., d).
            alpha_t: signal level.
            sigma_t: noise level.
            log_weights: of the components, (..., K), in the place of the mixture's own.
        """
        joint = self._log_joint(x, alpha_t, sigma_t)
        if log_weights is not None:
            joint = joint - self.weights.log() + log_weights
        posterior = _shares(joint)  # (..., K)
        gain = alpha_t * self.variances / (alpha_t**2 * self.variances + sigma_t**2)
        if self.variances.ndim == 1:
            means = (1 - alpha_t * gain)[:, None] * self.means
            return posterior @ means + (posterior @ gain)[..., None] * x
        moved = gain * self._rotated(x, alpha_t)
        if self.basis is not None:
            moved = torch.einsum("kde,...ke->...kd", self.basis, moved)
        return (posterior[..., None] * (self.means + moved)).sum(-2)

    def score(self, x: Tensor, sigma: float) -> Tensor:
        """Return the gradient of log p at points x of x0 + sigma eps, (..., d); differentiable."""
        return (self.denoise(x, 1.0, sigma) - x) / sigma**2

    def log_density(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        """Return the log density at points x of x0 + sigma eps, (...)."""
        volume = self.dimension / 2 * torch.log(x.new_tensor(2 * torch.pi))
        return torch.logsumexp(self._log_joint(x, 1.0, sigma), -1) - volume

    def components(self, x: Tensor) -> Tensor:
        """Return the most probable component of each point, (...), int64."""
        return self._log_joint(x, 1.0, 0.0).argmax(-1)

    def mahalanobis(self, x: Tensor) -> Tensor:
        """Return the squared Mahalanobis distance to the most probable component, over d, (...).

        It is about 1 for samples of separated components.
        """
        component = self.components(x)[..., None]
        return self._squares(x, 1.0, 0.0).gather(-1, component)[..., 0] / self.dimension

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw exact samples, (count, d)."""
        component = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.dimension, dtype=self.means.dtype, generator=generator)
        scale = self.variances[component].sqrt()
        moved = noise * (scale if scale.ndim == 2 else scale[:, None])
        if self.basis is not None:
            turned = torch.stack([moved @ axes.mT for axes in self.basis], 1)
            moved = turned[torch.arange(count), component]
        return self.means[component] + moved

    def scale(self) -> float:
        """Return the root of the mean squared distance to the mixture's mean, per coordinate."""
        centre = self.weights @ self.means
        inner = self.variances if self.variances.ndim == 1 else self.variances.mean(1)
        between = (self.means - centre).square().mean(1)
        return float((self.weights @ (inner + between)).sqrt())

    def _rotated(self, x: Tensor, alpha_t: float) -> Tensor:
        """Return offsets x - alpha_t mu_k on component k's axes, (..., K, d)."""
        offset = x[..., None, :] - alpha_t * self.means
        if self.basis is None:
            return offset
        return torch.einsum("...kd,kde->...ke", offset, self.basis)

    def _squares(self, x: Tensor, alpha_t: float, sigma_t: float) -> Tensor:
        """Return squared Mahalanobis distances at a noise level, (..., K)."""
        total = alpha_t**2 * self.variances + sigma_t**2
        if self.variances.ndim == 2:
            return (self._rotated(x, alpha_t).square() / total).sum(-1)
        means = alpha_t * self.means
        square = x.square().sum(-1, keepdim=True) + means.square().sum(-1) - 2 * x @ means.mT
        return square.clamp_min(0) / total

    def _log_joint(self, x: Tensor, alpha_t: float, sigma_t: float) -> Tensor:
        """Return log w_k N(x; alpha_t mu_k, alpha_t^2 C_k + sigma_t^2), (..., K).

        The factor (2 pi)^(-d/2) is left out.
        """
        total = alpha_t**2 * self.variances + sigma_t**2
        volume = total.log().sum(-1) if total.ndim == 2 else self.dimension * total.log()
        return self.weights.log() - 0.5 * (self._squares(x, alpha_t, sigma_t) + volume)


def _shares(log_weights: Tensor) -> Tensor:
    """Return the softmax over the last dimension.

    Torch's own takes one exponential after the other where that dimension is short.
    """
    weights = torch.exp(log_weights - log_weights.detach().amax(-1, keepdim=True))
    return weights / weights.sum(-1, keepdim=True)


@dataclass(frozen=True)
class Classes:
    """Classes c that share the components of a mixture, with weights p(k | c) = softmax(W e_c).

    p(x) is the average over classes, the law of the null embedding; scores of both are closed
    form, so null + w (conditional - null) is exact classifier-free guidance at any w. A changed
    embedding stands for changed weights.
    """

    mixture: Mixture  # the components; its weights are not used
    shares: Tensor  # p(k | c), (C, K), positive
    turn: Tensor  # W, (K, K), orthogonal

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
    drawn = torch.randn(size, size, generator=generator, dtype=torch.float64)
    turn: Tensor = torch.linalg.qr(drawn)[0]
    return turn
