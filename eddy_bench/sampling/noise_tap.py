"""The noise that a pipeline and its solver draw, with a method's hand on it in their calls."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from eddy_bench.sampling.call import ACTIVE, Call, Transform


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
