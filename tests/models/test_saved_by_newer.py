"""Folders that a newer transformers saved: nothing is left at random values or unread."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from eddy_bench.models.load import fast_tokenizers, load_model, read_unprefixed_weights
from eddy_bench.scoring.extractors import ASSETS

PREFIX = "text_model."


def test_the_embedded_text_encoder_has_the_weights_of_its_file() -> None:
    """Under whatever names the installed transformers holds them."""
    saved = load_file(ASSETS / "fashion" / "text_encoder" / "model.safetensors")
    state = load_model("fashion", device="cpu").pipe.text_encoder.state_dict()
    held = {name.removeprefix(PREFIX): value for name, value in state.items()}
    for name, value in saved.items():
        assert torch.equal(held[name.removeprefix(PREFIX)], value.float()), name


class Prefixed(transformers.PreTrainedModel):
    """A text encoder that holds its weights under the prefix, and one that a file does not have."""

    config_class = transformers.CLIPTextConfig

    def __init__(self) -> None:
        super().__init__(transformers.CLIPTextConfig())
        self.text_model = torch.nn.Linear(2, 2)
        self.other = torch.nn.Linear(2, 2)


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_weights_without_the_prefix_are_read_and_others_stay(tmp_path: Path, prefix: str) -> None:
    part = Prefixed()
    part.name_or_path = str(tmp_path)
    before = {name: value.clone() for name, value in part.state_dict().items()}
    save_file({f"{prefix}weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    save_file({f"{prefix}weight": torch.zeros(2, 2)}, tmp_path / "model.fp16.safetensors")
    read_unprefixed_weights(type("Pipe", (), {"components": {"text": part, "no": None}}), "fp16")
    after = part.state_dict()
    expected = before[f"{PREFIX}weight"] if prefix else torch.zeros(2, 2)
    assert torch.equal(after[f"{PREFIX}weight"], expected)
    assert torch.equal(after["other.weight"], before["other.weight"])


class Slow:
    """A class of version 4 that reads the files of the vocabulary."""


class Fast:
    vocab_files_names = {"vocab_file": "vocab.json", "tokenizer_file": "tokenizer.json"}

    @staticmethod
    def from_pretrained(folder: Path) -> str:
        return f"read from {folder.name}"


@pytest.mark.parametrize(
    ("files", "read"), [(("tokenizer.json",), True), (("tokenizer.json", "vocab.json"), False)]
)
def test_a_tokenizer_that_its_class_cannot_read_is_read_by_the_fast_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...], read: bool
) -> None:
    monkeypatch.setattr("transformers.OddTokenizer", Slow, raising=False)
    monkeypatch.setattr("transformers.OddTokenizerFast", Fast, raising=False)
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionPipeline",
        "tokenizer": ["transformers", "OddTokenizer"],
        "safety_checker": [None, None],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "tokenizer").mkdir()
    for file in files:
        (tmp_path / "tokenizer" / file).touch()
    assert fast_tokenizers(tmp_path) == ({"tokenizer": "read from tokenizer"} if read else {})


def test_a_hub_id_is_left_to_its_library() -> None:
    assert fast_tokenizers(Path("owner/model")) == {}
