"""What a suite comes to: methods built and named, prompts, settings, and a group for each (method, prompt, seed)."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eddy_bench.errors import ParameterError
from eddy_bench.methods.base import Method
from eddy_bench.methods.registry import (
    build_method,
    method_label,
    method_name,
    parameter_text,
    source_digest,
)
from eddy_bench.models.base import Model
from eddy_bench.models.families import family_of
from eddy_bench.models.load import load_model
from eddy_bench.sampling.parameterization import check_stochastic
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.storage.group import Group, group_key
from eddy_bench.storage.run_folder import OPTIONAL, SETTINGS
from eddy_bench.suites.prompts import PromptSet, load_prompts
from eddy_bench.suites.suite import Suite


@dataclass(frozen=True)
class PlannedMethod:
    """A method of a suite, built and named."""

    label: str
    name: str
    method: Method
    parameters: str
    kernel: str
    resolved: dict[str, Any]
    source: str


@dataclass(frozen=True)
class Plan:
    """What a suite comes to: methods, prompts, and a group for each (method, prompt, seed)."""

    suite: Suite
    prompts: PromptSet
    methods: tuple[PlannedMethod, ...]
    settings: dict[str, Any]
    groups: tuple[Group, ...]


def selected_prompts(suite: Suite) -> PromptSet:
    """The suite's prompts, cut to its limit."""
    prompts = load_prompts(suite.prompts)
    return PromptSet(prompts.name, prompts.prompts[: suite.limit]) if suite.limit else prompts


def open_model(suite: Suite) -> Model:
    """Load the suite's model and put its scheduler in."""
    model = load_model(
        suite.model,
        revision=suite.revision,
        variant=suite.variant,
        dtype=suite.dtype,
        device=suite.device,
        guide=suite.guide,
        decoder=suite.decoder,
        weights=Path(suite.weights) if suite.weights else None,
        feature_batch=suite.feature_batch,
        offload=suite.offload,
    )
    model.call |= set_scheduler(
        model.pipe, suite.scheduler.name, suite.scheduler.parameters, suite.timesteps, suite.steps
    )
    return model


def run_settings(suite: Suite, model: Model) -> dict[str, Any]:
    """What all groups of a run folder share."""
    return {
        "model": suite.model,
        "revision": suite.revision,
        "variant": suite.variant,
        "weights_fingerprint": model.fingerprint,
        "scheduler": scheduler_text(suite, model),
        "steps": suite.steps,
        "guidance_scale": suite.guidance_scale,
        "negative_prompt": suite.negative_prompt,
        "particles": suite.particles,
        "size": suite.size,
        "dtype": suite.dtype,
        **_optional(suite, model),
    }


def _optional(suite: Suite, model: Model) -> dict[str, Any]:
    """Settings that are left out where they are the default, so that older folders stay what they are."""
    found = {
        "timesteps": suite.timesteps,
        "guide": model.guide_name or None,
        "decoder": model.decoder_name or None,
    }
    return {name: value for name, value in found.items() if value not in (None, "default")}


def make_plan(suite: Suite, model: Model) -> Plan:
    """Every group of a suite.

    Raises:
        EddyError: a method that cannot be built or used on this model, or two that are the same.

    """
    prompts, settings = selected_prompts(suite), run_settings(suite, model)
    call_arguments(
        suite, model, 1
    )  # what this pipeline cannot take is refused before anything is drawn
    methods = []
    for spec in suite.methods:
        method = build_method(spec)
        if suite.particles < method.min_particles:
            raise ParameterError(
                f"Method {spec.name!r} needs at least {method.min_particles} particles, got {suite.particles}. Set --particles."
            )
        if method.selects and not model.has_features:
            raise ParameterError(
                f"Method {spec.name!r} chooses by a guide network, and this model has none. Leave it out."
            )
        method.drawn(suite.particles)
        kernel = method.resolved_kernel(model.has_features)
        if method.couples_steps:
            check_stochastic(model.pipe.scheduler, float(model.call.get("eta", 0.0)))
        methods.append(
            PlannedMethod(
                method_label(spec, method),
                method_name(spec),
                method,
                parameter_text(method),
                kernel,
                method.resolved(model.has_features).parameters(),
                source_digest(spec),
            )
        )
    doubled = {
        planned.label
        for planned in methods
        if sum(other.label == planned.label for other in methods) > 1
    }
    if doubled:
        raise ParameterError(
            f"Method {sorted(doubled)[0]!r} is asked for twice with the same parameters. Drop one."
        )
    groups = tuple(
        Group(
            planned.name,
            planned.label,
            planned.parameters,
            planned.kernel,
            prompt.id,
            prompt.text,
            seed,
            suite.particles,
            _key(settings, planned, prompt.text, seed),
        )
        for planned in methods
        for prompt in prompts.prompts
        for seed in range(suite.seeds)
    )
    return Plan(suite, prompts, tuple(methods), settings, groups)


def _key(settings: dict[str, Any], planned: PlannedMethod, prompt: str, seed: int) -> str:
    parts = {name: settings[name] for name in (*SETTINGS, *OPTIONAL) if name in settings}
    return group_key(
        **parts,
        method=planned.name,
        source=planned.source,
        parameters=planned.method.parameters(),
        kernel=planned.kernel,
        prompt=prompt,
        seed=seed,
    )


def scheduler_text(suite: Suite, model: Model) -> str:
    """The scheduler that draws, by class and parameters."""
    return f"{type(model.pipe.scheduler).__name__}({suite.scheduler})"


def batch_size(suite: Suite, model: Model) -> int:
    """How many prompts share the first forward pass; one, where a pipeline lets the longest prompt of a batch change the others."""
    return 1 if family_of(model.pipe).one_prompt else suite.first_batch


def call_arguments(suite: Suite, model: Model, rows: int) -> dict[str, Any]:
    """Arguments of the pipeline's call for some prompts.

    `guidance_scale` is the scale of classifier-free guidance, or of the distilled one where a pipeline has that; the few pipelines that call it
    `true_cfg_scale` get it there. A size is taken as it is, without the binning that PixArt and Sana do.

    Raises:
        ParameterError: a negative prompt for a pipeline that takes none.

    """
    known = inspect.signature(type(model.pipe).__call__).parameters
    arguments: dict[str, Any] = {"num_inference_steps": suite.steps, "output_type": "pil"}
    negative = suite.negative_prompt
    if "true_cfg_scale" in known and known["true_cfg_scale"].default != 1.0:
        arguments["true_cfg_scale"] = suite.guidance_scale
        negative = negative or (
            " " if suite.guidance_scale > 1 else ""
        )  # without one it is switched off
    elif "guidance_scale" in known:
        arguments["guidance_scale"] = suite.guidance_scale
    if negative:
        if "true_cfg_scale" in known and "true_cfg_scale" not in arguments:
            raise ParameterError(
                f"{type(model.pipe).__name__} has distilled guidance and would ignore a negative prompt. Leave --negative-prompt out."
            )
        if "negative_prompt" not in known:
            raise ParameterError(
                f"{type(model.pipe).__name__} takes no negative prompt. Leave --negative-prompt out."
            )
        arguments["negative_prompt"] = [negative] * rows
    if suite.size:
        arguments |= {"height": suite.size, "width": suite.size}
        arguments |= {"use_resolution_binning": False} if "use_resolution_binning" in known else {}
    return arguments
