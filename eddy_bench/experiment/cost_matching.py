"""Set how many candidates a method draws so that it takes as long as another one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from eddy_bench.errors import EddyError, ModelError, ParameterError, brief
from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.registry import build_method
from eddy_bench.models.devices import out_of_memory, release_memory
from eddy_bench.storage.records import CostMatch
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.suite import Suite

BASELINE = MethodSpec(name="iid")


def unmatched(suite: Suite) -> list[MethodSpec]:
    """Return every method that is to cost as much as another, and was not measured yet."""
    return [
        spec
        for spec in suite.methods
        if build_method(spec, suite.permission("methods")).equal_cost_to() is not None
    ]


def match_costs(setup: Setup, earlier: Sequence[CostMatch]) -> tuple[Setup, list[CostMatch]]:
    """Set the sweep of every method that is to take as long as another one.

    Args:
        setup: of the run.
        earlier: what was measured for the same run folder before. It stands; only methods that it
            does not name are measured, and the sweep grows when one of them is slower.

    Returns:
        The setup with every sweep set, and all measurements.
    """
    matched = list(earlier)
    settled = {str(spec): _with_dial(spec, setup, matched) for spec in unmatched(setup.suite)}
    methods = [settled.get(str(spec), spec) for spec in setup.suite.methods]
    suite = setup.suite.model_copy(update={"methods": methods})
    return replace(setup, suite=suite), matched


def _with_dial(spec: MethodSpec, setup: Setup, matched: list[CostMatch]) -> MethodSpec:
    """Return a method with its sweep set; `matched` is brought up to date."""
    suite = setup.suite
    method = build_method(spec, suite.permission("methods"))
    equal = method.equal_cost_to() or ""
    match = next((match for match in matched if match.equal == equal), None)
    if match is None:
        match = CostMatch(equal=equal, methods=[], m=suite.particles)
    else:
        matched.remove(match)
    rivals = [MethodSpec.parse(equal)] if equal else _rivals(suite)
    new = [rival for rival in rivals if str(rival) not in match.methods]
    if new:
        count = max(match.m, _measure(setup, new, spec.name))
        match = CostMatch(equal=equal, methods=[*match.methods, *map(str, new)], m=count)
    elif not match.methods:
        raise ParameterError(
            f"{spec.name} has no other method to take as long as. "
            f"Give it one, or its {method.sweep}: {spec.name}:{method.sweep}=16."
        )
    matched.append(match)
    sweep = method.matched_sweep(match.m, suite.particles)
    return MethodSpec(name=spec.name, parameters={**spec.parameters, method.sweep: sweep})


def _rivals(suite: Suite) -> list[MethodSpec]:
    """Return the methods among which the slowest is matched."""
    return [
        spec
        for spec in suite.methods
        if spec.name != BASELINE.name
        and not build_method(spec, suite.permission("methods")).selects
    ]


def _measure(setup: Setup, rivals: Sequence[MethodSpec], name: str) -> int:
    """Return how many independent images take as long as the particles of the slowest rival.

    One batch of each is drawn, after a warm-up.
    """
    prompt = setup.prompts.prompts[0].text
    particles = setup.suite.particles

    def seconds(spec: MethodSpec) -> float:
        size = setup.prompts_together
        try:
            method = build_method(spec, setup.suite.permission("methods"))
            _, cost = setup.draw([prompt] * size, [0] * size, particles, method)
        except EddyError:
            raise
        except Exception as error:
            may_shrink = setup.suite.batch_prompts == "auto"
            if not (out_of_memory(error) and may_shrink and setup.model.take_less(size)):
                raise ModelError(
                    f"How long {spec} takes cannot be measured for {name}: "
                    f"{type(error).__name__}: {brief(error)}"
                ) from None
        else:
            return cost.seconds_per_image
        release_memory()  # after the error, which holds what it left
        return seconds(spec)

    seconds(BASELINE)  # first calls allocate and choose kernels
    own = seconds(BASELINE)
    return max(particles, math.ceil(particles * max(map(seconds, rivals)) / own))
