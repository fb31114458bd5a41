"""Generated suites, prompt files, gates, score files and stores: a result or one clear error, never
a traceback.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import string
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from eddy_bench.compare.gate import read_gate
from eddy_bench.errors import EddyError
from eddy_bench.experiment.events import Listener
from eddy_bench.experiment.imported import Import, import_images
from eddy_bench.methods.registry import build_method, method_label, method_name
from eddy_bench.render.table import Table
from eddy_bench.results.results import read_results
from eddy_bench.shown import cell_text, text_of_cell
from eddy_bench.storage.group import Entry, GroupIndex
from eddy_bench.storage.pictures import read_picture
from eddy_bench.storage.records import RunRecord, SuiteRecord
from eddy_bench.storage.run_folder import RunFolder, write_run
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.prompts import load_prompts
from eddy_bench.suites.suite import Suite, load_suite
from tests.makers.groups import COST, SETTINGS, make_group, make_images
from tests.makers.score_files import frame

# 10,000 inputs in all with EDDY_BENCH_EXAMPLES=1000 (make test-slow); fewer by default.
COUNT = int(os.environ.get("EDDY_BENCH_EXAMPLES", "60"))
many = settings(
    max_examples=COUNT, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
fewer = settings(many, max_examples=max(COUNT // 5, 20))  # each makes a run folder
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)
suite_keys = st.sampled_from([*Suite.model_fields, "sweep", "colour"])
texts = st.text(max_size=200)


def written(name: str, content: str | bytes) -> Path:
    path = Path(tempfile.mkdtemp()) / name
    path.write_bytes(
        content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    )
    return path


def works_or_says(call: Any) -> Any:
    """The result, or None after one clear line."""
    try:
        return call()
    except EddyError as error:
        said = str(error)
    assert said.strip()
    assert "\n" not in said
    return None


@many
@given(st.dictionaries(suite_keys, values, max_size=6))
def test_any_suite_is_read_or_refused_in_one_line(data: dict[str, Any]) -> None:
    suite = works_or_says(lambda: load_suite(str(written("suite.yaml", yaml.safe_dump(data)))))
    if suite is not None:
        for spec in suite.methods:
            works_or_says(lambda spec=spec: build_method(spec))


@many
@given(st.binary(max_size=300) | texts.map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_read_or_refused_in_one_line(content: bytes) -> None:
    works_or_says(lambda: load_suite(str(written("suite.yaml", content))))
    works_or_says(lambda: read_gate(written("gate.yaml", content)))
    works_or_says(lambda: read_results([written("scores.csv", content)]))
    for name in ("p.yaml", "p.txt", "p.json", "p.jsonl", "p.csv", "p.tsv"):
        works_or_says(lambda name=name: load_prompts(str(written(name, content))))


plain = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="#-"), max_size=6
).map(str.strip)


def written_prompts(name: str, entries: list[str | None]) -> Path:
    """A prompt file of texts, as a tool would write it."""
    table = pd.DataFrame({"prompt": [text or "" for text in entries], "k": range(len(entries))})
    match Path(name).suffix:
        case ".csv":
            return written(name, table.to_csv(index=False))
        case ".tsv":
            return written(name, table.to_csv(index=False, sep="\t"))
        case ".parquet":
            table.to_parquet(path := written(name, ""))
            return path
        case ".jsonl":
            return written(name, table.to_json(orient="records", lines=True))
        case ".txt":
            return written(name, "\n".join(text or "" for text in entries))
    return written(name, json.dumps(entries))


@many
@given(
    st.lists(plain | st.none(), min_size=1, max_size=6),
    st.sampled_from(["p.csv", "p.tsv", "p.json", "p.jsonl", "p.yaml", "p.txt", "p.parquet"]),
)
def test_every_prompt_of_any_file_is_there_or_counted(entries: list[str | None], name: str) -> None:
    path = written_prompts(name, entries)
    prompts = works_or_says(lambda: load_prompts(str(path)))
    filled = [text for text in entries if text]
    if prompts is None:
        assert not filled
        return
    assert [prompt.text for prompt in prompts.prompts] == list(dict.fromkeys(filled))
    told = " ".join(prompts.notes)
    repeats = re.search(r"(\d+) repeats? left out", told)
    assert int(repeats[1] if repeats else 0) == len(filled) - len(set(filled))
    empty = re.search(r"(\d+) empty entr", told)
    if Path(name).suffix != ".txt":  # of which blank lines are none
        assert int(empty[1] if empty else 0) == len(entries) - len(filled)


pictures = st.sampled_from(["RGB", "L", "P", "1", "CMYK", "RGBA", "LA", "I;16", "F"])


@many
@given(
    pictures,
    st.sampled_from(["png", "jpg", "webp", "tif", "bmp", "gif", "ppm", "tga", "ico"]),
    st.integers(0, 400),
    st.binary(max_size=8),
)
def test_any_picture_is_read_or_refused_in_one_line(
    mode: str, ending: str, place: int, spoilt: bytes
) -> None:
    buffer = io.BytesIO()
    with contextlib.suppress(OSError, ValueError, KeyError):  # not every format has every mode
        kind = Image.registered_extensions()[f".{ending}"]
        Image.new(mode, (9, 7), 1).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    content[place : place + len(spoilt)] = spoilt
    path = written(f"p.{ending}", bytes(content))
    said = ""
    try:
        assert read_picture(path).mode == "RGB"
    except ValueError as error:
        said = str(error)
    assert "\n" not in said.strip()


@fewer
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["file", "prompt", "method", "seed", "seconds", "id"]),
            values | plain,
            max_size=5,
        ),
        max_size=4,
    )
)
def test_any_table_of_pictures_is_imported_or_refused_in_one_line(
    rows: list[dict[str, Any]],
) -> None:
    picture = written("0.png", b"")
    Image.new("RGB", (4, 4)).save(picture)
    for row in rows:
        if "file" in row and row["file"] == "":
            row["file"] = "0.png"
    path = written("images.json", json.dumps(rows))
    out = path.parent / f"imported-{time.time_ns()}"
    works_or_says(lambda: import_images(Import(path, out), Listener()))


@many
@given(
    st.lists(
        texts
        | st.dictionaries(st.sampled_from(["prompt", "id", "attributes", "x"]), values, max_size=3),
        max_size=5,
    ),
    st.booleans(),
)
def test_any_prompts_are_read_with_ids_that_stay_in_the_folder(
    entries: list[Any], as_json: bool
) -> None:
    content = json.dumps(entries) if as_json else yaml.safe_dump(entries, allow_unicode=True)
    prompts = works_or_says(
        lambda: load_prompts(str(written("p.json" if as_json else "p.yaml", content)))
    )
    if prompts is not None:
        assert len({prompt.id.lower() for prompt in prompts.prompts}) == len(prompts.prompts)
        for prompt in prompts.prompts:
            assert_inside(Path("run") / "samples" / "iid" / prompt.id)
            prompt.text.encode("utf-8")


def assert_inside(path: Path) -> None:
    """A path below run/samples, one part after the other."""
    assert len(path.parts) == 4
    assert not {"..", ".", ""} & set(path.parts)
    assert "/" not in path.parts[-1]


@many
@given(texts)
def test_method_names_cannot_leave_the_folder(text: str) -> None:
    spec = works_or_says(lambda: MethodSpec.parse(text))
    if spec is not None:
        assert_inside(Path("run") / "samples" / method_name(spec) / "p")
        method = works_or_says(lambda: build_method(spec))
        if method is not None:
            assert_inside(Path("run") / "samples" / method_label(spec, method) / "p")


@many
@given(
    st.dictionaries(
        st.sampled_from(["checks", "methods", "x"]),
        values
        | st.lists(
            st.dictionaries(
                st.sampled_from(["metric", "test", "direction", "margin", "x"]),
                values
                | st.sampled_from(
                    ["vendi", "nfe", "fd", "equal", "pooled", "noninferior", "ratio"]
                ),
                max_size=4,
            ),
            max_size=3,
        ),
        max_size=3,
    )
)
def test_any_gate_is_read_or_refused_in_one_line(data: dict[str, Any]) -> None:
    works_or_says(lambda: read_gate(written("gate.yaml", yaml.safe_dump(data))))


@many
@given(
    st.integers(0, 15),
    st.sampled_from(
        ["method", "prompt_id", "prompt", "seed", "value", "signature", "metric", "steps"]
    ),
    texts,
)
def test_a_score_file_with_any_cell_is_read_or_refused_in_one_line(
    row: int, column: str, cell: str
) -> None:
    rows = frame({"iid": {"vendi": 0.0}, "pg": {"vendi": 0.1}}, prompts=8).astype(object)
    rows.loc[row, column] = cell
    path = written("scores.csv", "")
    rows.to_csv(path, index=False)
    works_or_says(lambda: read_results([path]))


@many
@given(texts)
def test_a_cell_is_read_back_and_never_a_formula(text: str) -> None:
    assert text_of_cell(cell_text(text)) == text
    assert not cell_text(text).startswith(("=", "+", "-", "@", "\t", "\r"))
    clean = text.replace("\0", "").replace("\r", " ")
    path = written("c.csv", "")
    try:
        pd.DataFrame({"seed": [0, 1], "prompt": [cell_text(clean), "end"]}).to_csv(
            path, index=False
        )
    except (
        UnicodeEncodeError
    ):  # lone surrogates never get this far: prompts are made whole when they are read
        return
    again = pd.read_csv(path, dtype=str, keep_default_na=False)["prompt"].iloc[0]
    assert text_of_cell(str(again)) == clean
    assert Table("", [text], ()).markdown().rstrip("\n").count("\n") == 2


@many
@given(
    st.lists(
        st.tuples(st.text(string.ascii_lowercase, min_size=1, max_size=3), st.text(max_size=8)),
        max_size=6,
    ),
    st.binary(max_size=60),
    st.integers(0, 400),
)
def test_an_index_that_was_cut_or_scribbled_on_gives_what_was_written(
    entries: list[tuple[str, str]], noise: bytes, cut: int
) -> None:
    """What is read back was written; whatever happens to the file, nothing else comes out."""
    index = GroupIndex(Path(tempfile.mkdtemp()) / "samples.jsonl")
    for path, key in entries:
        index.add([Entry(path, key, {"0.png": len(key)})])
    assert {path: entry.key for path, entry in index.read().items()} == dict(entries)
    content = index.path.read_bytes() if index.path.exists() else b""
    index.path.write_bytes(content[: max(0, len(content) - cut)] + noise)
    index.add([Entry("zzzz", "last", {})])
    entries_read = index.read()
    assert entries_read["zzzz"].key == "last"
    written_paths = {path for path, _ in entries}
    assert all(path in written_paths or path == "zzzz" or noise for path in entries_read)


@many
@given(
    st.dictionaries(st.sampled_from(["group", "cost", "files", "x"]), values, max_size=4) | values,
    st.integers(0, 500),
)
def test_a_group_file_of_any_other_content_is_not_read_as_whole(data: Any, cut: int) -> None:
    folder = RunFolder.prepare(Path(tempfile.mkdtemp()) / "r", SETTINGS)
    write_run(folder.path, RunRecord(suite=SuiteRecord(), settings=SETTINGS))
    folder.write_group(make_group(), make_images(), COST, {})
    path = folder.samples / make_group().path / "group.json"
    whole = path.read_text()
    path.write_text(json.dumps(data))
    works_or_says(lambda: folder.load(make_group().path, folder.files()))
    assert list(folder.finished()) == []
    path.write_text(whole[: min(cut, len(whole) - 1)])
    works_or_says(lambda: folder.load(make_group().path, folder.files()))
    assert list(folder.finished()) == [], "a partial file is never read as whole"


@pytest.mark.slow
def test_these_properties_hold_on_ten_thousand_inputs() -> None:
    """All of the above, 1,000 times each."""
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", __file__],
        env={**os.environ, "EDDY_BENCH_EXAMPLES": "1000"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_groups_are_made_of_plain_data() -> None:
    kinds = {name: type(value) for name, value in asdict(make_group()).items()}
    assert set(kinds.values()) == {str, int, dict}
    assert {name for name, kind in kinds.items() if kind is int} == {"seed", "particles"}
