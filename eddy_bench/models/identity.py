"""What a model is: digests of its files, its weights, its parts and of what it draws."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image


def model_fingerprint(name: str, folder: Path, revision: str | None) -> str:
    """Return the digest of a folder, or `name@commit` of a hub id, whose folder does not exist."""
    if folder.exists():
        return folder_digest(folder)
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, "model_index.json", revision=revision)
    match = re.search(r"snapshots/([0-9a-f]{40})", str(path))
    return f"{name}@{match[1] if match else 'unknown'}"


def folder_digest(folder: Path) -> str:
    """Return a sha256 over names, sizes and contents.

    Of a file beyond 256 MiB, 256 blocks of 1 MiB are taken, spread evenly.
    """
    digest = hashlib.sha256()
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\x1f{size}\x1f".encode())
        blocks = -(-size // 2**20)
        with path.open("rb") as file:
            for block in (
                range(blocks) if blocks <= 256 else (k * (blocks - 1) // 255 for k in range(256))
            ):
                file.seek(block * 2**20)
                digest.update(file.read(2**20))
    return digest.hexdigest()[:16]


SIDE = 8  # of the thumbnail of what a pipeline draws
WHOLE = 2**20  # numbers of a tensor that are all read; of larger ones as many, spread evenly


def parts_of(pipe: Any) -> dict[str, str]:
    """Return what of a pipeline determines its images, by name, each as a short text.

    Networks are digests of their weights, adapters of LoRA their scales.
    """
    networks = {
        name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)
    }
    scheduler = pipe.scheduler
    settings = {"config": dict(scheduler.config), "shift": getattr(scheduler, "shift", None)}
    adapters = sorted({text for network in networks.values() for text in _adapters(network)})
    processors = {
        type(processor).__name__
        for network in networks.values()
        for processor in getattr(network, "attn_processors", {}).values()
    }
    return {
        "class": type(pipe).__name__,
        **{name: weights_of(network) for name, network in networks.items()},
        "scheduler": f"{type(scheduler).__name__} {digest_of(settings)}",
        "adapters": ", ".join(adapters) or "none",
        "attention": ", ".join(sorted(processors)) or "none",
    }


def weights_of(network: torch.nn.Module) -> str:
    """Return a digest of a network's weights, with their dtype; of offloaded ones their shapes."""
    digest, dtypes = hashlib.sha256(), set()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        dtypes.add(str(value.dtype).removeprefix("torch."))
        if value.device.type != "meta":
            flat = value.detach().reshape(-1)
            part = flat[:: max(len(flat) // WHOLE, 1)].cpu().contiguous()
            digest.update(part.view(torch.uint8).numpy())
    return f"{digest.hexdigest()[:10]} {'/'.join(sorted(dtypes))}"


def thumbnail(draw: Callable[[], Any]) -> str:
    """Return what a pipeline draws, an image, as SIDE x SIDE pixels in hexadecimal digits."""
    image = draw().convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(image).tobytes().hex()


def _adapters(network: torch.nn.Module) -> Iterator[str]:
    """Yield the adapters of LoRA that are in force, each with its scale."""
    for module in network.modules():
        scaling = getattr(module, "scaling", None)
        if isinstance(scaling, dict):
            active = getattr(module, "active_adapters", scaling)
            off = getattr(module, "disable_adapters", False)
            yield from (f"{name} {0 if off else scaling.get(name)}" for name in active)


def digest_of(value: Any) -> str:
    """Return a digest of settings."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
