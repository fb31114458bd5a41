"""Metrics by name, and how one is requested."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from eddy_bench.errors import MetricError, ParameterError, UnknownName, unknown
from eddy_bench.ids import ASPECT, POOLED, SOURCE, MetricId, Part, Signature, number_text
from eddy_bench.scoring import (
    attribute_values,
    cost,
    diversity,
    dreamsim,
    fidelity,
    perceptual,
    preference,
)
from eddy_bench.scoring.metric import Metric
from eddy_bench.storage.files import MAX_NAME
from eddy_bench.suites.plugins import Permission

MODULES = (diversity, perceptual, fidelity, cost, attribute_values, preference, dreamsim)
METRICS: Mapping[str, Metric] = MappingProxyType(
    {metric.name: metric for module in MODULES for metric in module.METRICS}
)
COSTS = tuple(name for name, metric in METRICS.items() if metric.scope == "cost")
REQUESTABLE = tuple(
    name for name, metric in METRICS.items() if metric.scope != "cost" and not metric.implied
)
BAD_IMAGES = "bad-images"  # no metric: how many images of a group are none
_SPEC = re.compile(r"(.+\.py:\w+|torchmetrics:[\w.]+|[\w.-]+)(?:\[([^\[\]]+)\])?(?::(.*))?")


def role_of(role: str) -> Metric:
    """Return our metric of a role that one metric alone has."""
    return next(metric for metric in METRICS.values() if metric.role == role)


def metric_of(name: str, permission: Permission | None = None) -> Metric:
    """Return the metric of a name.

    Raises:
        UnknownName: no such metric.
        ParameterError: a plug-in that cannot be loaded, or whose name reads as one of ours.
    """
    if name in REQUESTABLE:
        return METRICS[name]
    from eddy_bench.scoring.plugins import load_metric, plugin_names

    registered = plugin_names()
    if name in registered and (name in METRICS or name == BAD_IMAGES):
        raise ParameterError(
            f"A package registers the metric {name!r}, which eddy-bench has itself. "
            "Its package has to register it by another name."
        )
    if name in registered and not re.fullmatch(r"[\w.-]+", name):
        raise ParameterError(
            f"Expected letters, digits, '_', '-' and '.' in the name of a metric, got {name!r}."
        )
    metric = load_metric(name, permission)
    if metric is None:
        raise UnknownName(unknown("metric", name, {*REQUESTABLE, *registered}))
    return metric


@dataclass(frozen=True)
class MetricSpec:
    """A metric as it is requested: `name[extractor]:key=value,...`.

    extractor: empty for the model's own, or where the metric takes none.
    parameters: those that are not the defaults, in the metric's order.

    >>> str(MetricSpec.parse("vendi[fmnist-clip]:q=2").id)
    'vendi[fmnist-clip]:q=2'
    """

    metric: Metric
    extractor: str = ""
    parameters: tuple[tuple[str, float], ...] = ()

    @classmethod
    def parse(cls, text: str, permission: Permission | None = None) -> MetricSpec:
        """Read `vendi`, `vendi[fmnist-clip]` or `vendi[fmnist-clip]:q=2`.

        A plug-in's code is run: an entry point, `torchmetrics:image.ssim`, and with a permission
        `./mine.py:name`.

        Raises:
            UnknownName: no such metric; cost counters are always there and cannot be requested.
            ParameterError: a parameter that the metric does not have, or a value out of range.
            MetricError: an extractor where the metric takes none.
        """
        if len(text) > MAX_NAME:
            raise UnknownName(f"No metric is called {text[:40]!r}... ({len(text)} characters).")
        match = _SPEC.fullmatch(text.strip())
        metric = metric_of(match[1] if match else text, permission)
        assert match is not None, "a name that is known has the form of one"
        if match[2] and not metric.takes_extractor:
            raise MetricError(f"Metric {metric.name!r} takes no extractor, got [{match[2]}].")
        given = [part.partition("=") for part in filter(None, (match[3] or "").split(","))]
        values = {key: _number(metric, key, value) for key, _, value in given}
        changed = [
            (item.name, values[item.name])
            for item in metric.parameters
            if values.get(item.name, item.default) != item.default
        ]
        return cls(metric, match[2] or "", tuple(changed))

    @property
    def name(self) -> str:
        """The metric's name."""
        return self.metric.name

    @property
    def id(self) -> MetricId:
        """What its values are called in tables."""
        return MetricId(self.name, self.extractor, self.parameters)

    @property
    def values(self) -> dict[str, float]:
        """Every parameter's value, defaults included."""
        return {item.name: item.default for item in self.metric.parameters} | dict(self.parameters)

    def signature(self, *parts: Part) -> Signature:
        """Return the signature of its values: its parameters, its plug-in, its marks, `parts`.

        Of a plug-in it tells what comparisons need: its code may not be at hand then.
        """
        metric = self.metric
        own: list[Part] = [(key, number_text(value)) for key, value in self.values.items()]
        if metric.source:
            own += [(SOURCE, metric.source)]
            own += [(ASPECT, metric.aspect)] if metric.aspect else []
            own += [POOLED] if metric.scope == "pooled" else []
        return Signature(self.name, (*own, *metric.marks, *parts))


def parse_all(texts: Iterable[str], permission: Permission | None = None) -> list[MetricSpec]:
    """Read metrics requested together; EddyError as `parse`, or where two plug-ins share a name."""
    specs, sources = [], dict[str, tuple[str, str]]()
    for text in texts:
        spec = MetricSpec.parse(text, permission)
        source, first = sources.setdefault(spec.name, (spec.metric.source, text))
        if source != spec.metric.source:
            raise ParameterError(
                f"{first} and {text} are different metrics and both {spec.name!r} in tables. "
                "Rename one of them, or its file."
            )
        specs.append(spec)
    return specs


def _number(metric: Metric, key: str, text: str) -> float:
    known = {item.name: item for item in metric.parameters}
    if key not in known:
        takes = f" It takes {', '.join(known)}." if known else ""
        raise ParameterError(f"Metric {metric.name!r} has no parameter {key!r}.{takes}")
    parameter = known[key]
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    fits = parameter.above < value < parameter.below
    if not fits or (parameter.whole and not value.is_integer()):
        raise ParameterError(
            f"Expected {'a whole ' if parameter.whole else ''}{parameter.name} of {metric.name} "
            f"above {parameter.above:g} and below {parameter.below:g}, got {text!r}."
        )
    return value
