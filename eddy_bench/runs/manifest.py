"""manifest.json: what a run was made with."""

from __future__ import annotations

from typing import Any

from eddy_bench.storage.provenance import environment
from eddy_bench.suites.prompts import PromptSet


def manifest(fingerprint: str, prompts: PromptSet) -> dict[str, Any]:
    """Versions, hardware, git commit, weights and prompts of a run."""
    return {
        **environment(),
        "weights_fingerprint": fingerprint,
        "prompts": {"name": prompts.name, "count": len(prompts.prompts), "sha256": prompts.digest},
    }
