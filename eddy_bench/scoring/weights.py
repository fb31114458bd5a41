"""Weights of metrics: read as tensors alone, whatever the file, so that none runs code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eddy_bench.errors import MetricError, brief
from eddy_bench.scoring.extractor import file_digest, find_weights


def read_state(filename: str, weights: Path | None, metric: str) -> tuple[dict[str, Tensor], str]:
    """Read a network's weights and their digest, from `filename` or its .safetensors twin.

    Raises:
        MetricError: they are not there, or are no tensors by name.

    """
    twin = f"{Path(filename).stem}.safetensors"
    here = weights is not None and (weights / twin).is_file()
    path = find_weights(twin if here else filename, weights, metric)
    try:
        state = read_tensors(path)
    except Exception as error:
        raise MetricError(f"{path} cannot be read as weights: {brief(error, 120)}") from None
    return state, file_digest(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors by name, from safetensors or a file of torch's; no code of it runs.

    Raises:
        Exception: it holds something else; what kind depends on where.

    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    state: Any = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    names = all(isinstance(name, str) for name in state)
    if not (state and names and all(isinstance(value, Tensor) for value in state.values())):
        raise ValueError("no tensors by name")
    return dict(state)


def load_into(network: torch.nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Put weights into a network, which is made ready to use.

    Raises:
        MetricError: they are of another shape.

    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise MetricError(
            f"The weights of {name} are of another network: {brief(error, 120)}"
        ) from None
    network.eval().requires_grad_(False)
