"""Steps beyond the scheduler's own, through which the pipeline's loop goes by itself.

Some at the start look at a denoised estimate and draw the start anew; others go back to a higher
noise level and down again. The pipeline's list of timesteps is longer then; the scheduler keeps
its own. So every family is evaluated, guided and counted as in any other step.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from eddy_bench.errors import ParameterError, SchedulerError
from eddy_bench.sampling.branches import watched_call
from eddy_bench.sampling.hooks import Hooks
from eddy_bench.sampling.injection import by_group, replaced
from eddy_bench.sampling.levels import ALPHA_FLOOR, levels_before, network_timesteps
from eddy_bench.sampling.parameterization import read_coordinates
from eddy_bench.sampling.scheduler_table import row_of
from eddy_bench.sampling.step import SteeredStep

# First-order solvers that hold nothing from one step to the next
RESTARTABLE = ("DDIMScheduler", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler")


def check_restarts(scheduler: Any, method: Hooks) -> None:
    """Raise SchedulerError for a solver that cannot go back to a higher noise level."""
    name = type(scheduler).__name__
    if method.restarts and name not in RESTARTABLE:
        raise SchedulerError(
            "Expected a first-order solver without memory for a method that goes back to higher "
            f"noise levels, got {name}. Use ddim, euler or flow-euler."
        )


@dataclass
class ExtraSteps:
    """Stand in for `scheduler.step` and `scheduler.set_timesteps`.

    Args:
        method: whose hooks are called.
        step: of the scheduler's own steps.
        order: indices of the scheduler's steps, as the pipeline goes through them.
        own: the scheduler's timesteps; None where they are not hidden by longer ones.
        place: in `order`.

    """

    method: Hooks
    step: SteeredStep
    order: list[int] = field(default_factory=list)
    own: Tensor | None = None
    place: int = 0

    @property
    def scheduler(self) -> Any:
        """The pipeline's."""
        return self.step.scheduler

    @property
    def starts(self) -> int:
        """The steps at the start; one particle alone needs none."""
        return 0 if self.step.particles == 1 else self.method.extra_starts

    def begin(self, arguments: dict[str, Any]) -> None:
        """Take note of a call of the pipeline."""
        self.step.begin()
        self.step.starting = False

    def lengthen(self) -> None:
        """Hand the pipeline a longer list of timesteps than the scheduler's, which is set."""
        own, count = self.scheduler.timesteps, len(network_timesteps(self.scheduler))
        self.order, self.place = [0] * self.starts + self._restarted(count), 0
        if len(self.order) > count:
            self.own = own
            self.step.starting = self.starts > 0
            self.scheduler.timesteps = torch.cat([own[self.order], own[count:]])

    def settle(self) -> None:
        """Give the scheduler its own timesteps back, which the pipeline has read."""
        if self.own is not None:
            self.scheduler.timesteps, self.own = self.own, None

    def __call__(
        self, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """Do a step: one of the scheduler's, or one at the start."""
        self.settle()
        if self.place < self.starts:
            self.place += 1
            self.step.starting = self.place < self.starts
            moved = self._started(model_output, timestep, sample)
            plain = kwargs.get("return_dict") is False
            return (moved, moved) if plain else SimpleNamespace(prev_sample=moved)
        stepped = self.step(model_output, timestep, sample, *args, **kwargs)
        now, *rest = self.order[self.place :] or [0]
        self.place += 1
        if not rest or rest[0] == now + 1:
            return stepped
        if isinstance(stepped, tuple):
            return (self._renoised(stepped[0], now + 1, rest[0]), *stepped[1:])
        moved = self._renoised(stepped.prev_sample, now + 1, rest[0])
        return SimpleNamespace(prev_sample=moved)

    def _started(self, output: Tensor, timestep: Any, sample: Tensor) -> Tensor:
        """Return the sample of a better start."""
        now = timestep.flatten()[0] if isinstance(timestep, Tensor) else timestep
        coordinates = read_coordinates(self.scheduler, now)
        state = self.step.state(coordinates, sample, output)
        scale = float(getattr(self.scheduler, "init_noise_sigma", 1.0)) * coordinates.unit
        wide = sample.to(torch.promote_types(sample.dtype, torch.float32)) / scale
        noise = wide.unflatten(0, state.particles.shape[:2])
        with torch.no_grad():
            better = self.method.improved_start(noise, state)
        if better is noise:
            return sample
        moved: Tensor = sample + scale * (better - noise).flatten(0, 1)
        return moved.to(sample.dtype)

    def _levels(self, index: int) -> tuple[float, float]:
        timestep = self.scheduler.timesteps[index]
        alpha, sigma = levels_before(self.scheduler, row_of(self.scheduler), timestep, index)
        return max(alpha, ALPHA_FLOOR), sigma

    def _restarted(self, count: int) -> list[int]:
        """Return the order of the scheduler's steps with the method's restarts among them."""
        order = list(range(count))
        for low, high, times in self.method.restarts:
            last, first = self._nearest(low, count), self._nearest(high, count)
            if first >= last:
                ends = [sigma / alpha for alpha, sigma in map(self._levels, (count - 1, 0))]
                raise ParameterError(
                    f"Expected low={low:g} and high={high:g} at different noise levels of the "
                    f"solver, whose {count} go from {ends[0]:.3g} to {ends[1]:.3g}. "
                    "Raise the steps, lower low or raise high."
                )
            order[order.index(last) : order.index(last)] = list(range(first, last)) * times
        return order

    def _nearest(self, level: float, count: int) -> int:
        """Return the step before which the noise level sigma is nearest, in its logarithm."""
        sigmas = [sigma / alpha for alpha, sigma in map(self._levels, range(count))]
        return min(range(count), key=lambda k: abs(math.log(max(sigmas[k], 1e-12) / level)))

    def _renoised(self, sample: Tensor, now: int, back: int) -> Tensor:
        """Return a sample with noise from the level before step `now` to the one before `back`."""
        (alpha, sigma), (high_alpha, high_sigma) = map(self._levels, (now, back))
        spread = ((high_sigma / high_alpha) ** 2 - (sigma / alpha) ** 2) ** 0.5
        count, streams = self.step.count(len(sample)), self.step.streams_of(len(sample))
        noise = torch.stack([torch.randn(sample.shape[1:], generator=each) for each in streams])
        groups = self.step.generators(len(sample) // count)
        noise = by_group(
            noise,
            count,
            lambda grouped: torch.stack(
                [
                    self.method.restart_noise(own, group)
                    for own, group in zip(grouped, groups, strict=True)
                ]
            ),
        )
        if hasattr(self.scheduler, "_step_index"):
            self.scheduler._step_index = back
        self.step.position = back
        noise = spread * noise.to(sample.device, torch.promote_types(sample.dtype, torch.float32))
        scaled = row_of(self.scheduler).reading == "scaled"
        moved: Tensor = sample + noise if scaled else high_alpha * (sample / alpha + noise)
        return moved.to(sample.dtype)


@contextmanager
def extra_steps(pipe: Any, method: Hooks, step: SteeredStep) -> Iterator[Callable[..., Any]]:
    """Yield what stands in for `scheduler.step`: `step` itself where there are no extra steps.

    Raises:
        SchedulerError: the method goes back to higher noise levels, and the solver cannot.

    """
    if not (method.extra_starts or method.restarts):
        yield step
        return
    scheduler = pipe.scheduler
    check_restarts(scheduler, method)
    extra = ExtraSteps(method, step)
    step.announced = True

    def told(name: str, before: Callable[[], None], after: Callable[[], None]) -> Any:
        inner = getattr(scheduler, name)

        @functools.wraps(inner)
        def call(*args: Any, **kwargs: Any) -> Any:
            before()
            result = inner(*args, **kwargs)
            after()
            return result

        return replaced(scheduler, name, call)

    with ExitStack() as stack:
        stack.enter_context(watched_call(pipe, extra.begin))
        stack.enter_context(told("set_timesteps", extra.settle, extra.lengthen))
        for name in ("set_begin_index", "scale_model_input"):
            if hasattr(scheduler, name):
                stack.enter_context(told(name, extra.settle, lambda: None))
        stack.callback(extra.settle)
        yield extra
