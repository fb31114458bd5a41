"""One row per scheduler: what is known of diffusers' classes, as of diffusers 0.42."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Reading = Literal["scaled", "tabled", "multistep", "flow", "unknown"]
Models = Literal["noise", "flow", "both"]
Noise = Literal["none", "full", "eta", "ancestral", "tau"]
DEFAULT = "default"


@dataclass(frozen=True)
class SchedulerRow:
    """A scheduler by its short name; several short names may share a class.

    Attributes:
        name: on the command line; `default` where a class comes with a pipeline only.
        class_name: in diffusers.
        reading: how its state is read.
            "scaled": `sample` is xb = x / alpha_t, and `sigmas` holds sigma.
            "tabled": `sample` is x, and the schedule is a table over timesteps.
            "multistep": `sample` is x, and `sigmas` holds sigma, or sigma_t under flow sigmas.
            "flow": `sample` is x = (1 - sigma_t) x0 + sigma_t eps; the network predicts eps - x0.
        models: which it solves under this name: noise-predicting models, flow models, or both.
        settings: configuration that the name stands for.
        call_arguments: arguments of the pipeline's call that it takes, in [0, 1], by type.
        noise: what the class draws at its steps, and its stretch: how many times as far as a
            deterministic step it moves per unit of g. The classes with an `algorithm_type` that
            begins with `sde` draw noise as well; that is a matter of their configuration.
            "none": no noise; 1.
            "full": at every step, all of it anew; 2.
            "eta": where eta > 0; 1 + eta^2.
            "ancestral": at every step; 1 + sigma_next / sigma.
            "tau": at every step; 1 + tau^2.
        half_steps: every other step is at a level of `sigmas_interpol`.
        clips: clips `sample` to [-1, 1] by default, which latents are not made for.

    """

    name: str
    class_name: str
    reading: Reading
    models: Models = "noise"
    settings: dict[str, Any] = field(default_factory=dict)
    call_arguments: dict[str, type] = field(default_factory=dict)
    noise: Noise = "none"
    half_steps: bool = False
    clips: bool = False

    def takes(self, flow: bool) -> bool:
        """Return whether it solves flow models, or else noise-predicting ones."""
        return self.models in ("both", "flow" if flow else "noise")


ROWS = (
    SchedulerRow(
        "ddim", "DDIMScheduler", "tabled", call_arguments={"eta": float}, noise="eta", clips=True
    ),
    SchedulerRow("ddpm", "DDPMScheduler", "tabled", noise="full", clips=True),
    SchedulerRow("deis", "DEISMultistepScheduler", "multistep"),
    SchedulerRow(
        "dpm",
        "DPMSolverMultistepScheduler",
        "multistep",
        settings={"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
    ),
    SchedulerRow(
        "dpmpp-2m",
        "DPMSolverMultistepScheduler",
        "multistep",
        "both",
        settings={"algorithm_type": "dpmsolver++", "solver_order": 2},
    ),
    SchedulerRow(
        "dpmpp-2m-sde",
        "DPMSolverMultistepScheduler",
        "multistep",
        "both",
        settings={"algorithm_type": "sde-dpmsolver++", "solver_order": 2},
    ),
    SchedulerRow("euler", "EulerDiscreteScheduler", "scaled"),
    SchedulerRow("euler-ancestral", "EulerAncestralDiscreteScheduler", "scaled", noise="ancestral"),
    SchedulerRow("flow-euler", "FlowMatchEulerDiscreteScheduler", "flow", "flow"),
    SchedulerRow("flow-heun", "FlowMatchHeunDiscreteScheduler", "flow", "flow"),
    SchedulerRow("heun", "HeunDiscreteScheduler", "scaled"),
    SchedulerRow("kdpm2", "KDPM2DiscreteScheduler", "scaled", half_steps=True),
    SchedulerRow("lms", "LMSDiscreteScheduler", "scaled"),
    SchedulerRow("pndm", "PNDMScheduler", "tabled", settings={"skip_prk_steps": True}),
    SchedulerRow(
        "sa-solver",
        "SASolverScheduler",
        "multistep",
        settings={"algorithm_type": "data_prediction"},
        noise="tau",
    ),
    SchedulerRow("unipc", "UniPCMultistepScheduler", "multistep", "both"),
    SchedulerRow(DEFAULT, "DPMSolverSinglestepScheduler", "multistep"),
)
SCHEDULERS = {row.name: row for row in ROWS if row.name != DEFAULT}
CLASS_NAMES = frozenset(row.class_name for row in ROWS)


def row_of(scheduler: Any) -> SchedulerRow:
    """Return the first row of a scheduler's class; of an unknown class one that says so."""
    name = type(scheduler).__name__
    unknown = SchedulerRow(DEFAULT, name, "unknown")
    return next((row for row in ROWS if row.class_name == name), unknown)
