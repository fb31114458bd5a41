"""Metrics with weights of their own, end to end on random weights; formulas by hand."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from eddy_bench.errors import MetricError
from eddy_bench.models.devices import CPU
from eddy_bench.models.images import enlarged
from eddy_bench.scoring import dreamsim, metrics, perceptual, preference
from eddy_bench.scoring.cost import cost_of_metric, metric_costs
from eddy_bench.scoring.diversity import gaussian_vendi, log_determinant, unit, vendi
from eddy_bench.scoring.extractors import NAMES
from eddy_bench.scoring.metrics import METRICS
from eddy_bench.scoring.perceptual import SMALLEST_SIDE, ms_ssim_distance
from eddy_bench.scoring.preference import LINEAR, clip_iqa
from tests.conftest import Result
from tests.makers.open_clip_models import NAME, save_open_clip
from tests.makers.runs import SHORT
from tests.makers.score_files import of

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


def by_definition(first: Any, second: Any) -> float:
    """MS-SSIM of two grey images, 0 to 255, from its formulas (Wang, Simoncelli & Bovik 2003).

    A Gaussian window of 11 pixels and deviation 1.5, where it fits whole; K1 = 0.01, K2 = 0.03.
    """
    from scipy.signal import convolve2d

    axis = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(axis, axis) / axis.sum() ** 2

    def blurred(image: Any) -> Any:
        return convolve2d(image, window, mode="valid")

    x, y, product = first.astype(float), second.astype(float), 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        mean, other = blurred(x), blurred(y)
        variances = blurred(x * x) - mean**2 + blurred(y * y) - other**2
        structure = (2 * (blurred(x * y) - mean * other) + 58.5225) / (variances + 58.5225)
        luminance = (2 * mean * other + 6.5025) / (mean**2 + other**2 + 6.5025)
        factor = (luminance * structure if scale == 4 else structure).mean()
        product *= max(factor, 0.0) ** weight
        x, y = (z[: len(z) // 2 * 2, : z.shape[1] // 2 * 2] for z in (x, y))
        x, y = (z.reshape(len(z) // 2, 2, -1, 2).mean((1, 3)) for z in (x, y))
    return float(product)


@pytest.mark.parametrize("size", [(192, 192), (181, 230)])
def test_ms_ssim_is_its_definition_in_each_channel(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    first = (rng.random((*size, 3)) * [255, 120, 40]).astype(np.uint8)
    noise = rng.random((*size, 3)) * [20, 120, 255]
    second = np.clip(0.7 * first + 0.3 * noise, 0, 255).astype(np.uint8)
    expected = np.mean([by_definition(first[..., c], second[..., c]) for c in range(3)])
    sides = [torch.from_numpy(side)[None] for side in (first, second)]
    assert float(ms_ssim_distance(*sides)) == pytest.approx(1 - float(expected), abs=2e-5)
    grey = [side[..., 0] for side in sides]
    assert float(ms_ssim_distance(*grey)) == pytest.approx(
        1 - by_definition(first[..., 0], second[..., 0]), abs=2e-5
    )


@pytest.mark.parametrize("judged", ["ms-ssim", "lpips"])
def test_images_of_any_size_are_judged(judged: str) -> None:
    """None is enlarged to a pixel less than is needed: 69, 138 and 49 were."""
    least = {"ms-ssim": SMALLEST_SIDE, "lpips": perceptual.SMALLEST_SIDE}[judged]
    for side in range(1, least + 20):
        for size in ((side, side), (side, 3 * side)):
            seen = enlarged(torch.zeros(1, 1, *size), least).shape[-2:]
            assert min(seen) == max(least, side)
    for side in (1, 69, 138, 175, 176):
        pixels = torch.randint(0, 256, (2, side, side + 3, 3), dtype=torch.uint8)
        distances = ms_ssim_distance(pixels, pixels.flip(0))
        assert ((distances >= 0) & (distances <= 1)).all()


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
    assert clip_iqa(images, words).mean() == pytest.approx(float(expected))


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
    judge = perceptual.load_lpips(tmp_path, net=net)
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
    return save_open_clip(tmp_path, width=preference.WIDTH)


@pytest.mark.parametrize("safetensors", [False, True])
@pytest.mark.parametrize("file", [preference.LINEAR, preference.MLP])
def test_aesthetic_is_a_head_on_unit_features(
    tmp_path: Path, tower: str, file: str, safetensors: bool
) -> None:
    torch.manual_seed(1)
    head = preference.aesthetic_head(file)
    path = tmp_path / (f"{Path(file).stem}.safetensors" if safetensors else file)
    save(head, path, safetensors)
    judge = preference.load_aesthetic(file, tmp_path, CPU, tower)
    ratings = judge.images(pictures())
    assert ratings.shape == (3, 1)
    model, _, transform = open_clip.create_model_and_transforms(
        NAME, pretrained=str(tmp_path / f"{NAME}-mine.safetensors")
    )
    with torch.inference_mode():
        plain = model.eval().encode_image(torch.stack([transform(image) for image in pictures()]))
        expected = head(plain / plain.norm(dim=-1, keepdim=True))
    assert np.allclose(ratings, expected.numpy(), atol=1e-4)
    assert METRICS["aesthetic"](ratings) == pytest.approx(float(ratings.mean()))


def test_the_mlp_has_the_published_shape() -> None:
    shapes = {
        name: tuple(v.shape)
        for name, v in preference.aesthetic_head(preference.MLP).state_dict().items()
    }
    assert [name for name in shapes if name.endswith("weight")] == [
        f"{k}.weight" for k in (0, 2, 4, 6, 7)
    ]
    assert shapes["0.weight"] == (1024, 768)
    assert shapes["7.weight"] == (1, 16)


@pytest.mark.parametrize("safetensors", [False, True])
def test_hps_is_the_cosine_of_both_towers(tmp_path: Path, safetensors: bool) -> None:
    save_open_clip(tmp_path)
    model, _, transform = open_clip.create_model_and_transforms(NAME)
    name = f"{Path(preference.HPS_FILE).stem}.safetensors" if safetensors else preference.HPS_FILE
    save(model, tmp_path / name, safetensors, wrapped=True)
    judge = preference.load_hps(tmp_path, CPU, NAME)
    assert judge.texts is not None
    images, text = judge.images(pictures()), judge.texts(PROMPTS)[0]
    with torch.inference_mode():
        tokens = open_clip.get_tokenizer(NAME)(PROMPTS[:1])
        batch = torch.stack([transform(image) for image in pictures()])
        seen, read, _ = model.eval()(batch, tokens)
    assert METRICS["hps"](images, text) == pytest.approx(float((seen @ read.T).mean()), abs=1e-5)


def test_pickscore_is_transformers_own_logit(tmp_path: Path) -> None:
    processor, model = _save_pickscore(tmp_path / preference.PICKSCORE_FOLDER)
    judge = preference.load_pickscore(tmp_path, CPU)
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
        assert METRICS["pickscore"](images, text) == pytest.approx(expected, rel=1e-3, abs=1e-3)
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


SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 8}
RANK, ALPHA = 4, 0.5


def _published_clip(visual: Any) -> dict[str, torch.Tensor]:
    """An image tower of open_clip under the names of DreamSim's files, a bias at the patches."""
    width = visual.conv1.weight.shape[0]
    renamed = {
        "cls_token": visual.class_embedding[None, None],
        "pos_embed": visual.positional_embedding[None],
        "patch_embed.proj.weight": visual.conv1.weight,
        "patch_embed.proj.bias": torch.zeros(width),
        "proj": visual.proj,
    }
    for ours, theirs in (("pos_drop", visual.ln_pre), ("norm", visual.ln_post)):
        renamed |= {f"{ours}.{key}": value for key, value in theirs.state_dict().items()}
    for k, block in enumerate(visual.transformer.resblocks):
        parts = {
            "norm1": block.ln_1,
            "norm2": block.ln_2,
            "attn.proj": block.attn.out_proj,
            "mlp.fc1": block.mlp.c_fc,
            "mlp.fc2": block.mlp.c_proj,
        }
        for name, part in parts.items():
            renamed |= {f"blocks.{k}.{name}.{key}": v for key, v in part.state_dict().items()}
        renamed[f"blocks.{k}.attn.qkv.weight"] = block.attn.in_proj_weight
        renamed[f"blocks.{k}.attn.qkv.bias"] = block.attn.in_proj_bias
    return {name: value.detach().clone() for name, value in renamed.items()}


def _save_dreamsim(folder: Path) -> list[torch.nn.Module]:
    """Write small random networks as published; returns them, the updates added in open_clip's."""
    from open_clip.transformer import VisionTransformer

    torch.manual_seed(0)
    width, depth, heads = SMALL["embed_dim"], SMALL["depth"], SMALL["num_heads"]
    (folder / dreamsim.LORA).mkdir(parents=True)
    dino = dreamsim.Ensemble(**SMALL).towers[0]
    dino.head = torch.nn.Identity()
    state = {**dino.state_dict(), "norm.weight": torch.ones(width), "norm.bias": torch.ones(width)}
    torch.save(state, folder / dreamsim.DINO_FILE)
    clips = []
    for name, act in zip(
        dreamsim.CLIP_FILES, (open_clip.model.QuickGELU, torch.nn.GELU), strict=True
    ):
        clip = VisionTransformer(224, 16, width, depth, heads, 4.0, output_dim=8, act_layer=act)
        torch.save({"state_dict": _published_clip(clip)}, folder / name)
        clips.append(clip.eval())
    adapter = {}
    for tower in range(3):
        for k in range(depth):
            down, up = torch.randn(RANK, width), torch.randn(3 * width, RANK)
            path = f"base_model.model.extractor_list.{tower}.model.blocks.{k}.attn.qkv"
            adapter |= {f"{path}.lora_A.weight": down, f"{path}.lora_B.weight": up}
            update = ALPHA / RANK * up @ down
            layer = (
                dino.blocks[k].attn.qkv.weight
                if tower == 0
                else clips[tower - 1].transformer.resblocks[k].attn.in_proj_weight
            )
            layer.data += update
    save_file(adapter, folder / dreamsim.LORA / dreamsim.ADAPTERS[0])
    config = {"r": RANK, "lora_alpha": ALPHA, "target_modules": ["qkv"]}
    (folder / dreamsim.LORA / dreamsim.CONFIG).write_text(json.dumps(config))
    return [dino.eval(), *clips]


def test_dreamsim_is_its_three_networks_with_their_updates(tmp_path: Path) -> None:
    networks = _save_dreamsim(tmp_path / dreamsim.NAME)
    judge = dreamsim.load_dreamsim(tmp_path, CPU, **SMALL)
    z = judge.images(pictures())
    resized = [
        np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC)) for image in pictures()
    ]
    images = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2) / 255
    parts = []
    for network, (mean, std) in zip(
        networks, (dreamsim.IMAGENET, dreamsim.CLIP, dreamsim.CLIP), strict=True
    ):
        normalised = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        with torch.inference_mode():
            parts.append(network(normalised))
    embedded = torch.cat(parts, 1)
    centred = embedded - embedded.mean(1, keepdim=True)
    expected = (centred / centred.norm(dim=1, keepdim=True)).numpy()
    assert np.abs(z - expected).max() < 1e-5
    distance = np.mean([1 - expected[i] @ expected[j] for i, j in ((0, 1), (0, 2), (1, 2))])
    assert dreamsim.dreamsim(z) == pytest.approx(distance, abs=1e-5)


def test_dreamsim_takes_the_published_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "none"))
    monkeypatch.setattr(torch.hub, "load", None)  # nothing is fetched
    with pytest.raises(MetricError, match=r"needs a folder dreamsim .*--weights DIR"):
        dreamsim.load_dreamsim(None, CPU)
    folder = tmp_path / dreamsim.NAME
    _save_dreamsim(folder)
    digest = dreamsim.load_dreamsim(tmp_path, CPU, **SMALL).digest
    with pytest.raises(MetricError, match="cannot be read as weights of DreamSim"):
        dreamsim.load_dreamsim(tmp_path, CPU)  # of another size
    adapter = folder / dreamsim.LORA / dreamsim.ADAPTERS[0]
    whole = load_file(adapter)
    torch.save(whole, adapter.with_name(dreamsim.ADAPTERS[1]))
    adapter.unlink()
    assert dreamsim.load_dreamsim(tmp_path, CPU, **SMALL).digest == digest
    torch.save(
        {name: value for name, value in list(whole.items())[2:]},
        adapter.with_name(dreamsim.ADAPTERS[1]),
    )
    with pytest.raises(MetricError, match="an update of each of 6"):
        dreamsim.load_dreamsim(tmp_path, CPU, **SMALL)
    torch.save(whole, adapter.with_name(dreamsim.ADAPTERS[1]))
    for name in (
        dreamsim.DINO_FILE,
        *dreamsim.CLIP_FILES,
        f"{dreamsim.LORA}/{dreamsim.ADAPTERS[1]}",
    ):
        aside = (folder / name).rename(folder / "aside")
        with pytest.raises(MetricError, match=re.escape(name.split(".")[0])):
            dreamsim.load_dreamsim(tmp_path, CPU, **SMALL)
        aside.rename(folder / name)


def test_dreamsim_has_the_published_shape() -> None:
    """Three ViT-B/16: 768 of DINO's last block, 512 of each CLIP."""
    with torch.device("meta"):
        towers = dreamsim.Ensemble().towers
    shapes = [
        {name: tuple(value.shape) for name, value in tower.state_dict().items()} for tower in towers
    ]
    assert all(own["blocks.11.attn.qkv.weight"] == (2304, 768) for own in shapes)
    assert "head.weight" not in shapes[0]
    assert shapes[1]["head.weight"] == (512, 768)


def test_they_are_columns_of_a_run(
    cli: Cli, tmp_path: Path, tower: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(preference.aesthetic_head(LINEAR), tmp_path / preference.LINEAR)
    _save_pickscore(tmp_path / preference.PICKSCORE_FOLDER)
    small = partial(preference.load_aesthetic, preference.LINEAR, tower=tower)
    metric = replace(METRICS["aesthetic"], sees=small)
    monkeypatch.setattr(metrics, "METRICS", {**METRICS, "aesthetic": metric})
    run = tmp_path / "run"
    asked = [word for name in ("aesthetic", "pickscore") for word in ("--metric", name)]
    done = cli(*SHORT[:-4], "--method", "iid", *asked, "--weights", tmp_path, "--out", run)
    assert done.code == 0, done.err
    summary = pd.read_csv(run / "summary.csv").iloc[0]
    assert math.isfinite(summary["aesthetic[laion-linear]"])
    assert math.isfinite(summary["pickscore[pickscore-v1]"])
    table = pd.read_csv(run / "scores.csv", keep_default_na=False)
    own = table[of(table, "aesthetic")]["signature"]
    assert own.str.contains("features=laion-linear@").all()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("aesthetic", preference.LINEAR),
        ("aesthetic-mlp", preference.MLP),
        ("hps", preference.HPS_FILE),
        ("pickscore", preference.PICKSCORE_FOLDER),
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
    (tmp_path / preference.LINEAR).write_bytes(content)
    with pytest.raises(MetricError, match="cannot be read as weights"):
        preference.load_aesthetic(preference.LINEAR, tmp_path, CPU)


def test_weights_of_another_shape_are_told(tmp_path: Path) -> None:
    save(torch.nn.Linear(3, 1), tmp_path / preference.LINEAR)
    with pytest.raises(MetricError, match="are of another network"):
        preference.load_aesthetic(preference.LINEAR, tmp_path, CPU)


def test_every_metric_says_what_its_weights_are() -> None:
    for name, metric in METRICS.items():
        if metric.sees is not None or name.startswith("lpips"):
            assert metric.licence, name
            assert metric.download, name
        assert metric.range[0] < metric.range[1]


def test_what_every_metric_takes_was_metric_costs() -> None:
    for name, metric in METRICS.items():
        if metric.scope != "cost" and metric.needs != "scores":
            taken = cost_of_metric(name, metric.extractor)
            assert taken is not None, name
            assert taken.seconds > 0
            by_network = metric.load is not None or metric.sees is not None
            assert (taken.memory_mb is not None) >= by_network, name
    named = [f"[{name}]" for name in NAMES if "MODEL" not in name]
    assert [name for name in named if name not in metric_costs()] == []


def test_every_metric_stands_in_the_docs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    assert [name for name in METRICS if f"`{name}`" not in text] == []
