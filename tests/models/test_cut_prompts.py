"""Prompts that a model's tokenizers cut are told once, with counts, on every family."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from eddy_bench.models.prompts import cut_prompts, cut_text, limit_of, tokenizers_of
from tests.conftest import Result
from tests.makers.families import FAMILIES, family_model
from tests.makers.pipelines import tiny_folder


@pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_counts_on_every_family(family: str) -> None:
    """A prompt of ten thousand words passes every limit, two words pass none."""
    pipe = family_model(family).pipe
    long = "a red dress " * 3000
    tokenizers = tokenizers_of(pipe)
    assert tokenizers
    found = cut_prompts(pipe, ["a dress", long, "a dress", long + "b"])
    limited = {name for name, each in tokenizers.items() if limit_of(pipe, each) is not None}
    assert set(found) == limited
    assert all(cut == 2 for cut, _ in found.values())
    assert not cut_text(cut_prompts(pipe, ["a dress"]), 1)


def test_a_limit_is_where_the_pipeline_cuts() -> None:
    pipe = family_model("sd15").pipe
    ((_, limit),) = cut_prompts(pipe, ["x"]).values()
    words = "a " * (limit - 2)  # two tokens mark beginning and end
    assert cut_prompts(pipe, [words.strip(), words + "a"]) == {"tokenizer": (1, limit)}


def test_a_run_says_it_once_and_keeps_it(cli: Callable[..., Result], tmp_path: Path) -> None:
    prompts = tmp_path / "p.txt"
    prompts.write_text("a lamp\n" + "a red dress on a green bicycle " * 30 + "\n")
    call = ["run", "--model", str(tiny_folder()), "--prompts", str(prompts), "--method", "iid"]
    call += ["--method", "lhs", "--steps", "2", "--particles", "2", "--metric", "vendi[pixels]"]
    done = cli(*call, "--out", str(tmp_path / "run"))
    assert done.code == 0, done.err
    assert done.err.count("1 of 2 pass the 16 tokens of tokenizer") == 1
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["prompts"]["cut"] == {"tokenizer": {"prompts": 1, "tokens": 16}}
