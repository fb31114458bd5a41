"""HPSv2.1: a CLIP ViT-H/14 that was trained on people's preferences (arXiv 2306.09341)."""

from __future__ import annotations

from pathlib import Path

import torch

from eddy_bench.scoring.clip_towers import clip_of_state
from eddy_bench.scoring.diversity import Features, unit
from eddy_bench.scoring.extractor import Extractor
from eddy_bench.scoring.metric import Metric
from eddy_bench.scoring.weights import read_state

TOWER = "ViT-H-14"
FILE = "HPS_v2.1_compressed.pt"


def load_hps(weights: Path | None, device: torch.device, tower: str = TOWER) -> Extractor:
    """Load both towers.

    Raises:
        MetricError: the weights cannot be had, or are of another network.

    """
    state, digest = read_state(FILE, weights, "hps")
    return clip_of_state("hps-v2.1", digest, device, tower, state)


def mean_cosine(images: Features, text: Features) -> float:
    """Return the mean cosine of images (N, F) with their prompt (F,), -1 to 1; higher is better."""
    return float((unit(images) @ unit(text)).mean())


def cosines(images: Features, text: Features) -> Features:
    """Return the cosine of each image with the prompt, (N,)."""
    return unit(images) @ unit(text)


METRICS = (
    Metric(
        "hps",
        "text",
        True,
        "HPSv2.1: cosine with the prompt under a CLIP of preferences, about 0.2 to 0.3",
        "arXiv 2306.09341",
        "CLIP ViT-H/14",
        function=mean_cosine,
        each=cosines,
        sees=load_hps,
        extractor="hps-v2.1",
        marks=("cos",),
        judges="fidelity",
        range=(-1.0, 1.0),
        licence="Apache-2.0",
        download=f"{FILE}: 2.0 GB",
    ),
)
