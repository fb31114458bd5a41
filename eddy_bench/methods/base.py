"""What a sampling method is: a frozen dataclass whose fields are its hyper-parameters, and three hooks with neutral defaults."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self, get_type_hints

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from eddy_bench.errors import ParameterError
from eddy_bench.sampling.couplings import Init, couple_initial
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

    def __post_init__(self) -> None:
        for key, adapter in _adapters(type(self)).items():  # type: ignore[arg-type]
            value = getattr(self, key)
            try:
                object.__setattr__(self, key, adapter.validate_python(value))
            except ValidationError as error:
                reason = error.errors()[0]["msg"]
                raise ParameterError(f"Parameter {key!r} of method {self.title()!r}: {reason}, got {value!r}.") from None

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


@dataclass(frozen=True)
class Window:
    """Where guidance acts: an interval of sb, or of the share of steps done; faded towards its later end."""

    low: float
    high: float
    share: bool = False

    def weight(self, state: State) -> float:
        """1 inside and 0 outside; linear towards the end that sampling reaches last: over two steps, or over sb in [a, 1.25 a]."""
        if self.share:
            inside = self.low <= state.share + 1e-9
            edge = FADE_STEPS / max(state.steps, 1)
            return min(max((self.high - state.share) / edge, 0.0), 1.0) if inside and self.high < 1 else float(inside)
        if not self.low <= state.sigma <= self.high:
            return 0.0
        return min((state.sigma - self.low) / (FADE_SIGMA * self.low), 1.0) if self.low > 0 else 1.0


def parse_window(text: str) -> Window:
    """`a..b` in sb (b may be left out: no upper end), or `a%..b%` in share of steps.

    >>> parse_window("0%..20%")
    Window(low=0.0, high=0.2, share=True)
    >>> parse_window("1..")
    Window(low=1.0, high=inf, share=False)
    """
    match = re.fullmatch(r"\s*([\d.eE+-]*?)(%?)\.\.([\d.eE+-]*?|inf)(%?)\s*", text)
    problem = f"Expected a window 'a..b' in sb or 'a%..b%' in share of steps, got {text!r}."
    if not match or match[2] != match[4]:
        raise ParameterError(problem)
    percent = bool(match[2])
    try:
        low = float(match[1] or 0)
        high = float(match[3]) if match[3] else (100.0 if percent else math.inf)
    except ValueError:
        raise ParameterError(problem) from None
    if not 0 <= low < high or (percent and high > 100):
        raise ParameterError(problem + " The ends must rise, and shares stay within 0% and 100%.")
    return Window(low / 100, high / 100, True) if percent else Window(low, high)


@dataclass(frozen=True)
class KernelMethod(Method):
    """A method that guides by a radial kernel between particles.

    Args:
        strength: dimensionless; 0 is off, a negative one attracts; None is the value tuned for the kernel (`strengths`).
        kernel: what the kernel sees: `latent` (xb), `denoised` (E[x0 | xb]) or `features` (a guide network on the decoded
            denoised estimate); the last two take d x0 / d xb = 1. `auto` is the method's own choice.
        bandwidth: h in gamma = h^2 (times sb^2 with the latent kernel); None is the method's own rule.
        init: coupling of the initial noise: `iid`, `antithetic`, `lhs` or `sobol`.
        window: where it acts, `a..b` in sb or `a%..b%` in share of steps; `auto` is the method's own choice.

    """

    strength: Strength | None = None
    kernel: Kernel = "auto"
    bandwidth: Positive | None = None
    window: str = "auto"
    init: Init = "iid"

    guides: ClassVar[bool] = True
    preferred_kernel: ClassVar[str] = "latent"
    windows: ClassVar[dict[str, str]] = {}
    strengths: ClassVar[dict[str, float]] = {"latent": 1.0, "denoised": 1.0, "features": 1.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window != "auto":
            parse_window(self.window)

    @property
    def couples_start(self) -> bool:
        """Whether the particles of a group start from dependent noise."""
        return self.init != "iid"

    def initial_noise(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """The starting noise under `init`, (N, d)."""
        return couple_initial(self.init, noise, generator)

    def resolved_kernel(self, has_features: bool) -> str:
        """`kernel`, with `auto` resolved."""
        if self.kernel == "auto":
            return self.preferred_kernel if has_features or self.preferred_kernel != "features" else "latent"
        if self.kernel == "features" and not has_features:
            raise ParameterError(
                f"Method {self.title()!r} asks for kernel=features, but this model has no guide network. Use kernel=latent or kernel=denoised."
            )
        return self.kernel

    def resolved(self, has_features: bool) -> Self:
        """The method with its kernel and strength spelled out."""
        kernel = self.resolved_kernel(has_features)
        return replace(self, kernel=kernel, strength=self.amount(kernel))  # type: ignore[arg-type]

    def amount(self, kernel: str) -> float:
        """The strength that was set, or the one tuned for a kernel."""
        return self.strengths[kernel] if self.strength is None else self.strength

    def gate(self, state: State) -> float:
        """The weight of this step."""
        kernel = self.resolved_kernel(state.features is not None)
        return parse_window(self.windows[kernel] if self.window == "auto" else self.window).weight(state)

    def gamma(self, state: State, default: Tensor | float) -> Tensor | float:
        """The bandwidth that was set, or `default`."""
        if self.bandwidth is None:
            return default
        return self.bandwidth**2 * (state.sigma**2 if self.resolved_kernel(state.features is not None) == "latent" else 1.0)


def rows(values: Tensor) -> Tensor:
    """(G, N, d) to (G N, d)."""
    return values.flatten(0, 1)
