"""How far a solver's step moves is what the table says, by its class and its configuration."""

from __future__ import annotations

import inspect
import itertools
from typing import Any

import diffusers
import pytest
import torch

from eddy_bench.errors import SchedulerError
from eddy_bench.sampling.scheduler_table import ROWS
from eddy_bench.sampling.solver_view import check_scheduler, check_stochastic, view_of

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
KINDS = ("epsilon", "v_prediction", "sample")
Case = tuple[str, dict[str, Any], dict[str, float]]


def _by_kind(name: str, config: dict[str, Any], given: dict[str, float]) -> list[Case]:
    """A case for each prediction that a class takes."""
    kinds = KINDS[:2] if name in NO_SAMPLE else KINDS
    return [(name, {**config, "prediction_type": kind}, given) for kind in kinds]


NO_SAMPLE = (
    "PNDMScheduler",
    "EulerAncestralDiscreteScheduler",
    "EDMEulerScheduler",
    "EDMDPMSolverMultistepScheduler",
)
ONE = {"solver_order": 1}
CASES: list[Case] = [
    *_by_kind("DDIMScheduler", {**NOISE, "clip_sample": False}, {}),
    *_by_kind("DDIMScheduler", {**NOISE, "clip_sample": False}, {"eta": 0.5}),
    *_by_kind("DDIMScheduler", {**NOISE, "clip_sample": False}, {"eta": 1.0}),
    *_by_kind("DDPMScheduler", {**NOISE, "clip_sample": False}, {}),
    *_by_kind("EulerDiscreteScheduler", NOISE, {}),
    *_by_kind("EulerDiscreteScheduler", {**NOISE, "use_karras_sigmas": True}, {}),
    *_by_kind("EulerDiscreteScheduler", NOISE, {"s_churn": 2.0})[:2],
    *_by_kind("EulerAncestralDiscreteScheduler", NOISE, {}),
    *_by_kind("HeunDiscreteScheduler", NOISE, {}),
    *_by_kind("LMSDiscreteScheduler", NOISE, {}),
    *_by_kind("KDPM2DiscreteScheduler", NOISE, {})[:2],
    *_by_kind("LCMScheduler", NOISE, {}),
    *_by_kind("TCDScheduler", NOISE, {"eta": 0.0}),
    *_by_kind("TCDScheduler", NOISE, {"eta": 0.3}),
    *_by_kind("UniPCMultistepScheduler", NOISE, {}),
    *_by_kind("DEISMultistepScheduler", NOISE, {}),
    *_by_kind("SASolverScheduler", {**NOISE, "predictor_order": 1, "corrector_order": 1}, {}),
    *_by_kind("EDMEulerScheduler", {}, {}),
    *_by_kind("EDMEulerScheduler", {"sigma_data": 0.7}, {"s_churn": 2.0}),
    *_by_kind("EDMDPMSolverMultistepScheduler", ONE, {}),
    *_by_kind("EDMDPMSolverMultistepScheduler", {**ONE, "algorithm_type": "sde-dpmsolver++"}, {}),
    *[
        case
        for cls, kind in itertools.product(
            ("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"),
            ("dpmsolver++", "sde-dpmsolver++"),
        )
        for case in _by_kind(cls, {**NOISE, **ONE, "algorithm_type": kind}, {})
    ],
    *_by_kind(
        "DPMSolverMultistepScheduler",
        {**NOISE, **ONE, "algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min"},
        {},
    ),
    ("PNDMScheduler", {**NOISE, "skip_prk_steps": True}, {}),
    ("DPMSolverMultistepScheduler", {**NOISE, **ONE, **FLOW}, {}),
    (
        "DPMSolverMultistepScheduler",
        {**NOISE, **ONE, **FLOW, "algorithm_type": "sde-dpmsolver++"},
        {},
    ),
    ("UniPCMultistepScheduler", {**NOISE, **FLOW, "flow_shift": 3.0}, {}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, {}),
    ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, {}),
    ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True, "shift": 5.0}, {}),
    ("FlowMatchHeunDiscreteScheduler", {}, {}),
    ("FlowMatchLCMScheduler", {}, {}),
    ("SCMScheduler", {}, {}),
]


def made(case: Case, steps: int = 8) -> Any:
    name, config, _ = case
    scheduler = getattr(diffusers, name)(**config)
    settings = {"intermediate_timesteps": None} if name == "SCMScheduler" else {}
    scheduler.set_timesteps(steps, **settings)
    return scheduler


def stepped(case: Case, index: int, edited: bool) -> torch.Tensor:
    """What one step from an index gives, with or without Delta = 1 in the output."""
    scheduler = made(case)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(index)
    timestep, given = scheduler.timesteps[index], case[2]
    generator = torch.Generator().manual_seed(index)
    sample = torch.randn(4, 3, 2, 2, generator=generator, dtype=torch.float64)
    output = torch.randn(4, 3, 2, 2, generator=generator, dtype=torch.float64)
    if hasattr(scheduler, "scale_model_input"):
        scheduler.scale_model_input(sample, timestep)
    view = view_of(scheduler)
    coordinates = view.at(index, given.get("eta", 0.0), churn(scheduler, given))
    if edited:
        delta = torch.ones_like(output) / coordinates.gain
        output = coordinates.edit(output, delta)
    takes = inspect.signature(scheduler.step).parameters
    extra = {"generator": torch.Generator().manual_seed(1)} if "generator" in takes else {}
    torch.manual_seed(1)
    result = scheduler.step(output, timestep, sample, return_dict=False, **given, **extra)[0]
    alpha = 1.0 if view.scaled else view.levels_after(index)[0]
    return result.double() / coordinates.unit / alpha


def churn(scheduler: Any, given: dict[str, float]) -> float:
    return (
        min(given.get("s_churn", 0.0) / (len(scheduler.sigmas) - 1), 2**0.5 - 1)
        if given.get("s_churn")
        else 0.0
    )


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}{case[1:]}"[:90])
def test_a_step_moves_as_a_deterministic_one_whatever_noise_it_draws(case: Case) -> None:
    """Delta / gain in the output moves xb by (sigma - sigma_next), measured by a difference."""
    later = 0 if "LMS" in case[0] else 3  # LMS has the gain of one step without a history
    for index in {0, later}:
        view = view_of(made(case))
        expected = view.sigma(index) - view.sigma_next(index)
        if case[0] == "FlowMatchLCMScheduler" or view.at(index).pure_noise:
            tolerance = 5e-3  # tables are float32, and alpha = 0 is a limit
        else:
            tolerance = 1e-3
        moved = stepped(case, index, edited=True) - stepped(case, index, edited=False)
        assert torch.allclose(moved, torch.full_like(moved, expected), rtol=tolerance), (
            float(moved.mean()) / expected
        )


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}{case[1:]}"[:90])
def test_noise_is_known_where_it_is_drawn(case: Case) -> None:
    """Two seeds part where `check_stochastic` lets noise be coupled, and nowhere else."""
    name, _, given = case
    if "s_churn" in given:
        pytest.skip("churn is an argument of the step, which no pipeline passes")
    results = []
    for seed in (1, 2):
        scheduler = made(case)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(2)
        sample, output = torch.ones(2, 3, 2, 2), torch.ones(2, 3, 2, 2)
        scheduler.scale_model_input(sample, scheduler.timesteps[2]) if hasattr(
            scheduler, "scale_model_input"
        ) else None
        takes = inspect.signature(scheduler.step).parameters
        extra = {"generator": torch.Generator().manual_seed(seed)} if "generator" in takes else {}
        torch.manual_seed(seed)
        results.append(scheduler.step(output, scheduler.timesteps[2], sample, **given, **extra)[0])
    drawn = not torch.equal(*results)
    try:
        check_stochastic(made(case), given.get("eta", 0.0), 8)
        known = True
    except SchedulerError:
        known = False
    assert drawn == known, name


def test_every_row_has_a_case() -> None:
    assert {row.class_name for row in ROWS} == {name for name, _, _ in CASES}


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_every_scheduler_of_diffusers_is_a_row_or_refuses_guidance() -> None:
    known = {row.class_name for row in ROWS}
    names = [name for name in dir(diffusers) if name.endswith("Scheduler")]
    assert len(names) > 40
    for name in set(names) - known:
        cls = getattr(diffusers, name)
        scheduler = cls.__new__(cls)  # some need a package that is not here
        with pytest.raises(SchedulerError, match=f"got {name}"):
            check_scheduler(scheduler)
