"""Prompt files as people have them: every prompt is read, or its absence is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from eddy_bench.errors import PromptError
from eddy_bench.suites.prompts import PromptSet, load_prompts

FOX, HAT = "a fox", "a red hat"
WORKFLOW = {
    "3": {"class_type": "KSampler", "inputs": {"positive": ["6", 0], "negative": ["7", 0]}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": FOX, "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
}


def read(folder: Path, name: str, content: str | bytes, pick: str = "") -> PromptSet:
    data = content if isinstance(content, bytes) else content.encode()
    (folder / name).write_bytes(data)
    return load_prompts(f"{folder / name}{pick and ':'}{pick}")


def texts(prompts: PromptSet) -> list[str]:
    return [prompt.text for prompt in prompts.prompts]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.json", json.dumps([FOX, HAT])),
        ("p.json", json.dumps({"prompts": [FOX, HAT]})),
        ("p.json", json.dumps({"data": {"items": [{"caption": FOX}, {"caption": HAT}]}})),
        ("p.json", json.dumps({"version": 3, "data": [FOX, HAT], "tags": {"a": 1}})),
        ("p.json", json.dumps({"animals": [FOX], "clothes": [HAT]})),
        ("p.json", json.dumps({"prompt": [FOX, HAT], "seed": [1, 2]})),
        ("p.json", json.dumps({"prompt": {"0": FOX, "1": HAT}, "k": {"0": 1, "1": 2}})),
        ("p.json", f'{{"prompt": "{FOX}"}}\n{{"prompt": "{HAT}"}}\n'),
        ("p.jsonl", f'"{FOX}"\n\n"{HAT}"\n'),
        ("p.txt", f'{{"text": "{FOX}"}}\n{{"text": "{HAT}"}}'),
        ("p.txt", f"{FOX}\r\n\r\n  {HAT}  "),
        ("p.csv", f"id;caption\n1;{FOX}\n2;{HAT}\n"),
        ("p.csv", f"sep=|\r\nn|text|\r\n1|{FOX}|\r\n2|{HAT}|\r\n"),
        ("p.csv", f"prompt,,\n{FOX},,\n{HAT},,\n"),
        ("p.json", json.dumps({"prompt": [FOX, HAT], "steps": 20})),
        ("p.csv", f"Prompt\tn\n{FOX}\t1\n{HAT}\t2\n"),
        ("p.CSV", f'\ufeffn,text\n1,"{FOX}"\n2,"{HAT}"\n'),
        ("p.tsv", f"n\tPrompts\n1\t{FOX}\n2\t{HAT}\n".encode("utf-16")),
        ("P.YAML", f"- {FOX}\n- prompt: {HAT}\n"),
        (
            "p.yml",
            f"set:\n  words:\n    - text: {FOX}\n      by: me\n    - caption: none\n"
            f"      text: {HAT}\n",
        ),
    ],
)
def test_the_same_two_prompts_are_read_from_every_shape(
    tmp_path: Path, name: str, content: str | bytes
) -> None:
    assert texts(read(tmp_path, name, content)) == [FOX, HAT]


def test_parquet_is_a_table_and_its_pictures_are_left_out(tmp_path: Path) -> None:
    rows = [{"caption": [FOX, "x"], "image": b"\0", "kind": "animal"}, {"caption": [HAT]}]
    pd.DataFrame(rows).to_parquet(tmp_path / "p.parquet")
    found = load_prompts(str(tmp_path / "p.parquet"))
    assert texts(found) == [FOX, HAT]
    assert found.prompts[0].tags == {"kind": "animal"}
    assert any("left out: image" in note for note in found.notes)
    assert any("first text of 1 list" in note for note in found.notes)


def test_a_folder_of_texts_has_a_prompt_a_file(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_text(f"{FOX}\n")
    (tmp_path / "2.txt").write_text(f"{HAT}\nNegative prompt: blurry\n")
    (tmp_path / "1.png").touch()
    (tmp_path / ".hidden.txt").write_text("x")
    found = load_prompts(str(tmp_path))
    own = [(prompt.id, prompt.text, prompt.negative) for prompt in found.prompts]
    assert own == [("1", FOX, ""), ("2", HAT, "blurry")]
    assert any("1 other file left out" in note for note in found.notes)
    with pytest.raises(PromptError, match="a folder of texts"):
        load_prompts(str(tmp_path.parent))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"a1": {"category": "x", "prompt": FOX}}, ("a1", FOX, {"category": "x"})),
        ({"a1": FOX}, ("a1", FOX, {})),
        ({"style": [FOX]}, ("a-fox-", FOX, {"category": "style"})),
        ([{"id": 7, "text": FOX, "n": None, "tags": ["u", "v"]}], ("7", FOX, {"tags": "u, v"})),
        ([{"id": "a/b", "text": FOX}], ("a-fox-", FOX, {})),
    ],
)
def test_ids_and_what_stands_beside_a_prompt_are_kept(
    tmp_path: Path, content: Any, expected: tuple[str, str, dict[str, str]]
) -> None:
    identity, text, tags = expected
    own = read(tmp_path, "p.json", json.dumps(content)).prompts[0]
    assert own.id.startswith(identity)
    assert (own.text, own.tags) == (text, tags)


@pytest.mark.parametrize("name", ["p.txt", "p.json", "p.csv", "p.yaml"])
def test_repeats_and_empty_entries_are_left_out_and_counted(tmp_path: Path, name: str) -> None:
    own = [HAT, FOX, "", HAT, " a red  hat"]
    content = {
        ".txt": "\n".join(own),
        ".json": json.dumps([*own, None]),
        ".csv": "prompt,n\n" + "\n".join(f"{text},1" for text in own),
        ".yaml": json.dumps([{"prompt": text} for text in [*own, None]]),
    }[Path(name).suffix]
    found = read(tmp_path, name, content)
    assert texts(found) == [HAT, FOX]
    empties = {".txt": "", ".csv": ", 1 empty entry skipped"}
    told = "2 repeats left out" + empties.get(Path(name).suffix, ", 2 empty entries skipped")
    assert f"{tmp_path / name}: {told}" in found.notes


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.tsv", 'prompt\n"the end\na fox\na hat\n', "line 2: a quote is not closed"),
        ("p.csv", "prompt\na cat\na fox, a hat\n", "line 3: expected 1 field.* Put a text"),
        ("p.csv", "prompt,prompt\na,b\n", "a column stands twice: prompt"),
        ("p.json", '{"a": "x", "a": "y"}', "the key 'a' stands twice"),
        ("p.txt", '[{"prompt": "x", "prompt": "y"}]', "the key 'prompt' stands twice"),
        ("p.jsonl", '{"prompt": "x"}\n{"text": "x", "text": "y"}', "the key 'text' stands"),
        ("p.json", json.dumps({"nodes": [], "links": [], "version": 0.4}), "Export .API."),
        ("p.json", json.dumps({"1": {"class_type": "VAE", "inputs": {}}}), "found none that do"),
        ("p.csv", "a red hat\na fox\n", "expected a column"),
        (
            "p.json",
            json.dumps({"a": {"prompts": [FOX]}, "b": {"prompts": [HAT]}}),
            "are under a, b",
        ),
        ("p.json", json.dumps({"a": 1}), "expected prompts"),
        ("p.json", json.dumps([FOX, 3]), "entry 2: expected a text"),
        ("p.txt", "a\0b".encode("utf-16-le"), "null characters"),
        ("p.txt", b"\xff\xfe\x00", "UTF-16"),
        ("p.txt", b"caf\xe9", "UTF-8"),
        ("p.parquet", "no", "no parquet"),
    ],
)
def test_what_cannot_be_read_whole_is_refused_in_one_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(PromptError, match=message) as caught:
        read(tmp_path, name, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "pick", "expected"),
    [
        ({"a": {"b": [FOX]}, "c": {"b": [HAT]}}, "c.b", HAT),
        ({"a": {"b": [{"text": FOX, "long": HAT}]}}, "a.b.long", HAT),
        ([{"text": FOX, "long": HAT}], "long", HAT),
        ({"x": {"text": FOX, "long": HAT}, "y": {"text": FOX, "long": "b"}}, "long", HAT),
    ],
)
def test_a_pick_names_keys_and_a_column(
    tmp_path: Path, content: Any, pick: str, expected: str
) -> None:
    assert texts(read(tmp_path, "p.json", json.dumps(content), pick))[0] == expected


def test_the_place_and_the_column_that_were_taken_are_told(tmp_path: Path) -> None:
    content = {"info": "x", "set": {"rows": [{"caption": FOX, "text": HAT}]}}
    notes = read(tmp_path, "p.json", json.dumps(content)).notes
    assert f"{tmp_path}/p.json: the prompts are those under set.rows" in notes
    assert f"{tmp_path}/p.json: the prompts are its column 'caption' (there is text, too)" in notes


def test_of_coco_the_first_caption_of_an_image_is_taken_and_the_others_counted(
    tmp_path: Path,
) -> None:
    rows = [(1, FOX), (1, "x"), (2, HAT)]
    content = {
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "annotations": [{"id": k, "image_id": i, "caption": c} for k, (i, c) in enumerate(rows)],
    }
    found = read(tmp_path, "p.json", json.dumps(content))
    assert texts(found) == [FOX, HAT]
    assert any("1 further caption of an image left out" in note for note in found.notes)


def test_hash_signs_begin_comments_only_where_the_file_begins_with_one(tmp_path: Path) -> None:
    assert texts(read(tmp_path, "p.txt", "#1 dad mug\n# a fox\n")) == ["#1 dad mug", "# a fox"]
    found = read(tmp_path, "p.txt", "# mugs\n#1 dad mug\n# more\n")
    assert texts(found) == ["#1 dad mug"]
    assert any("2 comment lines left out" in note for note in found.notes)


def test_lines_are_cut_at_newlines_alone(tmp_path: Path) -> None:
    assert texts(read(tmp_path, "p.txt", "a\u2028b\x0bc\nd")) == ["a\u2028b\x0bc", "d"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.txt", f"{FOX}\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7\n"),
        ("p.txt", f'--prompt "{FOX}" --negative_prompt "blurry" --steps 20\n'),
        ("p.yaml", f"- prompt: {FOX}\n  negative_prompt: blurry\n"),
        ("p.csv", f"prompt,negative_prompt\n{FOX},blurry\n"),
        ("p.json", json.dumps(WORKFLOW)),
    ],
)
def test_negative_prompts_of_other_tools_belong_to_their_prompts(
    tmp_path: Path, name: str, content: str
) -> None:
    (own,) = read(tmp_path, name, content).prompts
    assert (own.text, own.negative) == (FOX, "blurry")


def test_settings_of_other_tools_are_left_out_and_told(tmp_path: Path) -> None:
    notes = read(tmp_path, "p.txt", f"{FOX}\nSteps: 20, Sampler: Euler\n").notes
    assert any("1 line of settings" in note for note in notes)
    notes = read(tmp_path, "p.txt", f'--prompt "{FOX}" --steps 20').notes
    assert any("--steps" in note for note in notes)


def test_syntax_that_nothing_reads_is_told_once_with_a_count(tmp_path: Path) -> None:
    own = ["a (fox:1.3)", "a fox <lora:x:0.5>", "{prompt}, oil", "a fox (in a wood)"]
    (note,) = read(tmp_path, "p.json", json.dumps(own)).notes
    assert "3 prompts hold (word:1.3), <lora:...>, {...}" in note


def test_the_same_text_with_another_negative_prompt_is_another_prompt(tmp_path: Path) -> None:
    found = read(tmp_path, "p.csv", f"prompt,negative\n{FOX},a\n{FOX},b\n{FOX},\n")
    assert [prompt.negative for prompt in found.prompts] == ["a", "b", ""]
    assert len({prompt.id for prompt in found.prompts}) == 3


def encode(text: Any, kind: str = "CLIPTextEncode") -> dict[str, Any]:
    return {"class_type": kind, "inputs": {"text": text, "clip": ["4", 1]}}


@pytest.mark.parametrize(
    "content",
    [
        {"prompt": WORKFLOW, "client_id": "x"},
        {
            "3": {"class_type": "KSampler", "inputs": {"positive": ["6", 0], "negative": ["7", 0]}},
            "6": encode(["9", 0]),
            "7": encode("blurry"),
            "9": {"class_type": "PrimitiveString", "inputs": {"value": FOX}},
        },
        {
            "3": {
                "class_type": "CFGGuider",
                "inputs": {"positive": ["5", 0], "negative": ["7", 0]},
            },
            "5": {"class_type": "FluxGuidance", "inputs": {"conditioning": ["6", 0]}},
            "6": {
                "class_type": "CLIPTextEncodeFlux",
                "inputs": {"clip_l": "", "t5xxl": FOX, "guidance": 3},
            },
            "7": encode("blurry"),
        },
    ],
)
def test_workflows_are_followed_to_their_texts(tmp_path: Path, content: Any) -> None:
    (own,) = read(tmp_path, "p.json", json.dumps(content)).prompts
    assert (own.text, own.negative) == (FOX, "blurry")


def test_guiders_and_every_negative_prompt_of_a_workflow_are_read(tmp_path: Path) -> None:
    content = {
        **WORKFLOW,
        "8": {"class_type": "KSampler", "inputs": {"positive": ["6", 0], "negative": ["9", 0]}},
        "9": encode("dark"),
        "10": {"class_type": "BasicGuider", "inputs": {"conditioning": ["11", 0]}},
        "11": encode(HAT),
    }
    found = read(tmp_path, "p.json", json.dumps(content))
    own = [(prompt.text, prompt.negative) for prompt in found.prompts]
    assert own == [(FOX, "blurry"), (FOX, "dark"), (HAT, "")]


def test_lines_that_follow_a_negative_prompt_are_of_it_where_settings_end_it(
    tmp_path: Path,
) -> None:
    content = f"{FOX}\nNegative prompt: a,\nb\nSteps: 20, Sampler: Euler\n\n{HAT}\nSteps: 9, CFG: 1"
    own = [(prompt.text, prompt.negative) for prompt in read(tmp_path, "p.txt", content).prompts]
    assert own == [(FOX, "a, b"), (HAT, "")]


def test_no_text_of_a_folder_vanishes_or_merges_without_a_word(tmp_path: Path) -> None:
    content = [f"# {FOX}", "", "one\ntwo\n", f"{HAT}\nSteps: 20, Sampler: Euler"]
    for number, own in enumerate(content):
        (tmp_path / f"{number}.txt").write_text(own)
    found = load_prompts(str(tmp_path))
    assert texts(found) == [f"# {FOX}", "one two", HAT]
    assert any("1 empty entry skipped" in note for note in found.notes)
    assert any("1 file of several lines" in note for note in found.notes)


def test_columns_that_are_no_tags_are_told(tmp_path: Path) -> None:
    row = {"prompt": FOX, "kind": "x", "Kind (main)": "y", "include": [{"a": 1}], "none": None}
    row |= {"attributes": ["red"], "long": "x" * 300}
    found = read(tmp_path, "p.json", json.dumps([row]))
    assert found.prompts[0].tags == {"kind": "x", "attributes": "red"}
    assert any("columns Kind (main), include, long are not kept" in note for note in found.notes)
