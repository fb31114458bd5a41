"""Extractors from open_clip: an image tower and a text tower."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eddy_bench.errors import MetricError, ModelError, UnknownName, brief, unknown
from eddy_bench.models.backbones import check_quickgelu, local_weights
from eddy_bench.models.images import channels_first, normalised
from eddy_bench.scoring.extractor import FLOAT, Extractor, file_digest, load_into
from eddy_bench.scoring.forward import Forward


def clip_by_name(name: str, weights: Path | None, device: torch.device) -> Extractor:
    """Load `open_clip:MODEL/WEIGHTS`.

    Raises:
        UnknownName: no such model.
        MetricError: its weights are not named, or cannot be had.
    """
    import open_clip

    model, _, pretrained = name.removeprefix("open_clip:").partition("/")
    if model not in open_clip.list_models():
        raise UnknownName(unknown("open_clip model", model, open_clip.list_models()))
    if not pretrained:
        tags = open_clip.list_pretrained_tags_by_model(model)
        raise MetricError(
            f"Expected open_clip:MODEL/WEIGHTS, got {name!r}. "
            f"Weights of {model}: {', '.join(tags) or 'none'}."
        )
    try:
        check_quickgelu(model, pretrained)
    except ModelError as error:
        raise MetricError(str(error)) from None
    local = local_weights(weights, f"{model}-{pretrained}")
    digest = file_digest(local) if local else pretrained
    try:
        return clip_of(name, digest, device, model, pretrained=str(local or pretrained))
    except Exception as error:
        raise MetricError(
            f"The weights {pretrained!r} of open_clip model {model} cannot be had: "
            f"{brief(error, 120)} "
            f"Put {model}-{pretrained}.safetensors into a folder and give --weights."
        ) from None


def clip_of(
    name: str,
    digest: str,
    device: torch.device,
    source: str,
    state: dict[str, Tensor] | None = None,
    pretrained: str | None = None,
) -> Extractor:
    """Return both towers of a model of open_clip, under a name and with a digest.

    Args:
        name, digest: of the extractor.
        device: of the network.
        source: a model, or `local-dir:` and a folder that open_clip saved.
        state: weights that were read beforehand.
        pretrained: weights by name or file, where neither a folder nor `state` has them.

    Raises:
        MetricError: the weights of `state` are of another network.
    """
    import open_clip

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger().setLevel(logging.CRITICAL)  # what fails is said in one line
        model, _, transform = open_clip.create_model_and_transforms(source, pretrained=pretrained)
        tokenizer = open_clip.get_tokenizer(source)
    if state is not None:
        load_into(model, state, name)
    model.eval().requires_grad_(False).to(device)
    # resize, cut and convert in threads; to floats, and normalise, a batch at a time on the device
    *geometry, _to_tensor, normalise = transform.transforms

    def prepare(image: Image.Image) -> NDArray[np.uint8]:
        image = image.convert("RGB")
        for step in geometry:
            image = step(image)
        return np.asarray(image)

    def encode(pixels: Tensor) -> Any:
        images = channels_first(pixels).float() / 255
        return model.encode_image(normalised(images, normalise.mean, normalise.std))

    read = Forward(name, model.encode_text, device)

    def texts(prompts: Sequence[str]) -> FLOAT:
        return np.stack(list(read((tokens.numpy(),) for tokens in tokenizer(list(prompts)))))

    def truncated(prompt: str) -> bool:
        """Its end mark, the highest token, comes after the last place that is read."""
        length = model.context_length
        tokens = tokenizer([prompt], context_length=length + 1)[0]
        return bool(int(tokens.argmax()) >= length)

    forward = Forward(name, encode, device)
    return Extractor(name, digest, prepare, forward, texts, truncated=truncated)
