"""What a `steer` block tells of its calls."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from eddy_bench.errors import ParameterError


@dataclass
class Steering:
    """A record of a `steer` block.

    Attributes:
        steps: of the solver.
        active: particles that were not given up in the last call, (G, N), bool; None: all.
        finished: latents at the end of the last call, (G, N, d); None where it did not return.
        calls_outside: calls from other threads and tasks, which were bare.

    """

    steps: int = 0
    active: Tensor | None = None
    finished: Tensor | None = None
    calls_outside: int = 0


def check_earlier(earlier: Tensor, particles: Tensor) -> None:
    """Raise ParameterError for earlier latents of other groups than the particles (G, N, d)."""
    groups, _, dimension = particles.shape
    if earlier.ndim != 3 or (earlier.shape[0], earlier.shape[2]) != (groups, dimension):
        raise ParameterError(
            f"Expected earlier of shape ({groups}, M, {dimension}), got {tuple(earlier.shape)}. "
            "Give `finished` of the records of earlier calls."
        )
