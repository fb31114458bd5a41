"""Couplings: every row stays standard normal, and correlations are as stated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from eddy_bench import Antithetic, Coupled, EddyExact, Iid, Lhs, Method, Sobol, State, steer
from eddy_bench.errors import ParameterError, SchedulerError
from eddy_bench.methods.coupled import FLOOR, Rule, laplacian_root, maxcut_root
from eddy_bench.methods.couplings import EDGE, antithetic, lhs, normal_quantile, sobol
from tests.makers.solvers import SOLVERS, draw, make_pipeline

GROUPS = 4000
Coupling = Callable[[Tensor, torch.Generator], Tensor]


def samples(coupling: Coupling, count: int, dimension: int = 3) -> Tensor:
    """(GROUPS, N, d)."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(GROUPS, count, dimension, generator=generator, dtype=torch.float64)
    return torch.stack(
        [coupling(group, torch.Generator().manual_seed(k)) for k, group in enumerate(noise)]
    )


def correlation(noise: Tensor) -> float:
    """Mean correlation of two different rows."""
    count = noise.shape[1]
    product = torch.einsum("gid,gjd->ij", noise, noise) / (len(noise) * noise.shape[2])
    return float((product.sum() - product.trace()) / (count * (count - 1)))


@pytest.mark.parametrize("coupling", [antithetic, lhs, sobol])
@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_rows_are_standard_normal(coupling: Coupling, count: int) -> None:
    noise = samples(coupling, count)
    for slot in range(count):
        for coordinate in range(3):
            values = noise[:, slot, coordinate].numpy()
            assert stats.kstest(values, "norm").pvalue > 1e-4
            assert abs(values.mean()) < 4.5 / GROUPS**0.5
            assert abs(values.var() - 1) < 4.5 * (2 / GROUPS) ** 0.5


@pytest.mark.parametrize(
    ("count", "expected"), [(2, -0.637), (3, -0.397), (4, -0.287), (8, -0.135)]
)
def test_rows_of_lhs_have_the_stated_correlation(count: int, expected: float) -> None:
    assert correlation(samples(lhs, count)) == pytest.approx(
        expected, abs=4.5 / (GROUPS * 3) ** 0.5
    )


@pytest.mark.parametrize("count", [2, 3, 8])
def test_antithetic_sums_to_zero(count: int) -> None:
    noise = samples(antithetic, count)
    assert float(noise.sum(1).abs().max()) < 1e-12
    assert correlation(noise) == pytest.approx(-1 / (count - 1), abs=4.5 / (GROUPS * 3) ** 0.5)
    if count == 2:
        assert torch.allclose(noise[:, 0], -noise[:, 1])


def test_sobol_pairs_are_alike_after_permutation() -> None:
    noise = samples(sobol, 4)
    pairs = [float((noise[:, i] * noise[:, j]).mean()) for i in range(4) for j in range(i)]
    assert max(pairs) - min(pairs) < 0.08
    assert max(pairs) < 0


@pytest.mark.parametrize("coupling", [antithetic, lhs, sobol])
def test_one_particle_is_left_alone(coupling: Coupling) -> None:
    noise = torch.randn(1, 5)
    assert torch.equal(coupling(noise, torch.Generator()), noise)


def test_coordinates_of_a_latin_hypercube_are_independent_and_stratified() -> None:
    noise = samples(lhs, 4, 2)
    uniform = torch.special.ndtr(noise)
    strata = (uniform * 4).floor().sort(1).values
    assert (strata == torch.arange(4)[None, :, None]).all()
    assert abs(np.corrcoef(noise[:, 0, 0], noise[:, 0, 1])[0, 1]) < 4.5 / GROUPS**0.5


def test_quantiles_are_finite_and_limits_are_errors() -> None:
    assert torch.isfinite(normal_quantile(torch.tensor([0.0, 1.0]))).all()
    assert float(normal_quantile(torch.tensor([0.0]))) == pytest.approx(stats.norm.ppf(EDGE))
    with pytest.raises(ParameterError, match="lhs"):
        sobol(torch.zeros(2, 21202), torch.Generator())


def similarities(count: int, seed: int = 0) -> Tensor:
    x = torch.randn(2, count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return -(x[:, :, None] - x[:, None]).square().sum(-1)


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_the_laplacian_has_unit_diagonal_and_the_stated_correlations(
    count: int, strength: float
) -> None:
    logs = similarities(count)
    root = laplacian_root(logs, strength)
    covariance = root @ root.mT
    assert torch.allclose(covariance.diagonal(dim1=1, dim2=2), torch.ones(2, count).double())
    weights = logs.exp() * (1 - torch.eye(count))
    degree = weights.sum(-1) + FLOOR
    expected = -strength * weights / (degree[:, :, None] * degree[:, None, :]).sqrt() + torch.eye(
        count
    )
    assert torch.allclose(covariance, expected, atol=1e-6)
    if count == 2:
        assert covariance[0, 0, 1] == pytest.approx(-strength, abs=1e-3)


def test_equal_similarities_sum_to_zero_and_tiny_ones_are_independent() -> None:
    equal = laplacian_root(torch.zeros(1, 5, 5), 1.0)
    assert torch.allclose((equal @ equal.mT)[0], 1.25 * torch.eye(5).double() - 0.25, atol=1e-5), (
        "equal similarities sum to zero"
    )
    tiny = laplacian_root(torch.full((1, 5, 5), -2000.0), 1.0)
    assert torch.allclose(tiny[0], torch.eye(5).double()), (
        "isolated particles are independent, and nothing underflows"
    )
    order = torch.tensor([2, 0, 1, 3])
    logs = similarities(4)
    assert torch.allclose(
        laplacian_root(logs[:, order][:, :, order], 1.0),
        laplacian_root(logs, 1.0)[:, order][:, :, order],
        atol=1e-8,
    )


@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_relaxed_cut_opposes_more_than_the_laplacian(count: int) -> None:
    logs = similarities(count)
    weights = logs.exp() * (1 - torch.eye(count))
    cut, laplacian = maxcut_root(logs, 1.0), laplacian_root(logs, 1.0)
    assert torch.allclose(cut.norm(dim=-1), torch.ones(2, count).double())
    sums = [(weights * (root @ root.mT)).sum((1, 2)) for root in (cut, laplacian)]
    assert (sums[0] <= sums[1] + 1e-8).all()
    assert count < 8 or (sums[0] < sums[1] - 0.1).all()


def test_the_relaxed_cut_of_known_similarities() -> None:
    equal = maxcut_root(torch.zeros(1, 5, 5), 1.0)
    assert torch.allclose((equal @ equal.mT)[0], 1.25 * torch.eye(5).double() - 0.25, atol=1e-5)
    half = maxcut_root(torch.zeros(1, 5, 5), 0.5)
    assert (half @ half.mT)[0, 0, 1] == pytest.approx(-0.125, abs=1e-5)
    far = torch.full((1, 4, 4), -900.0)
    far[0, :2, :2] = far[0, 2:, 2:] = 0.0
    correlation = (root := maxcut_root(far, 1.0)) @ root.mT
    assert correlation[0, 0, 1] == pytest.approx(-1.0, abs=1e-6), "two pairs, each opposite"
    assert correlation[0, 2, 3] == pytest.approx(-1.0, abs=1e-6)


def test_the_relaxed_cut_knows_no_order() -> None:
    logs, order = similarities(4), torch.tensor([2, 0, 1, 3])
    apart = [maxcut_root(logs[:, order][:, :, order], 1.0), maxcut_root(logs, 1.0)[:, order]]
    assert torch.allclose(apart[0], apart[1][:, :, order], atol=1e-3)


@pytest.mark.parametrize("rule", ["laplacian", "maxcut"])
def test_a_state_dependent_coupling_keeps_each_particle_s_law_on_a_nonlinear_chain(
    rule: Rule,
) -> None:
    """x <- x + 0.3 sin(2 x) + 0.6 xi: each slot has the law of the independent chain."""
    generator = torch.Generator().manual_seed(0)

    def chain(method: Method) -> Tensor:
        x = torch.randn(6000, 4, 1, generator=generator, dtype=torch.float64)
        for _ in range(8):
            noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
            state = State(particles=x, score=-x, denoised=x, sigma=1.0)
            x = x + 0.3 * torch.sin(2 * x) + 0.6 * method.step_noise(noise, state)
        return x[..., 0]

    free, coupled = chain(Iid()), chain(Coupled(kernel="latent", rule=rule))
    for slot in range(4):
        assert stats.ks_2samp(free[:, slot], coupled[:, slot]).pvalue > 1e-4
    assert coupled.sum(1).var() < 0.8 * free.sum(1).var(), "the joint law did change"


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    "method", [Antithetic(), Lhs(), Sobol(), EddyExact(init="antithetic")], ids=lambda m: m.title()
)
def test_the_start_is_coupled_under_every_solver(solver: str, method: Method) -> None:
    pipe = make_pipeline(solver)
    steps = 1 if solver in ("lcm", "scm") else 8  # later steps of these forget the start
    bare = draw(pipe, steps=steps)
    with steer(pipe, method, particles=4):
        first, second = draw(pipe, steps=steps), draw(pipe, steps=steps)
    assert torch.isfinite(first).all()
    if solver != "scm":  # it begins at alpha = 0, where the exact estimate is the mean of all
        assert (first - bare).abs().max() > 1e-3
    assert torch.equal(first, second), "each call of the pipeline starts anew"
    assert torch.equal(draw(pipe, steps=steps), bare)


STOCHASTIC = ["ddpm", "dpmpp-sde", "sa", "euler-a", "lcm", "scm"]


@pytest.mark.parametrize("solver", [*STOCHASTIC, "ddim", "tcd"])
def test_step_noise_is_coupled_under_stochastic_solvers(solver: str) -> None:
    pipe = make_pipeline(solver)
    extra = {"eta": 1.0} if solver in ("ddim", "tcd") else {}
    bare = draw(pipe, **extra)
    with steer(pipe, Coupled(strength=0.0), particles=4):
        assert torch.equal(draw(pipe, **extra), bare)
    with steer(pipe, Coupled(), particles=4):
        coupled = draw(pipe, **extra)
    assert torch.isfinite(coupled).all()
    assert (coupled - bare).abs().max() > 1e-3
    assert torch.equal(draw(pipe, **extra), bare)


@pytest.mark.parametrize("solver", sorted(SOLVERS.keys() - set(STOCHASTIC)))
def test_deterministic_solvers_are_refused(solver: str) -> None:
    pipe = make_pipeline(solver)
    with steer(pipe, Coupled(), particles=4), pytest.raises(SchedulerError, match="ddim:eta=1"):
        draw(pipe)
