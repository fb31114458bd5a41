"""Exact pipelines of a small mixture under every kind of solver."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from torch import Tensor

from eddy_bench.models.exact import ExactDenoiser, ExactPipeline
from eddy_bench.models.mixture import Mixture

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PLAIN = {"clip_sample": False}
SOLVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {**NOISE, **PLAIN}),
    "ddpm": ("DDPMScheduler", {**NOISE, **PLAIN}),
    "pndm": ("PNDMScheduler", {**NOISE, "skip_prk_steps": True}),
    "dpmpp-2m": ("DPMSolverMultistepScheduler", NOISE),
    "dpmpp-sde": ("DPMSolverMultistepScheduler", {**NOISE, "algorithm_type": "sde-dpmsolver++"}),
    "dpm-singlestep": ("DPMSolverSinglestepScheduler", NOISE),
    "unipc": ("UniPCMultistepScheduler", NOISE),
    "deis": ("DEISMultistepScheduler", NOISE),
    "sa": ("SASolverScheduler", NOISE),
    "euler": ("EulerDiscreteScheduler", NOISE),
    "euler-a": ("EulerAncestralDiscreteScheduler", NOISE),
    "lcm": ("LCMScheduler", NOISE),
    "tcd": ("TCDScheduler", NOISE),
    "scm": ("SCMScheduler", {}),
    "heun": ("HeunDiscreteScheduler", NOISE),
    "lms": ("LMSDiscreteScheduler", NOISE),
    "kdpm2": ("KDPM2DiscreteScheduler", NOISE),
    "flow-euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "flow-heun": ("FlowMatchHeunDiscreteScheduler", {}),
    "flow-unipc": (
        "UniPCMultistepScheduler",
        {"prediction_type": "flow_prediction", "use_flow_sigmas": True},
    ),
    "flow-dpmpp": (
        "DPMSolverMultistepScheduler",
        {"prediction_type": "flow_prediction", "use_flow_sigmas": True},
    ),
}


def ring() -> Mixture:
    """Return five narrow modes on a circle of radius 2."""
    angle = torch.arange(5, dtype=torch.float64) * 2 * torch.pi / 5
    return Mixture(
        2 * torch.stack([angle.cos(), angle.sin()], 1),
        torch.full((5,), 0.04).double(),
        torch.full((5,), 0.2).double(),
    )


def make_pipeline(solver: str, **config: Any) -> ExactPipeline:
    """Return the pipeline of the ring under a solver. config: changes of the scheduler's."""
    name, settings = SOLVERS[solver]
    return ExactPipeline(ExactDenoiser(ring()), getattr(diffusers, name)(**{**settings, **config}))


def draw(pipe: ExactPipeline, rows: int = 8, steps: int = 8, **kwargs: Any) -> Tensor:
    """Return (rows, 2) samples, row k from the generator of seed k."""
    generator = [torch.Generator().manual_seed(k) for k in range(rows)]
    torch.manual_seed(0)  # solvers to which the pipeline passes no generator
    return pipe(
        "ring", num_images_per_prompt=rows, num_inference_steps=steps, generator=generator, **kwargs
    ).images
