"""The papers' set-ups: they load, and compare shows the paper's figures beside a run's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from eddy_bench.experiment.checks import check_judges
from eddy_bench.methods.base import check_demands
from eddy_bench.methods.registry import build_method
from eddy_bench.models.backbones import resolve_backbone
from eddy_bench.sampling.scheduler_table import SCHEDULERS
from eddy_bench.scoring.extractors import check_extractor
from eddy_bench.scoring.metrics import METRICS, MetricSpec
from eddy_bench.suites.suite import PAPERS, load_suite, suite_names
from tests.conftest import Result
from tests.makers.groups import SETTINGS
from tests.makers.score_files import frame, write

SUITES = sorted(path.stem for path in PAPERS.glob("*.yaml"))


@pytest.mark.parametrize("name", SUITES)
def test_the_set_ups_are_whole(name: str) -> None:
    assert name in suite_names()
    suite = load_suite(name)
    assert suite.name == name
    if suite.guide:
        assert resolve_backbone(suite.guide).startswith("timm:")
    assert next(spec.name for spec in suite.methods) == "iid"
    metrics = [MetricSpec.parse(text) for text in suite.metrics or []]
    for metric in metrics:
        check_extractor(metric.extractor)
    check_judges(suite, metrics)
    for spec in suite.methods:
        method = build_method(spec)
        check_demands(method, str(spec), suite.particles, suite.steps)
        assert suite.guide or not (method.selects or spec.parameters.get("kernel") == "features")
    assert suite.scheduler.name in (*SCHEDULERS, "default")
    assert "arXiv" in (PAPERS / f"{name}.yaml").read_text()


@pytest.mark.parametrize("path", sorted(PAPERS.glob("*.csv")), ids=lambda path: path.stem)
def test_published_figures_have_their_source(path: Path) -> None:
    assert path.stem in SUITES
    table = pd.read_csv(path, keep_default_na=False)
    assert list(table.columns) == ["method", "metric", "value", "unit", "ours", "source"]
    assert all(source.startswith("arXiv") for source in table["source"])
    assert {name.partition("[")[0] for name in table["ours"]} <= {"", *METRICS}


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_ours_stands_beside_the_paper_s(
    cli: Callable[..., Result], tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "220")
    levels = {"clip": 0.0, "seconds_per_image": 0.0}
    write(
        tmp_path / "scores.csv",
        frame(
            {
                "iid": levels,
                "pg:strength=8": levels,
                "eddy-hutch": {"clip": -1.0, "seconds_per_image": 0.05},
            }
        ),
    )
    settings = {
        "suite": {"name": "eddy-flux", "methods": []},
        "settings": SETTINGS.as_dict(),
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    done = cli("compare", tmp_path, "--format", form)
    assert done.code == 0, done.err
    lines = [line for line in done.out.splitlines() if "1.249" in line]
    assert len(lines) == 1
    assert "1.500" in lines[0], "0.15 over 0.1 seconds"
    assert "41.4" in done.out
