"""Arguments and outputs of a denoiser, whatever their names and forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Their first axis is that of tokens, which may be as long as the batch.
NOT_ROWS = ("img_ids", "txt_ids", "image_rotary_emb", "img_shapes")


@dataclass(frozen=True)
class Arguments:
    """Hold a call's arguments by name; `given` of them came by position."""

    values: dict[str, Any]
    given: int

    @property
    def sample(self) -> Any:
        """The noisy latents, whatever their name."""
        return next(iter(self.values.values()))

    def call(self, function: Callable[..., Any]) -> Any:
        """Call a function in the form that these arguments came in."""
        names = list(self.values)
        by_name = {name: self.values[name] for name in names[self.given :]}
        return function(*(self.values[name] for name in names[: self.given]), **by_name)


def rows_in(value: Any) -> int:
    """Return how many rows an argument has."""
    return len(value) if isinstance(value, (Tensor, list, tuple)) else 0


def sliced(arguments: dict[str, Any], rows: int, chosen: slice | Tensor) -> dict[str, Any]:
    """Return the arguments with the chosen rows of whatever has as many rows."""
    return {
        name: value if name in NOT_ROWS else _chosen(value, rows, chosen)
        for name, value in arguments.items()
    }


def _chosen(value: Any, rows: int, chosen: slice | Tensor) -> Any:
    if isinstance(value, dict):
        return sliced(value, rows, chosen)
    if isinstance(value, Tensor):
        return value[chosen] if value.ndim and len(value) == rows else value
    if isinstance(value, list):
        if len(value) != rows:
            return value
        return value[chosen] if isinstance(chosen, slice) else [value[k] for k in chosen.tolist()]
    return value


def prediction_of(output: Any) -> Tensor:
    """Return what a network predicts, rows first."""
    first = output[0]
    return torch.stack(list(first)) if isinstance(first, (list, tuple)) else first


def with_prediction(output: Any, prediction: Tensor) -> Any:
    """Return a network's output with another prediction, in the same form."""
    whole: Sequence[Tensor] | Tensor = prediction
    if isinstance(output[0], (list, tuple)):
        whole = list(prediction.unbind(0))
    return (whole, *output[1:]) if isinstance(output, tuple) else type(output)(whole)
