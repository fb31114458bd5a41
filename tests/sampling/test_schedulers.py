"""Schedulers by name, swapped in from a pipeline's configuration."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import pytest

from eddy_bench.errors import EddyError, ParameterError, SchedulerError, UnknownName
from eddy_bench.models.exact import ExactPipeline
from eddy_bench.sampling.scheduler_table import SCHEDULERS
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.sampling.solver_view import check_stochastic, view_of
from tests.makers.solvers import NOISE, draw, make_pipeline


class Pipe:
    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if not name.startswith("flow")])
def test_every_scheduler_draws_from_a_noise_model(name: str) -> None:
    pipe = make_pipeline("ddim")
    before = dict(pipe.scheduler.config)
    call = set_scheduler(pipe, name, {})
    assert type(pipe.scheduler).__name__ == SCHEDULERS[name].class_name
    assert pipe.scheduler.config.beta_schedule == before["beta_schedule"]
    assert draw(pipe, **call).isfinite().all()


@pytest.mark.parametrize("name", ["flow-euler", "flow-heun", "unipc", "dpmpp-2m"])
def test_flow_models_take_only_schedulers_of_flows(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        ExactPipeline, "any_prediction", False
    )  # as pipelines with a trained network
    pipe = make_pipeline("flow-euler")
    set_scheduler(pipe, name, {})
    assert draw(pipe).isfinite().all()
    with pytest.raises(SchedulerError, match="cannot take"):
        set_scheduler(make_pipeline("flow-euler"), "ddim", {})
    with pytest.raises(SchedulerError, match="cannot take"):
        set_scheduler(make_pipeline("ddim"), "flow-euler", {})


def test_a_flow_model_keeps_its_own_scheduler_and_shift() -> None:
    own = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    pipe = Pipe(own)
    set_scheduler(pipe, "default", {})
    assert pipe.scheduler.config.flow_shift == 3.0
    set_scheduler(pipe, "unipc", {})
    assert pipe.scheduler.config.flow_shift == 3.0


def test_clipping_is_never_switched_on_silently() -> None:
    for name in ("ddim", "ddpm"):
        pipe = Pipe(diffusers.EulerDiscreteScheduler(**NOISE))
        set_scheduler(pipe, name, {})
        assert not pipe.scheduler.config.clip_sample


def test_scheduler_parameters_are_set_and_bad_ones_are_refused() -> None:
    pipe = make_pipeline("ddim")
    assert set_scheduler(pipe, "ddim", {"eta": "0.5", "timestep_spacing": "trailing"}) == {
        "eta": 0.5
    }
    assert pipe.scheduler.config.timestep_spacing == "trailing"
    set_scheduler(pipe, "euler", {"use_karras_sigmas": "true"})
    assert pipe.scheduler.config.use_karras_sigmas is True
    wrong: list[tuple[str, dict[str, str], type[EddyError]]] = [
        ("nothing", {}, UnknownName),
        ("ddim", {"eta": "2"}, ParameterError),
        ("ddim", {"x": "1"}, ParameterError),
        ("euler", {"eta": "1"}, ParameterError),
        ("euler", {"use_karras_sigmas": "perhaps"}, ParameterError),
    ]
    for name, parameters, error in wrong:
        with pytest.raises(error):
            set_scheduler(pipe, name, parameters)


EMPTY = [
    (name, key, parameter.annotation)
    for name, row in SCHEDULERS.items()
    for key, parameter in inspect.signature(getattr(diffusers, row.class_name)).parameters.items()
    if parameter.default is None
]


@pytest.mark.parametrize(("name", "key", "annotation"), EMPTY)
def test_a_key_without_a_default_is_what_its_class_takes(
    name: str, key: str, annotation: Any
) -> None:
    """A number from the command line is a number, and what is none of its kind is refused."""
    pipe = make_pipeline("flow-euler" if name.startswith("flow") else "ddim")
    number = any(word in str(annotation) for word in ("float", "bool")) and "list" not in str(
        annotation
    )
    flow = {}
    if (name, key) == ("unipc", "shift_terminal"):  # of flows alone
        flow = {"use_flow_sigmas": "true", "prediction_type": "flow_prediction"}
    text = "Literal" in str(annotation) or "str" in str(annotation)
    if number:
        for given, expected in (("0.25", 0.25), ("1", 1.0), ("none", None), (0.25, 0.25)):
            set_scheduler(pipe, name, {key: given, **flow})
            value = pipe.scheduler.config[key]
            assert value == expected
            assert not isinstance(value, str)
    elif text:
        set_scheduler(pipe, name, {key: "none"})
        set_scheduler(pipe, name, {key: "learned"})
        assert pipe.scheduler.config[key] == "learned"
        return
    for wrong in ("perhaps", *(() if number else ("0.25",))):
        with pytest.raises(ParameterError, match=f"Parameter {key!r} of scheduler {name!r}"):
            set_scheduler(pipe, name, {key: wrong})


def test_a_number_without_a_default_reaches_the_solver() -> None:
    pipe = make_pipeline("ddim")
    set_scheduler(pipe, "euler", {"use_karras_sigmas": "true", "sigma_min": "0.5"})
    pipe.scheduler.set_timesteps(4)
    assert float(pipe.scheduler.sigmas[-2]) == pytest.approx(0.5)
    flow = make_pipeline("flow-euler")
    set_scheduler(flow, "flow-euler", {"shift_terminal": "0.1"})
    assert draw(flow).isfinite().all()
    assert float(flow.scheduler.sigmas[-2]) == pytest.approx(0.1)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_both_kinds_of_sde_dpm_solver_have_their_own_gain() -> None:
    for kind in ("sde-dpmsolver", "sde-dpmsolver++"):
        scheduler = diffusers.DPMSolverMultistepScheduler(
            **NOISE, algorithm_type=kind, final_sigmas_type="sigma_min"
        )
        scheduler.set_timesteps(10)
        gain = view_of(scheduler).gain(2)
        assert gain == 2.0 if kind == "sde-dpmsolver" else 1 < gain < 2


@pytest.mark.parametrize("name", ["unipc", "euler", "ddim"])
def test_an_algorithm_of_another_class_is_not_taken_over(name: str) -> None:
    """`from_config` carries `algorithm_type` along; a solver without noise stays one."""
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    own = diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", **config)
    pipe = Pipe(own)
    set_scheduler(pipe, name, {})
    pipe.scheduler.set_timesteps(5)
    assert view_of(pipe.scheduler).gain(1) == 1.0
    with pytest.raises(SchedulerError, match="stochastic solver only"):
        check_stochastic(pipe.scheduler, 0.0)
