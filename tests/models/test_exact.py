"""Exact tasks: the denoiser against automatic differentiation, every scheduler, files, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from eddy_bench.errors import EddyError, ModelError, SuiteError, UnknownName
from eddy_bench.models.exact import TIMESTEPS, ExactDenoiser, ExactPipeline, exact_scheduler
from eddy_bench.models.load import load_model
from eddy_bench.models.mixture import Mixture
from eddy_bench.models.tasks import DEFAULT_TASKS, TASKS, load_task
from eddy_bench.sampling.scheduler_table import SCHEDULERS
from eddy_bench.sampling.schedulers import set_scheduler


def turned(dimension: int = 3, modes: int = 4) -> Mixture:
    """Full covariances and unequal weights."""
    generator = torch.Generator().manual_seed(1)
    basis = torch.linalg.qr(
        torch.randn(modes, dimension, dimension, generator=generator, dtype=torch.float64)
    )[0]
    variances = 0.1 + torch.rand(modes, dimension, generator=generator, dtype=torch.float64)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    return Mixture(
        2 * torch.randn(modes, dimension, generator=generator, dtype=torch.float64),
        variances,
        weights,
        basis,
    )


@pytest.mark.parametrize("sigma", [0.05, 1.0, 30.0])
def test_the_score_is_the_gradient_of_the_log_density(sigma: float) -> None:
    mixture = turned()
    x = (
        3 * torch.randn(20, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ).requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_density(x, sigma).sum(), x)
    torch.testing.assert_close(mixture.score(x.detach(), sigma), gradient, rtol=1e-8, atol=1e-10)


def test_the_log_density_is_that_of_scipy() -> None:
    from scipy.stats import multivariate_normal

    mixture = turned()
    assert mixture.basis is not None
    covariances = (mixture.basis * mixture.variances[:, None, :]) @ mixture.basis.mT
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    parts = [
        w * multivariate_normal(m, c + 0.25 * np.eye(3)).pdf(x)
        for w, m, c in zip(
            mixture.weights.numpy(), mixture.means.numpy(), covariances.numpy(), strict=True
        )
    ]
    np.testing.assert_allclose(mixture.log_density(x, 0.5).exp(), np.sum(parts, axis=0), rtol=1e-10)


def test_isotropic_diagonal_and_full_covariances_agree() -> None:
    task = load_task("ring8").mixture
    wide = Mixture(task.means, task.variances[:, None].expand(-1, 2), task.weights)
    full = Mixture(
        task.means,
        task.variances[:, None].expand(-1, 2),
        task.weights,
        torch.eye(2).double().expand(8, 2, 2),
    )
    x = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for other in (wide, full):
        torch.testing.assert_close(other.denoise(x, 0.7, 0.5), task.denoise(x, 0.7, 0.5))
        torch.testing.assert_close(other.mahalanobis(x), task.mahalanobis(x))
        assert torch.equal(other.components(x), task.components(x))


def test_pure_noise_is_denoised_to_the_mean() -> None:
    mixture = turned()
    denoised = mixture.denoise(torch.randn(6, 3, dtype=torch.float64), 0.0, 1.0)
    torch.testing.assert_close(denoised, (mixture.weights @ mixture.means).expand(6, 3))


def test_samples_have_the_mixture_s_moments() -> None:
    mixture = turned()
    x = mixture.sample(200_000, torch.Generator().manual_seed(0))
    error = x.std(0) / len(x) ** 0.5
    assert ((x.mean(0) - mixture.weights @ mixture.means).abs() < 4 * error).all()
    assert x.var(0).mean() ** 0.5 == pytest.approx(mixture.scale(), rel=0.01)
    # squared Mahalanobis distances to the component a point came from have mean d; the nearest one
    # can only be nearer or as far
    assert 0.8 < float(mixture.mahalanobis(x).mean()) < 1.1


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_a_distribution(name: str) -> None:
    task = load_task(name)
    assert float(task.mixture.weights.sum()) == pytest.approx(1)
    x = task.mixture.sample(64, torch.Generator().manual_seed(0))
    assert x.shape == (64, task.mixture.dimension)
    assert torch.isfinite(x).all()
    pictures = task.pictures(x[:3])
    assert [picture.size for picture in pictures] == [(32, 32)] * 3
    assert np.asarray(pictures[0]).std() > 5
    assert load_task(name).digest == task.digest


def test_default_tasks_are_registered_and_tasks_differ() -> None:
    assert set(DEFAULT_TASKS) < set(TASKS)
    assert len({load_task(name).digest for name in TASKS}) == len(TASKS)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_draws_the_ring(scheduler: str) -> None:
    """Noise-predicting and flow solvers alike put nearly all samples on the modes."""
    task = load_task("ring8")
    pipe = ExactPipeline(ExactDenoiser(task.mixture), exact_scheduler())
    call = set_scheduler(pipe, scheduler, {})
    x = pipe(
        num_images_per_prompt=400,
        num_inference_steps=50,  # the most that LCM and TCD take
        generator=torch.Generator().manual_seed(0),
        dtype=torch.float64,
        **call,
    ).images
    assert float(task.mixture.mahalanobis(x).mean()) < 3
    counts = torch.bincount(task.mixture.components(x), minlength=8)
    assert counts.min() > 20
    assert counts.max() < 90


def test_a_prompt_chooses_the_class_of_garment() -> None:
    task = load_task("fashion-kde")
    assert task.of_prompt is not None
    bags, boots = task.of_prompt("a dark bag"), task.of_prompt("ankle boot")
    assert task.of_prompt("bag") is bags
    pipe = ExactPipeline(ExactDenoiser(task.of_prompt), exact_scheduler())
    noise = torch.randn(4, 784, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    both = pipe(
        ["a bag", "an ankle boot"], num_images_per_prompt=2, num_inference_steps=25, latents=noise
    ).images
    alone = pipe(
        "an ankle boot", num_images_per_prompt=2, num_inference_steps=25, latents=noise[2:]
    ).images
    torch.testing.assert_close(both[2:], alone)
    assert (
        torch.cdist(both[:2], bags.means).min(1).values
        < torch.cdist(both[:2], boots.means).min(1).values
    ).all()
    assert load_task("fashion-kde:boot").mixture is boots


def test_settings_that_mean_nothing_are_refused() -> None:
    pipe = ExactPipeline(ExactDenoiser(load_task("ring8").mixture), exact_scheduler())
    with pytest.raises(ModelError, match="guidance_scale 1, got 4"):
        pipe(guidance_scale=4.0)
    with pytest.raises(ModelError, match="height, width"):
        pipe(height=64, width=64)


def test_the_schedule_starts_from_noise_and_ends_at_data() -> None:
    table = exact_scheduler().alphas_cumprod.double()
    assert len(table) == TIMESTEPS
    levels = ((1 - table) / table).sqrt()
    assert levels[0] < 0.005
    assert levels[-1] > 100


def test_a_task_is_a_model() -> None:
    model = load_model("exact:ring8")
    assert model.fingerprint == load_task("ring8").digest
    assert not model.has_features
    with pytest.raises(UnknownName, match="Did you mean 'ring8'"):
        load_model("exact:ring88")


GOOD: dict[str, Any] = {
    "name": "pair",
    "means": [[0, 0], [3, 1]],
    "covariances": 0.25,
    "weights": [1, 3],
}


@pytest.mark.parametrize(
    "covariances",
    [
        0.25,
        [0.25, 0.25],
        [[0.25, 0.25], [0.25, 0.25]],
        [[[0.25, 0], [0, 0.25]], [[0.25, 0], [0, 0.25]]],
    ],
    ids=["one", "per mode", "diagonals", "full"],
)
def test_covariances_in_each_form_give_the_same_task(covariances: Any, tmp_path: Path) -> None:
    path = tmp_path / "pair.yaml"
    path.write_text(yaml.safe_dump({**GOOD, "covariances": covariances}))
    task = load_task(str(path))
    assert task.name == "pair"
    assert task.mixture.weights.tolist() == [0.25, 0.75]
    expected = Mixture(
        torch.tensor([[0.0, 0], [3, 1]]).double(),
        torch.tensor([0.25, 0.25]).double(),
        torch.tensor([0.25, 0.75]).double(),
    )
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(task.mixture.denoise(x, 0.6, 0.8), expected.denoise(x, 0.6, 0.8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": []}, "means"),
        ({"means": [[0, 0], [1]]}, "2 numbers in every row"),
        ({"means": [[0, float("nan")], [1, 1]]}, "means.0.1"),
        ({"covariances": -1}, "covariances: expected one positive number"),
        ({"covariances": "wide"}, "covariances: expected one positive number"),
        ({"covariances": [1, 2, 3]}, "covariances: expected one number, or the shape"),
        ({"covariances": [[1, 2], [3]]}, "covariances: expected one number, or the shape"),
        ({"covariances": [[[1, 2], [0, 1]], [[1, 0], [0, 1]]]}, "symmetric"),
        ({"covariances": [[[1, 2], [2, 1]], [[1, 0], [0, 1]]]}, "positive definite"),
        ({"weights": [1, 0]}, "weights.1"),
        ({"weights": [1, 2, 3]}, "expected 2, one per mode, got 3"),
        ({"name": "../up"}, "name"),
        ({"colour": "red"}, "Unknown key 'colour'"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **change}))
    with pytest.raises(SuiteError) as caught:
        load_task(str(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "\x00"])
def test_a_file_that_is_no_task_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(text)
    with pytest.raises(EddyError):
        load_task(str(path))


def test_exact_tasks_run_through_the_command_line(cli: Any, tmp_path: Path) -> None:
    import pandas as pd

    out = tmp_path / "points"
    done = cli(
        "run",
        "--model",
        "exact:ring8",
        "--limit",
        2,
        "--steps",
        6,
        "--method",
        "iid",
        "--method",
        "eddy-exact",
        "--out",
        out,
    )
    assert done.code == 0, done.err
    scores = pd.read_csv(out / "scores.csv")
    assert {"vendi[pixels]", "pdist[pixels]"} <= set(scores["metric"])
    assert set(scores["guidance_scale"]) == {1.0}
    assert scores[scores["metric"] == "nfe"]["value"].eq(6).all()
    (tmp_path / "pair.yaml").write_text(yaml.safe_dump(GOOD))
    done = cli(
        "run",
        "--model",
        f"exact:{tmp_path / 'pair.yaml'}",
        "--limit",
        1,
        "--steps",
        4,
        "--method",
        "iid",
        "--scheduler",
        "flow-euler",
        "--out",
        tmp_path / "flow",
    )
    assert done.code == 0, done.err
    done = cli(
        "run",
        "--model",
        "exact:ring8",
        "--guidance-scale",
        3,
        "--method",
        "iid",
        "--out",
        tmp_path / "guided",
    )
    assert (done.code, "expected guidance_scale 1, got 3" in done.err) == (2, True)


def test_garments_are_scored_as_garments(cli: Any, tmp_path: Path) -> None:
    import pandas as pd

    done = cli(
        "run",
        "--model",
        "exact:fashion-kde",
        "--limit",
        1,
        "--steps",
        25,
        "--method",
        "iid",
        "--metric",
        "vendi",
        "--metric",
        "clip",
        "--out",
        tmp_path / "kde",
    )
    assert done.code == 0, done.err
    scores = pd.read_csv(tmp_path / "kde" / "scores.csv")
    assert {"vendi[fmnist-clip]", "clip[fmnist-clip]"} <= set(scores["metric"])
