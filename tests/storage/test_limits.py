"""What grows as a product is counted before it is made, and files are read in linear time."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from eddy_bench.compare.gate import read_gate
from eddy_bench.errors import EddyError
from eddy_bench.methods.base import check_demands
from eddy_bench.methods.registry import METHODS, build_method, load_method
from eddy_bench.models.tasks import read_task_file
from eddy_bench.results.io import COLUMNS
from eddy_bench.results.results import read_results
from eddy_bench.storage import files as limits
from eddy_bench.storage.files import read_text, read_yaml
from eddy_bench.storage.group import GroupGrid
from eddy_bench.storage.run_folder import read_planned, read_run
from eddy_bench.suites import prompt_files
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.prompts import load_prompts
from eddy_bench.suites.suite import load_suite
from tests.conftest import Result

Cli = Callable[..., Result]
SECONDS = 5.0  # for what is refused, or is 20,000 lines long; a product takes hours


def swift(call: Callable[[], Any]) -> str:
    """What a call refuses with, in time; empty where it gives a result."""
    start = time.perf_counter()
    try:
        call()
        said = ""
    except EddyError as error:
        said = str(error)
    assert time.perf_counter() - start < SECONDS
    assert len(said) < 1000
    return said


def suite(tmp_path: Path, **keys: Any) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(keys))
    return path


NINE = list(range(9))
GRIDS: dict[str, dict[str, Any]] = {
    "many values": {"methods": [{"pg": {"strength": list(range(1, 20_001))}}]},
    "values with bars": {"methods": ["pg:strength=" + "|".join(map(str, range(1, 20_001)))]},
    "many parameters": {"methods": [{"pg": {f"p{k}": NINE for k in range(12)}}]},
    "more digits than print": {"methods": [{"pg": {f"p{k}": NINE for k in range(6000)}}]},
    "a sweep": {"sweep": {"pg": {f"p{k}": NINE for k in range(12)}}},
    "many grids": {"methods": [{"pg": {"strength": list(range(1, 900))}}] * 9},
    "many methods": {"methods": ["pg"] * 20_000},
}


@pytest.mark.parametrize("name", GRIDS)
def test_grids_are_counted_before_they_are_written_out(tmp_path: Path, name: str) -> None:
    said = swift(lambda: load_suite(str(suite(tmp_path, **GRIDS[name]))))
    assert f"Expected at most {limits.MAX_METHODS:,} methods of" in said


@pytest.mark.parametrize("key", ["seeds", "particles", "steps", "batch_prompts", "feature_batch"])
@pytest.mark.parametrize("count", [10**12, 10**20])
def test_counts_of_a_suite_are_bounded_before_a_model_is_loaded(
    cli: Cli, tmp_path: Path, key: str, count: int
) -> None:
    start = time.perf_counter()
    done = cli("run", suite(tmp_path, **{key: count}), "--method", "iid", "--out", tmp_path / "r")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert time.perf_counter() - start < SECONDS
    assert not (tmp_path / "r").exists()


def test_groups_of_a_run_are_counted(cli: Cli, tmp_path: Path) -> None:
    done = cli("run", "--method", "iid", "--seeds", "1000000000000", "--out", tmp_path / "r")
    assert "Expected at most 1,000,000 groups (methods x prompts x seeds), got" in done.err


def test_planned_groups_of_a_folder_are_counted(tmp_path: Path) -> None:
    grid = {"labels": ["iid"], "prompts": ["a"], "seeds": 10**12}
    (tmp_path / "planned.json").write_text(json.dumps([grid]))
    assert "Expected at most 1,000,000 planned groups" in swift(lambda: read_planned(tmp_path))
    (tmp_path / "planned.json").write_text(json.dumps([{**grid, "seeds": 200_000}] * 6))
    assert "got 1,200,000" in swift(lambda: read_planned(tmp_path))


def test_a_grid_counts_what_it_writes_out() -> None:
    for labels, prompts, seeds in ((["a", "b"], ["c"], 3), ([], ["c"], 3), (["a"], ["c"], -1)):
        grid = GroupGrid(labels, prompts, seeds)
        assert grid.count == len(grid.paths())


def merged(levels: int) -> str:
    lines = ["b0: &b0 {k1: 1, k2: 2}"]
    lines += [f"b{k + 1}: &b{k + 1} {{<<: [{', '.join([f'*b{k}'] * 9)}]}}" for k in range(levels)]
    return "\n".join(lines)


FILES = {
    "20,000 keys": "".join(f"k{k}: 1\n" for k in range(20_000)),
    "20,000 entries": "".join(f"- {{id: i{k}, prompt: a hat {k}}}\n" for k in range(20_000)),
    "merged keys": merged(12),
    "deep": "[" * 100_000,
    "deep blocks": "- " * 100_000,
    "one long word": "a" * 4_000_000,
    "many values": f"[{'1,' * 3_000_000}1]",
    "a whole number of base 60": f"seeds: 1{':59' * 100_000}",
    "a number of base 60": f"guidance_scale: 1{':59' * 100_000}.5",
}


@pytest.mark.parametrize("name", FILES)
def test_yaml_is_read_in_linear_time(tmp_path: Path, name: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(FILES[name])
    (tmp_path / "run.yaml").write_text(FILES[name])
    swift(lambda: read_yaml(path, EddyError, "a file", 2**26))
    swift(lambda: load_prompts(str(path)))
    swift(lambda: load_suite(str(path)))
    swift(lambda: read_gate(path))
    swift(lambda: read_task_file(path))
    swift(lambda: read_run(tmp_path))


def test_a_key_that_stands_twice_is_refused_with_its_line_and_a_merged_one_may(
    tmp_path: Path,
) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("a: 1\nb: 2\na: 3\n")
    assert "line 3" in (said := swift(lambda: read_yaml(path, EddyError, "a file", 100)))
    assert "'a' stands twice" in said
    path.write_text("x: &x {a: 1, b: 1}\ny: &y {<<: *x, a: 2}\nz: {<<: *y, a: 3}\n")
    data = read_yaml(path, EddyError, "a file", 100)
    assert (data["y"], data["z"]) == ({"a": 2, "b": 1}, {"a": 3, "b": 1})


@pytest.mark.parametrize("name", ["p.txt", "p.yaml", "p.csv", "p.json", "p.jsonl"])
def test_prompts_are_counted_before_they_are_named(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_files, "MAX_PROMPTS", 2)
    texts = ["a", "b", "c"]
    (tmp_path / name).write_text(
        {
            ".txt": "\n".join(texts),
            ".yaml": json.dumps(texts),
            ".csv": "\n".join(["prompt", *texts]),
            ".json": json.dumps(texts),
            ".jsonl": "\n".join(map(json.dumps, texts)),
        }[Path(name).suffix]
    )
    assert "at most 2 prompts in" in swift(lambda: load_prompts(str(tmp_path / name)))


def test_names_of_metrics_are_bounded_before_they_are_searched(tmp_path: Path) -> None:
    gate = {"checks": [{"metric": "vendi" + "-e" * 200_000, "test": "equal"}]}
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(gate))
    assert "Unknown metric" in swift(lambda: read_gate(tmp_path / "g.yaml"))


TABLES = {
    "many columns": ",".join(f"c{k}" for k in range(200_000)),
    "one column many times": ",".join("a" * 500_000),
    "many fields": ",".join(COLUMNS) + "\n" + "," * 3_000_000,
    "a long field": '"' + "a" * 3_000_000,
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_read_in_linear_time(tmp_path: Path, name: str) -> None:
    (tmp_path / "s.csv").write_text(TABLES[name])
    assert "is not a scores.csv" in swift(lambda: read_results([tmp_path / "s.csv"]))


def test_checks_of_a_gate_are_counted(tmp_path: Path) -> None:
    check = "{metric: vendi, test: equal}"
    (tmp_path / "g.yaml").write_text(f"checks: [{','.join([check] * 1001)}]")
    assert "at most 1000 items" in swift(lambda: read_gate(tmp_path / "g.yaml"))


@pytest.mark.parametrize("text", ["best-of-m:m=10004", "group-inference:m=1000000000"])
def test_candidates_of_a_method_are_counted(text: str) -> None:
    method = build_method(MethodSpec.parse(text))
    said = swift(lambda: check_demands(method, text, 4, 2))
    assert f"Expected at most 10,000 candidates of '{text}', got" in said


def _positive() -> list[str]:
    return [
        f"{name}:{field.name}"
        for name in METHODS
        for field in fields(load_method(name))
        if "Positive" in str(field.type)
    ]


@pytest.mark.parametrize("value", ["1e-160", "1e160", "inf", "nan", "0"])
@pytest.mark.parametrize("parameter", _positive())
def test_the_square_of_a_positive_parameter_is_a_number(parameter: str, value: str) -> None:
    spec = MethodSpec.parse(f"{parameter}={value}")
    assert "Input should be" in swift(lambda: build_method(spec))


READERS: dict[str, Callable[[Path], Any]] = {
    "text": lambda path: read_text(path, EddyError, "a file", 1000),
    "suite": lambda path: load_suite(str(path)),
    "gate": read_gate,
    "task": read_task_file,
    "prompts": lambda path: load_prompts(str(path)),
    "scores": lambda path: read_results([path]),
}


@pytest.mark.parametrize("reader", READERS)
def test_what_has_no_end_is_not_read(tmp_path: Path, reader: str) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path):
        assert swift(lambda path=path: READERS[reader](path))  # type: ignore[misc]
