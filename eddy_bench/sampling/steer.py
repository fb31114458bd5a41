"""`steer`: let a method act on everything that a diffusers pipeline draws inside a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eddy_bench.errors import ModelError, ParameterError
from eddy_bench.sampling.call import MapMaker, Settings, Steering, title
from eddy_bench.sampling.families import blocks_of, family_of
from eddy_bench.sampling.hooks import Hooks
from eddy_bench.sampling.session import Session, watched
from eddy_bench.sampling.state import State

# Pipelines by the beginning of their names
REFUSED = (
    "KandinskyCombined",
    "KandinskyPipeline",
    "KandinskyPrior",
    "KandinskyV22",
    "Kandinsky3",
    "StableCascade",
    "StableUnCLIP",
    "Wuerstchen",
    "IFPipeline",
)


@contextmanager
def steer(
    pipe: Any,
    method: Hooks,
    *,
    particles: int | None = None,
    features: MapMaker | None = None,
    probes: Sequence[torch.Generator] | None = None,
    generator: Sequence[torch.Generator] | None = None,
    seed: int = 0,
    streams: Sequence[torch.Generator] | None = None,
    keep: int | None = None,
    earlier: Tensor | None = None,
    quality: Callable[[Tensor], Tensor] | None = None,
    seen: Callable[[State], None] | None = None,
) -> Iterator[Steering]:
    """Let `method` act on everything that `pipe` draws inside the block.

    It acts in calls of this pipeline object, from the thread and the task that opened the block.
    Other pipelines draw as without it, also those that share its scheduler (`from_pipe`).
    Each call begins anew: nothing lasts from one to the next but the record. Blocks of one pipeline
    act one after the other, and may be closed in any order.

    Args:
        pipe: a diffusers text-to-image pipeline; anything with a `scheduler` works.
        method: what returns the score term g at each step, or chooses noise.
        particles: rows per prompt. By default it is what the pipeline was called with as
            `num_images_per_prompt`. Give it where a prompt is repeated instead, or 1 to draw each
            image alone.
        features: from the shape of one particle to the map that `features` kernels see; None where
            there is none.
        probes: a generator per prompt for random probes and couplings, on the CPU; by default made
            from `seed`. Each call begins with them as they are when the block opens.
        generator: a generator per row, for pipelines that pass none to `scheduler.step`.
        seed: of the default probes and streams.
        streams: a generator per row for noise on text embeddings and of restarts, as `probes`.
        keep: particles that a method which draws more has to leave in each group. A method that
            chooses among finished images does so outside of this block.
        earlier: finished latents of each prompt's earlier groups, (G, M, d), for a method that
            remembers them: `finished` of the records of those calls, joined along their second
            axis. Nothing is kept from one block to the next.
        quality: from denoised estimates (G, n, d) to how well each fits its prompt, (G, n), for a
            method that weighs that.
        seen: is handed the state before each step.

    Yields:
        A record of what was done.

    Raises:
        SchedulerError: the method looks at the scheduler's state, which cannot be read, or the
            scheduler draws no noise where the method couples it.
        ModelError: the pipeline draws its samples outside one scheduler loop, or has no embeddings
            or guidance that the method could change; a call ended without the method having acted.
        ParameterError: fewer particles than the method needs, rows that are no multiple of
            `particles`, a method that chooses outside the loop, or probes or streams that are not
            on the CPU.

    Example:
        with steer(pipe, EddyHutch(strength=2.0)):
            images = pipe("a red bicycle", num_images_per_prompt=4).images
    """
    name = type(pipe).__name__
    if name.startswith(REFUSED):
        raise ModelError(
            f"{name} draws its samples outside one scheduler loop and cannot be steered. "
            "Use another pipeline."
        )
    if method.selects and keep is None:
        raise ParameterError(
            f"{title(method)} draws more images than it keeps and chooses among them, which steer "
            "does not do. Use eddy-bench run or benchmark(), or pass keep=."
        )
    _check_generators({"probes": probes, "streams": streams})
    if earlier is not None:  # once for all steps
        earlier = earlier.to(getattr(pipe, "_execution_device", earlier.device))
    settings = Settings(
        particles, features, probes, generator, seed, streams, keep, earlier, quality, seen
    )
    session = Session(pipe, method, settings)
    session.check()
    if method.edits_features:
        method.edited_block(name, len(blocks_of(pipe, family_of(pipe))))
    with watched(session):
        yield session.record


def _check_generators(given: dict[str, Sequence[torch.Generator] | None]) -> None:
    """Raise ParameterError for generators elsewhere than on the CPU, where methods draw."""
    for name, generators in given.items():
        if others := [str(each.device) for each in generators or () if each.device.type != "cpu"]:
            raise ParameterError(
                f"Expected {name} of generators on the CPU, whose numbers are the same for a model "
                f"on any device, got one on {others[0]}. Make them with torch.Generator()."
            )


class _SeenEnough(Exception):
    """Leaves a pipeline's call from inside a step."""


@dataclass
class Preview:
    """The state at the last of the first steps, as `steer(seen=)` is handed it."""

    steps: int  # network evaluations of a particle that are looked at
    stops: bool = True  # end the pipeline's call there
    state: State | None = None  # of the particles at that step; None before

    def __call__(self, state: State) -> None:
        """Keep the state of the last step that is looked at."""
        if state.step + 1 == self.steps:
            self.state = state
            if self.stops:
                raise _SeenEnough

    def reached(self) -> State:
        """Return the state."""
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
    """
    watch = Preview(steps)
    with steer(pipe, Hooks(), seen=watch, **steering), suppress(_SeenEnough):
        call()
    return watch.reached()
