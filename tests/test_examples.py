"""The notebooks of `examples/`: kept with their outputs, and executed in the slow tests."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tests.makers.notebooks import NOTEBOOKS, executed, tidied

LARGEST = 600_000  # bytes
NAMES = [path.stem for path in NOTEBOOKS]
SAID = {
    "your-pipeline": [
        "spell:radius=0.5",
        "significantly better than iid",
        "Marginal-preserving",
        "prompts that show a difference of 0.05 of iid's value",
    ],
    "your-method": [
        "keeps every promise that applies to it",
        "Push:",
        "antithetic  real gain, marginal kept",
        "Push  real gain, marginal shifted",
    ],
}


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [output for cell in cells for output in cell.outputs]


def printed(notebook: NotebookNode) -> str:
    streams = [output.text for output in outputs(notebook) if output.output_type == "stream"]
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", "".join(streams))


def check_outputs(notebook: NotebookNode, name: str) -> None:
    """Assert that a notebook shows a grid, a table, and what it is there to say."""
    kinds = [set(output.get("data", {})) for output in outputs(notebook)]
    assert any("image/png" in kind for kind in kinds)
    assert any("text/html" in kind for kind in kinds)
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    text = printed(notebook)
    for words in SAID[name]:
        assert words in text
    assert 'install "ipywidgets"' not in text
    assert "command not found" not in text


def test_there_are_two() -> None:
    assert NAMES == ["your-method", "your-pipeline"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_kept_outputs_are_whole(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    check_outputs(notebook, path.stem)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_kept_notebooks_are_small_and_say_nothing_of_a_machine(path: Path) -> None:
    assert path.stat().st_size < LARGEST
    text = path.read_text()
    for place in ("/home/", "/root/", "/tmp/", "/usr/", "/Users/", "site-packages", ".venv"):
        assert place not in text
    assert str(Path(__file__).parents[1]) not in text
    assert r"\u001b[2K" not in text, "a bar that was drawn over and over: add -q"
    assert tidied(read(path)) == read(path)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a copy elsewhere, and where the environment's commands are not on the path."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    root = str(Path(__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", root)  # what is here, wherever another copy is installed
    copy = shutil.copy(path, tmp_path / path.name)
    check_outputs(executed(Path(copy), tmp_path), path.stem)
