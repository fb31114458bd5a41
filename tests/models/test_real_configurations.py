"""Scheduler configurations as models ship them: iid is the bare pipeline, bit for bit.

Facts of the models' own files, on tiny pipelines of their families.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest

from eddy_bench.errors import SchedulerError
from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.iid import Iid
from eddy_bench.models.load import load_model
from eddy_bench.sampling.noise import particle_generators
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.suites.suite import Suite
from tests.makers.families import family_folder, family_side

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
SCALED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TRAINED = {"num_train_timesteps": 1000, "trained_betas": None}
SD = {**SCALED, **TRAINED}
FLOW = {"num_train_timesteps": 1000}
DYNAMIC = {
    **FLOW,
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "use_dynamic_shifting": True,
}
FLOW_EULER = "FlowMatchEulerDiscreteScheduler"
EULER = "EulerDiscreteScheduler"
DPM = "DPMSolverMultistepScheduler"
DPM_KEYS = {
    **SD,
    "algorithm_type": "dpmsolver++",
    "dynamic_thresholding_ratio": 0.995,
    "lower_order_final": True,
    "sample_max_value": 1.0,
    "solver_order": 2,
    "solver_type": "midpoint",
    "thresholding": False,
}
PNDM = {**SD, "skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}
# name: family, class, version that wrote the file, configuration
CONFIGURATIONS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "sd-1.4": ("sd15", "PNDMScheduler", "0.7.0.dev0", {**SCALED, "skip_prk_steps": True}),
    "sd-1.4 with its offset": (
        "sd15",
        "PNDMScheduler",
        "0.7.0.dev0",
        {**PNDM, "clip_sample": False},
    ),
    "sd-1.5": ("sd15", "PNDMScheduler", "0.6.0", {**PNDM, "clip_sample": False}),
    "sd-1.5 without steps_offset": (
        "sd15",
        "PNDMScheduler",
        "0.2.2",
        {**SD, "skip_prk_steps": True, "set_alpha_to_one": False},
    ),
    "pndm with Runge-Kutta": ("sd15", "PNDMScheduler", "0.6.0", {**PNDM, "skip_prk_steps": False}),
    "ddim before clip_sample": (
        "sd15",
        "DDIMScheduler",
        "0.6.0",
        {**SD, "set_alpha_to_one": False},
    ),
    "ddim before clip_sample and offset": ("sd15", "DDIMScheduler", "0.3.0", SCALED),
    "sd-2.1 of Flax": (
        "sd21",
        "DDIMScheduler",
        "0.8.0",
        {
            **SD,
            "_flax_class": "FlaxDDIMScheduler",
            "clip_sample": False,
            "prediction_type": "v_prediction",
            "set_alpha_to_one": False,
            "skip_prk_steps": True,
            "steps_offset": 1,
        },
    ),
    "zero SNR ddim": (
        "sd21",
        "DDIMScheduler",
        "0.18.0",
        {
            **SD,
            "clip_sample": False,
            "prediction_type": "v_prediction",
            "rescale_betas_zero_snr": True,
            "set_alpha_to_one": True,
            "timestep_spacing": "trailing",
            "steps_offset": 0,
        },
    ),
    "zero SNR euler": (
        "sdxl",
        EULER,
        "0.25.0",
        {
            **SD,
            "prediction_type": "v_prediction",
            "rescale_betas_zero_snr": True,
            "timestep_spacing": "trailing",
        },
    ),
    "sdxl": (
        "sdxl",
        EULER,
        "0.19.0.dev0",
        {
            **SD,
            "clip_sample": False,
            "interpolation_type": "linear",
            "prediction_type": "epsilon",
            "sample_max_value": 1.0,
            "set_alpha_to_one": False,
            "skip_prk_steps": True,
            "steps_offset": 1,
            "timestep_spacing": "leading",
            "use_karras_sigmas": False,
        },
    ),
    "sdxl-turbo": (
        "sdxl",
        "EulerAncestralDiscreteScheduler",
        "0.24.0.dev0",
        {**SD, "prediction_type": "epsilon", "steps_offset": 1, "timestep_spacing": "trailing"},
    ),
    "sdxl-lightning": (
        "sdxl",
        EULER,
        "0.19.0.dev0",
        {**SD, "steps_offset": 1, "timestep_spacing": "trailing", "interpolation_type": "linear"},
    ),
    "playground-2.5": (
        "sdxl",
        "EDMDPMSolverMultistepScheduler",
        "0.27.0.dev0",
        {
            "algorithm_type": "dpmsolver++",
            "euler_at_final": False,
            "final_sigmas_type": "zero",
            "lower_order_final": True,
            "num_train_timesteps": 1000,
            "prediction_type": "epsilon",
            "rho": 7.0,
            "sigma_data": 0.5,
            "sigma_max": 80.0,
            "sigma_min": 0.002,
            "solver_order": 2,
            "solver_type": "midpoint",
        },
    ),
    "edm euler": ("sdxl", "EDMEulerScheduler", "0.27.0", {"sigma_data": 0.5, "sigma_max": 80.0}),
    "continuous euler with karras": (
        "sd21",
        EULER,
        "0.24.0.dev0",
        {
            **SD,
            "prediction_type": "v_prediction",
            "sigma_max": 700.0,
            "sigma_min": 0.002,
            "timestep_spacing": "leading",
            "timestep_type": "continuous",
            "use_karras_sigmas": True,
            "steps_offset": 1,
        },
    ),
    "euler without steps_offset": ("sd15", EULER, "0.6.0", SCALED),
    "euler a without steps_offset": ("sd15", "EulerAncestralDiscreteScheduler", "0.6.0", SCALED),
    "unipc without steps_offset": ("sd15", "UniPCMultistepScheduler", "0.13.0", SCALED),
    "dpm++ without steps_offset": ("sd15", DPM, "0.11.0", {**DPM_KEYS}),
    "pixart": (
        "pixart-sigma",
        DPM,
        "0.22.0.dev0",
        {
            **DPM_KEYS,
            "beta_start": 0.0001,
            "beta_end": 0.02,
            "beta_schedule": "linear",
            "lambda_min_clipped": -float("inf"),
            "prediction_type": "epsilon",
            "timestep_spacing": "linspace",
            "steps_offset": 0,
            "variance_type": None,
        },
    ),
    "lcm": (
        "lcm",
        "LCMScheduler",
        "0.22.0.dev0",
        {
            **SD,
            "clip_sample": False,
            "original_inference_steps": 50,
            "set_alpha_to_one": True,
            "steps_offset": 1,
        },
    ),
    "tcd": ("sdxl", "TCDScheduler", "0.27.0", {**SD, "steps_offset": 1, "clip_sample": False}),
    "sd-3": ("sd3", FLOW_EULER, "0.29.0.dev0", {**FLOW, "shift": 3.0}),
    "sd-3.5": (
        "sd3",
        FLOW_EULER,
        "0.31.0.dev0",
        {**DYNAMIC, "shift": 3.0, "use_dynamic_shifting": False},
    ),
    "flux-dev": ("flux", FLOW_EULER, "0.30.0.dev0", {**DYNAMIC, "shift": 3.0}),
    "flux-schnell": (
        "flux",
        FLOW_EULER,
        "0.30.0.dev0",
        {**DYNAMIC, "shift": 1.0, "use_dynamic_shifting": False},
    ),
    "krea": (
        "flux",
        FLOW_EULER,
        "0.35.0.dev0",
        {**DYNAMIC, "shift": 3.0, "stochastic_sampling": False, "time_shift_type": "exponential"},
    ),
    "qwen-image": (
        "qwen-image",
        FLOW_EULER,
        "0.34.0.dev0",
        {
            **DYNAMIC,
            "max_image_seq_len": 8192,
            "max_shift": 0.9,
            "shift": 1.0,
            "shift_terminal": 0.02,
        },
    ),
    "z-image": (
        "z-image",
        FLOW_EULER,
        "0.36.0.dev0",
        {**FLOW, "shift": 6.0, "use_dynamic_shifting": False},
    ),
    "z-image-turbo": ("z-image", FLOW_EULER, "0.36.0.dev0", {**FLOW, "shift": 3.0}),
    "stochastic flow": (
        "sd3",
        FLOW_EULER,
        "0.34.0",
        {**FLOW, "shift": 3.0, "stochastic_sampling": True},
    ),
    "flow lcm": ("sd3", "FlowMatchLCMScheduler", "0.36.0", {**FLOW, "shift": 3.0}),
    "flow heun": ("sd3", "FlowMatchHeunDiscreteScheduler", "0.29.0", {**FLOW, "shift": 3.0}),
    "sana": (
        "sana",
        DPM,
        "0.32.0.dev0",
        {
            **DPM_KEYS,
            "flow_shift": 3.0,
            "prediction_type": "flow_prediction",
            "use_flow_sigmas": True,
        },
    ),
    "unipc of a flow": (
        "sana",
        "UniPCMultistepScheduler",
        "0.33.0",
        {**SD, "flow_shift": 5.0, "prediction_type": "flow_prediction", "use_flow_sigmas": True},
    ),
    "kdpm2 ancestral": (
        "sd15",
        "KDPM2AncestralDiscreteScheduler",
        "0.15.0",
        {**SCALED, "steps_offset": 1},
    ),
    "lms with unknown keys": (
        "sd15",
        "LMSDiscreteScheduler",
        "0.4.0",
        {**SCALED, "tensor_format": "pt", "a_key_of_nobody": 3},
    ),
    "of a later version": (
        "sd15",
        "DDIMScheduler",
        "0.99.0",
        {**SD, "clip_sample": False, "steps_offset": 1},
    ),
    "ipndm": ("sd15", "IPNDMScheduler", "0.15.0", {"num_train_timesteps": 1000}),
}


def folder_of(name: str, where: Path) -> Path:
    """A tiny pipeline's folder with another scheduler's file."""
    family, cls, version, config = CONFIGURATIONS[name]
    folder = where / "model"
    shutil.copytree(family_folder(family), folder)
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({"_class_name": cls, "_diffusers_version": version, **config}))
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", cls]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_iid_is_the_bare_pipeline_bit_for_bit(name: str, tmp_path: Path) -> None:
    family = CONFIGURATIONS[name][0]
    folder, steps = folder_of(name, tmp_path), 6
    suite = Suite(
        model=str(folder), steps=steps, size=family_side(family), guidance_scale=2.0, device="cpu"
    )
    setup = Setup(suite, load_model(str(folder), device="cpu")).with_scheduler()
    rows, _ = setup.draw(["a red dress"], [0], 2, Iid())
    cls = (
        diffusers.DiffusionPipeline if family != "lcm" else diffusers.LatentConsistencyModelPipeline
    )
    bare = cls.from_pretrained(folder)
    bare.set_progress_bar_config(disable=True)
    generator = particle_generators(0, "a red dress", 2)
    if name in ("stochastic flow", "flow lcm"):  # SD 3 passes no generator to its solver's steps
        inner = bare.scheduler.step
        bare.scheduler.step = lambda *args, **kwargs: inner(*args, **kwargs, generator=generator)
    call = setup.call_arguments(1)
    images = bare(["a red dress"], num_images_per_prompt=2, generator=generator, **call).images
    for drawn, expected in zip(rows[0], images, strict=True):
        assert np.array_equal(np.asarray(drawn), np.asarray(expected))


@pytest.mark.parametrize("name", ["playground-2.5", "edm euler", "ipndm", "sana", "lcm"])
@pytest.mark.parametrize("other", ["euler", "ddim", "flow-euler", "dpmpp-2m", "scm", "edm-euler"])
def test_another_solver_fits_the_model_or_is_refused_with_what_it_takes(
    name: str, other: str, tmp_path: Path
) -> None:
    pipe = load_model(str(folder_of(name, tmp_path)), device="cpu").pipe
    before = pipe.scheduler
    takes = {
        "playground-2.5": ("edm-euler",),
        "edm euler": ("edm-euler",),
        "ipndm": (),
        "sana": ("flow-euler", "dpmpp-2m"),
        "lcm": ("euler", "ddim", "dpmpp-2m"),
    }
    if other in takes[name]:
        set_scheduler(pipe, other, {})
        return
    with pytest.raises(SchedulerError, match=r"Use one of: .*default"):
        set_scheduler(pipe, other, {})
    assert pipe.scheduler is before


@pytest.mark.parametrize("name", ["sd-1.5 without steps_offset", "ddim before clip_sample"])
def test_what_a_pipeline_corrects_on_loading_is_carried_to_another_solver(
    name: str, tmp_path: Path
) -> None:
    pipe = load_model(str(folder_of(name, tmp_path)), device="cpu").pipe
    own = dict(pipe.scheduler.config)
    assert own["steps_offset"] == 1
    for other in ("ddim", "euler", "dpmpp-2m", "unipc", "pndm", "ddpm"):
        set_scheduler(pipe, other, {})
        config = pipe.scheduler.config
        assert config["steps_offset"] == 1
        assert {key: config[key] for key in SCALED} == SCALED
        assert not config.get("clip_sample", False)
