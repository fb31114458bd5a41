"""Finished latents of a prompt's earlier seeds, drawn again where they are not at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eddy_bench.errors import ParameterError

# (prompts, a seed, what they see of earlier seeds) to finished latents (G, N, d)
Draw = Callable[[Sequence[str], int, Tensor | None], Tensor]


@dataclass
class EarlierSeeds:
    """Hold finished latents by prompt and seed, for as long as the prompt is being drawn.

    They are a cache alone: what is missing is drawn, seed by seed, in a batch of as many prompts,
    so that a group is the same whatever was drawn before it in this process.

    Args:
        draw: what draws groups, one per prompt, all of the same seed.

    """

    draw: Draw
    kept: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def before(self, prompts: Sequence[str], seed: int) -> Tensor | None:
        """Return the finished latents of all seeds below this one, (G, seed N, d); None at 0."""
        self.kept = {key: latents for key, latents in self.kept.items() if key[0] in prompts}
        for earlier in range(seed):
            lacking = [
                prompt for prompt in dict.fromkeys(prompts) if (prompt, earlier) not in self.kept
            ]
            if lacking:
                padded = lacking + [lacking[-1]] * (len(prompts) - len(lacking))
                seen = self._stacked(padded, earlier)
                self.keep(padded, earlier, self.draw(padded, earlier, seen))
        return self._stacked(prompts, seed)

    def keep(self, prompts: Sequence[str], seed: int, finished: Tensor) -> None:
        """Keep the finished latents (G, N, d) of groups."""
        for prompt, latents in zip(prompts, finished.float().cpu(), strict=True):
            self.kept[prompt, seed] = latents

    def _stacked(self, prompts: Sequence[str], seed: int) -> Tensor | None:
        if not seed:
            return None
        return torch.stack(
            [torch.cat([self.kept[prompt, past] for past in range(seed)]) for prompt in prompts]
        )


def common_seed(seeds: Sequence[int], method: str) -> int:
    """Return the seed of a batch under a method that remembers earlier ones.

    Raises:
        ParameterError: there are several.

    """
    if len(set(seeds)) > 1:
        raise ParameterError(
            f"Expected one seed for all prompts of a batch under {method}, which sees earlier "
            f"seeds, got {sorted(set(seeds))}. Draw them one after another."
        )
    return seeds[0]
