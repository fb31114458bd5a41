"""The denoiser's forward pass, with a method's hand on text embeddings and branches of guidance.

Every pipeline forms null + w (cond - null) from what its network returns. Where the network sees
both branches in one batch, a changed output stands in both halves; where it is called twice, it is
written over the conditional output too. Either way the pipeline's own formula gives it back bit for
bit, whatever its w.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from eddy_bench.errors import ModelError
from eddy_bench.sampling.arguments import (
    Arguments,
    prediction_of,
    rows_in,
    sliced,
    with_prediction,
)
from eddy_bench.sampling.branch_checks import check_known, denoiser, no_guidance
from eddy_bench.sampling.embeddings import conditioned
from eddy_bench.sampling.families import Family, family_of
from eddy_bench.sampling.hooks import Hooks
from eddy_bench.sampling.injection import replaced
from eddy_bench.sampling.state import Moment
from eddy_bench.sampling.step import SteeredStep


@dataclass
class Branches:
    """Stand in for a denoiser's `forward`.

    Args:
        forward: the network's own.
        signature: of `forward`.
        method: whose hooks are called.
        family: of the pipeline.
        step: where the call stands.
        rows: latents of the present call.
        scale: w of the present call.
        guided: a null branch was seen.
        held: output of the conditional branch of separate calls, until the null branch comes.
        particles: rows per prompt where `steer` was told; None where each call says it.

    """

    forward: Callable[..., Any]
    signature: inspect.Signature
    method: Hooks
    family: Family
    step: SteeredStep
    rows: int = 0
    scale: float = 1.0
    guided: bool = False
    held: tuple[int, Tensor] | None = None
    particles: int | None = None

    def begin(self, arguments: dict[str, Any]) -> None:
        """Take note of a call of the pipeline, by its arguments."""
        prompts = arguments.get("prompt")
        if prompts is None:
            prompts = arguments.get("prompt_embeds")
        count = 1 if isinstance(prompts, str) or prompts is None else len(prompts)
        each = arguments.get("num_images_per_prompt") or 1
        self.rows = count * int(each)
        self.step.particles = self.particles or int(each)
        self.scale = self.family.weight(arguments)
        self.guided, self.held = False, None
        self.step.begin()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate the network."""
        names = list(self.signature.parameters)[: len(args)]
        given = Arguments({**dict(zip(names, args, strict=True)), **kwargs}, len(args))
        rows = rows_in(given.sample)
        if self.step.record.living is not None and rows % self.rows == 0:
            return self._of_living(given, rows, self.step.record.living.flatten())
        moment = self.step.moment(self.scale if self.scale != 1 else None)
        batched = self.family.guidance_rows in ("null first", "null last")
        if batched and rows == 2 * self.rows:
            return self._both(given, moment)
        if rows != self.rows:
            raise ModelError(
                f"Expected {self.rows} or {2 * self.rows} rows in the network of "
                f"{self.family.class_name}, got {rows}. This method cannot be used here."
            )
        if self.held is not None and self.held[0] == self.step.record.steps:
            return self._null(given, moment, self.held[1])
        output = self._evaluate(given, slice(0, rows), moment)
        if self.family.guidance_rows == "separate calls":
            self.held = self.step.record.steps, prediction_of(output)
        return output

    def check(self) -> None:
        """Raise ModelError before a step where there is no guidance to change."""
        if self.method.reguides and not self.guided:
            raise no_guidance(self.family)

    def _of_living(self, given: Arguments, rows: int, living: Tensor) -> Any:
        """Evaluate the network on the particles that are left.

        The others get the prediction of one that is left, which keeps them finite.
        """
        alive = living.repeat(rows // self.rows)
        kept = alive.nonzero()[:, 0]
        given.values.update(sliced(given.values, rows, kept))
        output = given.call(self.forward)
        prediction = prediction_of(output)
        source = (alive.long().cumsum(0) - 1).clamp_min(0).to(prediction.device)
        self.step.record.rows_saved += rows - len(kept)
        return with_prediction(output, prediction[source])

    def _evaluate(self, given: Arguments, chosen: slice, moment: Moment) -> Any:
        """Evaluate the network, with `chosen` rows as the conditional ones."""
        if self.method.conditions:
            count = self.step.count(self.rows)
            streams = self.step.streams_of(self.rows)

            def change(group: int, embeds: Tensor, mask: Tensor) -> Tensor:
                own = replace(moment, streams=streams[group * count : (group + 1) * count])
                return self.method.condition(embeds, mask, own)

            given.values.update(conditioned(given.values, self.family, chosen, count, change))
        return given.call(self.forward)

    def _wanted(self, moment: Moment) -> float | None:
        """Return w where guidance is changed; None where it is left alone."""
        if self.step.starting:
            return 1.0
        if not self.method.reguides:
            return None
        scale = self.method.guidance_scale(moment)
        return self.scale if scale is None and self.method.combines else scale

    def _alone(self, wanted: float | None) -> bool:
        """Return whether the conditional branch is all that is wanted."""
        return wanted == 1 and (self.step.starting or not self.method.combines)

    def _both(self, given: Arguments, moment: Moment) -> Any:
        """Evaluate both branches in one batch, or the conditional one where w = 1."""
        self.guided = True
        first = self.family.guidance_rows == "null last"
        chosen = slice(0, self.rows) if first else slice(self.rows, 2 * self.rows)
        wanted = self._wanted(moment)
        if self._alone(wanted):
            given.values.update(sliced(given.values, 2 * self.rows, chosen))
            output = self._evaluate(given, slice(0, self.rows), moment)
            self.step.record.rows_saved += self.rows
            prediction = prediction_of(output)
            return with_prediction(output, torch.cat([prediction, prediction]))
        output = self._evaluate(given, chosen, moment)
        if wanted is None:
            return output
        halves = prediction_of(output).split(self.rows)
        conditional, null = halves if first else halves[::-1]
        guided = self._guided(conditional, null, wanted, moment, given)
        return with_prediction(output, torch.cat([guided, guided]))

    def _null(self, given: Arguments, moment: Moment, conditional: Tensor) -> Any:
        """Evaluate the null branch of separate calls, unless w = 1."""
        self.guided, self.held = True, None
        wanted = self._wanted(moment)
        if self._alone(wanted):
            self.step.record.rows_saved += self.rows
            return (conditional,)
        output = given.call(self.forward)
        if wanted is None:
            return output
        guided = self._guided(conditional, prediction_of(output), wanted, moment, given)
        conditional.copy_(guided)
        return with_prediction(output, guided)

    def _guided(
        self,
        conditional: Tensor,
        null: Tensor,
        scale: float,
        moment: Moment,
        given: Arguments,
    ) -> Tensor:
        """Return the guided output; channels that predict a variance stay the conditional ones."""
        guided = null + scale * (conditional - null)
        if self.method.combines:
            guided = self._combined(conditional, null, scale, moment, given.sample)
        if self.family.renormalises:
            lengths = (torch.norm(part, dim=-1, keepdim=True) for part in (conditional, guided))
            guided = guided * torch.div(*lengths)
        return guided

    def _combined(
        self, conditional: Tensor, null: Tensor, scale: float, moment: Moment, sample: Any
    ) -> Tensor:
        """Return the output of the denoised estimate that a method makes of the branches'.

        At noise level 0 the estimate is the sample, whatever the output: guidance is the usual one.
        """
        space, sign = self.step.coordinates().of_network, -1 if self.family.negated else 1
        if space.slope == 0:
            return null + scale * (conditional - null)
        whole = sample if isinstance(sample, Tensor) else torch.stack(list(sample))
        x, count = whole[: self.rows].double(), self.step.count(self.rows)
        parts = [sign * part[:, : x.shape[1]].double() for part in (conditional, null)]
        own, other = (space.read(x, part)[2].reshape(-1, count, part[0].numel()) for part in parts)
        change = (self.method.combine(own, other, scale, moment) - own) / (sign * space.slope)
        guided = conditional.clone()
        guided[:, : x.shape[1]] += change.reshape(x.shape).to(guided)
        return guided


@contextmanager
def steered_branches(pipe: Any, method: Hooks, step: SteeredStep) -> Iterator[None]:
    """Let a method act on embeddings and branches inside the block; nothing where it does not.

    Raises:
        ModelError: it is not known how this pipeline's network sees them.

    """
    if not (method.conditions or method.reguides or method.prunes or method.extra_starts):
        yield
        return
    family = family_of(pipe)
    check_known(family, method)
    network = denoiser(pipe)
    signature = inspect.signature(type(network).forward.__get__(network))  # hooks may hide it
    branches = Branches(network.forward, signature, method, family, step, particles=step.particles)
    step.branches, step.announced = branches, True

    @functools.wraps(network.forward)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return branches(*args, **kwargs)

    with ExitStack() as stack:
        stack.enter_context(watched_call(pipe, branches.begin))
        stack.enter_context(replaced(network, "forward", forward))
        yield


@contextmanager
def watched_call(pipe: Any, seen: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Tell `seen` the arguments of each call of a pipeline, defaults included."""
    own = type(pipe)
    signature = inspect.signature(own.__call__)

    @functools.wraps(own.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        seen(dict(bound.arguments))
        return own.__call__(self, *args, **kwargs)

    pipe.__class__ = type(own.__name__, (own,), {"__call__": call, "__module__": own.__module__})
    try:
        yield
    finally:
        pipe.__class__ = own
