"""Record what a run was made with: versions, hardware, commit, command."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from eddy_bench import __version__

LIBRARIES = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "torchmetrics",
    "open_clip_torch",
    "numpy",
    "scipy",
    "pandas",
)


def environment() -> dict[str, Any]:
    """Return versions, hardware, git commit and the command."""
    import torch

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "not installed"

    return {
        "eddy_bench": __version__,
        "python": platform.python_version(),
        "libraries": {name: installed(name) for name in LIBRARIES},
        "hardware": {
            "machine": platform.machine(),
            "system": platform.system(),
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())],
        },
        "git_commit": _git_commit(),
        "command": " ".join(["eddy-bench", *sys.argv[1:]]),
    }


def _git_commit() -> str | None:
    """The commit of the source tree, where this runs from one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
