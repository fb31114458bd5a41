"""Model folders as people have them load, or are refused with the cure in the line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from eddy_bench.errors import ModelError
from eddy_bench.models.base import Model
from eddy_bench.models.load import load_model
from eddy_bench.models.lora import parse_lora
from tests.conftest import Result
from tests.makers.pipelines import tiny_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder(), tmp_path / "model"))


def write_index(folder: Path, **entries: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def as_variant(folder: Path) -> None:
    for path in folder.rglob("*.safetensors"):
        path.rename(path.with_name(f"{path.stem}.fp16.safetensors"))


def as_pickles(folder: Path, *parts: str) -> None:
    for part in parts or ("unet", "vae", "text_encoder"):
        for path in (folder / part).glob("*.safetensors"):
            name = "pytorch_model" if part == "text_encoder" else path.stem
            torch.save(load_file(path), path.with_name(f"{name}.bin"))
            path.unlink()


def image_of(model: Model) -> Any:
    generator = torch.Generator().manual_seed(0)
    model.pipe.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": 2, "output_type": "np", "generator": generator}
    return model.pipe("a dress", **call).images


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda folder: write_index(folder, safety_checker=None, feature_extractor=None), ""),
        (lambda folder: write_index(folder, extra={"a": {"b": 1}}, _more=[1], more="x"), ""),
        (as_pickles, "text_encoder, unet, vae are pickled files"),
        (lambda folder: as_pickles(folder, "vae"), "weights of vae are pickled"),
        (
            lambda folder: write_index(folder, _class_name="StableDiffusionImg2ImgPipeline"),
            "StableDiffusionImg2ImgPipeline is loaded as StableDiffusionPipeline",
        ),
        (
            lambda folder: write_index(folder, _class_name="StableDiffusionInpaintPipeline"),
            "is loaded as StableDiffusionPipeline",
        ),
    ],
)
def test_a_folder_in_another_form_draws_the_same_and_says_so(
    folder: Path, change: Callable[[Path], None], note: str
) -> None:
    plain = image_of(load_model(str(folder), device="cpu"))
    change(folder)
    model = load_model(str(folder), device="cpu")
    assert (image_of(model) == plain).all()
    assert any(note in own for own in model.notes) == bool(note)


@pytest.mark.parametrize(
    "scheduler",
    [["diffusers", "DPMSolverSDEScheduler"], ["mine", "Mine"], ["diffusers", "Nothing"]],
)
def test_a_missing_scheduler_stops_only_those_who_want_it(
    folder: Path, scheduler: list[str]
) -> None:
    write_index(folder, scheduler=scheduler)
    with pytest.raises(ModelError, match="--scheduler euler"):
        load_model(str(folder), device="cpu")
    model = load_model(str(folder), device="cpu", scheduler="euler")
    assert any("own scheduler is left out" in note for note in model.notes)
    assert model.pipe.scheduler.config.beta_end == 0.012


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (as_variant, "Add --variant fp16 --dtype float16"),
        (lambda folder: (folder / "model_index.json").unlink(), "no model_index.json"),
        (lambda folder: (folder / "model_index.json").write_text("[1]"), "Expected a mapping"),
        (lambda folder: (folder / "model_index.json").write_text("{"), "is no JSON"),
        (lambda folder: shutil.rmtree(folder / "unet"), "cannot be loaded"),
        (
            lambda folder: (folder / "unet/config.json").write_text(
                json.dumps({"quantization_config": {"quant_method": "bitsandbytes"}})
            ),
            "quantised by bitsandbytes, which is not installed",
        ),
    ],
)
def test_a_folder_that_cannot_be_loaded_names_the_cure(
    folder: Path, change: Callable[[Path], None], message: str
) -> None:
    change(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("kept", [0, 2])
def test_weights_that_are_not_in_the_files_are_never_random(
    folder: Path, part: str, kept: int
) -> None:
    path = next((folder / part).glob("*.safetensors"))
    weights = load_file(path)
    save_file(dict(list(weights.items())[::2] if kept else []), path)
    with pytest.raises(ModelError, match=r"lack \d+ weights of \w+ \(.*would be random"):
        load_model(str(folder), device="cpu")


def test_a_variant_loads_where_it_is_named(folder: Path) -> None:
    plain = image_of(load_model(str(folder), device="cpu"))
    as_variant(folder)
    assert (image_of(load_model(str(folder), device="cpu", variant="fp16")) == plain).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [("m.safetensors", "from_single_file"), ("m.gguf", "quantised weights"), ("m.txt", "a file")],
)
def test_a_file_is_refused_with_what_makes_a_folder_of_it(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelError, match=message):
        load_model(str(tmp_path / name), device="cpu")


def test_pickles_with_code_run_none_of_it(folder: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    as_pickles(folder)
    torch.save({"x": Trap()}, folder / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(folder), device="cpu")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("text", ["a.bin", "a.safetensors:x", "a.safetensors:nan", ":", ""])
def test_what_names_no_lora_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match=r"FILE\.safetensors:SCALE"):
        parse_lora(text)


def test_a_missing_lora_is_refused_before_anything_is_drawn(
    cli: Callable[..., Result], folder: Path, tmp_path: Path
) -> None:
    call = ("run", "--model", folder, "--method", "iid", "--limit", "1", "--out", tmp_path / "r")
    done = cli(*call, "--lora", "none.safetensors:0.5")
    assert done.code == 2
    assert "Expected LoRA weights at none.safetensors" in done.err


def test_a_fused_lora_is_its_scale_times_the_product_and_part_of_every_key(
    folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    name = "up_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    plain = load_model(str(folder), device="cpu").pipe.unet.get_submodule(name).weight
    down, up = torch.randn(2, plain.shape[1]), torch.randn(plain.shape[0], 2)
    path = tmp_path / "l.safetensors"
    save_file({f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}, path)
    model = load_model(str(folder), device="cpu", lora=[f"{path}:0.5"])
    own = model.pipe.unet.get_submodule(name).weight
    assert torch.allclose(own, plain + 0.5 * up @ down, atol=1e-5)
    assert model.lora[0].startswith("l.safetensors@")
    assert model.lora[0].endswith(":0.5")
