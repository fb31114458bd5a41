"""What a card holds while it draws, on a pretend CUDA device: offload, copies, generators."""

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
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not NEWEST, reason="the pretend device needs torch 2.14"),
]


def told_by(code: str, *given: object) -> dict[str, Any]:
    """Return what some code tells in a process of its own."""
    call = [sys.executable, "-W", "ignore", "-c", code, *map(str, given)]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


OFFLOADED = """
import json, sys
from pathlib import Path
from tests.makers import pretend
pretend.install(budget=int(sys.argv[3]))
import pytest, torch
from tests.makers import offload
offload.install(pytest.MonkeyPatch())
from eddy_bench.models.load import load_model
from eddy_bench.experiment.draw import draw_groups
from eddy_bench.experiment.plan import make_plan
from eddy_bench.experiment.setup import Setup
from eddy_bench.sampling.steer import preview
from eddy_bench.storage.run_folder import RunFolder
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.prompts import prompts_of_texts
from eddy_bench.suites.suite import Suite
source, out, _ = sys.argv[1:]
suite = Suite(
    model=source, device="cuda", methods=[MethodSpec.parse("iid")], particles=2, seeds=1, steps=2,
    batch_prompts="auto", guidance_scale=3.0, size=64, offload=True,
)
model = load_model(source, device="cuda", offload=True)

def ballast(part, given):
    part.ballast[:1] + next(part.parameters()).flatten()[:1]  # on one device

for part in (model.pipe.text_encoder, model.pipe.unet):
    part.register_buffer("ballast", torch.zeros(3 * 2**20))
    part.register_forward_pre_hook(ballast)
told = {}
prompts = prompts_of_texts(["a dress", "a coat", "a dark bag"])
plan = make_plan(Setup(suite, model, prompts))
folder = RunFolder.prepare(Path(out), plan.settings)
done = draw_groups(plan, folder, plan.groups, lambda *given: None)
told["drawn"], told["failures"] = done.drawn, [why for _, why in done.failures]
told["fallbacks"], told["warnings"] = done.fallback_notes, done.warnings
arguments = Setup(suite, model).call_arguments(1)
state = preview(model.pipe, 1, lambda: model.pipe("a dress", **arguments))
parts = {"unet": model.pipe.unet, "text_encoder": model.pipe.text_encoder}
told["left"] = [name for name, part in parts.items() if next(part.parameters()).is_cuda]
print(json.dumps(told))
"""


def test_offload_recovers_from_running_out_of_memory_and_a_preview_leaves_nothing_there(
    tmp_path: Path,
) -> None:
    """Text encoder or denoiser fit beside one prompt's activations, 12 MB each; both do not.

    The warm-up runs out with 8, 4 and 2 prompts, in the denoiser.
    """
    told = told_by(OFFLOADED, family_folder("sd15"), tmp_path / "run", 20 * 2**20)
    assert (told["drawn"], told["failures"], told["fallbacks"]) == (3, [], [])
    assert told["warnings"] == ["memory: 1 prompt has a forward pass"]
    assert told["left"] == []


COPIES = """
import json, sys
from tests.makers import pretend
pretend.install(budget=2**33)
import torch
from eddy_bench.methods.registry import build_method
from eddy_bench.models.load import load_model
from eddy_bench.suites.method_spec import MethodSpec
model = load_model("fashion", device=sys.argv[1])
spell = build_method(MethodSpec.parse("spell:earlier=true,strength=1"))
call = {"num_inference_steps": 6, "guidance_scale": 2.0}
model.draw(["a dress"], [0], 2, spell, call)
pretend.COUNTS.clear()
groups, _ = model.draw(["a dress"], [1], 2, spell, call)
rows = {row["where"]: row["count"] for row in pretend.COUNTS.rows() if row["kind"] == "h2d"}
told = {"spell": sum(n for w, n in rows.items() if w.startswith("methods/spell"))}
told["devices"] = sorted({int(k) for k, n in pretend.MEMORY.peak.items() if n})
print(json.dumps(told))
"""


def test_earlier_latents_are_copied_to_the_card_of_the_run_and_not_at_each_step() -> None:
    told = told_by(COPIES, "cuda:1")
    assert told == {"spell": 0, "devices": [1]}


GIVEN = """
import json, sys
from tests.makers import pretend
pretend.install(budget=2**33)
import numpy as np, torch
from eddy_bench import steer
from eddy_bench.methods.registry import build_method
from eddy_bench.models.load import load_model
from eddy_bench.suites.method_spec import MethodSpec

def generators(count, first):
    return [torch.Generator().manual_seed(first + k) for k in range(count)]

def drawn(text, device):
    pipe = load_model("fashion", device=device).pipe
    method = build_method(MethodSpec.parse(text))
    with steer(pipe, method, probes=generators(1, 7), streams=generators(4, 70)):
        images = pipe(
            "a dress", num_images_per_prompt=4, num_inference_steps=6, guidance_scale=2.0,
            generator=generators(4, 700), output_type="np",
        ).images
    return np.asarray(images)

told = {}
for text in sys.argv[2:]:
    card, cpu = (drawn(text, device) for device in (sys.argv[1], "cpu"))
    told[text] = float(abs(card - cpu).max())
print(json.dumps(told))
"""
METHODS = (
    *("cads", "lhs", "sobol", "restart:low=0.5,high=5,coupling=lhs"),
    *("eddy-hutch:kernel=latent", "eddy-fd:kernel=latent,max_coordinates=20"),
)


def test_generators_of_the_cpu_give_a_card_the_same_numbers() -> None:
    told = told_by(GIVEN, "cuda:1", *METHODS)
    assert told.keys() == set(METHODS)
    assert max(told.values()) < 1e-3
