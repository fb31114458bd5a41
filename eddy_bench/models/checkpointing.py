"""Backward passes in less memory: only what enters a block is kept, the rest is computed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from eddy_bench.sampling.replacing import replaced


@contextmanager
def checkpointed(modules: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Let every block of some networks keep its input alone, in forward and backward passes.

    Blocks are the parts of `Sequential` and `ModuleList` that have parts of their own. A block
    within a block is checkpointed too: memory is that of the blocks' inputs and of the innermost
    block, and each level of nesting costs one more forward pass (Chen et al., arXiv 1604.06174).
    Gradients stay what they are bit for bit.
    """
    with ExitStack() as stack:
        for module in modules:
            for block in blocks_of(module):
                stack.enter_context(replaced(block, "forward", _checkpointing(block.forward)))
        yield


def blocks_of(module: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the blocks of a network, each once."""
    chains = (torch.nn.Sequential, torch.nn.ModuleList)
    blocks = (
        part
        for chain in module.modules()
        if isinstance(chain, chains)
        for part in chain
        if any(True for _ in part.children()) and not isinstance(part, torch.nn.ModuleList)
    )
    return list(dict.fromkeys(blocks))


def _checkpointing(forward: Callable[..., Any]) -> Callable[..., Any]:
    def kept(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return kept
