"""Metrics with weights of their own, end to end on random weights; formulas by hand."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from eddy_bench.errors import MetricError
from eddy_bench.models.devices import CPU
from eddy_bench.scoring import aesthetic, dreamsim, hps, perceptual, pickscore
from eddy_bench.scoring.clip_iqa import clip_iqa
from eddy_bench.scoring.diversity import unit, vendi
from eddy_bench.scoring.kernel_diversity import gaussian_vendi, log_determinant
from eddy_bench.scoring.metrics import METRICS
from eddy_bench.scoring.ms_ssim import ms_ssim_distance
from tests.conftest import Result
from tests.makers.open_clip_models import NAME, save_open_clip
from tests.makers.runs import SHORT

Cli = Callable[..., Result]
PROMPTS = ["a dark dress", "a sandal"]


def pictures(count: int = 3, side: int = 40) -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3)).astype(np.uint8)
    return [Image.fromarray(image) for image in pixels]


def features(count: int = 5, width: int = 4, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(count, width))


def save(network: torch.nn.Module, path: Path, safetensors: bool = False, **wrapped: Any) -> None:
    state = network.state_dict()
    if safetensors:
        save_file(state, path)
    else:
        torch.save({"state_dict": state} if wrapped else state, path)


# formulas


def test_ms_ssim_is_torchmetrics_own_number() -> None:
    from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure

    first, second = (torch.from_numpy(np.array(image))[None] for image in pictures(2, 192))
    near = (first.float() * 0.9 + second.float() * 0.1).byte()
    own = MultiScaleStructuralSimilarityIndexMeasure(data_range=1.0)
    sides = [image.permute(0, 3, 1, 2).float() / 255 for image in (first, near)]
    assert float(ms_ssim_distance(first, near)) == pytest.approx(1 - float(own(*sides)), abs=1e-6)
    assert float(ms_ssim_distance(first, first)) == pytest.approx(0, abs=1e-6)
    small = torch.from_numpy(np.array(pictures(1, 40)[0]))[None]
    assert 0 <= float(ms_ssim_distance(small, small.flip(1))) <= 2


def test_gaussian_vendi_has_its_limits() -> None:
    x = features()
    assert gaussian_vendi(x, h=1e-3) == pytest.approx(len(x))
    assert gaussian_vendi(x, h=1e3) == pytest.approx(1, abs=1e-4)
    assert gaussian_vendi(np.ones((4, 3))) == pytest.approx(1)
    z = unit(x)
    square = ((z[:, None] - z[None]) ** 2).sum(-1)
    values = np.linalg.eigvalsh(np.exp(-square / (2 * 0.6**2)) / len(x))
    assert gaussian_vendi(x) == pytest.approx(np.exp(-(values * np.log(values)).sum()))
    assert gaussian_vendi(x, q=2) == pytest.approx(1 / (values**2).sum())
    assert vendi(x) < gaussian_vendi(x, h=0.2)


def test_log_determinant_is_that_of_the_kernel() -> None:
    x = features()
    kernel = unit(x) @ unit(x).T
    assert log_determinant(x) == pytest.approx(math.log(np.linalg.det(np.eye(5) + kernel)))
    assert log_determinant(np.ones((4, 3))) == pytest.approx(math.log(5))
    assert log_determinant(np.eye(4)) == pytest.approx(4 * math.log(2))


def test_clip_iqa_is_a_softmax_of_two_cosines() -> None:
    images, words = features(), features(2, seed=1)
    logits = 100 * unit(images) @ unit(words).T
    expected = torch.softmax(torch.from_numpy(logits), -1)[:, 0].mean()
    assert clip_iqa(images, words) == pytest.approx(float(expected))


def test_values_that_prompts_list_are_counted(cli: Cli, tmp_path: Path) -> None:
    prompts = tmp_path / "open.yaml"
    listed = {"tone": ["dark", "light"], "shape": ["wide", "narrow"], "fixed": "dress"}
    prompts.write_text(yaml.safe_dump([{"prompt": "a dress", "attributes": listed}]))
    run = tmp_path / "run"
    call = (*SHORT[:-4], "--method", "iid", "--prompts", prompts, "--out", run)
    assert cli(*call, "--metric", "values-seen").code == 0
    value = pd.read_csv(run / "summary.csv")["values-seen[fmnist-clip]"][0]
    assert value in (1.0, 1.5, 2.0)
    prompts.write_text(yaml.safe_dump([{"prompt": "a coat", "attributes": listed}]))
    changed = cli("score", run, "--metric", "values-seen")
    assert (changed.code, "was changed since" in changed.err) == (2, True)
    plain = cli(*SHORT[:-4], "--method", "iid", "--out", tmp_path / "plain")
    assert plain.code == 0
    none = cli("score", tmp_path / "plain", "--metric", "values-seen")
    assert (none.code, "list none" in none.err) == (2, True)


@pytest.mark.parametrize("net", ["vgg", "squeeze"])
def test_other_backbones_of_lpips_are_torchmetrics_own_numbers(net: str, tmp_path: Path) -> None:
    import torchvision
    from torchmetrics.functional.image.lpips import _LPIPS

    torch.manual_seed(0)
    kind = {"vgg": "vgg16", "squeeze": "squeezenet1_1"}[net]
    backbone = getattr(torchvision.models, kind)(weights=None)
    state = {name: v for name, v in backbone.state_dict().items() if name.startswith("features.")}
    torch.save(state, tmp_path / perceptual.BACKBONES[net])
    judge = perceptual.lpips_judge(net, tmp_path)
    first, second = (np.array(image) for image in pictures(2, 64))
    (value,) = judge.values([(first, second)])
    own = _LPIPS(pretrained=True, net=net, pnet_rand=True).eval()
    _copy(own.net, backbone.features)
    sides = [torch.from_numpy(x).permute(2, 0, 1)[None] / 127.5 - 1 for x in (first, second)]
    with torch.inference_mode():
        expected = float(own(*sides))
    assert float(value) == pytest.approx(expected, rel=1e-4)


def _copy(net: torch.nn.Module, trained: torch.nn.Module) -> None:
    """Put a backbone's layers in, by the number that torchmetrics keeps as their name."""
    parts = (
        net.slices if hasattr(net, "slices") else [getattr(net, f"slice{k}") for k in range(1, 6)]
    )
    for part in parts:
        for number, layer in part.named_children():
            layer.load_state_dict(trained[int(number)].state_dict())  # type: ignore[index]


# weights


@pytest.fixture
def tower(tmp_path: Path) -> str:
    """A CLIP as wide as ViT-L/14's features, of next to no layers, beside the heads."""
    return save_open_clip(tmp_path, width=aesthetic.WIDTH)


@pytest.mark.parametrize("safetensors", [False, True])
@pytest.mark.parametrize("file", [aesthetic.LINEAR, aesthetic.MLP])
def test_aesthetic_is_a_head_on_unit_features(
    tmp_path: Path, tower: str, file: str, safetensors: bool
) -> None:
    torch.manual_seed(1)
    head = aesthetic.linear_head() if file == aesthetic.LINEAR else aesthetic.mlp_head()
    path = tmp_path / (f"{Path(file).stem}.safetensors" if safetensors else file)
    save(head, path, safetensors)
    judge = aesthetic.load_aesthetic(file, tmp_path, CPU, tower)
    ratings = judge.images(pictures())
    assert ratings.shape == (3, 1)
    model, _, transform = open_clip.create_model_and_transforms(
        NAME, pretrained=str(tmp_path / f"{NAME}-mine.safetensors")
    )
    with torch.inference_mode():
        plain = model.eval().encode_image(torch.stack([transform(image) for image in pictures()]))
        expected = head(plain / plain.norm(dim=-1, keepdim=True))
    assert np.allclose(ratings, expected.numpy(), atol=1e-4)
    assert aesthetic.mean_rating(ratings) == pytest.approx(float(ratings.mean()))


def test_the_mlp_has_the_published_shape() -> None:
    shapes = {name: tuple(v.shape) for name, v in aesthetic.mlp_head().state_dict().items()}
    assert [name for name in shapes if name.endswith("weight")] == [
        f"{k}.weight" for k in (0, 2, 4, 6, 7)
    ]
    assert shapes["0.weight"] == (1024, 768)
    assert shapes["7.weight"] == (1, 16)


@pytest.mark.parametrize("safetensors", [False, True])
def test_hps_is_the_cosine_of_both_towers(tmp_path: Path, safetensors: bool) -> None:
    save_open_clip(tmp_path)
    model, _, transform = open_clip.create_model_and_transforms(NAME)
    name = f"{Path(hps.FILE).stem}.safetensors" if safetensors else hps.FILE
    save(model, tmp_path / name, safetensors, wrapped=True)
    judge = hps.load_hps(tmp_path, CPU, NAME)
    assert judge.texts is not None
    images, text = judge.images(pictures()), judge.texts(PROMPTS)[0]
    with torch.inference_mode():
        tokens = open_clip.get_tokenizer(NAME)(PROMPTS[:1])
        batch = torch.stack([transform(image) for image in pictures()])
        seen, read, _ = model.eval()(batch, tokens)
    assert hps.mean_cosine(images, text) == pytest.approx(float((seen @ read.T).mean()), abs=1e-5)


def test_pickscore_is_transformers_own_logit(tmp_path: Path) -> None:
    processor, model = _save_pickscore(tmp_path / pickscore.FOLDER)
    judge = pickscore.load_pickscore(tmp_path, CPU)
    assert judge.texts is not None
    assert judge.truncated is not None
    images, texts = judge.images(pictures()), judge.texts(PROMPTS)
    inputs = processor(
        text=PROMPTS, images=pictures(), return_tensors="pt", padding="max_length", max_length=16
    )
    with torch.inference_mode():
        logits = model(**inputs).logits_per_image
    for number, text in enumerate(texts):
        expected = float(logits[:, number].mean())
        assert pickscore.pickscore(images, text) == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert judge.truncated(" ".join(["dress"] * 30))
    assert not judge.truncated("dress")


def _save_pickscore(folder: Path) -> tuple[Any, Any]:
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        CLIPTokenizerFast,
    )

    from eddy_bench.scoring.extractors import ASSETS

    tokenizer = CLIPTokenizerFast.from_pretrained(ASSETS / "fmnist-clip")
    tokenizer.model_max_length = 16
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    text = {
        **small,
        "num_attention_heads": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 16,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {**small, "num_attention_heads": 2, "image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor = CLIPProcessor(CLIPImageProcessor(**sizes), tokenizer)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return processor, model


class StandIn(torch.nn.Module):
    """What the package dreamsim gives: embeddings of images in [0, 1], 224 pixels a side."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 5)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[1:] == (3, 224, 224)
        assert 0 <= float(images.min()) <= float(images.max()) <= 1
        return self.layer(images.mean((2, 3))).squeeze()


def test_dreamsim_is_one_minus_the_cosine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MetricError, match="pip install dreamsim"):
        dreamsim.load_dreamsim(tmp_path, CPU)
    torch.manual_seed(0)
    package = SimpleNamespace(dreamsim=lambda pretrained, device, cache_dir: (StandIn(), None))
    monkeypatch.setitem(sys.modules, "dreamsim", package)
    with pytest.raises(MetricError, match="needs a folder dreamsim"):
        dreamsim.load_dreamsim(tmp_path, CPU)
    (tmp_path / dreamsim.FOLDER).mkdir()
    judge = dreamsim.load_dreamsim(tmp_path, CPU)
    assert judge.images(pictures(1)).shape == (1, 5)
    z = unit(judge.images(pictures()))
    expected = np.mean([1 - z[i] @ z[j] for i, j in ((0, 1), (0, 2), (1, 2))])
    assert dreamsim.dreamsim(z) == pytest.approx(expected)


def test_they_are_columns_of_a_run(
    cli: Cli, tmp_path: Path, tower: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(aesthetic.linear_head(), tmp_path / aesthetic.LINEAR)
    _save_pickscore(tmp_path / pickscore.FOLDER)
    small = partial(aesthetic.load_aesthetic, aesthetic.LINEAR, tower=tower)
    metric = METRICS["aesthetic"]
    monkeypatch.setitem(METRICS, "aesthetic", replace(metric, sees=small))
    run = tmp_path / "run"
    asked = [word for name in ("aesthetic", "pickscore") for word in ("--metric", name)]
    done = cli(*SHORT[:-4], "--method", "iid", *asked, "--weights", tmp_path, "--out", run)
    assert done.code == 0, done.err
    summary = pd.read_csv(run / "summary.csv").iloc[0]
    assert math.isfinite(summary["aesthetic[laion-linear]"])
    assert math.isfinite(summary["pickscore[pickscore-v1]"])
    table = pd.read_csv(run / "scores.csv", keep_default_na=False)
    own = table[table["metric"] == "aesthetic"]["signature"]
    assert own.str.contains("features=laion-linear@").all()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("aesthetic", aesthetic.LINEAR),
        ("aesthetic-mlp", aesthetic.MLP),
        ("hps", hps.FILE),
        ("pickscore", pickscore.FOLDER),
        ("lpips-vgg", perceptual.BACKBONES["vgg"]),
    ],
)
def test_weights_that_are_missing_are_named_in_one_line(
    cli: Cli, tmp_path: Path, name: str, file: str
) -> None:
    assert cli(*SHORT, "--out", tmp_path / "run").code == 0
    done = cli("score", tmp_path / "run", "--metric", name, "--weights", tmp_path)
    assert (done.code, done.err.count("Error:")) == (2, 1), done.err
    assert file in done.err
    assert "--weights" in done.err


@pytest.mark.parametrize("content", [b"no weights", b""])
def test_files_that_are_no_weights_are_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / aesthetic.LINEAR).write_bytes(content)
    with pytest.raises(MetricError, match="cannot be read as weights"):
        aesthetic.load_aesthetic(aesthetic.LINEAR, tmp_path, CPU)


def test_weights_of_another_shape_are_told(tmp_path: Path) -> None:
    save(torch.nn.Linear(3, 1), tmp_path / aesthetic.LINEAR)
    with pytest.raises(MetricError, match="are of another network"):
        aesthetic.load_aesthetic(aesthetic.LINEAR, tmp_path, CPU)


def test_every_metric_says_what_its_weights_are() -> None:
    for name, metric in METRICS.items():
        if metric.sees is not None or name.startswith("lpips"):
            assert metric.licence, name
            assert metric.download, name
        assert metric.range[0] < metric.range[1]


def test_every_metric_stands_in_the_docs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    assert [name for name in METRICS if f"`{name}`" not in text] == []
