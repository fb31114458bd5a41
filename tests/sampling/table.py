"""What goes with what: `python -m tests.sampling.table` writes docs/samplers.md, a slow test holds
it.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from eddy_bench.errors import EddyError, SchedulerError
from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.registry import build_method, method_names
from eddy_bench.sampling.scheduler_table import SCHEDULERS
from eddy_bench.sampling.schedulers import SPACINGS, set_scheduler
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.suite import Suite
from tests.makers.families import FAMILIES, family_model, family_side

PAGE = Path(__file__).parents[2] / "docs" / "samplers.md"
STEPS = 4
SOLVERS = (*SCHEDULERS, "ddim:eta=1")
QUICK = {
    "pg": "pg:strength=1,window=0..",
    "repulsion": "repulsion:strength=1,window=0..",
    "eddy-exact": "eddy-exact:strength=1",
    "eddy-fd": "eddy-fd:strength=1,window=0..,max_coordinates=2",
    "eddy-hutch": "eddy-hutch:strength=1,window=0..,probes=2",
    "best-of-m": "best-of-m:m=3",
    "restart": "restart:low=0.01,high=1e5",
}
HEAD = """# Samplers

Which solver goes with which method and model. Filled by `python -m tests.sampling.table` on
pipelines with random weights, 4 steps, and held by a test. `yes`: the images are drawn, and finite.
`-`: the solver draws no noise at its steps, which `coupled` needs. Where a cell is empty the pair
is refused with one line and exit code 2: a flow model cannot be solved by a solver of
noise-predicting models, nor the other way round, a few pipelines hand their solver a list of
noise levels that it does not take, and `restart` goes back to higher noise levels under first-order
solvers that hold nothing from one step to the next: ddim, euler and flow-euler.

Few-step models: `lcm` and `tcd` solve noise-predicting models that were distilled for them, at most
50 steps (`original_inference_steps`); `tcd` has eta (gamma in its paper) 0.3. `scm` solves
SANA-Sprint, whose own it is, and nothing else. All three end their last step without noise, so that
`coupled` needs 2 steps. Turbo and Lightning models take `--timesteps trailing`, 1 to 8 steps and
`--guidance-scale 0` or 1, with euler or euler-ancestral. Under a scheduler whose state is not known
here `iid`, couplings of the start and selection without a preview run, and the rest is refused.

`--timesteps karras`, `exponential`, `beta` space the noise levels of solvers of noise-predicting
models that can, and of flow-euler; `trailing` is for noise-predicting models alone.
`--timesteps ays` takes Align Your Steps (arXiv 2404.14507) from
the tables that diffusers holds for Stable Diffusion 1.5 and SDXL; other step counts than 10 are
interpolated in log sigma, over the table's levels and a last one of 0.029.
"""


def cell(family: str, solver: str, method: str, spacing: str = "default") -> str:
    """`yes`, `-` or nothing for one combination."""
    model, spec = family_model(family), MethodSpec.parse(solver)
    own = model.pipe.scheduler
    suite = Suite(steps=STEPS, size=family_side(family), guidance_scale=2.0)
    try:
        call = set_scheduler(model.pipe, spec.name, spec.parameters, spacing, STEPS)
        chosen = build_method(MethodSpec.parse(QUICK.get(method, method)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            form = "pil" if method == "best-of-m" else "latent"
            drawn, _ = model.draw(
                ["a red dress"],
                [0],
                2,
                chosen,
                {**Setup(suite, model).call_arguments(1), **call, "output_type": form},
            )
        assert form == "pil" or all(torch.isfinite(latents).all() for latents in drawn[0])
    except SchedulerError as error:
        return "-" if "stochastic solver only" in str(error) else ""
    except EddyError:
        raise
    except Exception as error:
        if (
            "diffusers" in traceback.extract_tb(error.__traceback__)[-1].filename
        ):  # `run` says so after its first batch
            return ""
        raise AssertionError(
            f"{family}, {solver}, {method}: {type(error).__name__}: {error}"
        ) from error
    finally:
        model.pipe.scheduler = own
    return "yes"


def methods_by_solver(family: str) -> Iterator[list[str]]:
    """A row per solver that the family takes."""
    for solver in SOLVERS:
        cells = [cell(family, solver, method) for method in method_names()]
        if any(cells):
            yield [solver, *cells]


def families_by_solver() -> Iterator[list[str]]:
    """A row per family, under pg."""
    for family in FAMILIES:
        yield [family, *(cell(family, solver, "pg") for solver in SCHEDULERS)]


def spacings_by_solver() -> Iterator[list[str]]:
    """A row per solver, on the noise-predicting family, under pg."""
    for solver in SCHEDULERS:
        cells = [cell("sd15", solver, "pg", spacing) for spacing in (*SPACINGS, "ays")]
        if any(cells):
            yield [solver, *cells]


def table(header: list[str], rows: Iterator[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page() -> str:
    """The whole document."""
    methods = ["", *method_names()]
    return "\n".join(
        [
            HEAD,
            "## Methods on a noise-predicting model (`sd15`)\n",
            table(methods, methods_by_solver("sd15")),
            "\n## Methods on a flow model (`sd3`)\n",
            table(methods, methods_by_solver("sd3")),
            "\n## Families under `pg`\n",
            table(["", *SCHEDULERS], families_by_solver()),
            "\n## Spacings (`sd15`, `pg`)\n",
            table(["", *SPACINGS, "ays"], spacings_by_solver()),
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page())
