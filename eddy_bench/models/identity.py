"""What a model is: digests of its files, its weights, its parts and of what it draws."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


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
MARKS = 64  # numbers of a tensor that are looked at where its network's digest is known
UNKNOWN = "unknown"
# of networks, with what they were computed from
DIGESTS: WeakKeyDictionary[torch.nn.Module, tuple[str, str]] = WeakKeyDictionary()


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
    """Return a digest of a network's weights, with their dtype; UNKNOWN where none can be read.

    Quantised weights are known by what they store. A digest stands as long as the tensors, and a
    few numbers of each, are the same.
    """
    try:
        weights = dict(_stored(network))
        marks = f"{_digest(weights, MARKS)} {[_place(value) for value in weights.values()]}"
        known = DIGESTS.get(network)
        if known is None or known[0] != marks:
            DIGESTS[network] = known = marks, _digest(weights, WHOLE)
    except Exception as error:  # tensors of other libraries refuse what they like
        return f"{UNKNOWN} ({type(error).__name__})"
    dtypes = {str(value.dtype).removeprefix("torch.") for value in weights.values()}
    return f"{known[1][:10]} {'/'.join(sorted(dtypes))}"


def unknown_weights(parts: dict[str, str]) -> list[str]:
    """Return a note where weights of a pipeline cannot be read; none where all are known."""
    names = [name for name, text in parts.items() if text.startswith(UNKNOWN)]
    if not names:
        return []
    return [
        f"the weights of {' and '.join(names)} cannot be read: others in their place are seen by "
        "one image that the pipeline draws, and not otherwise"
    ]


def _stored(network: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that hold a network's weights, by name, also where they are offloaded."""
    modules = dict(network.named_modules())
    for name, value in sorted(network.state_dict().items()):
        if value.is_meta:
            owner, _, own = name.rpartition(".")
            hook = modules[owner]._hf_hook  # accelerate's
            maps = (getattr(each, "weights_map", None) for each in getattr(hook, "hooks", [hook]))
            value = next(own_map for own_map in maps if own_map is not None)[own]
        yield from _plain(name, value)


def _plain(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that a quantised one consists of; others as they are."""
    if not is_traceable_wrapper_subclass(value):
        yield name, value
        return
    for part in value.__tensor_flatten__()[0]:
        yield from _plain(f"{name}.{type(value).__name__}.{part}", getattr(value, part))


def _digest(weights: dict[str, Tensor], most: int) -> str:
    """Return a digest of tensors, of each about `most` numbers or all."""
    digest = hashlib.sha256()
    for name, value in weights.items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        with torch._C.DisableTorchFunctionSubclass():  # a GGUF parameter gives bytes then
            flat = value.detach().reshape(-1)
            part = flat[:: max(len(flat) // most, 1)].cpu().contiguous()
            array: Any = part.view(torch.uint8).numpy()
        digest.update(array)
    return digest.hexdigest()


def _place(value: Tensor) -> tuple[int, int]:
    """Return where a tensor is, and how often it was written to since."""
    return value.data_ptr(), 0 if value.is_inference() else value._version


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
