"""Drawing where tensors of a device and of the CPU do not mix, on a pretend CUDA device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.makers.families import family_folder

ROOT = Path(__file__).parents[2]
NEWEST = tuple(map(int, torch.__version__.split("+")[0].split(".")[:2])) >= (2, 14)
pytestmark = pytest.mark.skipif(not NEWEST, reason="the pretend device needs torch 2.14")
RUN = """
import json, sys
from pathlib import Path
from tests.makers import pretend
pretend.install(budget=2**33)
from eddy_bench.models.load import load_model
from eddy_bench.experiment.draw import draw_groups
from eddy_bench.experiment.manifest import record_plan
from eddy_bench.experiment.plan import make_plan
from eddy_bench.experiment.setup import Setup
from eddy_bench.sampling.families import denoiser
from eddy_bench.storage.run_folder import RunFolder
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.prompts import prompts_of_texts
from eddy_bench.suites.suite import Suite
source, out, device, side = sys.argv[1:]
methods = [MethodSpec.parse(text) for text in ("iid", "antithetic")]
suite = Suite(
    model=source, device=device, methods=methods, particles=2, seeds=1, steps=2,
    batch_prompts=2, guidance_scale=3.0, **({"size": int(side)} if int(side) else {}),
)
model = load_model(source, device=device)
prompts = prompts_of_texts(["a dress", "a coat", "a dark bag", "a dress of silk", "a boot"])
plan = make_plan(Setup(suite, model, prompts))
folder = RunFolder.prepare(Path(out), plan.settings)
record_plan(plan, folder)
evaluations = []
denoiser(model.pipe).register_forward_pre_hook(lambda *given: evaluations.append(1))
done = draw_groups(plan, folder, plan.groups, lambda *given: None)
told = {"drawn": done.drawn, "failures": [why for _, why in done.failures]}
told |= {"fallbacks": done.fallback_notes, "evaluations": len(evaluations)}
print(json.dumps(told))
"""


def run(source: str, out: Path, device: str, side: int = 0) -> dict[str, Any]:
    """Draw five prompts in batches of two under two methods, in a process of its own."""
    call = [sys.executable, "-W", "ignore", "-c", RUN, source, str(out), device, str(side)]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize(("name", "side"), [("fashion", 0), ("z-image", 64)])
def test_a_card_draws_every_batch_together(name: str, side: int, tmp_path: Path) -> None:
    """As often as the CPU evaluates the network, where the warm-up has encoded one prompt."""
    source = name if name == "fashion" else str(family_folder(name))
    card, cpu = (run(source, tmp_path / device, device, side) for device in ("cuda", "cpu"))
    assert card == cpu
    assert card["drawn"] == 10
    assert card["failures"] == card["fallbacks"] == []
    assert card["evaluations"] == 2 + 2 * 3 * 2, "a warm-up; methods, batches, steps"
