"""One row per scheduler: what is known of diffusers' classes, as of diffusers 0.42."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Convention = Literal["scaled", "tabled", "multistep", "flow", "trigflow", "edm", "unknown"]
Kind = Literal["noise", "flow", "trigflow", "edm", "unknown"]
Models = Literal["noise", "flow", "both", "trigflow", "edm"]
Noise = Literal["none", "eta", "ancestral", "twice", "tau", "anew", "gamma"]
DEFAULT = "default"


@dataclass(frozen=True)
class SchedulerRow:
    """A scheduler by its short name; several short names may share a class.

    Attributes:
        name: on the command line; `default` where a class comes with a pipeline only.
        class_name: in diffusers.
        convention: how its state is read; `solver_view` has one class for each.
        models: which it solves under this name: noise-predicting models, flow models, both, or
            those whose pipelines speak trigflow or EDM.
        settings: configuration that the name stands for.
        call_arguments: arguments of the pipeline's call that it takes, in [0, 1], by type.
        call_defaults: what the name stands for among them.
        noise: what the class draws at its steps; `SolverView.noise` adds what its configuration
            says, `SolverView.gain` has the formulas.
            "none": no noise.
            "eta": where eta > 0.
            "ancestral": at every step, as much as keeps the law of the process.
            "twice": at every step, with a drift of twice the size.
            "tau": at every step, by tau.
            "anew": it moves to the denoised estimate and adds noise of the next level, none of
                use at the last step (LCM, arXiv 2310.04378).
            "gamma": where eta (gamma in the paper) > 0, but at the last step: it moves to a lower
                level sigma_s and adds noise from there (TCD, arXiv 2402.19159).
        half_steps: every other step is at a level of `sigmas_interpol`.
        clips: clips `sample` to [-1, 1] by default, which latents are not made for.
    """

    name: str
    class_name: str
    convention: Convention
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
        return self.models == kind or (self.models == "both" and kind in ("noise", "flow"))


ROWS = (
    SchedulerRow(
        "ddim", "DDIMScheduler", "tabled", call_arguments={"eta": float}, noise="eta", clips=True
    ),
    SchedulerRow("ddpm", "DDPMScheduler", "tabled", noise="ancestral", clips=True),
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
    SchedulerRow("edm-dpmpp-2m", "EDMDPMSolverMultistepScheduler", "edm", "edm"),
    SchedulerRow("edm-euler", "EDMEulerScheduler", "edm", "edm"),
    SchedulerRow("euler", "EulerDiscreteScheduler", "scaled"),
    SchedulerRow("euler-ancestral", "EulerAncestralDiscreteScheduler", "scaled", noise="ancestral"),
    SchedulerRow("flow-euler", "FlowMatchEulerDiscreteScheduler", "flow", "flow"),
    SchedulerRow("flow-heun", "FlowMatchHeunDiscreteScheduler", "flow", "flow"),
    SchedulerRow("flow-lcm", "FlowMatchLCMScheduler", "flow", "flow", noise="anew"),
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
