"""Quality of single images: LAION's aesthetic ratings, PickScore, HPSv2.1, CLIP-IQA."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from eddy_bench.errors import MetricError, brief
from eddy_bench.models.backbones import weights_digest
from eddy_bench.models.images import channels_first, normalised
from eddy_bench.scoring.clip_towers import clip_by_name, clip_of
from eddy_bench.scoring.diversity import Features, unit
from eddy_bench.scoring.extractor import FLOAT, Extractor, load_into, read_state
from eddy_bench.scoring.forward import Forward
from eddy_bench.scoring.metric import Metric

TOWER, WIDTH = "open_clip:ViT-L-14-quickgelu/openai", 768  # of the aesthetic ratings
LINEAR = "sa_0_4_vit_l_14_linear.pth"
MLP = "sac+logos+ava1-l14-linearMSE.pth"
PICKSCORE, PICKSCORE_FOLDER = "yuvalkirstain/PickScore_v1", "PickScore_v1"
HPS_TOWER, HPS_FILE = "ViT-H-14", "HPS_v2.1_compressed.pt"
IQA_SCALE = 100.0  # of cosines, as CLIP was trained
IQA_WORDS = ("Good photo.", "Bad photo.")


def aesthetic_head(file: str) -> nn.Module:
    """Return the first predictor, a linear one, or the second: layers without activations between,
    as it was trained.
    """
    if file == LINEAR:
        return nn.Linear(WIDTH, 1)
    one, two, three, four, five = (
        nn.Linear(a, b) for a, b in pairwise((WIDTH, 1024, 128, 64, 16, 1))
    )
    drop = nn.Dropout(0.0)
    return nn.Sequential(one, drop, two, drop, three, drop, four, five)


def load_aesthetic(
    file: str, weights: Path | None, device: torch.device, tower: str = TOWER
) -> Extractor:
    """Load a predictor of about 1 to 10, (n, 1); MetricError without its head or tower."""
    head = aesthetic_head(file)
    state, digest = read_state(file, weights, "aesthetic" if file == LINEAR else "aesthetic-mlp")
    load_into(head, {name.removeprefix("layers."): own for name, own in state.items()}, file)
    clip = clip_by_name(tower, weights, device)
    head.to(device)

    def rate(pixels: Tensor) -> Any:
        return head(nn.functional.normalize(clip.forward.network(pixels).float(), dim=-1))

    name = "laion-linear" if file == LINEAR else "laion-mlp"
    return Extractor(name, f"{digest}-{clip.digest}", clip.prepare, Forward(name, rate, device))


def load_pickscore(weights: Path | None, device: torch.device) -> Extractor:
    """Load both towers, from a folder `PickScore_v1` of the weights or from the hub.

    Texts come with the model's temperature, so that unit images times texts are PickScores
    (arXiv 2305.01569).

    Raises:
        MetricError: they cannot be had.
    """
    from transformers import CLIPModel, CLIPProcessor

    local = weights / PICKSCORE_FOLDER if weights is not None else None
    source = str(local) if local and local.is_dir() else PICKSCORE
    try:
        model = CLIPModel.from_pretrained(source, use_safetensors=True, dtype=torch.float32)
        processor = CLIPProcessor.from_pretrained(source)
    except Exception as error:
        raise MetricError(
            f"The weights of PickScore cannot be had from {source}: {brief(error, 120)} They are "
            f"downloaded once; without network put a copy of {PICKSCORE} into "
            f"DIR/{PICKSCORE_FOLDER} and give --weights DIR."
        ) from None
    model.eval().requires_grad_(False).to(device)
    length = int(model.config.text_config.max_position_embeddings)

    def prepare(image: Image.Image) -> NDArray[np.uint8]:
        pixels = processor.image_processor(
            image.convert("RGB"), do_rescale=False, do_normalize=False, return_tensors="np"
        )["pixel_values"][0]
        array: NDArray[np.uint8] = np.moveaxis(pixels, 0, -1).astype(np.uint8)
        return array

    mean, std = processor.image_processor.image_mean, processor.image_processor.image_std

    def encode(pixels: Tensor) -> Tensor:
        images = normalised(channels_first(pixels).float() / 255, mean, std)
        return _tensor(model.get_image_features(pixel_values=images))

    def texts(prompts: Sequence[str]) -> FLOAT:
        padded = {"padding": "max_length", "truncation": True, "max_length": length}
        tokens = processor.tokenizer(list(prompts), **padded, return_tensors="pt").to(device)
        with torch.inference_mode():
            features = _tensor(model.get_text_features(**tokens))
            scaled = model.logit_scale.exp() * nn.functional.normalize(features, dim=-1)
        return np.asarray(scaled.float().cpu().numpy(), np.float32)

    def truncated(prompt: str) -> bool:
        return len(processor.tokenizer(prompt)["input_ids"]) > length

    forward = Forward("pickscore", encode, device)
    digest = weights_digest(model)
    return Extractor("pickscore-v1", digest, prepare, forward, texts, truncated=truncated)


def _tensor(features: Any) -> Tensor:
    """Return the features, which transformers 5 wraps."""
    projected: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return projected


def load_hps(weights: Path | None, device: torch.device, tower: str = HPS_TOWER) -> Extractor:
    """Load both towers of HPSv2.1 (arXiv 2306.09341); MetricError where they cannot be had."""
    state, digest = read_state(HPS_FILE, weights, "hps")
    return clip_of("hps-v2.1", digest, device, tower, state)


def cosines(images: Features, text: Features) -> Features:
    """Return the cosine of each image (N, F) with a text (F,), (N,)."""
    return unit(images) @ unit(text)


def pickscores(images: Features, text: Features) -> Features:
    """Return the PickScore of each image (N, F), from a text of length temperature (F,): (N,)."""
    return unit(images) @ np.asarray(text, np.float64)


def clip_iqa(images: Features, words: Features) -> Features:
    """Return softmax(100 cos(image, good), 100 cos(image, bad))[good] of each image, 0 to 1, (N,).

    The paper (arXiv 2207.12396) takes a ResNet-50 without positional embeddings; here it is any
    CLIP, as it is.

    Args:
        images: (N, F).
        words: of the good and the bad one, (2, F).
    """
    good, bad = IQA_SCALE * unit(words) @ unit(images).T
    return np.asarray(1 / (1 + np.exp(bad - good)))


METRICS = (
    Metric(
        "clip-iqa",
        "text",
        True,
        "how much nearer an image is to 'Good photo.' than to 'Bad photo.', 0 to 1",
        "arXiv 2207.12396",
        each=clip_iqa,
        marks=(("scale", "100"),),
        texts=IQA_WORDS,
        aspect="fidelity",
        range=(0.0, 1.0),
    ),
    *(
        Metric(
            name,
            "features",
            True,
            summary,
            citation,
            "CLIP ViT-L/14",
            each=lambda ratings: ratings[:, 0],
            sees=partial(load_aesthetic, file),
            extractor=extractor,
            aspect="fidelity",
            licence=licence,
            download=f"1.7 GB (CLIP), {file}: {size}",
        )
        for (name, file, extractor, size), summary, citation, licence in (
            (
                ("aesthetic", LINEAR, "laion-linear", "4 KB"),
                "LAION's aesthetic rating, linear on CLIP ViT-L/14, about 1 to 10",
                "arXiv 2210.08402",
                "MIT (CLIP, head)",
            ),
            (
                ("aesthetic-mlp", MLP, "laion-mlp", "4 MB"),
                "LAION's second aesthetic rating, an MLP on CLIP ViT-L/14, about 1 to 10",
                "github.com/christophschuhmann/improved-aesthetic-predictor",
                "MIT (CLIP), Apache-2.0 (head)",
            ),
        )
    ),
    Metric(
        "pickscore",
        "text",
        True,
        "PickScore: temperature times cosine under a CLIP of users' choices, about 15 to 25",
        "arXiv 2305.01569",
        "CLIP ViT-H/14",
        each=pickscores,
        sees=load_pickscore,
        extractor="pickscore-v1",
        marks=("scaled-cos",),
        aspect="fidelity",
        licence="not stated on its page when this was written",
        download="3.9 GB",
    ),
    Metric(
        "hps",
        "text",
        True,
        "HPSv2.1: cosine with the prompt under a CLIP of preferences, about 0.2 to 0.3",
        "arXiv 2306.09341",
        "CLIP ViT-H/14",
        each=cosines,
        sees=load_hps,
        extractor="hps-v2.1",
        marks=("cos",),
        aspect="fidelity",
        range=(-1.0, 1.0),
        licence="Apache-2.0",
        download=f"{HPS_FILE}: 2.0 GB",
    ),
)
