"""Prompts that are longer than a model's tokenizers take, which a pipeline cuts without a word."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers.utils import logging

NO_LIMIT = 10**6  # tokenizers without a limit name a very large one
CLIP = 77


def cut_prompts(pipe: Any, texts: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return by tokenizer how many of some prompts it cuts, and after how many tokens.

    Args:
        pipe: a pipeline; one without tokenizers cuts nothing.
        texts: prompts.

    Returns:
        (prompts cut, tokens that are left) by the name of the tokenizer, in the pipeline's order.

    """
    found = {}
    for name, tokenizer in tokenizers_of(pipe).items():
        limit = limit_of(pipe, tokenizer)
        if limit is not None:
            lengths = (_length(tokenizer, text) for text in texts)
            found[name] = sum(length > limit for length in lengths), limit
    return found


def cut_text(found: dict[str, tuple[int, int]], count: int) -> str:
    """Return the line that says which of `count` prompts were cut; empty where none was."""
    if not any(cut for cut, _ in found.values()):
        return ""
    parts = [
        f"{cut} of {count} pass the {limit} tokens of {name}"
        for name, (cut, limit) in found.items()
    ]
    return f"prompts are cut: {', '.join(parts)}. The model does not see the rest."


def tokenizers_of(pipe: Any) -> dict[str, Any]:
    """Return a pipeline's tokenizers by name."""
    components = getattr(pipe, "components", {})
    return {
        name: part
        for name, part in components.items()
        if name.startswith("tokenizer") and callable(part)
    }


def limit_of(pipe: Any, tokenizer: Any) -> int | None:
    """Return after how many tokens a pipeline cuts what a tokenizer returns; None: it does not.

    CLIP's and BERT's have a limit of their own; what a pipeline's call takes as
    `max_sequence_length` is that of the others.
    """
    own = getattr(tokenizer, "model_max_length", None)
    limits = [own] if isinstance(own, int) and own < NO_LIMIT else []
    known = inspect.signature(type(pipe).__call__).parameters.get("max_sequence_length")
    asked = known.default if known is not None else None
    if isinstance(asked, int) and (own is None or own > CLIP):
        limits.append(asked)
    return min(limits, default=None)


def _length(tokenizer: Any, text: str) -> int:
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # it warns of the length that is asked for here
    try:
        ids = tokenizer(text=text, truncation=False)["input_ids"]  # a processor has rows of them
        return torch.as_tensor(ids).numel()
    finally:
        logging.set_verbosity(level)
