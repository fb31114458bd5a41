"""Scores on a device are those of the CPU."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eddy_bench.results.io import read_table
from eddy_bench.scoring.extractors import INCEPTION, load_classifier, load_extractor
from eddy_bench.scoring.perceptual import load_lpips
from eddy_bench.scoring.scorer import read_features
from tests.conftest import Result
from tests.makers.networks import save_random_alexnet, save_random_inception, save_random_timm

Cli = Callable[..., Result]
METRICS = ("vendi", "pdist", "mss", "clip", "align", "attributes", "fd", "drift", "lpips")
EXTRACTORS = ("fmnist-clip", "efficientnet-lite0")


def scored(cli: Cli, undisturbed: Path, folder: Path, device: str) -> Path:
    """Return a copy of a run with every column scored on a device."""
    run, weights = folder / device, folder / "weights"
    shutil.copytree(undisturbed, run)
    shutil.rmtree(run / "features")
    weights.mkdir(exist_ok=True)
    save_random_alexnet(weights)
    asked = [*METRICS, *(f"vendi[{name}]" for name in EXTRACTORS)]
    flags = [part for name in asked for part in ("--metric", name)]
    done = cli("score", run, "--device", device, "--weights", weights, *flags)
    assert done.code == 0, done.err
    return run


@pytest.mark.gpu
def test_scores_on_a_device_are_those_of_the_cpu(
    cli: Cli, undisturbed: Path, tmp_path: Path
) -> None:
    if not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        pytest.skip("no CUDA or MPS device here")
    device = "cuda" if torch.cuda.is_available() else "mps"
    tables = [
        read_table(scored(cli, undisturbed, tmp_path, name) / "scores.csv")
        for name in ("cpu", device)
    ]
    keys = ["method", "prompt_id", "seed", "metric", "signature"]
    here, there = (table.set_index(keys)["value"].sort_index() for table in tables)
    assert here.index.equals(there.index)
    for metric in METRICS:
        names = here.index.get_level_values("metric").str.replace(r"\[.*", "", regex=True)
        chosen = names == metric
        assert chosen.any()
        assert np.allclose(here[chosen], there[chosen], rtol=1e-4, equal_nan=True), metric


META = torch.device("meta")  # refuses tensors of another device, as a GPU does


@pytest.mark.parametrize("name", ["fmnist-clip", "efficientnet-lite0", "timm", "inception"])
def test_extractors_are_on_their_device_as_a_whole(name: str, tmp_path: Path) -> None:
    if name == "timm":
        name = save_random_timm(tmp_path)
    if name == "inception":
        save_random_inception(tmp_path / INCEPTION)
    extractor = load_extractor(name, tmp_path, META)
    picture = extractor.prepare(Image.new("RGB", (40, 48)))
    pixels = torch.zeros((2, *picture.shape), dtype=torch.uint8, device=META)
    features = extractor.forward.network(pixels)
    assert (extractor.forward.device, features.device, len(features)) == (META, META, 2)
    if name == "fmnist-clip":
        with pytest.raises(NotImplementedError, match="meta"):  # only on the way back
            extractor.texts(["a dress"])


def test_the_judges_of_pairs_and_of_garments_are_on_their_device(tmp_path: Path) -> None:
    save_random_alexnet(tmp_path)
    judge = load_lpips(tmp_path, META).values
    pixels = torch.zeros((3, 32, 32, 3), dtype=torch.uint8, device=META)
    first, second = (torch.zeros(5, dtype=torch.int64, device=META) for _ in range(2))
    assert judge.network(pixels, first, second).shape == (5,)
    assert load_classifier(META).network(pixels).shape == (3, 3)


def test_every_metric_is_scored_on_the_device_that_was_asked_for(
    cli: Cli, undisturbed: Path, tmp_path: Path
) -> None:
    table = read_table(scored(cli, undisturbed, tmp_path, "cpu") / "scores.csv")
    assert set(METRICS) <= set(table["metric"].str.partition("[")[0])
    for file in tmp_path.glob("cpu/features/*/*.npz"):
        assert {array.dtype for array in read_features(file).values()} == {np.dtype(np.float32)}


def test_a_device_that_is_not_here_is_one_line(cli: Cli, undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    done = cli("score", run, "--device", "cuda:99")
    assert done.code == 2
    assert "Device 'cuda:99' cannot be used here" in done.err
    assert len(done.err.strip().splitlines()) <= 3
    assert (run / "scores.csv").read_bytes() == (undisturbed / "scores.csv").read_bytes()
