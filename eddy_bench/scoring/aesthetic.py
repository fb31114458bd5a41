"""LAION's aesthetic predictors: a small head on unit features of CLIP ViT-L/14."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from eddy_bench.scoring.clip_towers import clip_by_name
from eddy_bench.scoring.diversity import Features
from eddy_bench.scoring.extractor import Extractor
from eddy_bench.scoring.forward import Forward
from eddy_bench.scoring.metric import Metric, mean_of
from eddy_bench.scoring.weights import load_into, read_state

TOWER = "open_clip:ViT-L-14-quickgelu/openai"
WIDTH = 768
LINEAR = "sa_0_4_vit_l_14_linear.pth"
MLP = "sac+logos+ava1-l14-linearMSE.pth"


def linear_head() -> nn.Module:
    """Return the first predictor, a linear one."""
    return nn.Linear(WIDTH, 1)


def mlp_head() -> nn.Module:
    """Return the second one: layers without activations between, as it was trained."""
    widths = (WIDTH, 1024, 128, 64, 16, 1)
    layers: list[nn.Module] = []
    for number, (a, b) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(a, b))
        if number < 3:
            layers.append(nn.Dropout(0.0))
    return nn.Sequential(*layers)


def load_aesthetic(
    file: str, weights: Path | None, device: torch.device, tower: str = TOWER
) -> Extractor:
    """Load a predictor: images to a number of about 1 to 10, (n, 1).

    Raises:
        MetricError: the head or the tower cannot be had.

    """
    head = linear_head() if file == LINEAR else mlp_head()
    state, digest = read_state(file, weights, "aesthetic" if file == LINEAR else "aesthetic-mlp")
    plain = {name.removeprefix("layers."): value for name, value in state.items()}
    load_into(head, plain, file)
    clip = clip_by_name(tower, weights, device)
    judged = partial(_judged, clip.forward.network, head.to(device))
    name = "laion-linear" if file == LINEAR else "laion-mlp"
    return Extractor(name, f"{digest}-{clip.digest}", clip.prepare, Forward(name, judged, device))


def _judged(encode: Callable[..., Tensor], head: nn.Module, pixels: Tensor) -> Tensor:
    features = encode(pixels).float()
    judged: Tensor = head(nn.functional.normalize(features, dim=-1))
    return judged


def mean_rating(ratings: Features) -> float:
    """Return the mean of a group's ratings, (N, 1); higher is better."""
    return mean_of(ratings[:, 0])


def ratings_of_images(ratings: Features) -> Features:
    """Return the rating of each image, (N,), from (N, 1)."""
    return ratings[:, 0]


METRICS = (
    Metric(
        "aesthetic",
        "features",
        True,
        "LAION's aesthetic rating, linear on CLIP ViT-L/14, about 1 to 10",
        "arXiv 2210.08402",
        "CLIP ViT-L/14",
        function=mean_rating,
        each=ratings_of_images,
        sees=partial(load_aesthetic, LINEAR),
        extractor="laion-linear",
        judges="fidelity",
        licence="MIT (CLIP, head)",
        download=f"1.7 GB (CLIP), {LINEAR}: 4 KB",
    ),
    Metric(
        "aesthetic-mlp",
        "features",
        True,
        "LAION's second aesthetic rating, an MLP on CLIP ViT-L/14, about 1 to 10",
        "github.com/christophschuhmann/improved-aesthetic-predictor",
        "CLIP ViT-L/14",
        function=mean_rating,
        each=ratings_of_images,
        sees=partial(load_aesthetic, MLP),
        extractor="laion-mlp",
        judges="fidelity",
        licence="MIT (CLIP), Apache-2.0 (head)",
        download=f"1.7 GB (CLIP), {MLP}: 4 MB",
    ),
)
