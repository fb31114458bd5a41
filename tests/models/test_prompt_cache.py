"""Prompts are encoded once, and the images are those of pipelines that encode them each time."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.iid import Iid
from eddy_bench.models.prompts import PromptCache
from eddy_bench.sampling.families import family_of
from eddy_bench.suites.suite import Suite
from tests.makers.families import FAMILIES, family_model, family_side

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
BATCHES = (
    ["a red dress", "a blue coat"],
    ["a blue coat", "a dark green bag on a boot"],
    ["a dark green bag on a boot", "a red dress"],
    ["a red dress", "a red dress"],
)
KNOWN = {text for prompts in BATCHES for text in prompts}
OFTEN = ("sd15", "flux", "qwen-image", "z-image")
EACH = [
    pytest.param(family, marks=() if family in OFTEN else pytest.mark.slow) for family in FAMILIES
]


def draw(family: str, prompts: list[str]) -> torch.Tensor:
    model = family_model(family)
    suite = Suite(steps=2, size=family_side(family), guidance_scale=3.0)
    arguments = {**Setup(suite, model).call_arguments(len(prompts)), "output_type": "latent"}
    groups, _ = model.draw(prompts, [0] * len(prompts), 2, Iid(), arguments)
    return torch.stack([image for group in groups for image in group])


@pytest.fixture
def texts(family: str) -> Iterator[tuple[PromptCache, list[list[str]]]]:
    """The cache of a family's pipeline, emptied, and the prompts that are really encoded."""
    cache = family_model(family).texts
    assert cache is not None
    encode, encoded = cache.encode, list[list[str]]()

    def counting(*args: Any, **kwargs: Any) -> Any:
        prompt = kwargs.get("prompt", args[0] if args else None)
        encoded.append([prompt] if isinstance(prompt, str) else list(prompt))
        return encode(*args, **kwargs)

    counting.__signature__ = inspect.signature(encode)  # type: ignore[attr-defined]
    cache.encode = counting
    cache.parts.clear()
    yield cache, encoded
    cache.encode = encode


@pytest.mark.parametrize("family", EACH)
def test_images_are_bit_for_bit_those_of_a_pipeline_that_encodes_each_time(
    family: str, texts: tuple[PromptCache, list[list[str]]]
) -> None:
    cache, _ = texts
    batches = (
        [[text] for text in BATCHES[1]]
        if family_of(family_model(family).pipe).one_prompt
        else BATCHES
    )
    remembered = [draw(family, prompts) for prompts in (*batches, *batches)]
    cache.most_bytes = 0
    for prompts, images in zip((*batches, *batches), remembered, strict=True):
        cache.parts.clear()
        assert torch.equal(draw(family, prompts), images), prompts
    cache.most_bytes = 2**30


@pytest.mark.parametrize("family", EACH)
def test_a_prompt_is_encoded_once(family: str, texts: tuple[PromptCache, list[list[str]]]) -> None:
    """Whatever the batches where lengths are fixed; once per batch where they hang on it."""
    _, encoded = texts
    pipe = family_model(family).pipe
    batches = BATCHES if not family_of(pipe).pads_to_longest else [[BATCHES[0][0]]] * 3
    for prompts in batches:
        draw(family, prompts)
    first = len(encoded)
    for prompts in batches:
        draw(family, prompts)
    assert len(encoded) == first, "nothing is encoded again"
    own = [text for call in encoded for text in dict.fromkeys(call) if text in KNOWN]
    calls_per_prompt = max(own.count(text) for text in own)
    assert calls_per_prompt == (2 if family == "hunyuan-dit" else 1), encoded


@pytest.mark.parametrize("family", ["sd15"])
def test_what_does_not_fit_is_encoded_each_time(
    family: str, texts: tuple[PromptCache, list[list[str]]]
) -> None:
    cache, encoded = texts
    most, cache.most_bytes, cache.held = cache.most_bytes, 0, 0
    draw(family, BATCHES[0])
    draw(family, BATCHES[0])
    assert (len(encoded), cache.parts) == (2, {})
    cache.most_bytes = most
