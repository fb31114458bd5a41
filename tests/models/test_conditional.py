"""Tasks with a condition: closed-form scores of both branches, and what guidance does to modes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from eddy_bench.audit.plan import open_pipeline
from eddy_bench.methods.cads import Cads
from eddy_bench.methods.interval import Interval
from eddy_bench.models.tasks import Task, load_task
from eddy_bench.sampling.steer import steer
from eddy_bench.suites.method_spec import MethodSpec
from tests.conftest import Result

TASKS = ("class-ring", "class-64d")


@pytest.mark.parametrize("name", TASKS)
def test_both_branches_are_closed_form(name: str) -> None:
    """Against the gradient of the log density of p(x | c) and of their average."""
    task = load_task(name)
    classes = task.classes
    assert classes is not None
    x = torch.randn(5, task.mixture.dimension, dtype=torch.float64).requires_grad_()
    sigma = 1.3
    laws = [classes.law(f"class {c}") for c in range(len(classes.shares))]
    for embedding, density in (
        (classes.embedding("class 1"), laws[1].log_density(x, sigma)),
        (
            classes.null,
            torch.logsumexp(torch.stack([law.log_density(x, sigma) for law in laws]), 0),
        ),
    ):
        (expected,) = torch.autograd.grad(density.sum(), x)
        denoised = classes.denoise(x.detach(), 1.0, sigma, embedding.expand(5, -1))
        assert torch.allclose((denoised - x.detach()) / sigma**2, expected, atol=1e-9)


@pytest.mark.parametrize("name", TASKS)
def test_a_law_is_a_distribution_of_its_class(name: str) -> None:
    task = load_task(name)
    classes = task.classes
    assert classes is not None
    assert torch.allclose(classes.shares.sum(1), torch.ones(len(classes.shares)).double())
    assert torch.equal(task.mixture.weights, classes.shares[0])
    assert classes.number("a picture of class 2") == 2
    assert classes.number("nothing") == 0
    weights = torch.softmax(classes.turn @ classes.embedding("class 1"), 0)
    assert torch.allclose(weights, classes.shares[1])


def samples(task: Task, scale: float, method: object = None, groups: int = 400) -> Tensor:
    pipe, call = open_pipeline(task, MethodSpec.parse("ddim"))
    call = {**call, "guidance_scale": scale}
    generator = torch.Generator().manual_seed(0)

    def run() -> Tensor:
        return pipe(
            num_images_per_prompt=groups * 8,
            num_inference_steps=50,
            generator=generator,
            dtype=torch.float64,
            **call,
        ).images.unflatten(0, (groups, 8))

    if method is None:
        return run()
    with steer(pipe, method, particles=8):  # type: ignore[arg-type]
        return run()


def modes(task: Task, drawn: Tensor) -> float:
    components = task.mixture.components(drawn)
    return float(torch.nn.functional.one_hot(components, 8).sum(1).gt(0).sum(-1).double().mean())


def test_guidance_collapses_modes_and_an_interval_wins_some_back() -> None:
    task = load_task("class-ring")
    plain, guided = samples(task, 1.0), samples(task, 3.0)
    shares = (
        torch.bincount(task.mixture.components(plain).flatten(), minlength=8)
        / plain[..., 0].numel()
    )
    assert torch.allclose(shares.double(), task.mixture.weights, atol=0.03)
    assert modes(task, guided) < 0.7 * modes(task, plain)
    assert torch.equal(samples(task, 3.0, Interval(window="0..")), guided)
    alone = samples(task, 3.0, Interval(window="1e8..1e9"))
    assert torch.allclose(alone, plain)
    assert modes(task, samples(task, 3.0, Interval(window="0..3"))) > modes(task, guided) + 0.5
    assert modes(task, samples(task, 3.0, Cads(s=0.25, psi=1.0))) > modes(task, guided)


def test_verdicts_say_where_samples_went(cli: Callable[..., Result], tmp_path: Path) -> None:
    call = ["audit", "--task", "class-ring", "--scheduler", "ddim", "--steps", "25,50"]
    call += ["--groups", "400", "--out", str(tmp_path / "audit")]
    call += ["--method", "interval:window=0..3", "--method", "antithetic"]
    call += ["--method", "guidance-schedule:shape=cfg++,strength=8"]
    done = cli(*call)
    assert done.code == 0, done.err
    frame = pd.read_csv(tmp_path / "audit" / "audit.csv")
    names = frame["method"].str.partition(":")[0]
    verdicts = dict(zip(names, frame["verdict"], strict=True))
    assert ", closer to the target" in verdicts["interval"]
    assert "no closer to the target" in verdicts["antithetic"]
    assert "farther from the target" in verdicts["guidance-schedule"]


def test_methods_of_conditions_are_left_out_elsewhere(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    call = ["audit", "--quick", "--groups", "50", "--steps", "5,10", "--out", str(tmp_path / "a")]
    refused = cli(*call, "--method", "cads")
    assert refused.code == 2
    assert "--task class-ring" in refused.err
    both = cli(*call, "--method", "cads", "--task", "ring8", "--task", "class-ring")
    assert both.code == 0
    assert (
        both.err.count("cads is left out on ring8") + both.out.count("cads is left out on ring8")
        == 1
    )
