"""`scheduler.step` with a method's guidance in the model output and its noise in the draws."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from eddy_bench.errors import EddyError, ParameterError, SchedulerError
from eddy_bench.sampling.branch_checks import no_guidance
from eddy_bench.sampling.call import Call, Transform
from eddy_bench.sampling.extra_steps import better_start, renoised, settle, starts
from eddy_bench.sampling.noise_tap import by_group
from eddy_bench.sampling.solver_view import Coordinates, check_stochastic
from eddy_bench.sampling.state import State


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
    if not torch.isfinite(guidance).all():
        raise EddyError(
            f"The guidance is not finite at step {state.step} "
            f"(noise level sigma / alpha = {state.sigma:.3g}). Lower the strength."
        )
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
    call.called.add("alive")
    if int(active[0].sum()) <= keep:
        return active
    return call.method.alive(state, active, keep).cpu()


def _check_guided(call: Call) -> None:
    """Raise ModelError before a step where there is no guidance to change."""
    if call.method.reguides and not call.guided:
        raise no_guidance(call.family)
