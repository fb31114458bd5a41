"""The hyper-parameters that methods with a radial kernel between particles share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from torch import Tensor

from eddy_bench.errors import ParameterError
from eddy_bench.methods.base import Method, Positive, Strength
from eddy_bench.methods.couplings import Init
from eddy_bench.methods.started import Starts
from eddy_bench.methods.window import parse_window
from eddy_bench.sampling.state import State

Kernel = Literal["auto", "latent", "denoised", "features"]


@dataclass(frozen=True)
class KernelMethod(Starts, Method):
    """A method that guides by a radial kernel between particles.

    Args:
        strength: dimensionless; 0 is off, a negative one attracts; None is the value tuned for the
            kernel (`strengths`).
        kernel: what the kernel sees: `latent` (xb), `denoised` (E[x0 | xb]) or `features` (a guide
            network on the decoded denoised estimate); the last two take d x0 / d xb = 1. `auto` is
            the method's own choice.
        bandwidth: h in gamma = h^2 (times sigma^2 with the latent kernel); None is the method's own
            rule.
        init: coupling of the initial noise: `iid`, `antithetic`, `lhs` or `sobol`.
        window: where it acts, `a..b` in the noise level sigma or `a%..b%` in share of steps; `auto`
            is the method's own choice.

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

    def resolved_kernel(self, has_features: bool) -> str:
        """Return `kernel` with `auto` resolved."""
        if self.kernel == "auto":
            unusable = self.preferred_kernel == "features" and not has_features
            return "latent" if unusable else self.preferred_kernel
        if self.kernel == "features" and not has_features:
            raise ParameterError(
                f"Method {self.title()!r} asks for kernel=features, but this model has no guide "
                "network. Use kernel=latent or kernel=denoised."
            )
        return self.kernel

    def resolved(self, has_features: bool) -> Self:
        """Return the method with its kernel and strength spelled out."""
        kernel = self.resolved_kernel(has_features)
        return replace(self, kernel=kernel, strength=self.amount(kernel))  # type: ignore[arg-type]

    def amount(self, kernel: str) -> float:
        """Return the strength that was set, or the one tuned for a kernel."""
        return self.strengths[kernel] if self.strength is None else self.strength

    def gate(self, state: State) -> float:
        """Return the weight of this step."""
        kernel = self.resolved_kernel(state.features is not None)
        window = self.windows[kernel] if self.window == "auto" else self.window
        return parse_window(window).weight(state)

    def gamma(self, state: State, default: Tensor | float) -> Tensor | float:
        """Return gamma from the bandwidth that was set, or `default`."""
        if self.bandwidth is None:
            return default
        on_latents = self.resolved_kernel(state.features is not None) == "latent"
        return self.bandwidth**2 * (state.sigma**2 if on_latents else 1.0)
