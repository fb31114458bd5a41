"""Groups and run folders made without a model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from eddy_bench.models.base import Cost
from eddy_bench.storage.records import Group, RunRecord, RunSettings, SuiteRecord
from eddy_bench.storage.run_folder import RunFolder, write_run

SETTINGS = RunSettings(
    model="m",
    revision=None,
    variant=None,
    weights_fingerprint="",
    scheduler="DDIM",
    steps=2,
    guidance_scale=1.0,
    negative_prompt="",
    particles=2,
    size=None,
    dtype="float32",
)
COST = asdict(Cost())


def make_group(**changes: Any) -> Group:
    """Return a group of two particles."""
    values = {
        "method": "iid",
        "label": "iid",
        "parameters": "",
        "kernel": "",
        "prompt_id": "p",
        "prompt": "a dress",
        "seed": 0,
        "particles": 2,
        "key": "k",
    }
    return Group(**{**values, **changes})


def make_images() -> list[Image.Image]:
    """Return two small images."""
    return [Image.new("L", (8, 8), 10 * k) for k in range(2)]


def make_folder(path: Path, methods: tuple[str, ...] = (), **changes: Any) -> RunFolder:
    """Return a run folder with a run.yaml and no group. changes: of the settings."""
    settings = SETTINGS.model_copy(update=changes)
    folder = RunFolder.prepare(path, settings)
    record = RunRecord(suite=SuiteRecord(methods=list(methods)), settings=settings)
    write_run(folder.path, record)
    return folder
