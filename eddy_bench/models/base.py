"""A loaded model: a diffusers pipeline, the cost of its images, and its guide network."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eddy_bench.methods.base import Method
from eddy_bench.models.decoding import guide_decoder, make_decode
from eddy_bench.models.drawing import DrawnTogether
from eddy_bench.models.earlier_seeds import EarlierSeeds, common_seed
from eddy_bench.models.images import image_tensor
from eddy_bench.models.judge import Judge, load_judge
from eddy_bench.models.memory import peak_bytes, reset_peak
from eddy_bench.models.network_features import NetworkFeatures
from eddy_bench.models.prompt_cache import PromptCache
from eddy_bench.models.row_limit import RowLimit
from eddy_bench.sampling.branch_checks import evaluation_of
from eddy_bench.sampling.replacing import replaced


@dataclass
class Cost:
    """The cost per image.

    Attributes:
        seconds_per_image: wall time, without the text encoders, which run once per prompt.
        nfe: network evaluations, both branches of guidance.
        decoder_calls: of the method.
        feature_forwards: of the method.
        feature_backwards: of the method.
        peak_memory_mb: MiB of the GPU, or of the process, while the batch was drawn; not divided
            by the images.

    """

    seconds_per_image: float = 0.0
    nfe: float = 0.0
    decoder_calls: float = 0.0
    feature_forwards: float = 0.0
    feature_backwards: float = 0.0
    peak_memory_mb: float = 0.0


@dataclass
class Model:
    """A pipeline ready to draw.

    Args:
        name: as asked for.
        pipe: a diffusers pipeline.
        fingerprint: of its weights.
        guide: images (n, c, h, w) in [-1, 1] to features, for feature kernels; never a scoring
            network.
        call: extra arguments of every call.
        check_prompt: from a prompt to a warning, or None.
        decoder: what decodes for the guide network, in float32; None is the pipeline's own
            autoencoder.
        row_limit: rows that go through decoder and guide network at once, remembered.
        prompts_fit: how many prompts share a forward pass since memory ran out; None before.
        guide_name: with the digest of its weights.
        decoder_name: with the digest of its weights.
        device: of the guide; the pipeline's own by default.
        notes: to be said after drawing.
        texts: what encodes the prompts, each once; None where each call encodes its own.
        earlier: what a method that remembers drew last, with what it was drawn with.
        weights: a folder with weights that cannot be downloaded.
        judges: of images by their prompt, by name, each loaded once.
        parts: of a pipeline object, by name, as `identity.parts_of` tells them.
        scheduler: the pipeline's own, whatever is put into its place.

    """

    name: str
    pipe: Any
    fingerprint: str = ""
    guide: Callable[[Tensor], Tensor] | None = None
    call: dict[str, Any] = field(default_factory=dict)
    check_prompt: Callable[[str], str | None] = lambda prompt: None
    decoder: torch.nn.Module | None = None
    row_limit: RowLimit = field(default_factory=RowLimit)
    prompts_fit: int | None = None
    guide_name: str = ""
    decoder_name: str = ""
    device: torch.device | None = None
    notes: list[str] = field(default_factory=list)
    texts: PromptCache | None = None
    earlier: tuple[object, EarlierSeeds] | None = None
    weights: Path | None = None
    judges: dict[str, Judge] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scheduler = self.pipe.scheduler

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
        decodes its images one at a time.
        """
        if prompts > 1:
            self.prompts_fit = prompts // 2
            return True
        vae: Any = getattr(self.pipe, "vae", None)
        if not hasattr(vae, "enable_slicing") or getattr(vae, "use_slicing", False):
            return False
        vae.enable_slicing()
        self.notes.append("memory: images are decoded one at a time")
        return True

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
            carries the reason (`bad_images.fault`).

        Raises:
            EddyError: the method cannot be used here, or its guidance is not finite.

        """
        drawn = method.drawn(particles)
        groups = list(zip(prompts, seeds, strict=True))
        batch = DrawnTogether(self, groups, {**self.call, **arguments}, keep=particles)
        if method.remembers:
            memory = self._earlier_seeds(method, particles, arguments, len(prompts))
            batch.earlier = memory.before(prompts, common_seed(seeds, method.title()))
        with counted_rows(self.pipe) as rows:
            reset_peak()
            start, encoding = _now(), self._encoding_seconds
            if method.previewed is not None and drawn > particles:
                images = batch.call(method, batch.chosen_early(method, particles))
            else:
                images = batch.call(method, [list(range(drawn))] * len(prompts))
                if drawn > particles:
                    images = batch.chosen(images, method, particles)
            seconds = _now() - start - (self._encoding_seconds - encoding)
        if method.remembers and batch.finished is not None:
            memory.keep(prompts, seeds[0], batch.finished)
        cost = _cost(seconds, rows[0], batch.maps, len(images))
        cost.feature_forwards += batch.judged / len(images)
        return [images[k : k + particles] for k in range(0, len(images), particles)], cost

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
        notes = [*self.notes, *filter(None, [self.row_limit.note])]
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


def _cost(seconds: float, rows: int, maps: Sequence[NetworkFeatures], count: int) -> Cost:
    """Return the cost of an image, of `count` of them."""
    cost = Cost(seconds / count, rows / count, peak_memory_mb=peak_bytes() / 2**20)
    for used in maps:
        cost.decoder_calls += used.cost.decoder_calls / count
        cost.feature_forwards += used.cost.feature_forwards / count
        cost.feature_backwards += used.cost.feature_backwards / count
    return cost


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
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
