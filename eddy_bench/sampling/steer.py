"""The one place where a method acts on a diffusers pipeline: around `pipe.scheduler.step`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from eddy_bench.errors import ModelError
from eddy_bench.sampling.blocks import edited_features
from eddy_bench.sampling.branches import steered_branches
from eddy_bench.sampling.extra_steps import extra_steps
from eddy_bench.sampling.hooks import Hooks
from eddy_bench.sampling.injection import (
    replaced,
    start_namespace,
    step_namespace,
    transformed_draws,
)
from eddy_bench.sampling.parameterization import check_scheduler
from eddy_bench.sampling.record import Steering
from eddy_bench.sampling.step import MapMaker, SteeredStep

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
) -> Iterator[Steering]:
    """Let `method` guide everything that `pipe` draws inside the block.

    Args:
        pipe: a diffusers text-to-image pipeline; anything with a `scheduler` works.
        method: what returns the score term g at each step, or chooses noise.
        particles: rows per prompt. By default it is what the pipeline was called with as
            `num_images_per_prompt`; pipelines whose `encode_prompt` does not take that (Z-Image)
            need it here when they draw several prompts at once.
        features: from the shape of one particle to the map that `features` kernels see; None where
            there is none.
        probes: a generator per prompt for random probes and couplings; by default made from
            `seed`, anew for each call.
        generator: a generator per row, for pipelines that pass none to `scheduler.step`.
        seed: of the default probes and streams.
        streams: a generator per row for noise on text embeddings; by default made from `seed`, anew
            for each call.
        keep: particles that a method which gives some up has to leave in each group; by default it
            gives up none. The record says which are left.
        earlier: finished latents of each prompt's earlier groups, (G, M, d), for a method that
            remembers them: `finished` of the records of those calls, joined along their second
            axis. Nothing is kept from one block to the next.
        quality: from denoised estimates (G, n, d) to how well each fits its prompt, (G, n), for a
            method that weighs that.

    Yields:
        A record of what was done.

    Raises:
        SchedulerError: the method looks at the scheduler's state, which cannot be read, or the
            scheduler draws no noise where the method couples it.
        ModelError: the pipeline draws its samples outside one scheduler loop, or has no embeddings
            or guidance that the method could change.
        ParameterError: fewer particles than the method needs, or rows that are no multiple of
            `particles`.

    Example:
        with steer(pipe, EddyHutch(strength=2.0)):
            images = pipe("a red bicycle", num_images_per_prompt=4).images

    """
    name = type(pipe).__name__
    if any(name.startswith(refused) for refused in REFUSED):
        raise ModelError(
            f"{name} draws its samples outside one scheduler loop and cannot be steered. "
            "Use another pipeline."
        )
    if method.reads_state:
        check_scheduler(pipe.scheduler)
    step = SteeredStep(
        pipe.scheduler,
        method,
        particles,
        features,
        probes,
        generator,
        seed,
        streams,
        keep,
        earlier,
        quality,
    )
    with ExitStack() as stack:
        if particles is None and hasattr(pipe, "encode_prompt"):
            stack.enter_context(replaced(pipe, "encode_prompt", _watched(pipe.encode_prompt, step)))
        if method.changes_start:
            stack.enter_context(transformed_draws(start_namespace(pipe), step.start_transform))
        if method.couples_steps:
            stack.enter_context(
                transformed_draws(step_namespace(pipe.scheduler), lambda: step.transform)
            )

        stack.enter_context(steered_branches(pipe, method, step))
        stack.enter_context(edited_features(pipe, method, step))

        do_step = stack.enter_context(extra_steps(pipe, method, step))

        @functools.wraps(pipe.scheduler.step)
        def steered(*args: Any, **kwargs: Any) -> Any:
            return do_step(*args, **kwargs)

        stack.enter_context(replaced(pipe.scheduler, "step", steered))
        yield step.record


def _watched(encode: Callable[..., Any], step: SteeredStep) -> Callable[..., Any]:
    """Wrap `encode_prompt` so that the step learns how many rows belong to a prompt."""
    signature = inspect.signature(encode)

    @functools.wraps(encode)
    def watched(*args: Any, **kwargs: Any) -> Any:
        step.particles = (
            signature.bind_partial(*args, **kwargs).arguments.get("num_images_per_prompt")
            or step.particles
        )
        return encode(*args, **kwargs)

    return watched
