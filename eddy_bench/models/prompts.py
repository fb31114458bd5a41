"""Prompts of a pipeline: each is encoded once, and longer ones are cut."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from eddy_bench.models.devices import synchronize
from eddy_bench.sampling.families import family_of

MOST_BYTES = 2 * 2**30
Setting = tuple[tuple[str, str], ...]  # what an embedding depends on beside the prompts
Prompts = tuple[str, ...]  # of the call, where the other prompts change an embedding
Key = tuple[str, int, Setting, Prompts]


@dataclass(frozen=True)
class Layout:
    """How `encode_prompt` returns its outputs."""

    # of one prompt in each output; None where an output is of no prompt (position ids)
    rows: tuple[int | None, ...]
    single: bool  # one output, not a tuple of them
    device: torch.device  # of the outputs


@dataclass
class PromptCache:
    """Stand in for a pipeline's `encode_prompt`; a prompt that comes again comes from memory.

    What is returned equals what the pipeline returns bit for bit: prompts are encoded in batches
    of the call's own size, since another size would change the last digits, and other rows of a
    batch do not. Where a pipeline pads to the longest prompt of a batch, or it is not known how
    it pads, only a call of the same prompts comes from memory.
    """

    encode: Callable[..., Any]  # the pipeline's own
    by_prompt: bool  # the length of an embedding does not depend on the batch
    most_bytes: int = MOST_BYTES  # kept in main memory; what comes later is encoded each time
    seconds: float = 0.0  # spent encoding
    parts: dict[Key, list[Any]] = field(default_factory=dict)
    layouts: dict[tuple[Setting, Prompts], Layout] = field(default_factory=dict)
    held: int = 0
    unkept: int = 0  # encodings since this was last 0 that did not fit, and are made each time

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the pipeline's `encode_prompt` returns."""
        bound = inspect.signature(self.encode).bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments.get("prompt")
        prompts = [given] if isinstance(given, str) else list(given or ())
        setting = _setting(bound.arguments, len(prompts))
        if not prompts or setting is None:
            return self._timed(*args, **kwargs)
        shared = () if self.by_prompt else tuple(prompts)
        keys = {text: (text, len(prompts), setting, shared) for text in prompts}
        new = [text for text, key in keys.items() if key not in self.parts]
        fresh: dict[str, list[Any]] = {}
        if new:
            batch = [*new, *[new[-1]] * (len(prompts) - len(new))] if self.by_prompt else prompts
            # a copy, since some pipelines write into it
            bound.arguments["prompt"] = given if isinstance(given, str) else list(batch)
            outputs = self._timed(*bound.args, **bound.kwargs)
            images = bound.arguments.get("num_images_per_prompt") or 1
            layout = self.layouts[setting, shared] = _layout(outputs, len(batch), images)
            fresh = {text: _of_prompt(outputs, layout, batch.index(text)) for text in new}
            for text, parts in fresh.items():
                self._keep(keys[text], parts)
        rows = [fresh.get(text) or self.parts[keys[text]] for text in prompts]
        return _joined(rows, self.layouts[setting, shared])

    def _timed(self, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        outputs = self.encode(*args, **kwargs)
        each = outputs if isinstance(outputs, tuple) else (outputs,)
        for device in {value.device for part in each for value in _tensors(part)}:
            synchronize(device)
        self.seconds += time.perf_counter() - start
        return outputs

    def _keep(self, key: Key, parts: list[Any]) -> None:
        tensors = [value for part in parts for value in _tensors(part)]
        size = sum(value.nbytes for value in tensors)
        if self.held + size > self.most_bytes:
            self.unkept += 1
            return
        self.parts[key] = [_moved(part, torch.device("cpu")) for part in parts]
        self.held += size


def remember_prompts(pipe: Any) -> PromptCache | None:
    """Let a pipeline encode each prompt once; None where it has no `encode_prompt`."""
    if not hasattr(pipe, "encode_prompt"):
        return None
    cache = PromptCache(pipe.encode_prompt, not family_of(pipe).pads_to_longest)

    @functools.wraps(pipe.encode_prompt)
    def encode(*args: Any, **kwargs: Any) -> Any:
        return cache(*args, **kwargs)

    pipe.encode_prompt = encode
    return cache


def _setting(arguments: dict[str, Any], count: int) -> Setting | None:
    """Return everything but the prompts that an embedding depends on; None where rows differ."""
    setting = []
    for name, value in arguments.items():
        if name == "prompt":
            continue
        rows = value if isinstance(value, (list, tuple)) else [value]
        if any((row and isinstance(row, (list, dict))) or isinstance(row, Tensor) for row in rows):
            return None
        if isinstance(value, list) and len(value) == count:
            if len(set(rows)) > 1:
                return None
            value = rows[0]
        setting.append((name, repr(value)))
    return tuple(setting)


def _layout(outputs: Any, prompts: int, images: int) -> Layout:
    single = not isinstance(outputs, tuple)
    each = [outputs] if single else list(outputs)
    known = {prompts: 1, prompts * images: images}
    rows = [known.get(len(part)) if isinstance(part, (Tensor, list)) else None for part in each]
    tensors = [value for part in each for value in _tensors(part)]
    return Layout(tuple(rows), single, tensors[0].device)


def _of_prompt(outputs: Any, layout: Layout, k: int) -> list[Any]:
    """Return the rows of prompt `k` in each output; of rows that are equal the first."""
    parts = []
    for output, rows in zip([outputs] if layout.single else outputs, layout.rows, strict=True):
        part = output if rows is None else output[k * rows : (k + 1) * rows]
        if rows and isinstance(part, Tensor) and torch.equal(part, part[:1].expand_as(part)):
            part = part[:1]
        parts.append(part)
    return parts


def _joined(prompts: Sequence[list[Any]], layout: Layout) -> Any:
    """Return the outputs for some prompts, on the device that the pipeline asked for.

    What was encoded just now is there, what is remembered is in main memory.
    """
    outputs: list[Any] = []
    for k, rows in enumerate(layout.rows):
        parts = [_moved(prompt[k], layout.device) for prompt in prompts]
        if rows is None:
            joined = parts[0]
        elif isinstance(parts[0], Tensor):
            joined = torch.cat([part.expand(rows, *part.shape[1:]) for part in parts])
        else:
            joined = [value for part in parts for value in part]
        outputs.append(joined)
    return outputs[0] if layout.single else tuple(outputs)


def _tensors(part: Any) -> list[Tensor]:
    values = part if isinstance(part, list) else [part]
    return [value for value in values if isinstance(value, Tensor)]


def _moved(part: Any, device: torch.device) -> Any:
    """Return a copy of the tensors on a device."""
    if isinstance(part, list):
        return [_moved(value, device) for value in part]
    return part.to(device, copy=True) if isinstance(part, Tensor) else part


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
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # it warns of the length that is asked for here
    try:
        ids = tokenizer(text=text, truncation=False)["input_ids"]  # a processor has rows of them
        return torch.as_tensor(ids).numel()
    finally:
        logging.set_verbosity(level)
