"""Draws on small models by which a method's promises are checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from eddy_bench.methods.base import Method
from eddy_bench.models.base import Model
from eddy_bench.models.load import load_model
from eddy_bench.models.network_features import NetworkFeatures
from eddy_bench.models.row_limit import MOST, RowLimit
from eddy_bench.sampling.noise import (
    condition_generators,
    particle_generators,
    probe_generator,
)
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.sampling.state import State
from eddy_bench.sampling.steer import steer
from eddy_bench.suites.method_spec import MethodSpec

PARTICLES = 4
STEPS = 6
PROMPTS = ("a", "b")


def small_model(solver: str = "ddim", guided: bool = False, network: bool = False) -> Model:
    """Return points in the plane whose score is known, or the embedded model, under a solver.

    guided: with a condition, at guidance scale 3.
    network: the embedded model.
    """
    name = "fashion" if network else "exact:class-ring" if guided else "exact:ring8"
    model = load_model(name, device="cpu")
    model.call |= {"output_type": "latent"} if network else {"dtype": torch.float64}
    spec = MethodSpec.parse(solver)
    model.call |= set_scheduler(model.pipe, spec.name, spec.parameters)
    if guided:
        model.call["guidance_scale"] = 3.0
    return model


def needs_condition(method: Method) -> bool:
    """Return whether a method changes conditions or guidance."""
    return method.conditions or method.reguides


def needs_network(method: Method) -> bool:
    """Return whether a method acts inside a network."""
    return method.edits_features


def solver_of(method: Method) -> str:
    """Return a solver under which a method acts."""
    return "ddim:eta=1" if method.couples_steps else "ddim"


def draw_samples(
    method: Method,
    prompts: Sequence[str] = PROMPTS,
    particles: int = PARTICLES,
    solver: str | None = None,
    guided: bool | None = None,
    seen: Callable[[State], None] | None = None,
    seeds: int | None = None,
) -> Tensor:
    """Return what a solver ends with, (prompts, particles, d).

    guided: as in `small_model`; None where the method needs it.
    seen: as in `steer`.
    seeds: each group has a seed of its own, from a stream by this number; None is seed 0 for all.
    """
    model = small_model(
        solver or solver_of(method),
        needs_condition(method) if guided is None else guided,
        needs_network(method),
    )
    kept = max(particles, method.min_particles)
    drawn = method.drawn(kept)
    groups = [
        (0 if seeds is None else 2 * k + seeds * 10**6, prompt) for k, prompt in enumerate(prompts)
    ]
    generators = [
        generator
        for seed, prompt in groups
        for generator in particle_generators(seed, prompt, drawn)
    ]
    with steer(
        model.pipe,
        method,
        particles=drawn,
        features=small_features,
        probes=[probe_generator(seed, prompt) for seed, prompt in groups],
        generator=generators,
        streams=[
            stream
            for seed, prompt in groups
            for stream in condition_generators(seed, prompt, range(drawn))
        ],
        keep=kept if method.selects else None,
        seen=seen,
    ) as record:
        images = model.pipe(
            list(prompts),
            num_images_per_prompt=drawn,
            num_inference_steps=STEPS,
            generator=generators,
            **model.call,
        ).images.flatten(1)
    samples: Tensor = images.unflatten(0, (len(prompts), drawn))
    if record.active is not None:
        samples = samples[record.active].unflatten(0, (len(prompts), kept))
    return samples[:, :kept]


def small_features(shape: tuple[int, ...]) -> NetworkFeatures:
    """Return a small network with curvature in the place of decoder and guide."""
    generator = torch.Generator().manual_seed(7)
    first, second = (
        torch.randn(size, generator=generator, dtype=torch.float64)
        for size in ((math.prod(shape), 8), (8, 5))
    )
    return NetworkFeatures(
        lambda points: points.flatten(1).double(),
        lambda points: torch.tanh(points @ first / 2) @ second,
        shape,
        RowLimit.of(MOST),  # measuring what a row takes would take longer than all rows
    )
