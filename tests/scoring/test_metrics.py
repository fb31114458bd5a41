"""Metrics against reference libraries and cases computed by hand."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchmetrics.image.fid import FrechetInceptionDistance

from eddy_bench.errors import MetricError, ParameterError, UnknownName
from eddy_bench.models.attributes import Attributes
from eddy_bench.models.images import signed
from eddy_bench.scoring import fidelity
from eddy_bench.scoring.diversity import (
    distinct_attributes,
    mean_similarity,
    pairwise_distance,
    unit,
    vendi,
)
from eddy_bench.scoring.extractors import INCEPTION, load_extractor
from eddy_bench.scoring.fidelity import (
    Given,
    align,
    clip_score,
    frechet_distance,
    kernel_distance,
    precision_recall,
)
from eddy_bench.scoring.metrics import METRICS, MetricSpec
from eddy_bench.scoring.perceptual import ALEXNET, load_lpips


def features(count: int = 6, width: int = 5, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(count, width)) + 0.5


def test_vendi_agrees_with_the_reference_package() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from vendi_score import vendi as reference

        x = features()
        kernel = unit(x) @ unit(x).T
        expected = {q: reference.score_K(kernel, q=q) for q in (1, 2, 0.5)}
    for q, value in expected.items():
        assert vendi(x, q) == pytest.approx(value, rel=1e-6)


def test_vendi_counts_different_images() -> None:
    assert vendi(np.ones((4, 3))) == pytest.approx(1)
    assert vendi(np.eye(5)) == pytest.approx(5)
    half = np.repeat(np.eye(2), 2, axis=0)  # two pairs of equal images
    assert vendi(half) == pytest.approx(2)
    assert vendi(half, q=2) == pytest.approx(2)
    skewed = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    assert vendi(skewed) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))
    assert vendi(skewed, q=2) == pytest.approx(1 / (0.75**2 + 0.25**2))
    assert 1 <= vendi(features(1)) <= 1 + 1e-9


def test_pairwise_means_are_those_by_hand() -> None:
    x = np.array([[2.0, 0], [0, 3.0], [-1.0, 0]])
    assert mean_similarity(x) == pytest.approx((0 - 1 + 0) / 3)
    assert pairwise_distance(x) == pytest.approx((math.sqrt(2) * 2 + 2) / 3)
    assert math.isnan(pairwise_distance(x[:1]))
    assert math.isnan(mean_similarity(x[:1]))


def test_clip_score_has_no_clamp() -> None:
    assert clip_score(np.array([[1.0, 0], [0, 2.0]]), np.array([1.0, 0])) == pytest.approx(50)
    assert clip_score(np.array([[-1.0, 0]]), np.array([1.0, 0])) == pytest.approx(-100)


def test_frechet_distance_of_known_gaussians() -> None:
    """Between N(0, I) and N(mu, s^2 I): |mu|^2 + d (1 - s)^2, here with samples whose moments are
    made exact.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3))
    x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T)).T)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x + 2, x) == pytest.approx(12, rel=1e-5)
    assert frechet_distance(x * 3, x) == pytest.approx(12, rel=1e-5)
    assert math.isnan(frechet_distance(x[:1], x))


@pytest.mark.parametrize(("count", "others"), [(8, 5), (30, 40), (60, 70), (300, 20)])
def test_frechet_distance_is_torchmetrics_own(count: int, others: int) -> None:
    """Above and below as many samples as features."""
    ours, theirs = features(count, 48, 0), 0.3 + 1.5 * features(others, 48, 1)
    metric = FrechetInceptionDistance(feature=Given(48)).set_dtype(torch.float64)
    metric.update(torch.from_numpy(theirs.astype(np.float64)), real=True)
    metric.update(torch.from_numpy(ours.astype(np.float64)), real=False)
    # its rounded zeros, up to 48 of about 1e-8 each, count there
    assert frechet_distance(ours, theirs) == pytest.approx(float(metric.compute()), rel=1e-6)


def test_kernel_distance_sees_a_shift_and_repeats_itself() -> None:
    x, y = features(200, 4, 0), features(200, 4, 1)
    assert abs(kernel_distance(x, y)) < 0.3
    assert kernel_distance(x + 1, y) > 1
    assert kernel_distance(x, y) == kernel_distance(x, y)


@pytest.mark.parametrize(("count", "others"), [(7, 7), (5, 40), (60, 3), (1, 9)])
def test_kernel_distance_is_the_unbiased_estimate_of_all_pairs(
    count: int, others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pair by pair, for sets of any two sizes, in blocks of any size."""
    x, y = features(count, 4, 0), 1.2 * features(others, 4, 1)

    def mean(one: NDArray[np.float64], other: NDArray[np.float64], same: bool) -> float:
        values = [
            (float(a @ b) / 4 + 1) ** 3
            for i, a in enumerate(one)
            for j, b in enumerate(other)
            if not (same and i == j)
        ]
        return float(np.mean(values))

    if count == 1:
        assert math.isnan(kernel_distance(x, y))
        return
    expected = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(fidelity, "BLOCK", 10)
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_precision_sees_images_outside_and_recall_those_left_out() -> None:
    real = features(300, 2, 0)
    near = real + 1e-6
    assert precision_recall(near, real) == (1.0, 1.0)
    assert precision_recall(real + 100, real) == (0.0, 0.0)
    narrow = real[np.abs(real - real.mean(0)).max(1) < 0.5]
    precision, recall = precision_recall(narrow + 1e-9, real)
    assert precision == 1.0
    assert recall < 0.6
    assert math.isnan(precision_recall(real[:3], real)[0])


def test_attributes_fixed_by_the_prompt_do_not_count_as_diversity() -> None:
    predicted = np.array([[3, 0, 1], [3, 2, 1], [3, 2, 1], [4, 2, 1]])
    assert align(predicted, Attributes(3)) == 0.75
    assert align(predicted, Attributes(3, 2)) == 0.5
    assert math.isnan(align(predicted, Attributes()))
    assert distinct_attributes(predicted, Attributes()) == 3
    assert distinct_attributes(predicted, Attributes(garment=3)) == 2
    assert math.isnan(distinct_attributes(predicted, Attributes(3, 2, 1)))


def test_a_metric_is_parsed_from_its_text_and_bad_texts_are_refused() -> None:
    request = MetricSpec.parse("vendi[fmnist-clip]:q=2")
    assert (request.name, request.extractor, request.values) == (
        "vendi",
        "fmnist-clip",
        {"q": 2.0},
    )
    assert str(request.id) == "vendi[fmnist-clip]:q=2"
    for text, error in [
        ("vendo", UnknownName),
        ("nfe", UnknownName),
        ("vendi:q=0", ParameterError),
        ("fid[x]", MetricError),
        ("mss:q=2", ParameterError),
    ]:
        with pytest.raises(error):
            MetricSpec.parse(text)
    for metric in METRICS.values():
        assert metric.summary


def pictures(count: int = 3) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (32, 32), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize(
    ("name", "width"),
    [("fmnist-clip", 128), ("efficientnet-lite0", 1280), ("efficientnet-lite2", 1280)],
)
def test_extractors_give_each_image_its_own_features(name: str, width: int) -> None:
    extractor = load_extractor(name)
    together = extractor.images(pictures())
    assert together.shape == (3, width)
    assert np.allclose(together[1:2], extractor.images(pictures()[1:2]), rtol=1e-3, atol=1e-3)
    if extractor.texts is not None:
        assert extractor.texts(["a dark dress", "x" * 500]).shape == (2, width)


def test_clip_tells_garments_apart() -> None:
    extractor = load_extractor("fmnist-clip")
    assert extractor.texts is not None
    from eddy_bench.models.attributes import CLASSES
    from eddy_bench.models.defaults import scoring_defaults
    from eddy_bench.scoring.reference import held_out

    reference = held_out(scoring_defaults("fashion"))
    assert reference is not None
    images = reference.images[:200]
    from eddy_bench.scoring.extractors import ASSETS

    with np.load(ASSETS / "reference" / "test.npz") as data:
        labels = data["attributes"][:200, 0]
    guess = (
        unit(extractor.images(images)) @ unit(extractor.texts([names[0] for names in CLASSES])).T
    ).argmax(1)
    assert (guess == labels).mean() > 0.8


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    for name, call in [
        (ALEXNET, lambda: load_lpips(tmp_path)),
        (INCEPTION, lambda: load_extractor("inception", tmp_path)),
    ]:
        with pytest.raises(MetricError, match=name.replace(".", r"\.")):
            call()
    (tmp_path / ALEXNET).write_bytes(b"not weights")
    with pytest.raises(MetricError, match="cannot be read"):
        load_lpips(tmp_path)
    for junk in (b"", b"not weights"):
        (tmp_path / INCEPTION).write_bytes(junk)
        with pytest.raises(MetricError, match="cannot be read"):
            load_extractor("inception", tmp_path)
    with pytest.raises(MetricError, match="RN50-quickgelu"):
        load_extractor("open_clip:RN50/openai")
    with pytest.raises(MetricError, match="quickgelu"):
        load_extractor("open_clip:ViT-B-32/openai")
    with pytest.raises(UnknownName, match="ViT-B-32"):
        load_extractor("open_clip:ViT-B-33/openai")


def test_lpips_is_torchmetrics_own_number(tmp_path: Path) -> None:
    """The backbone from a file gives what torchmetrics gives with the same backbone."""
    from torchmetrics.functional.image.lpips import _LPIPS
    from torchvision.models import alexnet

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backbone = alexnet(weights=None)
        torch.save(backbone.state_dict(), tmp_path / ALEXNET)
        reference = _LPIPS(pretrained=True, net="alex", pnet_rand=True).eval()
    judge = load_lpips(tmp_path)
    assert len(judge.digest) == 10
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 72, 3), dtype=np.uint8)
    pairs = [(pixels[i], pixels[j]) for i, j in ((0, 1), (0, 2), (1, 2), (2, 2))]
    x, y = (signed(torch.from_numpy(np.stack(side))) for side in zip(*pairs, strict=True))
    for name, value in reference.net.named_parameters():
        value.data.copy_(backbone.state_dict()[f"features.{name.split('.', 1)[1]}"])
    expected = reference(x, y).detach().flatten().numpy()
    assert np.allclose(list(judge.values(pairs)), expected, rtol=1e-5, atol=1e-7)
    assert expected[3] == pytest.approx(0, abs=1e-6)


def test_texts_that_are_too_long_are_seen() -> None:
    truncated = load_extractor("fmnist-clip").truncated
    assert truncated is not None
    assert not truncated("a photo of a dark wide t-shirt")
    assert not truncated(" ".join(["dark"] * 14))
    assert truncated(" ".join(["dark"] * 15))
