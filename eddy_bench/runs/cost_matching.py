"""Setting M of best-of-m so that it costs as much as another method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from eddy_bench.errors import EddyError, ModelError, ParameterError, brief
from eddy_bench.methods.registry import build_method
from eddy_bench.models.base import Model
from eddy_bench.runs.batches import free_memory, out_of_memory
from eddy_bench.runs.plan import batch_size, call_arguments, selected_prompts
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.suite import Suite

Record = list[
    dict[str, Any]
]  # in run.yaml: {equal, methods, m}: of best-of-m:equal=..., which methods M was measured against


def open_best_of(suite: Suite) -> list[MethodSpec]:
    """Every best-of-m whose M is still to be measured."""
    return [
        spec for spec in suite.methods if spec.name == "best-of-m" and not spec.parameters.get("m")
    ]


def settle_best_of(suite: Suite, model: Model, record: Record) -> tuple[Suite, Record]:
    """Set M of every best-of-m that has none, so that it takes as long as the method it is to equal.

    Args:
        record: what was measured for the same run folder before. It stands; only methods that it does not name are measured, and M grows
            when one of them is slower.

    Returns:
        The suite with every M set, and the record with what was measured now.

    """
    found = [dict(entry) for entry in record]
    settled = {str(spec): _with_m(spec, suite, model, found) for spec in open_best_of(suite)}
    return suite.model_copy(
        update={"methods": [settled.get(str(spec), spec) for spec in suite.methods]}
    ), found


def _with_m(spec: MethodSpec, suite: Suite, model: Model, record: Record) -> MethodSpec:
    equal = str(spec.parameters.get("equal", ""))
    entry = next((entry for entry in record if entry.get("equal") == equal), None)
    if entry is None:
        entry = {"equal": equal, "methods": [], "m": suite.particles}
        record.append(entry)
    others = (
        [MethodSpec.parse(equal.replace(";", ","))]
        if equal
        else [one for one in suite.methods if one.name not in ("iid", "best-of-m")]
    )
    new = [one for one in others if str(one) not in entry["methods"]]
    if new:
        entry |= {
            "m": max(entry["m"], _measure_m(suite, model, new)),
            "methods": [*entry["methods"], *(str(one) for one in new)],
        }
    elif not entry["methods"]:
        raise ParameterError(
            "best-of-m has no other method to take as long as. Give it one, or its m: best-of-m:m=16."
        )
    return MethodSpec(name=spec.name, parameters={**spec.parameters, "m": entry["m"]})


def _measure_m(suite: Suite, model: Model, others: Sequence[MethodSpec]) -> int:
    """How many independent images take as long as the particles of the slowest of some methods: one batch of each, after a warm-up."""
    prompt = selected_prompts(suite).prompts[0].text
    size = [batch_size(suite, model)]

    def seconds(spec: MethodSpec) -> float:
        texts = [prompt] * size[0]
        arguments = call_arguments(suite, model, len(texts))
        try:
            _, cost = model.draw(
                texts, [0] * len(texts), suite.particles, build_method(spec), arguments
            )
        except EddyError:
            raise
        except Exception as error:
            if out_of_memory(error) and suite.batch_prompts == "auto" and size[0] > 1:
                free_memory()
                size[0] //= 2
                return seconds(spec)
            raise ModelError(
                f"How long {spec} takes cannot be measured for best-of-m: {type(error).__name__}: {brief(error)}"
            ) from None
        return cost.seconds_per_image

    seconds(MethodSpec(name="iid"))  # first calls allocate and choose kernels
    usual = seconds(MethodSpec(name="iid"))
    return max(suite.particles, math.ceil(suite.particles * max(map(seconds, others)) / usual))
