"""Hooks on text embeddings and on the branches of guidance, on every family."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from eddy_bench.errors import ModelError
from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.base import Method
from eddy_bench.methods.iid import Iid
from eddy_bench.methods.registry import METHODS, build_method
from eddy_bench.models.base import Model
from eddy_bench.models.load import load_model
from eddy_bench.sampling import network_taps
from eddy_bench.sampling.families import Family, family_of
from eddy_bench.sampling.schedulers import set_scheduler
from eddy_bench.sampling.solver_view import Coordinates, Prediction
from eddy_bench.sampling.state import State, StepInfo
from eddy_bench.sampling.steer import steer
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.suite import Suite
from tests.makers.families import FAMILIES, family_model, family_side

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
STEPS, SCALE = 3, 2.5
PROMPTS = ("a red dress", "a dark sandal")
SCALED = ("euler", "euler-ancestral", "heun", "kdpm2", "lms")  # solvers that hold x / alpha_t
ALIEN = {
    ("pndm", "sample"),
    ("pndm", "v_prediction"),
    ("euler-ancestral", "sample"),
    ("kdpm2", "sample"),
}
PREDICTIONS: tuple[Prediction, ...] = ("epsilon", "sample", "v_prediction", "flow_prediction")
WITHOUT = ("flux2", "sana-sprint", "lcm")  # distilled: no branches


class Watch(Method):
    """Change nothing, and keep what was seen."""

    def __init__(self) -> None:
        object.__setattr__(self, "embeds", [])
        object.__setattr__(self, "moments", [])

    embeds: list[tuple[Tensor, Tensor]]
    moments: list[StepInfo]

    def condition(self, embeds: Tensor, mask: Tensor, info: StepInfo) -> Tensor:
        self.embeds.append((embeds.clone(), mask))
        self.moments.append(info)
        return embeds


class Scale(Method):
    """Guide at another scale, in one of the two ways."""

    def __init__(self, scale: float | None, combine: bool = False) -> None:
        object.__setattr__(self, "scale", scale)

    scale: float | None

    def guidance_scale(self, info: StepInfo) -> float | None:
        return self.scale


class Combined(Scale):
    """The same by combining the branches by hand."""

    def combine(self, conditional: Tensor, null: Tensor, scale: float, info: StepInfo) -> Tensor:
        return null + scale * (conditional - null)


class Noised(Method):
    """Noise on every embedding."""

    def condition(self, embeds: Tensor, mask: Tensor, info: StepInfo) -> Tensor:
        return embeds + info.noise(embeds)


class Denoised(Method):
    """Keep the conditional branch alone, and what it and the solver's step see of it."""

    def __init__(self) -> None:
        object.__setattr__(self, "combined", [])
        object.__setattr__(self, "stepped", [])

    combined: list[Tensor]
    stepped: list[Tensor]

    def combine(self, conditional: Tensor, null: Tensor, scale: float, info: StepInfo) -> Tensor:
        assert not torch.equal(conditional, null)
        self.combined.append(conditional)
        return conditional

    def guidance(self, state: State) -> Tensor | None:
        self.stepped.append(state.denoised)
        return None

    def agree(self) -> None:
        assert len(self.combined) == len(self.stepped) >= STEPS
        for combined, stepped in zip(self.combined, self.stepped, strict=True):
            assert (combined - stepped).abs().max() < 1e-4 * stepped.abs().max()


def draw(
    family: str, method: Any, prompts: Sequence[str] = PROMPTS[:1], scale: float = SCALE
) -> tuple[Tensor, Any]:
    model = family_model(family)
    suite = Suite(steps=STEPS, size=family_side(family), guidance_scale=scale)
    arguments = {**Setup(suite, model).call_arguments(len(prompts)), "output_type": "latent"}
    if family == "flux":  # without a negative prompt it is distilled
        arguments |= {"true_cfg_scale": scale, "negative_prompt": ["a dark bag"] * len(prompts)}
        arguments["guidance_scale"] = 2.0  # the embedded one, another thing
    drawn, cost = model.draw(prompts, [0] * len(prompts), 2, method, arguments)
    return torch.stack([latent for group in drawn for latent in group]), cost


@pytest.mark.parametrize("family", FAMILIES)
def test_hooks_that_change_nothing_are_neutral(family: str) -> None:
    prompts = PROMPTS[:1] if family_of(family_model(family).pipe).one_prompt else PROMPTS
    plain, cost = draw(family, Iid(), prompts)
    watch = Watch()
    watched, same = draw(family, watch, prompts)
    assert torch.equal(plain, watched)
    assert cost.nfe == same.nfe
    count = len(family_of(family_model(family).pipe).embeddings)
    evaluations = len({info.step for info in watch.moments})
    assert evaluations >= STEPS
    assert len(watch.embeds) == evaluations * count * len(prompts)
    for embeds, mask in watch.embeds:
        assert embeds.shape[0] == 2
        assert mask.shape == embeds.shape[:2]
        assert mask.any()
        assert torch.equal(embeds[0], embeds[1]), "both particles have the prompt's embedding"
    if family not in WITHOUT:
        left, _ = draw(family, Scale(None), prompts)
        assert torch.equal(plain, left)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in WITHOUT])
def test_a_scale_of_1_is_the_conditional_branch_alone(family: str) -> None:
    """Bit for bit a run at scale 1, and its rows are counted."""
    one = 1.0 - family_of(family_model(family).pipe).scale_offset
    alone, cost = draw(family, Iid(), scale=one)
    spared, same = draw(family, Scale(1.0))
    assert torch.equal(alone, spared)
    assert cost.nfe == same.nfe


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in WITHOUT])
def test_another_scale_is_a_run_at_that_scale(family: str) -> None:
    offset = family_of(family_model(family).pipe).scale_offset
    expected, cost = draw(family, Iid(), scale=4.0 - offset)
    size = expected.abs().mean()
    for method in (Scale(4.0), Combined(4.0)):
        changed, same = draw(family, method)
        assert (changed - expected).abs().max() < 1e-4 * size
        assert cost.nfe == same.nfe
    usual, _ = draw(family, Iid(), scale=SCALE - offset)
    by_hand, _ = draw(family, Combined(None), scale=SCALE - offset)
    assert (by_hand - usual).abs().max() < 1e-4 * size


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in WITHOUT])
def test_branches_are_combined_as_the_solver_s_denoised_estimates(family: str) -> None:
    """Whatever the sign, scale, shape and parameterisation of what the network sees and returns."""
    method = Denoised()
    draw(family, method)
    method.agree()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m", "unipc", "pndm", *SCALED])
def test_the_estimates_are_those_of_any_solver(solver: str, prediction: str) -> None:
    """Some hold x / alpha_t and hand the network x."""
    model = load_model("exact:class-ring", device="cpu")
    if (solver, prediction) in ALIEN:
        pytest.skip("the solver takes no such prediction")
    set_scheduler(model.pipe, solver, {"prediction_type": prediction})
    method = Denoised()
    call = {"num_inference_steps": STEPS, "guidance_scale": SCALE}
    model.draw(["class 1"], [0], 2, method, call)
    method.agree()


COMBINING = [name for name in METHODS if build_method(MethodSpec.parse(name)).combines]


@pytest.mark.parametrize("name", COMBINING)
def test_a_method_that_combines_branches_edits_x0_alike_whatever_is_predicted(name: str) -> None:
    method = build_method(MethodSpec.parse(name))
    xb, own, null = (2 * torch.randn(4, 3, 2, 2, dtype=torch.float64) for _ in range(3))
    noise_level, edits = 3.0, []
    for prediction in PREDICTIONS:
        flow = prediction == "flow_prediction"
        alpha = 1 / (1 + noise_level) if flow else (1 + noise_level**2) ** -0.5
        space = Coordinates(alpha, noise_level * alpha, prediction)
        x = alpha * xb
        outputs = [predicted(space, x, estimate) for estimate in (own, null)]
        memory: dict[str, Any] = {}
        for _ in range(2):  # a second evaluation with the momentum of the first
            info = StepInfo(0, 2, noise_level, 2.0, memory=memory)
            call = call_at(space, method)
            guided = network_taps._combined(call, outputs[0], outputs[1], 5.0, info, x)
        edits.append(space.read(x, guided)[2] - own)
    for edit in edits:
        assert torch.allclose(edit, edits[0], rtol=1e-9, atol=1e-9)
    assert edits[0].abs().max() > 0.1


def predicted(space: Coordinates, x: Tensor, denoised: Tensor) -> Tensor:
    """What a network of this prediction returns where it estimates x0 so."""
    eps = (x - space.alpha_t * denoised) / space.sigma_t
    return {
        "epsilon": eps,
        "sample": denoised,
        "v_prediction": space.alpha_t * eps - space.sigma_t * denoised,
        "flow_prediction": eps - denoised,
    }[space.prediction]


def call_at(space: Coordinates, method: Method) -> Any:
    view = SimpleNamespace(at=lambda index: space)
    return SimpleNamespace(
        method=method,
        family=Family("Any"),
        view=view,
        index=0,
        rows=4,
        count=lambda rows: rows // 2,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_on_a_condition_belongs_to_its_particle(family: str) -> None:
    """It changes the images, the same way in any batch, and every particle in its own way."""
    prompts = PROMPTS[:1] if family_of(family_model(family).pipe).one_prompt else PROMPTS
    plain, _ = draw(family, Iid(), prompts)
    noised, _ = draw(family, Noised(), prompts)
    assert not torch.allclose(plain, noised)
    again, _ = draw(family, Noised(), prompts)
    assert torch.equal(noised, again)
    alone, _ = draw(family, Noised(), prompts[:1])
    padding = family_of(family_model(family).pipe).pads_to_longest
    if not padding:
        assert (alone - noised[:2]).abs().max() < 1e-3 * noised.abs().mean()
    drift = noised - plain
    assert (drift[0] - drift[1]).abs().max() > 1e-3 * drift.abs().max()


def test_only_the_conditional_branch_is_changed() -> None:
    """With noise on the condition and w = 0 the images are the null branch's own."""
    model = load_model("fashion", device="cpu")
    call = {"num_inference_steps": STEPS, "guidance_scale": 3.0, "output_type": "latent"}

    class Null(Noised):
        def guidance_scale(self, info: StepInfo) -> float | None:
            return 0.0

    class Both(Method):
        def guidance_scale(self, info: StepInfo) -> float | None:
            return 0.0

    noised, _ = model.draw(PROMPTS, [0, 0], 2, Null(), call)
    plain, _ = model.draw(PROMPTS, [0, 0], 2, Both(), call)
    assert torch.equal(torch.stack(noised[0]), torch.stack(plain[0]))
    other, _ = model.draw(PROMPTS, [0, 0], 2, Noised(), call)
    assert not torch.allclose(torch.stack(other[0]), torch.stack(plain[0]))


def test_padding_is_left_alone() -> None:
    """Families with masks: what the network sees past the mask is what was encoded."""
    seen: list[Any] = []
    model = family_model("pixart-sigma")
    original = model.pipe.transformer.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        seen.append((kwargs["encoder_hidden_states"], kwargs["encoder_attention_mask"]))
        return original(*args, **kwargs)

    model.pipe.transformer.forward = forward
    try:
        draw("pixart-sigma", Iid())
        plain = list(seen)
        seen.clear()
        draw("pixart-sigma", Noised())
    finally:
        model.pipe.transformer.forward = original
    for (before, mask), (after, _) in zip(plain, seen, strict=True):
        rows = len(before) // 2
        padding = mask[rows:].reshape(rows, -1) == 0
        assert padding.any()
        assert torch.equal(before[rows:][padding], after[rows:][padding])
        assert not torch.equal(before[rows:][~padding], after[rows:][~padding])
        assert torch.equal(before[:rows], after[:rows]), "the null branch"


@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m", "heun", "euler", "unipc", "pndm"])
def test_moments(solver: str) -> None:
    """Each evaluation is dated; noise levels fall from one to the next, to the data's end."""

    class Dated(Watch):
        def guidance(self, state: State) -> Tensor | None:
            self.states.append(state)
            state.memory[str(state.step)] = state.sigma
            return None

    watch = Dated()
    object.__setattr__(watch, "states", [])
    model = load_model("fashion", device="cpu")
    set_scheduler(model.pipe, solver, {})
    call = {"num_inference_steps": 5, "guidance_scale": 3.0, "output_type": "latent"}
    for _ in range(2):
        watch.moments.clear()
        watch.states.clear()  # type: ignore[attr-defined]
        model.draw(PROMPTS[:1], [0], 2, watch, call)
        states = watch.states  # type: ignore[attr-defined]
        assert [info.sigma for info in watch.moments] == [state.sigma for state in states]
        assert all(info.scale == 3.0 for info in watch.moments)
        assert all(0 <= info.share < 1 for info in watch.moments)
        if solver in ("ddim", "dpmpp-2m", "euler", "unipc"):
            after = [info.sigma_next for info in watch.moments[:-1]]
            assert after == pytest.approx([m.sigma for m in watch.moments[1:]], rel=1e-6)
        assert watch.moments[-1].sigma_next < 0.1
        times = [info.time for info in watch.moments]
        assert times == sorted(times, reverse=True)
        assert 0.7 < times[0] <= 1
        assert watch.moments[0].memory == {str(k): states[k].sigma for k in range(len(states))}
    set_scheduler(model.pipe, "ddim", {})


def test_it_works_in_anyones_code() -> None:
    """`steer` alone, with an encode_prompt of the pipeline's own; the pipeline is as it was."""
    pipe = load_model("fashion", device="cpu").pipe
    kind, forward = type(pipe), pipe.unet.forward
    generators = [torch.Generator().manual_seed(k) for k in range(2)]

    def call(scale: float) -> Tensor:
        for k, generator in enumerate(generators):
            generator.manual_seed(k)
        return pipe(
            "a red dress",
            num_images_per_prompt=2,
            num_inference_steps=STEPS,
            guidance_scale=scale,
            generator=generators,
            output_type="latent",
        ).images

    alone = call(1.0)
    with steer(pipe, Scale(1.0)):
        assert torch.equal(call(4.0), alone)
    with steer(pipe, Noised(), seed=1):
        first, second = call(4.0), call(4.0)
    assert torch.equal(first, second), "each call begins anew"
    assert type(pipe) is kind
    assert pipe.unet.forward == forward


def test_each_call_of_a_block_has_its_own_number_of_particles() -> None:
    """Also where no `encode_prompt` tells: an exact task has none."""
    pipe = load_model("exact:class-ring", device="cpu").pipe
    assert not hasattr(pipe, "encode_prompt")
    watch = Watch()
    with steer(pipe, watch):
        for count in (4, 2):
            pipe(
                ["a", "b"], num_images_per_prompt=count, num_inference_steps=2, guidance_scale=SCALE
            )
    sizes = [len(embeds) for embeds, _ in watch.embeds]
    assert sizes == [4] * (len(sizes) // 2) + [2] * (len(sizes) // 2)


def test_what_cannot_be_changed_is_refused() -> None:
    with pytest.raises(ModelError, match="has no classifier-free guidance"):
        draw("flux2", Scale(1.0))
    with pytest.raises(ModelError, match=r"draws without classifier-free guidance.*scale is 1"):
        draw("sd15", Scale(2.0), scale=1.0)
    with pytest.raises(ModelError, match=r"draws without classifier-free guidance"):
        draw("flux", Scale(2.0), scale=1.0)  # distilled
    exact: Model = load_model("exact:ring8", device="cpu")
    for method, words in (
        (Noised(), "no text embeddings here"),
        (Scale(1.0), "without classifier-free guidance"),
    ):
        with pytest.raises(ModelError, match=words):
            exact.draw(["a"], [0], 2, method, {"num_inference_steps": 2})
