"""The taps on a solver's steps and on the noise that a pipeline and its solver draw."""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from eddy_bench.errors import ParameterError, SchedulerError
from eddy_bench.sampling.call import ACTIVE, Call, Transform
from eddy_bench.sampling.families import no_guidance
from eddy_bench.sampling.hooks import Hooks
from eddy_bench.sampling.solver_view import ALPHA_FLOOR, Coordinates, check_stochastic
from eddy_bench.sampling.state import State


def watch_draws(namespace: dict[str, Any]) -> None:
    """Let every `randn_tensor` of a module ask, for good, which call of which pipeline draws.

    Without an active call in this thread and task the noise is the module's own.
    """
    original = namespace.get("randn_tensor")
    if original is None or hasattr(original, "asks_for_calls"):
        return

    @functools.wraps(original)
    def draw(
        shape: Sequence[int],
        generator: torch.Generator | list[torch.Generator] | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        layout: torch.layout | None = None,
    ) -> Tensor:
        changes = [change for call in ACTIVE.get() if (change := _change(call, namespace))]
        wide = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        noise: Tensor = original(
            shape,
            generator=generator,
            device=device,
            dtype=wide if changes else dtype,
            layout=layout,
        )
        for change in changes:
            noise = change(noise)
        return noise.to(dtype or wide) if changes else noise

    draw.asks_for_calls = True  # type: ignore[attr-defined]
    namespace["randn_tensor"] = draw


def _change(call: Call, namespace: dict[str, Any]) -> Transform | None:
    """Return how a call changes what is drawn now in a module; None where it does not."""
    if call.transform is not None:
        return call.transform if namespace is step_namespace(call.scheduler) else None
    begun = call.steps_done or not call.method.changes_start
    return None if begun or namespace is not start_namespace(call.pipe) else _start(call)


def _start(call: Call) -> Transform:
    """Return the change of noise that is drawn before the first step of a call."""

    def change(noise: Tensor) -> Tensor:
        call.called |= {"initial_noise", "initial_field"}
        count = call.count(len(noise))
        groups = call.generators(len(noise) // count)
        return torch.cat(
            [
                call.method.initial_field(own, group)
                for own, group in zip(noise.split(count), groups, strict=True)
            ]
        )

    return change


def start_namespace(pipe: Any) -> dict[str, Any]:
    """Return the namespace in which a pipeline draws its initial noise."""
    function = getattr(type(pipe), "prepare_latents", type(pipe).__call__)
    namespace: dict[str, Any] = inspect.unwrap(function).__globals__
    return namespace


def step_namespace(scheduler: Any) -> dict[str, Any]:
    """Return the namespace in which a scheduler draws its step noise."""
    return vars(sys.modules[type(scheduler).__module__])


def by_group(noise: Tensor, count: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a change of (G, N, d) to noise of shape (rows, *shape)."""
    grouped = noise.reshape(len(noise) // count, count, -1)
    return change(grouped).reshape(noise.shape)


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


def step(
    call: Call,
    inner: Callable[..., Any],
    signature: inspect.Signature,
    output: Tensor,
    timestep: Any,
    sample: Tensor,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Do a step of the solver on the edited output, or one of the method's own at the start."""
    settle(call)
    now = timestep.flatten()[0] if isinstance(timestep, Tensor) else timestep
    if call.place < starts(call):
        return better_start(call, now, output, sample, plain=kwargs.get("return_dict") is False)
    _check_guided(call)
    takes_generator = "generator" in signature.parameters
    lacks_generator = takes_generator and kwargs.get("generator") is None and not args
    if lacks_generator and call.settings.generator is not None:
        kwargs["generator"] = list(call.settings.generator)
    index = call.arrive(now)
    if call.looks:
        bound = signature.bind(output, timestep, sample, *args, **kwargs)
        bound.apply_defaults()
        output = steered(call, index, output, sample, bound.arguments)
    try:
        stepped = inner(output, timestep, sample, *args, **kwargs)
    finally:
        call.transform = None
    return _stepped(call, index, stepped)


def _stepped(call: Call, index: int, stepped: Any) -> Any:
    """Take note of a step, and go back to a higher noise level where a method does."""
    call.record.steps += 1
    call.steps_done += 1
    call.coming = index + 1
    call.last = stepped[0] if isinstance(stepped, tuple) else stepped.prev_sample
    if call.step(index) + 1 == call.steps:
        call.check_guidance()
        call.check_finite(call.last)
    now, *rest = call.order[call.place :] or [index]
    call.place += 1
    if not rest or rest[0] == now + 1:
        return stepped
    moved = call.last = renoised(call, call.last, now + 1, rest[0])
    if isinstance(stepped, tuple):
        return (moved, *stepped[1:])
    return SimpleNamespace(prev_sample=moved)


def steered(
    call: Call, index: int, output: Tensor, sample: Tensor, given: dict[str, Any]
) -> Tensor:
    """Return the edited output, with `call.transform` set for the noise of the step."""
    method, eta = call.method, float(given.get("eta") or 0.0)
    if method.couples_steps:
        check_stochastic(call.scheduler, eta, call.steps)
    if output.shape != sample.shape:
        raise SchedulerError(
            f"Expected a model output of the sample's shape {tuple(sample.shape)}, "
            f"got {tuple(output.shape)} (learned variances are not supported)."
        )
    coordinates = call.view.at(index, eta, churn(call, index, given))
    state = call.state(index, coordinates, sample, output)
    if call.settings.seen is not None:
        call.settings.seen(state)
    if call.settings.keep is not None and method.prunes:
        call.record.active = call.active = _survivors(call, state, call.settings.keep)
    edited = _edit(call, output, state, coordinates)
    if method.couples_steps:
        call.transform = _step_noise(call, state)
    return edited


def churn(call: Call, index: int, given: dict[str, Any]) -> float:
    """Return by how much a step of Karras et al. (2022, Algorithm 2) raises sigma first."""
    amount, sigma = float(given.get("s_churn") or 0.0), call.view.sigma(index)
    if not amount or not given["s_tmin"] <= sigma <= given["s_tmax"]:
        return 0.0
    return float(min(amount / (len(call.scheduler.sigmas) - 1), 2**0.5 - 1))


def _edit(call: Call, output: Tensor, state: State, coordinates: Coordinates) -> Tensor:
    """Return the model output with the method's guidance in it.

    Nothing is left to guide at noise level 0, where some pipelines evaluate their network once.
    """
    call.called.add("guidance")
    if coordinates.sigma == 0 or not call.method.acts_by("guidance"):
        return output
    with torch.no_grad():
        guidance = call.method.guidance(state)
    if guidance is None:
        return output
    if guidance.shape != state.particles.shape:
        raise ParameterError(
            f"Expected guidance of shape {tuple(state.particles.shape)}, "
            f"got {tuple(guidance.shape)}."
        )
    call.finite.append((state.step, state.sigma, torch.isfinite(guidance).all()))
    delta = (coordinates.sigma / coordinates.gain) * guidance.reshape(output.shape)
    return coordinates.edit(output, delta)


def _step_noise(call: Call, state: State) -> Transform:
    """Return the change of noise that is drawn in a step."""
    count = state.particles.shape[1]

    def change(noise: Tensor) -> Tensor:
        call.called.add("step_noise")
        return by_group(noise, count, lambda grouped: call.method.step_noise(grouped, state))

    return change


def _survivors(call: Call, state: State, keep: int) -> Tensor:
    """Return which particles go on after this step, (G, N), bool."""
    active = call.active
    if active is None:
        active = torch.ones(state.particles.shape[:2], dtype=torch.bool)
    call.called.add("active")
    if int(active[0].sum()) <= keep:
        return active
    return call.method.active(state, active, keep).cpu()


def _check_guided(call: Call) -> None:
    """Raise ModelError before a step where there is no guidance to change."""
    if call.method.reguides and not call.guided:
        raise no_guidance(call.family)
