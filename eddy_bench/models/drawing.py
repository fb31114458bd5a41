"""Groups that a pipeline draws in one call, and what a method keeps of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from eddy_bench.methods.base import Method
from eddy_bench.methods.best_of_m import check_finite
from eddy_bench.models.bad_images import mark_call, watched_pixels
from eddy_bench.models.network_features import FeatureCost, NetworkFeatures
from eddy_bench.sampling.call import MapMaker
from eddy_bench.sampling.families import family_of
from eddy_bench.sampling.noise import (
    condition_generators,
    particle_generators,
    probe_generator,
    selection_generator,
)
from eddy_bench.sampling.preview import preview
from eddy_bench.sampling.steer import steer

if TYPE_CHECKING:
    from eddy_bench.models.base import Model


@dataclass
class DrawnTogether:
    """Groups that are drawn together.

    Args:
        model: that draws them.
        groups: prompt and seed of each.
        arguments: of the pipeline's call.
        maps: feature maps that were made, for what they cost.
        judged: finished images that went through the guide network.
        keep: images of each group in the end.
        active: particles that a method left in the last call; None: all.
        earlier: finished latents of the prompts' earlier groups, for a method that remembers them.
        finished: latents at the end of the last call, (G, N, d); None before.

    """

    model: Model
    groups: list[tuple[str, int]]
    arguments: dict[str, Any]
    maps: list[NetworkFeatures] = field(default_factory=list)
    judged: int = 0
    keep: int | None = None
    active: Tensor | None = None
    earlier: Tensor | None = None
    finished: Tensor | None = None

    def call(self, method: Method, slots: Sequence[Sequence[int]]) -> list[Any]:
        """Draw the particles in these slots of each group, as many in each, under a method."""
        ready = self._ready(slots)
        quality = self._quality(method.judge) if method.judge else None
        pipe = self.model.pipe
        with (
            steer(pipe, method, quality=quality, **ready.steering) as record,
            watched_pixels(pipe),
        ):
            output = ready.run()
        self.active, self.finished = record.active, record.finished
        images = list(output.image if hasattr(output, "image") else output.images)  # Kandinsky 5's
        mark_call(images, output, record.finished)
        return images

    def chosen_early(self, method: Method, particles: int) -> list[list[int]]:
        """Return the slots that a method keeps of each group after the first steps of all."""
        assert method.previewed is not None
        ready = self._ready([list(range(method.drawn(particles)))] * len(self.groups))
        state = preview(self.model.pipe, method.previewed, ready.run, **ready.steering)
        assert state.features is not None
        count = state.denoised.shape[1]
        features = state.features.values(state.denoised.flatten(0, 1)).unflatten(0, (-1, count))
        return self._choose(features, method, particles)

    def chosen(self, images: list[Any], method: Method, particles: int) -> list[Any]:
        """Return the images that a method keeps of each group, by the guide network."""
        if self.active is not None:
            active = self.active.flatten().tolist()
            return [image for image, left in zip(images, active, strict=True) if left]
        drawn = len(images) // len(self.groups)
        self.judged = len(images)
        features = [
            self.model.guide_features(images[k : k + drawn]) for k in range(0, len(images), drawn)
        ]
        return [
            images[k * drawn + index]
            for k, chosen in enumerate(self._choose(features, method, particles))
            for index in chosen
        ]

    def _choose(
        self, features: Iterable[Tensor], method: Method, particles: int
    ) -> list[list[int]]:
        parts = list(features)
        for part in parts:
            check_finite(part, method)
        return [
            method.choose(part, particles, selection_generator(seed, prompt))
            for part, (prompt, seed) in zip(parts, self.groups, strict=True)
        ]

    def _ready(self, slots: Sequence[Sequence[int]]) -> _Call:
        """Make a pipeline's call ready, with generators that are at their beginning."""
        pipe, model, drawn = self.model.pipe, self.model, len(slots[0])
        generators = [
            generators[slot]
            for (prompt, seed), chosen in zip(self.groups, slots, strict=True)
            for generators in [particle_generators(seed, prompt, max(chosen) + 1)]
            for slot in chosen
        ]
        steering = {
            "particles": drawn,
            "features": self._map_maker() if model.has_features else None,
            "probes": [probe_generator(seed, prompt) for prompt, seed in self.groups],
            "generator": generators,
            "keep": self.keep,
            "earlier": self.earlier,
            "streams": [
                stream
                for (prompt, seed), chosen in zip(self.groups, slots, strict=True)
                for stream in condition_generators(seed, prompt, chosen)
            ],
        }
        prompts = [prompt for prompt, _ in self.groups]
        call = {**rows_of(pipe, prompts, drawn, self.arguments), "generator": generators}
        return _Call(lambda: pipe(**call), steering)

    def _quality(self, name: str) -> Callable[[Tensor], Tensor]:
        """Return the judgement of denoised estimates (G, n, d) by the groups' prompts, (G, n)."""
        judge, prompts = self.model.judge(name), [prompt for prompt, _ in self.groups]

        def quality(points: Tensor) -> Tensor:
            seen = self.maps[0]  # decodes for the guide network, made before anything is judged
            judged = replace(seen, network=judge.backbone, modules=(), cost=FeatureCost())
            self.maps.append(judged)
            features = judged.values(points.flatten(0, 1)).unflatten(0, points.shape[:2])
            return judge.cosines(features, prompts)

        return quality

    def _map_maker(self) -> MapMaker:
        """Return the function from a particle's shape to its feature map, which joins `maps`."""
        size = None
        if "height" in self.arguments:
            size = (self.arguments["height"], self.arguments["width"])

        def make(shape: tuple[int, ...]) -> NetworkFeatures:
            self.maps.append(self.model.feature_map(shape, size))
            return self.maps[-1]

        return make


@dataclass(frozen=True)
class _Call:
    """Hold a pipeline's call, and the arguments that `steer` needs for it."""

    run: Callable[[], Any]
    steering: dict[str, Any]


def rows_of(
    pipe: Any, prompts: Sequence[str], count: int, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a pipeline's call for `count` images of each prompt.

    Some pipelines (`Family.astray_masks`) give the rows of several prompts each other's attention
    masks when they repeat them; for those the prompts are repeated beforehand.
    """
    if len(prompts) == 1 or not family_of(pipe).astray_masks:
        return {"prompt": list(prompts), "num_images_per_prompt": count, **arguments}
    repeated = {
        name: [text for text in arguments[name] for _ in range(count)]
        for name in ("negative_prompt",)
        if name in arguments
    }
    return {
        "prompt": [text for text in prompts for _ in range(count)],
        "num_images_per_prompt": 1,
        **arguments,
        **repeated,
    }
