"""A loaded model: a diffusers pipeline, the cost of its images, and its guide network."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eddy_bench.errors import ParameterError
from eddy_bench.methods.base import Method
from eddy_bench.methods.best_of_m import check_finite
from eddy_bench.models.backbones import Judge, load_judge
from eddy_bench.models.decoding import guide_decoder, make_decode
from eddy_bench.models.devices import CPU, peak_bytes, reset_peak, synchronize
from eddy_bench.models.images import image_tensor, mark_call, watched_pixels
from eddy_bench.models.network_features import FeatureCost, NetworkFeatures, RowLimit
from eddy_bench.models.prompts import PromptCache
from eddy_bench.sampling.call import MapMaker
from eddy_bench.sampling.families import evaluation_of, family_of
from eddy_bench.sampling.noise import (
    condition_generators,
    particle_generators,
    probe_generator,
    selection_generator,
)
from eddy_bench.sampling.session import replaced
from eddy_bench.sampling.steer import preview, steer

LIFELONG = "peak_memory_mb is of this process since it began: this system measures no other"


@dataclass
class Cost:
    """The cost per image."""

    # wall time, without the text encoders, which run once per prompt
    seconds_per_image: float = 0.0
    nfe: float = 0.0  # network evaluations, both branches of guidance
    decoder_calls: float = 0.0  # of the method
    feature_forwards: float = 0.0  # of the method
    feature_backwards: float = 0.0  # of the method
    # MiB of the GPU, or of the process, while the batch was drawn; not divided by the images
    peak_memory_mb: float = 0.0


@dataclass
class Model:
    """A pipeline ready to draw."""

    name: str  # as requested
    pipe: Any  # a diffusers pipeline
    fingerprint: str = ""  # of its weights
    # images (n, c, h, w) in [-1, 1] to features, for feature kernels; never a scoring network
    guide: Callable[[Tensor], Tensor] | None = None
    call: dict[str, Any] = field(default_factory=dict)  # extra arguments of every call
    check_prompt: Callable[[str], str | None] = lambda prompt: None  # a warning, or None
    # what decodes for the guide network, in float32; None is the pipeline's own autoencoder
    decoder: torch.nn.Module | None = None
    # rows that go through decoder and guide network at once, remembered
    row_limit: RowLimit = field(default_factory=RowLimit)
    prompts_fit: int | None = None  # that share a forward pass since memory ran out; None before
    guide_name: str = ""  # with the digest of its weights
    decoder_name: str = ""  # with the digest of its weights
    device: torch.device | None = None  # of the guide; the pipeline's own by default
    notes: list[str] = field(default_factory=list)  # to be said after drawing
    texts: PromptCache | None = None  # encodes each prompt once; None: each call encodes its own
    # what a method that remembers drew last, with what it was drawn with
    earlier: tuple[object, EarlierSeeds] | None = None
    weights: Path | None = None  # a folder with weights that cannot be downloaded
    judges: dict[str, Judge] = field(default_factory=dict)  # of images by prompt, each loaded once
    parts: dict[str, str] = field(default_factory=dict)  # of a pipeline object, by `parts_of`
    lora: list[str] = field(default_factory=list)  # fused: names with digests and scales

    def __post_init__(self) -> None:
        self.scheduler = self.pipe.scheduler  # its own, whatever is put into its place

    @property
    def has_features(self) -> bool:
        """Whether feature kernels can be used."""
        return self.guide is not None

    def feature_map(
        self, shape: tuple[int, ...], size: tuple[int, int] | None = None
    ) -> NetworkFeatures:
        """Return the guide network on decoded denoised estimates.

        Args:
            shape: of a particle as the solver holds it.
            size: height and width of the images, which packed latents need.
        """
        assert self.guide is not None
        if self.decoder is None:
            self.decoder = guide_decoder(self.pipe, apart=False)
        decoder = self.decoder
        parts = (decoder, getattr(self.guide, "module", None))
        return NetworkFeatures(
            make_decode(self.pipe, decoder, size),
            self.guide,
            shape,
            self.row_limit,
            [part for part in parts if isinstance(part, torch.nn.Module)],
        )

    def judge(self, name: str) -> Judge:
        """Return what judges images by their prompt."""
        if name not in self.judges:
            device = self.device or self.pipe.device
            self.judges[name] = load_judge(name, self.weights, device)
        return self.judges[name]

    def take_less(self, prompts: int) -> bool:
        """Settle on less after memory ran out; returns whether there was something left to do.

        Half as many prompts share a forward pass; where one is left, the pipeline's autoencoder
        decodes its images one at a time, and then in tiles, which change images.
        """
        if prompts > 1:
            self.prompts_fit = prompts // 2
            return True
        vae: Any = getattr(self.pipe, "vae", None)
        for kind, note in (
            ("slicing", "memory: images are decoded one at a time"),
            (
                "tiling",
                "memory: images are decoded in tiles, which changes them: `tiled` in group.json",
            ),
        ):
            if hasattr(vae, f"enable_{kind}") and not getattr(vae, f"use_{kind}", True):
                getattr(vae, f"enable_{kind}")()
                self.notes.append(note)
                return True
        return False

    @property
    def tiled(self) -> bool:
        """Whether images are decoded in tiles by now."""
        return bool(getattr(getattr(self.pipe, "vae", None), "use_tiling", False))

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        particles: int,
        method: Method,
        arguments: dict[str, Any],
    ) -> tuple[list[list[Any]], Cost]:
        """Draw a batch of groups.

        Args:
            prompts: one per group.
            seeds: one per group.
            particles: images to keep of each prompt.
            method: what guides or selects.
            arguments: of the pipeline's call.

        Returns:
            A list of `particles` images per prompt, and the cost of an image. What is no image
            carries the reason (`images.fault`).
        """
        drawn = method.drawn(particles)
        own: torch.device = getattr(self.pipe, "device", CPU)  # exact tasks have none
        device = self.device or own
        groups = list(zip(prompts, seeds, strict=True))
        batch = DrawnTogether(self, groups, {**self.call, **arguments}, keep=particles)
        if method.remembers:
            memory = self._earlier_seeds(method, particles, arguments, len(prompts))
            batch.earlier = memory.before(prompts, common_seed(seeds, method.title()))
        with counted_rows(self.pipe) as rows:
            if not reset_peak(device) and LIFELONG not in self.notes:
                self.notes.append(LIFELONG)
            start, encoding = _now(device), self._encoding_seconds
            if method.previewed is not None and drawn > particles:
                images = batch.call(method, batch.chosen_early(method, particles))
            else:
                images = batch.call(method, [list(range(drawn))] * len(prompts))
                if drawn > particles:
                    images = batch.chosen(images, method, particles)
            seconds = _now(device) - start - (self._encoding_seconds - encoding)
        if method.remembers and batch.finished is not None:
            memory.keep(prompts, seeds[0], batch.finished)
        count = len(images)
        cost = Cost(seconds / count, rows[0] / count, peak_memory_mb=peak_bytes(device) / 2**20)
        for used in batch.maps:
            cost.decoder_calls += used.cost.decoder_calls / count
            cost.feature_forwards += used.cost.feature_forwards / count
            cost.feature_backwards += used.cost.feature_backwards / count
        cost.feature_forwards += batch.judged / count
        return [images[k : k + particles] for k in range(0, count, particles)], cost

    def _earlier_seeds(
        self, method: Method, particles: int, arguments: dict[str, Any], size: int
    ) -> EarlierSeeds:
        """Return what was drawn with the same method, N, arguments and batch, or a new memory."""

        def draw(prompts: Sequence[str], seed: int, earlier: Tensor | None) -> Tensor:
            groups = [(prompt, seed) for prompt in prompts]
            batch = DrawnTogether(self, groups, {**self.call, **arguments}, earlier=earlier)
            batch.call(method, [list(range(particles))] * len(groups))
            assert batch.finished is not None
            return batch.finished

        same = (method, particles, str(arguments), size)
        if self.earlier is None or self.earlier[0] != same:
            self.earlier = same, EarlierSeeds(draw)
        return self.earlier[1]

    def take_notes(self) -> list[str]:
        """Return what there is to say of what was drawn so far, once."""
        notes = [note for note in (*self.notes, self.row_limit.note) if note]
        self.notes.clear()
        return notes

    def take_unkept(self) -> int:
        """Return how many encodings of prompts were not kept since this was asked last."""
        unkept = self.texts.unkept if self.texts is not None else 0
        if self.texts is not None:
            self.texts.unkept = 0
        return unkept

    @property
    def _encoding_seconds(self) -> float:
        return self.texts.seconds if self.texts is not None else 0.0

    def guide_features(self, images: Sequence[Any]) -> Tensor:
        """Return the guide network's features of finished images, (images, F)."""
        assert self.guide is not None
        device = self.device or self.pipe.device
        size = self.row_limit.forward
        with torch.inference_mode():
            parts = [
                self.guide(torch.stack([image_tensor(image) for image in part]).to(device))
                for part in (images[k : k + size] for k in range(0, len(images), size))
            ]
        return torch.cat(parts)


def _now(device: torch.device) -> float:
    synchronize(device)
    return time.perf_counter()


@contextmanager
def counted_rows(pipe: Any) -> Iterator[list[int]]:
    """Yield a list whose only number is the rows that went through the denoiser."""
    rows = [0]
    network, name = evaluation_of(pipe)
    inner = getattr(network, name)

    @functools.wraps(inner)
    def counted(*args: Any, **kwargs: Any) -> Any:
        first = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
        rows[0] += len(first) if first is not None else 0
        return inner(*args, **kwargs)

    with replaced(network, name, counted):
        yield rows


@dataclass
class DrawnTogether:
    """Groups that are drawn together."""

    model: Model  # that draws them
    groups: list[tuple[str, int]]  # prompt and seed of each
    arguments: dict[str, Any]  # of the pipeline's call
    # feature maps that were made, for what they cost
    maps: list[NetworkFeatures] = field(default_factory=list)
    judged: int = 0  # finished images that went through the guide network
    keep: int | None = None  # images of each group in the end
    active: Tensor | None = None  # particles that a method left in the last call; None: all
    # finished latents of the prompts' earlier groups, for a method that remembers them
    earlier: Tensor | None = None
    finished: Tensor | None = None  # latents at the end of the last call, (G, N, d); None before

    def call(self, method: Method, slots: Sequence[Sequence[int]]) -> list[Any]:
        """Draw the particles in these slots of each group, as many in each, under a method."""
        run, steering = self._ready(slots)
        quality = self._quality(method.judge) if method.judge else None
        pipe = self.model.pipe
        with steer(pipe, method, quality=quality, **steering) as record, watched_pixels(pipe):
            output = run()
        self.active, self.finished = record.active, record.finished
        images = list(output.image if hasattr(output, "image") else output.images)  # Kandinsky 5's
        mark_call(images, output, record.finished)
        return images

    def chosen_early(self, method: Method, particles: int) -> list[list[int]]:
        """Return the slots that a method keeps of each group after the first steps of all."""
        assert method.previewed is not None
        run, steering = self._ready([list(range(method.drawn(particles)))] * len(self.groups))
        state = preview(self.model.pipe, method.previewed, run, **steering)
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

    def _ready(self, slots: Sequence[Sequence[int]]) -> tuple[Callable[[], Any], dict[str, Any]]:
        """Return a call of the pipeline and what `steer` needs for it; generators begin anew."""
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
        return lambda: pipe(**call), steering

    def _quality(self, name: str) -> Callable[[Tensor], Tensor]:
        """Return the judgement of denoised estimates (G, n, d) by the groups' prompts, (G, n)."""
        judge = self.model.judge(name)
        texts = judge.texts([prompt for prompt, _ in self.groups])  # once for all steps

        def quality(points: Tensor) -> Tensor:
            seen = self.maps[0]  # decodes for the guide network, made before anything is judged
            judged = replace(seen, network=judge.backbone, modules=(), cost=FeatureCost())
            self.maps.append(judged)
            features = judged.values(points.flatten(0, 1)).unflatten(0, points.shape[:2])
            return judge.cosines(features, texts)

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


def rows_of(
    pipe: Any, prompts: Sequence[str], count: int, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a pipeline's call for `count` images of each prompt.

    Some pipelines (`Family.astray_masks`) give the rows of several prompts each other's attention
    masks when they repeat them; for those the prompts are repeated beforehand.
    """
    if len(prompts) == 1 or not family_of(pipe).astray_masks:
        return {"prompt": list(prompts), "num_images_per_prompt": count, **arguments}
    whole: dict[str, Any] = {"prompt": list(prompts), "num_images_per_prompt": 1, **arguments}
    repeated = {
        name: [text for text in whole[name] for _ in range(count)]
        for name in ("prompt", "negative_prompt")
        if name in whole
    }
    return whole | repeated


# (prompts, a seed, what they see of earlier seeds) to finished latents (G, N, d)
Draw = Callable[[Sequence[str], int, Tensor | None], Tensor]


@dataclass
class EarlierSeeds:
    """Finished latents by prompt and seed, for as long as the prompt is being drawn.

    They are a cache alone: what is missing is drawn, seed by seed, in a batch of as many prompts,
    so that a group is the same whatever was drawn before it in this process.
    """

    draw: Draw  # what draws groups, one per prompt, all of the same seed
    kept: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def before(self, prompts: Sequence[str], seed: int) -> Tensor | None:
        """Return the finished latents of all seeds below this one, (G, seed N, d); None at 0."""
        self.kept = {key: latents for key, latents in self.kept.items() if key[0] in prompts}
        for earlier in range(seed):
            lacking = [text for text in dict.fromkeys(prompts) if (text, earlier) not in self.kept]
            if lacking:
                padded = lacking + [lacking[-1]] * (len(prompts) - len(lacking))
                seen = self._stacked(padded, earlier)
                self.keep(padded, earlier, self.draw(padded, earlier, seen))
        return self._stacked(prompts, seed)

    def keep(self, prompts: Sequence[str], seed: int, finished: Tensor) -> None:
        """Keep the finished latents (G, N, d) of groups."""
        for prompt, latents in zip(prompts, finished.float().cpu(), strict=True):
            self.kept[prompt, seed] = latents

    def _stacked(self, prompts: Sequence[str], seed: int) -> Tensor | None:
        if not seed:
            return None
        seeds = range(seed)
        return torch.stack([torch.cat([self.kept[text, k] for k in seeds]) for text in prompts])


def common_seed(seeds: Sequence[int], method: str) -> int:
    """Return the one seed of a batch under a method that remembers earlier ones."""
    if len(set(seeds)) > 1:
        raise ParameterError(
            f"Expected one seed for all prompts of a batch under {method}, which sees earlier "
            f"seeds, got {sorted(set(seeds))}. Draw them one after another."
        )
    return seeds[0]
