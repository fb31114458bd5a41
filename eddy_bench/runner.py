"""Plan the groups of a suite and draw those that are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eddy_bench.errors import EddyError, ModelError, ParameterError, StoreError, brief
from eddy_bench.manifest import manifest
from eddy_bench.methods import build_method, method_label, method_name, parameter_text, source_digest
from eddy_bench.methods.base import Method
from eddy_bench.models.base import Model
from eddy_bench.models.load import load_model
from eddy_bench.prompts import PromptSet, load_prompts
from eddy_bench.sampling.parameterization import check_stochastic
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.store import SETTINGS, Group, RunFolder, group_key
from eddy_bench.suite import Suite

REFERENCE = "reference"


@dataclass(frozen=True)
class Planned:
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
    methods: tuple[Planned, ...]
    settings: dict[str, Any]
    groups: tuple[Group, ...]


@dataclass
class Drawn:
    """What a run did: groups drawn, groups already there, failures and things to say."""

    drawn: int = 0
    kept: int = 0
    failures: list[tuple[Group, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def selected_prompts(suite: Suite) -> PromptSet:
    """The suite's prompts, cut to its limit."""
    prompts = load_prompts(suite.prompts)
    return PromptSet(prompts.name, prompts.prompts[: suite.limit]) if suite.limit else prompts


def open_model(suite: Suite) -> Model:
    """Load the suite's model and put its scheduler in."""
    model = load_model(suite.model, revision=suite.revision, variant=suite.variant, dtype=suite.dtype, device=suite.device)
    model.call |= set_scheduler(model.pipe, suite.scheduler.name, suite.scheduler.parameters)
    return model


def make_plan(suite: Suite, model: Model) -> Plan:
    """Every group of a suite.

    Raises:
        EddyError: a method that cannot be built or used on this model, or two that are the same.

    """
    prompts = selected_prompts(suite)
    settings = {
        "model": suite.model, "revision": suite.revision, "variant": suite.variant, "weights_fingerprint": model.fingerprint, "scheduler": scheduler_text(suite, model), "steps": suite.steps,
        "guidance_scale": suite.guidance_scale, "negative_prompt": suite.negative_prompt, "particles": suite.particles,
        "size": suite.size, "dtype": suite.dtype,
    }  # fmt: skip
    methods = []
    for spec in suite.methods:
        method = build_method(spec)
        if suite.particles < method.min_particles:
            raise ParameterError(
                f"Method {spec.name!r} needs at least {method.min_particles} particles, got {suite.particles}. Set --particles."
            )
        if method.selects and not model.has_features:
            raise ParameterError(f"Method {spec.name!r} chooses by a guide network, and this model has none. Leave it out.")
        method.drawn(suite.particles)
        kernel = method.resolved_kernel(model.has_features)
        if method.couples_steps:
            check_stochastic(model.pipe.scheduler, float(model.call.get("eta", 0.0)))
        methods.append(
            Planned(
                method_label(spec, method),
                method_name(spec),
                method,
                parameter_text(method),
                kernel,
                method.resolved(model.has_features).parameters(),
                source_digest(spec),
            )
        )
    doubled = {planned.label for planned in methods if sum(other.label == planned.label for other in methods) > 1}
    if doubled:
        raise ParameterError(f"Method {sorted(doubled)[0]!r} is asked for twice with the same parameters. Drop one.")
    groups = tuple(
        Group(planned.name, planned.label, planned.parameters, planned.kernel, prompt.id, prompt.text, seed, suite.particles, _key(settings, planned, prompt.text, seed))
        for planned in methods for prompt in prompts.prompts for seed in range(suite.seeds)
    )  # fmt: skip
    return Plan(suite, prompts, tuple(methods), settings, groups)


def _key(settings: dict[str, Any], planned: Planned, prompt: str, seed: int) -> str:
    parts = {name: settings[name] for name in SETTINGS}
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
    return f"{type(model.pipe.scheduler).__name__}({suite.scheduler.text()})"


def open_folder(plan: Plan, path: Path) -> RunFolder:
    """Make the run folder, or check that this plan may go into it; nothing of it is changed yet."""
    return RunFolder.prepare(path, plan.settings)


def planned_methods(path: Path) -> list[str]:
    """The methods in a folder's run.yaml; none where there is no run yet."""
    return [str(text) for text in RunFolder(path).read_run()["suite"].get("methods", [])] if (path / "run.yaml").is_file() else []


def record_plan(plan: Plan, folder: RunFolder) -> None:
    """Add this plan to run.yaml and the manifest."""
    suite = plan.suite.model_dump(mode="json")
    suite["methods"] = [spec.text() for spec in plan.suite.methods]
    suite["scheduler"] = plan.suite.scheduler.text()
    if before := planned_methods(folder.path):
        suite["methods"] = [*before, *(text for text in suite["methods"] if text not in before)]
    folder.write_run({"suite": suite, "settings": plan.settings, "prompt_digest": plan.prompts.digest})
    folder.write_manifest({**folder.read_manifest(), **manifest(plan.settings["weights_fingerprint"], plan.prompts)})


def find_missing(plan: Plan, folder: RunFolder) -> tuple[list[Group], list[str]]:
    """Groups that are not finished, and what was moved aside to draw them again.

    Raises:
        StoreError: a finished group holds another prompt or other parameters under the same name.

    """
    missing, said = [], []
    for group in plan.groups:
        try:
            found = folder.load(group.place)
            if found is not None:
                found.contents()
        except StoreError as error:
            target = folder.set_aside(group.place)
            said.append(f"{error}; moved to {target}, drawn again")
            found = None
        if found is None:
            missing.append(group)
        elif found.group.key != group.key:
            same = found.group.prompt == group.prompt
            what = "other parameters or another version of the method" if same else f"the prompt {found.group.prompt[:60]!r}"
            raise StoreError(f"{found.folder} was drawn with {what}. Give another --out, or remove {folder.samples / group.label}.")
    return missing, said


def call_arguments(suite: Suite, model: Model, rows: int) -> dict[str, Any]:
    """Arguments of the pipeline's call for some prompts."""
    arguments: dict[str, Any] = {"num_inference_steps": suite.steps, "guidance_scale": suite.guidance_scale, "output_type": "pil"}
    if suite.negative_prompt:
        arguments["negative_prompt"] = [suite.negative_prompt] * rows
    if suite.size:
        arguments |= {"height": suite.size, "width": suite.size}
    return arguments


def batches(groups: list[Group], size: int) -> Iterator[list[Group]]:
    """Groups of one method at a time, at most `size` together."""
    start = 0
    while start < len(groups):
        stop = start
        while stop < len(groups) and stop - start < size and groups[stop].label == groups[start].label:
            stop += 1
        yield groups[start:stop]
        start = stop


def draw_missing(
    plan: Plan, model: Model, folder: RunFolder, missing: list[Group], advance: Callable[[int, str], None], warm_up: bool = True
) -> Drawn:
    """Draw groups and write each as soon as its batch is done; a failure is recorded and the rest goes on.

    Args:
        advance: called with the number of groups done and the method at work. warm_up: draw two steps outside the clock first.

    """
    done = Drawn(kept=len(plan.groups) - len(missing))
    for text in dict.fromkeys(group.prompt for group in missing):
        if warning := model.check_prompt(text):
            done.warnings.append(f"prompt {text[:60]!r}: {warning}")
    methods = {planned.label: planned.method for planned in plan.methods}
    folder.clear_partial()
    if missing and warm_up:
        _warm_up(plan, model, missing[0])
    for batch in batches(missing, plan.suite.batch_prompts):
        try:
            images, cost = draw_batch(plan.suite, model, methods[batch[0].label], batch)
        except StoreError:
            raise
        except Exception as error:  # a method or a model may raise anything; the rest of the run goes on
            for group in batch:
                reason = f"{type(error).__name__}: {brief(error)}" if not isinstance(error, EddyError) else str(error)
                folder.write_failure(group, reason)
                done.failures.append((group, reason))
        else:
            for group, drawn in zip(batch, images, strict=False):
                folder.write_group(group, drawn, cost, {"rows": plan.suite.batch_prompts * plan.suite.particles})
                done.drawn += 1
        advance(len(batch), batch[0].label)
    return done


def draw_batch(suite: Suite, model: Model, method: Method, batch: list[Group]) -> tuple[list[list[Any]], Any]:
    """One forward batch, padded to the full row count with its last prompt so that the arithmetic does not depend on how many are missing."""
    padded = batch + [batch[-1]] * (suite.batch_prompts - len(batch))
    prompts, seeds = [group.prompt for group in padded], [group.seed for group in padded]
    return model.draw(prompts, seeds, batch[0].particles, method, call_arguments(suite, model, len(padded)))


def _warm_up(plan: Plan, model: Model, group: Group) -> None:
    """One step outside the clock: first calls allocate and choose kernels."""
    from eddy_bench.methods.iid import Iid

    suite = plan.suite
    arguments = {**call_arguments(suite, model, suite.batch_prompts), "num_inference_steps": min(2, suite.steps)}
    try:
        model.draw([group.prompt] * suite.batch_prompts, [0] * suite.batch_prompts, group.particles, Iid(), arguments)
    except EddyError:
        raise
    except Exception as error:
        raise ModelError(f"{suite.model} cannot draw with these settings: {type(error).__name__}: {brief(error)}") from None


def draw_reference(plan: Plan, model: Model, folder: RunFolder, advance: Callable[[int, str], None]) -> int:
    """The disjoint i.i.d. set for drift: one image per (prompt, seed), from seeds that no method uses. Returns how many were drawn."""
    from eddy_bench.methods.iid import Iid

    suite = plan.suite.model_copy(update={"batch_prompts": plan.suite.batch_prompts * plan.suite.particles, "particles": 1})
    store = folder.reference()
    wanted = [
        Group("iid", REFERENCE, "", "", prompt.id, prompt.text, seed, 1, group_key(**plan.settings, use=REFERENCE, prompt=prompt.text, seed=seed))
        for prompt in plan.prompts.prompts for seed in range(suite.seeds)
    ]  # fmt: skip
    missing = []
    for group in wanted:
        try:
            found = store.load(group.place)
        except StoreError:
            store.set_aside(group.place)
            found = None
        if found is None:
            missing.append(group)
    for batch in batches(missing, suite.batch_prompts):
        padded = batch + [batch[-1]] * (suite.batch_prompts - len(batch))
        seeds = [-1 - group.seed for group in padded]
        try:
            images, cost = model.draw([group.prompt for group in padded], seeds, 1, Iid(), call_arguments(suite, model, len(padded)))
        except Exception as error:
            raise ModelError(f"The reference set for drift cannot be drawn: {brief(error)}") from None
        for group, drawn in zip(batch, images, strict=False):
            store.write_group(group, drawn, cost, {})
        advance(len(batch), REFERENCE)
    return len(missing)
