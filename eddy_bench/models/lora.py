"""LoRA weights that are fused into a pipeline's networks."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eddy_bench.errors import ModelError, brief

ENDINGS = (".safetensors",)


def parse_lora(text: str) -> tuple[Path, float]:
    """Read `FILE` or `FILE:SCALE`.

    >>> parse_lora("a/b.safetensors:0.5")[1], parse_lora("b.safetensors")[1]
    (0.5, 1.0)

    Raises:
        ModelError: the scale is no number, or the file has another ending.
    """
    head, colon, scale = text.rpartition(":")
    path, number = (head, scale) if colon and head.endswith(ENDINGS) else (text, "1")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not path.endswith(ENDINGS) or not math.isfinite(value):
        raise ModelError(
            f"Expected --lora FILE.safetensors or FILE.safetensors:SCALE, got {text!r}."
        )
    return Path(path), value


def fuse_lora(pipe: Any, given: Sequence[str]) -> list[str]:
    """Fuse files of LoRA weights into a pipeline, in order.

    Returns:
        Each file's name with a digest of its content, and its scale.

    Raises:
        ModelError: a file is not there or is not for this pipeline, or the package peft is missing.
    """
    found = []
    for number, (path, scale) in enumerate(map(parse_lora, given)):
        if not path.is_file():
            raise ModelError(f"Expected LoRA weights at {path}, found nothing.")
        name = f"lora{number}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name=name)
                pipe.fuse_lora(lora_scale=scale, adapter_names=[name])
                pipe.unload_lora_weights()
        except Exception as error:  # of diffusers and peft, which have many
            needs = " Install eddy-bench[lora]." if "PEFT backend" in str(error) else ""
            raise ModelError(
                f"--lora {path} cannot be used with {type(pipe).__name__}: "
                f"{brief(error, 160)}{needs}"
            ) from None
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        found.append(f"{path.name}@{digest}:{scale:g}")
    return found
