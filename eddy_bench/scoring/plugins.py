"""Metrics from elsewhere: `./file.py:name`, entry points of packages, classes of torchmetrics."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from eddy_bench.errors import ParameterError
from eddy_bench.scoring.metric import Metric, Parameter
from eddy_bench.suites.method_spec import is_file_plugin
from eddy_bench.suites.plugins import file_digest, load_from_entry_point, load_from_file

METRIC_GROUP = "eddy_bench.metrics"
TORCHMETRICS = "torchmetrics:"
_JUDGED = ("image", "image and text")
NEEDS = ("features", "text", "image", "image and text", "pairs", "real", "iid")


def plugin_names() -> list[str]:
    """Return the metrics that installed packages register."""
    return sorted({point.name for point in entry_points(group=METRIC_GROUP)})


def load_metric(name: str) -> Metric | None:
    """Return a metric from elsewhere, or None where no package registers the name.

    One of a file is called `file.name` in tables, so that it never takes a name of ours.

    Args:
        name: `path/to/file.py:name`, `torchmetrics:image.ssim` or that of an entry point.

    Raises:
        UnknownName: the file or torchmetrics has no such name.
        ParameterError: it cannot be imported, or is no metric.

    """
    if is_file_plugin(name):
        path, _, attribute = name.rpartition(":")
        called = f"{re.sub(r'[^0-9A-Za-z_]', '_', Path(path).stem)}.{attribute}"
        return _checked(load_from_file(name, "--metric"), name, called, file_digest(name)[:10])
    if name.startswith(TORCHMETRICS):
        from eddy_bench.scoring.torchmetrics_classes import metric_of_class

        return metric_of_class(name.removeprefix(TORCHMETRICS))
    for point in entry_points(group=METRIC_GROUP):
        if point.name == name:
            return _checked(load_from_entry_point(point), name, name, _version(point))
    return None


def _checked(plugin: Any, name: str, called: str, source: str) -> Metric:
    if not isinstance(plugin, Metric):
        raise ParameterError(f"Expected {name} to be an eddy_bench.Metric, got {plugin!r}.")
    if plugin.function is None and plugin.load is None:
        raise ParameterError(f"Expected a function in {name}, got none. Metric(..., function=).")
    if plugin.needs not in NEEDS:
        raise ParameterError(
            f"Expected {name} to need {', '.join(NEEDS[:-1])} or {NEEDS[-1]}, got {plugin.needs!r}."
        )
    if type(plugin.higher_is_better) is not bool:
        raise ParameterError(
            f"Expected higher_is_better of {name} to be True or False, "
            f"got {plugin.higher_is_better!r}."
        )
    if plugin.judges not in ("diversity", "fidelity", ""):
        raise ParameterError(
            f"Expected judges of {name} to be 'diversity', 'fidelity' or '', got {plugin.judges!r}."
        )
    if plugin.each is not None and plugin.needs not in ("features", "text", *_JUDGED):
        raise ParameterError(
            f"Expected no `each` in {name}: what needs {plugin.needs} judges no single images."
        )
    given = plugin.parameters
    if not isinstance(given, tuple) or not all(isinstance(item, Parameter) for item in given):
        raise ParameterError(
            f"Expected parameters of {name} to be eddy_bench.Parameter(name, default, above, below)"
            f" in a tuple, got {given!r}."[:300]
        )
    return replace(plugin, name=called, source=source, rank=None, implied=False)


def _version(point: EntryPoint) -> str:
    return f"{point.dist.name}=={point.dist.version}" if point.dist else point.value
