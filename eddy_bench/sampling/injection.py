"""Replace the noise that a pipeline and its scheduler draw by noise that a method chooses."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Transform = Callable[[Tensor], Tensor]  # (rows, *shape) to the same


@contextmanager
def transformed_draws(
    namespace: dict[str, Any], transform: Callable[[], Transform | None]
) -> Iterator[None]:
    """Send every `randn_tensor` of a module through the transform that is set at the time.

    None leaves the noise alone. Noise is drawn in float32 and cast afterwards, so that precision
    does not change it.
    """
    original = namespace.get("randn_tensor")
    if original is None:  # a deterministic solver's module; the method says so at the first step
        yield
        return

    def draw(
        shape: Sequence[int],
        generator: torch.Generator | list[torch.Generator] | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        layout: torch.layout | None = None,
    ) -> Tensor:
        change = transform()
        if change is None:
            noise: Tensor = original(
                shape, generator=generator, device=device, dtype=dtype, layout=layout
            )
            return noise
        wide = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        return change(
            original(shape, generator=generator, device=device, dtype=wide, layout=layout)
        ).to(dtype or wide)

    namespace["randn_tensor"] = draw
    try:
        yield
    finally:
        namespace["randn_tensor"] = original


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


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute of an instance, and put it back as it was."""
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
