"""Half precision: what a method computes stays in float32, whatever the model's dtype."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.base import Method
from eddy_bench.methods.registry import build_method
from eddy_bench.models.base import Model
from eddy_bench.models.load import load_model
from eddy_bench.sampling.state import State
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.suite import Suite
from tests.makers.families import FAMILIES, family_folder, family_side

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
PROMPT = "a red dress"
OFTEN = ("sd15", "sd3")
EACH = [
    pytest.param(family, marks=() if family in OFTEN else pytest.mark.slow) for family in FAMILIES
]
# One of each kind; selection may turn on the last digit.
COMPARED = (
    "repulsion",
    "pg",
    "eddy-exact",
    "eddy-fd",
    "eddy-hutch",
    "antithetic",
    "lhs",
    "sobol",
    "coupled",
    "diverseflow",
    "cads",
)
METHODS = {
    "pg": "pg:strength=1,scale=fixed,window=0..,kernel=features",
    "repulsion": "repulsion:strength=1,scale=fixed,window=0..,kernel=features",
    "eddy-exact": "eddy-exact:strength=1",
    "eddy-fd": "eddy-fd:strength=0.05,window=0..,max_coordinates=4",
    "eddy-hutch": "eddy-hutch:strength=0.05,window=0..,probes=2",
    "best-of-m": "best-of-m:m=3",
}


@functools.cache
def model_of(family: str, dtype: str) -> Model:
    model = load_model(str(family_folder(family)), device="cpu", dtype=dtype)
    torch.manual_seed(0)
    model.guide = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 5)
    ).requires_grad_(False)
    return model


def method(name: str) -> Method:
    return build_method(MethodSpec.parse(METHODS.get(name, name)))


def draw(family: str, dtype: str, chosen: Method, output: str = "pil", seed: int = 0) -> list[Any]:
    model = model_of(family, dtype)
    setup = Setup(Suite(steps=3, size=family_side(family), guidance_scale=3.0), model)
    arguments = {**setup.call_arguments(1), "output_type": output}
    groups, _ = model.draw([PROMPT], [seed], 2, chosen, arguments)
    return groups[0]


def latents(family: str, dtype: str, chosen: Method, seed: int = 0) -> Tensor:
    return torch.stack(draw(family, dtype, chosen, "latent", seed)).float()


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).square().mean().sqrt() / other.square().mean().sqrt())


@pytest.mark.parametrize("family", EACH)
def test_methods_stay_as_near_to_float32_as_plain_sampling(family: str) -> None:
    """Within six times the distance that bfloat16 makes without a method, plus 0.1 (rms).

    Networks of random weights magnify rounding on some noise and not on other: the largest over
    eight seeds is taken.
    """
    solver = type(model_of(family, "float32").pipe.scheduler).__name__
    plain = max(
        distance(
            *(latents(family, dtype, method("iid"), seed) for dtype in ("bfloat16", "float32"))
        )
        for seed in range(8)
    )
    for name in COMPARED:
        if name == "coupled" and solver != "DDPMScheduler":
            continue  # most solvers draw no noise
        half, full = (latents(family, dtype, method(name)) for dtype in ("bfloat16", "float32"))
        assert torch.isfinite(half).all(), name
        assert distance(half, full) <= 6 * plain + 0.1, (name, distance(half, full), plain)


@pytest.mark.parametrize("family", EACH)
def test_strength_zero_is_plain_sampling_bit_for_bit(family: str) -> None:
    plain = draw(family, "bfloat16", method("iid"))
    for name in ("pg", "repulsion", "eddy-exact", "eddy-fd", "eddy-hutch"):
        off = draw(family, "bfloat16", build_method(MethodSpec.parse(f"{name}:strength=0")))
        assert all(np.array_equal(a, b) for a, b in zip(off, plain, strict=True)), name


@dataclass(frozen=True)
class Watching(Method):
    """Keep what a method is given."""

    def guidance(self, state: State) -> None:
        seen.append(state)


seen: list[State] = []


@pytest.mark.parametrize("family", EACH)
def test_what_a_method_sees_is_float32(family: str) -> None:
    seen.clear()
    draw(family, "bfloat16", Watching())
    values = [value for state in seen for value in (state.particles, state.score, state.denoised)]
    assert {value.dtype for value in values} == {torch.float32}
    assert seen[0].features is not None
    assert seen[0].features.values(seen[0].denoised.flatten(0, 1)).dtype == torch.float32
    decoder = model_of(family, "bfloat16").decoder
    assert decoder is not None
    assert next(decoder.parameters()).dtype == torch.float32
    assert next(model_of(family, "bfloat16").pipe.vae.parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize("family", EACH)
def test_selection_draws_in_half_precision_too(family: str) -> None:
    images = draw(family, "bfloat16", method("best-of-m"))
    assert len(images) == 2
    assert all(np.isfinite(np.asarray(image, dtype=float)).all() for image in images)
