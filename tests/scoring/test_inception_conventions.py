"""Inception under each convention of resizing: what its own library computes, and how they differ.

On random weights in the true shape.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from eddy_bench.scoring.extractors import INCEPTION, NAMES, load_extractor
from eddy_bench.scoring.inception import (
    CONVENTIONS,
    SIDE,
    antialiased_bilinear,
    clean_bicubic,
    pooled,
    tensorflow_bilinear,
)
from tests.conftest import Result
from tests.makers.networks import save_random_inception
from tests.makers.score_files import of

FIDS = ("fid", "fid-clean", "fid-torch-fidelity")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    save_random_inception(folder / INCEPTION)
    return folder


def pixels(side: int = 512, count: int = 2) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (count, side, side, 3), dtype=np.uint8)


def features(name: str, weights: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return load_extractor(name, weights).images([Image.fromarray(image) for image in images])


def network(weights: Path) -> torch.nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    loaded: torch.nn.Module = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], weights / INCEPTION
    )
    return loaded.eval()  # since 0.4 it is


def channels(images: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize("side", [32, 512])
def test_torch_fidelity_gives_the_same_to_the_last_digit(weights: Path, side: int) -> None:
    images = pixels(side)
    with torch.inference_mode():
        theirs = network(weights)(channels(images))[0].numpy()
    assert np.array_equal(features("inception-torch-fidelity", weights, images), theirs)


@pytest.mark.parametrize("side", [32, 512])
def test_torchmetrics_gives_the_same_to_the_last_digit(weights: Path, side: int) -> None:
    from torchmetrics.image.fid import NoTrainInceptionV3

    images = pixels(side)
    theirs = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(weights / INCEPTION))
    antialiased = getattr(theirs, "use_antialias", False)  # since torchmetrics 1.8
    name = "inception" if antialiased else "inception-torch-fidelity"
    with torch.inference_mode():
        expected = theirs(channels(images)).numpy()
    assert np.array_equal(features(name, weights, images), expected)


def resized_by_clean_fid(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Written out after `make_resizer("PIL", False, "bicubic", (299, 299))` of clean-fid."""

    def single_channel(values: NDArray[np.uint8]) -> NDArray[np.float32]:
        channel = Image.fromarray(values.astype(np.float32), mode="F")
        channel = channel.resize((299, 299), resample=Image.BICUBIC)  # type: ignore[attr-defined]
        return np.asarray(channel).clip(0, 255).reshape(299, 299, 1)

    parts = [single_channel(image[:, :, band]) for band in range(3)]
    return np.concatenate(parts, axis=2).astype(np.float32)


@pytest.mark.parametrize("side", [32, 512])
@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_clean_resizing_is_clean_fids(weights: Path, side: int) -> None:
    images = pixels(side)
    theirs = np.stack([resized_by_clean_fid(image) for image in images])
    ours = [clean_bicubic(Image.fromarray(image)) for image in images]
    assert np.array_equal(np.stack(ours), theirs)
    with torch.inference_mode():
        expected = pooled(network(weights), torch.from_numpy(theirs).permute(0, 3, 1, 2))
    own = features("inception-clean", weights, images)
    assert np.allclose(own, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_images_of_299_pixels_are_the_same_under_all_conventions(weights: Path) -> None:
    images = pixels(SIDE)
    first, *others = (features(name, weights, images) for name in CONVENTIONS)
    for other in others:
        assert np.allclose(first, other, rtol=1e-4, atol=1e-5)


def test_only_torch_fidelitys_keeps_the_noise_of_large_images() -> None:
    """Averaging pixels takes noise away: what is not antialiased keeps it, and aliases."""
    images = pixels(4 * SIDE, 1)
    plain = tensorflow_bilinear(channels(images).float()).std()
    smooth = antialiased_bilinear(channels(images).float()).std()
    clean = clean_bicubic(Image.fromarray(images[0])).std()
    raw = images.std()
    assert plain == pytest.approx(raw, rel=0.05), "every fourth pixel, as it is"
    assert smooth < 0.35 * raw
    assert smooth < clean < 0.5 * raw, "bicubic is sharper"


def test_the_names_of_all_conventions_are_listed() -> None:
    assert set(CONVENTIONS) <= set(NAMES)


def test_the_three_distances_of_the_same_images_differ(
    cli: Callable[..., Result], undisturbed: Path, weights: Path, tmp_path: Path
) -> None:
    run, real = Path(shutil.copytree(undisturbed, tmp_path / "run")), tmp_path / "real"
    real.mkdir()
    for k, image in enumerate(pixels(400, 4)):
        Image.fromarray(image).save(real / f"{k}.png")
    asked = [part for name in FIDS for part in ("--metric", name)]
    done = cli("score", run, *asked, "--weights", weights, "--reference", real)
    assert done.code == 0, done.err
    rows = pd.read_csv(run / "scores.csv", keep_default_na=False)
    names = rows["metric"].str.partition("[")[0]
    rows = rows.assign(name=names)[names.isin(FIDS) & (rows["method"] == "iid")].set_index("name")
    values = rows["value"].astype(float)
    assert values.nunique() == 3
    for name in FIDS:
        assert f"features={name.replace('fid', 'inception', 1)}@" in rows.loc[name, "signature"]
    assert {f"{name}[{name.replace('fid', 'inception', 1)}]" for name in FIDS} <= set(
        pd.read_csv(run / "summary.csv").columns
    )
    stats = tmp_path / "stats.npz"
    saved = cli(
        *("reference", real, "--extractor", "inception-clean"),
        *("--weights", weights, "--out", stats),
    )
    assert saved.code == 0, saved.err
    assert "--metric fid-clean" in saved.err
    again = cli(
        *("score", run, "--metric", "fid-clean", "--weights", weights, "--reference", stats)
    )
    assert again.code == 0, again.err
    rows = pd.read_csv(run / "scores.csv", keep_default_na=False)
    rows = rows[(of(rows, "fid-clean")) & (rows["method"] == "iid")]
    assert float(rows["value"].iloc[0]) == pytest.approx(values["fid-clean"], rel=1e-4)
    wrong = cli("score", run, "--metric", "fid", "--weights", weights, "--reference", stats)
    assert wrong.code == 2
    assert "inception-clean@" in wrong.err
