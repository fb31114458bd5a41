"""Draw the groups of a plan that are missing."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from eddy_bench.errors import EddyError, ModelError, StoreError, brief
from eddy_bench.manifest import manifest
from eddy_bench.methods.base import Method
from eddy_bench.models.base import Model
from eddy_bench.plan import Plan, batch_size, call_arguments
from eddy_bench.store import Group, RunFolder, group_key
from eddy_bench.suite import Suite

REFERENCE = "reference"


@dataclass
class Drawn:
    """What a run did: groups drawn, groups already there, failures and things to say."""

    drawn: int = 0
    kept: int = 0
    failures: list[tuple[Group, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def open_folder(settings: dict[str, Any], path: Path) -> RunFolder:
    """Make the run folder, or check that a run with these settings may go into it; nothing of it is changed yet."""
    return RunFolder.prepare(path, settings)


def planned_methods(path: Path) -> list[str]:
    """The methods in a folder's run.yaml; none where there is no run yet."""
    return [str(text) for text in RunFolder(path).read_run()["suite"].get("methods", [])] if (path / "run.yaml").is_file() else []


def read_measured(path: Path) -> list[dict[str, Any]]:
    """What a folder's run.yaml holds of earlier measurements of best-of-m; none where there is no run yet."""
    found = RunFolder(path).read_run().get("best_of_m", []) if (path / "run.yaml").is_file() else []
    whole = isinstance(found, list) and all(
        isinstance(one, dict) and isinstance(one.get("m"), int) and isinstance(one.get("methods"), list) for one in found
    )
    return found if whole else []


def record_plan(plan: Plan, folder: RunFolder, measured: list[dict[str, Any]] | None = None) -> None:
    """Add this plan, and what was measured for it, to run.yaml and the manifest."""
    suite = plan.suite.model_dump(mode="json")
    suite["methods"] = [spec.text() for spec in plan.suite.methods]
    suite["scheduler"] = plan.suite.scheduler.text()
    if before := planned_methods(folder.path):
        suite["methods"] = [*before, *(text for text in suite["methods"] if text not in before)]
    kept = {"best_of_m": measured} if measured else {}
    folder.write_run({"suite": suite, "settings": plan.settings, "prompt_digest": plan.prompts.digest, **kept})
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
    left, size = list(missing), batch_size(plan.suite, model)
    while left:
        batch = next(batches(left, size))
        try:
            images, cost = draw_batch(plan.suite, model, methods[batch[0].label], batch, size)
        except StoreError:
            raise
        except Exception as error:
            if size > 1 and plan.suite.batch_prompts == "auto" and out_of_memory(error):
                size = max(1, size // 2)
                free_memory()
                done.warnings.append(f"out of memory: {size} prompts share a forward pass from here on")
                continue
            _record_failure(folder, batch, error, done)
        else:
            for group, drawn in zip(batch, images, strict=False):
                folder.write_group(group, drawn, cost, {"rows": size * plan.suite.particles})
                done.drawn += 1
        left = left[len(batch) :]
        advance(len(batch), batch[0].label)
    return done


def _record_failure(folder: RunFolder, batch: list[Group], error: Exception, done: Drawn) -> None:
    """Note why a batch could not be drawn; a method or a model may raise anything, and the rest of the run goes on."""
    reason = str(error) if isinstance(error, EddyError) else f"{type(error).__name__}: {brief(error)}"
    if out_of_memory(error):
        reason += " Take fewer prompts at once: --batch-prompts auto."
    for group in batch:
        folder.write_failure(group, reason)
        done.failures.append((group, reason))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def free_memory() -> None:
    """Give back what a failed batch held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def draw_batch(suite: Suite, model: Model, method: Method, batch: list[Group], size: int) -> tuple[list[list[Any]], Any]:
    """One forward batch, padded to `size` prompts with its last one so that the arithmetic does not depend on how many are missing."""
    padded = batch + [batch[-1]] * (size - len(batch))
    prompts, seeds = [group.prompt for group in padded], [group.seed for group in padded]
    return model.draw(prompts, seeds, batch[0].particles, method, call_arguments(suite, model, len(padded)))


def _warm_up(plan: Plan, model: Model, group: Group) -> None:
    """One step outside the clock: first calls allocate and choose kernels."""
    from eddy_bench.methods.iid import Iid

    suite, size = plan.suite, batch_size(plan.suite, model)
    arguments = {**call_arguments(suite, model, size), "num_inference_steps": min(2, suite.steps)}
    try:
        model.draw([group.prompt] * size, [0] * size, group.particles, Iid(), arguments)
    except EddyError:
        raise
    except Exception as error:
        if suite.batch_prompts == "auto" and out_of_memory(error):
            return  # drawing finds the size that fits
        hint = (
            ""
            if suite.scheduler.name == "default"
            else f" Its pipeline may not take scheduler {suite.scheduler.name!r}: leave --scheduler out."
        )
        raise ModelError(f"{suite.model} cannot draw with these settings: {type(error).__name__}: {brief(error)}{hint}") from None


def draw_reference(plan: Plan, model: Model, folder: RunFolder, advance: Callable[[int, str], None]) -> int:
    """The disjoint i.i.d. set for drift: one image per (prompt, seed), from seeds that no method uses. Returns how many were drawn."""
    from eddy_bench.methods.iid import Iid

    suite, size = plan.suite, batch_size(plan.suite, model) * plan.suite.particles
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
    left = list(missing)
    while left:
        batch = left[:size]
        padded = batch + [batch[-1]] * (size - len(batch))
        seeds = [-1 - group.seed for group in padded]
        try:
            images, cost = model.draw([group.prompt for group in padded], seeds, 1, Iid(), call_arguments(suite, model, len(padded)))
        except Exception as error:
            if size > 1 and suite.batch_prompts == "auto" and out_of_memory(error):
                size = size // 2
                free_memory()
                continue
            raise ModelError(f"The reference set for drift cannot be drawn: {brief(error)}") from None
        for group, drawn in zip(batch, images, strict=False):
            store.write_group(group, drawn, cost, {})
        left = left[len(batch) :]
        advance(len(batch), REFERENCE)
    return len(missing)
