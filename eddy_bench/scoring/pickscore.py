"""PickScore: a CLIP ViT-H/14 that was trained on users' choices (arXiv 2305.01569)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eddy_bench.errors import MetricError, brief
from eddy_bench.models.backbones import weights_digest
from eddy_bench.models.images import channels_first
from eddy_bench.scoring.diversity import Features, unit
from eddy_bench.scoring.extractor import FLOAT, Extractor
from eddy_bench.scoring.forward import Forward
from eddy_bench.scoring.metric import Metric

HUB_ID, FOLDER = "yuvalkirstain/PickScore_v1", "PickScore_v1"


def load_pickscore(weights: Path | None, device: torch.device) -> Extractor:
    """Load both towers, from a folder `PickScore_v1` of the weights or from the hub.

    Texts come with the model's temperature, so that unit images times texts are PickScores.

    Raises:
        MetricError: they cannot be had.

    """
    local = weights / FOLDER if weights is not None and (weights / FOLDER).is_dir() else None
    model, processor = _from_hub(str(local or HUB_ID))
    model.eval().requires_grad_(False).to(device)

    def prepare(image: Image.Image) -> NDArray[np.uint8]:
        pixels = processor.image_processor(
            image.convert("RGB"), do_rescale=False, do_normalize=False, return_tensors="np"
        )["pixel_values"][0]
        array: NDArray[np.uint8] = np.moveaxis(pixels, 0, -1).astype(np.uint8)
        return array

    mean, std = (
        torch.tensor(values, device=device).view(3, 1, 1)
        for values in (processor.image_processor.image_mean, processor.image_processor.image_std)
    )

    def encode(pixels: Tensor) -> Tensor:
        images = (channels_first(pixels).float() / 255 - mean) / std
        return _tensor(model.get_image_features(pixel_values=images))

    def texts(prompts: Sequence[str]) -> FLOAT:
        length = model.config.text_config.max_position_embeddings
        tokens = processor.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=length,
            return_tensors="pt",
        ).to(device)
        with torch.inference_mode():
            features = _tensor(model.get_text_features(**tokens))
            scaled = model.logit_scale.exp() * torch.nn.functional.normalize(features, dim=-1)
        return np.asarray(scaled.float().cpu().numpy(), np.float32)

    def truncated(prompt: str) -> bool:
        length = int(model.config.text_config.max_position_embeddings)
        return len(processor.tokenizer(prompt)["input_ids"]) > length

    forward = Forward("pickscore", encode, device)
    digest = weights_digest(model)
    return Extractor("pickscore-v1", digest, prepare, forward, texts, truncated=truncated)


def _from_hub(source: str) -> tuple[Any, Any]:
    from transformers import CLIPModel, CLIPProcessor

    try:
        model = CLIPModel.from_pretrained(source, use_safetensors=True, dtype=torch.float32)
        return model, CLIPProcessor.from_pretrained(source)
    except Exception as error:
        raise MetricError(
            f"The weights of PickScore cannot be had from {source}: {brief(error, 120)} They are "
            f"downloaded once; without network put a copy of {HUB_ID} into DIR/{FOLDER} and give "
            "--weights DIR."
        ) from None


def _tensor(features: Any) -> Tensor:
    """Return the features, which transformers 5 wraps."""
    projected: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return projected


def pickscore(images: Features, text: Features) -> float:
    """Return the mean PickScore, temperature times cosine; higher is better, about 15 to 25.

    Args:
        images: (N, F).
        text: of length temperature, (F,).

    """
    return float((unit(images) @ np.asarray(text, np.float64)).mean())


def pickscores(images: Features, text: Features) -> Features:
    """Return the PickScore of each image, (N,)."""
    return unit(images) @ np.asarray(text, np.float64)


METRICS = (
    Metric(
        "pickscore",
        "text",
        True,
        "PickScore: temperature times cosine under a CLIP of users' choices, about 15 to 25",
        "arXiv 2305.01569",
        "CLIP ViT-H/14",
        function=pickscore,
        each=pickscores,
        sees=load_pickscore,
        extractor="pickscore-v1",
        marks=("scaled-cos",),
        judges="fidelity",
        licence="not stated on its page when this was written",
        download="3.9 GB",
    ),
)
