"""Steps beyond the scheduler's own, through which the pipeline's loop goes by itself.

Some at the start look at a denoised estimate and draw the start anew; others go back to a higher
noise level and down again. The pipeline's list of timesteps is longer then; the scheduler keeps
its own. So every family is evaluated, guided and counted as in any other step.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from eddy_bench.errors import ParameterError, SchedulerError
from eddy_bench.sampling.call import ACTIVE, Call
from eddy_bench.sampling.hooks import Hooks
from eddy_bench.sampling.noise_tap import by_group
from eddy_bench.sampling.solver_view import ALPHA_FLOOR

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


def starts(call: Call) -> int:
    """Return the steps at the start; one particle alone needs none."""
    return 0 if call.particles == 1 else call.method.extra_starts


def lengthen(call: Call) -> None:
    """Hand the pipeline a longer list of timesteps than the scheduler's, which is set."""
    own, count = call.scheduler.timesteps, len(call.view.timesteps)
    call.order, call.place = [0] * starts(call) + _restarted(call, count), 0
    call.check_whole()
    if len(call.order) > count:
        call.own, call.starting = own, starts(call) > 0
        call.scheduler.timesteps = torch.cat([own[call.order], own[count:]])


def settle(call: Call) -> None:
    """Give the scheduler its own timesteps back, which the pipeline has read."""
    if call.own is not None:
        call.scheduler.timesteps, call.own = call.own, None


def better_start(call: Call, timestep: Any, output: Tensor, sample: Tensor, plain: bool) -> Any:
    """Do a step at the start."""
    call.place += 1
    call.starting = call.place < starts(call)
    for other in ACTIVE.get():  # an evaluation without its null branch is over
        other.held = None
    moved = _started(call, timestep, output, sample)
    return (moved, moved) if plain else SimpleNamespace(prev_sample=moved)


def _started(call: Call, timestep: Any, output: Tensor, sample: Tensor) -> Tensor:
    """Return the sample of a better start."""
    index = call.view.index(timestep)
    coordinates = call.view.at(index)
    state = call.state(index, coordinates, sample, output)
    call.called.add("improved_start")
    scale = float(getattr(call.scheduler, "init_noise_sigma", 1.0)) * coordinates.unit
    wide = sample.to(torch.promote_types(sample.dtype, torch.float32)) / scale
    noise = wide.unflatten(0, state.particles.shape[:2])
    with torch.no_grad():
        better = call.method.improved_start(noise, state)
    if better is noise:
        return sample
    moved: Tensor = sample + scale * (better - noise).flatten(0, 1)
    return moved.to(sample.dtype)


def _restarted(call: Call, count: int) -> list[int]:
    """Return the order of the scheduler's steps with the method's restarts among them."""
    order = list(range(count))
    for low, high, times in call.method.restarts:
        last, first = _nearest(call, low, count), _nearest(call, high, count)
        if first >= last:
            ends = [sigma / alpha for alpha, sigma in (_levels(call, k) for k in (count - 1, 0))]
            raise ParameterError(
                f"Expected low={low:g} and high={high:g} at different noise levels of the "
                f"solver, whose {count} go from {ends[0]:.3g} to {ends[1]:.3g}. "
                "Raise the steps, lower low or raise high."
            )
        order[order.index(last) : order.index(last)] = list(range(first, last)) * times
    return order


def _levels(call: Call, index: int) -> tuple[float, float]:
    alpha, sigma = call.view.levels(index)
    return max(alpha, ALPHA_FLOOR), sigma


def _nearest(call: Call, level: float, count: int) -> int:
    """Return the step before which the noise level sigma is nearest, in its logarithm."""
    sigmas = [sigma / alpha for alpha, sigma in (_levels(call, k) for k in range(count))]
    return min(range(count), key=lambda k: abs(math.log(max(sigmas[k], 1e-12) / level)))


def renoised(call: Call, sample: Tensor, now: int, back: int) -> Tensor:
    """Return a sample with noise from the level before step `now` to the one before `back`."""
    (alpha, sigma), (high_alpha, high_sigma) = (_levels(call, k) for k in (now, back))
    spread = ((high_sigma / high_alpha) ** 2 - (sigma / alpha) ** 2) ** 0.5
    count, streams = call.count(len(sample)), call.streams(len(sample))
    noise = torch.stack([torch.randn(sample.shape[1:], generator=each) for each in streams])
    groups = call.generators(len(sample) // count)
    call.called.add("restart_noise")
    noise = by_group(
        noise,
        count,
        lambda grouped: torch.stack(
            [
                call.method.restart_noise(own, group)
                for own, group in zip(grouped, groups, strict=True)
            ]
        ),
    )
    if hasattr(call.scheduler, "_step_index"):
        call.scheduler._step_index = back
    for each in ACTIVE.get():
        each.coming = back
    noise = spread * noise.to(sample.device, torch.promote_types(sample.dtype, torch.float32))
    moved: Tensor = sample + noise if call.view.scaled else high_alpha * (sample / alpha + noise)
    return moved.to(sample.dtype)
