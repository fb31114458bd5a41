"""Draw the groups of a plan that are missing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eddy_bench.errors import EddyError, ModelError, StoreError, brief
from eddy_bench.models.base import Model
from eddy_bench.runs.batches import REFERENCE, Batch, Executor, InProcess, draw_batch, out_of_memory
from eddy_bench.runs.manifest import manifest
from eddy_bench.runs.plan import Plan, batch_size, call_arguments
from eddy_bench.runs.sharding import Shard
from eddy_bench.storage.group import Group, GroupGrid, entry_of, group_key
from eddy_bench.storage.paths import is_remote
from eddy_bench.storage.run_folder import RunFolder


@dataclass
class DrawSummary:
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
    return (
        [str(text) for text in RunFolder(path).read_run()["suite"].get("methods", [])]
        if (path / "run.yaml").is_file()
        else []
    )


def read_measured(path: Path) -> list[dict[str, Any]]:
    """What a folder's run.yaml holds of earlier measurements of best-of-m; none where there is no run yet."""
    found = RunFolder(path).read_run().get("best_of_m", []) if (path / "run.yaml").is_file() else []
    whole = isinstance(found, list) and all(
        isinstance(one, dict)
        and isinstance(one.get("m"), int)
        and isinstance(one.get("methods"), list)
        for one in found
    )
    return found if whole else []


def record_plan(
    plan: Plan, folder: RunFolder, measured: list[dict[str, Any]] | None = None
) -> None:
    """Add this plan, and what was measured for it, to run.yaml and the manifest."""
    suite = plan.suite.model_dump(mode="json")
    suite["methods"] = [str(spec) for spec in plan.suite.methods]
    suite["scheduler"] = str(plan.suite.scheduler)
    if before := planned_methods(folder.path):
        suite["methods"] = [*before, *(text for text in suite["methods"] if text not in before)]
    kept = {"best_of_m": measured} if measured else {}
    folder.write_run(
        {"suite": suite, "settings": plan.settings, "prompt_digest": plan.prompts.digest, **kept}
    )
    folder.add_planned(
        [
            GroupGrid(
                [one.label for one in plan.methods],
                [one.id for one in plan.prompts.prompts],
                plan.suite.seeds,
            )
        ]
    )
    folder.write_manifest(
        {**folder.read_manifest(), **manifest(plan.settings["weights_fingerprint"], plan.prompts)}
    )


def find_missing(
    plan: Plan, folder: RunFolder, verify: bool = False
) -> tuple[list[Group], list[str]]:
    """Groups that are not finished, and what was moved aside to draw them again.

    Args:
        verify: read every group and hash its images, where otherwise the index and the files' sizes are taken.

    Raises:
        StoreError: a finished group holds another prompt or other parameters under the same name.

    """
    return missing_of(plan.groups, folder, verify)


def missing_of(
    groups: Sequence[Group], folder: RunFolder, verify: bool
) -> tuple[list[Group], list[str]]:
    """`find_missing` for any groups of a folder."""
    missing, said, learnt = [], [], []
    known, files = folder.index.read(), folder.files()
    for group in groups:
        entry = None if verify else known.get(group.place.as_posix())
        if entry is not None and entry.key == group.key and entry.is_whole(files, group.particles):
            continue
        try:
            found = folder.load(group.place, files)
            if found is not None and (verify or entry is not None or not is_remote(folder.path)):
                found.contents()
            if found is not None and found.group.key == group.key and found.group != group:
                raise StoreError(f"{found.folder} is broken: group.json was changed.")
        except StoreError as error:
            target = folder.set_aside(group.place)
            what = str(error).removesuffix(" Run again to redraw it.").rstrip(".")
            said.append(f"{what}; moved to {target}, drawn again")
            found = None
        if found is None:
            missing.append(group)
        elif found.group.key != group.key:
            same = found.group.prompt == group.prompt
            what = (
                "other parameters or another version of the method"
                if same
                else f"the prompt {found.group.prompt[:60]!r}"
            )
            raise StoreError(
                f"{found.folder} was drawn with {what}. Give another --out, or remove {folder.samples / group.label}."
            )
        else:
            learnt.append(entry_of(found, files.size(f"{group.place.as_posix()}/group.json") or 0))
    folder.index.add(entry for entry in learnt if known.get(entry.place) != entry)
    folder.index.flush()
    return missing, said


def batches_of(groups: Sequence[Group], size: int) -> list[Batch]:
    """Groups of one method at a time, at most `size` together."""
    found = []
    for _, run in itertools.groupby(groups, key=lambda group: group.label):
        same = tuple(run)
        found += [Batch(same[start : start + size], size) for start in range(0, len(same), size)]
    return found


def draw_missing(
    plan: Plan,
    model: Model,
    folder: RunFolder,
    missing: Sequence[Group],
    advance: Callable[[int, str], None],
    warm_up: bool = True,
    executor: Executor | None = None,
    check_ownership: Callable[[], None] = lambda: None,
) -> DrawSummary:
    """Draw groups and write each as soon as its batch is done; a failure is recorded and the rest goes on.

    Args:
        advance: called with the number of groups done and the method at work. warm_up: draw two steps outside the clock first.
        executor: what draws; this process by default. check_ownership: called before each write; raises when the folder is another process's by now.

    """
    done = DrawSummary(kept=len(plan.groups) - len(missing))
    for text in dict.fromkeys(group.prompt for group in missing):
        if warning := model.check_prompt(text):
            done.warnings.append(f"prompt {text[:60]!r}: {warning}")
    folder.clear_partial()
    if missing and warm_up and executor is None:
        _warm_up(plan, model, missing[0])
    methods = {planned.label: planned.method for planned in plan.methods}
    running = executor or InProcess(
        lambda job: draw_batch(plan.suite, model, methods[job.groups[0].label], job)
    )
    for outcome in running.run(batches_of(missing, batch_size(plan.suite, model)), done.warnings):
        check_ownership()
        if outcome.images is None:
            folder.write_failure(outcome.group, outcome.reason)
            done.failures.append((outcome.group, outcome.reason))
        else:
            folder.write_group(outcome.group, outcome.images, outcome.cost, {"rows": outcome.rows})
            done.drawn += 1
        advance(1, outcome.group.label)
    folder.index.flush()
    done.warnings += model.notes
    return done


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
        raise ModelError(
            f"{suite.model} cannot draw with these settings: {type(error).__name__}: {brief(error)}{hint}"
        ) from None


def draw_reference(
    plan: Plan,
    model: Model,
    folder: RunFolder,
    executor: Executor | None = None,
    shard: Shard | None = None,
    verify: bool = False,
    check_ownership: Callable[[], None] = lambda: None,
) -> DrawSummary:
    """The disjoint i.i.d. set for drift: one image per (prompt, seed), from seeds that no method uses. Arguments as of `draw_missing`."""
    from eddy_bench.methods.iid import Iid

    suite, size = plan.suite, batch_size(plan.suite, model) * plan.suite.particles
    store = folder.reference()
    wanted = [
        Group(
            "iid",
            REFERENCE,
            "",
            "",
            prompt.id,
            prompt.text,
            seed,
            1,
            group_key(**plan.settings, use=REFERENCE, prompt=prompt.text, seed=seed),
        )
        for prompt in plan.prompts.prompts
        for seed in range(suite.seeds)
    ]
    missing, said = missing_of(
        shard.of(batches_of(wanted, size)) if shard else wanted, store, verify
    )
    done = DrawSummary(warnings=said)
    running = executor or InProcess(lambda job: draw_batch(suite, model, Iid(), job))
    for outcome in running.run(batches_of(missing, size), done.warnings):
        check_ownership()
        if outcome.images is None:
            store.write_failure(outcome.group, outcome.reason)
            done.failures.append((outcome.group, outcome.reason))
        else:
            store.write_group(outcome.group, outcome.images, outcome.cost, {})
            done.drawn += 1
    store.index.flush()
    return done
