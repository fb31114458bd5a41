"""Methods that couple the initial noise, by `eddy_bench.sampling.couplings`, and do no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from eddy_bench.methods.base import Method
from eddy_bench.sampling.couplings import antithetic, lhs, sobol


@dataclass(frozen=True)
class Antithetic(Method):
    """Initial noise that sums to zero over the particles; see `antithetic`."""

    name: ClassVar[str] = "antithetic"
    summary: ClassVar[str] = "initial noise that sums to zero; each sample keeps its law exactly"
    citation: ClassVar[str] = "arXiv 2506.06185, 2605.11311"
    exact_law: ClassVar[bool] = True

    def initial_noise(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return coupled noise, (N, d)."""
        return antithetic(noise, generator)


@dataclass(frozen=True)
class Lhs(Method):
    """Latin hypercube initial noise; see `lhs`."""

    name: ClassVar[str] = "lhs"
    summary: ClassVar[str] = "Latin hypercube initial noise; each sample keeps its law exactly"
    citation: ClassVar[str] = "McKay et al. 1979"
    exact_law: ClassVar[bool] = True

    def initial_noise(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return coupled noise, (N, d)."""
        return lhs(noise, generator)


@dataclass(frozen=True)
class Sobol(Method):
    """Scrambled Sobol initial noise; see `sobol`."""

    name: ClassVar[str] = "sobol"
    summary: ClassVar[str] = (
        "scrambled Sobol initial noise; each sample keeps its law up to a 2^-30 grid"
    )
    citation: ClassVar[str] = "Owen 1998"
    exact_law: ClassVar[bool] = True

    def initial_noise(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return coupled noise, (N, d)."""
        return sobol(noise, generator)
