"""Previews: what the particles look like after the first few steps of a call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from eddy_bench.errors import ParameterError
from eddy_bench.sampling.hooks import Hooks
from eddy_bench.sampling.state import State
from eddy_bench.sampling.steer import steer


class _SeenEnough(Exception):
    """Leaves a pipeline's call from inside a step."""


@dataclass
class Preview:
    """Hold the state at the last of the first steps, as `steer(seen=)` is handed it.

    Attributes:
        steps: network evaluations of a particle that are looked at.
        stops: end the pipeline's call there.
        state: of the particles at that step; None before.

    """

    steps: int
    stops: bool = True
    state: State | None = None

    def __call__(self, state: State) -> None:
        """Keep the state of the last step that is looked at."""
        if state.step + 1 == self.steps:
            self.state = state
            if self.stops:
                raise _SeenEnough

    def reached(self) -> State:
        """Return the state.

        Raises:
            ParameterError: the call had fewer steps.

        """
        if self.state is None:
            raise ParameterError(
                f"Expected preview of at most as many steps as are drawn, got {self.steps}. "
                "Lower preview, or raise --steps."
            )
        return self.state


def preview(pipe: Any, steps: int, call: Callable[[], object], **steering: Any) -> State:
    """Run a pipeline's call for its first steps only and return the state that it reached.

    Args:
        pipe: as in `steer`.
        steps: network evaluations of a particle; `state.denoised` is the last one's estimate.
        call: of the pipeline.
        steering: further arguments of `steer`.

    Raises:
        ParameterError: the call has fewer steps.

    """
    watch = Preview(steps)
    with steer(pipe, Hooks(), seen=watch, **steering), suppress(_SeenEnough):
        call()
    return watch.reached()
