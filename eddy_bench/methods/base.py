"""Sampling methods: frozen dataclasses of hyper-parameters, and what they say of themselves."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, ClassVar, Self, get_type_hints

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from eddy_bench.errors import ParameterError
from eddy_bench.sampling.hooks import Hooks
from eddy_bench.storage.files import MAX_CANDIDATES, refuse_more

Strength = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(ge=1e-100, le=1e100)]  # so that its square is a number too
Count = Annotated[int, Field(ge=1)]
ACTED_ON = (
    "nothing",
    "start",
    "steps",
    "step noise",
    "score",
    "condition",
    "features",
    "guidance",
    "selection",
)


@cache
def _adapters(cls: Any) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: TypeAdapter(hints[field.name]) for field in fields(cls)}


@dataclass(frozen=True)
class Method(Hooks):
    """Draw the N particles of a prompt independently, unless a subclass overrides a hook.

    Attributes:
        name: as registered. summary, citation, cost: for `list methods`.
        min_particles: fewer are an error.
        interacts: the particles of a group depend on each other; False for a method that acts on
            each one alone, which is another law and no coupling, at N = 1 too.
        exactly_marginal: every sample provably keeps the distribution that the model gives it, at
            any number of steps; `preserves_marginal` says so of a method with its parameters.
        audited: an audit draws it without being asked to.
        selects: the method draws more than it keeps, and needs a guide network.

    Raises:
        ParameterError: a field has the wrong type or is out of range.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    cost: ClassVar[str] = "none"
    exactly_marginal: ClassVar[bool] = False
    audited: ClassVar[bool] = True
    sweep: ClassVar[str] = "strength"

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

    @property
    def preserves_marginal(self) -> bool:
        """Whether every sample provably keeps the distribution that the model gives it."""
        return self.exactly_marginal

    @classmethod
    def acts_on(cls) -> str:
        """Return what of sampling a method changes: one of `ACTED_ON`."""
        changed = {
            "selection": cls.selects,
            "condition": "condition" in cls.hooks,
            "features": "features_of" in cls.hooks,
            "guidance": bool(cls.hooks & {"guidance_scale", "combine"}),
            "score": "guidance" in cls.hooks,
            "step noise": "step_noise" in cls.hooks,
            "steps": cls.restarts is not Hooks.restarts,
            "start": bool(cls.hooks & {"initial_noise", "initial_field", "improved_start"}),
        }
        return next((name for name, whether in changed.items() if whether), ACTED_ON[0])

    def title(self) -> str:
        """Return the registered name, or the class's for a plug-in without one."""
        return self.name or type(self).__name__

    def parameters(self) -> dict[str, Any]:
        """Return the hyper-parameters, in order."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def resolved(self, has_features: bool) -> Self:
        """Return the method with its defaults spelled out, as a group's key covers them."""
        return self

    def resolved_kernel(self, has_features: bool) -> str:
        """Return the kernel for a model with or without a guide network, or an empty text."""
        return ""

    def drawn(self, particles: int) -> int:
        """Return how many images are drawn to keep `particles` of them."""
        return particles

    @property
    def previewed(self) -> int | None:
        """The steps after which `choose` sees denoised estimates; None: it sees finished images."""
        return None

    @property
    def judge(self) -> str:
        """The network that judges images by their prompt while drawing, or an empty text."""
        return ""

    def equal_cost_to(self) -> str | None:
        """Return the method whose seconds `sweep` is to be set by when a run is planned.

        It is as on the command line, or empty for the slowest of the run; None where nothing is
        left to measure.
        """
        return None

    def matched_sweep(self, images: int, particles: int) -> int:
        """Return the value of `sweep` that draws at least `images` to keep `particles`."""
        return images

    def choose(self, features: Tensor, count: int, generator: torch.Generator) -> list[int]:
        """Return the indices of the images to keep, from guide-network features (M, F).

        The generator is the group's own, apart from every particle's.
        """
        return list(range(count))


def check_demands(method: Method, name: str, particles: int, steps: int | None) -> None:
    """Raise ParameterError for a method that cannot draw so many particles in so few steps.

    Args:
        method: to check.
        name: as errors call it.
        particles: N.
        steps: of the solver; None where they are not known.
    """
    if particles < method.min_particles:
        raise ParameterError(
            f"Method {name!r} needs at least {method.min_particles} particles, "
            f"got {particles}. Set --particles."
        )
    drawn = method.drawn(particles)  # raises where the method cannot draw as many
    refuse_more([drawn], MAX_CANDIDATES, f"candidates of {name!r}", "Lower m.", ParameterError)
    if steps is not None and (method.previewed or 0) > steps:
        raise ParameterError(
            f"Expected preview of {name!r} to be at most the {steps} steps, "
            f"got {method.previewed}. Lower it, or raise --steps."
        )
