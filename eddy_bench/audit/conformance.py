"""What every sampling method promises, checked on small models: zero strength, N = 1, permutation, batch independence, finite, deterministic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from eddy_bench.errors import EddyError, SchedulerError, brief
from eddy_bench.methods.base import Method
from eddy_bench.methods.iid import Iid
from eddy_bench.models.base import Model
from eddy_bench.models.load import load_model
from eddy_bench.sampling.feature_maps import NetworkFeatures
from eddy_bench.sampling.noise import particle_generators, probe_generator
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.sampling.state import State
from eddy_bench.sampling.steer import steer

PARTICLES = 4
STEPS = 6
PROMPTS = ("a", "b")
SOLVERS = ("ddim", "ddim:eta=1", "dpmpp-2m", "euler", "flow-euler")
GROUPS = 4000  # of the checks of noise
TOLERANCE = 1e-6  # relative, of what other batch shapes may change


@dataclass(frozen=True)
class Finding:
    """One promise. holds: None where it does not apply. detail: figures, or why."""

    name: str
    holds: bool | None
    detail: str = ""


class Recorder(Method):
    """A method that keeps what it saw."""

    def __init__(self, method: Method) -> None:
        object.__setattr__(self, "inner", method)
        object.__setattr__(self, "states", [])

    inner: Method
    states: list[State]

    @property
    def couples_start(self) -> bool:
        """As the method inside."""
        return self.inner.couples_start

    @property
    def couples_steps(self) -> bool:
        """As the method inside."""
        return self.inner.couples_steps

    def guidance(self, state: State) -> Tensor | None:
        """The method's, and the state is kept."""
        self.states.append(state)
        return self.inner.guidance(state)

    def initial_noise(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """The method's."""
        return self.inner.initial_noise(noise, generator)

    def step_noise(self, noise: Tensor, state: State) -> Tensor:
        """The method's."""
        return self.inner.step_noise(noise, state)


def check_contract(
    method: Method, advance: Callable[[int, str], None] = lambda count, label: None
) -> list[Finding]:
    """Every promise of a method, on points in the plane whose score is known, and on the embedded model.

    A method that raises breaks the promise that was being checked.
    """
    found = []
    for name, check in CHECKS.items():
        try:
            finding = check(method)
        except EddyError as error:
            finding = False, str(error)
        except Exception as error:  # a method may raise anything
            finding = False, f"{type(error).__name__}: {brief(error)}"
        found.append(Finding(name, *finding))
        advance(1, name)
    return found


Outcome = tuple[bool | None, str]


def _model(solver: str = "ddim") -> Model:
    model = load_model("exact:ring8")
    name, _, text = solver.partition(":")
    model.call |= set_scheduler(
        model.pipe, name, dict(part.split("=") for part in text.split(",") if part)
    )
    return model


def _solver(method: Method) -> str:
    return "ddim:eta=1" if method.couples_steps else "ddim"


def _draw(
    method: Method,
    prompts: Sequence[str] = PROMPTS,
    particles: int = PARTICLES,
    solver: str | None = None,
) -> Tensor:
    """What a solver ends with, (prompts, particles, 2), float64."""
    model = _model(solver or _solver(method))
    drawn = max(particles, method.min_particles)
    generators = [
        generator for prompt in prompts for generator in particle_generators(0, prompt, drawn)
    ]
    with steer(
        model.pipe,
        method,
        particles=drawn,
        features=_features,
        probes=[probe_generator(0, prompt) for prompt in prompts],
        generator=generators,
    ):
        images = model.pipe(
            list(prompts),
            num_images_per_prompt=drawn,
            num_inference_steps=STEPS,
            generator=generators,
            dtype=torch.float64,
            **model.call,
        ).images
    found: Tensor = images.unflatten(0, (len(prompts), drawn))
    return found


def _features(shape: tuple[int, ...]) -> NetworkFeatures:
    """A small network with curvature in the place of decoder and guide, for kernels on features."""
    generator = torch.Generator().manual_seed(7)
    first, second = (
        torch.randn(size, generator=generator, dtype=torch.float64)
        for size in ((math.prod(shape), 8), (8, 5))
    )
    return NetworkFeatures(
        lambda points: points.flatten(1).double(),
        lambda points: torch.tanh(points @ first / 2) @ second,
        shape,
    )


def _finite(method: Method) -> Outcome:
    solvers = [solver for solver in SOLVERS if not method.couples_steps or solver == "ddim:eta=1"]
    broken = [
        solver for solver in solvers if not torch.isfinite(_draw(method, solver=solver)).all()
    ]
    return not broken, f"not under {', '.join(broken)}" if broken else f"under {', '.join(solvers)}"


def _deterministic(method: Method) -> Outcome:
    gap = (_draw(method) - _draw(method)).abs().max()
    return (
        bool(gap == 0),
        "two draws of the same noise are the same"
        if gap == 0
        else f"two draws of the same noise differ by {float(gap):.2g}",
    )


def _zero_strength(method: Method) -> Outcome:
    if "strength" not in {item.name for item in fields(method)}:
        return None, "it has no strength"
    if method.couples_start:
        return None, "its start is coupled, whatever its strength"
    off: Any = replace(method, strength=0.0)  # type: ignore[call-arg]
    same = torch.equal(_draw(off, solver=_solver(method)), _draw(Iid(), solver=_solver(method)))
    return same, "iid, bit for bit" if same else "it still changes the samples"


def _single(method: Method) -> Outcome:
    if method.min_particles > 1:
        return None, f"it needs {method.min_particles} particles"
    same = torch.equal(
        _draw(method, particles=1), _draw(Iid(), particles=1, solver=_solver(method))
    )
    return same, "iid, bit for bit" if same else "one particle alone is not drawn as iid draws it"


def _states(method: Method) -> list[State]:
    recorder = Recorder(method)
    _draw(recorder, solver=_solver(method))
    return recorder.states


def _permutation(method: Method) -> Outcome:
    order = torch.randperm(PARTICLES, generator=torch.Generator().manual_seed(1))
    worst = 0.0
    for state in _states(method):
        turned = replace(
            state,
            particles=state.particles[:, order],
            score=state.score[:, order],
            denoised=state.denoised[:, order],
            generators=_probes(),
        )
        plain = method.guidance(replace(state, generators=_probes()))
        other = method.guidance(turned)
        noise = torch.randn(
            state.particles.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
        )
        pairs = [(method.step_noise(noise, state), method.step_noise(noise[:, order], turned))]
        pairs += [(plain, other)] if plain is not None and other is not None else []
        worst = max([worst, *(_gap(before[:, order], after) for before, after in pairs)])
    return worst < TOLERANCE, f"largest relative difference {worst:.1g}"


def _probes() -> tuple[torch.Generator, ...]:
    return tuple(probe_generator(0, prompt) for prompt in PROMPTS)


def _gap(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / one.abs().max().clamp_min(1e-12))


def _batch(method: Method) -> Outcome:
    both = _draw(method)
    alone = torch.cat([_draw(method, [prompt]) for prompt in PROMPTS])
    gap = _gap(alone, both)
    return gap < TOLERANCE, f"largest relative difference {gap:.1g}"


def _start(method: Method) -> Outcome:
    if not method.couples_start:
        return None, "its start is independent"
    noise = torch.randn(
        GROUPS, PARTICLES, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    probes = torch.Generator().manual_seed(4)
    return _standard_normal(torch.stack([method.initial_noise(group, probes) for group in noise]))


def _step_noise(method: Method) -> Outcome:
    if not method.couples_steps:
        return None, "its step noise is independent"
    state = _states(method)[STEPS // 2]
    state = replace(
        state,
        **{
            name: getattr(state, name)[:1].expand(GROUPS, -1, -1)
            for name in ("particles", "score", "denoised")
        },
    )
    noise = torch.randn(
        state.particles.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )
    return _standard_normal(method.step_noise(noise, state))


def _standard_normal(noise: Tensor) -> Outcome:
    """Kolmogorov-Smirnov on each particle's coordinates over groups, and on random directions, which see dependence between coordinates."""
    from scipy.stats import kstest

    directions = torch.randn(
        noise.shape[-1], 4, generator=torch.Generator().manual_seed(8), dtype=noise.dtype
    )
    values = (
        torch.cat([noise, noise @ (directions / directions.norm(dim=0))], -1)
        .permute(1, 2, 0)
        .flatten(0, 1)
    )
    least = min(float(kstest(row.numpy(), "norm").pvalue) for row in values) * len(values)
    return (
        least > 1e-3,
        f"Kolmogorov-Smirnov over {len(noise)} groups: least p {min(least, 1.0):.2g} of {len(values)} coordinates and directions",
    )


def _embedded(method: Method) -> Outcome:
    model = load_model("fashion", device="cpu")
    model.call |= set_scheduler(model.pipe, "ddim", {"eta": "1"} if method.couples_steps else {})
    arguments = {"num_inference_steps": 3, "guidance_scale": 4.0, "output_type": "pil"}
    particles = max(2, method.min_particles)
    if method.selects:
        chosen = method.choose(torch.randn(6, 3, generator=torch.Generator().manual_seed(6)), 3)
        if len(set(chosen)) != 3 or not all(0 <= k < 6 for k in chosen):
            return False, f"choose() must name 3 of 6 images once each, got {chosen}"
    images, cost = model.draw(["a dark dress", "a sandal"], [0, 0], particles, method, arguments)
    whole = [len(group) for group in images] == [particles, particles]
    return (
        whole,
        f"{cost.nfe:g} network evaluations per image, {cost.feature_forwards:g} feature passes forward, {cost.feature_backwards:g} backward",
    )


def _hooks(method: Method) -> Outcome:
    if not method.couples_steps:
        return None, "it leaves step noise alone"
    try:
        _draw(method, solver="ddim")
    except SchedulerError:
        return True, "a solver without noise is refused"
    return False, "it draws under a solver without noise, where it cannot act"


CHECKS: dict[str, Callable[[Method], Outcome]] = {
    "finite": _finite,
    "deterministic": _deterministic,
    "zero strength": _zero_strength,
    "one particle": _single,
    "permutation": _permutation,
    "batch independence": _batch,
    "start noise is normal": _start,
    "step noise is normal": _step_noise,
    "stochastic solver only": _hooks,
    "text-to-image model": _embedded,
}
