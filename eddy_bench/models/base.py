"""A loaded model: a diffusers pipeline, what it costs, and what its kernels may see."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from eddy_bench.methods.base import Method
from eddy_bench.models.decoding import make_decode
from eddy_bench.models.families import family_of
from eddy_bench.models.images import image_tensor
from eddy_bench.sampling.feature_maps import NetworkFeatures
from eddy_bench.sampling.noise import particle_generators, probe_generator
from eddy_bench.sampling.steer import steer


@dataclass
class Cost:
    """Counted per image: network evaluations (both branches of guidance), decoder and feature passes of the method; seconds."""

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
        name: as asked for. pipe: a diffusers pipeline. fingerprint: of its weights. guide: images (n, c, h, w) in
            [-1, 1] to features, for feature kernels; never a scoring network. call: extra arguments of every call.
        check_prompt: from a prompt to a warning, or None. decoder: what decodes for the guide network; None is the pipeline's own autoencoder.
        feature_batch: rows that go through decoder and guide network at once. guide_name, decoder_name: with the digests of their weights. device: of the
            guide; the pipeline's own by default. notes: to be said after drawing.

    """

    name: str
    pipe: Any
    fingerprint: str = ""
    guide: Callable[[Tensor], Tensor] | None = None
    call: dict[str, Any] = field(default_factory=dict)
    check_prompt: Callable[[str], str | None] = lambda prompt: None
    decoder: torch.nn.Module | None = None
    feature_batch: int = 64
    guide_name: str = ""
    decoder_name: str = ""
    device: torch.device | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def has_features(self) -> bool:
        """Whether feature kernels can be used."""
        return self.guide is not None

    def feature_map(
        self, shape: tuple[int, ...], size: tuple[int, int] | None = None
    ) -> NetworkFeatures:
        """The guide network on decoded denoised estimates.

        Args:
            shape: of one particle as the solver holds it. size: height and width of the images, which packed latents need.

        """
        assert self.guide is not None
        decode = make_decode(
            self.pipe, self.decoder if self.decoder is not None else self.pipe.vae, size
        )
        return NetworkFeatures(decode, self.guide, shape, self.feature_batch)

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        particles: int,
        method: Method,
        arguments: dict[str, Any],
    ) -> tuple[list[list[Any]], Cost]:
        """The images of one batch of groups: one list of `particles` images per prompt, and what one image cost.

        Args:
            prompts, seeds: one per group. arguments: of the pipeline's call.

        Raises:
            EddyError: the method cannot be used here, or its guidance is not finite.

        """
        drawn = method.drawn(particles)
        generators = [
            generator
            for prompt, seed in zip(prompts, seeds, strict=True)
            for generator in particle_generators(seed, prompt, drawn)
        ]
        probes = [
            probe_generator(seed, prompt) for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        maps: list[NetworkFeatures] = []

        def features(shape: tuple[int, ...]) -> NetworkFeatures:
            maps.append(
                self.feature_map(
                    shape,
                    (arguments["height"], arguments["width"]) if "height" in arguments else None,
                )
            )
            return maps[-1]

        with (
            steer(
                self.pipe,
                method,
                particles=drawn,
                features=features if self.has_features else None,
                probes=probes,
                generator=generators,
            ),
            counted_rows(self.pipe) as rows,
        ):
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            start = _now()
            output = self.pipe(
                **rows_of(self.pipe, prompts, drawn, {**self.call, **arguments}),
                generator=generators,
            )
            images = list(output.images)
            if blacked := sum(map(bool, getattr(output, "nsfw_content_detected", None) or [])):
                self.notes.append(
                    f"{blacked} images were blacked out by the model's safety checker, and are scored so"
                )
            if drawn > particles:
                images = self._selected(images, drawn, particles, method)
            seconds = _now() - start
        count = len(images)
        cost = Cost(seconds / count, rows[0] / count, peak_memory_mb=peak_memory_mb())
        for used in maps:
            cost.decoder_calls += used.cost.decoder_calls / count
            cost.feature_forwards += used.cost.feature_forwards / count
            cost.feature_backwards += used.cost.feature_backwards / count
        if drawn > particles:
            cost.feature_forwards += len(generators) / count
        return [images[k : k + particles] for k in range(0, count, particles)], cost

    def _selected(self, images: list[Any], drawn: int, particles: int, method: Method) -> list[Any]:
        """What the method keeps of each prompt's images, by the guide network."""
        assert self.guide is not None
        kept = []
        for start in range(0, len(images), drawn):
            part = images[start : start + drawn]
            with torch.inference_mode():
                features = self.guide(
                    torch.stack([image_tensor(image) for image in part]).to(
                        self.device or self.pipe.device
                    )
                )
            kept += [part[k] for k in method.choose(features, particles)]
        return kept


def rows_of(
    pipe: Any, prompts: Sequence[str], count: int, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Arguments of a pipeline's call for `count` images of each prompt.

    Some pipelines (`MASKS_ASTRAY`) give the rows of several prompts each other's attention masks when they repeat them; for those the prompts
    are repeated beforehand.
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


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory_mb() -> float:
    """Peak memory, MiB: of the GPU since the batch began; without one, of the process so far, which later methods inherit."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def denoiser(pipe: Any) -> torch.nn.Module:
    """The network that a pipeline evaluates at every step."""
    for name in ("unet", "transformer", "denoiser"):
        module = getattr(pipe, name, None)
        if isinstance(module, torch.nn.Module):
            return module
    raise TypeError(f"{type(pipe).__name__} has no unet, transformer or denoiser")


@contextmanager
def counted_rows(pipe: Any) -> Iterator[list[int]]:
    """A list whose one number is the rows that went through the denoiser."""
    rows = [0]

    def count(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
        rows[0] += len(first) if first is not None else 0

    handle = denoiser(pipe).register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield rows
    finally:
        handle.remove()
