"""Record what a run was made with: versions, hardware, commit, command."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
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
    """Return versions, hardware and git commit."""
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
    }


def command() -> str:
    """Return the command that was typed."""
    return " ".join(["eddy-bench", *sys.argv[1:]])


def distinct(environments: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return environments in order, each once."""
    return list({json.dumps(one, sort_keys=True): one for one in environments}.values())


def differing(environments: Sequence[dict[str, Any]]) -> str:
    """Say in what environments differ; empty where there is one.

    >>> differing([{"libraries": {"torch": "2.6"}}, {"libraries": {"torch": "2.7"}}])
    'the images were drawn in 2 environments, which differ in libraries.torch (2.6; 2.7)'
    """
    flat = [dict(_flat(one)) for one in environments]
    names = dict.fromkeys(name for one in flat for name in one)
    values = {name: dict.fromkeys(str(one.get(name)) for one in flat) for name in names}
    unlike = [f"{name} ({'; '.join(own)})" for name, own in values.items() if len(own) > 1]
    if not unlike:
        return ""
    return (
        f"the images were drawn in {len(environments)} environments, "
        f"which differ in {', '.join(unlike)}"
    )


def _flat(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


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
