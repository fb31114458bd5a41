"""What is drawn on a pretended card, beside what the CPU draws: one process, many answers.

python -m tests.makers.card [--device cuda:1] [--batches MODEL ...] [--without CASE ...] [CASE ...]

A case is METHOD, METHOD@MODEL or METHOD@MODEL@SCHEDULER. It prints as JSON, by case, by how much of
255 the images differ from the CPU's, or the error's text.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


def source_of(name: str) -> str:
    from tests.makers.families import family_folder

    return name if name.startswith("fashion") else str(family_folder(name))


@functools.cache
def loaded(name: str, device: str, scheduler: str) -> Any:
    from eddy_bench.models.load import load_model

    return load_model(source_of(name), device=device, scheduler=scheduler)


def images(case: str, device: str) -> Any:
    """Draw two groups of two."""
    from eddy_bench.methods.registry import build_method
    from eddy_bench.suites.method_spec import MethodSpec
    from tests.makers.families import family_side

    text, name, scheduler = [*case.split("@"), "", ""][:3]
    method, name = build_method(MethodSpec.parse(text)), name or "fashion"
    scheduler = scheduler or ("ddim:eta=1" if method.couples_steps else "default")
    model = loaded(name, device, scheduler)
    arguments: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 3.0}
    arguments |= {"output_type": "pil"} | ({"eta": 1.0} if scheduler == "ddim:eta=1" else {})
    if name == "sana-sprint":  # its solver takes no other number without help
        arguments["num_inference_steps"] = 2
    if name.startswith("fashion-"):
        arguments |= {"num_inference_steps": 4, "guidance_scale": 1.0}
    elif name != "fashion":
        arguments |= dict.fromkeys(("height", "width"), family_side(name))
    groups, _ = model.draw(["a dress", "a coat"], [0, 1], 2, method, arguments)
    return np.stack([np.asarray(image, np.int16) for group in groups for image in group])


def difference(case: str, device: str) -> int | str:
    """Return the largest difference from the CPU's images, of 255."""
    try:
        return int(np.abs(images(case, device) - images(case, "cpu")).max())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def batches(name: str, device: str) -> dict[str, Any]:
    """Draw five prompts in batches of two under two methods, as `run` does."""
    from eddy_bench.experiment.draw import draw_groups
    from eddy_bench.experiment.manifest import record_plan
    from eddy_bench.experiment.plan import make_plan
    from eddy_bench.experiment.setup import Setup
    from eddy_bench.models.load import load_model
    from eddy_bench.sampling.families import denoiser
    from eddy_bench.storage.run_folder import RunFolder
    from eddy_bench.suites.method_spec import MethodSpec
    from eddy_bench.suites.prompts import prompts_of_texts
    from eddy_bench.suites.suite import Suite

    source, size = source_of(name), {} if name == "fashion" else {"size": 64}
    methods = [MethodSpec.parse(text) for text in ("iid", "antithetic")]
    suite = Suite(
        model=source, device=device, methods=methods, particles=2, seeds=1, steps=2,
        batch_prompts=2, guidance_scale=3.0, **size,
    )  # fmt: skip
    model, evaluations = load_model(source, device=device), []
    prompts = prompts_of_texts(["a dress", "a coat", "a dark bag", "a dress of silk", "a boot"])
    plan = make_plan(Setup(suite, model, prompts))
    folder = RunFolder.prepare(Path(tempfile.mkdtemp()) / "run", plan.settings)
    record_plan(plan, folder)
    network = denoiser(model.pipe)
    handle = network.register_forward_pre_hook(lambda *given: evaluations.append(1))
    done = draw_groups(plan, folder, plan.groups, lambda *given: None)
    handle.remove()
    told: dict[str, Any] = {"drawn": done.drawn, "failures": [why for _, why in done.failures]}
    return told | {"fallbacks": done.fallback_notes, "evaluations": len(evaluations)}


def strictness() -> dict[str, str]:
    """Return what the card says of what CUDA refuses, and what it counts."""
    import torch

    from tests.makers.pretend import COUNTS, Settings

    here, there = torch.ones(3), torch.ones(3, device="cuda")
    second, large = torch.ones(3, device="cuda:1"), Settings.budget // 4 + 1
    own = torch.Generator(device="cuda")
    refused: dict[str, Any] = {
        "cpu and card": lambda: there + here,
        "two cards": lambda: there + second,
        "numpy": there.numpy,
        "generator of the CPU": lambda: torch.randn(3, device="cuda", generator=torch.Generator()),
        "generator of the card": lambda: torch.randn(3, generator=own),
        "no such card": lambda: torch.ones(1, device="cuda:7"),
        "index on the card of a tensor here": lambda: here[there.long()],
        "memory": lambda: torch.empty(large, device="cuda"),
        "half precision": lambda: torch.linalg.eigh(torch.eye(2, device="cuda").half()),
    }
    said = {}
    for name, action in refused.items():
        try:
            said[name] = f"allowed: {action()}"
        except Exception as error:
            said[name] = f"{type(error).__name__}: {error}"
    COUNTS.clear()
    counted = {
        "item": lambda: float(there.sum()),
        "mask": lambda: there[there > 0],
        "h2d": lambda: here.to("cuda"),
        "d2h": there.cpu,
        "sync:_linalg_eigh": lambda: torch.linalg.eigh(torch.eye(2, device="cuda")),
    }
    for name, action in counted.items():
        before = COUNTS.total(name)
        action()
        said[name] = str(COUNTS.total(name) - before)
    said["number beside a tensor"] = str((there * torch.tensor(2.0)).sum().item())
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--batches", nargs="*", default=[])
    parser.add_argument("--without", nargs="*", default=[], help="where there is no float64")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--strict", action="store_true", help="try what CUDA refuses")
    given = parser.parse_args()
    from tests.makers import pretend

    pretend.install(budget=2**33)
    told: dict[str, Any] = {case: difference(case, given.device) for case in given.cases}
    if given.strict:
        told["strict"] = strictness()
        pretend.MEMORY.peak.clear()
    for name in given.batches:
        told[name] = [batches(name, device) for device in (given.device, "cpu")]
    pretend.Settings.no_float64 = True
    from eddy_bench.kernels import has_float64

    has_float64.cache_clear()
    told |= {f"{case} without": difference(case, given.device) for case in given.without}
    told["bytes"] = {f"cuda:{k}": pretend.MEMORY.peak[k] for k in range(2)}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
