"""The embedded model: its assets, its quality on a few prompts, and the kernels that see its guide
network.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.embedded.garments import save_difference
from eddy_bench import EddyExact, EddyFd, EddyHutch, Iid, Method, ParticleGuidance, Repulsion, steer
from eddy_bench.models.attributes import parse
from eddy_bench.models.base import Model
from eddy_bench.models.defaults import implied_settings
from eddy_bench.models.devices import CPU
from eddy_bench.models.embedded import add_difference
from eddy_bench.models.images import pixel_array
from eddy_bench.models.load import load_model
from eddy_bench.scoring.extractors import ASSETS, load_classifier
from tests.conftest import Result


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("fashion", device="cpu")


def test_assets_are_small_and_complete() -> None:
    files = [path for path in ASSETS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 25 * 10**6
    assert (
        json.loads((ASSETS / "fashion" / "model_index.json").read_text())["_class_name"]
        == "StableDiffusionPipeline"
    )
    assert (ASSETS / "MODEL_CARD.md").is_file()


@pytest.mark.parametrize(
    ("name", "steps", "scale", "nfe"), [("fashion", 20, 4.0, 40), ("fashion-4step", 4, 1.0, 4)]
)
def test_images_show_the_garment_of_the_prompt(
    name: str, steps: int, scale: float, nfe: int
) -> None:
    """The distilled model needs neither guidance nor more than four evaluations for it."""
    classifier = load_classifier(CPU)
    prompts = ["trousers", "ankle boot", "bag", "dress"]
    arguments = {"num_inference_steps": steps, "guidance_scale": scale, "output_type": "pil"}
    groups, cost = load_model(name, device="cpu").draw(prompts, [0] * 4, 4, Iid(), arguments)
    right = [
        np.array(list(classifier((pixel_array(x),) for x in group)))[:, 0] == parse(prompt).garment
        for group, prompt in zip(groups, prompts, strict=True)
    ]
    assert np.mean(right) >= 0.9
    assert cost.nfe == nfe
    assert groups[0][0].size == (32, 32)


def test_a_difference_of_weights_keeps_them_to_an_eight_bit_share(tmp_path: Path) -> None:
    torch.manual_seed(0)
    one, other = (torch.nn.Conv2d(3, 5, 3) for _ in range(2))
    save_difference(one, other, tmp_path / "difference.safetensors")
    change = {name: other.state_dict()[name] - one.state_dict()[name] for name in one.state_dict()}
    add_difference(one, tmp_path / "difference.safetensors")
    for name, weight in one.state_dict().items():
        allowed = change[name].abs().flatten(1).amax(1) if weight.ndim > 1 else change[name].abs()
        error = (weight - other.state_dict()[name]).abs().flatten(1 if weight.ndim > 1 else 0)
        assert (error <= allowed.max() / 250).all()


def test_a_distilled_model_has_a_fingerprint_of_its_own(model: Model) -> None:
    assert load_model("fashion-4step", device="cpu").fingerprint != model.fingerprint


def test_the_few_step_model_brings_its_settings_along() -> None:
    few = {"name": "fashion-4step", "steps": 4, "guidance_scale": 1.0}
    whole = {"steps": 20, "guidance_scale": 4.0}
    for name, own in (("fashion-4step", few), ("fashion", whole)):
        implied = implied_settings(name)
        assert implied | own == implied
        assert implied["scheduler"] == "default"


ALL = [
    Repulsion(),
    Repulsion(kernel="features"),
    ParticleGuidance(),
    ParticleGuidance(kernel="features"),
    EddyExact(),
    EddyFd(max_coordinates=4),
    EddyHutch(probes=3),
]


@pytest.mark.parametrize("method", ALL, ids=lambda m: f"{m.title()}-{m.kernel}")
def test_strength_zero_is_iid_bit_for_bit(model: Model, method: Method) -> None:
    from dataclasses import replace

    arguments = {"num_inference_steps": 4, "guidance_scale": 3.0, "output_type": "np"}

    def images(used: Method) -> np.ndarray:
        return np.stack(
            [
                np.stack(group)
                for group in model.draw(["dress", "dark coat"], [0, 0], 3, used, arguments)[0]
            ]
        )

    bare = images(Iid())
    assert (images(replace(method, strength=0.0)) == bare).all()  # type: ignore[call-arg]
    assert not (images(method) == bare).all()


def test_counters_count_every_forward_and_backward_pass(model: Model) -> None:
    arguments = {"num_inference_steps": 5, "guidance_scale": 3.0, "output_type": "pil"}
    _, cost = model.draw(["dress", "coat"], [0, 0], 4, EddyHutch(probes=3), arguments)
    assert cost.nfe == 10
    assert cost.feature_backwards == 1 + 2 * 3  # one step in the window
    assert cost.feature_forwards == cost.decoder_calls == 1 + 2 * 3 + 1 + 2 + 2 * 3


def test_steer_guides_a_pipeline_as_in_the_readme(model: Model) -> None:
    generator = [torch.Generator().manual_seed(k) for k in range(4)]
    with steer(model.pipe, EddyHutch()):
        images = model.pipe(
            "dress", num_images_per_prompt=4, num_inference_steps=3, generator=generator
        ).images
    assert len(images) == 4


def test_two_prompts_in_a_batch_are_drawn_as_alone(model: Model) -> None:
    """Batch shapes change the last digits only."""
    arguments = {"num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "np"}
    method = EddyHutch(probes=3, strength=0.1)
    both = model.draw(["dress", "dark coat"], [0, 0], 3, method, arguments)[0]
    alone = model.draw(["dark coat"], [0], 3, method, arguments)[0]
    assert np.abs(np.stack(both[1]) - np.stack(alone[0])).max() < 1e-3


def test_the_command_draws_a_real_image_with_features(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    done = cli(
        "run",
        "--method",
        "iid",
        "--method",
        "eddy-hutch",
        "--limit",
        "2",
        "--steps",
        "5",
        "--batch-prompts",
        "2",
        "--out",
        tmp_path / "r",
    )
    assert done.code == 0, done.err
    summary = pd.read_csv(tmp_path / "r" / "summary.csv")
    for column in ("vendi", "pdist", "clip", "fd", "drift"):
        assert np.isfinite(summary[f"{column}[fmnist-clip]"]).all()
    assert summary["kernel"].tolist()[1] == "features"
    assert (tmp_path / "r/grids/side-by-side.png").is_file()


def test_unknown_words_warn(cli: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a purple dress\n")
    done = cli(
        "run",
        "--method",
        "iid",
        "--prompts",
        tmp_path / "p.txt",
        "--steps",
        "1",
        "--batch-prompts",
        "1",
        "--out",
        tmp_path / "r",
    )
    assert done.code == 0
    assert "purple" in done.err
