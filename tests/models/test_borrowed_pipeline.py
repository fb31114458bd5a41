"""A pipeline object lent to `benchmark`: it comes back as it was, and a changed one is seen."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from eddy_bench import benchmark, steer
from eddy_bench.errors import ModelError, StoreError
from eddy_bench.methods.registry import build_method
from eddy_bench.models import identity
from eddy_bench.models.identity import unknown_weights, weights_of
from eddy_bench.suites.method_spec import MethodSpec
from tests.makers import offload
from tests.makers.families import family_folder
from tests.makers.pipelines import tiny_folder

SETTINGS: dict[str, Any] = {"steps": 3, "particles": 2, "metrics": ["vendi[pixels]"], "seeds": 1}
FLOW = "FlowMatchEulerDiscreteScheduler"


def pipeline(prediction: str = "epsilon") -> Any:
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(tiny_folder(prediction))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def images(pipe: Any, **call: Any) -> list[Any]:
    generator = [torch.Generator().manual_seed(k) for k in range(2)]
    drawn = pipe(
        "a lamp", num_images_per_prompt=2, num_inference_steps=3, generator=generator, **call
    )
    return [np.asarray(image) for image in drawn.images]


def state(pipe: Any) -> dict[str, Any]:
    """All that can be seen of a pipeline and its parts, by value."""
    scheduler = pipe.scheduler
    return {
        "class": type(pipe),
        "own": {name: id(value) for name, value in vars(pipe).items()},
        "scheduler": id(scheduler),
        "config": copy.deepcopy(dict(scheduler.config)),
        "state": {
            name: value.clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)
            for name, value in vars(scheduler).items()
        },
        "hooks": {
            f"{part}.{name}": (list(module._forward_hooks), list(module._forward_pre_hooks))
            for part in ("unet", "vae", "text_encoder")
            for name, module in getattr(pipe, part).named_modules()
        },
        "attributes": {part: set(vars(getattr(pipe, part))) for part in ("unet", "vae")},
        "dtype": pipe.dtype,
        "training": (pipe.unet.training, next(pipe.unet.parameters()).requires_grad),
        "vae": (pipe.vae.use_slicing, pipe.vae.use_tiling),
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name in one.keys() - {"state"}:
        assert one[name] == other[name], name
    for name, value in one["state"].items():
        assert np.array_equal(np.asarray(value), np.asarray(other["state"][name])), name


@pytest.mark.parametrize("settings", [{}, {"scheduler": "euler"}, {"timesteps": "trailing"}])
def test_benchmark_gives_a_pipeline_back(settings: dict[str, Any], tmp_path: Path) -> None:
    pipe = pipeline()
    before, bare = state(pipe), images(pipe)
    before = state(pipe)
    benchmark(pipe, ["iid", "antithetic"], ["a lamp"], tmp_path / "run", **SETTINGS, **settings)
    same(before, state(pipe))
    assert np.array_equal(images(pipe), bare)


@pytest.mark.parametrize(
    "name", ["antithetic", "cads", "interval", "restart:low=0.5,high=5", "dave"]
)
def test_steer_gives_a_pipeline_back(name: str) -> None:
    pipe = pipeline()
    images(pipe)
    before = state(pipe)
    with steer(pipe, build_method(MethodSpec.parse(name))):
        images(pipe)
    after = state(pipe)
    for call in ("own", "state"):  # what every call of a pipeline sets
        before.pop(call), after.pop(call)
    before["state"] = after["state"] = {}
    same(before, after)


def test_settings_of_one_run_do_not_reach_the_next(tmp_path: Path) -> None:
    pipe = pipeline()
    benchmark(pipe, ["iid"], ["a lamp"], tmp_path / "trailing", timesteps="trailing", **SETTINGS)
    drawn = benchmark(pipe, ["iid"], ["a lamp"], tmp_path / "default", **SETTINGS)
    other = benchmark(pipeline(), ["iid"], ["a lamp"], tmp_path / "other", **SETTINGS)
    prompt = drawn._prompt_ids[0]
    pairs = zip(drawn.images("iid", prompt), other.images("iid", prompt), strict=True)
    assert all(one.tobytes() == two.tobytes() for one, two in pairs)


def test_what_changes_after_a_run_is_seen(tmp_path: Path) -> None:
    """Nothing that was remembered for a run outlives it: prompts, dtype."""
    pipe = pipeline()
    benchmark(pipe, ["iid"], ["a lamp"], tmp_path / "run", **SETTINGS)
    before = images(pipe)
    for value in pipe.text_encoder.parameters():
        value.data.zero_()
    assert not np.array_equal(images(pipe), before)
    pipe.to(torch.bfloat16)
    assert len(images(pipe)) == 2


def test_the_pipelines_own_scheduler_is_the_default(tmp_path: Path) -> None:
    """What was set on the object stays: its shift, its registered configuration."""
    pipe = diffusers.StableDiffusion3Pipeline.from_pretrained(family_folder("sd3"))
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler.set_shift(12.0)
    run = benchmark(
        pipe, ["iid"], ["a lamp"], tmp_path / "run", size=64, guidance_scale=2.0, **SETTINGS
    )
    assert pipe.scheduler.shift == 12.0
    from eddy_bench.sampling.noise import particle_generators

    bare = pipe(
        ["a lamp"],
        num_images_per_prompt=2,
        num_inference_steps=3,
        guidance_scale=2.0,
        height=64,
        width=64,
        generator=particle_generators(0, "a lamp", 2),
    ).images
    drawn = run.images("iid", run._prompt_ids[0])
    assert [image.tobytes() for image in drawn] == [image.tobytes() for image in bare]


def other_vae(pipe: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        pipe.vae = diffusers.AutoencoderKL.from_config(pipe.vae.config)


def other_encoder(pipe: Any) -> None:
    for value in pipe.text_encoder.parameters():
        value.data.mul_(1.1)


def other_scheduler(pipe: Any) -> None:
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)


def other_config(pipe: Any) -> None:
    pipe.scheduler.register_to_config(timestep_spacing="trailing")


def half(pipe: Any) -> None:
    pipe.to(torch.bfloat16)


def free_u(pipe: Any) -> None:
    pipe.enable_freeu(s1=0.5, s2=0.2, b1=1.6, b2=1.8)


class Louder(diffusers.models.attention_processor.AttnProcessor2_0):  # type: ignore[misc]
    """Attention of twice the size."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return 2 * super().__call__(*args, **kwargs)


def attention(pipe: Any) -> None:
    pipe.unet.set_attn_processor(Louder())


def hooked(pipe: Any) -> None:
    pipe.unet.mid_block.register_forward_hook(lambda module, args, output: output * 1.5)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_vae, "pipeline vae"),
        (other_encoder, "pipeline text_encoder"),
        (other_scheduler, "scheduler"),
        (other_config, "pipeline scheduler"),
        (half, "bfloat16"),
        (free_u, "draws other images"),
        (attention, "pipeline attention"),
        (hooked, "draws other images"),
    ],
)
def test_another_pipeline_in_the_same_folder_is_refused_by_what_changed(
    change: Callable[[Any], None], named: str, tmp_path: Path
) -> None:
    pipe = pipeline()
    benchmark(pipe, ["iid"], ["a lamp"], tmp_path / "run", **SETTINGS)
    benchmark(pipe, ["iid"], ["a lamp"], tmp_path / "run", **SETTINGS)  # the same one goes on
    change(pipe)
    with pytest.raises(StoreError, match=named):
        benchmark(pipe, ["iid", "lhs"], ["a lamp"], tmp_path / "run", **SETTINGS)


def test_a_pipeline_that_draws_nothing_is_told_so(tmp_path: Path) -> None:
    pipe = pipeline()
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()  # which this pipeline cannot use
    before = state(pipe)
    with pytest.raises(ModelError, match=r"draws nothing as it is.*init_noise_sigma"):
        benchmark(pipe, ["iid"], ["a lamp"], tmp_path / "run", **SETTINGS)
    same(before, state(pipe))


def test_offloaded_layers_draw_and_are_known_by_their_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their parameters are meta tensors, and the run that began without offload goes on."""
    pipe = pipeline()
    run = benchmark(pipe, ["iid"], ["a lamp"], tmp_path / "run", **SETTINGS)
    offload.install(monkeypatch)
    pipe.enable_sequential_cpu_offload(device="cpu")
    assert {value.device.type for value in pipe.unet.parameters()} == {"meta"}
    again = benchmark(pipe, ["iid", "lhs"], ["a lamp"], tmp_path / "run", **SETTINGS)
    assert again.methods == ["iid", "lhs"]
    other = benchmark(pipe, ["iid"], ["a lamp"], tmp_path / "other", **SETTINGS)
    prompt = run._prompt_ids[0]
    pairs = zip(run.images("iid", prompt), other.images("iid", prompt), strict=True)
    assert all(one.tobytes() == two.tobytes() for one, two in pairs)
    changed = pipeline()
    changed.unet.conv_out.bias.data.add_(1)
    changed.enable_sequential_cpu_offload(device="cpu")
    with pytest.raises(StoreError, match="pipeline unet"):
        benchmark(changed, ["iid"], ["a lamp"], tmp_path / "run", **SETTINGS)


class Quantised(torch.Tensor):
    """A tensor in two, as torchao's, that takes part in no operation here."""

    def __new__(cls, parts: dict[str, torch.Tensor]) -> Any:
        shape = next(iter(parts.values())).shape
        self = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=torch.float32)
        self.__dict__.update(parts)
        return self

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["scale", "values"], None

    @staticmethod
    def __tensor_unflatten__(parts: Any, context: None, size: Any, stride: Any) -> Any:
        return Quantised(parts)

    @classmethod
    def __torch_dispatch__(
        cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if operation is torch.ops.aten.detach.default:
            return cls({name: getattr(args[0], name) for name in ("scale", "values")})
        raise NotImplementedError(operation)


class Locked(Quantised):
    """One that does not tell its parts."""

    __tensor_flatten__ = None  # type: ignore[assignment]


class Bytes(torch.nn.Parameter):
    """Bytes that stay of their class in every operation and know no other length, as GGUF's."""

    @classmethod
    def __torch_function__(
        cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = super().__torch_function__(operation, types, args, kwargs or {})
        if isinstance(result, torch.Tensor) and result.numel() % 18:
            raise ValueError("no whole block")
        return result


def quantised(kind: str, first: int) -> torch.nn.Module:
    numbers = torch.arange(3600, dtype=torch.uint8).reshape(200, 18)
    numbers[0, 0] = first
    layer = torch.nn.Linear(18, 200, bias=False)
    parts = {"values": numbers, "scale": torch.ones(200, 1)}
    value = {
        "torchao": lambda: torch.nn.Parameter(Quantised(parts), False),
        "GGUF": lambda: Bytes(numbers, False),
        "locked": lambda: torch.nn.Parameter(Locked(parts), False),
        "meta": lambda: torch.nn.Parameter(numbers.float().to("meta"), False),
    }[kind]
    layer.weight = value()
    return layer


@pytest.mark.parametrize("kind", ["torchao", "GGUF"])
def test_quantised_weights_are_known_by_what_they_store(kind: str) -> None:
    one, same_one, other = (weights_of(quantised(kind, first)) for first in (1, 1, 2))
    assert one == same_one != other
    assert "uint8" in one


@pytest.mark.parametrize("kind", ["locked", "meta"])
def test_weights_that_cannot_be_read_are_told(kind: str) -> None:
    parts = {"vae": "0123456789 float32", "unet": weights_of(quantised(kind, 1))}
    (note,) = unknown_weights(parts)
    assert "the weights of unet cannot be read" in note
    assert unknown_weights({"vae": parts["vae"]}) == []


def test_a_run_tells_of_weights_that_it_could_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And goes on in the same folder."""

    def locked(network: torch.nn.Module) -> Any:
        raise NotImplementedError("view")

    monkeypatch.setattr(identity, "_stored", locked)
    pipe = pipeline()
    for methods in (["iid"], ["iid", "lhs"]):
        benchmark(pipe, methods, ["a lamp"], tmp_path / "run", **SETTINGS)
        told = " ".join(capsys.readouterr().err.split())
        assert told.count("the weights of vae and text_encoder and unet cannot be read") == 1, told


def test_a_digest_is_computed_once_while_the_weights_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    inner = identity._digest

    def digest(weights: dict[str, torch.Tensor], most: int) -> str:
        read.append(most)
        return inner(weights, most)

    monkeypatch.setattr(identity, "_digest", digest)
    layer = torch.nn.Linear(300, 300)
    first = weights_of(layer)
    assert weights_of(layer) == first
    assert read.count(identity.WHOLE) == 1
    with torch.no_grad():
        layer.weight[7, 7] += 1  # none of the numbers that are looked at, but it is counted
    changed = weights_of(layer)
    layer.weight.data.mul_(2)  # not counted, but seen
    assert len({first, changed, weights_of(layer)}) == 3
