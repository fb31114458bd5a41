"""A compiled denoiser: strength 0 is the compiled pipeline bit for bit, and rows are counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.iid import Iid
from eddy_bench.methods.registry import build_method
from eddy_bench.models.load import load_model
from eddy_bench.sampling.families import denoiser
from eddy_bench.sampling.noise import particle_generators
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.suite import Suite
from tests.conftest import Result
from tests.makers.families import family_folder

PROMPT = "a red dress"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_strength_zero_is_the_bare_compiled_pipeline_bit_for_bit() -> None:
    model = load_model(str(family_folder("sd15")), device="cpu", compiled=True)
    arguments = Setup(Suite(steps=2, size=16, guidance_scale=3.0), model).call_arguments(1)
    generators = particle_generators(0, PROMPT, 2)
    bare = model.pipe(
        prompt=[PROMPT], num_images_per_prompt=2, generator=generators, **model.call, **arguments
    ).images
    off = build_method(MethodSpec.parse("pg:strength=0"))
    groups, cost = model.draw([PROMPT], [0], 2, off, arguments)
    assert all(np.array_equal(a, b) for a, b in zip(groups[0], bare, strict=True))
    again, counted = model.draw([PROMPT], [0], 2, Iid(), arguments)
    assert cost.nfe == counted.nfe > 0
    assert all(np.array_equal(a, b) for a, b in zip(again[0], bare, strict=True))
    plain = load_model(str(family_folder("sd15")), device="cpu")
    close, _ = plain.draw([PROMPT], [0], 2, Iid(), arguments)
    for a, b in zip(close[0], bare, strict=True):
        assert np.abs(np.asarray(a, float) - np.asarray(b, float)).max() <= 2


def test_hooks_on_a_compiled_network_run_outside_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Callable[..., Any]] = []

    def compiling(forward: Callable[..., Any]) -> Callable[..., Any]:
        compiled.append(forward)
        return forward

    monkeypatch.setattr(torch, "compile", compiling)
    model = load_model(str(family_folder("sd15")), device="cpu", compiled=True)
    network = denoiser(model.pipe)
    assert isinstance(network, type(denoiser(load_model(str(family_folder("sd15"))).pipe)))
    assert len(compiled) == 1, "its forward pass, not its call, which holds the hooks"


def test_what_cannot_be_compiled_is_said(cli: Callable[..., Result], tmp_path: Path) -> None:
    done = cli(
        "run", "--model", "exact:ring8", "--method", "iid", "--compile", "--out", tmp_path / "r"
    )
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "has no network to compile" in done.err


def test_a_folder_holds_compiled_images_or_others(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda forward: forward)
    call = ("run", "--method", "iid", "--limit", 1, "--steps", 1, "--metric", "vendi")
    assert cli(*call, "--compile", "--out", tmp_path / "r").code == 0
    other = cli(*call, "--out", tmp_path / "r")
    assert (other.code, "compiled" in other.err) == (2, True)
