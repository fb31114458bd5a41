"""The taps on the denoiser: text embeddings, branches of guidance, the output of a block.

Every pipeline forms null + w (cond - null) from what its network returns. Where the network sees
both branches in one batch, a changed output stands in both halves; where it is called twice, it is
written over the conditional output too. Either way the pipeline's own formula gives it back bit for
bit, whatever its w.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from eddy_bench.errors import ModelError, ParameterError
from eddy_bench.kernels import exact
from eddy_bench.sampling.call import Call, title
from eddy_bench.sampling.families import Family, blocks_of
from eddy_bench.sampling.hooks import Block
from eddy_bench.sampling.state import StepInfo
from eddy_bench.sampling.step_taps import settle

# Their first axis is that of tokens, which may be as long as the batch.
NOT_ROWS = ("img_ids", "txt_ids", "image_rotary_emb", "img_shapes")


@dataclass(frozen=True)
class Arguments:
    """A call's arguments by name; `given` of them came by position."""

    values: dict[str, Any]
    given: int

    @property
    def sample(self) -> Any:
        """The noisy latents, whatever their name."""
        return next(iter(self.values.values()))

    def call(self, function: Callable[..., Any]) -> Any:
        """Call a function in the form that these arguments came in."""
        names = list(self.values)
        by_name = {name: self.values[name] for name in names[self.given :]}
        return function(*(self.values[name] for name in names[: self.given]), **by_name)


def rows_in(value: Any) -> int:
    """Return how many rows an argument has."""
    return len(value) if isinstance(value, (Tensor, list, tuple)) else 0


def sliced(arguments: dict[str, Any], rows: int, chosen: slice | Tensor) -> dict[str, Any]:
    """Return the arguments with the chosen rows of whatever has as many rows."""
    return {
        name: value if name in NOT_ROWS else _chosen(value, rows, chosen)
        for name, value in arguments.items()
    }


def _chosen(value: Any, rows: int, chosen: slice | Tensor) -> Any:
    if isinstance(value, dict):
        return sliced(value, rows, chosen)
    if isinstance(value, Tensor):
        return value[chosen] if value.ndim and len(value) == rows else value
    if isinstance(value, list):
        if len(value) != rows:
            return value
        return value[chosen] if isinstance(chosen, slice) else [value[k] for k in chosen.tolist()]
    return value


def prediction_of(output: Any) -> Tensor:
    """Return what a network predicts, rows first."""
    first = output[0]
    return torch.stack(list(first)) if isinstance(first, (list, tuple)) else first


def with_prediction(output: Any, prediction: Tensor) -> Any:
    """Return a network's output with another prediction, in the same form."""
    whole: Sequence[Tensor] | Tensor = prediction
    if isinstance(output[0], (list, tuple)):
        whole = list(prediction.unbind(0))
    return (whole, *output[1:]) if isinstance(output, tuple) else type(output)(whole)


# From a group's number, embeddings (N, tokens, width) and mask (N, tokens) to embeddings.
Change = Callable[[int, Tensor, Tensor], Tensor]


def conditioned(
    arguments: dict[str, Any], family: Family, chosen: slice, count: int, change: Change
) -> dict[str, Any]:
    """Return the arguments of a denoiser that change with its text embeddings.

    Args:
        arguments: of the call, by name.
        family: whose embeddings are known.
        chosen: the conditional rows.
        count: particles per group.
        change: of a group.
    """
    changed: dict[str, Any] = {}
    for path, mask_name in family.embeddings:
        name, _, key = path.partition(".")
        holder: Any = changed.get(name, arguments.get(name))
        value = (holder or {}).get(key) if key else holder
        if value is None:
            continue
        mask = arguments.get(mask_name) if mask_name else None
        new = _changed(value, mask, chosen, count, change)
        changed[name] = {**holder, key: new} if key else new
    if not changed:
        raise ModelError(f"{family.class_name} has no text embeddings here that could be changed.")
    return changed


def _changed(value: Any, mask: Any, chosen: slice, count: int, change: Change) -> Any:
    """Return an embedding with its chosen rows changed, group by group."""
    if isinstance(value, list):
        rows = value[chosen]
        new = [
            row
            for start in range(0, len(rows), count)
            for row in _of_group(
                torch.stack(rows[start : start + count]), None, start // count, change
            )
        ]
        return [*value[: chosen.start], *new, *value[chosen.stop :]]
    whole = value.clone()
    rows = value[chosen]
    masks = None if mask is None else mask[chosen]
    for start in range(0, len(rows), count):
        part = slice(start, start + count)
        whole[chosen.start + start : chosen.start + start + count] = _of_group(
            rows[part], None if masks is None else masks[part], start // count, change
        )
    return whole


def _of_group(rows: Tensor, mask: Tensor | None, group: int, change: Change) -> Tensor:
    """Return the changed embeddings of a group, its padding as it was."""
    tokens = rows[:, None] if rows.ndim == 2 else rows
    kept = tokens.abs().amax(-1) > 0  # tokens that are 0 are padding
    if mask is not None and tokens is rows:
        kept = kept & (mask.reshape(len(mask), -1)[:, : tokens.shape[1]] > 0)
    new = change(group, tokens, kept).to(tokens)
    if new.shape != tokens.shape:
        raise ValueError(f"Expected embeddings of shape {tuple(tokens.shape)}, got {new.shape}")
    return torch.where(kept[..., None], new, tokens).reshape(rows.shape)


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
        return _of_active(call, forward, given, rows, call.active)
    info = call.info()
    batched = call.family.guidance_rows in ("null first", "null last")
    if batched and rows == 2 * call.rows:
        return _both(call, forward, given, info)
    if rows != call.rows:
        raise ModelError(
            f"Expected {call.rows} or {2 * call.rows} rows in the network of "
            f"{call.family.class_name}, got {rows}. This method cannot be used here."
        )
    if call.held is not None and call.held[0] == call.record.steps:
        return _null(call, forward, given, info, call.held[1])
    output = _evaluate(call, forward, given, slice(0, rows), info)
    if call.family.guidance_rows == "separate calls":
        call.held = call.record.steps, prediction_of(output)
    return output


def _of_active(call: Call, forward: Forward, given: Arguments, rows: int, active: Tensor) -> Any:
    """Evaluate the network on the particles that are left.

    The others get the prediction of one that is left, which keeps them finite.
    """
    kept, source = _places(call, active, given.sample, rows)
    given.values.update(sliced(given.values, rows, kept))
    output = given.call(forward)
    return with_prediction(output, prediction_of(output)[source])


def _places(call: Call, active: Tensor, sample: Any, rows: int) -> tuple[Tensor, Tensor]:
    """Return the rows that are left, (kept,), and which of them stands for each row, (rows,).

    They are copied to the device when the particles that are left change, not at each evaluation.
    """
    if call.places is None or call.places[0] is not active or len(call.places[2]) != rows:
        left = active.flatten().repeat(rows // call.rows)
        source = (left.long().cumsum(0) - 1).clamp_min(0)
        device = sample[0].device
        call.places = active, left.nonzero()[:, 0].to(device), source.to(device)
    return call.places[1:]


def _evaluate(call: Call, forward: Forward, given: Arguments, chosen: slice, info: StepInfo) -> Any:
    """Evaluate the network, with `chosen` rows as the conditional ones."""
    if call.method.conditions:
        count, streams = call.count(call.rows), call.streams(call.rows)
        call.called.add("condition")

        def change(group: int, embeds: Tensor, mask: Tensor) -> Tensor:
            own = replace(info, streams=streams[group * count : (group + 1) * count])
            return call.method.condition(embeds, mask, own)

        given.values.update(conditioned(given.values, call.family, chosen, count, change))
    return given.call(forward)


def _wanted(call: Call, info: StepInfo) -> float | None:
    """Return w where guidance is changed; None where it is left alone."""
    if call.starting:
        return 1.0
    if not call.method.reguides:
        return None
    call.called |= {"guidance_scale", "combine"}
    scale = call.method.guidance_scale(info)
    return call.scale if scale is None and call.method.combines else scale


def _alone(call: Call, wanted: float | None) -> bool:
    """Return whether the conditional branch is all that is wanted."""
    return wanted == 1 and (call.starting or not call.method.combines)


def _both(call: Call, forward: Forward, given: Arguments, info: StepInfo) -> Any:
    """Evaluate both branches in one batch, or the conditional one where w = 1."""
    call.guided, rows = True, call.rows
    first = call.family.guidance_rows == "null last"
    chosen = slice(0, rows) if first else slice(rows, 2 * rows)
    wanted = _wanted(call, info)
    if _alone(call, wanted):
        given.values.update(sliced(given.values, 2 * rows, chosen))
        output = _evaluate(call, forward, given, slice(0, rows), info)
        prediction = prediction_of(output)
        return with_prediction(output, torch.cat([prediction, prediction]))
    output = _evaluate(call, forward, given, chosen, info)
    if wanted is None:
        return output
    halves = prediction_of(output).split(rows)
    conditional, null = halves if first else halves[::-1]
    guided = _guided(call, conditional, null, wanted, info, given)
    return with_prediction(output, torch.cat([guided, guided]))


def _null(
    call: Call, forward: Forward, given: Arguments, info: StepInfo, conditional: Tensor
) -> Any:
    """Evaluate the null branch of separate calls, unless w = 1."""
    call.guided, call.held = True, None
    wanted = _wanted(call, info)
    if _alone(call, wanted):
        return (conditional,)
    output = given.call(forward)
    if wanted is None:
        return output
    guided = _guided(call, conditional, prediction_of(output), wanted, info, given)
    conditional.copy_(guided)
    return with_prediction(output, guided)


def _guided(
    call: Call, conditional: Tensor, null: Tensor, scale: float, info: StepInfo, given: Arguments
) -> Tensor:
    """Return the guided output; channels that predict a variance stay the conditional ones."""
    _check_plain(call)
    guided = null + scale * (conditional - null)
    if call.method.combines:
        guided = _combined(call, conditional, null, scale, info, given.sample)
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
    call: Call, conditional: Tensor, null: Tensor, scale: float, info: StepInfo, sample: Any
) -> Tensor:
    """Return the output of the denoised estimate that a method makes of the branches'.

    At noise level 0 the estimate is the sample, whatever the output: guidance is the usual one.
    """
    space, sign = call.view.at(call.index), -1 if call.family.negated else 1
    if space.slope == 0:
        return null + scale * (conditional - null)
    whole = sample if isinstance(sample, Tensor) else torch.stack(list(sample))
    x, count = exact(whole[: call.rows]), call.count(call.rows)
    own, other = (
        space.estimate(x, sign * exact(part[:, : x.shape[1]])).reshape(-1, count, x[0].numel())
        for part in (conditional, null)
    )
    change = (call.method.combine(own, other, scale, info) - own) / (sign * space.slope)
    guided = conditional.clone()
    guided[:, : x.shape[1]] += change.reshape(x.shape).to(guided)
    return guided


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
            return call.method.features_of(block, tokens, call.info()).to(tokens)

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
