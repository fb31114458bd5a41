"""No file that is read can make a Python file run: a person's words alone can."""

from __future__ import annotations

import ast
import contextlib
import csv
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eddy_bench.cli.app import main
from eddy_bench.errors import EddyError, ParameterError
from eddy_bench.experiment.cost_matching import _rivals, unmatched
from eddy_bench.methods.registry import build_method
from eddy_bench.models.tasks import read_task_file
from eddy_bench.scoring.metrics import parse_all
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.plugins import load_from_file
from eddy_bench.suites.prompts import load_prompts
from eddy_bench.suites.suite import load_suite
from tests.makers.runs import SHORT
from tests.makers.scored_runs import make_run

ROOT = Path(__file__).parents[1] / "eddy_bench"
CODE = "from pathlib import Path\nPath({mark!r}).touch()\n"
SUITE: dict[str, Any] = {
    "name": "mine",
    "model": "fashion",
    "methods": [
        "iid",
        "pg:strength=2",
        {"best-of-m": {"equal": "pg:strength=2"}},
        {"name": "pg", "parameters": {"kernel": "latent", "strength": "1"}},
        {"name": "best-of-m", "parameters": {"equal": "pg"}},
    ],
    "sweep": {"best-of-m": {"equal": ["pg", "iid"]}, "group-inference": {"quality": ["a", "b"]}},
    "prompts": "fashion",
    "scheduler": "ddim",
    "metrics": ["vendi", "clip"],
    "reference": "x",
    "weights": "x",
    "guide": "x",
    "decoder": "x",
}
GATE = {"checks": [{"metric": "vendi", "test": "equal"}], "methods": ["iid", "pg:strength=2"]}
TASK = {"name": "t", "means": [[0.0], [1.0]], "covariances": 1.0, "features": "random"}
PROMPTS = [{"id": "a", "prompt": "a hat", "attributes": {"kind": "hat"}}, "a shoe"]
VOTES = "item,shuffle,different,better,voter\nx,0,left,left,me\n"


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a structure has a text: its values, and the keys of its mappings."""
    if isinstance(data, str):
        yield path
    items = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data if isinstance(data, list) else ())
    )
    for key, part in items:
        if isinstance(data, dict):
            yield (*path, f"key {key}")
        yield from places(part, (*path, key))


def replaced(data: Any, path: tuple[Any, ...], text: str) -> Any:
    """The structure with a text at a place."""
    if not path:
        return text
    first, rest = path[0], path[1:]
    if isinstance(data, dict):
        return {
            (text if f"key {key}" == first else key): (
                replaced(part, rest, text) if key == first else part
            )
            for key, part in data.items()
        }
    return [replaced(part, rest, text) if k == first else part for k, part in enumerate(data)]


class Trap:
    """A Python file that leaves a mark when it is run."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.mark = self.folder / "it ran"
        self.file = self.folder / "evil.py"
        self.file.write_text(CODE.format(mark=str(self.mark)))

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path


def quietly(call: Callable[[], Any]) -> None:
    """Call what may refuse its input."""
    silent = io.StringIO()
    with (
        contextlib.suppress(EddyError, SystemExit),
        contextlib.redirect_stdout(silent),
        contextlib.redirect_stderr(silent),
    ):
        call()


def use_suite(path: Path) -> None:
    """Do with a suite what `run` does with it before and after a model is loaded."""
    suite = load_suite(str(path))
    quietly(lambda: parse_all(suite.metrics or [], suite.permission("metrics")))
    for spec in suite.methods:
        quietly(lambda spec=spec: build_method(spec, suite.permission("methods")))  # type: ignore[misc]
    for spec in unmatched(suite):
        method = build_method(spec, suite.permission("methods"))
        named = [MethodSpec.parse(text) for text in [method.equal_cost_to()] if text]
        for rival in [*named, *_rivals(suite)]:
            build_method(rival, suite.permission("methods"))


COUNT = int(os.environ.get("EDDY_BENCH_EXAMPLES", "60"))
SPELT = ("{}:name", "{}:name:strength=2", "best-of-m:equal={}:name", "best-of-m:equal={}:name;m=2")
many = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
STRUCTURES = [("suite", where) for where in places(SUITE)]
STRUCTURES += [("task", where) for where in places(TASK)]
STRUCTURES += [("prompts", where) for where in places(PROMPTS)]


@many
@given(st.sampled_from(STRUCTURES), st.sampled_from(SPELT))
def test_no_text_of_a_structure_runs_a_file(where: tuple[str, Any], spelt: str) -> None:
    (kind, place), trap = where, Trap()
    text = spelt.format(trap.file)
    data = replaced({"suite": SUITE, "task": TASK, "prompts": PROMPTS}[kind], place, text)
    as_yaml, as_json = trap.write("f.yaml", yaml.safe_dump(data)), json.dumps(data)
    uses: dict[str, Callable[[], Any]] = {
        "suite": lambda: use_suite(as_yaml),
        "task": lambda: read_task_file(as_yaml),
        "prompts": lambda: (
            load_prompts(str(as_yaml)),
            load_prompts(str(trap.write("f.json", as_json))),
        ),
    }
    quietly(uses[kind])
    assert not trap.mark.exists()


RUN_FILES = ("run.yaml", "manifest.json", "planned.json", "scores.csv", "summary.csv", "group.json")


def poison(path: Path, number: int, text: str) -> None:
    """Put a text at one of the places of a file that hold texts."""
    if path.suffix == ".csv":
        rows = list(csv.reader(path.open()))
        line, column = divmod(number, len(rows[0]))
        rows[line % min(3, len(rows))][column] = text
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        return
    load, dump = (
        (yaml.safe_load, yaml.safe_dump) if path.suffix == ".yaml" else (json.loads, json.dumps)
    )
    data = load(path.read_text())
    known = list(places(data))
    path.write_text(dump(replaced(data, known[number % len(known)], text)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run whose best-of-m was matched: its run.yaml names a method within a method."""
    folder = tmp_path_factory.mktemp("run") / "run"
    quietly(lambda: main([*SHORT, "--method", "best-of-m:equal=iid", "--out", str(folder)]))
    assert (folder / "scores.csv").is_file()
    return folder


@settings(max_examples=COUNT // 5, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(RUN_FILES), st.integers(0, 400), st.sampled_from(SPELT))
def test_no_text_of_a_run_folder_runs_a_file(run: Path, name: str, number: int, spelt: str) -> None:
    trap = Trap()
    copy = trap.folder / "copy"
    shutil.copytree(run, copy)
    path = next((copy / "samples").rglob(name)) if name == "group.json" else copy / name
    poison(path, number, spelt.format(trap.file))
    other = str(copy)
    quietly(lambda: main(["compare", other]))
    quietly(lambda: main(["compare", other, "--against", str(run), "--allow-missing"]))
    quietly(lambda: main(["report", other]))
    quietly(lambda: main(["score", other, "--metric", "vendi[pixels]"]))
    quietly(lambda: main(["merge", str(trap.folder / "merged"), other]))
    assert not trap.mark.exists()


@pytest.mark.parametrize("place", list(places(GATE)), ids=str)
def test_no_text_of_a_gate_runs_a_file(tmp_path: Path, place: tuple[Any, ...]) -> None:
    scored = make_run(tmp_path / "scored")
    for spelt in SPELT:
        trap = Trap()
        gate = trap.write("g.yaml", yaml.safe_dump(replaced(GATE, place, spelt.format(trap.file))))
        quietly(
            lambda gate=gate: main(
                ["compare", str(scored), "--against", str(scored), "--gate", str(gate)]
            )
        )  # type: ignore[misc]
        assert not trap.mark.exists()


def test_votes_run_no_file(tmp_path: Path) -> None:
    scored, trap = make_run(tmp_path / "scored"), Trap()
    for text in ("item", "x", "left", "me"):
        votes = trap.write("v.csv", VOTES.replace(text, f"{trap.file}:name"))
        quietly(lambda votes=votes: main(["compare", str(scored), "--votes", str(votes)]))  # type: ignore[misc]
    assert not trap.mark.exists()


def test_the_loader_itself_asks_for_a_permission() -> None:
    trap = Trap()
    with pytest.raises(
        ParameterError, match=r"another file names, so it is not run\. Name it with"
    ):
        load_from_file(f"{trap.file}:name", "--method", None)
    assert not trap.mark.exists()


def test_a_persons_words_alone_make_a_permission() -> None:
    """What makes one: the command line and calls from Python."""
    makers = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Permission":
                makers.add(path.relative_to(ROOT).as_posix())
    assert {name for name in makers if not name.startswith("cli/")} == {"notebook.py"}


def test_a_typed_method_brings_no_permission_for_what_the_suite_names(tmp_path: Path) -> None:
    trap = Trap()
    suite = trap.write("s.yaml", yaml.safe_dump({"metrics": [f"{trap.file}:name"]}))
    quietly(lambda: main(["run", str(suite), "--method", "iid", "--dry-run"]))
    assert not trap.mark.exists()
