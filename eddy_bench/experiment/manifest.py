"""Write what a run folder says of itself: run.yaml, planned.json and manifest.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eddy_bench.experiment.plan import Plan
from eddy_bench.storage.provenance import command, differing, distinct, environment
from eddy_bench.storage.records import CostMatch, RunRecord, RunSettings, SuiteRecord
from eddy_bench.storage.run_folder import (
    RunFolder,
    add_planned,
    read_manifest,
    write_manifest,
    write_run,
)
from eddy_bench.suites.prompts import PromptSet


def record_plan(
    plan: Plan, folder: RunFolder, matched: Sequence[CostMatch] = (), draws: bool = True
) -> str:
    """Add a plan, and the costs that were matched for it, to run.yaml and the manifest.

    Args:
        plan: of the run.
        folder: of the run.
        matched: costs.
        draws: images, so that this environment is one of theirs.

    Returns:
        In what the environments of the images differ; empty where they do not.
    """
    suite = plan.suite.model_dump(mode="json")
    known = folder.read_run().suite.methods if folder.has_run else []
    suite["methods"] = list(dict.fromkeys([*known, *map(str, plan.suite.methods)]))
    suite["scheduler"] = str(plan.suite.scheduler)
    record = RunRecord(
        suite=SuiteRecord.model_validate(suite),
        settings=plan.settings,
        prompt_digest=plan.prompts.digest,
        matched=list(matched),
    )
    write_run(folder.path, record)
    add_planned(folder.path, [plan.grid])
    before = read_manifest(folder.path)
    environments = [*before.environments, *([environment()] if draws else [])]
    entries = manifest(plan.settings, plan.prompts, environments)
    entries["prompts"]["cut"] = {
        name: {"prompts": cut, "tokens": limit} for name, (cut, limit) in plan.cut_prompts.items()
    }
    write_manifest(folder.path, before.updated(**entries))
    return differing(entries["environments"]) if draws else ""


def manifest(
    settings: RunSettings, prompts: PromptSet, environments: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return environments, the command, weights, prompts and a hash of the settings of a run."""
    return {
        "environments": distinct(environments),
        "command": command(),
        "settings": settings.digest,
        "weights_fingerprint": settings.weights_fingerprint,
        "prompts": {
            "name": prompts.name,
            "count": len(prompts.prompts),
            "sha256": prompts.digest,
            "tags": {own.id: own.tags for own in prompts.prompts}
            if any(own.tags for own in prompts.prompts)
            else {},
        },
    }
