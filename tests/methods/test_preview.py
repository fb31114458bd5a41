"""Selection after the first steps: what is kept ends as if drawn alone, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from eddy_bench.errors import ModelError, ParameterError
from eddy_bench.experiment.batches import Batch, draw_batch
from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.best_of_m import BestOfM
from eddy_bench.methods.iid import Iid
from eddy_bench.models.base import Model
from eddy_bench.models.load import load_model
from eddy_bench.sampling.noise import particle_generators
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.suites.suite import Suite
from tests.conftest import Result
from tests.makers.families import FAMILIES, family_model, family_side
from tests.makers.groups import make_group

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
STEPS = 4
PROMPTS, SEEDS = ["a dark dress", "a sandal"], [0, 3]


class Slots(BestOfM):
    """Keep the slots that are named, whatever they look like."""

    kept: tuple[int, ...] = ()

    def choose(self, features: torch.Tensor, count: int, generator: torch.Generator) -> list[int]:
        self.seen.append(features)
        return list(self.kept)


def slots(*kept: int, m: int = 6, preview: int | None = 2) -> Slots:
    method = Slots(m=m, preview=preview)
    object.__setattr__(method, "kept", kept)
    object.__setattr__(method, "seen", [])
    return method


def draw(model: Model, method: Any, particles: int = 2, **arguments: Any) -> Any:
    call = {"num_inference_steps": STEPS, "guidance_scale": 2.0, "output_type": "np"}
    return model.draw(PROMPTS, SEEDS, particles, method, {**call, **arguments})


def alone(model: Model, kept: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Draw the particles of these streams as if they were the first ones, without a method."""
    import eddy_bench.models.base as drawing

    def chosen(seed: int, prompt: str, count: int) -> list[torch.Generator]:
        streams = particle_generators(seed, prompt, max(kept) + 1)
        return [streams[slot] for slot in kept]

    with monkeypatch.context() as patch:
        patch.setattr(drawing, "particle_generators", chosen)
        return draw(model, Iid())


@pytest.fixture(scope="module")
def fashion() -> Model:
    return load_model("fashion", device="cpu")


@pytest.mark.parametrize("solver", ["ddim", "ddim:eta=1", "dpmpp-2m", "heun"])
def test_chosen_particles_end_as_if_drawn_alone(
    fashion: Model, solver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _, parameter = solver.partition(":")
    fashion.call = set_scheduler(
        fashion.pipe, name, dict([parameter.split("=")]) if parameter else {}
    )
    images, _ = draw(fashion, slots(1, 4))
    expected, _ = alone(fashion, (1, 4), monkeypatch)
    assert np.array_equal(np.stack(images), np.stack(expected))
    whole, _ = draw(fashion, slots(1, 4, preview=None), output_type="pil")
    levels = np.array([[np.asarray(image) for image in group] for group in whole]) / 255
    assert np.abs(np.stack(images)[..., 0] - levels).max() < 0.01  # other rows share the batch
    fashion.call = {}
    set_scheduler(fashion.pipe, "ddim", {})


@pytest.mark.parametrize("preview", [2, None])
def test_features_that_are_no_numbers_are_named(
    fashion: Model, preview: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fashion.guide is not None
    guide = fashion.guide
    monkeypatch.setattr(fashion, "guide", lambda images: guide(images) * torch.nan)
    method = BestOfM(m=4, fair=True, preview=preview)
    with pytest.raises(ModelError, match="features are not finite, so best-of-m cannot choose"):
        draw(fashion, method, output_type="pil")


def test_memory_that_runs_out_in_a_preview_names_the_dial(
    fashion: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(fashion.pipe.unet, "forward", refuse)
    setup = Setup(Suite(methods=["iid"], steps=STEPS, batch_prompts=1), fashion)  # type: ignore[list-item]
    batch = Batch((make_group(method="best-of-m", particles=2),), 1)
    (result,) = draw_batch(setup, BestOfM(m=4, preview=2), batch)
    assert result.images is None
    assert result.reason.endswith("a smaller --size, fewer --particles or a lower m.")
    (result,) = draw_batch(setup, Iid(), batch)
    assert result.reason.endswith("a smaller --size, fewer --particles.")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_previewed(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = family_model(family)
    setup = Setup(Suite(steps=STEPS, size=family_side(family), guidance_scale=2.0), model)
    arguments = {**setup.call_arguments(1), "output_type": "np"}
    method = slots(0, 2, m=3)
    images, cost = model.draw(PROMPTS[:1], SEEDS[:1], 2, method, arguments)
    expected, plain = model.draw(PROMPTS[:1], SEEDS[:1], 2, Iid(), arguments)
    assert np.array_equal(images[0][0], expected[0][0])
    assert cost.nfe - plain.nfe in (2 * 3 / 2, 2 * 2 * 3 / 2)  # of one branch or two
    assert [len(features) for features in method.seen] == [3]


def test_what_a_preview_costs(fashion: Model) -> None:
    """k M + T N evaluations of both branches, M decoded and judged, of N images in each group."""
    method = slots(0, 1)
    images, cost = draw(fashion, method)
    assert [len(group) for group in images] == [2, 2]
    assert cost.nfe == 2 * (2 * 6 + STEPS * 2) / 2
    assert cost.decoder_calls == cost.feature_forwards == 6 / 2
    assert cost.feature_backwards == 0
    last, _ = draw(fashion, slots(0, 1, preview=STEPS))
    assert np.array_equal(np.stack(images), np.stack(last))


def test_a_preview_sees_what_the_images_become(fashion: Model) -> None:
    """Estimates after more steps are nearer to the features of the finished images."""
    finished, near = slots(0, 1, preview=None), []
    draw(fashion, finished, output_type="pil")
    for steps in (1, 3, STEPS):
        method = slots(0, 1, preview=steps)
        draw(fashion, method)
        likeness = torch.cosine_similarity(torch.cat(method.seen), torch.cat(finished.seen))
        near.append(float(likeness.mean()))
    assert near == sorted(near)
    assert near[-1] > 0.95


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("best-of-m:m=8,preview=0", "greater than or equal to 1"),
        ("best-of-m:m=8,preview=5", "at most the 4 steps, got 5"),
        ("best-of-m:preview=2", "Expected m beside preview"),
        ("best-of-m:m=6,fair=true,preview=2", "multiple of the 4 particles"),
    ],
)
def test_previews_that_cannot_be_are_refused(
    text: str, expected: str, cli: Callable[..., Result], tmp_path: Path
) -> None:
    done = cli("run", "--steps", STEPS, "--method", text, "--out", tmp_path / "run")
    assert done.code == 2
    assert expected in done.err
    assert not (tmp_path / "run").exists()


def test_a_preview_longer_than_the_call(fashion: Model) -> None:
    with pytest.raises(ParameterError, match="at most as many steps as are drawn, got 9"):
        draw(fashion, slots(0, 1, preview=9))
    draw(fashion, Iid())  # the pipeline is as it was


def test_a_run_with_previews_resumes(cli: Callable[..., Result], tmp_path: Path) -> None:
    call = ["run", "--limit", "2", "--steps", "4", "--particles", "2", "--metric", "vendi"]
    call += ["--method", "best-of-m:m=4,fair=true,preview=1", "--method", "iid"]
    call += ["--out", str(tmp_path / "run")]
    assert cli(*call).code == 0
    again = cli(*call)
    assert "Nothing to draw" in again.out + again.err
    scores = pd.read_csv(tmp_path / "run" / "scores.csv")
    scores = scores.assign(method=scores["method"].str.partition(":")[0])
    nfe = scores[scores["metric"] == "nfe"].groupby("method")["value"].mean()
    assert nfe["best-of-m"] / nfe["iid"] == 1 + 4 / (4 * 2)


@pytest.mark.slow
def test_the_audit_of_previews(cli: Callable[..., Result], tmp_path: Path) -> None:
    """Fair selection keeps the law at every preview, the most different ones do not."""
    call = ["audit", "--task", "anisotropic", "--scheduler", "ddim", "--steps", "20,25,30"]
    call += ["--particles", "4", "--groups", "2000", "--out", str(tmp_path / "audit")]
    call += ["--method", "best-of-m:m=8,fair=true,preview=18"]
    call += ["--method", "best-of-m:m=8,preview=18"]
    done = cli(*call)
    assert done.code == 0, done.err
    frame = pd.read_csv(tmp_path / "audit" / "audit.csv")
    frame = frame[(frame["steps"] == 30) & (frame["method"] != "iid")]
    fair = frame[frame["method"].str.contains("fair")].set_index("metric")["value"]
    unfair = frame[~frame["method"].str.contains("fair")].set_index("metric")["value"]
    assert fair["marginal_shifted_p"] > 0.05
    assert unfair["marginal_shifted_p"] < 0.05
    assert unfair["marginal_kept_p"] > 0.05
    assert fair["gain_p"] < 0.05
