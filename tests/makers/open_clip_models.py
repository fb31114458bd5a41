"""A tiny open_clip model of random weights, as a folder for `--weights`."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

NAME = "clip-for-tests"
CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}


def save_open_clip(folder: Path, weights: str = "mine", seed: int = 0) -> str:
    """Write NAME-weights.safetensors into a folder; returns `open_clip:NAME/weights`."""
    (folder / f"{NAME}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / f"{NAME}.json")
    torch.manual_seed(seed)
    save_file(open_clip.create_model(NAME).state_dict(), folder / f"{NAME}-{weights}.safetensors")
    return f"open_clip:{NAME}/{weights}"
