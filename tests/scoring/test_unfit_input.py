"""Images, statistics and weights that do not fit a metric are one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eddy_bench.errors import MetricError, ParameterError
from eddy_bench.models.devices import CPU
from eddy_bench.scoring import scorer
from eddy_bench.scoring.diversity import gaussian_vendi
from eddy_bench.scoring.extractor import Extractor, read_state
from eddy_bench.scoring.forward import Forward
from eddy_bench.scoring.metrics import MetricSpec
from tests.conftest import Result

Cli = Callable[..., Result]
TO_REAL = ("fd", "kid", "cmmd", "precision", "recall", "density", "coverage")


@pytest.fixture
def run(undisturbed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(undisturbed, tmp_path / "run"))


def pictures(folder: Path, *sides: int) -> Path:
    folder.mkdir()
    for number, side in enumerate(sides):
        Image.new("RGB", (side, side), (number, 0, 0)).save(folder / f"{number}.png")
    return folder


def one_line(done: Result, said: str) -> None:
    assert (done.code, "Traceback" in done.err) == (2, False), done.err
    assert said in done.err.splitlines()[-1]


def test_pictures_of_several_sizes_have_no_pixels_in_common(
    cli: Cli, run: Path, tmp_path: Path
) -> None:
    real = pictures(tmp_path / "real", 32, 32, 32, 48)
    said = "Expected images of one size under pixels, got some of 1024 and some of 2304 features"
    one_line(cli("score", run, "--reference", real, "--metric", "fd[pixels]"), said)
    saved = ("reference", real, "--extractor", "pixels", "--out", tmp_path / "stats.npz")
    one_line(cli(*saved), said)


@pytest.mark.parametrize("name", TO_REAL)
def test_real_images_of_another_size_have_other_pixels(
    cli: Cli, run: Path, tmp_path: Path, name: str
) -> None:
    real, file = pictures(tmp_path / "real", *[48] * 7), tmp_path / "stats.npz"
    assert cli("reference", real, "--extractor", "pixels", "--out", file).code == 0
    for reference in (real, file):
        done = cli("score", run, "--reference", reference, "--metric", f"{name}[pixels]")
        one_line(done, "Expected 1024 features of pixels for each image of real@")


def test_features_that_are_not_finite_are_one_line(
    cli: Cli, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Extractor(
        "pixels",
        "v0",
        lambda image: np.asarray(image.convert("L")),
        Forward("pixels", lambda pixels: pixels.flatten(1).float() * torch.nan, CPU),
    )
    monkeypatch.setattr(scorer, "load_extractor", lambda *given: broken)
    for name in ("vendi", "pdist", "fd"):
        done = cli("score", run, "--metric", f"{name}[pixels]")
        one_line(done, "The features of pixels are not finite. Check --weights.")


@pytest.mark.parametrize("content", [{1: torch.zeros(2)}, [torch.zeros(2)], {"a": 1}, {}])
def test_weights_that_are_no_tensors_by_name_are_one_line(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(MetricError, match="cannot be read as weights: no tensors by name"):
        read_state("net.pth", tmp_path, "net")


def test_the_narrowest_kernel_tells_copies_from_others() -> None:
    with pytest.raises(ParameterError, match="Expected h of vendi-rbf above 1e-06"):
        MetricSpec.parse("vendi-rbf:h=1e-200")
    narrow = MetricSpec.parse("vendi-rbf:h=2e-6").values["h"]
    features = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    assert gaussian_vendi(features, h=narrow) == pytest.approx(4)
    assert gaussian_vendi(features[[0, 0, 1, 1]], h=narrow) == pytest.approx(2, rel=1e-3)
