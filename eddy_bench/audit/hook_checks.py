"""Checks of what every hook makes of its particles in another order, and of its noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from eddy_bench.audit.small_draws import PARTICLES, PROMPTS, STEPS, draw_samples, solver_of
from eddy_bench.methods.base import Method
from eddy_bench.methods.iid import Iid
from eddy_bench.sampling.hooks import Block
from eddy_bench.sampling.noise import condition_generators, probe_generator
from eddy_bench.sampling.state import Moment, State

Answer = tuple[bool | None, str]
GROUPS = 4000  # of the checks of noise
FIELD = (2, 3, 3)  # of their particles: channels and pixels, since noise may be coupled in space
SCATTER = 6.0  # standard errors that chance does not reach
TOLERANCE = 1e-6  # relative, of what other batch shapes may change


def states_of(method: Method) -> list[State]:
    """Return the states that a method sees on points in the plane."""
    states: list[State] = []
    draw_samples(method, solver=solver_of(method), seen=states.append)
    return states


def check_permutation(method: Method) -> Answer:
    """Permute the particles of every hook that sees several, and look for the same in the answer.

    Noise is permuted in law alone: its rows are alike, and so are its pairs of rows.
    """
    gaps = [gap for gap in (check(method) for check in PERMUTED) if gap is not None]
    if not gaps:
        return None, "no hook sees several particles"
    worst = max(gaps)
    return worst < TOLERANCE, f"largest relative difference {worst:.1g} over {len(gaps)} hooks"


ORDER = [2, 0, 3, 1]


def _turned(state: State) -> State:
    """Return a state with its particles in another order."""
    parts = {name: getattr(state, name)[:, ORDER] for name in ("particles", "score", "denoised")}
    return replace(state, **parts, generators=_probes(), memory={})


def _fresh(state: State) -> State:
    return replace(state, generators=_probes(), memory={})


def _permuted_guidance(method: Method) -> float | None:
    if not method.acts_by("guidance", "step_noise"):
        return None
    worst = 0.0
    for state in states_of(method):
        noise = normal(state.particles.shape, 2)
        plain, other = method.guidance(_fresh(state)), method.guidance(_turned(state))
        pairs = [
            (
                method.step_noise(noise, _fresh(state)),
                method.step_noise(noise[:, ORDER], _turned(state)),
            )
        ]
        pairs += [(plain, other)] if plain is not None and other is not None else []
        worst = max([worst, *(relative_gap(before[:, ORDER], after) for before, after in pairs)])
    return worst


def _permuted_start(method: Method) -> float | None:
    """Compare rows and pairs of rows over many groups: 0 where scatter explains what differs."""
    hooks = [hook for hook in noise_hooks(method) if hook is not None]
    if not hooks:
        return None
    for draw in hooks:
        rows = torch.stack(draw(independent(PARTICLES)))
        products = (rows[:, :, None] * rows[:, None]).mean(-1)  # (groups, N, N)
        mean, error = products.mean(0), products.std(0) / GROUPS**0.5
        apart = ~torch.eye(PARTICLES, dtype=torch.bool)
        for part in (apart, ~apart):
            spread = (mean[part] - mean[part].mean()).abs() / error[part].clamp_min(1e-9)
            if float(spread.max()) > SCATTER and float(mean[part].std()) > 1e-6:
                return float(mean[part].std())
    return 0.0


def _permuted_conditions(method: Method) -> float | None:
    if not method.acts_by("condition"):
        return None
    embeds, mask = normal((PARTICLES, 5, 6), 4), torch.ones(PARTICLES, 5, dtype=torch.bool)
    both = []
    for order in (list(range(PARTICLES)), ORDER):
        streams = condition_generators(0, "a", range(PARTICLES))
        moment = _moment(tuple(streams[k] for k in order))
        both.append(method.condition(embeds[order].clone(), mask, moment))
    return relative_gap(both[0][ORDER], both[1])


def _permuted_branches(method: Method) -> float | None:
    if not method.acts_by("combine"):
        return None
    one, other = (normal((2, PARTICLES, 6), seed) for seed in (5, 6))
    plain = method.combine(one, other, 3.0, _moment())
    return relative_gap(
        plain[:, ORDER], method.combine(one[:, ORDER], other[:, ORDER], 3.0, _moment())
    )


def _permuted_features(method: Method) -> float | None:
    if not method.acts_by("features_of"):
        return None
    tokens, block = normal((PARTICLES, 9, 6), 7), Block("StableDiffusionPipeline", 0, 1)
    plain = method.features_of(block, tokens, _moment())
    return relative_gap(plain[ORDER], method.features_of(block, tokens[ORDER], _moment()))


def _permuted_starts(method: Method) -> float | None:
    if not method.acts_by("improved_start"):
        return None
    state = states_of(Iid())[0]
    noise = state.particles
    plain = method.improved_start(noise, _fresh(state))
    return relative_gap(plain[:, ORDER], method.improved_start(noise[:, ORDER], _turned(state)))


PERMUTED = (
    _permuted_guidance,
    _permuted_start,
    _permuted_conditions,
    _permuted_branches,
    _permuted_features,
    _permuted_starts,
)


def _moment(streams: tuple[torch.Generator, ...] = ()) -> Moment:
    return Moment(2, STEPS, 4.0, 3.0, time=0.75, scale=3.0, streams=streams)


def normal(shape: Sequence[int], seed: int) -> Tensor:
    """Return normal numbers of a seed, float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float64)


def independent(particles: int) -> Tensor:
    """Return the independent noise of the checks of noise, (GROUPS, particles, d)."""
    return normal((GROUPS, particles, math.prod(FIELD)), 3)


def _probes() -> tuple[torch.Generator, ...]:
    return tuple(probe_generator(0, prompt) for prompt in PROMPTS)


def relative_gap(expected: Tensor, got: Tensor) -> float:
    """Return the largest difference over the largest value."""
    return float((expected - got).abs().max() / expected.abs().max().clamp_min(1e-12))


Draw = Callable[[Tensor], list[Tensor]]  # independent noise (G, N, d) to a hook's, by group


def noise_hooks(method: Method) -> tuple[Draw | None, Draw | None]:
    """Return what a method makes of initial noise and of that of restarts; None where it does not.

    Initial noise goes through `initial_field`, as in a pipeline, which calls `initial_noise`.
    """

    def start(noise: Tensor) -> list[Tensor]:
        probes = torch.Generator().manual_seed(4)
        fields = noise.unflatten(-1, FIELD)
        return [method.initial_field(field, probes).flatten(1) for field in fields]

    def restart(noise: Tensor) -> list[Tensor]:
        probes = torch.Generator().manual_seed(4)
        return [method.restart_noise(group, probes) for group in noise]

    return (
        start if method.changes_start else None,
        restart if method.acts_by("restart_noise") else None,
    )
