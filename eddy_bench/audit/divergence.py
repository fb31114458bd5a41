"""Whether a guidance keeps one particle's density: div(p g) / p by automatic differentiation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from eddy_bench.errors import ParameterError
from eddy_bench.experiment.events import Listener
from eddy_bench.methods.base import Method
from eddy_bench.methods.eddy import Eddy, EddyExact, EddyFd, EddyHutch
from eddy_bench.methods.guided import KernelMethod
from eddy_bench.methods.registry import changed_parameters
from eddy_bench.models.tasks import Task
from eddy_bench.sampling.noise import stream_seed
from eddy_bench.sampling.state import State

POINTS = 24
DRAWS = 24  # of a method's random probes
MANY = 16  # dimensions beyond which a third of both does: each point costs d backward passes
NOTHING = 1e-12  # of a field's natural size, below which it is 0 but for rounding
LEVELS = (0.1, 0.5)  # noise levels, in standard deviations of the task
FREE = 1e-6  # relative residual below which a field is divergence-free up to rounding


@dataclass(frozen=True)
class Divergence:
    """Residuals of a method on a task at one noise level, relative to the size of the terms."""

    task: str
    method: str
    params: str
    sigma: float
    residual: float  # root mean square of div(p g) / p over points and probe draws
    mean_residual: float  # of its mean over probe draws
    mean_error: float  # the part of the mean residual that the draws' own spread explains
    halved_step: float  # the mean residual with half the difference step; NaN where there is none

    @property
    def verdict(self) -> str:
        """In words."""
        if self.residual < FREE:
            return "divergence-free"
        if self.mean_residual < FREE or self.mean_residual < 2 * self.mean_error:
            return "divergence-free in the mean over probes"
        if self.halved_step < self.mean_residual / 3:
            return "divergence-free as the difference step goes to 0"
        return "not divergence-free"


def default_methods() -> list[KernelMethod]:
    """Return EDDY in every form, with every sign of the divergence term and source of velocity."""
    forms: tuple[type[Eddy], ...] = (EddyExact, EddyFd, EddyHutch)
    return [
        form(kernel="latent", v_source=source, div_sign=sign)
        for form in forms
        for sign in ("derived", "published")
        for source in ("others", "self")
    ]


def check_guides(methods: Sequence[Method]) -> list[KernelMethod]:
    """Return the methods, with their kernel on latents and no window."""
    guides = []
    for method in methods:
        if not (isinstance(method, KernelMethod) and method.acts_by("guidance")):
            raise ParameterError(
                f"Method {method.title()!r} adds no drift, so there is no divergence to measure. "
                "Use one that guides, such as eddy-exact or pg."
            )
        guides.append(replace(method, kernel="latent", window="0.."))
    return guides


def measure_all(
    tasks: Sequence[Task], methods: Sequence[KernelMethod], seed: int, listener: Listener
) -> list[Divergence]:
    """Return the residuals of methods on tasks at every noise level; the listener is told."""
    measured = []
    with listener.began("Differentiating", len(tasks) * len(methods) * len(LEVELS)) as advance:
        for task, method, level in itertools.product(tasks, methods, LEVELS):
            changed = changed_parameters(method).items()
            params = [f"{k}={value}" for k, value in changed if k not in ("kernel", "window")]
            measured.append(measure_divergence(task, method, ",".join(params), level, seed))
            advance(1, f"{task.name}: {method.title()}")
    return measured


def measure_divergence(
    task: Task, method: KernelMethod, params: str, level: float, seed: int = 0
) -> Divergence:
    """Return the residual of one method, shown with `params`, on a task.

    level: of the noise, in standard deviations of the task. seed: of the points and the probes.
    """
    random = (
        "probes" in method.parameters()
        or getattr(method, "max_coordinates", task.mixture.dimension) < task.mixture.dimension
    )
    draws = 1 if not random else DRAWS if task.mixture.dimension <= MANY else DRAWS // 3
    residuals, size = _residuals(task, method, level, seed, draws)
    mean = residuals.mean(0)
    error = float((residuals.var(0) / len(residuals)).mean().sqrt()) if len(residuals) > 1 else 0.0
    halved = float("nan")
    if "difference_step" in method.parameters():
        halves: dict[str, Any] = {"difference_step": method.parameters()["difference_step"] / 2}
        finer = replace(method, **halves)
        again, _ = _residuals(task, finer, level, seed, draws)
        halved = float(again.mean(0).square().mean().sqrt()) / size
    whole, own = (float(values.square().mean().sqrt()) / size for values in (residuals, mean))
    sigma = level * task.mixture.scale()
    return Divergence(task.name, method.title(), params, sigma, whole, own, error / size, halved)


def _residuals(
    task: Task, method: KernelMethod, level: float, seed: int, draws: int
) -> tuple[Tensor, float]:
    """Return div(p g) / p at the first particle of each group for each draw of the probes.

    Its shape is (draws, G); the size of its terms comes beside it.
    """
    mixture, sigma = task.mixture, level * task.mixture.scale()
    generator = torch.Generator().manual_seed(stream_seed(seed, task.name, "divergence"))
    groups = POINTS if mixture.dimension <= MANY else POINTS // 3
    clean = mixture.sample(groups * task.particles, generator).reshape(groups, task.particles, -1)
    particles = clean + sigma * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    fields = (_field(mixture.score, method, particles, sigma, seed + k) for k in range(draws))
    pairs = [_divergence(field, particles[:, 0], mixture.score, sigma) for field in fields]
    residuals, sizes = map(torch.stack, zip(*pairs, strict=True))
    typical = float(sizes.square().mean().sqrt())
    natural = float(mixture.score(particles, sigma).square().mean())
    if typical < NOTHING * natural:  # 0 but for rounding, as EDDY's field is in one dimension
        return torch.zeros(1, groups, dtype=torch.float64), 1.0
    return residuals, typical


def _field(
    score: Callable[[Tensor, float], Tensor],
    method: Method,
    particles: Tensor,
    sigma: float,
    seed: int,
) -> Callable[[Tensor], Tensor]:
    """Return the guidance on first particles as a function of them, all else and probes fixed."""

    def field(first: Tensor) -> Tensor:
        x = torch.cat([first[:, None], particles[:, 1:]], 1)
        s = score(x, sigma)
        probes = tuple(
            torch.Generator().manual_seed(stream_seed(seed, str(group), "probes"))
            for group in range(len(x))
        )
        guidance = method.guidance(State(x, s, x + sigma**2 * s, sigma, generators=probes))
        return torch.zeros_like(first) if guidance is None else guidance[:, 0]

    return field


def _divergence(
    field: Callable[[Tensor], Tensor],
    points: Tensor,
    score: Callable[[Tensor, float], Tensor],
    sigma: float,
) -> tuple[Tensor, Tensor]:
    """Return div g + <s, g> at points (G, d) and the sum of its terms' sizes, (G,) each."""
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        value = field(points)
        slopes = [
            torch.autograd.grad(value[:, k].sum(), points, retain_graph=True)[0][:, k]
            for k in range(points.shape[1])
        ]
    terms = torch.stack(slopes, 1).detach()
    along = score(points.detach(), sigma) * value.detach()
    return (terms + along).sum(1), (terms.abs() + along.abs()).sum(1)
