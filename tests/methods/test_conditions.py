"""Methods that act on each particle alone: on its condition, its guidance, its score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from eddy_bench.errors import ParameterError
from eddy_bench.methods.apg import Apg
from eddy_bench.methods.base import Method
from eddy_bench.methods.cads import Cads
from eddy_bench.methods.couplings import StartedMethod
from eddy_bench.methods.guidance_schedule import GuidanceSchedule
from eddy_bench.methods.iid import Iid
from eddy_bench.methods.interval import Interval
from eddy_bench.methods.pink_noise import PinkNoise
from eddy_bench.methods.tsr import Tsr
from eddy_bench.models.base import Model
from eddy_bench.models.load import load_model
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.sampling.state import StepInfo
from tests.conftest import Result
from tests.makers.mixtures import draw as random
from tests.methods.test_pg_repulsion import state_at

STEPS = 6
PROMPTS = ["a dark dress", "a sandal"]


@pytest.fixture(scope="module")
def fashion() -> Model:
    model = load_model("fashion", device="cpu")
    set_scheduler(model.pipe, "ddim", {})
    return model


def draw(model: Model, method: Method, scale: float = 4.0) -> tuple[Tensor, Any]:
    call = {"num_inference_steps": STEPS, "guidance_scale": scale, "output_type": "latent"}
    drawn, cost = model.draw(PROMPTS, [0, 0], 2, method, call)
    return torch.stack([latent for group in drawn for latent in group]), cost


def info(**changes: Any) -> StepInfo:
    return replace(StepInfo(2, 10, 4.0, 3.0, time=0.75, scale=5.0), **changes)


NEUTRAL = [
    Interval(window="0.."),
    GuidanceSchedule(shape="constant"),
    Cads(tau1=1.0),
    Cads(s=0.0),
    Tsr(k=1.0),
    Apg(eta=1, threshold=0, momentum=0),
    PinkNoise(alpha=0),
]


@pytest.mark.parametrize("method", NEUTRAL, ids=repr)
def test_neutral_parameters_are_iid(fashion: Model, method: Method) -> None:
    plain, cost = draw(fashion, Iid())
    same, as_much = draw(fashion, method)
    assert torch.equal(plain, same)
    assert cost.nfe == as_much.nfe


@pytest.mark.parametrize(
    "method",
    [Interval(), GuidanceSchedule(), Cads(), Tsr(), Apg(), PinkNoise(alpha=1.0)],
    ids=lambda m: m.name,
)
def test_each_particle_is_guided_alone(fashion: Model, method: Method) -> None:
    """N = 1 is not iid, and a particle is the same beside others."""
    assert not method.interacts
    plain, _ = draw(fashion, Iid())
    changed, _ = draw(fashion, method)
    assert not torch.allclose(plain, changed, atol=1e-3)
    call = {"num_inference_steps": STEPS, "guidance_scale": 4.0, "output_type": "latent"}
    alone, _ = fashion.draw(PROMPTS[:1], [0], 1, method, call)
    assert (alone[0][0] - changed[0]).abs().max() < 1e-3
    if isinstance(method, StartedMethod):
        with_init = replace(method, init="antithetic")
        assert not torch.allclose(draw(fashion, with_init)[0], changed, atol=1e-3)


def test_an_empty_interval_is_a_run_without_guidance(fashion: Model) -> None:
    alone, cost = draw(fashion, Iid(), scale=1.0)
    empty, same = draw(fashion, Interval(window="1e8..1e9"))
    assert torch.equal(alone, empty)
    assert cost.nfe == same.nfe == STEPS
    part, some = draw(fashion, Interval(window="0%..50%"))
    assert some.nfe == STEPS * 1.5
    assert not torch.equal(part, alone)


def test_the_ends_of_an_interval() -> None:
    method = Interval(window="0.28..5.42")
    scales = [method.guidance_scale(info(sigma=s)) for s in (0.28, 0.29, 5.42, 5.43)]
    assert scales == [1.0, None, None, 1.0]


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_schedules_rise_around_the_calls_scale(shape: Any) -> None:
    method = GuidanceSchedule(shape=shape)
    scales = [method.guidance_scale(info(step=k)) for k in range(10)]
    assert all(scale is not None for scale in scales)
    values = [float(scale or 0) for scale in scales]
    assert values == sorted(values)
    assert sum(values) / 10 == pytest.approx(5.0)
    assert 1 < values[0] < 2
    clamped = GuidanceSchedule(shape=shape, floor=3.0)
    assert clamped.guidance_scale(info(step=0)) == 3.0
    assert method.guidance_scale(info(scale=None)) is None


@pytest.mark.parametrize("kind", ["ddim", "flow"])
def test_cfg_plus_plus_is_its_own_rule(kind: str) -> None:
    """Denoise with the guided prediction, renoise with the null one: the same first-order step."""
    x, c, u = (random(1, 4, 3)[0] for _ in range(3))
    strength = 0.6
    if kind == "ddim":
        alpha, after = 0.5, 0.8
        sigma, sigma_after = (1 - alpha**2) ** 0.5, (1 - after**2) ** 0.5
        denoised = (x - sigma * (u + strength * (c - u))) / alpha
        expected = after * denoised + sigma_after * u
    else:
        sigma, sigma_after = 0.7, 0.4
        alpha, after = 1 - sigma, 1 - sigma_after
        denoised = x - sigma * (u + strength * (c - u))
        expected = after * denoised + sigma_after * (x + (1 - sigma) * u)
    at = info(sigma=sigma / alpha, sigma_next=sigma_after / after)
    scale = GuidanceSchedule(shape="cfg++", strength=strength).guidance_scale(at)
    assert scale is not None
    guided = u + scale * (c - u)
    if kind == "ddim":
        step = after * (x - sigma * guided) / alpha + sigma_after * guided
    else:
        step = x + (sigma_after - sigma) * guided
    assert torch.allclose(step, expected, rtol=1e-9)


def streams(count: int) -> tuple[torch.Generator, ...]:
    return tuple(torch.Generator().manual_seed(k) for k in range(count))


def noised(method: Cads, embeds: Tensor, mask: Tensor | None = None, **changes: Any) -> Tensor:
    kept = torch.ones(embeds.shape[:2], dtype=torch.bool) if mask is None else mask
    return method.condition(embeds, kept, info(streams=streams(len(embeds)), **changes))


def test_cads_keeps_mean_and_deviation_of_each_sample() -> None:
    embeds = 3 * random(1, 12, 5)[0].reshape(3, 4, 5) + 1
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[0, 2:] = False
    for pooled in (embeds, embeds[:, :1]):
        kept = mask[:, : pooled.shape[1]]
        changed = noised(Cads(psi=1.0), pooled, kept)
        for before, after, row in zip(pooled, changed, kept, strict=True):
            assert after[row].mean() == pytest.approx(float(before[row].mean()))
            assert after[row].std() == pytest.approx(float(before[row].std()))
    plain = noised(Cads(psi=0.0, s=0.1), embeds)
    assert float(plain.std() / embeds.std()) != pytest.approx(1.0, abs=1e-4)


def test_the_dial_of_cads() -> None:
    """At psi = 1 and gamma = 0 the scale of the noise cancels; gamma falls from 1 to 0."""
    embeds = random(1, 12, 5)[0].reshape(3, 4, 5)
    first, second = (noised(Cads(s=s, psi=1.0), embeds, time=0.95) for s in (0.01, 10.0))
    assert torch.allclose(first, second, rtol=1e-6)
    method = Cads()
    assert [method.gamma(time) for time in (0.3, 0.6, 0.9, 1.0)] == [1, 1, 0, 0]
    assert method.gamma(0.75) == pytest.approx(0.5)
    assert torch.equal(noised(method, embeds, time=0.5), embeds)
    with pytest.raises(ParameterError, match="tau1 of cads below tau2"):
        Cads(tau1=0.9, tau2=0.9)


def test_tsr_is_exact_on_gaussians() -> None:
    """Data of variance s^2 under score r s is data of variance s^2 / k."""
    deviation, k = 2.0, 0.8
    at = state_at()
    at = replace(at, score=-at.particles / (deviation**2 + at.sigma**2))
    guidance = Tsr(k=k, deviation=deviation).guidance(at)
    expected = -at.particles / (deviation**2 / k + at.sigma**2)
    assert torch.allclose(at.score + guidance, expected, rtol=1e-9)


def test_apg_takes_the_parallel_part_away() -> None:
    c, u = random(2, 3, 6), random(2, 3, 6)
    usual = u + 5.0 * (c - u)
    plain = Apg(eta=1, threshold=0, momentum=0).combine(c, u, 5.0, info())
    assert torch.allclose(plain, usual, rtol=1e-6)
    away = Apg(eta=0, momentum=0).combine(c, u, 5.0, info()) - c
    assert ((away * c).sum(-1).abs() < 1e-9 * c.norm(dim=-1) * away.norm(dim=-1) + 1e-12).all()
    bound = Apg(eta=1, threshold=0.1, momentum=0).combine(c, u, 2.0, info()) - c
    assert (bound.norm(dim=-1) <= 0.1 * 6**0.5 * (1 + 1e-9)).all()


def test_momentum_is_per_call_and_per_particle(fashion: Model) -> None:
    c, u = random(1, 2, 6), random(1, 2, 6)
    method, at = Apg(eta=1, momentum=-0.5), info()
    first = method.combine(c, u, 3.0, at)
    second = method.combine(c, u, 3.0, at)
    assert torch.allclose(first, c + 2 * (c - u))
    assert torch.allclose(second, c + 2 * 0.5 * (c - u))
    once, _ = draw(fashion, Apg())
    again, _ = draw(fashion, Apg())
    assert torch.equal(once, again), "memory is empty at the beginning of a call"


def test_pink_noise_has_its_spectrum() -> None:
    """Power falls as f^-alpha, pixels keep variance 1, rows are independent."""
    white = torch.randn(2000, 1, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    alpha = 0.8
    pink = PinkNoise(alpha=alpha).initial_field(white, torch.Generator())
    assert (pink.var(0) - 1).abs().max() < 0.15
    power = torch.fft.fftn(pink, dim=(-2, -1)).abs().square().mean((0, 1))
    f = torch.fft.fftfreq(16).double()
    frequency = (f[:, None].square() + f.square()).sqrt()
    kept = frequency > 0
    slope = torch.linalg.lstsq(
        torch.stack([frequency[kept].log(), torch.ones(int(kept.sum())).double()], 1),
        power[kept].log()[:, None],
    ).solution[0]
    assert float(slope) == pytest.approx(-alpha, abs=0.02)
    between = (pink[:1000] * pink[1000:]).mean(0)
    assert between.abs().max() < 0.2
    line = PinkNoise(alpha=alpha).initial_field(white.flatten(1), torch.Generator())
    assert line.shape == (2000, 256)
    assert (line.var(0) - 1).abs().max() < 0.2


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (("--method", "interval", "--guidance-scale", "1"), "without classifier-free guidance"),
        (("--method", "apg", "--model", "exact:ring8"), "without classifier-free guidance"),
        (("--method", "cads", "--model", "exact:ring8"), "no text embeddings here"),
        (("--method", "cads:tau1=2"), "less than or equal to 1"),
        (("--method", "interval:window=9..1"), "The ends must rise"),
    ],
)
def test_what_cannot_be_changed_is_refused_before_anything_is_drawn(
    call: tuple[str, ...], expected: str, cli: Callable[..., Result], tmp_path: Path
) -> None:
    done = cli("run", *call, "--out", tmp_path / "run")
    assert done.code == 2
    assert expected in done.err
    assert not (tmp_path / "run").exists()
