"""Prompts of the field's data sets."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest

from eddy_bench.errors import PromptError
from eddy_bench.suites.prompts import load_prompts


def texts(source: object) -> list[str]:
    return [prompt.text for prompt in load_prompts(str(source)).prompts]


def test_coco_takes_the_first_caption_of_an_image(tmp_path: Path) -> None:
    path = tmp_path / "captions_val2014.json"
    notes = [
        {"image_id": 7, "id": 1, "caption": "A man on a bike. "},
        {"image_id": 7, "id": 2, "caption": "Someone rides."},
    ]
    path.write_text(
        json.dumps(
            {
                "info": {},
                "images": [],
                "annotations": [*notes, {"image_id": 9, "id": 3, "caption": "A cat"}],
            }
        )
    )
    assert texts(path) == ["A man on a bike.", "A cat"]


def test_prompts_of_parti_and_drawbench_are_read_once_each(tmp_path: Path) -> None:
    parti = tmp_path / "PartiPrompts.tsv"
    parti.write_text(
        'Prompt\tCategory\tChallenge\tNote\na "bond"\tAbstract\tBasic\t\n'
        "bond\tAbstract\tBasic\tx\nbond\tAnimals\tBasic\tx\n"
    )
    assert texts(parti) == ['a "bond"', "bond"]
    drawbench = tmp_path / "DrawBench.csv"
    drawbench.write_text(
        'Prompts,Category\nA red colored car.,Colors\n"A cat, a dog",Counting\n,Colors\n'
    )
    assert texts(drawbench) == ["A red colored car.", "A cat, a dog"]


def test_prompts_are_read_from_any_named_column(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\ufeffwords,caption\none,two\n", encoding="utf-8")
    assert texts(path) == ["two"]
    assert texts(f"{path}:words") == ["one"]
    lines = tmp_path / "t.jsonl"
    lines.write_text('{"text": "a"}\n{"text": "b"}\n')
    assert texts(lines) == ["a", "b"]
    (tmp_path / "l.json").write_text('["a", {"prompt": "b"}]')
    assert texts(tmp_path / "l.json") == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "x,y\n1,2\n", "expected a column"),
        ("a.csv", "", "expected a column"),
        ("a.csv", "prompt\n", "no prompt"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", "3", "expected a list"),
        ("a.json", "[3]", "entry 1"),
        ("a.jsonl", '{"text": 3}\n{"text": 4}', "line 1"),
        ("a.csv", "prompt\n" + "x" * 30_000, "at most 20000"),
    ],
)
def test_a_file_without_prompts_is_refused(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(PromptError, match=message):
        load_prompts(str(tmp_path / name))


def test_a_missing_column_is_refused_with_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,note\nx,y\n")
    with pytest.raises(PromptError, match=r"no column 'caption'\. It has: prompt, note"):
        load_prompts(f"{tmp_path}/a.csv:caption")


def test_prompts_are_read_from_a_split_and_column_of_a_hub_data_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Through a stand-in for the package: no network here."""
    rows = [
        {"Prompt": "bond", "Category": "Abstract"},
        {"Prompt": "bond", "Category": "x"},
        {"Prompt": "a bench", "Category": "x"},
    ]
    fake = types.SimpleNamespace(
        load_dataset=lambda name: {"train": rows, "test": [{"sentences": ["one", "two"]}]}
    )
    monkeypatch.setitem(sys.modules, "datasets", fake)
    assert texts("nateraw/parti-prompts") == ["bond", "a bench"]
    assert texts("nateraw/parti-prompts:test:sentences") == ["one"]
    with pytest.raises(PromptError, match="no split 'dev'"):
        load_prompts("nateraw/parti-prompts:dev")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(PromptError, match="needs the package datasets"):
        load_prompts("nateraw/parti-prompts")
