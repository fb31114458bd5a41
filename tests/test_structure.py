"""What holds over the whole package: rooms, module sizes, public names, what start-up imports."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import eddy_bench

ROOT = Path(eddy_bench.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
MAX_ROOMS = 20
MAX_ARROWS = 95


def room(parts: tuple[str, ...]) -> str:
    """A package below eddy_bench, or a module beside the packages."""
    return parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms from which a module imports, wherever in it."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            package, *rest = node.module.split(".")
            if package == "eddy_bench":
                rooms.add(room(tuple(rest)) if rest else "__init__")
    return rooms


def test_there_are_few_rooms_and_few_arrows_between_them() -> None:
    """Which way the arrows point is held by the contract in pyproject.toml (`lint-imports`)."""
    arrows = {
        (room(path.relative_to(ROOT).parts), target)
        for path in MODULES
        for target in imported_rooms(path)
        if target != room(path.relative_to(ROOT).parts)
    }
    rooms = {room(path.relative_to(ROOT).parts) for path in MODULES}
    assert len(rooms) <= MAX_ROOMS
    assert len(arrows) <= MAX_ARROWS


def test_every_public_name_can_be_imported_and_no_other() -> None:
    for name in eddy_bench.__all__:
        assert getattr(eddy_bench, name) is not None
    with pytest.raises(AttributeError):
        _ = eddy_bench.nothing  # type: ignore[attr-defined]


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = ("torch", "diffusers", "pandas", "pydantic", "numpy")
    code = f"import sys, eddy_bench.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Modules with places where an error passes without a word, and how many. A new one has a reason:
# the error says something of the system, or who calls says what became of it.
SILENT = {
    "audit/run.py": 2,
    "cli/doctor.py": 1,
    "compare/advice.py": 1,
    "compare/published.py": 1,
    "compare/tables.py": 1,
    "experiment/plan.py": 1,
    "experiment/ray_executor.py": 1,
    "kernels.py": 1,
    "models/devices.py": 5,
    "models/folders.py": 1,
    "report/strips.py": 1,
    "results/io.py": 1,
    "sampling/solver_view.py": 1,
    "sampling/steer.py": 1,
    "scoring/scorer.py": 1,
    "scoring/torchmetrics_classes.py": 1,
    "storage/group.py": 4,
    "storage/lock.py": 6,
    "storage/packs.py": 1,
    "storage/paths.py": 3,
    "storage/provenance.py": 1,
    "storage/run_folder.py": 2,
    "suites/prompt_files.py": 1,
    "suites/prompt_syntax.py": 1,
}


def passes_silently(node: ast.AST) -> bool:
    """Whether a node catches errors and does nothing or returns nothing."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "suppress"
    if not isinstance(node, ast.ExceptHandler) or len(node.body) > 1:
        return False
    (own,) = node.body
    if isinstance(own, ast.Return) and own.value is not None:
        return ast.unparse(own.value) in {"None", "False", "{}", "[]", "''"}
    return isinstance(own, (ast.Pass, ast.Continue, ast.Return))


def test_no_error_passes_without_a_word_but_those_that_are_counted_here() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): sum(map(passes_silently, ast.walk(tree)))
        for path in MODULES
        for tree in [ast.parse(path.read_text())]
    }
    assert {name: count for name, count in found.items() if count} == SILENT


def test_the_lowest_versions_are_those_that_are_declared() -> None:
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    optional = [line for extra in extras if extra != "dev" for line in extras[extra]]
    declared = {
        entry.name: Version(next(s.version for s in entry.specifier if s.operator == ">="))
        for entry in map(Requirement, [*project["dependencies"], *optional])
        if entry.specifier and entry.name != "packaging"
    }
    lines = (ROOT.parent / "requirements-lowest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {name: Version(version) for name, version in pinned.items()} == declared


def test_slow_tests_that_are_listed_exist() -> None:
    """A test that was renamed would be quick again without anybody's word."""
    here = Path(__file__).parent
    names = (here / "slow.txt").read_text("utf-8").split()
    assert len(names) > 100
    for name in names:
        file, function = name.split("::")
        assert f"def {function}(" in (here.parent / file).read_text("utf-8"), name
