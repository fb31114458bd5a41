"""Check what every sampling method promises, on small models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from eddy_bench.audit.hook_checks import (
    GROUPS,
    TOLERANCE,
    Answer,
    Draw,
    check_permutation,
    independent,
    noise_hooks,
    normal,
    relative_gap,
    states_of,
)
from eddy_bench.audit.small_draws import (
    PARTICLES,
    PROMPTS,
    draw_samples,
    needs_condition,
    needs_network,
    solver_of,
)
from eddy_bench.errors import EddyError, SchedulerError, brief
from eddy_bench.methods.base import Method
from eddy_bench.methods.iid import Iid
from eddy_bench.models.load import load_model
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.sampling.state import State

SOLVERS = ("ddim", "ddim:eta=1", "dpmpp-2m", "euler", "flow-euler")
MARGINALS = 1000  # groups of the check of samples
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
    if method.selects:
        return None, "it chooses one of its candidates"
    if not method.interacts:
        gap = relative_gap(draw_samples(method)[:, :1], draw_samples(method, particles=1))
        return gap < _tolerance(method), f"alone as among others, which is another law: {gap:.1g}"
    same = torch.equal(
        draw_samples(method, particles=1),
        draw_samples(Iid(), particles=1, solver=solver_of(method)),
    )
    return same, "iid, bit for bit" if same else "one particle alone is not drawn as iid draws it"


def _tolerance(method: Method) -> float:
    return NETWORK_TOLERANCE if needs_network(method) else TOLERANCE


def _batch(method: Method) -> Answer:
    if not (method.acting or method.takes_steps):
        return None, "no hook acts"
    both = draw_samples(method)
    alone = torch.cat([draw_samples(method, [prompt]) for prompt in PROMPTS])
    gap = relative_gap(alone, both)
    return gap < _tolerance(method), f"largest relative difference {gap:.1g}"


def _start(method: Method) -> Answer:
    draw, _ = noise_hooks(method)
    if draw is None:
        return None, "its start is independent"
    if not (method.couples_start or method.keeps_law):
        return None, "it changes each particle's start, as it says"
    return _normal_in_groups(method, draw)


def _restart_noise(method: Method) -> Answer:
    _, draw = noise_hooks(method)
    if draw is None:
        return None, "it does not restart"
    return _normal_in_groups(method, draw)


def _normal_in_groups(method: Method, draw: Draw) -> Answer:
    """Test noise in groups of an even and of an odd number, which couplings tell apart."""
    counts = {max(count, method.min_particles) for count in (PARTICLES, PARTICLES - 1)}
    return _worst([_standard_normal(torch.stack(draw(independent(count)))) for count in counts])


def _worst(answers: list[Answer]) -> Answer:
    """Return the first answer that breaks a promise, or the first one."""
    return next((answer for answer in answers if answer[0] is False), answers[0])


def _step_noise(method: Method) -> Answer:
    if not method.couples_steps:
        return None, "its step noise is independent"
    return _worst([_step_noise_at(method, state) for state in states_of(method)])


def _step_noise_at(method: Method, state: State) -> Answer:
    names = ("particles", "score", "denoised")
    many = {name: getattr(state, name)[:1].expand(GROUPS, -1, -1) for name in names}
    state = replace(state, **many)
    return _standard_normal(method.step_noise(normal(state.particles.shape, 5), state))


def _marginal(method: Method) -> Answer:
    """Compare samples of single particles with iid ones of other seeds, whatever hook acts."""
    if not method.keeps_law:
        return None, "it does not claim to be marginal-preserving"
    if method.selects or method.drawn(PARTICLES) > PARTICLES:
        return None, "not tested: it chooses among finished images"
    if not (method.acting - {"features_of"} or method.takes_steps):
        return None, "not tested: it acts on no exact task" if method.acting else "it is iid"
    from scipy.stats import ks_2samp

    prompts, solver, guided = ["a"] * MARGINALS, solver_of(method), needs_condition(method)
    own, other = (
        draw_samples(each, prompts, solver=solver, guided=guided, seeds=seeds)
        for each, seeds in ((method, 1), (Iid(), 2))
    )
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=own.dtype).T
    values = [
        torch.cat([points @ directions, points.norm(dim=-1, keepdim=True)], -1)
        for points in (own, other)
    ]
    tests = [
        float(ks_2samp(values[0][:, slot, k].numpy(), values[1][:, slot, k].numpy()).pvalue)
        for slot in range(PARTICLES)
        for k in range(values[0].shape[-1])
    ]
    least = min(min(tests) * len(tests), 1.0)
    return least > 1e-3, f"Kolmogorov-Smirnov against iid, {MARGINALS} groups: least p {least:.2g}"


def _standard_normal(noise: Tensor) -> Answer:
    """Test normality over groups, by particle and coordinate (Kolmogorov-Smirnov).

    Random directions, and that of the sum, see dependence between coordinates.
    """
    from scipy.stats import kstest

    directions = torch.randn(
        noise.shape[-1], 4, generator=torch.Generator().manual_seed(8), dtype=noise.dtype
    )
    directions = torch.cat([directions, torch.ones_like(directions[:, :1])], 1)
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
    "permutation": check_permutation,
    "batch independence": _batch,
    "start noise is normal": _start,
    "step noise is normal": _step_noise,
    "restart noise is normal": _restart_noise,
    "marginal-preserving": _marginal,
    "stochastic solver only": _hooks,
    "text-to-image model": _embedded,
}
