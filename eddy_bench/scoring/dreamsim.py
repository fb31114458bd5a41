"""DreamSim: a distance of images that was tuned to people's choices (arXiv 2306.09344).

Its ensemble is three ViT-B/16 with low-rank updates. They are built here from its published files,
which are read as tensors: its own package fetches code when it loads them.
"""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eddy_bench.errors import MetricError, brief
from eddy_bench.models.backbones import weights_digest
from eddy_bench.models.images import channels_first, normalised, squared
from eddy_bench.scoring.diversity import Features, mean_similarity
from eddy_bench.scoring.extractor import Extractor, read_tensors
from eddy_bench.scoring.forward import Forward
from eddy_bench.scoring.metric import Metric

NAME, SIDE = "dreamsim", 224  # the name of the folder, too
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
DINO_FILE = "dino_vitbase16_pretrain.pth"
CLIP_FILES = "clip_vitb16_pretrain.pth.tar", "open_clip_vitb16_pretrain.pth.tar"
LORA, CONFIG = "ensemble_lora", "adapter_config.json"
ADAPTERS = "adapter_model.safetensors", "adapter_model.bin"
_UPDATE = r"extractor_list\.(\d)\.model\.(.+)\.lora_A(?:\.\w+)?\.weight"


class Ensemble(nn.Module):
    """Three networks side by side: (n, 3, 224, 224) from 0 to 1 to (n, 1792), centred, length 1.

    Args:
        shape: of smaller networks than the published ones, as timm's arguments.
    """

    def __init__(self, **shape: int) -> None:
        super().__init__()
        clip = {"eps": 1e-5, "num_classes": 512, "pre_norm": True, **shape}
        self.towers = nn.ModuleList(
            [
                _tower(**{**shape, "eps": 1e-6, "num_classes": 0}),
                _tower(act_layer="quick_gelu", **clip),
                _tower(act_layer="gelu", **clip),
            ]
        )
        self.towers[0].norm = nn.Identity()  # DINO's last block is taken as it is

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings."""
        norms = (IMAGENET, CLIP, CLIP)
        pairs = zip(self.towers, norms, strict=True)
        embedded = torch.cat([tower(normalised(images, *norm)) for tower, norm in pairs], -1)
        return nn.functional.normalize(embedded - embedded.mean(-1, keepdim=True), dim=-1)


def _tower(eps: float, **arguments: Any) -> Any:
    from timm.models.vision_transformer import VisionTransformer

    tower = VisionTransformer(
        **arguments, global_pool="token", norm_layer=partial(nn.LayerNorm, eps=eps)
    )
    if tower.num_classes:
        tower.head = nn.Linear(tower.embed_dim, tower.num_classes, bias=False)
    return tower


def load_dreamsim(weights: Path | None, device: torch.device, **shape: int) -> Extractor:
    """Load the ensemble from a folder `dreamsim`; MetricError where a file is missing or wrong."""
    paths = _files(weights)
    network, path = Ensemble(**shape).eval(), paths[0]
    try:
        for number, (tower, path) in enumerate(zip(network.towers, paths[:3], strict=True)):
            tower.load_state_dict(_renamed(read_tensors(path), with_head=number > 0))
        path = paths[3].parent / CONFIG
        config = json.loads(path.read_text())
        scale = float(config["lora_alpha"]) / float(config["r"])
        path = paths[3]
        _update(network, read_tensors(path), scale)
    except Exception as error:
        raise MetricError(
            f"{path} cannot be read as weights of DreamSim: {brief(error, 120)}"
        ) from None
    network.requires_grad_(False).to(device)

    def encode(pixels: Tensor) -> Any:
        return network(channels_first(pixels).float() / 255)

    prepare = partial(squared, side=SIDE)
    return Extractor(NAME, weights_digest(network), prepare, Forward(NAME, encode, device))


def _files(weights: Path | None) -> list[Path]:
    """Return the paths of the three networks' files, and of the updates'."""
    if weights is None:
        raise MetricError(
            f"The metric 'dreamsim' needs a folder {NAME} with the files of its publication "
            f"({', '.join((DINO_FILE, *CLIP_FILES, LORA))}). Put it into a folder DIR and give "
            "--weights DIR."
        )
    folder = weights / NAME
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    choices = [
        [folder / DINO_FILE, folder / "checkpoints" / DINO_FILE, cache / DINO_FILE],
        *([folder / name] for name in CLIP_FILES),
        [folder / LORA / name for name in ADAPTERS],
    ]
    found = [next((path for path in paths if path.is_file()), None) for paths in choices]
    if None in found:
        name = choices[found.index(None)][0].relative_to(folder)
        raise MetricError(
            f"The metric 'dreamsim' needs {name} of its publication, which is not in {folder}. "
            "Put it there."
        )
    return [path for path in found if path]


def _renamed(state: dict[str, Tensor], with_head: bool) -> dict[str, Tensor]:
    renamed = {name.replace("pos_drop.", "norm_pre."): value for name, value in state.items()}
    if not with_head:
        return {name: value for name, value in renamed.items() if not name.startswith("norm.")}
    renamed["head.weight"] = renamed.pop("proj").T
    bias = renamed.pop("patch_embed.proj.bias", None)
    if bias is not None:  # the same for every patch, so it can stand in the positions
        positions = renamed["pos_embed"].clone()
        positions[:, 1:] += bias
        renamed["pos_embed"] = positions
    return renamed


def _update(network: Ensemble, state: dict[str, Tensor], scale: float) -> None:
    updates = [match for name in state if (match := re.search(_UPDATE, name))]
    first: Any = network.towers[0]
    depth = len(first.blocks)
    expected = {(str(tower), f"blocks.{k}.attn.qkv") for tower in range(3) for k in range(depth)}
    if {(match[1], match[2]) for match in updates} != expected or len(state) != 2 * len(expected):
        raise ValueError(f"expected an update of each of {len(expected)} attention layers")
    for match in updates:
        layer: Any = network.towers[int(match[1])].get_submodule(match[2])
        down = state[match.string]
        up = state[match.string.replace("lora_A", "lora_B")]
        layer.weight.data += scale * (up @ down)


def dreamsim(features: Features) -> float:
    """Return 1 - cosine, mean over pairs i < j, 0 to 2; higher is more diverse; NaN at N = 1."""
    return 1 - mean_similarity(features)


METRICS = (
    Metric(
        "dreamsim",
        "features",
        True,
        "mean DreamSim distance over pairs of a group, 1 - cosine of its ensemble",
        "arXiv 2306.09344",
        "three ViT-B/16",
        function=dreamsim,
        sees=load_dreamsim,
        extractor=NAME,
        aspect="diversity",
        range=(0.0, 2.0),
        licence="MIT (DreamSim, CLIPs), Apache-2.0 (DINO)",
        download=f"about 1 GB and {DINO_FILE}: 343 MB",
    ),
)
