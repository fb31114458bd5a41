"""What only a card can show: the CPU's images on it, offload, and memory that really runs out.

`make test-gpu` runs these; they are skipped where there is no CUDA or MPS device.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from eddy_bench.cli.doctor import TOLERANCE
from eddy_bench.experiment.draw import draw_groups, find_missing
from eddy_bench.experiment.manifest import record_plan
from eddy_bench.experiment.plan import make_plan
from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.registry import build_method
from eddy_bench.models.base import Model
from eddy_bench.models.devices import whole_float32
from eddy_bench.models.load import load_model
from eddy_bench.sampling.noise import particle_generators
from eddy_bench.storage.run_folder import RunFolder
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.suite import Suite
from tests.makers.families import family_folder, family_side

CUDA, MPS = torch.cuda.is_available(), torch.backends.mps.is_available()
DEVICE = "cuda" if CUDA else "mps"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (CUDA or MPS), reason="no CUDA or MPS device here"),
    pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning"),
]
needs_cuda = pytest.mark.skipif(not CUDA, reason="no CUDA device here")
PROMPTS = ["a photo of a dress", "a photo of a coat"]
TINY = ("sd15", "sdxl", "flux")
FEATURES = "pg:kernel=features,scale=fixed,strength=5,window=0.."


@pytest.fixture(autouse=True)
def _comparable() -> Iterator[None]:
    """Compute in whole float32, as the CPU does."""
    with whole_float32(torch.device(DEVICE)):
        yield
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()


def source(name: str) -> str:
    """Return what loads a model: the embedded one, or the folder of a tiny family."""
    return name if name == "fashion" else str(family_folder(name))


def drawn(name: str, method: str, device: str, **options: Any) -> NDArray[np.int16]:
    """Draw two groups of two images."""
    model = load_model(source(name), device=device, **options)
    side = 32 if name == "fashion" else family_side(name)
    suite = Suite(model=source(name), steps=4, size=side, guidance_scale=3.0)
    arguments = Setup(suite, model).call_arguments(len(PROMPTS))
    groups, _ = model.draw(PROMPTS, [0, 1], 2, build_method(MethodSpec.parse(method)), arguments)
    return pixels([image for group in groups for image in group])


def pixels(images: list[Image.Image]) -> NDArray[np.int16]:
    return np.stack([np.asarray(image.convert("RGB"), np.int16) for image in images])


def farthest(a: NDArray[np.int16], b: NDArray[np.int16]) -> int:
    return int(np.abs(a - b).max())


@pytest.mark.parametrize("name", ["fashion", *TINY])
def test_a_card_draws_the_images_of_the_cpu(name: str) -> None:
    """Particles have generators on the CPU, so that their noise is the same everywhere."""
    assert farthest(drawn(name, "iid", "cpu"), drawn(name, "iid", DEVICE)) <= TOLERANCE


@pytest.mark.parametrize("name", ["fashion", "sd15"])
@pytest.mark.parametrize("method", ["antithetic", "sobol", "pg:strength=0.5", "repulsion"])
def test_a_method_draws_finite_images_on_a_card_and_the_same_twice(name: str, method: str) -> None:
    first = drawn(name, method, DEVICE)
    assert first.std() > 0
    assert farthest(first, drawn(name, method, DEVICE)) <= TOLERANCE


def bare_and_steered(name: str, method: str) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Draw with the pipeline alone and with a method, from the same generators."""
    model = load_model(source(name), device=DEVICE)
    side = 32 if name == "fashion" else family_side(name)
    suite = Suite(model=source(name), steps=4, size=side, guidance_scale=3.0)
    arguments = Setup(suite, model).call_arguments(1)
    bare = model.pipe(
        prompt=PROMPTS[:1],
        num_images_per_prompt=2,
        generator=particle_generators(0, PROMPTS[0], 2),
        **{**model.call, **arguments},
    ).images
    spec = build_method(MethodSpec.parse(method))
    groups, _ = model.draw(PROMPTS[:1], [0], 2, spec, arguments)
    return pixels(list(bare)), pixels(groups[0])


@pytest.mark.parametrize("name", ["fashion", *TINY])
@pytest.mark.parametrize("method", ["pg", "repulsion", "eddy-exact", "eddy-fd", "eddy-hutch"])
def test_strength_zero_is_the_bare_pipeline_bit_for_bit_on_a_card(name: str, method: str) -> None:
    bare, steered = bare_and_steered(name, f"{method}:strength=0,kernel=latent")
    assert np.array_equal(bare, steered)


@needs_cuda
@pytest.mark.parametrize("name", TINY)
def test_offload_draws_the_same_images(name: str) -> None:
    pytest.importorskip("accelerate", reason="needs the extra offload")
    whole = drawn(name, "iid", "cuda")
    assert farthest(whole, drawn(name, "iid", "cuda", offload=True)) <= TOLERANCE


@pytest.fixture
def little_memory() -> Iterator[Any]:
    """Return a function that leaves this process so many bytes more than it holds now."""

    def leave(more: float) -> None:
        gc.collect()
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        share = (torch.cuda.memory_reserved(0) + more) / total
        torch.cuda.set_per_process_memory_fraction(min(1.0, share), 0)

    yield leave
    torch.cuda.set_per_process_memory_fraction(1.0, 0)


class Greedy(torch.nn.Module):
    """Look at images with a hidden layer that takes `row_bytes` of memory for each of them."""

    def __init__(self, row_bytes: int) -> None:
        super().__init__()
        self.repeats = row_bytes // 4 // 48
        self.pool = torch.nn.AdaptiveAvgPool2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = self.pool(images).flatten(1)
        return torch.sin(rows.repeat(1, self.repeats)).unflatten(1, (-1, 48)).mean(1)


@needs_cuda
def test_rows_of_features_halve_when_a_card_runs_out_of_memory(little_memory: Any) -> None:
    """The card reports more free memory than this process may take, as beside another process."""
    row = 16 * 2**20
    model = load_model(source("sd15"), device="cuda")
    model.guide = Greedy(row).cuda()
    suite = Suite(model=source("sd15"), steps=2, size=16)
    arguments = Setup(suite, model).call_arguments(1)
    method = build_method(MethodSpec.parse(FEATURES))
    model.draw(PROMPTS[:1], [0], 2, method, arguments)  # measured, workspaces taken
    before = model.row_limit.backward
    assert before >= 16, "the card is too small for this test"
    little_memory(24 * row)
    groups, _ = model.draw(PROMPTS[:1], [0], 16, method, arguments)
    assert len(groups[0]) == 16
    assert model.row_limit.backward < 16


@needs_cuda
def test_prompts_halve_when_a_card_runs_out_of_memory(tmp_path: Path, little_memory: Any) -> None:
    """A denoiser that takes 32 MiB a row is given room for about 8 rows."""
    row = 32 * 2**20
    model = hungry(load_model(source("sd15"), device="cuda"), row)
    suite = Suite(
        model=source("sd15"),
        prompts="fashion",
        limit=8,
        particles=2,
        steps=2,
        size=16,
        batch_prompts="auto",
        guidance_scale=1.0,
    )
    setup = Setup(suite, model)
    iid = build_method(MethodSpec.parse("iid"))
    model.draw(PROMPTS[:1], [0], 2, iid, setup.call_arguments(1))  # takes the workspaces
    plan = make_plan(setup)
    folder = RunFolder.prepare(tmp_path / "run", plan.settings)
    record_plan(plan, folder)
    little_memory(8 * row)
    done = draw_groups(plan, folder, plan.groups, lambda count, label: None)
    assert (done.drawn, done.failures) == (8, [])
    assert model.prompts_fit is not None
    assert model.prompts_fit < 8
    assert find_missing(plan.groups, folder) == ([], [])


def hungry(model: Model, row_bytes: int) -> Model:
    """Let the denoiser take memory for every row, and give it back."""

    def take(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rows = len(args[0] if args else kwargs["sample"])
        torch.empty(rows * row_bytes, dtype=torch.uint8, device="cuda")

    model.pipe.unet.register_forward_pre_hook(take, with_kwargs=True)
    return model
