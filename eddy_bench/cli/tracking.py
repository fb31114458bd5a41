"""`--log`: what summary.csv says of each method, as a run of an experiment tracker."""

from __future__ import annotations

import importlib
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eddy_bench.cli.console import say
from eddy_bench.errors import ParameterError, UnknownName, brief, counted, unknown

if TYPE_CHECKING:
    from eddy_bench.storage.run_folder import RunFolder

PROJECT = "eddy-bench"
TEXTS = ("model", "method", "params", "kernel", "groups", "images")  # of summary.csv: no figures


def check_trackers(names: Sequence[str]) -> None:
    """Import the clients that were asked for, before any work begins.

    Raises:
        UnknownName: there is no such tracker.
        ParameterError: its client is not installed.

    """
    for name in names:
        if name not in TRACKERS:
            raise UnknownName(unknown("tracker", name, TRACKERS))
        try:
            importlib.import_module(name)
        except Exception as error:  # an old one may be broken by a newer library
            raise ParameterError(
                f"--log {name} needs its client, which cannot be imported ({brief(error, 100)}). "
                "Install it: pip install 'eddy-bench[log]'."
            ) from None


def log_summary(folder: RunFolder, names: Sequence[str]) -> None:
    """Send summary.csv to trackers; one that fails is a warning, for the files are written."""
    for name in dict.fromkeys(names):
        client = importlib.import_module(name)
        try:
            count = 0
            for method, settings, figures in _rows(folder):
                TRACKERS[name](client, folder.path.name, method, settings, figures)
                count += 1
            say(f"Logged {counted(count, 'method')} of {folder.path.name} to {name}.")
        except Exception as error:  # a service may raise anything
            say(
                f"{name} did not take the summary ({type(error).__name__}: {brief(error, 200)}). "
                f"All scores are in {folder.path}; send them again: "
                f"eddy-bench score {folder.path} --log {name}",
                "Warning",
            )


def _rows(folder: RunFolder) -> list[tuple[str, dict[str, Any], dict[str, float]]]:
    """Return the name, the settings and the figures of each method."""
    from eddy_bench.results.io import read_table

    table = read_table(folder.path / "summary.csv", keep_default_na=False, na_values=[""])
    shared = folder.read_run().settings.as_dict()
    rows = []
    for row in table.to_dict("records"):
        texts = {key: "" if row[key] != row[key] else row[key] for key in TEXTS}
        figures = {str(key): float(row[key]) for key in row if key not in TEXTS}
        known = {tracked(key): value for key, value in figures.items() if not math.isnan(value)}
        rows.append((texts["method"], {**shared, **texts}, known))
    return rows


def tracked(column: str) -> str:
    """Return a column's name with the characters that trackers take; they group by what is first.

    >>> tracked("vendi[fmnist-clip].low"), tracked("fd[timm:resnet18@224]")
    ('vendi/fmnist-clip.low', 'fd/timm_resnet18_224')
    """
    return re.sub(r"[^\w\-./ ]", "_", column.replace("[", "/", 1).replace("]", "", 1))


def _to_wandb(
    client: Any, group: str, method: str, settings: Mapping[str, Any], figures: Mapping[str, float]
) -> None:
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    run = client.init(project=project, group=group, name=method, config=dict(settings))
    run.log(dict(figures))
    run.finish()


def _to_mlflow(
    client: Any, group: str, method: str, settings: Mapping[str, Any], figures: Mapping[str, float]
) -> None:
    client.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
    with client.start_run(run_name=method, tags={"group": group}):
        client.log_params(dict(settings))
        client.log_metrics(dict(figures))


TRACKERS: dict[str, Callable[[Any, str, str, Mapping[str, Any], Mapping[str, float]], None]] = {
    "wandb": _to_wandb,
    "mlflow": _to_mlflow,
}
