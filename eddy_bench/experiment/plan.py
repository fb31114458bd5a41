"""Expand a suite into methods, prompts, settings and one group per (method, prompt, seed)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from eddy_bench.errors import EddyError, ParameterError
from eddy_bench.experiment.cost_matching import unmatched
from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.base import Method, check_demands
from eddy_bench.methods.iid import Iid
from eddy_bench.methods.registry import (
    build_method,
    method_label,
    method_name,
    parameter_text,
    source_digest,
)
from eddy_bench.models.prompts import cut_prompts
from eddy_bench.sampling.families import check_call, denoiser
from eddy_bench.sampling.solver_view import check_scheduler, check_stochastic
from eddy_bench.sampling.step_taps import check_restarts
from eddy_bench.storage.files import MAX_GROUPS, refuse_more
from eddy_bench.storage.group import GroupGrid, group_key
from eddy_bench.storage.records import Group, RunSettings
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.prompts import Prompt, PromptSet
from eddy_bench.suites.suite import Suite

REFERENCE = "reference"  # label of the disjoint i.i.d. set


@dataclass(frozen=True)
class PlannedMethod:
    """Hold a method of a suite, built and named.

    label: of its folder.
    name: in tables.
    parameters: `key=value,...` that differ from the defaults.
    kernel: as resolved.
    resolved: every parameter spelled out.
    source: the digest of a plug-in's file; empty for registered methods.
    """

    label: str
    name: str
    method: Method
    parameters: str
    kernel: str
    resolved: dict[str, Any]
    source: str


@dataclass(frozen=True)
class Plan:
    """Hold what a suite expands into. groups: one per (method, prompt, seed)."""

    setup: Setup
    prompts: PromptSet
    methods: tuple[PlannedMethod, ...]
    settings: RunSettings
    groups: tuple[Group, ...]

    @property
    def suite(self) -> Suite:
        """The suite that was expanded."""
        return self.setup.suite

    @cached_property
    def cut_prompts(self) -> dict[str, tuple[int, int]]:
        """By tokenizer, how many prompts the model cuts and after how many tokens."""
        texts = [prompt.text for prompt in self.prompts.prompts]
        return cut_prompts(self.setup.model.pipe, texts)

    @property
    def grid(self) -> GroupGrid:
        """Labels, prompts and seeds of the groups."""
        labels = [planned.label for planned in self.methods]
        return GroupGrid(labels, [prompt.id for prompt in self.prompts.prompts], self.suite.seeds)

    def method_of(self, group: Group) -> Method:
        """Return the method that draws a group, of the plan or of its reference set."""
        if group.label == REFERENCE:
            return Iid()
        return next(planned.method for planned in self.methods if planned.label == group.label)

    def groups_together(self, group: Group) -> int:
        """Return how many groups like this one share a forward pass: as many images as others."""
        return self.setup.prompts_together * self.suite.particles // group.particles

    def reference_groups(self) -> list[Group]:
        """Return the disjoint i.i.d. set for drift, from seeds that no method uses.

        It holds one image per (prompt, seed).
        """
        shared = self.settings.covered()
        return [
            Group(
                method="iid",
                label=REFERENCE,
                parameters="",
                kernel="",
                **_of_prompt(prompt),
                seed=seed,
                particles=1,
                key=group_key(**shared, use=REFERENCE, **_determined_by(prompt), seed=seed),
            )
            for prompt in self.prompts.prompts
            for seed in range(self.suite.seeds)
        ]


def make_plan(setup: Setup) -> Plan:
    """Expand a suite.

    Raises:
        EddyError: a method that cannot be built or used on this model, or two that are the same.
    """
    prompts, settings = setup.prompts, setup.settings
    check_size(setup.suite, prompts)
    # what this pipeline cannot take is refused before anything is drawn
    setup.call_arguments(1, [next((own.negative for own in prompts.prompts if own.negative), "")])
    methods = tuple(_plan_method(spec, setup) for spec in setup.suite.methods)
    labels = [planned.label for planned in methods]
    if doubled := sorted(label for label, count in Counter(labels).items() if count > 1):
        raise ParameterError(
            f"Method {doubled[0]!r} is asked for twice with the same parameters. Drop one."
        )
    shared = settings.covered()
    groups = tuple(
        group for planned in methods for group in _groups_of(planned, prompts, setup.suite, shared)
    )
    return Plan(setup, prompts, methods, settings, groups)


def check_size(suite: Suite, prompts: PromptSet) -> None:
    """Raise ParameterError for more groups than a run may have."""
    count = len(prompts.prompts)
    refuse_more(
        [len(suite.methods), min(count, suite.limit or count), suite.seeds],
        MAX_GROUPS,
        "groups (methods x prompts x seeds)",
        "Lower --seeds or --limit, or draw into several folders.",
        ParameterError,
    )


def _groups_of(
    planned: PlannedMethod, prompts: PromptSet, suite: Suite, shared: dict[str, Any]
) -> Iterator[Group]:
    """Yield the groups of a method. shared: the run's settings, which every key covers."""
    parts = {
        **shared,
        "method": planned.name,
        "source": planned.source,
        "parameters": planned.resolved,
        "kernel": planned.kernel,
    }
    for prompt in prompts.prompts:
        for seed in range(suite.seeds):
            yield Group(
                method=planned.name,
                label=planned.label,
                parameters=planned.parameters,
                kernel=planned.kernel,
                **_of_prompt(prompt),
                seed=seed,
                particles=suite.particles,
                key=group_key(**parts, **_determined_by(prompt), seed=seed),
            )


def _of_prompt(prompt: Prompt) -> dict[str, Any]:
    return {
        "prompt_id": prompt.id,
        "prompt": prompt.text,
        "negative": prompt.negative,
        "tags": prompt.tags,
    }


def _determined_by(prompt: Prompt) -> dict[str, str]:
    """Return what of a prompt determines the images."""
    return {"prompt": prompt.text, **({"negative": prompt.negative} if prompt.negative else {})}


def usable_methods(setup: Setup) -> tuple[list[MethodSpec], list[tuple[MethodSpec, EddyError]]]:
    """Return the methods that can act on the model, and the others with the reason.

    Raises:
        EddyError: none but the baseline can, or one cannot be built.
    """
    usable: list[MethodSpec] = []
    refused: list[tuple[MethodSpec, EddyError]] = []
    for spec in setup.suite.methods:
        build_method(spec, setup.suite.permission("methods"))
        try:
            if spec not in unmatched(setup.suite):
                _plan_method(spec, setup)
            usable.append(spec)
        except EddyError as error:
            refused.append((spec, error))
    if refused and all(spec.name == "iid" for spec in usable):
        raise refused[0][1]
    return usable, refused


def _plan_method(spec: MethodSpec, setup: Setup) -> PlannedMethod:
    """Build a method, or say why it cannot be used on this model, its name first."""
    method = build_method(spec, setup.suite.permission("methods"))
    try:
        return _planned(spec, method, setup)
    except EddyError as error:
        text = str(error)
        begins = spec.name == "iid" or text.startswith(
            (spec.name, f"Method {spec.name!r}", f"Method {str(spec)!r}")
        )
        raise error if begins else type(error)(f"{spec.name}: {text}") from None


def _planned(spec: MethodSpec, method: Method, setup: Setup) -> PlannedMethod:
    model, particles = setup.model, setup.suite.particles
    if method.selects and not model.has_features:
        raise ParameterError(
            f"Method {spec.name!r} chooses by a guide network, and this model has none. "
            "Leave it out."
        )
    check_demands(method, spec.name, particles, setup.steps)
    kernel = method.resolved_kernel(model.has_features)
    if method.reads_state or method.previewed is not None:
        check_scheduler(model.pipe.scheduler)
    check_restarts(model.pipe.scheduler, method)
    if method.couples_steps:
        check_stochastic(model.pipe.scheduler, float(model.call.get("eta", 0.0)), setup.steps)
    check_call(model.pipe, method, {**model.call, **setup.call_arguments(1)})
    if method.restarts:
        check_beginning(setup, method)
    resolved = method.resolved(model.has_features).parameters()
    if method.judge:  # its weights are part of what determines the images
        resolved = {**resolved, "judge": model.judge(method.judge).name}
    return PlannedMethod(
        label=method_label(spec, method),
        name=method_name(spec),
        method=method,
        parameters=parameter_text(method),
        kernel=kernel,
        resolved=resolved,
        source=source_digest(spec),
    )


def idle_methods(plan: Plan) -> list[str]:
    """Return notes on methods that have nothing to select from, or nothing to remember."""
    particles = plan.suite.particles
    alone = [
        f"{planned.name} sees the earlier seeds of a prompt, and there is one: raise --seeds"
        for planned in plan.methods
        if planned.method.remembers and plan.suite.seeds == 1
    ]
    return alone + [
        f"{planned.name} takes {planned.method.sweep} = {particles}, all that it draws: "
        "no other method takes longer than iid"
        for planned in plan.methods
        if planned.method.selects and planned.method.drawn(particles) == particles
    ]


class _Begun(Exception):
    """End a call at the first evaluation of its network."""


def check_beginning(setup: Setup, method: Method) -> None:
    """Call the pipeline up to its first network evaluation, by when it has set its noise levels.

    Raises:
        EddyError: the method does not fit the levels of this model, solver and number of steps.
    """

    def stop(*inputs: Any) -> None:
        raise _Begun

    handle = denoiser(setup.model.pipe).register_forward_pre_hook(stop)
    prompt = setup.prompts.prompts[0].text
    try:
        setup.draw([prompt], [0], setup.suite.particles, method)
    except _Begun:
        pass
    finally:
        handle.remove()
