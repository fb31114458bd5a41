"""Write what a run folder says of itself: run.yaml, planned.json and manifest.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eddy_bench.runs.plan import Plan
from eddy_bench.storage.provenance import environment
from eddy_bench.storage.records import CostMatch, RunRecord, SuiteRecord
from eddy_bench.storage.run_files import add_planned, read_manifest, write_manifest, write_run
from eddy_bench.storage.run_folder import RunFolder
from eddy_bench.suites.prompts import PromptSet


def record_plan(plan: Plan, folder: RunFolder, matched: Sequence[CostMatch] = ()) -> None:
    """Add a plan, and the costs that were matched for it, to run.yaml and the manifest."""
    suite = plan.suite.model_dump(mode="json")
    before = folder.read_run().suite.methods if folder.has_run else []
    suite["methods"] = list(dict.fromkeys([*before, *map(str, plan.suite.methods)]))
    suite["scheduler"] = str(plan.suite.scheduler)
    record = RunRecord(
        suite=SuiteRecord.model_validate(suite),
        settings=plan.settings,
        prompt_digest=plan.prompts.digest,
        matched=list(matched),
    )
    write_run(folder.path, record)
    add_planned(folder.path, [plan.grid])
    entries = manifest(plan.settings.weights_fingerprint, plan.prompts)
    write_manifest(folder.path, read_manifest(folder.path).updated(**entries))


def manifest(fingerprint: str, prompts: PromptSet) -> dict[str, Any]:
    """Return versions, hardware, git commit, weights and prompts of a run."""
    return {
        **environment(),
        "weights_fingerprint": fingerprint,
        "prompts": {
            "name": prompts.name,
            "count": len(prompts.prompts),
            "sha256": prompts.digest,
        },
    }
