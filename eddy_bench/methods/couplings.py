"""Couplings of the initial noise, which change the joint law of the particles alone.

Each particle's noise stays exactly standard normal. So every sample keeps the distribution of the
base sampler, for any model, guidance scale, solver and step count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from eddy_bench.errors import ParameterError
from eddy_bench.kernels import exact
from eddy_bench.methods.base import Method
from eddy_bench.sampling.hooks import Hooks

EDGE = 2.0**-31  # uniforms are kept this far from 0 and 1: the normal quantile is infinite there
Init = Literal["iid", "antithetic", "lhs", "sobol"]
SOBOL_LIMIT = torch.quasirandom.SobolEngine.MAXDIM


def normal_quantile(uniform: Tensor) -> Tensor:
    """Return the inverse of the standard normal distribution function, in float64."""
    quantile: Tensor = torch.special.ndtri(exact(uniform).clamp(EDGE, 1 - EDGE))
    return quantile


def antithetic(noise: Tensor, generator: torch.Generator) -> Tensor:
    """Return sqrt(N / (N - 1)) (g_i - mean g) (arXiv 2506.06185, 2605.11311).

    Rows correlate by -1 / (N - 1) and sum to zero.

    Args:
        noise: independent standard normal, (N, d).
        generator: not used.

    Returns:
        (N, d); at N = 2 the pair (z, -z), at N = 1 the noise itself.
    """
    count = len(noise)
    if count == 1:
        return noise
    coupled: Tensor = (count / (count - 1)) ** 0.5 * (noise - noise.mean(0))
    return coupled


def lhs(noise: Tensor, generator: torch.Generator) -> Tensor:
    """Return a Latin hypercube: z_ik = ppf((perm_k(i) + U_ik) / N).

    U_ik is the distribution function of the given noise.

    Args:
        noise: independent standard normal, (N, d).
        generator: draws an independent permutation per coordinate.

    Returns:
        (N, d); each coordinate has one particle in each of N strata of equal probability.
    """
    count = len(noise)
    if count == 1:
        return noise
    uniform = torch.special.ndtr(exact(noise)).clamp(EDGE, 1 - EDGE)
    order = torch.rand(noise.shape, generator=generator, dtype=torch.float64).argsort(0)
    return normal_quantile((order.to(uniform.device) + uniform) / count).to(noise)


def sobol(noise: Tensor, generator: torch.Generator) -> Tensor:
    """Return scrambled Sobol points through the normal quantile, rows in random order.

    The uniforms lie on a 2^-30 grid.

    Args:
        noise: gives the shape, (N, d).
        generator: draws the scrambling and the order.
    """
    count, dimension = noise.shape
    if count == 1:
        return noise
    if dimension > SOBOL_LIMIT:
        raise ParameterError(
            f"sobol goes up to {SOBOL_LIMIT} dimensions, this model has {dimension}. Use lhs."
        )
    seed = int(torch.randint(0, 2**31, (1,), generator=generator))
    points = torch.quasirandom.SobolEngine(dimension, scramble=True, seed=seed).draw(
        count, dtype=torch.float64
    )
    order = torch.randperm(count, generator=generator)
    return normal_quantile(points[order]).to(noise)


COUPLINGS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "antithetic": antithetic,
    "lhs": lhs,
    "sobol": sobol,
}


def couple_initial(init: str, noise: Tensor, generator: torch.Generator) -> Tensor:
    """Apply the coupling of a name; `iid` leaves the noise as it is."""
    return COUPLINGS[init](noise, generator) if init in COUPLINGS else noise


@dataclass(frozen=True)
class Antithetic(Method):
    """Initial noise that sums to zero over the particles; see `antithetic`."""

    name = "antithetic"
    summary = "initial noise that sums to zero; marginal-preserving"
    citation = "arXiv 2506.06185, 2605.11311"
    exactly_marginal = True

    def initial_noise(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return coupled noise, (N, d)."""
        return antithetic(noise, generator)


@dataclass(frozen=True)
class Lhs(Method):
    """Latin hypercube initial noise; see `lhs`."""

    name = "lhs"
    summary = "Latin hypercube initial noise; marginal-preserving"
    citation = "McKay et al. 1979"
    exactly_marginal = True

    def initial_noise(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return coupled noise, (N, d)."""
        return lhs(noise, generator)


@dataclass(frozen=True)
class Sobol(Method):
    """Scrambled Sobol initial noise; see `sobol`."""

    name = "sobol"
    summary = "scrambled Sobol initial noise; marginal-preserving up to a 2^-30 grid"
    citation = "Owen 1998"
    exactly_marginal = True

    def initial_noise(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return coupled noise, (N, d)."""
        return sobol(noise, generator)


class Starts(Hooks):
    """Start from the noise that the field `init` names."""

    init: Init

    @property
    def acting(self) -> frozenset[str]:
        """The hooks that change something: under `init=iid` the start is left alone."""
        return super().acting - ({"initial_noise"} if self.init == "iid" else set())

    def initial_noise(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return the starting noise under `init`, (N, d)."""
        return couple_initial(self.init, noise, generator)


@dataclass(frozen=True)
class StartedMethod(Starts, Method):
    """A method with a choice of the initial noise.

    Args:
        init: coupling of the initial noise: `iid`, `antithetic`, `lhs` or `sobol`.
    """

    init: Init = "iid"
