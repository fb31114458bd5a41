"""What only a call of the pipeline settles is refused before anything is drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eddy_bench.errors import ParameterError
from eddy_bench.experiment.plan import check_beginning, make_plan
from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.restart import Restart
from eddy_bench.sampling.families import denoiser
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.prompts import prompts_of_texts
from eddy_bench.suites.suite import Suite
from tests.conftest import Result
from tests.makers.families import family_model, family_side

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
PROMPTS = prompts_of_texts(["a red dress", "a blue coat"])


@pytest.mark.parametrize("command", [(), ("--dry-run",)])
def test_levels_that_the_solver_does_not_have_are_one_line(
    cli: Callable[..., Result], tmp_path: Path, command: tuple[str, ...]
) -> None:
    done = cli(
        *("run", "--method", "iid", "--method", "restart:low=30,high=40", "--steps", "10"),
        *("--limit", "3", "--out", tmp_path / "r", *command),
    )
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "Error: restart: Expected low=30 and high=40 at different noise levels of the solver, "
        "whose 10 go from 0.342 to 14.6. Raise the steps, lower low or raise high.\n"
    )
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("family", ["sd3", "qwen-image"])
def test_levels_are_those_of_the_pipeline_s_own_call(family: str) -> None:
    """Flow models shift their levels by the size of the image; no network is evaluated."""
    model = family_model(family)
    methods = [MethodSpec.parse("restart:low=0.01,high=100000")]
    suite = Suite(steps=3, size=family_side(family), guidance_scale=3.0, particles=2)
    setup = Setup(suite.model_copy(update={"methods": methods}), model, PROMPTS)
    evaluated: list[int] = []
    handle = denoiser(model.pipe).register_forward_hook(lambda *inputs: evaluated.append(1))
    try:
        assert make_plan(setup).methods[0].method == Restart(low=0.01, high=1e5)
        with pytest.raises(ParameterError, match=r"whose 3 go from \d"):
            check_beginning(setup, Restart(low=1e-6, high=1e-5))
    finally:
        handle.remove()
    assert not evaluated


def test_images_are_those_without_a_rehearsal() -> None:
    suite = Suite(steps=3, particles=2, scheduler=MethodSpec(name="ddim"))
    setup, method = Setup(suite, family_model("sd15"), PROMPTS), Restart(low=0.01, high=1e5)
    setup.with_scheduler()
    before = setup.draw(["a red dress"], [0], 2, method)[0]
    check_beginning(setup, method)
    after = setup.draw(["a red dress"], [0], 2, method)[0]
    for one, other in zip(before[0], after[0], strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))
