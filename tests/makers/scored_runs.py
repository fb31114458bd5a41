"""A run folder with made-up scores and images, as `report` and gates read it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from eddy_bench.storage.group import group_key
from eddy_bench.storage.records import Manifest
from eddy_bench.storage.run_folder import write_manifest
from tests.makers.groups import COST, make_folder, make_group
from tests.makers.score_files import frame

EVIL = '<script>alert("x")</script> & a "quoted" coat'
EFFECTS = {
    "iid": {"vendi": 0.0, "clip": 0.0, "nfe": 0.0, "seconds_per_image": 0.0},
    "pg:strength=1": {"vendi": 0.3, "clip": -0.1, "nfe": 0.0, "seconds_per_image": 0.0},
    "pg:strength=2": {"vendi": 0.6, "clip": -2.0, "nfe": 0.0, "seconds_per_image": 0.0},
    "eddy-exact": {"vendi": 0.0, "clip": 0.0, "nfe": 0.0, "seconds_per_image": 0.1},
}


def many_methods(count: int) -> dict[str, dict[str, float]]:
    """Effects of the baseline and of strengths of one method, each further than the last."""
    more = {
        f"pg:strength={k}": {"vendi": 0.05 * k, "clip": -0.02 * k, "nfe": 0.0}
        for k in range(1, count)
    }
    return {
        label: {"seconds_per_image": 0.0, **own}
        for label, own in ({"iid": EFFECTS["iid"]} | more).items()
    }


def make_run(
    folder: Path,
    side: int = 32,
    prompts: int = 8,
    effects: Mapping[str, Mapping[str, float]] = EFFECTS,
) -> Path:
    """Write a run of four methods, or of others; the fourth prompt is markup."""
    run = make_folder(folder, tuple(effects), model="fashion")
    manifest = Manifest.model_validate({"eddy_bench": "0", "note": EVIL})
    write_manifest(folder, manifest)
    rows = frame(effects, prompts=prompts)
    rows["prompt"] = rows["prompt"].where(rows["prompt_id"] != "p003", EVIL)
    rng = np.random.default_rng(0)
    for label in effects:
        method, _, parameters = label.partition(":")
        for k in range(prompts):
            own = make_group(
                method=method,
                label=label.replace(":", "-").replace("=", ""),
                parameters=parameters,
                kernel="latent" if method != "iid" else "",
                prompt_id=f"p{k:03}",
                prompt=EVIL if k == 3 else f"a p{k:03}",
                key=group_key(a=label, b=k),
            )
            pixels = [rng.integers(0, 255, (side, side), np.uint8) for _ in range(2)]
            run.write_group(own, [Image.fromarray(image) for image in pixels], COST, {})
    rows.to_csv(folder / "scores.csv", index=False)
    return folder
