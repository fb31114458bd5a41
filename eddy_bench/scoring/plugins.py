"""Metrics from elsewhere: `./file.py:name`, entry points of packages, classes of torchmetrics."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from eddy_bench.errors import MetricError, ParameterError
from eddy_bench.scoring.extractor import Extractor
from eddy_bench.scoring.metric import Judge, Metric, Parameter
from eddy_bench.suites.method_spec import is_file_plugin
from eddy_bench.suites.plugins import Permission, file_digest, load_from_entry_point, load_from_file

METRIC_GROUP = "eddy_bench.metrics"
TORCHMETRICS = "torchmetrics:"
_JUDGED = ("image", "image and text")
NEEDS = ("features", "text", "image", "image and text", "pairs", "real", "iid")


def plugin_names() -> list[str]:
    """Return the metrics that installed packages register."""
    return sorted({point.name for point in entry_points(group=METRIC_GROUP)})


def load_metric(name: str, permission: Permission | None = None) -> Metric | None:
    """Return a metric from elsewhere, or None where no package registers the name.

    One of a file is called `file.name` in tables, so that it never takes a name of ours.

    Args:
        name: `path/to/file.py:name`, `torchmetrics:image.ssim` or that of an entry point.
        permission: to run a file; None where the name is from a file.

    Raises:
        UnknownName: the file or torchmetrics has no such name.
        ParameterError: it may not be run, cannot be imported, or is no metric.
    """
    if is_file_plugin(name):
        path, _, attribute = name.rpartition(":")
        called = f"{re.sub(r'[^0-9A-Za-z_]', '_', Path(path).stem)}.{attribute}"
        plugin = load_from_file(name, "--metric", permission)
        return _checked(plugin, name, called, file_digest(name)[:10])
    if name.startswith(TORCHMETRICS):
        from eddy_bench.scoring.torchmetrics_classes import metric_of_class

        return metric_of_class(name.removeprefix(TORCHMETRICS))
    for point in entry_points(group=METRIC_GROUP):
        if point.name == name:
            source = f"{point.dist.name}=={point.dist.version}" if point.dist else point.value
            return _checked(load_from_entry_point(point), name, name, source)
    return None


def _checked(plugin: Any, name: str, called: str, source: str) -> Metric:
    """Return a metric that keeps to what its record promises; ParameterError where it does not."""
    if not isinstance(plugin, Metric):
        raise ParameterError(f"Expected {name} to be an eddy_bench.Metric, got {plugin!r}.")
    if (plugin.function is None) == (plugin.each is None):
        raise ParameterError(
            f"Expected a function of a group or `each` of its single images in {name}, got "
            f"{'neither' if plugin.each is None else 'both'}. Metric(..., function=)."
        )
    if plugin.needs not in NEEDS:
        raise ParameterError(
            f"Expected {name} to need {', '.join(NEEDS[:-1])} or {NEEDS[-1]}, got {plugin.needs!r}."
        )
    if type(plugin.higher_is_better) is not bool:
        raise ParameterError(
            f"Expected higher_is_better of {name} to be True or False, "
            f"got {plugin.higher_is_better!r}."
        )
    if plugin.aspect not in ("diversity", "fidelity", ""):
        raise ParameterError(
            f"Expected aspect of {name} to be 'diversity', 'fidelity' or '', got {plugin.aspect!r}."
        )
    if plugin.each is not None and plugin.needs not in ("features", "text", *_JUDGED):
        raise ParameterError(
            f"Expected no `each` in {name}: what needs {plugin.needs} judges no single images."
        )
    _check_parameters(plugin.parameters, name)
    _check_range(plugin.range, name)
    marks = plugin.marks
    if not isinstance(marks, tuple) or not all(map(_is_mark, marks)):
        raise ParameterError(
            f"Expected marks of {name} to be texts, or pairs of texts, in a tuple, got {marks!r}."
        )
    own = replace(plugin, name=called, source=source, rank=None, implied=False)
    if plugin.load is not None:
        own = replace(own, load=partial(_judge, plugin.load, name))
    if plugin.sees is None:
        return own
    # features of its own are kept apart from ours, from others' and from those of other versions
    extractor = f"{plugin.extractor} of {called}"
    sees = partial(_extractor, plugin.sees, name, plugin.extractor, extractor, source)
    return replace(own, extractor=extractor, sees=sees)


def _check_parameters(given: Any, name: str) -> None:
    if not isinstance(given, tuple) or not all(isinstance(item, Parameter) for item in given):
        raise ParameterError(
            f"Expected parameters of {name} to be eddy_bench.Parameter(name, default, above, below)"
            f" in a tuple, got {given!r}."[:300]
        )
    names = [parameter.name for parameter in given]
    for parameter in given:
        bounds = (parameter.above, parameter.default, parameter.below)
        if not isinstance(parameter.name, str) or not re.fullmatch("[A-Za-z_]+", parameter.name):
            raise ParameterError(
                f"Expected names of letters and _ for the parameters of {name}, "
                f"got {parameter.name!r}."
            )
        if names.count(parameter.name) > 1:
            raise ParameterError(f"Expected {parameter.name!r} once in {name}, got it twice.")
        if not all(map(_is_number, bounds)) or not bounds[0] < bounds[1] < bounds[2]:
            raise ParameterError(
                f"Expected numbers above < default < below for {parameter.name} of {name}, "
                f"got {bounds}."
            )


def _check_range(given: Any, name: str) -> None:
    pair = isinstance(given, tuple) and len(given) == 2 and all(map(_is_number, given))
    if not pair or not given[0] < given[1]:
        raise ParameterError(
            f"Expected range of {name} to be its least and its largest value, got {given!r}."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and type(value) is not bool


def _is_mark(part: Any) -> bool:
    pair = isinstance(part, tuple) and len(part) == 2 and all(isinstance(x, str) for x in part)
    return pair or isinstance(part, str)


def _judge(load: Callable[..., Any], name: str, *given: Any) -> Judge:
    """Load what judges images for a plug-in; raises MetricError where it is none."""
    judge = load(*given)
    if not isinstance(judge, Judge):
        raise MetricError(f"Expected `load` of {name} to give an eddy_bench.Judge, got {judge!r}.")
    _check_digest(judge.digest, name)
    return judge


def _extractor(
    sees: Callable[..., Any], name: str, expected: str, called: str, source: str, *given: Any
) -> Extractor:
    """Load the extractor of a plug-in under a name of its own; MetricError where it is none."""
    extractor = sees(*given)
    if not isinstance(extractor, Extractor) or not expected or extractor.name != expected:
        got = extractor.name if isinstance(extractor, Extractor) else extractor
        raise MetricError(
            f"Expected `sees` of {name} to give an eddy_bench.Extractor that is called as its "
            f"`extractor` says, {expected!r}, got {got!r}."
        )
    _check_digest(extractor.digest, name)
    return replace(extractor, name=called, digest=f"{extractor.digest}-{source}")


def _check_digest(digest: Any, name: str) -> None:
    if not isinstance(digest, str) or not digest:
        raise MetricError(
            f"Expected a text that changes with the weights as digest of {name}, got {digest!r}."
        )
