"""Files of weights never run code: each path is given a pickle that would leave a mark."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from eddy_bench.errors import EddyError
from eddy_bench.models.backbones import load_backbone
from eddy_bench.models.decoding import load_decoder
from eddy_bench.models.embedded import AttributeClassifier, load_network
from eddy_bench.models.load import load_model
from eddy_bench.scoring.extractors import INCEPTION, load_extractor
from eddy_bench.scoring.perceptual import ALEXNET, load_lpips
from tests.conftest import Result
from tests.makers.pipelines import tiny_folder

CLIP = "RN50-quickgelu-openai"
TIMM = "resnet10t"


class Trap:
    """Touch a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def plain_pickle(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": Trap(mark)}))


def torch_archive(path: Path, mark: Path) -> None:
    torch.save({"weight": torch.zeros(1), "trap": Trap(mark)}, path)


FORMS = {"pickle": plain_pickle, "archive": torch_archive}
CPU = torch.device("cpu")
PATHS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "lpips": (ALEXNET, load_lpips),
    "fid": (INCEPTION, lambda folder: load_extractor("inception", folder)),
    "clip": (
        f"{CLIP}.pt",
        lambda folder: load_extractor("open_clip:RN50-quickgelu/openai", folder),
    ),
    "clip guide": (
        f"{CLIP}.bin",
        lambda folder: load_backbone("open_clip:RN50-quickgelu/openai", folder, CPU),
    ),
    "timm": (f"{TIMM}.pth", lambda folder: load_extractor(f"timm:{TIMM}", folder)),
    "timm guide": (f"{TIMM}.bin", lambda folder: load_backbone(f"timm:{TIMM}", folder, CPU)),
    "decoder": (
        "diffusion_pytorch_model.bin",
        lambda folder: load_decoder(str(folder)),
    ),
    "classifier": (
        "model.safetensors",
        lambda folder: load_network(AttributeClassifier(), folder / "model.safetensors"),
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("path", PATHS)
def test_a_pickle_in_the_place_of_weights_is_not_run(tmp_path: Path, path: str, form: str) -> None:
    name, load = PATHS[path]
    folder, mark = tmp_path / "weights", tmp_path / "mark"
    folder.mkdir()
    (folder / "config.json").write_text('{"_class_name": "AutoencoderTiny"}')
    FORMS[form](folder / name, mark)
    with pytest.raises(Exception) as error:  # noqa: PT011 the classifier's reader has its own class
        load(folder)
    assert path == "classifier" or isinstance(error.value, EddyError)
    assert not mark.exists()


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_pipeline_folder_with_pickled_weights_is_refused(tmp_path: Path, part: str) -> None:
    folder, mark = tmp_path / "pipeline", tmp_path / "mark"
    shutil.copytree(tiny_folder(), folder)
    for weights in (folder / part).glob("*.safetensors"):
        torch_archive(weights.with_suffix(".bin"), mark)
        if part == "text_encoder":
            torch_archive(weights.with_name("pytorch_model.bin"), mark)
        weights.unlink()
    with pytest.raises(EddyError, match="cannot be loaded"):
        load_model(str(folder), device="cpu")
    assert not mark.exists()


def test_a_component_that_brings_its_code_is_refused(tmp_path: Path) -> None:
    folder, mark = tmp_path / "pipeline", tmp_path / "mark"
    shutil.copytree(tiny_folder(), folder)
    index = folder / "model_index.json"
    index.write_text(
        index.read_text().replace(
            '"diffusers",\n    "UNet2DConditionModel"', '"mine",\n    "UNet2DConditionModel"'
        )
    )
    assert '"mine"' in index.read_text()
    (folder / "unet" / "mine.py").write_text(
        f"open({str(mark)!r}, 'w').close()\nfrom diffusers import UNet2DConditionModel\n"
    )
    with pytest.raises(EddyError):
        load_model(str(folder), device="cpu")
    assert not mark.exists()


def test_scoring_with_a_pickle_of_inception_weights_says_so(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    folder, mark = tmp_path / "weights", tmp_path / "mark"
    folder.mkdir()
    torch_archive(folder / INCEPTION, mark)
    run = ("run", "--limit", "2", "--steps", "2", "--particles", "2", "--method", "iid")
    done = cli(*run, "--metric", "fid", "--weights", folder, "--out", tmp_path / "run")
    assert done.code == 2
    assert "cannot be read as Inception-v3 weights" in done.err
    assert not mark.exists()
