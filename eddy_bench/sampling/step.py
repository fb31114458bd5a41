"""`scheduler.step` with a method's guidance in the model output and its noise in the draws."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eddy_bench.errors import EddyError, ParameterError, SchedulerError
from eddy_bench.sampling.feature_maps import FeatureMap
from eddy_bench.sampling.hooks import Hooks
from eddy_bench.sampling.injection import Transform, by_group
from eddy_bench.sampling.levels import network_timesteps, next_sigma, process_time
from eddy_bench.sampling.noise import condition_generators, probe_generator
from eddy_bench.sampling.parameterization import (
    Coordinates,
    can_be_read,
    check_stochastic,
    read_coordinates,
)
from eddy_bench.sampling.record import Steering, check_earlier
from eddy_bench.sampling.state import Moment, State

if TYPE_CHECKING:
    from eddy_bench.sampling.branches import Branches

MapMaker = Callable[[tuple[int, ...]], FeatureMap]


@dataclass
class SteeredStep:
    """Stand in for `scheduler.step`.

    Args:
        scheduler: of the pipeline.
        method: as in `steer`.
        particles: rows per prompt, or None for all.
        features: as in `steer`.
        probes: as in `steer`.
        generator: as in `steer`.
        seed: as in `steer`.
        streams: as in `steer`.
        keep: as in `steer`.
        earlier: as in `steer`.
        quality: as in `steer`.
        record: of the block.
        position: steps done in the pipeline's present call.
        transform: change of the solver's draws at this moment.
        maps: feature maps by the shape of a particle.
        groups: generators of the present call, one per group.
        rows: generators of the present call for conditions, one per particle.
        memory: of the method in the present call.
        branches: what stands in for the denoiser; None where nothing does.
        announced: `begin` is called when the pipeline is.
        starting: a step at the start is due, which sees the conditional branch alone.
        unit: of the solver's samples.

    """

    scheduler: Any
    method: Hooks
    particles: int | None
    features: MapMaker | None
    probes: Sequence[torch.Generator] | None
    generator: Sequence[torch.Generator] | None
    seed: int
    streams: Sequence[torch.Generator] | None = None
    keep: int | None = None
    earlier: Tensor | None = None
    quality: Callable[[Tensor], Tensor] | None = None
    record: Steering = field(default_factory=Steering)
    position: int = 0
    transform: Transform | None = None
    maps: dict[tuple[int, ...], FeatureMap] = field(default_factory=dict)
    groups: tuple[torch.Generator, ...] = ()
    rows: tuple[torch.Generator, ...] = ()
    memory: dict[str, Any] = field(default_factory=dict)
    branches: Branches | None = None
    announced: bool = False
    starting: bool = False
    unit: float = 1.0

    def __post_init__(self) -> None:
        self.inner = self.scheduler.step
        self.parameters = inspect.signature(self.inner).parameters
        self.readable = can_be_read(self.scheduler)

    @property
    def steps(self) -> int:
        """Steps of the present call."""
        return max(len(network_timesteps(self.scheduler)), 1)

    def __call__(
        self, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """Do a step of the solver on the edited output."""
        lacks = "generator" in self.parameters and kwargs.get("generator") is None and not args
        if lacks and self.generator is not None:
            kwargs["generator"] = list(self.generator)
        now = timestep.flatten()[0] if isinstance(timestep, Tensor) else timestep
        if now == self.scheduler.timesteps[0] and (self.position or not self.announced):
            self.begin()  # a new call; an earlier one may have been cut short
        if self.branches is not None:
            self.branches.check()
        edited = model_output
        if self.readable:
            edited = self.steered(model_output, now, sample, self.eta(kwargs))
        try:
            stepped = self.inner(edited, timestep, sample, *args, **kwargs)
        finally:
            self.transform = None
        self.record.steps += 1
        self.position = (self.position + 1) % self.steps
        if self.position == 0:
            self.finish(stepped[0] if isinstance(stepped, tuple) else stepped.prev_sample)
        return stepped

    def eta(self, kwargs: dict[str, Any]) -> float:
        """Return the eta of a step, by default the scheduler's own; 0 where it has none."""
        default = self.parameters["eta"].default if "eta" in self.parameters else 0.0
        return float(kwargs.get("eta", default) or 0.0)

    def steered(self, model_output: Tensor, timestep: Any, sample: Tensor, eta: float) -> Tensor:
        """Return the edited output, with `transform` set for the noise of the step."""
        if self.method.couples_steps:
            check_stochastic(self.scheduler, eta, self.steps)
        if model_output.shape != sample.shape:
            raise SchedulerError(
                f"Expected a model output of the sample's shape {tuple(sample.shape)}, "
                f"got {tuple(model_output.shape)} (learned variances are not supported)."
            )
        coordinates = read_coordinates(self.scheduler, timestep, eta)
        self.unit = coordinates.unit
        state = self.state(coordinates, sample, model_output)
        if self.keep is not None and self.method.prunes:
            self.record.living = self.survivors(state, self.keep)
        edited = self.edit(model_output, state, coordinates)
        if self.method.couples_steps:
            self.transform = self.step_transform(state)
        return edited

    def begin(self) -> None:
        """Begin a call of the pipeline."""
        self.position, self.memory, self.rows = 0, {}, ()
        self.record.living = None

    def survivors(self, state: State, keep: int) -> Tensor:
        """Return which particles go on after this step, (G, N), bool."""
        living = self.record.living
        if living is None:
            living = torch.ones(state.particles.shape[:2], dtype=torch.bool)
        if int(living[0].sum()) <= keep:
            return living
        return self.method.alive(state, living, keep).cpu()

    def moment(self, scale: float | None) -> Moment:
        """Return the moment of the coming step. scale: w of the call's guidance."""
        coordinates = self.coordinates()
        return Moment(
            step=self.position,
            steps=self.steps,
            sigma=coordinates.sigma,
            sigma_next=next_sigma(self.scheduler, self.position),
            time=process_time(self.scheduler, self.scheduler.timesteps[self.position]),
            pure_noise=coordinates.pure_noise,
            scale=scale,
            memory=self.memory,
        )

    def coordinates(self) -> Coordinates:
        """Return the solver's coordinates before the coming step."""
        return read_coordinates(self.scheduler, self.scheduler.timesteps[self.position])

    def streams_of(self, rows: int) -> tuple[torch.Generator, ...]:
        """Return a generator per row for noise on conditions."""
        if self.streams is not None:
            return tuple(self.streams)
        if len(self.rows) != rows:
            count = self.count(rows)
            self.rows = tuple(
                generator
                for group in range(rows // count)
                for generator in condition_generators(self.seed, str(group), range(count))
            )
        return self.rows

    def finish(self, sample: Tensor) -> None:
        """End a call; raises SchedulerError where its last sample is not finite."""
        rows = self.particles or len(sample)
        self.record.finished = sample.reshape(-1, rows, sample[0].numel()) / self.unit
        if not torch.isfinite(sample).all():
            raise SchedulerError(
                f"{type(self.scheduler).__name__} ended with values that are not finite. "
                "Use another --scheduler, or float32."
            )

    def count(self, rows: int) -> int:
        """Return the particles per group."""
        count = self.particles or rows
        if rows % count:
            raise ParameterError(
                f"Expected a multiple of {count} rows, got {rows}. Set particles= in steer()."
            )
        if count < self.method.min_particles:
            raise ParameterError(
                f"Expected at least {self.method.min_particles} particles for this method, "
                f"got {count}."
            )
        return count

    def generators(self, groups: int) -> tuple[torch.Generator, ...]:
        """Return a generator per group, for probes and couplings.

        They are made anew for each call of the pipeline unless they were given.
        """
        if self.probes is not None:
            return tuple(self.probes)
        if self.position == 0 or len(self.groups) != groups:
            self.groups = tuple(probe_generator(self.seed, str(group)) for group in range(groups))
        return self.groups

    def start_transform(self) -> Transform | None:
        """Return the change of noise that is drawn before the first step of a call."""
        if self.position:
            return None

        def change(noise: Tensor) -> Tensor:
            count = self.count(len(noise))
            groups = self.generators(len(noise) // count)
            changed = [
                self.method.initial_field(own, group)
                for own, group in zip(noise.split(count), groups, strict=True)
            ]
            return torch.cat(changed)

        return change

    def step_transform(self, state: State) -> Transform:
        """Return the change of noise that is drawn in a step."""
        count = state.particles.shape[1]
        return lambda noise: by_group(
            noise, count, lambda grouped: self.method.step_noise(grouped, state)
        )

    def state(self, coordinates: Coordinates, sample: Tensor, output: Tensor) -> State:
        """Return the state that the method sees."""
        count, shape = self.count(len(sample)), tuple(sample.shape[1:])
        if shape not in self.maps and self.features is not None:
            self.maps[shape] = self.features(shape)
        particles, eps, denoised = (
            value.reshape(len(sample) // count, count, -1)
            for value in coordinates.read(sample, output)
        )
        if self.earlier is not None:
            check_earlier(self.earlier, particles)
        return State(
            particles=particles,
            score=eps / -coordinates.sigma,
            denoised=denoised,
            sigma=coordinates.sigma,
            share=self.position / self.steps,
            step=self.position,
            steps=self.steps,
            pure_noise=coordinates.pure_noise,
            generators=self.generators(len(particles)),
            features=self.maps.get(shape),
            sigma_next=next_sigma(self.scheduler, self.position),
            memory=self.memory,
            earlier=self.earlier,
            quality=self.quality,
        )

    def edit(self, output: Tensor, state: State, coordinates: Coordinates) -> Tensor:
        """Return the model output with the method's guidance in it.

        Nothing is left to guide at noise level 0, where some pipelines evaluate their network once.
        """
        if coordinates.sigma == 0:
            return output
        with torch.no_grad():
            guidance = self.method.guidance(state)
        if guidance is None:
            return output
        if guidance.shape != state.particles.shape:
            raise ParameterError(
                f"Expected guidance of shape {tuple(state.particles.shape)}, "
                f"got {tuple(guidance.shape)}."
            )
        if not torch.isfinite(guidance).all():
            raise EddyError(
                f"The guidance is not finite at step {state.step} "
                f"(noise level sigma / alpha = {state.sigma:.3g}). Lower the strength."
            )
        return coordinates.edit(
            output, (coordinates.sigma / coordinates.stretch) * guidance.reshape(output.shape)
        )
