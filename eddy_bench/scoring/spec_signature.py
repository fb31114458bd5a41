"""The signature of a metric as it is asked for, before anything is known of the images."""

from __future__ import annotations

from eddy_bench.scoring.metrics import MetricSpec
from eddy_bench.scoring.signature import (
    GIVEN,
    JUDGES,
    POOLED,
    SOURCE,
    Part,
    Signature,
    number_text,
)


def signature_of(spec: MetricSpec, *parts: Part) -> Signature:
    """Return the signature of a metric's values: its parameters, its plug-in, then `parts`."""
    parameters = ((key, number_text(value)) for key, value in spec.values.items())
    return Signature(spec.name, (*parameters, *_of_plugin(spec), *parts))


def _of_plugin(spec: MetricSpec) -> list[Part]:
    """Return what a score file has to tell of a plug-in, whose code may not be at hand then."""
    if not spec.metric.source:
        return []
    told: list[Part] = [(SOURCE, spec.metric.source)]
    given = ",".join(f"{key}={number_text(value)}" for key, value in spec.parameters)
    told += [(GIVEN, given)] if given else []
    told += [(JUDGES, spec.metric.judges)] if spec.metric.judges else []
    return [*told, *([POOLED] if spec.metric.scope == "pooled" else [])]
