"""Drawing the groups of an audit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from eddy_bench.audit.plan import Block, open_pipeline
from eddy_bench.methods.base import Method
from eddy_bench.sampling.hooks import Hooks
from eddy_bench.sampling.noise import stream_seed
from eddy_bench.sampling.steer import Preview, steer

CHUNK_NUMBERS = 2**17  # N (N + d) of the groups drawn at once: they stay in the processor's cache


def draw_groups(
    block: Block,
    method: Method,
    steps: int,
    groups: int,
    seed: int,
    stream: str,
    advance: Callable[[int], None] = lambda count: None,
) -> Tensor:
    """Draw the particles of `groups` groups, (G, N, d), float64.

    A method that selects sees the task's features, or the points themselves where it has none; of
    denoised estimates where it chooses after a preview.

    The noise belongs to (seed, stream, task, slot), never to the method or the step count, so
    methods are paired and a list of step counts starts from the same noise.

    Args:
        block: task, scheduler and N.
        stream: `main` for what is paired, another name for a disjoint set.
        advance: called with group-steps done.
    """
    task, particles = block.task, block.particles
    pipe, call = open_pipeline(task, block.scheduler)
    count, network = method.drawn(particles), task.network
    chunk = max(1, CHUNK_NUMBERS // (count * (count + task.mixture.dimension)))
    drawn, seen, left = [], [], []
    for start in range(0, groups, chunk):
        size = min(chunk, groups - start)
        generator, probes = (
            torch.Generator().manual_seed(stream_seed(seed, task.name, stream, start, use))
            for use in ("noise", "probes")
        )
        watch = None if method.previewed is None else Preview(method.previewed, stops=False)
        with steer(
            pipe,
            method if watch is None else Hooks(),
            particles=count,
            features=network.feature_map if network else None,
            probes=[probes] * size,
            keep=particles,
            seen=watch,
        ) as record:
            images = pipe(
                num_images_per_prompt=size * count,
                num_inference_steps=steps,
                generator=generator,
                dtype=torch.float64,
                on_step=partial(advance, size),
                **call,
            ).images
        drawn.append(images.unflatten(0, (size, count)))
        left += [] if record.active is None else [record.active]
        seen.append(drawn[-1] if watch is None else watch.reached().denoised)
    candidates = torch.cat(drawn)
    if count == particles:
        return candidates
    if left:
        survivors: Tensor = candidates[torch.cat(left)].unflatten(0, (groups, particles))
        return survivors
    chooser = torch.Generator().manual_seed(stream_seed(seed, task.name, stream, "selection"))
    points = torch.cat(seen)
    judged = network(points.flatten(0, 1)).unflatten(0, (groups, count)) if network else points
    return torch.stack(
        [
            group[method.choose(features, particles, chooser)]
            for group, features in zip(candidates, judged, strict=True)
        ]
    )


def draw_truth(block: Block, groups: int, seed: int, stream: str) -> Tensor:
    """Draw exact samples in groups of independent particles, (G, N, d)."""
    generator = torch.Generator().manual_seed(stream_seed(seed, block.task.name, stream, "truth"))
    samples = block.task.mixture.sample(groups * block.particles, generator)
    return samples.reshape(groups, block.particles, -1)
