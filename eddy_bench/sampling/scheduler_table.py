"""One row per scheduler: what is known of diffusers' classes, as of diffusers 0.42."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Reading = Literal["scaled", "tabled", "multistep", "flow", "trigflow", "unknown"]
Kind = Literal["noise", "flow", "trigflow"]
Models = Literal["noise", "flow", "both", "trigflow"]
Noise = Literal["none", "full", "eta", "ancestral", "tau", "anew", "gamma"]
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
            "trigflow": `sample` is sigma_data x, x = cos(s) x0 + sin(s) eps at the timestep s; it
                is given sigma_data v, v = cos(s) eps - sin(s) x0 (sCM, arXiv 2410.11081).
        models: which it solves under this name: noise-predicting models, flow models, both, or
            those whose pipelines speak trigflow.
        settings: configuration that the name stands for.
        call_arguments: arguments of the pipeline's call that it takes, in [0, 1], by type.
        call_defaults: what the name stands for among them.
        noise: what the class draws at its steps, and its stretch: how many times as far as a
            deterministic step it moves per unit of g. The classes with an `algorithm_type` that
            begins with `sde` draw noise as well; that is a matter of their configuration.
            "none": no noise; 1.
            "full": at every step, all of it anew; 2.
            "eta": where eta > 0; 1 + eta^2.
            "ancestral": at every step; 1 + sigma_next / sigma.
            "tau": at every step; 1 + tau^2.
            "anew": it moves to the denoised estimate and adds noise of the next level, none of
                use at the last step (LCM, arXiv 2310.04378); sigma / (sigma - sigma_next).
            "gamma": where eta (gamma in the paper) > 0, but at the last step: it moves to a lower
                level sigma_s and adds noise from there (TCD, arXiv 2402.19159);
                (sigma - sigma_s) / (sigma - sigma_next).
        half_steps: every other step is at a level of `sigmas_interpol`.
        clips: clips `sample` to [-1, 1] by default, which latents are not made for.

    """

    name: str
    class_name: str
    reading: Reading
    models: Models = "noise"
    settings: dict[str, Any] = field(default_factory=dict)
    call_arguments: dict[str, type] = field(default_factory=dict)
    call_defaults: dict[str, float] = field(default_factory=dict)
    noise: Noise = "none"
    half_steps: bool = False
    clips: bool = False

    @property
    def few_steps(self) -> bool:
        """Whether it solves consistency models, on the timesteps of their distillation.

        They heed no `timestep_spacing`, and the noise of the last step is of no use.
        """
        return self.noise in ("anew", "gamma")

    def takes(self, kind: Kind) -> bool:
        """Return whether it solves models of a kind."""
        return self.models == kind or (self.models == "both" and kind != "trigflow")


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
    SchedulerRow("lcm", "LCMScheduler", "tabled", noise="anew"),
    SchedulerRow("lms", "LMSDiscreteScheduler", "scaled"),
    SchedulerRow("pndm", "PNDMScheduler", "tabled", settings={"skip_prk_steps": True}),
    SchedulerRow(
        "sa-solver",
        "SASolverScheduler",
        "multistep",
        settings={"algorithm_type": "data_prediction"},
        noise="tau",
    ),
    SchedulerRow(
        "scm",
        "SCMScheduler",
        "trigflow",
        "trigflow",
        settings={"prediction_type": "trigflow"},
        noise="anew",
    ),
    SchedulerRow(
        "tcd",
        "TCDScheduler",
        "tabled",
        call_arguments={"eta": float},
        call_defaults={"eta": 0.3},
        noise="gamma",
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
