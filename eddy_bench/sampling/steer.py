"""The one place where a method acts on a diffusers pipeline: around `pipe.scheduler.step`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from eddy_bench.errors import EddyError, ModelError, ParameterError, SchedulerError
from eddy_bench.features import FeatureMap
from eddy_bench.sampling.noise import probe_generator
from eddy_bench.sampling.parameterization import Coordinates, check_scheduler, read_coordinates
from eddy_bench.sampling.state import State

REFUSED = ("Kandinsky", "StableCascade", "Wuerstchen", "IFPipeline")


class Steers(Protocol):
    """What `steer` needs of a method."""

    min_particles: ClassVar[int]

    def guidance(self, state: State) -> Tensor | None:
        """The score term."""


@dataclass
class Steering:
    """What happened inside one `steer` block: solver steps seen, and seconds spent in guidance when a clock is given."""

    steps: int = 0
    seconds: float = 0.0
    coordinates: list[Coordinates] = field(default_factory=list)


@contextmanager
def steer(
    pipe: Any,
    method: Steers,
    *,
    particles: int | None = None,
    features: Callable[[tuple[int, ...]], FeatureMap] | None = None,
    probes: Sequence[torch.Generator] | None = None,
    generator: Sequence[torch.Generator] | None = None,
    seed: int = 0,
) -> Iterator[Steering]:
    """Let `method` guide everything that `pipe` draws inside the block.

    Args:
        pipe: a diffusers text-to-image pipeline; anything with a `scheduler` works.
        method: what returns the score term g at each step.
        particles: rows per prompt. By default it is what the pipeline was called with as `num_images_per_prompt`.
        features: from the shape of one particle to the map that `features` kernels see; None where there is none.
        probes: a generator per prompt for random probes; by default from `seed`.
        generator: a generator per row, for pipelines that pass none to `scheduler.step`.

    Yields:
        A record of what was done.

    Raises:
        SchedulerError: the scheduler's state cannot be read. ModelError: the pipeline decides elsewhere.
        ParameterError: fewer particles than the method needs, or rows that are no multiple of `particles`.

    Example:
        with steer(pipe, EddyHutch(strength=2.0)):
            images = pipe("a red bicycle", num_images_per_prompt=4).images

    """
    name = type(pipe).__name__
    if any(name.startswith(refused) for refused in REFUSED):
        raise ModelError(f"{name} draws its samples outside one scheduler loop and cannot be steered. Use another pipeline.")
    check_scheduler(pipe.scheduler)
    watch = _Watch(particles)
    record = Steering()
    with ExitStack() as stack:
        if particles is None and hasattr(pipe, "encode_prompt"):
            stack.enter_context(_replaced(pipe, "encode_prompt", watch.wrap(pipe.encode_prompt)))
        wrapped = _Step(pipe.scheduler, method, watch, features, probes, generator, seed, record)
        stack.enter_context(_replaced(pipe.scheduler, "step", functools.wraps(pipe.scheduler.step)(wrapped)))
        yield record


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of an instance, put back as it was."""
    shadowed = name in vars(owner)
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if shadowed:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


@dataclass
class _Watch:
    """How many rows belong to one prompt."""

    particles: int | None

    def wrap(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        """`encode_prompt`, noting `num_images_per_prompt`."""
        signature = inspect.signature(encode)

        @functools.wraps(encode)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.particles = signature.bind_partial(*args, **kwargs).arguments.get("num_images_per_prompt") or self.particles
            return encode(*args, **kwargs)

        return watched


class _Step:
    """`scheduler.step` with the guidance put into the model output."""

    def __init__(
        self,
        scheduler: Any,
        method: Steers,
        watch: _Watch,
        features: Callable[[tuple[int, ...]], FeatureMap] | None,
        probes: Sequence[torch.Generator] | None,
        generator: Sequence[torch.Generator] | None,
        seed: int,
        record: Steering,
    ) -> None:
        self.scheduler, self.method, self.watch = scheduler, method, watch
        self.features, self.probes, self.generator, self.seed, self.record = features, probes, generator, seed, record
        self.inner = scheduler.step
        self.takes_generator = "generator" in inspect.signature(scheduler.step).parameters
        self.map: FeatureMap | None = None

    def __call__(self, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.takes_generator and self.generator is not None and kwargs.get("generator") is None and not args:
            kwargs["generator"] = list(self.generator)
        edited = self.edit(model_output, timestep, sample, float(kwargs.get("eta") or 0.0))
        self.record.steps += 1
        return self.inner(edited, timestep, sample, *args, **kwargs)

    def edit(self, output: Tensor, timestep: Any, sample: Tensor, eta: float) -> Tensor:
        """The model output with the method's guidance in it."""
        rows = len(sample)
        count = self.watch.particles or rows
        if rows % count:
            raise ParameterError(f"Expected a multiple of {count} rows at each step, got {rows}. Set particles= in steer().")
        if count < self.method.min_particles:
            raise ParameterError(f"Expected at least {self.method.min_particles} particles for this method, got {count}.")
        if output.shape != sample.shape:
            raise SchedulerError(
                f"Expected a model output of the sample's shape {tuple(sample.shape)}, got {tuple(output.shape)} (learned variances are not supported)."
            )
        coordinates = read_coordinates(self.scheduler, timestep, eta)
        state = self.state(coordinates, sample, output, count)
        with torch.no_grad():
            guidance = self.method.guidance(state)
        if guidance is None:
            return output
        if guidance.shape != state.particles.shape:
            raise ParameterError(f"Expected guidance of shape {tuple(state.particles.shape)}, got {tuple(guidance.shape)}.")
        if not torch.isfinite(guidance).all():
            raise EddyError(f"The guidance is not finite at step {state.step} (sb = {state.sigma:.3g}). Lower the strength.")
        return coordinates.edit(output, (coordinates.sb / coordinates.stretch) * guidance.reshape(sample.shape))

    def state(self, coordinates: Coordinates, sample: Tensor, output: Tensor, count: int) -> State:
        """What the method sees."""
        particles, eps, denoised = coordinates.read(sample, output)
        groups, shape = len(sample) // count, tuple(sample.shape[1:])
        if self.map is None and self.features is not None:
            self.map = self.features(shape)
        if self.probes is None:
            self.probes = [probe_generator(self.seed, str(group)) for group in range(groups)]
        grouped = [value.reshape(groups, count, -1) for value in (particles, eps, denoised)]
        return State(
            particles=grouped[0], score=grouped[1] / -coordinates.sb, denoised=grouped[2], sigma=coordinates.sb,
            share=self.record.steps / max(len(self.scheduler.timesteps), 1), step=self.record.steps,
            pure_noise=coordinates.pure_noise, generators=tuple(self.probes), features=self.map,
        )  # fmt: skip
