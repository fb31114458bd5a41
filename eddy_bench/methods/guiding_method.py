"""What methods share that guide by a radial kernel: where they act, and at which scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from torch import Tensor

from eddy_bench.errors import ParameterError
from eddy_bench.methods.base import Positive
from eddy_bench.methods.kernel_method import KernelMethod
from eddy_bench.methods.scaling import relative_guidance
from eddy_bench.sampling.state import State

Scale = Literal["auto", "fixed", "relative"]
DEFAULT_SHARE = 0.3  # of a kernel that was not tuned under a relative scale


@dataclass(frozen=True)
class GuidingMethod(KernelMethod):
    """A method whose score term has a scale.

    Args:
        scale: `fixed` takes the term as its formula gives it; `relative` rescales that of each
            group to a share of the model's output, which `strength` is then; `auto` is relative
            for the kernels in `shares`.
        cap: the largest share of the output that the term of a single particle makes under a
            relative scale; None is twice the strength.

    """

    scale: Scale = "auto"
    cap: Positive | None = None

    # Tuned under a relative scale, as `strengths` are under a fixed one.
    shares: ClassVar[dict[str, float]] = {}

    def resolved(self, has_features: bool) -> Self:
        """Return the method with its kernel, scale, cap and strength spelled out."""
        spelled = super().resolved(has_features)
        scale = self.resolved_scale(spelled.kernel)
        cap = self.resolved_cap(spelled.kernel) if scale == "relative" else None
        return replace(spelled, scale=scale, cap=cap)

    def resolved_scale(self, kernel: str) -> Scale:
        """Return `scale` with `auto` resolved for a kernel."""
        if self.scale != "auto":
            return self.scale
        return "relative" if kernel in self.shares else "fixed"

    def resolved_cap(self, kernel: str) -> float | None:
        """Return `cap`, or twice the strength; None where nothing guides."""
        return self.cap if self.cap is not None else 2 * abs(self.amount(kernel)) or None

    def amount(self, kernel: str) -> float:
        """Return the strength that was set, or the one tuned for a kernel and its scale.

        Raises:
            ParameterError: a strength beyond 1 that would silently be a share of the output, or a
                cap where there are no shares.

        """
        if self.resolved_scale(kernel) == "fixed":
            if self.cap is not None:
                raise ParameterError(
                    f"Expected no cap of {self.title()} with kernel={kernel} and scale=fixed, as "
                    f"it bounds shares of the model's output, got {self.cap:g}. Leave it out, or "
                    "add scale=relative."
                )
            return super().amount(kernel)
        if self.strength is None:
            return self.shares.get(kernel, DEFAULT_SHARE)
        if self.scale == "auto" and abs(self.strength) > 1:
            raise ParameterError(
                f"Expected strength of {self.title()} with kernel={kernel} as a share of the "
                f"model's output, at most 1, got {self.strength:g}. For the scale of its formula, "
                "as papers give it, add scale=fixed; to go beyond 1, scale=relative."
            )
        return self.strength

    def guidance(self, state: State) -> Tensor | None:
        """Return the score term g, (G, N, d), at its scale."""
        weight = self.gate(state)
        kernel = self.resolved_kernel(state.features is not None)
        amount = weight * self.amount(kernel)
        if not self.partners(state) or weight == 0 or not self.acts(kernel, state):
            return None
        if self.resolved_scale(kernel) == "fixed":
            return self.term(kernel, state, amount)
        term = self.term(kernel, state, 1.0)
        return relative_guidance(term, state, amount, self.resolved_cap(kernel))

    def partners(self, state: State) -> int:
        """Return how many others a particle sees."""
        return state.particles.shape[1] - 1

    def acts(self, kernel: str, state: State) -> bool:
        """Return whether there is guidance at this step: where alpha_t is 0 there is none."""
        return not state.pure_noise

    def term(self, kernel: str, state: State, amount: float) -> Tensor:
        """Return the score term of a strength, (G, N, d), at the scale of its formula."""
        raise NotImplementedError
