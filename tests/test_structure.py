"""What holds over the whole package: the order of imports, module sizes, public names."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import eddy_bench

ROOT = Path(eddy_bench.__file__).parent
ORDER = [
    {"errors"},
    {"places"},
    {"files", "interrupt"},
    {"prompt_data"},
    {"registry", "prompts", "suite", "kernels", "statistics"},
    {"distances"},
    {"features", "sampling"},
    {"methods", "models", "metrics"},
    {"index", "lease"},
    {"lock"},
    {"groups", "manifest"},
    {"store"},
    {"score_files"},
    {"summary", "embedding", "grids"},
    {"pooled"},
    {"plan"},
    {"jobs", "shards", "merge"},
    {"ray_executor"},
    {"scoring", "runner"},
    {"equal_cost"},
    {"tables"},
    {"progress"},
    {"audit", "compare", "contract"},
    {"report"},
    {"run_options"},
    {"commands"},
    {"cli"},
]


def layer(name: str) -> int:
    return next(index for index, names in enumerate(ORDER) if name in names)


def imports(path: Path) -> set[str]:
    """Package modules that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("eddy_bench."):
            found.add(node.module.split(".")[1])
    return found


MODULES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.name != "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imports(path):
        if name != own:
            assert layer(name) <= layer(own), f"{own} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


def test_public_names_are_complete() -> None:
    for name in eddy_bench.__all__:
        assert getattr(eddy_bench, name) is not None
    with pytest.raises(AttributeError):
        _ = eddy_bench.nothing  # type: ignore[attr-defined]


def test_the_command_line_imports_nothing_heavy() -> None:
    code = "import sys, eddy_bench.cli; print([m for m in ('torch', 'diffusers', 'pandas', 'pydantic', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
