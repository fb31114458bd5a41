"""Execute the notebooks of `examples/`; `python -m tests.makers.notebooks` keeps their outputs."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
IMAGES = ("image/png", "image/jpeg", "image/svg+xml")
LONGEST = 600  # seconds of a cell


def executed(path: Path, folder: Path) -> NotebookNode:
    """Return a notebook with its outputs, executed in a folder; a cell that errs is an error."""
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=LONGEST, kernel_name="python3", resources=where).execute()
    return notebook


def tidied(notebook: NotebookNode) -> NotebookNode:
    """Return a notebook as it is kept: results alone, each picture once, nothing of a machine.

    Progress and warnings of libraries, which go to stderr, are left out.
    """
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            kept = [_tidied(output) for output in cell.outputs if output.get("name") != "stderr"]
            cell.outputs = _joined(kept)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def _tidied(output: NotebookNode) -> NotebookNode:
    """Return an output with the first form of its picture, or its table, beside its text."""
    if output.output_type == "stream":
        output.text = re.sub(r"[ \t]+$", "", output.text.replace("\r\n", "\n"), flags=re.MULTILINE)
    elif "data" in output:
        output.metadata = {}
        for kind in [kind for kind in IMAGES if kind in output.data][1:]:
            del output.data[kind]
    return output


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Return outputs with the lines of a stream in one."""
    joined: list[NotebookNode] = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def main() -> None:
    """Execute every notebook and keep its outputs."""
    import tempfile

    for path in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            notebook = tidied(executed(path, Path(folder)))
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
