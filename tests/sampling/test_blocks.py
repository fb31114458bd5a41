"""The hook on the output of a block of the network, and DAVE on it, on every family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from eddy_bench.errors import ModelError, ParameterError
from eddy_bench.methods.base import Method
from eddy_bench.methods.dave import Dave
from eddy_bench.methods.iid import Iid
from eddy_bench.models.load import load_model
from eddy_bench.sampling import network_taps
from eddy_bench.sampling.families import blocks_of, family_of
from eddy_bench.sampling.hooks import Block
from eddy_bench.sampling.state import StepInfo
from eddy_bench.sampling.steer import steer
from tests.conftest import Result
from tests.makers.families import FAMILIES, family_model
from tests.sampling.test_branches import PROMPTS, STEPS, draw

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
UNEVEN = ("a red dress", "a blue and dark and red coat on a green bicycle")


class Edit(Method):
    """Add to the image tokens of a block: 0 leaves them."""

    interacts: ClassVar[bool] = False

    def __init__(self, added: float, place: int = -1) -> None:
        object.__setattr__(self, "added", added)
        object.__setattr__(self, "place", place)
        object.__setattr__(self, "seen", [])

    added: float
    place: int
    seen: list[tuple[Block, tuple[int, ...], StepInfo]]

    def edited_block(self, pipeline: str, count: int) -> int:
        return self.place % count

    def features_of(self, block: Block, tokens: Tensor, info: StepInfo) -> Tensor:
        self.seen.append((block, tuple(tokens.shape), info))
        return tokens + self.added if self.added else tokens


def prompts_of(family: str) -> tuple[str, ...]:
    return UNEVEN[:1] if family_of(family_model(family).pipe).one_prompt else UNEVEN


@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_of_nothing_is_neutral_and_every_block_is_reached(family: str) -> None:
    prompts, model = prompts_of(family), family_model(family)
    plain, cost = draw(family, Iid(), prompts)
    blocks = blocks_of(model.pipe, family_of(model.pipe))
    for place in range(len(blocks)):
        watch = Edit(0.0, place)
        same, as_much = draw(family, watch, prompts)
        assert torch.equal(plain, same)
        assert cost.nfe == as_much.nfe
        assert {block.index for block, _, _ in watch.seen} == {place}
        evaluations = sorted({info.step for _, _, info in watch.seen})
        assert evaluations == list(range(len(evaluations)))
        assert len(evaluations) >= STEPS
        rows = sum(shape[0] for _, shape, _ in watch.seen)
        assert rows == cost.nfe * 2 * len(prompts), "the rows of every branch"
        moved, _ = draw(family, Edit(1.0, place), prompts)
        if "mid_block" not in family_of(model.pipe).blocks:
            assert not torch.equal(plain, moved)
        assert not any(block._forward_hooks for block in blocks), "hooks are removed"
    assert torch.equal(plain, draw(family, Iid(), prompts)[0])


def _spoilt(before: Tensor | None, after: Tensor | None) -> Tensor | None:
    """What an edit of a block's output left alone, spoilt."""
    if before is None or after is None:
        return None
    left = (before == after).all(-1 if after.ndim == 3 else 1, keepdim=True)
    return torch.where(left, after + 100, after)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokens_are_the_image_s_and_no_others(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the last block, what is not among them reaches no pixel; all of them are there."""
    prompts, edit = prompts_of(family), Edit(0.5)
    expected, _ = draw(family, edit, prompts)
    original = network_taps.edited_tokens

    def spoiling(family: Any, network: Any, evaluation: Any, output: Any, edit: Any) -> Any:
        after = original(family, network, evaluation, output, edit)
        if isinstance(output, tuple):
            return tuple(_spoilt(one, other) for one, other in zip(output, after, strict=True))
        return _spoilt(output, after)

    monkeypatch.setattr(network_taps, "edited_tokens", spoiling)
    spoilt, _ = draw(family, edit, prompts)
    assert torch.equal(expected, spoilt)
    latent, pipe = expected[0], family_model(family).pipe
    pixels = len(latent) if latent.ndim == 2 else latent[0].numel()
    assert {shape[1] for _, shape, _ in edit.seen} == {pixels // _patch(pipe) ** 2}


def _patch(pipe: Any) -> int:
    if hasattr(pipe, "unet") and pipe.unet is not None:
        return 2 ** (len(pipe.unet.config.block_out_channels) - 1)
    config = pipe.transformer.config
    if family_of(pipe).packed:
        return 1
    return int(config.patch_size if "patch_size" in config else config.all_patch_size[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_dave_on_every_family(family: str) -> None:
    prompts = prompts_of(family)
    plain, cost = draw(family, Iid(), prompts)
    for off in (Dave(a=1.0), Dave(tau=0.0)):
        same, as_much = draw(family, off, prompts)
        assert torch.equal(plain, same)
    early, as_much = draw(family, Dave(a=-3.0, tau=0.3), prompts)
    assert torch.isfinite(early).all()
    assert not torch.equal(early, plain)
    assert cost.nfe == as_much.nfe
    if not family_of(family_model(family).pipe).pads_to_longest:
        alone, _ = draw(family, Dave(a=-3.0, tau=0.3), prompts[:1])
        assert (alone - early[:2]).abs().max() < 2e-3 * early.abs().mean()


def test_the_formula_and_the_published_values() -> None:
    tokens = torch.randn(3, 7, 5, dtype=torch.float64)
    at = StepInfo(0, 100, 4.0, 3.0)
    for name, (block, a, tau) in {
        "StableDiffusion3Pipeline": (5, 0.5, 0.15),
        "FluxPipeline": (30, 0.2, 0.2),
        "SanaPipeline": (13, 0.2, 0.2),
    }.items():
        assert Dave().edited_block(name, 60) == block
        edited = Dave().features_of(Block(name, block, 60), tokens, at)
        mean = tokens.mean(1, keepdim=True)
        assert torch.allclose(edited, tokens - mean + a * mean)
        steps = [
            step
            for step in range(100)
            if Dave().features_of(Block(name, block, 60), tokens, StepInfo(step, 100, 4.0, 3.0))
            is not tokens
        ]
        assert steps == list(range(round(100 * tau)))
    assert Dave().edited_block("FluxPipeline", 2) == 1, "the middle of a small network"
    assert Dave(block=3).edited_block("SanaPipeline", 20) == 3
    with pytest.raises(ParameterError, match="below 20, the blocks of SanaPipeline's network"):
        Dave(block=20).edited_block("SanaPipeline", 20)


def test_it_works_in_anyones_code_after_a_call_that_was_cut_short() -> None:
    pipe = load_model("fashion", device="cpu").pipe

    def call(broken: bool = False) -> Tensor:
        def stop(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            if broken:
                raise KeyboardInterrupt
            return {}

        return pipe(
            "a red dress",
            num_inference_steps=STEPS,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
            callback_on_step_end=stop,
        ).images

    plain = call()
    watch = Edit(0.0)
    with steer(pipe, watch):
        with pytest.raises(KeyboardInterrupt):
            call(broken=True)
        watch.seen.clear()
        assert torch.equal(call(), plain)
    assert [info.step for _, _, info in watch.seen] == list(range(STEPS))
    with steer(pipe, Dave(a=-3.0)):
        first, second = call(), call()
    assert torch.equal(first, second)
    assert not torch.equal(first, plain)
    assert torch.equal(call(), plain)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (("--method", "dave", "--model", "exact:ring8"), "blocks of ExactPipeline's network"),
        (("--method", "dave:block=1"), "Expected block of dave below 1"),
        (("--method", "dave:tau=2"), "less than or equal to 1"),
        (("--method", "dave", "--compile"), "Leave --compile out"),
    ],
)
def test_what_cannot_be_edited_is_refused_before_anything_is_drawn(
    call: tuple[str, ...], expected: str, cli: Callable[..., Result], tmp_path: Path
) -> None:
    done = cli("run", *call, "--out", tmp_path / "run")
    assert done.code == 2
    assert expected in done.err
    assert not (tmp_path / "run").exists()


def test_an_unknown_network_is_refused() -> None:
    exact = load_model("exact:ring8", device="cpu")
    with pytest.raises(ModelError, match="not known here"):
        exact.draw(PROMPTS[:1], [0], 2, Dave(), {"num_inference_steps": 2})
