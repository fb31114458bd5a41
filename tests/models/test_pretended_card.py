"""Drawing where tensors of a device and of the CPU do not mix, on a pretended CUDA device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from eddy_bench.methods.registry import method_names
from eddy_bench.sampling.scheduler_table import SCHEDULERS
from tests.makers.families import FAMILIES

ROOT = Path(__file__).parents[2]
NEWEST = tuple(map(int, torch.__version__.split("+")[0].split(".")[:2])) >= (2, 14)
pytestmark = pytest.mark.skipif(not NEWEST, reason="the pretended device needs torch 2.14")
NEEDED = {"best-of-m": "best-of-m:m=4"}
ALL = [NEEDED.get(name, name) for name in method_names()]
KERNELS = [
    *(f"{name}:kernel=features,window=0.." for name in ("pg", "eddy-fd", "eddy-hutch", "oscar")),
    "repulsion:kernel=denoised,window=0..",
    "coupled:kernel=features",
    "eddy-exact:v_source=self",
]
HERE = ["pg:kernel=features,window=0..", "coupled", "group-inference:m=4", "cads", "restart"]
HERE += ["iid@z-image"]
WITHOUT = ["eddy-hutch:window=0..", "diverseflow:window=0..", "lhs", "apg"]
# one of each kind for the families: none, a latent, a feature and a condition method
KINDS = ["iid", "pg", "pg:kernel=denoised,window=0..", "cads"]
FIGURE = 1  # of 255: rounding in another order


MIXED = "Expected all tensors to be on the same device"
STRICT = {
    "cpu and card": MIXED,
    "two cards": MIXED,
    "numpy": "can't convert cuda:0 device type tensor to numpy",
    "generator of the CPU": "Expected a 'cuda' device type for generator",
    "generator of the card": "Expected a 'cpu' device type for generator",
    "no such card": "invalid device ordinal",
    "index on the card of a tensor here": "indices should be either on cpu",
    "memory": "OutOfMemoryError: CUDA out of memory",
    "half precision": "Low precision dtypes not supported",
    **dict.fromkeys(("item", "mask", "h2d", "d2h", "sync:_linalg_eigh"), "1"),
    "number beside a tensor": "6.0",
}


def told_by(*arguments: str) -> dict[str, Any]:
    """Return what a process with a pretended card tells."""
    call = [sys.executable, "-W", "ignore", "-m", "tests.makers.card", *arguments]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def unlike(told: dict[str, Any]) -> dict[str, Any]:
    """Return the cases whose images are not the CPU's."""
    figures = {case: figure for case, figure in told.items() if case != "bytes"}
    assert figures
    return {c: f for c, f in figures.items() if not isinstance(f, int) or f > FIGURE}


def test_a_card_draws_what_the_cpu_draws_in_as_many_evaluations() -> None:
    """Also without float64, as Apple's devices are."""
    told = told_by(*HERE, "--strict", "--batches", "fashion", "z-image", "--without", *WITHOUT)
    for case, expected in STRICT.items():
        assert expected in told["strict"].pop(case), case
    assert not told.pop("strict")
    for name in ("fashion", "z-image"):
        card, cpu = told.pop(name)
        assert card == cpu
        assert card["drawn"] == 10
        assert card["failures"] == card["fallbacks"] == []
        assert card["evaluations"] == 2 + 2 * 3 * 2, "a warm-up; methods, batches, steps"
    assert not unlike(told)
    assert told["bytes"]["cuda:1"] == 0


@pytest.mark.slow
def test_every_method_draws_the_cpu_s_images_on_another_card_and_without_float64() -> None:
    told = told_by("--device", "cuda:1", *ALL, *KERNELS, "--without", *ALL, *KERNELS)
    assert not unlike(told)
    assert told["bytes"]["cuda:0"] == 0, "nothing is on another card than the run's"


@pytest.mark.slow
def test_every_family_draws_the_cpu_s_images() -> None:
    told = told_by(*(f"{kind}@{name}" for name in FAMILIES for kind in KINDS))
    # AuraFlow and Hunyuan-DiT make a tensor of a list of one, which only a real device can read
    limit = {case for case, error in told.items() if "_local_scalar_dense" in str(error)}
    assert {case.split("@")[1] for case in limit} <= {"auraflow", "hunyuan-dit"}
    assert not unlike({case: figure for case, figure in told.items() if case not in limit})


@pytest.mark.slow
def test_every_scheduler_draws_the_cpu_s_images() -> None:
    names = [name for name, row in SCHEDULERS.items() if row.models == "noise"]
    assert not unlike(told_by(*(f"pg@fashion@{name}" for name in names)))


@pytest.mark.slow
def test_what_only_a_card_can_show_holds_on_a_pretended_one() -> None:
    """Offload, memory that runs out, scoring and the doctor: the tests for a real card."""
    call = [sys.executable, "tests/makers/pretend.py", "-m", "pytest", "-p", "no:cacheprovider"]
    call += ["-q", "-m", "gpu", "-o", "addopts=--strict-markers -p no:randomly"]
    call += ["tests/models/test_gpu.py"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


# An eigendecomposition waits by itself.
WAITS = {"vendi-guidance": 1, "coupled:rule=maxcut": 2}
# Random numbers of the CPU, the same on every device, and which candidates go on.
COPIES = {"cads", "restart", "group-inference", "eddy-fd", "eddy-hutch"}


@pytest.mark.slow
def test_a_step_waits_for_the_device_at_most_once_and_copies_nothing() -> None:
    """The table in docs/scale.md is what is counted."""
    call = [sys.executable, "-W", "ignore", "benchmarks/transfers.py", "--json"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True)
    page = (ROOT / "docs" / "scale.md").read_text("utf-8")
    for row in json.loads(done.stdout):
        figures = [row[key] for key in ("synchronisations", "to the device", "from the device")]
        assert figures[0] <= WAITS.get(row["method"], 1), row
        assert figures[2] == 0, row
        assert not figures[1] or row["method"].partition(":")[0] in COPIES, row
        line = f"| `{row['method']}` | " + " | ".join(map(str, figures)) + f" | {row['bytes']:,} |"
        assert line in page
