"""Check what every sampling method promises, on small models."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from eddy_bench.errors import SchedulerError, reason_of
from eddy_bench.experiment.events import Advance
from eddy_bench.methods.base import Method
from eddy_bench.methods.iid import Iid
from eddy_bench.models.base import Model
from eddy_bench.models.load import load_model
from eddy_bench.models.network_features import MOST, NetworkFeatures, RowLimit
from eddy_bench.sampling.hooks import Block
from eddy_bench.sampling.noise import (
    condition_generators,
    particle_generators,
    probe_generator,
)
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.sampling.state import State, StepInfo
from eddy_bench.sampling.steer import steer
from eddy_bench.suites.method_spec import MethodSpec

PARTICLES = 4
STEPS = 6
PROMPTS = ("a", "b")
SOLVERS = ("ddim", "ddim:eta=1", "dpmpp-2m", "euler", "flow-euler")
GROUPS = 4000  # of the checks of noise
FIELD = (2, 3, 3)  # of their particles: channels and pixels, since noise may be coupled in space
MARGINALS = 1000  # groups of the check of samples
SCATTER = 6.0  # standard errors that chance does not reach
TOLERANCE = 1e-6  # relative, of what other batch shapes may change
NETWORK_TOLERANCE = 1e-3  # the same of a network in float32
LEAST_P = 1e-3
ORDER = [2, 0, 3, 1]

T = TypeVar("T")
Answer = tuple[bool | None, str]  # None: the promise does not apply
Draw = Callable[[Tensor], Tensor]  # independent noise (G, N, d) to a hook's


@dataclass(frozen=True)
class Finding:
    """The outcome of one promise. holds: None where it does not apply. detail: figures, or why."""

    name: str
    holds: bool | None
    detail: str = ""


def run_checks(
    checks: Mapping[str, Callable[[T], Answer]], subject: T, advance: Advance
) -> list[Finding]:
    """Check every promise of a method or a metric; one that raises breaks the promise at hand."""
    findings = []
    for name, check in checks.items():
        advance(0, name)
        try:
            answer = check(subject)
        except (Exception, SystemExit) as error:  # code of others may raise anything
            answer = False, reason_of(error)
        findings.append(Finding(name, *answer))
        advance(1, name)
    return findings


def check_contract(method: Method, advance: Advance = lambda count, label: None) -> list[Finding]:
    """Check every promise of a method, on points whose score is known and on the embedded model."""
    return run_checks(CHECKS, method, advance)


# -- draws ----------------------------------------------------------------------------------------


def _needs_condition(method: Method) -> bool:
    return bool(method.conditions or method.reguides)


def _small_model(solver: str, guided: bool, network: bool) -> Model:
    """Return points in the plane whose score is known, guided at scale 3, or the embedded model."""
    name = "fashion" if network else "exact:class-ring" if guided else "exact:ring8"
    model = load_model(name, device="cpu")
    model.call |= {"output_type": "latent"} if network else {"dtype": torch.float64}
    spec = MethodSpec.parse(solver)
    model.call |= set_scheduler(model.pipe, spec.name, spec.parameters)
    if guided:
        model.call["guidance_scale"] = 3.0
    return model


def draw_samples(
    method: Method,
    prompts: Sequence[str] = PROMPTS,
    particles: int = PARTICLES,
    solver: str | None = None,
    guided: bool | None = None,
    seen: Callable[[State], None] | None = None,
    seeds: int | None = None,
) -> Tensor:
    """Return what a solver ends with, (prompts, particles, d).

    solver: None is one under which the method acts. guided: with a condition; None where the
    method needs it. seen: as in `steer`.
    seeds: each group has a seed of its own, from a stream by this number; None is seed 0 for all.
    """
    model = _small_model(
        solver or _solver(method),
        _needs_condition(method) if guided is None else guided,
        method.edits_features,
    )
    kept = max(particles, method.min_particles)
    drawn = method.drawn(kept)
    groups = [
        (0 if seeds is None else 2 * k + seeds * 10**6, prompt) for k, prompt in enumerate(prompts)
    ]
    generators = [each for group in groups for each in particle_generators(*group, drawn)]
    streams = [each for group in groups for each in condition_generators(*group, range(drawn))]
    with steer(
        model.pipe,
        method,
        particles=drawn,
        features=small_features,
        probes=[probe_generator(*group) for group in groups],
        generator=generators,
        streams=streams,
        keep=kept if method.selects else None,
        seen=seen,
    ) as record:
        images = model.pipe(
            list(prompts),
            num_images_per_prompt=drawn,
            num_inference_steps=STEPS,
            generator=generators,
            **model.call,
        ).images.flatten(1)
    samples: Tensor = images.unflatten(0, (len(prompts), drawn))
    if record.active is not None:
        samples = samples[record.active].unflatten(0, (len(prompts), kept))
    return samples[:, :kept]


def _solver(method: Method) -> str:
    return "ddim:eta=1" if method.couples_steps else "ddim"


def small_features(shape: tuple[int, ...]) -> NetworkFeatures:
    """Return a small network with curvature in the place of decoder and guide."""
    generator = torch.Generator().manual_seed(7)
    first, second = (
        torch.randn(size, generator=generator, dtype=torch.float64)
        for size in ((math.prod(shape), 8), (8, 5))
    )
    return NetworkFeatures(
        lambda points: points.flatten(1).double(),
        lambda points: torch.tanh(points @ first / 2) @ second,
        shape,
        RowLimit.of(MOST),  # measuring what a row takes would take longer than all rows
    )


def _states(method: Method) -> list[State]:
    states: list[State] = []
    draw_samples(method, seen=states.append)
    return states


def _normal(shape: Sequence[int], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float64)


def _independent(particles: int) -> Tensor:
    return _normal((GROUPS, particles, math.prod(FIELD)), 3)


def _gap(expected: Tensor, got: Tensor) -> float:
    return float((expected - got).abs().max() / expected.abs().max().clamp_min(1e-12))


def _tolerance(method: Method) -> float:
    return NETWORK_TOLERANCE if method.edits_features else TOLERANCE


# -- promises of samples --------------------------------------------------------------------------


def _finite(method: Method) -> Answer:
    solvers = [solver for solver in SOLVERS if not method.couples_steps or solver == "ddim:eta=1"]
    if method.edits_features:
        solvers.remove("flow-euler")
    if method.restarts:
        solvers.remove("dpmpp-2m")
    broken = [s for s in solvers if not torch.isfinite(draw_samples(method, solver=s)).all()]
    return not broken, f"not under {', '.join(broken)}" if broken else f"under {', '.join(solvers)}"


def _deterministic(method: Method) -> Answer:
    gap = float((draw_samples(method) - draw_samples(method)).abs().max())
    outcome = f"differ by {gap:.2g}" if gap else "are the same"
    return gap == 0, f"two draws of the same noise {outcome}"


def _zero_strength(method: Method) -> Answer:
    if method.sweep != "strength" or "strength" not in {item.name for item in fields(method)}:
        return None, "it has no strength"
    if method.couples_start:
        return None, "its start is coupled, whatever its strength"
    off: Any = replace(method, strength=0.0)  # type: ignore[call-arg]
    solver, guided = _solver(method), _needs_condition(method)
    drawn, plain = (draw_samples(each, solver=solver, guided=guided) for each in (off, Iid()))
    same = torch.equal(drawn, plain)
    return same, "iid, bit for bit" if same else "it still changes the samples"


def _single(method: Method) -> Answer:
    if method.min_particles > 1:
        return None, f"it needs {method.min_particles} particles"
    if method.selects:
        return None, "it chooses one of its candidates"
    alone = draw_samples(method, particles=1)
    if not method.interacts:
        gap = _gap(draw_samples(method)[:, :1], alone)
        return gap < _tolerance(method), f"alone as among others, which is another law: {gap:.1g}"
    same = torch.equal(alone, draw_samples(Iid(), particles=1, solver=_solver(method)))
    return same, "iid, bit for bit" if same else "one particle alone is not drawn as iid draws it"


def _batch(method: Method) -> Answer:
    if not (method.acting or method.takes_steps):
        return None, "no hook acts"
    alone = torch.cat([draw_samples(method, [prompt]) for prompt in PROMPTS])
    gap = _gap(alone, draw_samples(method))
    return gap < _tolerance(method), f"largest relative difference {gap:.1g}"


def _marginal(method: Method) -> Answer:
    """Compare samples of single particles with iid ones of other seeds, whichever hook acts."""
    if not method.preserves_marginal:
        return None, "it does not claim to be marginal-preserving"
    if method.selects or method.drawn(PARTICLES) > PARTICLES:
        return None, "not tested: it chooses among finished images"
    if not (method.acting - {"features_of"} or method.takes_steps):
        return None, "not tested: it acts on no exact task" if method.acting else "it is iid"
    from scipy.stats import ks_2samp

    prompts, solver, guided = ["a"] * MARGINALS, _solver(method), _needs_condition(method)
    samples = [
        draw_samples(each, prompts, solver=solver, guided=guided, seeds=seeds)
        for each, seeds in ((method, 1), (Iid(), 2))
    ]
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=samples[0].dtype).T
    own, other = (
        torch.cat([points @ directions, points.norm(dim=-1, keepdim=True)], -1).flatten(1).T.numpy()
        for points in samples
    )
    tests = [float(ks_2samp(*rows).pvalue) for rows in zip(own, other, strict=True)]
    least = min(min(tests) * len(tests), 1.0)
    text = f"Kolmogorov-Smirnov against iid, {MARGINALS} groups: least p {least:.2g}"
    return least > LEAST_P, text


def _stochastic_only(method: Method) -> Answer:
    if not method.couples_steps:
        return None, "it leaves step noise alone"
    try:
        draw_samples(method, solver="ddim")
    except SchedulerError:
        return True, "a solver without noise is refused"
    return False, "it draws under a solver without noise, where it cannot act"


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
    return (
        [len(group) for group in images] == [particles, particles],
        f"{cost.nfe:g} network evaluations per image, {cost.feature_forwards:g} feature passes "
        f"forward, {cost.feature_backwards:g} backward",
    )


# -- promises of noise ----------------------------------------------------------------------------


def _noise_hooks(method: Method) -> dict[str, Draw]:
    """Return what a method makes of initial noise, as in a pipeline, and of that of restarts."""

    def start(noise: Tensor, probes: torch.Generator) -> Tensor:
        return method.initial_field(noise.unflatten(-1, FIELD), probes).flatten(1)

    def drawing(hook: Callable[[Tensor, torch.Generator], Tensor]) -> Draw:
        def draw(noise: Tensor) -> Tensor:
            probes = torch.Generator().manual_seed(4)
            return torch.stack([hook(group, probes) for group in noise])

        return draw

    hooks = {"start": drawing(start)} if method.changes_start else {}
    return hooks | (
        {"restart": drawing(method.restart_noise)} if method.acts_by("restart_noise") else {}
    )


def _start_noise(method: Method) -> Answer:
    if method.changes_start and not (method.couples_start or method.preserves_marginal):
        return None, "it changes each particle's start, as it says"
    return _normal_in_groups(method, "start", "its start is independent")


def _restart_noise(method: Method) -> Answer:
    return _normal_in_groups(method, "restart", "it does not restart")


def _normal_in_groups(method: Method, hook: str, absent: str) -> Answer:
    """Test noise in groups of an even and of an odd number, which couplings tell apart."""
    draw = _noise_hooks(method).get(hook)
    if draw is None:
        return None, absent
    counts = {max(count, method.min_particles) for count in (PARTICLES, PARTICLES - 1)}
    return _worst([_standard_normal(draw(_independent(count))) for count in counts])


def _step_noise(method: Method) -> Answer:
    if not method.couples_steps:
        return None, "its step noise is independent"
    answers = []
    for state in _states(method):
        parts = ("particles", "score", "denoised")
        many: Any = {name: getattr(state, name)[:1].expand(GROUPS, -1, -1) for name in parts}
        state = replace(state, **many)
        noise = method.step_noise(_normal(state.particles.shape, 5), state)
        answers.append(_standard_normal(noise))
    return _worst(answers)


def _worst(answers: list[Answer]) -> Answer:
    """Return the first answer that breaks a promise, or the first one."""
    return next((answer for answer in answers if answer[0] is False), answers[0])


def _standard_normal(noise: Tensor) -> Answer:
    """Test normality over groups by Kolmogorov-Smirnov, by particle and coordinate.

    Random directions, and that of the sum, see dependence between coordinates.
    """
    from scipy.stats import kstest

    generator = torch.Generator().manual_seed(8)
    directions = torch.randn(noise.shape[-1], 4, generator=generator, dtype=noise.dtype)
    directions = torch.cat([directions, torch.ones_like(directions[:, :1])], 1)
    along = noise @ (directions / directions.norm(dim=0))
    values = torch.cat([noise, along], -1).permute(1, 2, 0).flatten(0, 1)
    least = min(float(kstest(row.numpy(), "norm").pvalue) for row in values) * len(values)
    return (
        least > LEAST_P,
        f"Kolmogorov-Smirnov over {len(noise)} groups: least p {min(least, 1.0):.2g} "
        f"of {len(values)} coordinates and directions",
    )


# -- promises of hooks under permutation ----------------------------------------------------------


def _permutation(method: Method) -> Answer:
    """Permute the particles of every hook that sees several, and look for the same in the answer.

    Noise is permuted in law alone: its rows are alike, and so are its pairs of rows.
    """
    gaps = [_pairs_differ(draw) for draw in _noise_hooks(method).values()]
    gaps += [gap_of(method) for name, gap_of in PERMUTED.items() if method.acts_by(*name.split())]
    if not gaps:
        return None, "no hook sees several particles"
    return (
        max(gaps) < TOLERANCE,
        f"largest relative difference {max(gaps):.1g} over {len(gaps)} hooks",
    )


def _turned(state: State, order: Sequence[int]) -> State:
    """Return a state with its particles in another order, and with nothing remembered."""
    names = ("particles", "score", "denoised")
    parts: Any = {name: getattr(state, name)[:, order] for name in names}
    probes = tuple(probe_generator(0, prompt) for prompt in PROMPTS)
    return replace(state, **parts, generators=probes, memory={})


def _order_gap(
    answer: Callable[[Sequence[int]], Tensor | None], axis: int = 1, count: int = PARTICLES
) -> float:
    """Compare a hook's answers to particles in two orders; they lie along an axis of the answer."""
    plain, turned = answer(range(count)), answer(ORDER)
    if plain is None or turned is None:
        return 0.0
    return _gap(plain.index_select(axis, torch.tensor(ORDER)), turned)


def _info(streams: tuple[torch.Generator, ...] = ()) -> StepInfo:
    return StepInfo(2, STEPS, 4.0, 3.0, time=0.75, scale=3.0, streams=streams)


def _pairs_differ(draw: Draw) -> float:
    """Compare rows and pairs of rows over many groups: 0 where scatter explains what differs."""
    rows = draw(_independent(PARTICLES))
    products = (rows[:, :, None] * rows[:, None]).mean(-1)  # (groups, N, N)
    mean, error = products.mean(0), products.std(0) / GROUPS**0.5
    apart = ~torch.eye(PARTICLES, dtype=torch.bool)
    for part in (apart, ~apart):
        spread = (mean[part] - mean[part].mean()).abs() / error[part].clamp_min(1e-9)
        if float(spread.max()) > SCATTER and float(mean[part].std()) > 1e-6:
            return float(mean[part].std())
    return 0.0


def _guidance_gap(method: Method) -> float:
    return max((_gap_at(method, state) for state in _states(method)), default=0.0)


def _gap_at(method: Method, state: State) -> float:
    noise, count = _normal(state.particles.shape, 2), state.particles.shape[1]
    return max(
        _order_gap(lambda order: method.guidance(_turned(state, order)), count=count),
        _order_gap(
            lambda order: method.step_noise(noise[:, order], _turned(state, order)), count=count
        ),
    )


def _condition_gap(method: Method) -> float:
    embeds, mask = _normal((PARTICLES, 5, 6), 4), torch.ones(PARTICLES, 5, dtype=torch.bool)

    def answer(order: Sequence[int]) -> Tensor:
        streams = condition_generators(0, "a", range(PARTICLES))
        info = _info(tuple(streams[k] for k in order))
        return method.condition(embeds[order].clone(), mask, info)

    return _order_gap(answer, axis=0)


def _combine_gap(method: Method) -> float:
    one, other = (_normal((2, PARTICLES, 6), seed) for seed in (5, 6))
    return _order_gap(lambda order: method.combine(one[:, order], other[:, order], 3.0, _info()))


def _features_gap(method: Method) -> float:
    tokens, block = _normal((PARTICLES, 9, 6), 7), Block("StableDiffusionPipeline", 0, 1)
    return _order_gap(lambda order: method.features_of(block, tokens[order], _info()), axis=0)


def _better_start_gap(method: Method) -> float:
    state = _states(Iid())[0]
    noise = state.particles
    return _order_gap(lambda order: method.improved_start(noise[:, order], _turned(state, order)))


# By the hooks, one of which acts
PERMUTED: dict[str, Callable[[Method], float]] = {
    "guidance step_noise": _guidance_gap,
    "condition": _condition_gap,
    "combine": _combine_gap,
    "features_of": _features_gap,
    "improved_start": _better_start_gap,
}
CHECKS: dict[str, Callable[[Method], Answer]] = {
    "finite": _finite,
    "deterministic": _deterministic,
    "zero strength": _zero_strength,
    "one particle": _single,
    "permutation": _permutation,
    "batch independence": _batch,
    "start noise is normal": _start_noise,
    "step noise is normal": _step_noise,
    "restart noise is normal": _restart_noise,
    "marginal-preserving": _marginal,
    "stochastic solver only": _stochastic_only,
    "text-to-image model": _embedded,
}
