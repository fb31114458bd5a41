"""The output of a block of the denoiser, with a method's hand on its image tokens."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from eddy_bench.sampling.branch_checks import blocks_of
from eddy_bench.sampling.call import Call
from eddy_bench.sampling.extra_steps import settle
from eddy_bench.sampling.families import Family
from eddy_bench.sampling.hooks import Block

Edit = Callable[[Tensor], Tensor]  # image tokens (rows, tokens, width) to the same


@contextmanager
def edited_block(call: Call, network: torch.nn.Module) -> Iterator[None]:
    """Let a method edit the image tokens that leave a block of the network, inside the block."""
    blocks = blocks_of(call.pipe, call.family)
    name = call.family.class_name
    index = call.method.edited_block(name, len(blocks))
    block, evaluation = Block(name, index, len(blocks)), dict[str, Any]()

    def note(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        settle(call)
        names = inspect.signature(type(module).forward).parameters
        evaluation.clear()
        evaluation.update({**dict(zip(list(names)[1:], args, strict=False)), **kwargs})

    def edit(module: torch.nn.Module, args: Any, output: Any) -> Any:
        def edited(tokens: Tensor) -> Tensor:
            call.called.add("features_of")
            return call.method.features_of(block, tokens, call.moment()).to(tokens)

        return edited_tokens(call.family, network, evaluation, output, edited)

    handles = [
        network.register_forward_pre_hook(note, with_kwargs=True),
        blocks[index].register_forward_hook(edit),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def edited_tokens(
    family: Family, network: Any, evaluation: dict[str, Any], output: Any, edit: Edit
) -> Any:
    """Return a block's output with its image tokens edited.

    Args:
        family: of the pipeline.
        network: that the block belongs to.
        evaluation: the network's arguments.
        output: of the block.
        edit: of the image tokens.

    """
    if isinstance(output, tuple):  # a stream of text and one of the image
        place = 0 if family.image_tokens == "first" else 1
        return (*output[:place], edit(output[place]), *output[place + 1 :])
    if output.ndim == 4:  # pixels
        return edit(output.flatten(2).mT).mT.reshape(output.shape)
    count = token_count(network, evaluation)
    if output.shape[1] == count:
        return edit(output)
    starts = _starts(family, evaluation, output, count)
    parts = [row[start : start + count] for row, start in zip(output, starts, strict=True)]
    edited, whole = edit(torch.stack(parts)), output.clone()
    for row, start, part in zip(whole, starts, edited, strict=True):
        row[start : start + count] = part
    return whole


def _starts(family: Family, evaluation: dict[str, Any], output: Tensor, count: int) -> list[int]:
    """Return where the image begins in each row of a sequence that holds text too."""
    if family.image_tokens == "after text":
        lengths: list[int] = evaluation["encoder_attention_mask"].sum(1).tolist()
        return lengths
    start = 0 if family.image_tokens == "first" else output.shape[1] - count
    return [start] * len(output)


def token_count(network: Any, evaluation: dict[str, Any]) -> int:
    """Return the number of tokens of an image in an evaluation of the network."""
    sample = next(iter(evaluation.values()))
    if isinstance(sample, Tensor) and sample.ndim == 3:  # packed
        return int(sample.shape[1])
    config = network.config
    patch = config.patch_size if "patch_size" in config else config.all_patch_size[0]
    return int(math.prod(sample[0].shape[1:]) // patch**2)
