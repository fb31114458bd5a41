"""Prompt sets and the words of the embedded model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.embedded.garments import caption, measure
from eddy_bench.models.attributes import CLASSES, Attributes, parse, unknown_words
from eddy_bench.scoring.extractors import ASSETS
from eddy_bench.suites.prompts import load_prompts, prompts_of_texts, text_id


def test_shipped_prompt_sets_use_known_words_and_do_not_overlap() -> None:
    reported, tuning = load_prompts("fashion"), load_prompts("fashion-tune")
    assert len(reported.prompts) >= 48
    assert not {prompt.text for prompt in reported.prompts} & {
        prompt.text for prompt in tuning.prompts
    }
    lengths = {len(prompt.text.split()) for prompt in reported.prompts}
    assert min(lengths) == 1
    for prompt in reported.prompts:
        assert not unknown_words(prompt.text)
        fixed = parse(prompt.text)
        assert (
            (prompt.attributes.get("class") == CLASSES[fixed.garment][0])
            if fixed.garment is not None
            else "class" not in prompt.attributes
        )
    assert any(parse(prompt.text) == Attributes() for prompt in reported.prompts)
    assert any(None not in vars(parse(prompt.text)).values() for prompt in reported.prompts)


def test_the_digest_depends_on_text_id_and_order(tmp_path: Path) -> None:
    def digest(text: str) -> str:
        (tmp_path / "p.yaml").write_text(text)
        return load_prompts(str(tmp_path / "p.yaml")).digest

    first = digest("- {id: a, prompt: x}\n- {id: b, prompt: y}\n")
    assert first == digest("- {id: a, prompt: x}\n-  {prompt: y, id: b}\n")
    others = [
        "- {id: a, prompt: z}\n- {id: b, prompt: y}\n",
        "- {id: c, prompt: x}\n- {id: b, prompt: y}\n",
        "- {id: b, prompt: y}\n- {id: a, prompt: x}\n",
    ]
    assert len({first, *map(digest, others)}) == 4


def test_a_text_file_gives_a_prompt_a_line_without_comments_and_blanks(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text(
        "\ufeff# a comment\na dress\n\n# another\n  a coat  \r\n", encoding="utf-8"
    )
    prompts = load_prompts(str(tmp_path / "p.txt"))
    assert [prompt.text for prompt in prompts.prompts] == ["a dress", "a coat"]
    assert prompts.name == "p"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a photo of a dark wide t-shirt", Attributes(0, 0, 1)),
        ("SHIRT", Attributes(6)),
        ("ankle boot", Attributes(9)),
        ("light long sneaker", Attributes(7, 2, 0)),
        ("a wide sneaker", Attributes(7)),  # not a word for shoes
        ("dark item", Attributes(None, 0)),
        ("a unicorn", Attributes()),
    ],
)
def test_a_prompt_is_parsed_into_its_attributes(text: str, expected: Attributes) -> None:
    assert parse(text) == expected


def test_a_caption_is_parsed_into_the_attributes_it_was_made_of() -> None:
    rng = np.random.default_rng(0)
    for garment in range(10):
        for tone in range(3):
            for shape in range(2):
                attributes = Attributes(garment, tone, shape)
                assert parse(caption(attributes)) == attributes
                text = caption(attributes, rng)
                assert parse(text) == attributes
                assert not unknown_words(text)
    assert unknown_words("a purple dress, 3") == ["purple", ",", "3"]


def test_stored_attributes_are_the_measured_ones() -> None:
    with np.load(ASSETS / "reference" / "test.npz") as data:
        images, stored = data["images"], data["attributes"].astype(np.int64)
    assert len(images) >= 2000
    assert (measure(images, stored[:, 0]) == stored).all()


MANY = [f"a photograph of one and the same thing, with the number {k}" for k in range(20_000)]
SOURCES: dict[str, Callable[[list[str]], str]] = {
    "p.txt": "\n".join,
    "p.csv": lambda texts: "prompt\n" + "\n".join(f'"{text}"' for text in texts),
    "p.tsv": lambda texts: "prompt\n" + "\n".join(texts),
    "p.json": json.dumps,
    "p.jsonl": lambda texts: "\n".join(map(json.dumps, texts)),
    "p.yaml": json.dumps,
    "p.yml": lambda texts: json.dumps([{"prompt": text} for text in texts]),
}


@pytest.mark.parametrize("name", SOURCES)
def test_ids_of_many_texts_are_different_and_the_same_from_every_source(
    tmp_path: Path, name: str
) -> None:
    """Short hashes meet among 20,000 texts: 12 pairs are expected."""
    assert len({text_id(text) for text in MANY}) < len(MANY)
    (tmp_path / name).write_text(SOURCES[name](MANY))
    found = load_prompts(str(tmp_path / name)).prompts
    assert [prompt.text for prompt in found] == MANY
    assert len({prompt.id for prompt in found}) == len(MANY)
    assert {prompt.text: prompt.id for prompt in found} == {
        prompt.text: prompt.id for prompt in prompts_of_texts(MANY[::-1]).prompts
    }


def test_an_id_that_is_made_gives_way_to_one_that_is_given(tmp_path: Path) -> None:
    given = text_id("a hat").upper()
    (tmp_path / "p.yaml").write_text(json.dumps(["a hat", {"id": given, "prompt": "a coat"}]))
    ids = [prompt.id for prompt in load_prompts(str(tmp_path / "p.yaml")).prompts]
    assert ids == [text_id("a hat", 16), given]
