"""The text embeddings among a denoiser's arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from eddy_bench.errors import ModelError
from eddy_bench.sampling.families import Family

# From a group's number, embeddings (N, tokens, width) and mask (N, tokens) to embeddings.
Change = Callable[[int, Tensor, Tensor], Tensor]


def conditioned(
    arguments: dict[str, Any], family: Family, chosen: slice, count: int, change: Change
) -> dict[str, Any]:
    """Return the arguments of a denoiser that change with its text embeddings.

    Args:
        arguments: of the call, by name.
        family: whose embeddings are known.
        chosen: the conditional rows.
        count: particles per group.
        change: of a group.

    """
    changed: dict[str, Any] = {}
    for path, mask_name in family.embeddings:
        name, _, key = path.partition(".")
        holder: Any = changed.get(name, arguments.get(name))
        value = (holder or {}).get(key) if key else holder
        if value is None:
            continue
        mask = arguments.get(mask_name) if mask_name else None
        new = _changed(value, mask, chosen, count, change)
        changed[name] = {**holder, key: new} if key else new
    if not changed:
        raise ModelError(f"{family.class_name} has no text embeddings here that could be changed.")
    return changed


def _changed(value: Any, mask: Any, chosen: slice, count: int, change: Change) -> Any:
    """Return an embedding with its chosen rows changed, group by group."""
    if isinstance(value, list):
        rows = value[chosen]
        new = [
            row
            for start in range(0, len(rows), count)
            for row in _of_group(
                torch.stack(rows[start : start + count]), None, start // count, change
            )
        ]
        return [*value[: chosen.start], *new, *value[chosen.stop :]]
    whole = value.clone()
    rows = value[chosen]
    masks = None if mask is None else mask[chosen]
    for start in range(0, len(rows), count):
        part = slice(start, start + count)
        whole[chosen.start + start : chosen.start + start + count] = _of_group(
            rows[part], None if masks is None else masks[part], start // count, change
        )
    return whole


def _of_group(rows: Tensor, mask: Tensor | None, group: int, change: Change) -> Tensor:
    """Return the changed embeddings of a group, its padding as it was."""
    tokens = rows[:, None] if rows.ndim == 2 else rows
    kept = tokens.abs().amax(-1) > 0  # tokens that are 0 are padding
    if mask is not None and tokens is rows:
        kept = kept & (mask.reshape(len(mask), -1)[:, : tokens.shape[1]] > 0)
    new = change(group, tokens, kept).to(tokens)
    if new.shape != tokens.shape:
        raise ValueError(f"Expected embeddings of shape {tuple(tokens.shape)}, got {new.shape}")
    return torch.where(kept[..., None], new, tokens).reshape(rows.shape)
