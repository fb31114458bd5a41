"""The recipes of CONTRIBUTING.md: what they say is run."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eddy_bench.audit.conformance import check_contract
from eddy_bench.audit.metric_conformance import check_metric
from eddy_bench.compare import tables
from eddy_bench.compare.comparison import compare_runs
from eddy_bench.methods.registry import METHODS, build_method
from eddy_bench.sampling import families, scheduler_table
from eddy_bench.scoring.metrics import MetricSpec
from eddy_bench.suites.method_spec import MethodSpec
from tests.makers.score_files import frame, write

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()


def blocks(heading: str) -> list[tuple[str, str]]:
    """The code under a heading: the file that each block names, and its code."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n# ([\w/.]+\.py).*?\n(.*?)```", section, flags=re.S)


def row(heading: str, module: Any) -> Any:
    """The value of the line that a recipe adds to the file it names."""
    ((file, code),) = blocks(heading)
    assert (ROOT / file).samefile(module.__file__)
    return eval(code, vars(module))


def test_a_method_is_one_file_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file, code), (registry, line) = blocks("A method")
    assert (ROOT / file).parent == Path(ROOT / registry).parent
    assert (ROOT / registry).is_file()
    ((name, target),) = ast.literal_eval("{" + line + "}").items()
    made = tmp_path / Path(file).name
    made.write_text(code)
    place = target.partition(":")[0]
    spec = importlib.util.spec_from_file_location(place, made)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, place, module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(METHODS, name, target)
    method = build_method(MethodSpec.parse(name))
    assert method.title() == name
    assert [finding for finding in check_contract(method) if finding.holds is False] == []


def test_a_family_is_one_row() -> None:
    family = row("A model family", families)
    assert family in families.FAMILIES


def test_a_scheduler_is_one_row() -> None:
    assert row("A scheduler", scheduler_table) in scheduler_table.ROWS


def test_every_path_that_is_named_is_there() -> None:
    """But for the files that a recipe makes."""
    made = {"eddy_bench/methods/centre.py", "eddy_bench/scoring/spread.py"}
    named = set(re.findall(r"(?:eddy_bench|tests|docs|benchmarks)/[\w/]+\.\w+", PAGE)) - made
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_a_metric_is_one_file_and_one_line(tmp_path: Path) -> None:
    (file, code), (registry, line) = blocks("A metric")
    assert Path(file).parent == Path(registry).parent
    assert Path(file).stem == line.strip()
    made = tmp_path / Path(file).name
    made.write_text(code)
    spec = importlib.util.spec_from_file_location("spread", made)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (metric,) = module.METRICS
    assert metric(np.eye(3)) == pytest.approx(2**0.5)
    findings = check_metric(MetricSpec(metric), None)
    assert [finding for finding in findings if finding.holds is False] == []


def test_a_column_of_compare_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    title, text = row("A column of `compare`", tables)
    monkeypatch.setattr(tables, "FULL", (*tables.FULL, (title, text)))
    effects = {"iid": {"vendi": 0.0}, "pg": {"vendi": 0.3}}
    comparison = compare_runs([write(tmp_path / "s.csv", frame(effects))], "iid")
    (table, *_) = tables.full_tables(comparison)
    (column,) = [own for own in table.columns if own.title == title]
    assert float(column.cells[0].text) > 0
