"""Coupled step noise: stochastic steps draw noise that repels similar particles.

No particle's law changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from eddy_bench.kernels import exact, group_median_bandwidth, squared_distances
from eddy_bench.methods.guided import KernelMethod, kernel_points
from eddy_bench.sampling.state import State

FLOOR = 1e-6  # lambda: added to each degree, so that an isolated particle has independent noise
ZERO = 1e-12  # eigenvalues below this are zero
SWEEPS = 30  # of coordinate descent, after which correlations stand still
Rule = Literal["laplacian", "maxcut"]


def laplacian_root(log_similarity: Tensor, strength: float) -> Tensor:
    """Return the symmetric root S of L = I - a D^-1/2 W D^-1/2.

    L is the normalised Laplacian of a similarity W. It has unit diagonal and is positive
    semi-definite, so xi = S eta has standard normal rows for independent eta.

    Args:
        log_similarity: log W, (G, N, N), symmetric; the diagonal is left out.
        strength: a in [0, 1].

    Returns:
        S, (G, N, N), float64.
    """
    logs = log_similarity.double()
    count = logs.shape[-1]
    logs = logs.masked_fill(torch.eye(count, dtype=torch.bool, device=logs.device), -torch.inf)
    floor = torch.full_like(logs[..., :1], FLOOR).log()
    degree = torch.logsumexp(torch.cat([logs, floor], -1), -1)  # log (lambda + sum_j W_ij)
    laplacian = -strength * torch.exp(logs - (degree[:, :, None] + degree[:, None, :]) / 2)
    laplacian = laplacian + torch.eye(count, dtype=laplacian.dtype, device=laplacian.device)
    return symmetric_root(laplacian)


def symmetric_root(correlation: Tensor) -> Tensor:
    """Return the symmetric root, with rows of length 1, of correlation matrices (G, N, N)."""
    values, vectors = torch.linalg.eigh(correlation)
    values = values.clamp_min(0).where(values > ZERO, torch.zeros_like(values))
    root = (vectors * values.sqrt()[:, None, :]) @ vectors.mT
    unit_rows: Tensor = root / root.square().sum(-1, keepdim=True).sqrt()
    return unit_rows


def maxcut_rows(log_similarity: Tensor) -> Tensor:
    """Return unit rows v_i that minimise sum_ij W_ij <v_i, v_j>: the relaxed max-cut.

    If noise moved the features of particles i and j by Jacobians with tr J_i^T J_j = W_ij, V V^T
    would be the correlation that spreads them most. By coordinate descent from the Laplacian's
    root, v_i = -sum_j W_ij v_j / |...| (mixing method, Wang & Kolter 2017).

    Args:
        log_similarity: log W, (G, N, N), symmetric; the diagonal is left out.

    Returns:
        V, (G, N, N), float64.
    """
    count = log_similarity.shape[-1]
    alone = torch.eye(count, dtype=torch.bool, device=log_similarity.device)
    weights = torch.softmax(log_similarity.double().masked_fill(alone, -torch.inf), -1)
    rows = laplacian_root(log_similarity, 1.0)
    for _ in range(SWEEPS):
        for i in range(count):
            away = -(weights[:, i, None, :] @ rows)[:, 0]
            size = away.norm(dim=-1, keepdim=True)
            rows[:, i] = torch.where(size > ZERO, away / size, rows[:, i])
    return rows


def maxcut_root(log_similarity: Tensor, strength: float) -> Tensor:
    """Return the symmetric root of (1 - a) I + a V V^T with V of `maxcut_rows`, (G, N, N).

    It has unit diagonal and is positive semi-definite.
    """
    rows = maxcut_rows(log_similarity)
    alone = torch.eye(rows.shape[-1], dtype=rows.dtype, device=rows.device)
    return symmetric_root((1 - strength) * alone + strength * (rows @ rows.mT))


@dataclass(frozen=True)
class Coupled(KernelMethod):
    """xi = S eta at every stochastic step, with S from the particles' similarity before the step.

    Given the past, each row of xi is standard normal and independent of it: every particle follows
    exactly the law of the base sampler, for any score, guidance scale, solver and step count.
    Similar particles get opposed noise. The similarity is exp(-|delta|^2 / gamma), with gamma =
    median / log N unless `bandwidth` is set.

    Args:
        strength: a in [0, 1]; 0 is independent noise.
        rule: `laplacian` of the similarity, or `maxcut`, which opposes noise as much as unit rows
            can, also between particles that nothing resembles; it suits separate modes.
    """

    strength: Annotated[float, Field(ge=0, le=1)] = 1.0
    rule: Rule = "laplacian"

    name = "coupled"
    summary = (
        "step noise that repels similar particles; marginal-preserving; stochastic solvers only"
    )
    citation = "normalised graph Laplacian (Chung 1997); see its docstring"
    exactly_marginal = True
    cost = "one N x N eigendecomposition per step; features: N forward"
    preferred_kernel = "denoised"

    def step_noise(self, noise: Tensor, state: State) -> Tensor:
        """Turn independent noise (G, N, d) into coupled noise of the same shape."""
        if self.strength == 0 or noise.shape[1] < 2 or self.gate(state) == 0:
            return noise
        kernel = self.resolved_kernel(state.features is not None)
        points, features = kernel_points(kernel, state)
        values = features.values(points.flatten(0, 1)).unflatten(0, points.shape[:2])
        square = squared_distances(exact(values))
        logs = -square / self.gamma(state, group_median_bandwidth(square))
        root = (maxcut_root if self.rule == "maxcut" else laplacian_root)(logs, self.strength)
        return (root.to(noise) @ noise).to(noise)
