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
from eddy_bench.models.backbones import check_quickgelu
from eddy_bench.models.images import channels_first
from eddy_bench.scoring.extractor import FLOAT, Extractor, file_digest, load_into
from eddy_bench.scoring.forward import Forward


def clip_of_folder(name: str, folder: Path, device: torch.device) -> Extractor:
    """Load a CLIP that open_clip saved in a folder."""
    digest = file_digest(folder / "open_clip_model.safetensors")
    return _from_open_clip(name, digest, device, f"local-dir:{folder}")


def clip_by_name(name: str, weights: Path | None, device: torch.device) -> Extractor:
    """Load `open_clip:MODEL/WEIGHTS`.

    Raises:
        UnknownName: no such model.
        MetricError: its weights are not named, or cannot be had.
    """
    model, _, pretrained = name.removeprefix("open_clip:").partition("/")
    _check(name, model, pretrained)
    files = (
        [weights / f"{model}-{pretrained}{ending}" for ending in (".safetensors", ".pt", ".bin")]
        if weights
        else []
    )
    local = next((file for file in files if file.is_file()), None)
    digest = file_digest(local) if local else pretrained
    try:
        return _from_open_clip(name, digest, device, model, pretrained=str(local or pretrained))
    except Exception as error:
        raise MetricError(
            f"The weights {pretrained!r} of open_clip model {model} cannot be had: "
            f"{brief(error, 120)} "
            f"Put {model}-{pretrained}.safetensors into a folder and give --weights."
        ) from None


def clip_of_state(
    name: str, digest: str, device: torch.device, model: str, state: dict[str, Tensor]
) -> Extractor:
    """Return an architecture of open_clip with weights that were read beforehand.

    Raises:
        MetricError: they are of another network.
    """
    return _from_open_clip(name, digest, device, model, state)


def _check(name: str, model: str, pretrained: str) -> None:
    import open_clip

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


def _from_open_clip(
    name: str,
    digest: str,
    device: torch.device,
    source: str,
    state: dict[str, Tensor] | None = None,
    **arguments: object,
) -> Extractor:
    import open_clip

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger().setLevel(logging.CRITICAL)  # what fails is said in one line
        model, _, transform = open_clip.create_model_and_transforms(source, **arguments)
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

    mean, std = (
        torch.tensor(values, device=device).view(3, 1, 1)
        for values in (normalise.mean, normalise.std)
    )

    def encode(pixels: Tensor) -> Any:
        return model.encode_image((channels_first(pixels).float() / 255 - mean) / std)

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
