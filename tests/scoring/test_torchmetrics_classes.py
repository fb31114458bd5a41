"""Classes of torchmetrics as metrics: their own numbers, and which are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from eddy_bench.errors import MetricError, ParameterError, UnknownName
from eddy_bench.scoring.fidelity import kernel_distance
from eddy_bench.scoring.metrics import MetricSpec
from tests.conftest import Result

Cli = Callable[..., Result]


def noise(count: int, seed: int = 0) -> list[Any]:
    images = np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3))
    return list(images.astype(np.uint8))


def test_classes_of_torchmetrics_give_their_own_numbers() -> None:
    from torchmetrics.image import StructuralSimilarityIndexMeasure, TotalVariation

    first, second = noise(2)
    pair = [torch.from_numpy(image).permute(2, 0, 1)[None] / 255 for image in (first, second)]
    ssim = MetricSpec.parse("torchmetrics:image.ssim.StructuralSimilarityIndexMeasure:sigma=3")
    expected = StructuralSimilarityIndexMeasure(data_range=1.0, sigma=3.0)(*pair)
    assert ssim.metric(first, second, **ssim.values) == pytest.approx(float(expected))
    assert str(ssim.id) == "torchmetrics.StructuralSimilarityIndexMeasure:sigma=3"
    plain = MetricSpec.parse("torchmetrics:image.ssim.StructuralSimilarityIndexMeasure")
    assert ssim.metric(first, second, **plain.values) != pytest.approx(float(expected))
    assert ssim.metric.higher_is_better is False, "alike images are less diverse"
    variation = MetricSpec.parse("torchmetrics:image.tv")
    assert variation.metric(first) == pytest.approx(float(TotalVariation()(pair[0])))
    kid = MetricSpec.parse("torchmetrics:image.kid[pixels]")
    x, y = np.random.default_rng(0).normal(size=(2, 40, 6))
    ours = kernel_distance(x, y + 1)
    values = {**kid.values, "subsets": 50.0}
    assert kid.metric(x, y + 1, **values) == pytest.approx(ours)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("torchmetrics:image.sim", UnknownName, "no such class of images or texts: 'image.sim'"),
        ("torchmetrics:image.ssim", UnknownName, "StructuralSimilarityIndexMeasure"),
        ("torchmetrics:image.ssim.Ssim", UnknownName, "Unknown class in torchmetrics.image.ssim"),
        ("torchmetrics:image.inception", MetricError, r"got InceptionScore.update\(imgs\)"),
        ("torchmetrics:classification.auroc.BinaryAUROC", MetricError, "takes images"),
        ("torchmetrics:image.kid:degree=2.5", ParameterError, "a whole degree of torchmetrics"),
        ("torchmetrics:image.tv:size=3", ParameterError, "no parameter 'size'"),
    ],
)
def test_other_classes_are_refused(text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        MetricSpec.parse(text)


@pytest.mark.parametrize(
    ("name", "flagged"),
    [
        ("fid.FrechetInceptionDistance", True),
        ("mifid.MemorizationInformedFrechetInceptionDistance", True),
        ("kid.KernelInceptionDistance", False),
    ],
)
def test_frechet_distances_of_torchmetrics_follow_the_rule_on_small_samples(
    cli: Cli, tmp_path: Path, undisturbed: Path, name: str, flagged: bool
) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    done = cli("score", run, "--metric", f"torchmetrics:image.{name}[fmnist-clip]")
    assert done.code == 0, done.err
    rows = pd.read_csv(run / "scores.csv", keep_default_na=False)
    own = rows[rows["metric"].str.startswith("torchmetrics.")]["signature"]
    assert len(own) == 2
    assert (own.str.split("|").map(lambda parts: "small-sample" in parts) == flagged).all()
