"""The denoiser's forward pass, with a method's hand on text embeddings and branches of guidance.

Every pipeline forms null + w (cond - null) from what its network returns. Where the network sees
both branches in one batch, a changed output stands in both halves; where it is called twice, it is
written over the conditional output too. Either way the pipeline's own formula gives it back bit for
bit, whatever its w.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from eddy_bench.errors import ModelError, ParameterError
from eddy_bench.sampling.arguments import (
    Arguments,
    prediction_of,
    rows_in,
    sliced,
    with_prediction,
)
from eddy_bench.sampling.call import Call, title
from eddy_bench.sampling.embeddings import conditioned
from eddy_bench.sampling.extra_steps import settle
from eddy_bench.sampling.state import Moment

Forward = Callable[..., Any]


def evaluate(
    call: Call, forward: Forward, signature: inspect.Signature, *args: Any, **kwargs: Any
) -> Any:
    """Evaluate the denoiser, with a method's hand on text embeddings and branches of guidance."""
    settle(call)
    names = list(signature.parameters)[: len(args)]
    given = Arguments({**dict(zip(names, args, strict=True)), **kwargs}, len(args))
    rows = rows_in(given.sample)
    if call.active is not None and rows % call.rows == 0:
        return _of_active(call, forward, given, rows, call.active.flatten())
    moment = call.moment()
    batched = call.family.guidance_rows in ("null first", "null last")
    if batched and rows == 2 * call.rows:
        return _both(call, forward, given, moment)
    if rows != call.rows:
        raise ModelError(
            f"Expected {call.rows} or {2 * call.rows} rows in the network of "
            f"{call.family.class_name}, got {rows}. This method cannot be used here."
        )
    if call.held is not None and call.held[0] == call.record.steps:
        return _null(call, forward, given, moment, call.held[1])
    output = _evaluate(call, forward, given, slice(0, rows), moment)
    if call.family.guidance_rows == "separate calls":
        call.held = call.record.steps, prediction_of(output)
    return output


def _of_active(call: Call, forward: Forward, given: Arguments, rows: int, active: Tensor) -> Any:
    """Evaluate the network on the particles that are left.

    The others get the prediction of one that is left, which keeps them finite.
    """
    alive = active.repeat(rows // call.rows)
    kept = alive.nonzero()[:, 0]
    given.values.update(sliced(given.values, rows, kept))
    output = given.call(forward)
    prediction = prediction_of(output)
    source = (alive.long().cumsum(0) - 1).clamp_min(0).to(prediction.device)
    return with_prediction(output, prediction[source])


def _evaluate(call: Call, forward: Forward, given: Arguments, chosen: slice, moment: Moment) -> Any:
    """Evaluate the network, with `chosen` rows as the conditional ones."""
    if call.method.conditions:
        count, streams = call.count(call.rows), call.streams(call.rows)
        call.called.add("condition")

        def change(group: int, embeds: Tensor, mask: Tensor) -> Tensor:
            own = replace(moment, streams=streams[group * count : (group + 1) * count])
            return call.method.condition(embeds, mask, own)

        given.values.update(conditioned(given.values, call.family, chosen, count, change))
    return given.call(forward)


def _wanted(call: Call, moment: Moment) -> float | None:
    """Return w where guidance is changed; None where it is left alone."""
    if call.starting:
        return 1.0
    if not call.method.reguides:
        return None
    call.called |= {"guidance_scale", "combine"}
    scale = call.method.guidance_scale(moment)
    return call.scale if scale is None and call.method.combines else scale


def _alone(call: Call, wanted: float | None) -> bool:
    """Return whether the conditional branch is all that is wanted."""
    return wanted == 1 and (call.starting or not call.method.combines)


def _both(call: Call, forward: Forward, given: Arguments, moment: Moment) -> Any:
    """Evaluate both branches in one batch, or the conditional one where w = 1."""
    call.guided, rows = True, call.rows
    first = call.family.guidance_rows == "null last"
    chosen = slice(0, rows) if first else slice(rows, 2 * rows)
    wanted = _wanted(call, moment)
    if _alone(call, wanted):
        given.values.update(sliced(given.values, 2 * rows, chosen))
        output = _evaluate(call, forward, given, slice(0, rows), moment)
        prediction = prediction_of(output)
        return with_prediction(output, torch.cat([prediction, prediction]))
    output = _evaluate(call, forward, given, chosen, moment)
    if wanted is None:
        return output
    halves = prediction_of(output).split(rows)
    conditional, null = halves if first else halves[::-1]
    guided = _guided(call, conditional, null, wanted, moment, given)
    return with_prediction(output, torch.cat([guided, guided]))


def _null(
    call: Call, forward: Forward, given: Arguments, moment: Moment, conditional: Tensor
) -> Any:
    """Evaluate the null branch of separate calls, unless w = 1."""
    call.guided, call.held = True, None
    wanted = _wanted(call, moment)
    if _alone(call, wanted):
        return (conditional,)
    output = given.call(forward)
    if wanted is None:
        return output
    guided = _guided(call, conditional, prediction_of(output), wanted, moment, given)
    conditional.copy_(guided)
    return with_prediction(output, guided)


def _guided(
    call: Call, conditional: Tensor, null: Tensor, scale: float, moment: Moment, given: Arguments
) -> Tensor:
    """Return the guided output; channels that predict a variance stay the conditional ones."""
    _check_plain(call)
    guided = null + scale * (conditional - null)
    if call.method.combines:
        guided = _combined(call, conditional, null, scale, moment, given.sample)
    if call.family.renormalises and call.arguments.get("cfg_normalization", True):
        lengths = (torch.norm(part, dim=-1, keepdim=True) for part in (conditional, guided))
        guided = guided * torch.div(*lengths)
    return guided


def _check_plain(call: Call) -> None:
    """Raise ParameterError where the pipeline changes guidance by an argument of its call.

    It sees the guided output in the place of both branches.
    """
    for name in call.family.reshaping:
        if call.arguments.get(name):
            raise ParameterError(
                f"{title(call.method)} changes guidance, and so does {name} of this call, which "
                f"needs both branches of it. Leave {name} out."
            )


def _combined(
    call: Call, conditional: Tensor, null: Tensor, scale: float, moment: Moment, sample: Any
) -> Tensor:
    """Return the output of the denoised estimate that a method makes of the branches'.

    At noise level 0 the estimate is the sample, whatever the output: guidance is the usual one.
    """
    space, sign = call.view.at(call.index), -1 if call.family.negated else 1
    if space.slope == 0:
        return null + scale * (conditional - null)
    whole = sample if isinstance(sample, Tensor) else torch.stack(list(sample))
    x, count = whole[: call.rows].double(), call.count(call.rows)
    own, other = (
        space.estimate(x, sign * part[:, : x.shape[1]].double()).reshape(-1, count, x[0].numel())
        for part in (conditional, null)
    )
    change = (call.method.combine(own, other, scale, moment) - own) / (sign * space.slope)
    guided = conditional.clone()
    guided[:, : x.shape[1]] += change.reshape(x.shape).to(guided)
    return guided
