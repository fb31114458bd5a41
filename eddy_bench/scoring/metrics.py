"""Metrics by name, and how one is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from eddy_bench.errors import MetricError, ParameterError, UnknownName, unknown
from eddy_bench.scoring import (
    aesthetic,
    attribute_values,
    clip_iqa,
    cmmd,
    cost,
    diversity,
    dreamsim,
    fidelity,
    hps,
    kernel_diversity,
    ms_ssim,
    perceptual,
    pickscore,
)
from eddy_bench.scoring.metric import Aspect, Metric, Needs, Parameter
from eddy_bench.scoring.signature import (
    BAD_IMAGES,
    GIVEN,
    JUDGES,
    POOLED,
    SOURCE,
    Signature,
    number_text,
)
from eddy_bench.storage.files import MAX_NAME
from eddy_bench.suites.plugins import Permission

MODULES = (
    diversity,
    perceptual,
    fidelity,
    cmmd,
    cost,
    ms_ssim,
    kernel_diversity,
    attribute_values,
    clip_iqa,
    aesthetic,
    pickscore,
    hps,
    dreamsim,
)
# Ours by name; plug-ins join when they are asked for, or when a score file tells of them.
METRICS: dict[str, Metric] = {
    metric.name: metric for module in MODULES for metric in module.METRICS
}
OURS = tuple(METRICS)
COSTS = tuple(name for name, metric in METRICS.items() if metric.scope == "cost")
ASKED_FOR = tuple(
    name for name, metric in METRICS.items() if metric.scope != "cost" and not metric.implied
)


def judging(aspect: Aspect) -> tuple[str, ...]:
    """Return what judges the diversity or the fidelity of groups: ours first, then plug-ins."""
    return tuple(
        name
        for name, metric in METRICS.items()
        if metric.judges == aspect and metric.scope == "group"
    )


_SPEC = re.compile(r"(.+\.py:\w+|torchmetrics:[\w.]+|[\w.-]+)(?:\[([^\[\]]+)\])?(?::(.*))?")


def metric_of(name: str, permission: Permission | None = None) -> Metric:
    """Return the metric that is asked for by a name; one from elsewhere joins `METRICS`.

    Raises:
        UnknownName: no such metric.
        ParameterError: a plug-in that cannot be loaded, or whose name reads as one of ours.

    """
    if name in ASKED_FOR:
        return METRICS[name]
    from eddy_bench.scoring.plugins import load_metric, plugin_names

    if name in plugin_names():
        _check_name(name)
    metric = load_metric(name, permission)
    if metric is None:
        raise UnknownName(unknown("metric", name, {*ASKED_FOR, *plugin_names()}))
    METRICS[metric.name] = metric
    return metric


def _check_name(name: str) -> None:
    """Raise ParameterError where a package's name would be taken for one of ours, or for none."""
    for ours in OURS:
        keys = "|".join(item.name for item in METRICS[ours].parameters) or "(?!)"
        heading = rf"{re.escape(ours)}(-({keys})[\d.e+-]*\d)*(-best|-worst)?"
        if re.fullmatch(heading, name):
            raise ParameterError(
                f"A package registers the metric {name!r}, which tables would take for {ours!r} of "
                "eddy-bench. Its package has to register it by another name."
            )
    if name == BAD_IMAGES:
        raise ParameterError(
            f"A package registers the metric {name!r}, under which scores count images that are "
            "none. Its package has to register it by another name."
        )
    if not re.fullmatch(r"[\w.-]+", name):
        raise ParameterError(
            f"Expected letters, digits, '_', '-' and '.' in the name of a metric, got {name!r}."
        )


def _refuse_long(text: str) -> None:
    """Raise UnknownName for a text that no metric's name can be, before it is searched."""
    if len(text) > MAX_NAME:
        raise UnknownName(f"No metric is called {text[:40]!r}... ({len(text)} characters).")


_ASPECTS: dict[str, Aspect] = {"diversity": "diversity", "fidelity": "fidelity"}


def learn(names: Iterable[str], signatures: Iterable[str], higher: Iterable[bool]) -> None:
    """Let plug-ins' values in a score file be known by what the file says of them.

    Their code is not run: it may not be at hand, or not be trusted. A file that was read before
    says nothing of this one.
    """
    for name, signature, direction in zip(names, signatures, higher, strict=True):
        parsed = Signature.parse(signature)
        own = METRICS[name].source != "unknown" if name in METRICS else False
        if not own and parsed.value(SOURCE):
            needs: Needs = "real" if parsed.has(POOLED) else "image"
            judges = _ASPECTS.get(parsed.value(JUDGES), "")
            METRICS[name] = Metric(
                name, needs, direction, "a plug-in's", judges=judges, source="unknown"
            )


@dataclass(frozen=True)
class MetricSpec:
    """Hold a metric as it is asked for: `name[extractor]:key=value,...`.

    name: of a metric.
    extractor: empty for the model's own, or where the metric takes none.
    parameters: those that are not the defaults, in the metric's order.

    >>> spec = MetricSpec.parse("vendi[fmnist-clip]:q=2")
    >>> str(spec), spec.column
    ('vendi[fmnist-clip]:q=2', 'vendi-q2[fmnist-clip]')
    """

    name: str
    extractor: str = ""
    parameters: tuple[tuple[str, float], ...] = ()

    @classmethod
    def parse(cls, text: str, permission: Permission | None = None) -> MetricSpec:
        """Read `vendi`, `vendi[fmnist-clip]` or `vendi[fmnist-clip]:q=2`.

        A plug-in's code is run: an entry point, `torchmetrics:image.ssim`, and with a permission
        `./mine.py:name`.

        Raises:
            UnknownName: no such metric; cost counters are always there and cannot be asked for.
            ParameterError: a parameter that the metric does not have, or a value out of range.
            MetricError: an extractor where the metric takes none.

        """
        _refuse_long(text)
        match = _SPEC.fullmatch(text.strip())
        metric = metric_of(match[1] if match else text, permission)
        assert match is not None, "a name that is known has the form of one"
        if match[2] and not metric.takes_extractor:
            raise MetricError(f"Metric {metric.name!r} takes no extractor, got [{match[2]}].")
        given = [part.partition("=") for part in filter(None, (match[3] or "").split(","))]
        values = {key: _number(metric, key, value) for key, _, value in given}
        return cls(metric.name, match[2] or "", _changed(metric, values))

    @classmethod
    def of_column(cls, text: str) -> MetricSpec:
        """Read a heading of summary.csv, such as `vendi-q2[fmnist-clip]`.

        Raises:
            UnknownName: no such metric.

        """
        _refuse_long(text)
        bare, _, rest = text.partition("[")
        names = [name for name in METRICS if bare == name or bare.startswith(f"{name}-")]
        if not names and "." in bare:  # a plug-in that nothing here was told of
            return cls(bare.partition("-")[0], rest.removesuffix("]"))
        if not names:
            raise UnknownName(unknown("metric", bare, METRICS))
        name = max(names, key=len)
        pairs = re.findall(r"-([A-Za-z_]+)([\d.e+-]*\d)", bare[len(name) :])
        return cls(name, rest.removesuffix("]"), tuple((key, float(value)) for key, value in pairs))

    @classmethod
    def of_row(cls, name: str, extractor: str, signature: str) -> MetricSpec:
        """Read what a row of scores.csv is a value of; the name may be unknown."""
        parsed = Signature.parse(signature)
        if parsed.value(SOURCE):
            return cls(name, extractor, _numbers(parsed.value(GIVEN)))
        declared = METRICS[name].parameters if name in METRICS else ()
        if not declared:
            return cls(name, extractor)
        values = {
            parameter.name: float(text)
            for parameter in declared
            if (text := parsed.value(parameter.name))
        }
        return cls(name, extractor, _changed(METRICS[name], values))

    def __str__(self) -> str:
        parameters = ",".join(f"{key}={number_text(value)}" for key, value in self.parameters)
        extractor = f"[{self.extractor}]" if self.extractor else ""
        return f"{self.name}{extractor}" + (f":{parameters}" if parameters else "")

    @property
    def metric(self) -> Metric:
        """The metric's record."""
        return METRICS.get(self.name) or Metric(self.name, "image", True, "a plug-in's")

    @property
    def column(self) -> str:
        """The heading in `summary.csv`."""
        extra = "".join(f"-{key}{number_text(value)}" for key, value in self.parameters)
        return f"{self.name}{extra}" + (f"[{self.extractor}]" if self.extractor else "")

    @property
    def values(self) -> dict[str, float]:
        """Every parameter's value, defaults included."""
        return {item.name: item.default for item in self.metric.parameters} | dict(self.parameters)


def parse_all(texts: Iterable[str], permission: Permission | None = None) -> list[MetricSpec]:
    """Read metrics as they are asked for together.

    Raises:
        EddyError: as `MetricSpec.parse`; or two plug-ins have one name in tables.

    """
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


def _changed(metric: Metric, values: dict[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple(
        (item.name, values[item.name])
        for item in metric.parameters
        if item.name in values and values[item.name] != item.default
    )


def _numbers(text: str) -> tuple[tuple[str, float], ...]:
    """Read `key=value,...`, which a file may hold damaged: what is no number is passed over."""
    pairs = []
    for key, _, value in (part.partition("=") for part in text.split(",")):
        with suppress(ValueError):
            pairs.append((key, float(value)))
    return tuple(pairs)


def _number(metric: Metric, key: str, text: str) -> float:
    parameter = next((item for item in metric.parameters if item.name == key), None)
    if parameter is None:
        takes = f" It takes {', '.join(item.name for item in metric.parameters)}."
        raise ParameterError(
            f"Metric {metric.name!r} has no parameter {key!r}."
            + (takes if metric.parameters else "")
        )
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    fits = parameter.above < value < parameter.below
    if not fits or (parameter.whole and not value.is_integer()):
        raise ParameterError(_out_of_range(metric, parameter, text))
    return value


def _out_of_range(metric: Metric, parameter: Parameter, text: str) -> str:
    return (
        f"Expected {'a whole ' if parameter.whole else ''}{parameter.name} of {metric.name} "
        f"above {parameter.above:g} and below {parameter.below:g}, got {text!r}."
    )
