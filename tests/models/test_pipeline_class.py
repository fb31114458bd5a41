"""Pipelines that the auto class does not list load by the class that model_index.json names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from eddy_bench.errors import ModelError, SchedulerError
from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.base import Method
from eddy_bench.methods.registry import build_method
from eddy_bench.models.load import load_model
from eddy_bench.models.pipeline_class import pipeline_class
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.suite import Suite
from tests.conftest import Result
from tests.makers.families import family_folder, family_model, family_side
from tests.makers.pipelines import tiny_folder

Cli = Callable[..., Result]


def method(text: str) -> Method:
    return build_method(MethodSpec.parse(text))


def sprint(text: str, steps: int, **changes: Any) -> torch.Tensor:
    """Draw two latents of the tiny SANA-Sprint."""
    model = family_model("sana-sprint")
    suite = Suite(steps=steps, size=family_side("sana-sprint"), guidance_scale=4.5)
    call = {**Setup(suite, model).call_arguments(1), "output_type": "latent", **changes}
    drawn, cost = model.draw(["a red dress"], [0], 2, method(text), call)
    assert cost.nfe == steps
    return torch.stack(drawn[0])


def test_classes_that_the_auto_class_lists_or_does_not() -> None:
    for name in (
        "StableDiffusionPipeline",
        "FluxImg2ImgPipeline",
        "LatentConsistencyModelPipeline",
    ):
        assert pipeline_class(name) is diffusers.AutoPipelineForText2Image
    for name in ("SanaSprintPipeline", "HiDreamImagePipeline", "Kandinsky5T2IPipeline"):
        assert pipeline_class(name) is getattr(diffusers, name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("WanPipeline", "takes num_frames"),
        ("Kandinsky5T2VPipeline", "takes num_frames"),
        ("StableAudioPipeline", "takes audio"),
        ("SanaSprintImg2ImgPipeline", "takes image"),
        ("SanaControlNetPipeline", "takes control_image"),
        ("DDIMPipeline", "takes no prompt"),
        ("UNet2DConditionModel", "no such pipeline"),
        ("utils", "no such pipeline"),
        ("MyPipeline", "no such pipeline"),
        ("KandinskyV22Pipeline", "outside one scheduler loop"),
        ("Cosmos2TextToImagePipeline", "not those of a flow"),
        (["my_pipeline", "MyPipeline"], "code of its own is never run"),
        ("", "names no class"),
    ],
)
def test_what_is_no_text_to_image_pipeline_of_diffusers_is_refused(name: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words) as told:
        pipeline_class(name)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["WanPipeline", ["my_pipeline", "MyPipeline"]])
def test_a_folder_of_another_task_is_refused_on_the_command_line(
    cli: Cli, tmp_path: Path, name: Any
) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    (tmp_path / "my_pipeline.py").write_text("raise SystemExit('the code ran')")
    done = cli("run", "--model", tmp_path, "--method", "iid", "--out", tmp_path / "out")
    assert done.code == 2
    assert "Expected a text-to-image pipeline of diffusers' own" in done.err
    assert "Use another model." in done.err
    assert "the code ran" not in done.err


@pytest.mark.parametrize("name", ["HiDreamImagePipeline", "Kandinsky5T2IPipeline"])
def test_a_folder_loads_by_the_class_that_it_names(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    asked: list[tuple[str, dict[str, Any]]] = []
    made = diffusers.DiffusionPipeline.from_pretrained(tiny_folder())

    def load(source: str, **kwargs: Any) -> Any:
        asked.append((source, kwargs))
        return made

    monkeypatch.setattr(getattr(diffusers, name), "from_pretrained", load)
    assert load_model(str(tmp_path), device="cpu").pipe is made
    ((source, kwargs),) = asked
    assert source == str(tmp_path)
    assert kwargs["use_safetensors"]
    assert "trust_remote_code" not in kwargs
    assert "custom_pipeline" not in kwargs


def test_sana_sprint_loads_from_a_folder_and_draws() -> None:
    index = json.loads((family_folder("sana-sprint") / "model_index.json").read_text())
    assert index["_class_name"] == "SanaSprintPipeline"
    model = family_model("sana-sprint")
    assert type(model.pipe) is diffusers.SanaSprintPipeline
    for steps in (1, 2, 4):
        plain = sprint("iid", steps)
        for text in ("antithetic", "pg:kernel=latent,strength=5,window=0..", "coupled"):
            if text == "coupled" and steps == 1:
                with pytest.raises(SchedulerError, match="1 step leaves none"):
                    sprint(text, steps)
                continue
            if text.startswith("pg") and steps == 1:  # pg skips a step at alpha = 0
                assert torch.equal(sprint(text, steps), plain)
                continue
            drawn = sprint(text, steps)
            assert torch.isfinite(drawn).all()
            assert not torch.equal(drawn, plain), (text, steps)


def test_sana_sprint_is_the_bare_pipeline_under_iid() -> None:
    pipe = family_model("sana-sprint").pipe
    model = family_model("sana-sprint")
    suite = Suite(steps=2, size=family_side("sana-sprint"), guidance_scale=4.5)
    call = {**Setup(suite, model).call_arguments(1), "output_type": "latent"}
    kept: list[Any] = []

    class Generators(Method):
        def initial_noise(self, noise: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            kept.append(noise.clone())
            return noise

    watched, _ = model.draw(["a red dress"], [0], 2, Generators(), call)
    assert torch.equal(torch.stack(watched[0]), sprint("iid", 2))
    assert "intermediate_timesteps" not in call, "SANA-Sprint's own setting for 2 steps"
    assert kept[0].std() == pytest.approx(1, abs=0.3)
    assert pipe.scheduler.timesteps.tolist() == pytest.approx([1.5708, 1.3, 0])


@pytest.mark.parametrize("text", ["interval", "apg", "guidance-schedule"])
def test_sana_sprint_has_no_guidance_to_change(text: str) -> None:
    with pytest.raises(ModelError, match="SanaSprintPipeline has no classifier-free guidance"):
        sprint(text, 2)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff\xfe", b"[]", b"null", b""])
def test_an_index_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model_index.json").write_bytes(content)
    with pytest.raises(ModelError):
        load_model(str(tmp_path))
