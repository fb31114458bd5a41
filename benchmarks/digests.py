"""Digests of what every method draws, so that two checkouts can be compared to the byte.

    python -m benchmarks.digests before.json      in one checkout
    python -m benchmarks.digests after.json       in another
    python -m benchmarks.digests before.json after.json

The embedded model under four solvers, every family of the tests, every solver on a known mixture,
and what `check-method` draws; about two minutes of one core.
"""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from eddy_bench import steer
from eddy_bench.audit.conformance import draw_samples
from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.base import Method
from eddy_bench.methods.registry import build_method, method_names
from eddy_bench.models.base import Model
from eddy_bench.models.load import load_model
from eddy_bench.sampling.noise import probe_generator
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.suite import Suite
from tests.makers.families import FAMILIES, family_model, family_side
from tests.makers.solvers import SOLVERS, draw, make_pipeline
from tests.models.test_families import STRONG

MORE = ("coupled:init=antithetic", "eddy-exact:strength=20,init=lhs", "pg:kernel=latent,strength=2")
OF_FAMILIES = ("iid", "pg", "eddy-hutch", "antithetic", "lhs", "cads", "interval", "apg", "dave")
OF_FAMILIES += ("cno", "group-inference", "diverseflow", "spell", "tsr")
OF_SOLVERS = ("iid", "eddy-exact:strength=20", "pg:strength=2", "antithetic", "coupled", "tsr")
OF_SOLVERS += ("restart:low=0.5,high=5",)
EMBEDDED = (("ddim", {}), ("ddim", {"eta": "1"}), ("dpmpp-2m-sde", {}), ("euler", {}))
FEW = {"num_inference_steps": 6, "guidance_scale": 4.0, "output_type": "latent"}


def method(text: str) -> Method:
    """Return a method as on the command line."""
    return build_method(MethodSpec.parse(text))


def digest(values: Tensor) -> str:
    """Return a digest of numbers."""
    return hashlib.sha256(values.double().numpy().tobytes()).hexdigest()[:16]


def drawn(
    model: Model, prompts: list[str], text: str, particles: int, call: dict[str, object]
) -> str:
    """Return the digest of a draw and its cost."""
    groups, cost = model.draw(prompts, [0] * len(prompts), particles, method(text), call)
    latents = torch.stack([latent for group in groups for latent in group])
    return f"{digest(latents)} {cost.nfe:.3f} {cost.feature_forwards:.3f}"


def embedded(solver: str, parameters: dict[str, str], text: str) -> str:
    """Draw on the embedded model."""
    model = load_model("fashion", device="cpu")
    model.call |= set_scheduler(model.pipe, solver, parameters, "default", 6)
    return drawn(model, ["a dark dress", "a sandal"], text, 3, FEW)


def of_family(family: str, text: str) -> str:
    """Draw on a tiny pipeline of a family."""
    model = family_model(family)
    setup = Setup(Suite(steps=3, size=family_side(family), guidance_scale=3.0), model)
    call = {**setup.call_arguments(1), "output_type": "latent"}
    return drawn(model, ["a red dress"], STRONG.get(text, text), 2, call)


def of_solver(solver: str, text: str) -> str:
    """Draw a known mixture under a solver."""
    pipe = make_pipeline(solver)
    probes = [probe_generator(0, prompt) for prompt in ("a", "b")]
    with steer(pipe, method(text), particles=4, probes=probes) as record:
        return f"{digest(draw(pipe))} {record.steps}"


def attempt(make: Callable[[], str]) -> str:
    """Return a digest, or the error that stands in its place."""
    try:
        return make()
    except Exception as error:  # what is refused is part of what a checkout does
        return f"{type(error).__name__}: {str(error)[:60]}"


def digests() -> dict[str, str]:
    """Return all digests by what was drawn."""
    jobs: dict[str, Callable[[], str]] = {}
    for solver, parameters in EMBEDDED:
        for text in (*method_names(), *MORE):
            name = f"fashion {solver}{parameters} {text}"
            jobs[name] = lambda s=solver, p=parameters, t=text: embedded(s, p, t)
    for family in FAMILIES:
        for text in OF_FAMILIES:
            jobs[f"family {family} {text}"] = lambda f=family, t=text: of_family(f, t)
    for solver in SOLVERS:
        for text in OF_SOLVERS:
            jobs[f"solver {solver} {text}"] = lambda s=solver, t=text: of_solver(s, t)
    for text in method_names():
        jobs[f"audit {text}"] = lambda t=text: digest(draw_samples(method(t)))
    return {name: attempt(make) for name, make in jobs.items()}


def main(paths: list[str]) -> None:
    """Write digests, or say in what two files of them differ."""
    if len(paths) == 1:
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        Path(paths[0]).write_text(json.dumps(digests(), indent=0))
        return
    before, after = (json.loads(Path(path).read_text()) for path in paths)
    other = [name for name in before if before[name] != after.get(name)]
    print(f"{len(before)} drawn, {len(other)} differ")
    for name in other:
        print(f"{name}: {before[name]} -> {after.get(name)}")


if __name__ == "__main__":
    main(sys.argv[1:])
