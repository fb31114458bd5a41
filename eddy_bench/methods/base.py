"""What a sampling method is: a frozen dataclass whose fields are its hyper-parameters, and three hooks with neutral defaults."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self, get_type_hints

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from eddy_bench.errors import ParameterError
from eddy_bench.sampling.state import State

Kernel = Literal["auto", "latent", "denoised", "features"]
Strength = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
# Guidance is faded at the end of its window: an edit stays in a multistep solver's history.
FADE_STEPS = 2
FADE_SIGMA = 0.25


@cache
def _adapters(cls: Any) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(cls, include_extras=True)
    return {item.name: TypeAdapter(hints[item.name]) for item in fields(cls)}


@dataclass(frozen=True)
class Method:
    """Draw the N particles of a prompt independently, unless a subclass overrides a hook.

    Class attributes: name (set by the registry for built-in methods), summary, citation, cost (for `list methods`),
    min_particles (fewer is an error), guides (adds a drift), selects (draws more than it keeps, and needs a guide network).

    Raises:
        ParameterError: a field has the wrong type or is out of range.

    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    cost: ClassVar[str] = "none"
    min_particles: ClassVar[int] = 1
    guides: ClassVar[bool] = False
    selects: ClassVar[bool] = False
    dial: ClassVar[str] = "strength"

    def __post_init__(self) -> None:
        for key, adapter in _adapters(type(self)).items():  # type: ignore[arg-type]
            value = getattr(self, key)
            try:
                object.__setattr__(self, key, adapter.validate_python(value))
            except ValidationError as error:
                reason = error.errors()[0]["msg"]
                raise ParameterError(
                    f"Parameter {key!r} of method {self.title()!r}: {reason}, got {value!r}."
                ) from None

    def title(self) -> str:
        """The registered name, or the class's for a plug-in without one."""
        return self.name or type(self).__name__

    def parameters(self) -> dict[str, Any]:
        """The hyper-parameters, in order."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def resolved(self, has_features: bool) -> Self:
        """Everything that is left to a default spelled out; a group's key covers it."""
        return self

    def resolved_kernel(self, has_features: bool) -> str:
        """The kernel that will be used on a model with or without a guide network; empty when there is none.

        Raises:
            ParameterError: features were asked for where the model has none.

        """
        return ""

    @property
    def couples_start(self) -> bool:
        """Whether the particles of a group start from dependent noise."""
        return type(self).initial_noise is not Method.initial_noise

    @property
    def couples_steps(self) -> bool:
        """Whether the step noise of a group is dependent, which needs a stochastic solver."""
        return type(self).step_noise is not Method.step_noise

    def drawn(self, particles: int) -> int:
        """How many images are drawn to keep `particles` of them."""
        return particles

    def equal_cost_to(self) -> str | None:
        """Return the method whose seconds `dial` is to be set by when a run is planned.

        It is as on the command line, or empty for the slowest of the run; None where nothing is
        left to measure.
        """
        return None

    def choose(self, features: Tensor, count: int) -> list[int]:
        """The places of the images to keep, from guide-network features (M, F)."""
        return list(range(count))

    def guidance(self, state: State) -> Tensor | None:
        """The score term g, (G, N, d), added before the solver's step; None to leave the step alone."""
        return None

    def initial_noise(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """The starting noise of one group from independent standard normal noise, both (N, d)."""
        return noise

    def step_noise(self, noise: Tensor, state: State) -> Tensor:
        """The noise of one stochastic step from independent standard normal noise, both (G, N, d)."""
        return noise
