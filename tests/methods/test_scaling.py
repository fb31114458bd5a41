"""Guidance as a share of the model's output: what is rescaled, what is cut back, what stays."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from eddy_bench import EddyExact, EddyHutch, ParticleGuidance, Repulsion, State
from eddy_bench.errors import ParameterError
from eddy_bench.methods.guided import GuidingMethod, relative_guidance, shares_of_output
from eddy_bench.methods.registry import build_method
from eddy_bench.suites.method_spec import MethodSpec
from tests.makers.mixtures import draw, generators
from tests.methods.test_pg_repulsion import state_at

GUIDING = [
    ParticleGuidance(kernel="features"),
    ParticleGuidance(kernel="denoised"),
    ParticleGuidance(kernel="latent", scale="relative"),
    Repulsion(kernel="features"),
    EddyHutch(kernel="features"),
    EddyExact(kernel="latent", scale="relative"),
]


def state(features: bool = True) -> State:
    return replace(state_at(features=features), share=0.0, steps=100)


def of(method: GuidingMethod, at: State) -> Tensor:
    guidance = method.guidance(replace(at, generators=generators(2)))
    assert guidance is not None
    return guidance


def rms(shares: Tensor) -> Tensor:
    return shares.square().mean(1).sqrt().flatten()


@pytest.mark.parametrize("method", GUIDING, ids=lambda m: f"{m.name}-{m.kernel}")
def test_a_strength_is_the_share_of_the_output(method: GuidingMethod) -> None:
    at = state()
    for share in (0.1, 0.4):
        shares = shares_of_output(of(replace(method, strength=share, cap=100.0), at), at)
        assert torch.allclose(rms(shares), torch.full((2,), share).double(), rtol=1e-6)


@pytest.mark.parametrize("method", GUIDING, ids=lambda m: f"{m.name}-{m.kernel}")
def test_directions_and_proportions_stay(method: GuidingMethod) -> None:
    """One number per group, whatever its particles."""
    at = state()
    fixed = of(replace(method, strength=1.0, scale="fixed"), at)
    scaled = of(replace(method, strength=0.2, scale="relative", cap=100.0), at)
    factor = (scaled * fixed).sum((1, 2)) / fixed.square().sum((1, 2))
    assert (factor > 0).all()
    assert torch.allclose(scaled, factor[:, None, None] * fixed, rtol=1e-9)
    turned = of(replace(method, strength=-0.2, scale="relative", cap=100.0), at)
    assert torch.allclose(turned, -scaled)


def test_single_particles_are_cut_back() -> None:
    at = state()
    heavy = draw(2, 5, 6)
    heavy[:, 0] *= 50
    free = shares_of_output(relative_guidance(heavy, at, 0.3), at)
    capped = shares_of_output(relative_guidance(heavy, at, 0.3, 0.4), at)
    assert free.max() > 0.6
    assert torch.allclose(capped, free.clamp(max=0.4))
    turned = relative_guidance(heavy, at, -0.3, 0.4)
    assert torch.allclose(turned, -relative_guidance(heavy, at, 0.3, 0.4))


def test_without_a_cap_it_is_twice_the_strength() -> None:
    assert ParticleGuidance(strength=0.2).resolved_cap("features") == 0.4
    assert ParticleGuidance(strength=-0.2).resolved_cap("features") == 0.4
    assert ParticleGuidance(strength=0.2, cap=0.3).resolved_cap("features") == 0.3


@pytest.mark.parametrize(
    "method",
    [
        ParticleGuidance(strength=3, cap=0.5),
        ParticleGuidance(kernel="features", scale="fixed", cap=0.5),
    ],
)
def test_a_cap_that_would_do_nothing_is_refused(method: ParticleGuidance) -> None:
    with pytest.raises(ParameterError, match=r"Expected no cap of pg .* got 0\.5"):
        method.resolved(has_features=True)


def test_what_is_zero_stays_zero() -> None:
    at = state()
    for share in (0.3, 0.0, -0.3):
        assert (relative_guidance(torch.zeros(2, 5, 6).double(), at, share, 0.6) == 0).all()
    assert (of(ParticleGuidance(kernel="features", strength=0), at) == 0).all()


def test_groups_do_not_see_each_other() -> None:
    at, heavy = state(), draw(2, 5, 6)
    alone = relative_guidance(heavy, at, 0.3, 0.4)[0]
    heavy[1] *= 1e6
    assert torch.equal(relative_guidance(heavy, at, 0.3, 0.4)[0], alone)


def test_float16_does_not_overflow() -> None:
    at = state()
    half = replace(at, particles=at.particles.half(), score=at.score.half())
    huge = torch.full((2, 5, 6), 6e4).half()
    assert torch.isfinite(relative_guidance(huge.float(), half, 0.3, 0.6)).all()


def test_a_strength_of_the_formula_is_not_taken_for_a_share() -> None:
    """`strength=8` of papers and earlier versions would be eight times the model's output."""
    at = state()
    with pytest.raises(ParameterError, match=r"share of the model's output.*got 8.*scale=fixed"):
        ParticleGuidance(kernel="features", strength=8).guidance(at)
    with pytest.raises(ParameterError, match="at most 1, got -8"):
        ParticleGuidance(kernel="features", strength=-8).resolved(True)
    of(ParticleGuidance(kernel="features", strength=8, scale="fixed"), at)
    of(ParticleGuidance(kernel="features", strength=8, scale="relative"), at)
    of(ParticleGuidance(kernel="latent", strength=8), at)


@pytest.mark.parametrize(
    ("text", "features", "scale", "strength", "cap"),
    [
        ("eddy-hutch", True, "relative", 0.3, 0.6),
        ("eddy-hutch", False, "fixed", 20.0, None),
        ("eddy-hutch:scale=fixed", True, "fixed", 0.1, None),
        ("pg:scale=relative", True, "relative", 0.3, 0.6),
        ("pg:kernel=features,cap=0.5,strength=0.4", True, "relative", 0.4, 0.5),
    ],
)
def test_what_a_groups_key_covers(
    text: str, features: bool, scale: str, strength: float, cap: float | None
) -> None:
    spelled = build_method(MethodSpec.parse(text)).resolved(features)
    assert isinstance(spelled, GuidingMethod)
    assert (spelled.scale, spelled.strength, spelled.cap) == (scale, strength, cap)
    assert spelled.resolved(features) == spelled
