"""`--log`, with stand-ins for the clients of Weights & Biases and MLflow."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from eddy_bench.cli.tracking import TRACKERS, tracked
from eddy_bench.scoring.metrics import METRICS
from tests.conftest import Result

Cli = Callable[..., Result]
RUN = ("run", "--method", "iid", "--method", "pg:strength=2", "--steps", "2", "--particles", "2")
RUN += ("--limit", "2", "--metric", "vendi[fmnist-clip]", "--metric", "clip[fmnist-clip]")


class Sent(dict[str, dict[str, Any]]):
    """What a tracker was sent: by method, its settings, figures, and where they went."""

    def start(self, method: str, where: str, settings: dict[str, Any]) -> dict[str, Any]:
        assert method not in self, "one run per method"
        self[method] = {"where": where, "settings": settings, "figures": {}, "ended": False}
        return self[method]


def stand_in(name: str) -> ModuleType:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)  # diffusers looks whether there is a wandb
    return module


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Sent:
    sent = Sent()

    class Run:
        def __init__(self, project: str, group: str, name: str, config: dict[str, Any]) -> None:
            self.own = sent.start(name, f"{project}/{group}", config)

        def log(self, figures: dict[str, float]) -> None:
            self.own["figures"] |= figures

        def finish(self) -> None:
            self.own["ended"] = True

    module = stand_in("wandb")
    module.init = Run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return sent


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Sent:
    sent, active = Sent(), []
    experiments: list[str] = []

    @contextmanager
    def start_run(run_name: str, tags: dict[str, str]) -> Iterator[None]:
        active.append(sent.start(run_name, f"{experiments[-1]}/{tags['group']}", {}))
        yield
        active.pop()["ended"] = True

    def log_metrics(figures: dict[str, float]) -> None:
        wrong = [name for name in figures if not re.fullmatch(r"[\w\-. /]+", name)]
        assert not wrong, "MLflow takes no other characters"
        active[-1]["figures"] |= figures

    module = stand_in("mlflow")
    module.set_experiment = experiments.append  # type: ignore[attr-defined]
    module.start_run = start_run  # type: ignore[attr-defined]
    module.log_params = lambda found: active[-1]["settings"].update(found)  # type: ignore[attr-defined]
    module.log_metrics = log_metrics  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return sent


def test_each_method_is_a_run_with_its_settings_and_its_line_of_the_summary(
    cli: Cli, tmp_path: Path, wandb: Sent, mlflow: Sent
) -> None:
    out = tmp_path / "mine"
    done = cli(*RUN, "--out", out, "--log", "wandb", "--log", "mlflow")
    assert done.code == 0, done.err
    assert "Logged 2 methods of mine to wandb." in done.err
    assert "Logged 2 methods of mine to mlflow." in done.err
    summary = pd.read_csv(out / "summary.csv", index_col="method")
    for sent in (wandb, mlflow):
        assert list(sent) == ["iid", "pg:strength=2"]
        for method in ("iid", "pg:strength=2"):
            own, line = sent[method], summary.loc[method]
            assert own["where"] == "eddy-bench/mine"
            assert own["ended"]
            assert own["settings"]["steps"] == 2
            assert own["settings"]["model"] == "fashion"
            assert own["settings"]["method"] == method
            figures = line.drop(["model", "kernel", "groups", "images"]).dropna()
            assert own["figures"] == {tracked(key): float(v) for key, v in figures.items()}
            assert own["figures"]["vendi/fmnist-clip"] == line["vendi[fmnist-clip]"]


def test_a_run_that_is_scored_already_is_sent_when_it_is_asked_for(
    cli: Cli, tmp_path: Path, wandb: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli(*RUN, "--out", tmp_path / "r").code == 0
    assert not wandb
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    done = cli(*RUN, "--out", tmp_path / "r", "--log", "wandb")
    assert "Nothing to score" in done.err
    assert {own["where"] for own in wandb.values()} == {"ours/r"}
    wandb.clear()
    assert cli(*RUN, "--out", tmp_path / "r", "--dry-run", "--log", "wandb").code == 0
    assert not wandb
    scored = cli("score", tmp_path / "r", "--metric", "vendi[fmnist-clip]", "--log", "wandb")
    assert scored.code == 0, scored.err
    assert set(wandb) == {"iid", "pg:strength=2"}


@pytest.mark.parametrize("name", TRACKERS)
def test_without_its_client_nothing_begins(
    cli: Cli, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    for command in (RUN, ("score", str(tmp_path))):
        out = ("--out", str(tmp_path / "r")) if command is RUN else ()
        done = cli(*command, *out, "--log", name)
        assert (done.code, done.out) == (2, "")
        assert len(done.err.splitlines()) == 1
        assert f"--log {name} needs its client" in done.err
        assert "pip install 'eddy-bench[log]'" in done.err
    assert not list(tmp_path.iterdir())


def test_a_tracker_that_does_not_exist_and_a_share_are_refused(cli: Cli, tmp_path: Path) -> None:
    done = cli(*RUN, "--log", "wandbb", "--out", tmp_path / "r")
    assert done.code == 2
    assert "Unknown tracker 'wandbb'. Did you mean 'wandb'?" in done.err
    done = cli(*RUN, "--log", "wandb", "--shard", "1/2", "--out", tmp_path / "r")
    assert done.code == 2
    assert "a shard is not scored" in done.err
    assert not list(tmp_path.iterdir())


def test_a_service_that_fails_loses_nothing(
    cli: Cli, tmp_path: Path, wandb: Sent, mlflow: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(**settings: Any) -> None:
        raise ConnectionError("the service\nis down")

    monkeypatch.setattr(sys.modules["wandb"], "init", down)
    out = tmp_path / "r"
    done = cli("-q", *RUN, "--out", out, "--log", "wandb", "--log", "mlflow")
    assert done.code == 0
    (line,) = done.err.splitlines()
    assert line.startswith("Warning: wandb did not take the summary (ConnectionError: the service")
    assert f"eddy-bench score {out} --log wandb" in line
    assert set(mlflow) == {"iid", "pg:strength=2"}, "the other one is sent"
    assert len(pd.read_csv(out / "summary.csv")) == 2
    assert "Nothing to score" in cli(*RUN, "--out", out).err, "what was scored is known as scored"


def test_names_of_columns_are_told_apart() -> None:
    columns = [f"{name}[{extractor}]" for name in METRICS for extractor in ("dino", "timm:a@1")]
    assert len({tracked(column) for column in columns}) == len(columns)
