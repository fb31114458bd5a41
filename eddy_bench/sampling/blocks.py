"""The output of a block of the denoiser, with a method's hand on its image tokens."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from eddy_bench.sampling.branch_checks import blocks_of, denoiser
from eddy_bench.sampling.branches import watched_call
from eddy_bench.sampling.families import Family, family_of
from eddy_bench.sampling.hooks import Block, Hooks
from eddy_bench.sampling.step import SteeredStep


@dataclass
class EditedBlock:
    """A hook on a block that lets a method edit its image tokens.

    Args:
        method: whose hook is called.
        block: that it is on.
        family: of the pipeline.
        network: that the block belongs to.
        step: where the call stands.
        scale: w of the present call's guidance.
        arguments: of the network's present evaluation.

    """

    method: Hooks
    block: Block
    family: Family
    network: torch.nn.Module
    step: SteeredStep
    scale: float = 1.0
    arguments: dict[str, Any] = field(default_factory=dict)

    def begin(self, arguments: dict[str, Any]) -> None:
        """Take note of a call of the pipeline, by its arguments."""
        self.scale = self.family.weight(arguments)
        self.step.begin()

    def note(self, network: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take note of an evaluation of the network, by its arguments."""
        names = inspect.signature(type(network).forward).parameters
        self.arguments = {**dict(zip(list(names)[1:], args, strict=False)), **kwargs}

    def __call__(self, module: torch.nn.Module, args: Any, output: Any) -> Any:
        """Return a block's output with its image tokens edited."""
        if isinstance(output, tuple):  # a stream of text and one of the image
            place = 0 if self.family.image_tokens == "first" else 1
            return (*output[:place], self._edited(output[place]), *output[place + 1 :])
        if output.ndim == 4:  # pixels
            tokens = output.flatten(2).mT
            return self._edited(tokens).mT.reshape(output.shape)
        count = self.image_tokens
        if output.shape[1] == count:
            return self._edited(output)
        return self._within(output, self._starts(output, count), count)

    def _edited(self, tokens: Tensor) -> Tensor:
        moment = self.step.moment(self.scale if self.scale != 1 else None)
        return self.method.features_of(self.block, tokens, moment).to(tokens)

    def _within(self, output: Tensor, starts: list[int], count: int) -> Tensor:
        """Return a sequence with `count` tokens of each row edited, from its start on."""
        parts = [row[start : start + count] for row, start in zip(output, starts, strict=True)]
        edited, whole = self._edited(torch.stack(parts)), output.clone()
        for row, start, part in zip(whole, starts, edited, strict=True):
            row[start : start + count] = part
        return whole

    def _starts(self, output: Tensor, count: int) -> list[int]:
        """Return where the image begins in each row of a sequence that holds text too."""
        if self.family.image_tokens == "after text":
            lengths: list[int] = self.arguments["encoder_attention_mask"].sum(1).tolist()
            return lengths
        start = 0 if self.family.image_tokens == "first" else output.shape[1] - count
        return [start] * len(output)

    @property
    def image_tokens(self) -> int:
        """The number of tokens of an image in the present evaluation."""
        sample = next(iter(self.arguments.values()))
        if isinstance(sample, Tensor) and sample.ndim == 3:  # packed
            return int(sample.shape[1])
        config: Any = self.network.config
        patch = config.patch_size if "patch_size" in config else config.all_patch_size[0]
        pixels = math.prod(sample[0].shape[1:])
        return int(pixels // patch**2)


@contextmanager
def edited_features(pipe: Any, method: Hooks, step: SteeredStep) -> Iterator[None]:
    """Let a method act on the output of a block inside the block; nothing where it does not.

    Raises:
        ModelError: the blocks of this pipeline's network are not known.

    """
    if not method.edits_features:
        yield
        return
    family, network = family_of(pipe), denoiser(pipe)
    blocks = blocks_of(pipe, family)
    index = method.edited_block(family.class_name, len(blocks))
    hook = EditedBlock(method, Block(family.class_name, index, len(blocks)), family, network, step)
    step.announced = True
    handles = [
        network.register_forward_pre_hook(hook.note, with_kwargs=True),
        blocks[index].register_forward_hook(hook),
    ]
    try:
        with watched_call(pipe, hook.begin):
            yield
    finally:
        for handle in handles:
            handle.remove()
