"""Guide networks and decoders for feature kernels, half precision, memory, safe loading."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from eddy_bench.errors import MetricError, ModelError, UnknownName
from eddy_bench.experiment.draw import draw_groups, find_missing
from eddy_bench.experiment.manifest import record_plan
from eddy_bench.experiment.plan import make_plan
from eddy_bench.experiment.score import marked_circular
from eddy_bench.experiment.setup import Setup
from eddy_bench.ids import MetricId, Signature
from eddy_bench.methods.registry import build_method
from eddy_bench.models.backbones import load_backbone, resolve_backbone, same_network
from eddy_bench.models.images import by_channel, normalised
from eddy_bench.models.load import load_model
from eddy_bench.models.network_features import RowLimit
from eddy_bench.scoring.extractors import load_extractor
from eddy_bench.scoring.measure import MetricValue
from eddy_bench.scoring.metrics import METRICS
from eddy_bench.storage.run_folder import RunFolder
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.suite import Suite
from tests.conftest import Result
from tests.makers.families import family_folder
from tests.makers.groups import SETTINGS, make_group
from tests.makers.open_clip_models import save_open_clip

CPU = torch.device("cpu")
NAME = "resnet10t"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights of a small timm network, a tiny vision transformer and a tiny
    CLIP, and a tiny decoder.
    """
    import diffusers
    import timm
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    save_file(
        timm.create_model(NAME, pretrained=False).state_dict(), folder / f"{NAME}.safetensors"
    )
    save_file(
        timm.create_model("vit_tiny_patch16_224", pretrained=False).state_dict(),
        folder / "vit_tiny_patch16_224.safetensors",
    )
    save_open_clip(folder)
    diffusers.AutoencoderTiny(
        latent_channels=4,
        encoder_block_out_channels=(8,) * 2,
        decoder_block_out_channels=(8,) * 2,
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).save_pretrained(folder / "decoder")
    return folder


@pytest.mark.parametrize(
    "name",
    [
        f"timm:{NAME}@64",
        f"timm:{NAME}",
        "timm:vit_tiny_patch16_224@64",
        "open_clip:clip-for-tests/mine",
    ],
)
def test_backbones_see_images_of_any_shape_with_a_graph(weights: Path, name: str) -> None:
    backbone = load_backbone(name, weights, CPU)
    images = (torch.rand(2, 1, 40, 48) * 2 - 1).requires_grad_()
    features = backbone(images)
    assert features.shape[0] == 2
    assert features.dtype == torch.float32
    # not their sum: that of layer-normalised features is constant
    cotangent = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(features, images, cotangent)
    assert torch.isfinite(gradient).all()
    assert gradient.norm() > 1e-3 * features.norm() / images.norm()
    assert backbone.digest == load_backbone(name, weights, CPU).digest
    grey = backbone(images.expand(-1, 3, -1, -1))
    assert torch.equal(grey, features)


def test_means_and_deviations_of_inputs_are_copied_to_a_device_once() -> None:
    """Also where features of finished images were computed before those with a graph."""
    values, device = ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1)), torch.device("cpu")
    images = torch.rand(2, 3, 8, 8)
    with torch.inference_mode():
        first = normalised(images, *values)
    assert by_channel(values[0], device) is by_channel(values[0], device)
    leaf = images.clone().requires_grad_()
    again = normalised(leaf, *values)
    (slope,) = torch.autograd.grad(again.sum(), leaf)
    assert torch.equal(first, again)
    assert slope[0, 2, 0, 0] == pytest.approx(10)


def test_a_backbone_scores_images_of_different_sizes_together_as_alone(weights: Path) -> None:
    extractor = load_extractor(f"timm:{NAME}@64", weights)
    pictures = [
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (size, 40, 3), np.uint8))
        for k, size in enumerate((40, 56))
    ]
    together = extractor.images(pictures)
    assert together.shape == (2, 512)
    alone = extractor.images(pictures[1:])
    assert np.allclose(together[1], alone[0], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("timm:nothing", UnknownName, "timm model"),
        ("dinov3", UnknownName, "dinov2"),
        ("timm:", UnknownName, "backbone"),
        (f"timm:{NAME}@big", UnknownName, "size in pixels"),
        ("open_clip:nothing/x", UnknownName, "open_clip model"),
        ("open_clip:RN50", ModelError, "MODEL/WEIGHTS"),
        ("auto", ModelError, "vit_small_patch14_dinov2.lvd142m.safetensors into a folder"),
    ],
)
def test_a_name_that_is_no_backbone_is_refused(
    name: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        load_backbone(name, tmp_path, CPU)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cannot be had"):
        load_backbone(f"timm:{NAME}", tmp_path, CPU)
    with pytest.raises(MetricError, match="cannot be had"):
        load_extractor(f"timm:{NAME}", tmp_path)


def test_two_names_of_one_network_are_circular() -> None:
    assert resolve_backbone("auto") == resolve_backbone("dinov2")
    assert same_network("timm:a@224", "timm:a@518")
    assert not same_network("timm:a", "timm:b")
    assert same_network("open_clip:ViT-B-32/openai", "open_clip:ViT-B-32-quickgelu/openai")
    digest, parts = "0123456789", (("features", "timm:a.tag@0123456789"), ("N", "2"))
    assert circular("timm:a.tag", Signature("vendi", parts), f"timm:a@{digest}"), "same weights"
    plain = Signature("vendi", (("q", "1"),))
    assert circular(f"timm:{NAME}", plain, f"timm:{NAME}@64@{digest}"), "at another size"
    assert not circular("inception", plain, f"timm:{NAME}@64@{digest}")
    assert not circular("inception", plain, None)


def circular(extractor: str, signature: Signature, guide: str | None) -> bool:
    """Whether a value is marked in a run with a guide; the rest of it stays."""
    settings = SETTINGS.model_copy(update={"guide": guide})
    column = MetricId("vendi", extractor)
    measured = MetricValue(make_group(), column, METRICS["vendi"], 1.0, signature)
    marked = marked_circular(measured, settings)
    assert str(marked.signature).removesuffix("|circular") == str(signature)
    return marked.signature.has("circular")


def test_a_run_draws_through_a_guide_and_a_decoder(
    cli: Callable[..., Result], weights: Path, tmp_path: Path
) -> None:
    common = (
        "run",
        "--model",
        family_folder("sd15"),
        "--limit",
        1,
        "--particles",
        2,
        "--steps",
        3,
        "--batch-prompts",
        1,
        "--method",
        "iid",
        "--method",
        "pg:kernel=features,scale=fixed,strength=5,window=0..",
        "--metric",
        f"vendi[timm:{NAME}@64]",
        "--weights",
        weights,
        "--size",
        16,
    )
    own = cli(*common, "--guide", f"timm:{NAME}@64", "--out", tmp_path / "own")
    assert own.code == 0, own.err
    rows = pd.read_csv(tmp_path / "own" / "scores.csv")
    assert rows[rows["metric"] == "vendi"]["signature"].str.endswith("|circular").all()
    tiny = cli(
        *common,
        "--guide",
        f"timm:{NAME}@64",
        "--decoder",
        weights / "decoder",
        "--out",
        tmp_path / "tiny",
    )
    assert tiny.code == 0, tiny.err
    again = cli(*common, "--out", tmp_path / "none")
    assert again.code == 2
    assert "no guide network" in again.err
    other = cli(*common, "--guide", "open_clip:clip-for-tests/mine", "--out", tmp_path / "own")
    assert (other.code, "guide" in other.err) == (2, True), "another guide is another run"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--decoder", "nowhere/here"), "--guide auto"),
        (("--guide", "auto", "--decoder", "/nowhere"), "AutoencoderTiny"),
        (("--offload",), "none here"),
        (("--feature-batch", 0), "feature-batch"),
        (("--batch-prompts", "some"), "batch-prompts"),
        (("--batch-prompts", 0), "batch-prompts"),
        (("--timesteps", "odd"), "timesteps"),
        (("--timesteps", "ays"), "takes no list of timesteps"),
        (("--model", "exact:ring8", "--guide", "auto"), "draws points"),
        (
            (
                "--model",
                family_folder("flux"),
                "--scheduler",
                "default",
                "--negative-prompt",
                "blurry",
            ),
            "distilled guidance",
        ),
        (
            ("--model", family_folder("sd3"), "--scheduler", "dpmpp-2m", "--timesteps", "karras"),
            "timesteps of a flow model",
        ),
        (
            ("--model", family_folder("sd21"), "--scheduler", "euler", "--timesteps", "ays"),
            "predicts v",
        ),
        (("--prompts", "prompts/typo.txt"), "Expected a prompt file"),
    ],
)
def test_options_that_contradict_the_model_are_refused(
    cli: Callable[..., Result], tmp_path: Path, options: tuple[Any, ...], message: str
) -> None:
    done = cli(
        "run",
        "--model",
        family_folder("sd15"),
        "--scheduler",
        "ddim",
        "--limit",
        1,
        "--method",
        "iid",
        "--out",
        tmp_path / "run",
        *options,
    )
    assert (done.code, done.err.strip().count("\n")) == (2, 0), done.err
    assert message in done.err


def test_half_precision_keeps_features_in_float32(weights: Path) -> None:
    model = load_model(
        str(family_folder("sd3")),
        dtype="bfloat16",
        device="cpu",
        guide=f"timm:{NAME}@64",
        weights=weights,
        feature_batch=3,
    )
    arguments = Setup(Suite(steps=3, size=64), model).call_arguments(1)
    features = model.feature_map((16, 8, 8), (64, 64))
    assert features.chunk == 3
    assert features.values(torch.randn(4, 1024)).dtype == torch.float32
    images, cost = model.draw(
        ["a red dress"],
        [0],
        4,
        build_method(MethodSpec.parse("pg:kernel=features,strength=1,window=0..")),
        arguments,
    )
    assert len(images[0]) == 4
    assert cost.feature_backwards > 0


def test_features_are_computed_in_one_forward_pass_where_a_group_fits(weights: Path) -> None:
    model = load_model(
        str(family_folder("sd15")), device="cpu", guide=f"timm:{NAME}@64", weights=weights
    )
    points = torch.randn(2, 3, 4 * 8 * 8)
    pulled = []
    for chunk, forwards in ((64, 6), (3, 6), (2, 12)):
        model.row_limit = RowLimit.of(chunk)
        features = model.feature_map((4, 8, 8))
        pulled.append(
            features.pull_groups(points, lambda values: values - values.mean(1, keepdim=True))
        )
        assert (features.cost.feature_forwards, features.cost.feature_backwards) == (forwards, 6)
    assert torch.allclose(pulled[0], pulled[1], rtol=1e-3, atol=1e-6)
    assert torch.allclose(pulled[0], pulled[2], rtol=1e-3, atol=1e-6)


def test_batches_halve_when_memory_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups stay whole, everything is drawn, and it is said."""
    model = load_model(str(family_folder("sd15")), device="cpu")
    inner, sizes = model.draw, []

    def draw(
        prompts: list[str], seeds: list[int], particles: int, method: Any, arguments: Any
    ) -> Any:
        sizes.append(len(prompts) * particles)
        if len(prompts) * particles > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(prompts, seeds, particles, method, arguments)

    monkeypatch.setattr(model, "draw", draw)
    suite = Suite(
        model=str(family_folder("sd15")),
        prompts="fashion",
        limit=3,
        particles=2,
        steps=2,
        size=16,
        batch_prompts="auto",
    )
    plan = make_plan(Setup(suite, model))
    folder = RunFolder.prepare(tmp_path / "run", plan.settings)
    record_plan(plan, folder)
    done = draw_groups(plan, folder, plan.groups, lambda count, label: None)
    assert (done.drawn, done.failures) == (3, [])
    assert sizes == [16, 8, 4, 4, 4], "the warm-up, then two batches"
    assert any("2 prompts share a forward pass" in note for note in done.warnings)
    assert find_missing(plan.groups, folder) == ([], [])
    assert (
        draw_groups(
            plan,
            folder.reference(),
            plan.reference_groups(),
            lambda count, label: None,
            warm_up=False,
        ).drawn
        == 3
    )
    fixed = make_plan(Setup(suite.model_copy(update={"batch_prompts": 8, "seeds": 2}), model))
    failed = draw_groups(
        fixed,
        folder,
        find_missing(fixed.groups, folder)[0],
        lambda count, label: None,
        warm_up=False,
    )
    assert "--batch-prompts auto" in failed.failures[0][1]


@pytest.mark.parametrize(
    ("flag", "note"),
    [
        ("use_slicing", "memory: images are decoded one at a time"),
        ("use_tiling", "memory: images are decoded in tiles, which changes them: `tiled` in "),
    ],
)
def test_images_are_decoded_singly_where_not_even_one_prompt_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str, note: str
) -> None:
    """Then in tiles, and both are said once and recorded."""
    model = load_model(str(family_folder("sd15")), device="cpu")
    inner = model.pipe.vae.decode

    def decode(latents: torch.Tensor, *rest: Any, **more: Any) -> Any:
        if len(latents) > 1 and not getattr(model.pipe.vae, flag):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(latents, *rest, **more)

    monkeypatch.setattr(model.pipe.vae, "decode", decode)
    suite = Suite(prompts="fashion", limit=2, particles=2, steps=2, size=16)
    plan = make_plan(Setup(suite, model))
    folder = RunFolder.prepare(tmp_path / "run", plan.settings)
    record_plan(plan, folder)
    done = draw_groups(plan, folder, plan.groups, lambda count, label: None)
    assert (done.drawn, done.failures) == (2, [])
    assert sum(own.startswith(note) for own in done.warnings) == 1
    records = [json.loads(path.read_text()) for path in folder.samples.glob("*/*/*/group.json")]
    assert [own.get("tiled", False) for own in records] == [flag == "use_tiling"] * 2
    model.take_less(1)
    assert not model.take_less(1)


def test_pickles_without_weights_and_code_are_not_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(family_folder("sd15"), folder)
    weights = next((folder / "unet").glob("*.safetensors"))
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ModelError, match="lack"):
        load_model(str(folder), device="cpu")
    coded = tmp_path / "coded"
    shutil.copytree(family_folder("sd15"), coded)
    index = json.loads((coded / "model_index.json").read_text())
    (coded / "pipeline.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Mine: pass\n")
    (coded / "model_index.json").write_text(
        json.dumps(index | {"_class_name": ["pipeline", "Mine"]})
    )
    with pytest.raises(ModelError):
        load_model(str(coded), device="cpu")
    assert not (tmp_path / "ran").exists()


def test_what_cannot_be_steered_is_refused_by_name(tmp_path: Path) -> None:
    for name in (
        "KandinskyCombinedPipeline",
        "StableCascadeCombinedPipeline",
        "WuerstchenCombinedPipeline",
        "IFPipeline",
    ):
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
        with pytest.raises(
            ModelError, match=f"{name} draws its samples outside one scheduler loop"
        ):
            load_model(str(tmp_path), device="cpu")


def test_a_decoder_is_part_of_a_run(weights: Path) -> None:
    first = load_model(
        str(family_folder("sd15")),
        device="cpu",
        guide=f"timm:{NAME}@64",
        decoder=str(weights / "decoder"),
        weights=weights,
    )
    assert first.decoder_name.startswith(f"{weights / 'decoder'}@")
    with pytest.raises(ModelError, match="latents of 4 channels"):
        load_model(
            str(family_folder("sd3")),
            device="cpu",
            guide=f"timm:{NAME}@64",
            decoder=str(weights / "decoder"),
            weights=weights,
        )


def test_best_of_m_is_measured_in_smaller_batches_when_memory_runs_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from eddy_bench.experiment.cost_matching import match_costs

    model = load_model(str(family_folder("sd15")), device="cpu")
    inner = model.draw

    def draw(prompts: list[str], *rest: Any) -> Any:
        if len(prompts) > 2:
            raise RuntimeError("MPS backend out of memory")
        return inner(prompts, *rest)

    monkeypatch.setattr(model, "draw", draw)
    suite = Suite(
        prompts="fashion",
        particles=2,
        steps=2,
        size=16,
        batch_prompts="auto",
        methods=["pg", "best-of-m"],
    )  # type: ignore[list-item]
    settled, _ = match_costs(Setup(suite, model), [])
    assert int(settled.suite.methods[1].parameters["m"]) >= 2


def test_tokens_are_not_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import diffusers

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError("401 for token hf_abcdefGHIJKL0123")

    index = {"_class_name": "StableDiffusionPipeline"}
    monkeypatch.setattr(diffusers.AutoPipelineForText2Image, "from_pretrained", refuse)
    for read in (refuse, lambda *args, **kwargs: index):
        monkeypatch.setattr(diffusers.DiffusionPipeline, "load_config", read)
        with pytest.raises(ModelError, match=r"hf_\.\.\.") as error:
            load_model("owner/model", device="cpu")
        assert "abcdef" not in str(error.value)
