"""What methods share that guide by a radial kernel: kernel, window, scale, forces."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from eddy_bench.errors import ParameterError
from eddy_bench.kernels import near, squared_distances, weighted_differences
from eddy_bench.methods.base import Method, Positive, Strength
from eddy_bench.methods.couplings import Init, Starts
from eddy_bench.sampling.feature_maps import FeatureMap, Identity, UnitVectors
from eddy_bench.sampling.state import State, StepInfo

# Guidance is faded at the end of its window: an edit stays in a multistep solver's history.
FADE_STEPS = 2
FADE_SIGMA = 0.25


@dataclass(frozen=True)
class Window:
    """Where guidance acts, faded towards its later end.

    Attributes:
        low: lower end of an interval of the noise level sigma, or of the share of steps done.
        high: upper end of the same.
        share: the interval is one of the share of steps done, in [0, 1].
    """

    low: float
    high: float
    share: bool = False

    def weight(self, state: State) -> float:
        """Return 1 inside and 0 outside, and less towards the end that sampling reaches last.

        The weight falls linearly over the last two steps, or over sigma in [low, 1.25 low].
        """
        if self.share:
            inside = self.low <= state.share + 1e-9
            if not inside or self.high >= 1:
                return float(inside)
            edge = FADE_STEPS / max(state.steps, 1)
            return min(max((self.high - state.share) / edge, 0.0), 1.0)
        if not self.low <= state.sigma <= self.high:
            return 0.0
        return min((state.sigma - self.low) / (FADE_SIGMA * self.low), 1.0) if self.low > 0 else 1.0

    def holds(self, info: StepInfo) -> bool:
        """Return whether a info is inside: low < sigma <= high, or low <= share < high."""
        if self.share:
            return self.low <= info.share + 1e-9 < self.high
        return self.low < info.sigma <= self.high


def parse_window(text: str) -> Window:
    """Read `a..b` in sigma (b may be left out: no upper end), or `a%..b%` in share of steps.

    >>> parse_window("0%..20%")
    Window(low=0.0, high=0.2, share=True)
    >>> parse_window("1..")
    Window(low=1.0, high=inf, share=False)
    """
    match = re.fullmatch(r"\s*([\d.eE+-]*?)(%?)\.\.([\d.eE+-]*?|inf)(%?)\s*", text)
    problem = (
        "Expected a window 'a..b' in the noise level sigma / alpha or 'a%..b%' in share of steps, "
        f"got {text!r}."
    )
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

    preferred_kernel: ClassVar[str] = "latent"
    windows: ClassVar[dict[str, str]] = {"latent": "0..", "denoised": "0..", "features": "0.."}
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


def shares_of_output(guidance: Tensor, state: State) -> Tensor:
    """Return |sigma g_i| / |eps_i| of each particle, (G, N, 1): guidance over the model's output.

    guidance: the score term g, (G, N, d).
    """
    output = state.eps.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(state.eps.dtype).tiny)
    shares: Tensor = state.sigma * guidance.norm(dim=-1, keepdim=True) / output
    return shares


def relative_guidance(
    guidance: Tensor, state: State, share: float, cap: float | None = None
) -> Tensor:
    """Rescale the guidance of each group to a share of the model's output.

    The root mean square over the particles of a group of |sigma g_i| / |eps_i| becomes |share|;
    single particles are cut back to `cap`. Directions stay, as do the proportions within a group up
    to the cap; guidance that is 0 stays 0. The factor depends on the particles themselves, so that
    a drift that was divergence-free is not any more (ours; measured in docs/audit.md).

    Args:
        guidance: the score term g, (G, N, d).
        state: of the same particles.
        share: of the output, for instance 0.3; a negative one turns the guidance round.
        cap: the largest share of a single particle; None for no bound.

    Returns:
        The rescaled score term, (G, N, d).
    """
    shares = shares_of_output(guidance, state)
    mean = shares.square().mean(1, keepdim=True).sqrt()
    factor = torch.where(mean > 0, share / mean.clamp_min(torch.finfo(mean.dtype).tiny), 0.0)
    if cap is not None:
        largest = cap / shares.clamp_min(torch.finfo(shares.dtype).tiny)
        factor = factor.clamp(-largest, largest)
    return factor * guidance


def kernel_points(kernel: str, state: State) -> tuple[Tensor, FeatureMap]:
    """Return the points of a kernel, (G, N, d), and the map from them to what it compares."""
    if kernel == "latent":
        return state.particles, Identity()
    if kernel == "denoised" or state.features is None:
        return state.denoised, Identity()
    return state.denoised, state.features


def pulled_force(
    points: Tensor, features: FeatureMap, weights: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return J^T sum_j w_ij (phi_i - phi_j), (G, N, d), at one pull-back per particle.

    Args:
        points: (G, N, d).
        features: the map phi.
        weights: from squared feature distances to w, both (G, N, N).
    """
    return features.pull_groups(
        points,
        lambda values: weighted_differences(
            weights(near(squared_distances(values))).to(values),
            values - values.mean(1, keepdim=True),
        ),
    )


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


@dataclass(frozen=True)
class DirectedMethod(GuidingMethod):
    """A method that follows the gradient of an objective of the group's features.

    Under scale=fixed each particle's step has the length that its paper gives it (`length`), in the
    gradient's direction; under scale=relative the gradients keep their proportions.
    """

    unit: ClassVar[bool] = False  # latents and denoised estimates are compared by direction

    def term(self, kernel: str, state: State, amount: float) -> Tensor:
        """Return the score term, (G, N, d)."""
        points, features = kernel_points(kernel, state)
        if self.unit and isinstance(features, Identity):
            features = UnitVectors()
        force = pulled_force(points, features, lambda square: self.weights(square, state))
        force = force.to(state.particles)
        if self.resolved_scale(kernel) == "relative":
            return amount * force
        tiny = torch.finfo(force.dtype).tiny
        direction = force / force.norm(dim=-1, keepdim=True).clamp_min(tiny)
        guidance: Tensor = amount * self.length(state) * direction
        return guidance

    @abstractmethod
    def weights(self, square: Tensor, state: State) -> Tensor:
        """Return the weights of the gradient, (G, N, N), from squared distances."""

    def length(self, state: State) -> Tensor:
        """Return the length of a particle's g at strength 1, (G, N, 1).

        |xb| / (sigma (sigma - sigma_next)) unless a paper says otherwise: the step moves xb by
        |xb| then.
        """
        fall = max(state.sigma - state.sigma_next, 1e-12)
        length: Tensor = state.particles.norm(dim=-1, keepdim=True) / (state.sigma * fall)
        return length
