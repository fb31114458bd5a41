"""Another model than the suite's is drawn with its pipeline's own settings, and they are shown."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eddy_bench.errors import ParameterError
from eddy_bench.experiment.setup import Setup
from eddy_bench.models.defaults import draws_with_its_own, own_size
from eddy_bench.models.embedded import EMBEDDED
from eddy_bench.sampling.schedulers import scheduler_text
from eddy_bench.storage.run_folder import read_run
from eddy_bench.suites.suite import Suite, load_suite, suite_names
from tests.conftest import Result
from tests.makers.families import FAMILIES, family_folder, family_model

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
Cli = Callable[..., Result]
GARMENTS = [
    name for name in suite_names() if load_suite(name, {"methods": ["iid"]}).model in EMBEDDED
]


def own_defaults(family: str) -> dict[str, Any]:
    call = inspect.signature(type(family_model(family).pipe).__call__).parameters
    return {name: parameter.default for name, parameter in call.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_suite_leaves_out_is_the_pipeline_s_own(family: str) -> None:
    """Steps and guidance as its call has them, the latter under its own name; no size is given."""
    setup, defaults = Setup(Suite(), family_model(family)), own_defaults(family)
    given = setup.call_arguments(1)
    assert given["num_inference_steps"] == defaults["num_inference_steps"]
    scale = "true_cfg_scale" if family == "qwen-image" else "guidance_scale"
    assert given[scale] == defaults[scale] == setup.guidance_scale
    assert not {"height", "width"} & given.keys()
    assert setup.settings.steps == setup.steps == defaults["num_inference_steps"]
    asked = Setup(Suite(steps=3, guidance_scale=2.0), family_model(family)).call_arguments(1)
    assert (asked["num_inference_steps"], asked[scale]) == (3, 2.0)


WITHOUT_A_SIZE = ("z-image",)  # written in the middle of its call
# The nearest of the sizes of real models, which tiny ones are far below
BINNED = ("sana", "hunyuan-dit")


class Seen(Exception):
    """The size that a pipeline prepares its latents for."""


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in BINNED])
def test_the_size_that_is_shown_is_the_one_that_is_drawn(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = family_model(family).pipe
    names = list(inspect.signature(pipe.prepare_latents).parameters)

    def prepare(*args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        raise Seen((given["height"], given["width"]))

    monkeypatch.setattr(pipe, "prepare_latents", prepare)
    arguments = Setup(Suite(steps=2), family_model(family)).call_arguments(1)
    with pytest.raises(Seen) as seen:
        pipe(prompt=["a dress"], **arguments)
    assert own_size(pipe) in (None, seen.value.args[0][0])
    assert own_size(pipe) is not None or family in WITHOUT_A_SIZE


@pytest.mark.parametrize("suite", [None, *GARMENTS])
def test_a_garments_suite_gives_its_settings_to_no_other_model(
    suite: str | None, cli: Cli, tmp_path: Path
) -> None:
    """Prompts, seeds and N are the suite's; what belongs to a model is not."""
    prompts = tmp_path / "p.txt"
    prompts.write_text("a red hat\na cat\n")
    folder = family_folder("sd21")
    call = ("run", *([suite] if suite else []), "--model", folder, "--prompts", prompts)
    done = cli(*call, "--method", "iid", "--out", tmp_path / "out", "--dry-run")
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert "guidance 7.5, 50 steps, 64 pixels, DDIMScheduler(default), float32" in said
    given = cli(*call, "--method", "iid", "--steps", "7", "--out", tmp_path / "out", "--dry-run")
    assert "guidance 7.5, 7 steps" in " ".join(given.out.split())


def test_embedded_models_and_tasks_bring_their_own(cli: Cli, tmp_path: Path) -> None:
    expected = {
        "fashion": "guidance 4, 20 steps, 32 pixels",
        "fashion-4step": "guidance 1, 4 steps, 32 pixels",
        "exact:ring8": "guidance 1, 20 steps, the model's own size",
    }
    for model, text in expected.items():
        for suite in ((), ("grid",)):
            call = ("run", *suite, "--model", model, "--method", "iid", "--limit", "2")
            done = cli(*call, "--out", tmp_path / "out", "--dry-run")
            assert text in " ".join(done.out.split()), (model, suite, done.out)


def test_a_copy_of_a_suite_s_model_keeps_its_settings() -> None:
    """A folder may be a copy of a hub id; nothing is one of an embedded model or a task."""
    hub = "stabilityai/stable-diffusion-3-medium-diffusers"
    assert not draws_with_its_own("./my-sd3", hub)
    assert not draws_with_its_own("fashion", "fashion")
    for model, suite in (("./mine", "fashion"), ("exact:ring8", "fashion"), ("fashion", hub)):
        assert draws_with_its_own(model, suite)


def test_the_shift_of_a_flow_is_shown() -> None:
    texts = {
        name: scheduler_text(family_model(name).pipe.scheduler, "default")
        for name in ("sd3", "sana", "flux", "sd15")
    }
    assert texts["sd3"] == "FlowMatchEulerDiscreteScheduler(default, shift 3)"
    assert texts["sana"] == "DPMSolverMultistepScheduler(default, shift 3)"
    assert "shift 0.5..1.15 by size" in texts["flux"]
    assert texts["sd15"] == "PNDMScheduler(default)"


def test_the_table_the_page_and_the_plan_show_what_is_drawn_with(cli: Cli, tmp_path: Path) -> None:
    call = ("run", "--limit", "2", "--steps", "3", "--method", "iid", "--out", tmp_path / "run")
    line = "fashion: guidance 4, 3 steps, 32 pixels, DDIMScheduler(default), float32"
    for done in (cli(*call, "--dry-run"), cli(*call), cli("score", tmp_path / "run")):
        assert line in " ".join(done.out.split()), done.out + done.err
    assert read_run(tmp_path / "run").settings.described() == line
    done = cli("report", tmp_path / "run")
    assert done.code == 0, done.err
    assert line in (tmp_path / "run" / "report.html").read_text()
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())


def test_a_pipeline_without_a_number_of_steps_wants_one() -> None:
    class Pipe:
        scheduler = family_model("sd15").pipe.scheduler

        def __call__(self, prompt: str, num_inference_steps: int | None = None) -> None: ...

    model: Any = type("Model", (), {"name": "mine", "pipe": Pipe()})
    with pytest.raises(ParameterError, match=r"Pipe has no number of steps.*Give --steps"):
        _ = Setup(Suite(), model).steps
    assert Setup(Suite(steps=4), model).steps == 4
    assert Setup(Suite(), model).guidance_scale == 1
