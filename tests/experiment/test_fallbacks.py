"""What drawing falls back to is said once and counted: nothing gets slower without a word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from eddy_bench.experiment.batches import Batch, draw_batch
from eddy_bench.experiment.draw import draw_groups
from eddy_bench.experiment.plan import make_plan
from eddy_bench.experiment.ray_executor import Worker
from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.iid import Iid
from eddy_bench.models import base, load
from eddy_bench.models.load import load_model
from eddy_bench.models.prompts import remember_prompts
from eddy_bench.sampling.families import denoiser
from eddy_bench.storage.run_folder import RunFolder
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.suite import Suite
from tests.conftest import Result
from tests.makers.groups import make_group

Cli = Callable[..., Result]
RUN = ("run", "--method", "iid", "--limit", "6", "--steps", "2", "--particles", "2", "--seeds", "1")


@pytest.fixture
def alone_only(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let batches of several prompts fail, and count the network's evaluations."""
    inner, calls = base.Model.draw, list[int]()

    def draw(self: Any, prompts: Sequence[str], *rest: Any) -> Any:
        calls.append(len(set(prompts)))
        if calls[0] and len(set(prompts)) > 1:
            raise RuntimeError("tensors on two devices")
        return inner(self, prompts, *rest)

    monkeypatch.setattr(base.Model, "draw", draw)
    return calls


# six of the run and six of the reference set of drift
def test_groups_drawn_alone_after_their_batch_failed_are_counted(
    alone_only: list[int], cli: Cli, tmp_path: Path
) -> None:
    done = cli(*RUN, "--batch-prompts", "4", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    said = " ".join(done.err.split())
    expected = (
        "12 groups drawn alone, each in the time of a whole batch, as their batch failed: "
        "RuntimeError: tensors on two devices"
    )
    assert said.count("drawn alone") == 1
    assert expected in said


def test_every_group_says_why_it_was_drawn_alone(alone_only: list[int]) -> None:
    """So that workers elsewhere can tell, too."""
    setup = Setup(Suite(steps=2, batch_prompts=2, seeds=1), load_model("fashion", device="cpu"))
    groups = tuple(make_group(prompt_id=text, prompt=text) for text in ("a dress", "a coat"))
    groups = tuple(replace(group, particles=2) for group in groups)
    together, alone = (draw_batch(setup, Iid(), Batch(part, 2)) for part in (groups, groups[:1]))
    assert [result.apart for result in together] == ["RuntimeError: tensors on two devices"] * 2
    assert [result.apart for result in alone] == [""]
    assert all(result.images for result in (*together, *alone))


def test_a_warm_up_that_runs_out_of_memory_is_told_and_frees_the_pipeline(
    tmp_path: Path,
) -> None:
    """As a call that returns does: under `--offload` the denoiser would stay on the card."""
    suite = Suite(steps=2, particles=2, seeds=1, limit=4, methods=[MethodSpec.parse("iid")])
    setup = Setup(suite, load_model("fashion", device="cpu"))
    network, freed = denoiser(setup.model.pipe), list[int]()
    inner = network.forward

    def forward(sample: Any, *args: Any, **kwargs: Any) -> Any:
        if len(sample) > 8:  # two prompts with two particles, both branches of guidance
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(sample, *args, **kwargs)

    network.forward = forward
    setup.model.pipe.maybe_free_model_hooks = lambda: freed.append(1)
    plan = make_plan(setup)
    folder = RunFolder.prepare(tmp_path / "run", plan.settings)
    done = draw_groups(plan, folder, plan.groups, lambda *given: None)
    assert (done.drawn, done.failures) == (4, [])
    assert done.warnings == ["memory: 2 prompts share a forward pass"]
    # 8 and 4 prompts ran out; the last warm-up and two batches returned
    assert setup.suite.first_batch == 8
    assert len(freed) == 2 + 1 + 2


def _with_little_memory(pipe: Any) -> Any:
    cache = remember_prompts(pipe)
    assert cache is not None
    cache.most_bytes = 3_000
    return cache


def test_encodings_that_are_not_kept_are_counted(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "remember_prompts", _with_little_memory)
    done = cli(*RUN, "--out", tmp_path / "run")
    said = " ".join(done.err.split())
    assert said.count("encodings of prompts made anew, as no more than 2 GiB") == 1
    quiet = cli(*RUN, "--steps", "3", "--out", tmp_path / "other")
    assert "drawn alone" not in quiet.err


def test_a_peak_that_is_not_of_the_batch_is_told_once(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS, or where /proc cannot be written."""
    monkeypatch.setattr(base, "reset_peak", lambda device: False)
    done = cli(*RUN, "--out", tmp_path / "run")
    assert " ".join(done.err.split()).count("peak_memory_mb is of this process since") == 1


def test_what_a_worker_elsewhere_notes_arrives_with_its_groups() -> None:
    """A Ray worker's model is not the driver's, and its notes were lost with it."""
    suite = Suite(steps=2, batch_prompts=1, particles=2, device="cpu")
    worker = Worker(suite.model_dump_json(), 1, None)
    worker.setup.model.notes.append("memory: images are decoded one at a time")
    assert worker.setup.model.texts is not None
    worker.setup.model.texts.most_bytes = 0
    (result,) = worker.draw(Batch((replace(make_group(prompt="a dress"), particles=2),), 1)) or []
    assert result.notes == ("memory: images are decoded one at a time",)
    assert result.unkept > 0
