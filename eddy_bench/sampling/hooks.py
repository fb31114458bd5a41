"""Where a method may act on a pipeline: neutral hooks, each left alone unless it is overridden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from eddy_bench.sampling.state import State, StepInfo


@dataclass(frozen=True)
class Block:
    """A block of a denoising network.

    Attributes:
        pipeline: name of the pipeline's class.
        index: of the block, in the order of evaluation; of a U-Net the middle one is the only one.
        count: of the network's blocks.
    """

    pipeline: str
    index: int
    count: int


HOOKS = (
    "guidance",
    "initial_noise",
    "initial_field",
    "improved_start",
    "restart_noise",
    "step_noise",
    "active",
    "condition",
    "features_of",
    "guidance_scale",
    "combine",
)


class _Overridden:
    """The names of the hooks that a class overrides, or an instance, whenever that was done."""

    def __get__(self, instance: Any, owner: type[Hooks]) -> frozenset[str]:
        own = getattr(instance, "__dict__", {})
        return frozenset(
            name
            for name in HOOKS
            if name in own or getattr(owner, name) is not getattr(Hooks, name)
        )


def _by(*hooks: str) -> Any:
    """Return a property: whether one of some hooks changes something."""
    return property(lambda self: self.acts_by(*hooks))


class Hooks:
    """Leave everything as it is.

    Attributes:
        hooks: names of the hooks that a class or an instance overrides.
        min_particles: fewer are an error.
        interacts: the particles of a group depend on each other.
        selects: more are drawn than are kept.
        couples_start: the particles of a group start from dependent noise.
        couples_steps: the step noise of a group is dependent, which needs a stochastic solver.
        changes_start: the initial noise is changed, coupled or not.
        conditions: text embeddings are changed, which needs a family whose embeddings are known.
        edits_features: the output of a block of the network is edited, which needs known blocks.
        combines: branches of guidance are combined in another way than null + w (c - null).
        reguides: classifier-free guidance is changed, which needs a model that has it.
        prunes: some particles are given up on the way.
        remembers: a group sees the finished latents of its prompt's earlier seeds.
    """

    hooks = _Overridden()
    min_particles: ClassVar[int] = 1
    interacts: ClassVar[bool] = True
    selects: ClassVar[bool] = False
    couples_start = _by("initial_noise")
    couples_steps = _by("step_noise")
    changes_start = _by("initial_noise", "initial_field")
    conditions = _by("condition")
    edits_features = _by("features_of")
    combines = _by("combine")
    reguides = _by("combine", "guidance_scale")
    prunes = _by("active")
    remembers = property(lambda self: False)

    @property
    def acting(self) -> frozenset[str]:
        """The hooks that change something with this method's parameters."""
        return self.hooks

    def acts_by(self, *hooks: str) -> bool:
        """Return whether one of some hooks changes something."""
        return not self.acting.isdisjoint(hooks)

    @property
    def takes_steps(self) -> bool:
        """Whether the loop goes through more steps than the solver's own."""
        return bool(self.extra_starts or self.restarts)

    @property
    def changes_network(self) -> bool:
        """Whether what the network sees or returns is changed."""
        return self.conditions or self.reguides or self.prunes or self.extra_starts > 0

    @property
    def reads_state(self) -> bool:
        """Whether the solver's state is looked at, which needs a scheduler that is known."""
        start = {"initial_noise", "initial_field"}
        return bool(self.acting - start) or self.takes_steps

    def guidance(self, state: State) -> Tensor | None:
        """Return the score term g, (G, N, d), for the solver's step; None leaves the step alone."""
        return None

    def initial_noise(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return the starting noise of a group from independent normal noise, both (N, d)."""
        return noise

    def initial_field(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return the starting noise of a group as a pipeline draws it, (N, channels, h, w)."""
        return self.initial_noise(noise.flatten(1), generator).reshape(noise.shape)

    @property
    def extra_starts(self) -> int:
        """How many network evaluations at the first noise level `improved_start` is given."""
        return 0

    def improved_start(self, noise: Tensor, state: State) -> Tensor:
        """Return a better starting noise, after an evaluation of the network on the last one.

        Args:
            noise: (G, N, *shape), a particle's shape as the solver holds it.
            state: at the first noise level, with the denoised estimates of `noise` by the
                conditional branch alone. Its memory lasts.

        Returns:
            Of the shape of `noise`; `noise` itself leaves it.
        """
        return noise

    @property
    def restarts(self) -> tuple[tuple[float, float, int], ...]:
        """(low, high, times) of noise levels sigma: from low back to high, and down again."""
        return ()

    def restart_noise(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return the noise of a restart of a group from independent normal noise, both (N, d)."""
        return noise

    def step_noise(self, noise: Tensor, state: State) -> Tensor:
        """Return the noise of a stochastic step from independent normal noise, both (G, N, d)."""
        return noise

    def active(self, state: State, active: Tensor, keep: int) -> Tensor:
        """Return which particles go on after a step: the network is run on them alone.

        Args:
            state: of all particles; what it holds of those given up means nothing.
            active: (G, N), bool.
            keep: how many are wanted of each group in the end.

        Returns:
            (G, N), bool, with as many in each group, and `keep` after the last step.
        """
        return active

    def condition(self, embeds: Tensor, mask: Tensor, info: StepInfo) -> Tensor:
        """Return what the conditional branch sees in the place of a group's text embeddings.

        It is called before each network evaluation with the embeddings as they were encoded, once
        for each of a model's text embeddings; padding is put back afterwards.

        Args:
            embeds: (N, tokens, width); a pooled embedding is one token.
            mask: (N, tokens), True where a token is no padding.
            info: of the evaluation; `info.noise` draws from the particles' own streams.
        """
        return embeds

    def edited_block(self, pipeline: str, count: int) -> int:
        """Return which of a network's `count` blocks `features_of` is called for."""
        return count // 2

    def features_of(self, block: Block, tokens: Tensor, info: StepInfo) -> Tensor:
        """Return the image tokens that leave a block of the network.

        It is called at each network evaluation, with the rows of every branch of guidance that
        goes through the network at once.

        Args:
            block: that they leave.
            tokens: (rows, tokens, width); of a U-Net's middle block the pixels are the tokens.
            info: of the evaluation.
        """
        return tokens

    def guidance_scale(self, info: StepInfo) -> float | None:
        """Return w of null + w (conditional - null) for this evaluation; None leaves it alone.

        At 1 only the conditional branch is evaluated.
        """
        return None

    def combine(self, conditional: Tensor, null: Tensor, scale: float, info: StepInfo) -> Tensor:
        """Return the guided denoised estimate from those of the two branches.

        So it means the same whatever the network predicts.

        Args:
            conditional: E[x0 | x, prompt], (G, N, d), float64. null: that without the prompt.
            scale: w of this evaluation.
            info: of the evaluation.
        """
        return null + scale * (conditional - null)
