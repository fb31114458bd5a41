"""`eddy-bench doctor`: what works here, in text and as JSON, and what a broken thing does to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from eddy_bench.cli import doctor
from eddy_bench.scoring import dreamsim, preference
from eddy_bench.scoring.inception import INCEPTION
from eddy_bench.scoring.perceptual import ALEXNET
from tests.conftest import Result

Cli = Callable[..., Result]
GUIDE = "vit_small_patch14_dinov2.lvd142m"
HERE_ALONE = ("eddy_bench", "versions", "devices", "hub", "weights", "drawing")


@pytest.fixture(autouse=True)
def _here_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, no caches of this machine, and a drawing that takes no time."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(doctor, "torch_cache", lambda: tmp_path / "torch-cache")
    monkeypatch.setattr(doctor, "_in_hub_cache", lambda asked: None)
    monkeypatch.setattr(doctor, "STEPS", 2)


def findings(cli: Cli, *arguments: str | Path, code: int = 0) -> dict[tuple[str, str], Any]:
    done = cli("doctor", "--json", *arguments)
    assert done.code == code, done.out + done.err
    found = json.loads(done.out)["findings"]
    return {(finding["section"], finding["name"]): finding for finding in found}


def test_what_is_needed_works_here_and_every_line_fits_80_columns(cli: Cli) -> None:
    done = cli("doctor")
    assert done.code == 0, done.out + done.err
    for expected in ("torch:", "diffusers:", "cpu float32:", "HF_HUB_OFFLINE", ALEXNET, "drawing"):
        assert expected in done.out
    assert done.out.startswith("0 problems"), "the verdict comes first"
    assert "\x1b" not in done.out
    for line in done.out.splitlines():
        assert len(line) <= 80 or " " not in line.strip(), line


def test_json_and_text_say_the_same(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "drawn_on", lambda name: np.arange(3))
    monkeypatch.setattr(doctor, "_memory", lambda device: "some memory")
    text, document = cli("doctor").out, json.loads(cli("doctor", "--json").out)
    assert document["verdict"] == "note"
    words = " ".join(text.split())
    for finding in document["findings"]:
        assert finding["verdict"] in ("ok", "note", "problem")
        line = f"{finding['verdict']} {finding['name']}: {finding['detail']}"
        assert " ".join(line.split()) in words
        assert finding["cure"] in words
    assert {finding["section"] for finding in document["findings"]} == set(HERE_ALONE[1:])


def test_a_missing_or_old_library_is_a_problem_with_its_cure(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        doctor,
        "requires",
        lambda name: ["torch>=99", "not_there>=2", "absent>=1; extra == 'offload'"],
    )
    found = findings(cli, code=1)
    assert found["versions", "torch"]["verdict"] == "problem"
    assert found["versions", "torch"]["cure"] == "pip install 'torch>=99'"
    assert found["versions", "not-there"]["detail"] == "not installed"
    assert found["versions", "extra offload"]["verdict"] == "note"
    assert found["versions", "extra offload"]["cure"] == "pip install 'eddy-bench[offload]'"


def test_a_library_that_cannot_be_imported_is_a_problem(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor.importlib, "import_module", fail)
    found = [doctor.examine_library("torchvision", doctor.Requirement("torchvision"))]
    assert [(finding.name, finding.verdict) for finding in found] == [("torchvision", "problem")]
    assert "nms does not exist" in found[0].detail


@pytest.mark.parametrize(("dtype", "code"), [("float32", 1), ("bfloat16", 0)])
def test_a_precision_that_fails_is_told_and_only_float32_is_needed(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, dtype: str, code: int
) -> None:
    def fail(device: str, asked: str) -> float:
        if asked == dtype:
            raise RuntimeError("no kernel image is available for execution on the device")
        return 0.0

    monkeypatch.setattr(doctor, "relative_error", fail)
    found = findings(cli, code=code)["devices", f"cpu {dtype}"]
    assert found["verdict"] == ("problem" if code else "note")
    assert "no kernel image" in found["detail"]
    assert found["cure"]


def test_a_device_that_computes_wrong_numbers_is_a_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for wrong in (0.5, float("nan")):
        monkeypatch.setattr(doctor, "relative_error", lambda device, dtype, error=wrong: error)
        finding = doctor.examine_dtype("cuda:0", "float32")
        assert finding.verdict == "problem"
        assert "--device cpu" in finding.cure


def test_a_device_that_draws_other_images_than_the_cpu_is_a_problem(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 250, (2, 8, 8, 3)).astype(np.int16)
    others = {"cpu": images, "cuda:0": images + 2, "cuda:1": images + 3}
    monkeypatch.setattr(doctor, "device_names", lambda: [*others, "mps"])
    monkeypatch.setattr(doctor, "drawn_on", lambda name: others[name])
    found = findings(cli, code=1)
    verdicts = {name: f["verdict"] for (part, name), f in found.items() if part == "drawing"}
    assert verdicts == {"cpu": "ok", "cuda:0": "ok", "cuda:1": "problem", "mps": "problem"}
    assert "by 3 of 255" in found["drawing", "cuda:1"]["detail"]
    assert "--device cpu" in found["drawing", "cuda:1"]["cure"]


def test_a_check_that_breaks_is_a_line_and_the_others_are_made(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError("the driver is gone")

    monkeypatch.setattr(doctor, "_memory", fail)
    monkeypatch.setattr("eddy_bench.models.load.load_model", fail)
    found = findings(cli, code=1)
    assert "the driver is gone" in found["devices", "devices"]["detail"]
    assert "the driver is gone" in found["drawing", "cpu"]["detail"]
    assert found["weights", "lpips"]["verdict"] == "note"


@pytest.mark.parametrize("error", [OSError("no route"), ValueError("unknown url type: 'x'")])
def test_a_hub_that_does_not_answer_is_a_note(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(endpoint: str) -> int:
        raise error

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(doctor, "answer_of", fail)
    found = next(iter(doctor.examine_hub()))
    assert (found.verdict, str(error) in found.detail) == ("note", True)
    assert "--model FOLDER" in found.cure


def test_a_hub_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    silent = threading.Event()
    with pytest.raises(TimeoutError, match="no answer within"):
        doctor.within(0.05, silent.wait)
    silent.set()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(doctor, "answer_of", lambda endpoint: 200)
    assert next(iter(doctor.examine_hub())).verdict == "ok"


def test_missing_weights_are_named_with_size_and_place(cli: Cli, tmp_path: Path) -> None:
    found = findings(cli)
    for user, file, size in (
        ("lpips", ALEXNET, "244 MB"),
        ("fid, [inception]", INCEPTION, "96 MB"),
        ("--guide auto, --guide dinov2", f"{GUIDE}.safetensors", "88 MB"),
        ("clip, [open_clip:ViT-B-32-quickgelu/openai]", "ViT-B-32-quickgelu-openai", "605 MB"),
    ):
        finding = found["weights", user]
        assert finding["verdict"] == "note"
        assert file in finding["detail"]
        assert size in finding["cure"]
        assert "--weights DIR" in finding["cure"]
    assert str(tmp_path / "torch-cache") in found["weights", "lpips"]["cure"]


def test_weights_in_the_folder_are_found(cli: Cli, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(3)}, tmp_path / f"{GUIDE}.safetensors")
    torch.save({"x": torch.zeros(3)}, tmp_path / ALEXNET)
    found = findings(cli, "--weights", tmp_path)
    for user in ("--guide auto, --guide dinov2", "lpips"):
        assert found["weights", user]["verdict"] == "note"  # of another size, of another digest
        assert "not the published file" in found["weights", user]["detail"]
    assert found["weights", "[efficientnet-lite0]"]["verdict"] == "ok"


@pytest.mark.parametrize(
    ("user", "name"),
    [
        ("aesthetic", preference.LINEAR),
        ("aesthetic", f"{Path(preference.LINEAR).stem}.safetensors"),
        ("aesthetic-mlp", preference.MLP),
        ("hps", preference.HPS_FILE),
        ("pickscore", f"{preference.PICKSCORE_FOLDER}/model.safetensors"),
        *(("dreamsim", f"dreamsim/{name}") for name in (dreamsim.DINO_FILE, *dreamsim.CLIP_FILES)),
        *(("dreamsim", f"dreamsim/{dreamsim.LORA}/{name}") for name in dreamsim.ADAPTERS),
    ],
)
def test_weights_of_metrics_are_found_where_their_loaders_look(
    tmp_path: Path, user: str, name: str
) -> None:
    before = [finding for finding in doctor.examine_weights(tmp_path) if finding.name == user]
    assert {finding.verdict for finding in before} == {"note"}
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"x": torch.zeros(3)}
    save_file(state, path) if name.endswith("safetensors") else torch.save(state, path)
    after = [finding for finding in doctor.examine_weights(tmp_path) if finding.name == user]
    assert len([finding for finding in after if str(path) in finding.detail]) == 1


@pytest.mark.parametrize("name", [ALEXNET, f"{GUIDE}.safetensors"])
def test_damaged_weights_are_a_problem_with_the_file_to_remove(
    cli: Cli, tmp_path: Path, name: str
) -> None:
    whole = tmp_path / "whole"
    state = {"x": torch.zeros(3000)}
    save_file(state, whole) if name.endswith("safetensors") else torch.save(state, whole)
    for damage in (b"", b"no weights", whole.read_bytes()[:-100]):
        (tmp_path / name).write_bytes(damage)
        found = [finding for finding in doctor.examine_weights(tmp_path) if name in finding.cure]
        assert [finding.verdict for finding in found] == ["problem"]
        assert str(tmp_path / name) in found[0].detail
    done = cli("doctor", "--weights", tmp_path)
    assert done.code == 1
    assert "remove it and get it again" in done.out


def test_a_folder_of_weights_that_is_none_is_one_line(cli: Cli, tmp_path: Path) -> None:
    done = cli("doctor", "--weights", tmp_path / "nowhere")
    assert done.code == 2
    assert done.err.startswith("Error: Expected a folder at --weights")
    assert done.err.count("\n") == 1


def test_it_is_a_command(cli: Cli) -> None:
    assert "--weights" in cli("doctor", "--help").out
