"""Methods that take a coupling of the initial noise beside what they do."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eddy_bench.methods.base import Method
from eddy_bench.methods.couplings import Init, couple_initial
from eddy_bench.sampling.hooks import Hooks


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
