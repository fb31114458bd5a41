"""Check what every sampling method promises, on small models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from eddy_bench.audit.small_draws import (
    PARTICLES,
    PROMPTS,
    STEPS,
    draw_samples,
    needs_condition,
    needs_network,
    solver_of,
)
from eddy_bench.errors import EddyError, SchedulerError, brief
from eddy_bench.methods.base import Method
from eddy_bench.methods.iid import Iid
from eddy_bench.models.load import load_model
from eddy_bench.sampling.noise import probe_generator
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.sampling.state import State

SOLVERS = ("ddim", "ddim:eta=1", "dpmpp-2m", "euler", "flow-euler")
GROUPS = 4000  # of the checks of noise
TOLERANCE = 1e-6  # relative, of what other batch shapes may change
NETWORK_TOLERANCE = 1e-3  # the same of a network in float32


@dataclass(frozen=True)
class Finding:
    """Hold the outcome of one promise.

    holds: None where it does not apply.
    detail: figures, or why.
    """

    name: str
    holds: bool | None
    detail: str = ""


def check_contract(
    method: Method, advance: Callable[[int, str], None] = lambda count, label: None
) -> list[Finding]:
    """Check every promise of a method, on points whose score is known and on the embedded model.

    A method that raises breaks the promise that was being checked.
    """
    findings = []
    for name, check in CHECKS.items():
        advance(0, name)
        try:
            finding = check(method)
        except EddyError as error:
            finding = False, str(error)
        except Exception as error:  # a method may raise anything
            finding = False, f"{type(error).__name__}: {brief(error)}"
        findings.append(Finding(name, *finding))
        advance(1, name)
    return findings


Answer = tuple[bool | None, str]


def _finite(method: Method) -> Answer:
    solvers = [solver for solver in SOLVERS if not method.couples_steps or solver == "ddim:eta=1"]
    if needs_network(method):
        solvers.remove("flow-euler")
    if method.restarts:
        solvers.remove("dpmpp-2m")
    broken = [
        solver
        for solver in solvers
        if not torch.isfinite(draw_samples(method, solver=solver)).all()
    ]
    return not broken, f"not under {', '.join(broken)}" if broken else f"under {', '.join(solvers)}"


def _deterministic(method: Method) -> Answer:
    gap = (draw_samples(method) - draw_samples(method)).abs().max()
    return (
        bool(gap == 0),
        "two draws of the same noise are the same"
        if gap == 0
        else f"two draws of the same noise differ by {float(gap):.2g}",
    )


def _zero_strength(method: Method) -> Answer:
    if method.dial != "strength" or "strength" not in {item.name for item in fields(method)}:
        return None, "it has no strength"
    if method.couples_start:
        return None, "its start is coupled, whatever its strength"
    off: Any = replace(method, strength=0.0)  # type: ignore[call-arg]
    plain = draw_samples(Iid(), solver=solver_of(method), guided=needs_condition(method))
    same = torch.equal(
        draw_samples(off, solver=solver_of(method), guided=needs_condition(method)), plain
    )
    return same, "iid, bit for bit" if same else "it still changes the samples"


def _single(method: Method) -> Answer:
    if method.min_particles > 1:
        return None, f"it needs {method.min_particles} particles"
    if not method.interacts:
        gap = _gap(draw_samples(method)[:, :1], draw_samples(method, particles=1))
        return gap < _tolerance(method), f"alone as among others, which is another law: {gap:.1g}"
    same = torch.equal(
        draw_samples(method, particles=1),
        draw_samples(Iid(), particles=1, solver=solver_of(method)),
    )
    return same, "iid, bit for bit" if same else "one particle alone is not drawn as iid draws it"


def _states(method: Method) -> list[State]:
    states: list[State] = []
    draw_samples(method, solver=solver_of(method), seen=states.append)
    return states


def _permutation(method: Method) -> Answer:
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


def _tolerance(method: Method) -> float:
    return NETWORK_TOLERANCE if needs_network(method) else TOLERANCE


def _gap(expected: Tensor, got: Tensor) -> float:
    return float((expected - got).abs().max() / expected.abs().max().clamp_min(1e-12))


def _batch(method: Method) -> Answer:
    both = draw_samples(method)
    alone = torch.cat([draw_samples(method, [prompt]) for prompt in PROMPTS])
    gap = _gap(alone, both)
    return gap < _tolerance(method), f"largest relative difference {gap:.1g}"


def _start(method: Method) -> Answer:
    if not method.couples_start:
        return None, "its start is independent"
    noise = torch.randn(
        GROUPS, PARTICLES, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    probes = torch.Generator().manual_seed(4)
    return _standard_normal(torch.stack([method.initial_noise(group, probes) for group in noise]))


def _step_noise(method: Method) -> Answer:
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


def _standard_normal(noise: Tensor) -> Answer:
    """Test normality over groups, by particle and coordinate (Kolmogorov-Smirnov).

    Random directions see dependence between coordinates.
    """
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
        f"Kolmogorov-Smirnov over {len(noise)} groups: least p {min(least, 1.0):.2g} "
        f"of {len(values)} coordinates and directions",
    )


def _embedded(method: Method) -> Answer:
    model = load_model("fashion", device="cpu")
    model.call |= set_scheduler(model.pipe, "ddim", {"eta": "1"} if method.couples_steps else {})
    arguments = {"num_inference_steps": 3, "guidance_scale": 4.0, "output_type": "pil"}
    particles = max(2, method.min_particles)
    if method.selects:
        generator = torch.Generator().manual_seed(6)
        chosen = method.choose(torch.randn(6, 3, generator=generator), 3, generator)
        if len(set(chosen)) != 3 or not all(0 <= k < 6 for k in chosen):
            return False, f"choose() must name 3 of 6 images once each, got {chosen}"
    images, cost = model.draw(["a dark dress", "a sandal"], [0, 0], particles, method, arguments)
    whole = [len(group) for group in images] == [particles, particles]
    return (
        whole,
        f"{cost.nfe:g} network evaluations per image, {cost.feature_forwards:g} feature passes "
        f"forward, {cost.feature_backwards:g} backward",
    )


def _hooks(method: Method) -> Answer:
    if not method.couples_steps:
        return None, "it leaves step noise alone"
    try:
        draw_samples(method, solver="ddim")
    except SchedulerError:
        return True, "a solver without noise is refused"
    return False, "it draws under a solver without noise, where it cannot act"


CHECKS: dict[str, Callable[[Method], Answer]] = {
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
