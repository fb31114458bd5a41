"""DAVE: weaker common parts of features at the beginning (arXiv 2606.06813, ICML 2026)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from eddy_bench.errors import ParameterError
from eddy_bench.methods.base import Strength
from eddy_bench.methods.couplings import StartedMethod
from eddy_bench.sampling.hooks import Block
from eddy_bench.sampling.state import StepInfo

# Block, a and tau by pipeline, as published
PUBLISHED = {
    "StableDiffusion3Pipeline": (5, 0.5, 0.15),
    "FluxPipeline": (30, 0.2, 0.2),
    "SanaPipeline": (13, 0.2, 0.2),
}
ELSEWHERE = 0.5, 0.2  # a and tau; ours


@dataclass(frozen=True)
class Dave(StartedMethod):
    """h + (a - 1) mean h leaves a block of the network in the first steps, h its image tokens.

    The mean is over the image tokens of a row, so what they have in common becomes a times as
    large; the rows of the null branch are scaled too. The published block, a and tau are Stable
    Diffusion 3 and 3.5: 5, 0.5, 0.15; FLUX.1: 30 (double and single blocks counted through), 0.2,
    0.2; SANA: 13, 0.2, 0.2. Ours: on other transformers, and on networks of fewer blocks, the
    middle block; a = 0.5 and tau = 0.2; on a U-Net the middle block with the mean over its pixels.
    The paper's argument is about transformers.

    Args:
        a: how much of the mean is kept; 1 is off, None the published value.
        tau: share of the steps, from the first, in which it acts; None the published value.
        block: from 0; None the published one.
    """

    a: Strength | None = None
    tau: Annotated[float, Field(ge=0, le=1)] | None = None
    block: Annotated[int, Field(ge=0)] | None = None

    name = "dave"
    summary = "a weaker mean of one block's features, early; another law"
    citation = "arXiv 2606.06813"
    interacts = False
    audited = False  # exact tasks have no network
    sweep = "a"

    @property
    def acting(self) -> frozenset[str]:
        """The hooks that change something: with a = 1 none."""
        return super().acting if self.a != 1 else frozenset()

    def edited_block(self, pipeline: str, count: int) -> int:
        """Return the block that was set, or the published one."""
        if self.block is not None and self.block >= count:
            raise ParameterError(
                f"Expected block of dave below {count}, the blocks of {pipeline}'s network, "
                f"got {self.block}. Lower it, or leave it out."
            )
        if self.block is not None:
            return self.block
        published = PUBLISHED.get(pipeline, (count,))[0]
        return published if published < count else count // 2

    def features_of(self, block: Block, tokens: Tensor, info: StepInfo) -> Tensor:
        """Return the image tokens with their mean scaled, (rows, tokens, width)."""
        a, tau = PUBLISHED.get(block.pipeline, (0, *ELSEWHERE))[1:]
        if info.share >= (tau if self.tau is None else self.tau):
            return tokens
        wide = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
        mean = wide.mean(1, keepdim=True)
        return tokens + (((a if self.a is None else self.a) - 1) * mean).to(tokens)
