"""Setting M of best-of-m so that it costs as much as another method."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eddy_bench.errors import EddyError, ModelError, ParameterError, brief
from eddy_bench.methods import build_method
from eddy_bench.models.base import Model
from eddy_bench.runner import call_arguments, selected_prompts
from eddy_bench.suite import Named, Suite, parse_named


def settle_best_of(suite: Suite, model: Model, before: Sequence[str]) -> Suite:
    """Set M of every best-of-m that has none, so that it takes as long as the method it is to equal.

    Args:
        before: methods of an earlier plan of the same folder; what was measured then stands.

    """
    if not any(spec.name == "best-of-m" and not spec.parameters.get("m") for spec in suite.methods):
        return suite
    known = {str(spec.parameters.get("equal", "")): spec for text in before if (spec := parse_named(text)).name == "best-of-m"}
    methods = []
    for spec in suite.methods:
        if spec.name == "best-of-m" and not spec.parameters.get("m"):
            equal = str(spec.parameters.get("equal", ""))
            spec = known.get(equal) or Named(name=spec.name, parameters={**spec.parameters, "m": _measure_m(suite, model, equal)})
        methods.append(spec)
    return suite.model_copy(update={"methods": methods})


def _measure_m(suite: Suite, model: Model, equal: str) -> int:
    """How many independent images take as long as the particles of another method: one batch of each, after a warm-up."""
    prompt = selected_prompts(suite).prompts[0].text
    others = [spec for spec in suite.methods if spec.name not in ("iid", "best-of-m")]
    if equal:
        others = [parse_named(equal.replace(";", ","))]
    if not others:
        raise ParameterError("best-of-m has no other method to take as long as. Give it one, or its m: best-of-m:m=16.")

    def seconds(spec: Named) -> float:
        texts = [prompt] * suite.batch_prompts
        arguments = call_arguments(suite, model, len(texts))
        try:
            _, cost = model.draw(texts, [0] * len(texts), suite.particles, build_method(spec), arguments)
        except EddyError:
            raise
        except Exception as error:
            raise ModelError(
                f"How long {spec.text()} takes cannot be measured for best-of-m: {type(error).__name__}: {brief(error)}"
            ) from None
        return cost.seconds_per_image

    seconds(Named(name="iid"))  # first calls allocate and choose kernels
    usual = seconds(Named(name="iid"))
    return max(suite.particles, math.ceil(suite.particles * max(map(seconds, others)) / usual))
