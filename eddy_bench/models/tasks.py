"""Tasks: distributions whose score is known exactly, by name or from YAML files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eddy_bench.errors import UnknownName, unknown
from eddy_bench.models.attributes import CLASSES, parse
from eddy_bench.models.conditional import Classes, orthogonal
from eddy_bench.models.mixture import Mixture
from eddy_bench.models.random_network import RandomNetwork
from eddy_bench.models.task_file import read_task_file

IMAGES = Path(__file__).parents[1] / "assets" / "reference" / "train.npz"
SIDE = 28  # of a Fashion-MNIST image
PICTURE = 32  # pixels across, as the embedded model's
KERNEL_STD = 0.2  # of fashion-kde's components, for pixels in [-1, 1]
MAX_MODES = 64  # with more components than this, counting them says nothing about a group
TASKS = {
    "ring8": "8 modes on a circle of radius 4, standard deviation 0.3",
    "ring10": "10 modes on the unit circle, variance 0.005, N = 10 (arXiv 2310.13102)",
    "grid25": "5 x 5 modes at distance 2, standard deviation 0.2",
    "mixture-64d": "20 random modes in 64 dimensions",
    "anisotropic": "6 elongated, turned modes with weights from 0.05 to 0.3",
    "ring8-features": "ring8 whose feature kernels see a smooth network of random weights",
    "mixture-64d-features": "mixture-64d with such a network",
    "class-ring": "ring8 in 4 classes of unlike mode weights, guidance 3: exact p(x | c)",
    "class-64d": "mixture-64d in 5 classes, guidance 3",
    "fashion-kde": (
        "kernel density over 2,500 real garments, one Gaussian (std 0.2) per image, "
        "those of the prompt's class; fashion-kde:CLASS in an audit"
    ),
}
DEFAULT_TASKS = ("ring8", "ring10", "grid25", "mixture-64d", "anisotropic")


@dataclass(frozen=True)
class Task:
    """A known distribution.

    Args:
        name: as in tables.
        mixture: of prompts that fix nothing.
        particles: N of an audit by default.
        groups: of an audit by default.
        of_prompt: from a prompt to its mixture.
        network: what feature kernels see in an audit; None where there is nothing.
        classes: what a condition means; `mixture` is then p(x | c) of `prompt`.
        prompt: of an audit.
        guidance_scale: of an audit.

    """

    name: str
    mixture: Mixture
    particles: int = 8
    groups: int = 1500
    of_prompt: Callable[[str], Mixture] | None = None
    network: RandomNetwork | None = None
    classes: Classes | None = None
    prompt: str = ""
    guidance_scale: float = 1.0

    @property
    def counts_modes(self) -> bool:
        """Whether the number of components in a group says how diverse it is."""
        return 2 <= len(self.mixture.means) <= MAX_MODES

    @property
    def digest(self) -> str:
        """A sha256 over everything that defines the task, its first 16 hex digits."""
        parts = [
            self.mixture.means,
            self.mixture.variances,
            self.mixture.weights,
            self.mixture.basis,
            *((self.network.first, self.network.second) if self.network else ()),
            *((self.classes.shares, self.classes.turn) if self.classes else ()),
        ]
        text = b"".join(
            b"" if part is None else part.numpy().tobytes() + str(tuple(part.shape)).encode()
            for part in parts
        )
        return hashlib.sha256(text).hexdigest()[:16]

    def pictures(self, samples: Tensor) -> list[Image.Image]:
        """Show samples (rows, d) as 8-bit grey pictures.

        Images are shown as they are, points of the plane as a dot, others as a map of their
        coordinates.
        """
        pixels = self._pixels(samples.detach().double().cpu())
        return [
            Image.fromarray(picture)
            for picture in ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
        ]

    def _pixels(self, samples: Tensor) -> Tensor:
        """Return pictures in [-1, 1], (rows, 32, 32)."""
        dimension = samples.shape[1]
        if self.of_prompt is not None:
            return torch.nn.functional.pad(
                samples.reshape(-1, SIDE, SIDE), [(PICTURE - SIDE) // 2] * 4, value=-1.0
            )
        if dimension == 2:
            return 2 * self._dots(samples) - 1
        side = math.ceil(dimension**0.5)
        filled = torch.nn.functional.pad(
            samples / (3 * self.mixture.scale()), [0, side**2 - dimension]
        )
        return torch.nn.functional.interpolate(
            filled.reshape(-1, 1, side, side), size=(PICTURE, PICTURE)
        )[:, 0]

    def _dots(self, samples: Tensor) -> Tensor:
        """Return a Gaussian dot two pixels wide at each sample, (rows, 32, 32).

        The frame shows 3 standard deviations each way.
        """
        axis = torch.linspace(-1, 1, PICTURE, dtype=samples.dtype)
        point = samples / (3 * self.mixture.scale())
        x, y = (torch.exp(-0.5 * ((axis - point[:, k : k + 1]) * PICTURE / 4) ** 2) for k in (0, 1))
        return y.flip(1)[:, :, None] * x[:, None, :]


def load_task(name: str) -> Task:
    """Load a task by name, or from a YAML file: name, means, covariances, weights, features.

    Raises:
        UnknownName: neither a task nor a file.
        SuiteError: a file that is no task.

    """
    if name in _MAKERS:
        return _MAKERS[name]()
    if name.startswith("fashion-kde:") and name != "fashion-kde:":
        return _garments(name.partition(":")[2])
    if Path(name).is_file():
        title, mixture, sees_features = read_task_file(Path(name))
        task = Task(title, mixture)
        return _with_network(task, title) if sees_features else task
    raise UnknownName(unknown("task", name, TASKS) + " Or give a YAML file.")


def _equal(means: Tensor, variance: float) -> Mixture:
    count = len(means)
    return Mixture(
        means,
        torch.full((count,), variance, dtype=torch.float64),
        torch.full((count,), 1 / count, dtype=torch.float64),
    )


def _circle(count: int, radius: float) -> Tensor:
    angle = torch.arange(count, dtype=torch.float64) * (2 * torch.pi / count)
    return radius * torch.stack([angle.cos(), angle.sin()], 1)


def _ring8() -> Task:
    return Task("ring8", _equal(_circle(8, 4.0), 0.3**2))


def _ring10() -> Task:
    return Task("ring10", _equal(_circle(10, 1.0), 0.005), particles=10)


def _grid25() -> Task:
    axis = torch.arange(-2, 3, dtype=torch.float64) * 2
    return Task("grid25", _equal(torch.cartesian_prod(axis, axis), 0.2**2))


def _mixture64() -> Task:
    generator = torch.Generator().manual_seed(64)
    return Task(
        "mixture-64d",
        _equal(torch.randn(20, 64, generator=generator, dtype=torch.float64), 0.3**2),
        groups=400,
    )


def _with_network(task: Task, name: str) -> Task:
    return replace(task, name=name, network=RandomNetwork.of(task.mixture))


def _anisotropic() -> Task:
    count = 6
    means = _circle(count, 3.0)
    angle = torch.arange(count, dtype=torch.float64) * 0.7
    basis = torch.stack(
        [torch.stack([angle.cos(), -angle.sin()], 1), torch.stack([angle.sin(), angle.cos()], 1)], 1
    )
    variances = torch.tensor([[0.6**2, 0.15**2]], dtype=torch.float64).repeat(count, 1)
    weights = torch.tensor([0.05, 0.1, 0.15, 0.2, 0.2, 0.3], dtype=torch.float64)
    return Task("anisotropic", Mixture(means, variances, weights, basis))


def _in_classes(task: Task, name: str, count: int) -> Task:
    """Divide a task's modes among classes: each likes a few modes, and has the others too."""
    modes = len(task.mixture.means)
    liking = torch.linspace(0, 2.5, modes, dtype=torch.float64).neg().exp()
    shares = torch.stack([liking.roll(c * modes // count) for c in range(count)])
    classes = Classes(task.mixture, shares / shares.sum(1, keepdim=True), orthogonal(modes, seed=8))
    prompt = "class 0"
    return replace(
        task,
        name=name,
        mixture=classes.law(prompt),
        classes=classes,
        prompt=prompt,
        guidance_scale=3.0,
    )


@cache
def _garment_mixture(garment: int | None) -> Mixture:
    with np.load(IMAGES) as data:
        images, labels = data["images"], data["attributes"][:, 0]
    chosen = images if garment is None else images[labels == garment]
    return _equal(torch.from_numpy(chosen.reshape(len(chosen), -1) / 127.5 - 1.0), KERNEL_STD**2)


def _of_prompt(prompt: str) -> Mixture:
    return _garment_mixture(parse(prompt).garment)


def _garments(garment: str = "") -> Task:
    named = parse(garment).garment
    if garment and named is None:
        raise UnknownName(unknown("garment", garment, [nouns[0] for nouns in CLASSES]))
    return Task(
        f"fashion-kde:{garment}" if garment else "fashion-kde",
        _garment_mixture(named),
        4,
        100,
        _of_prompt,
    )


_MAKERS: dict[str, Callable[[], Task]] = {
    "ring8": _ring8,
    "ring10": _ring10,
    "grid25": _grid25,
    "mixture-64d": _mixture64,
    "anisotropic": _anisotropic,
    "ring8-features": lambda: _with_network(_ring8(), "ring8-features"),
    "mixture-64d-features": lambda: _with_network(_mixture64(), "mixture-64d-features"),
    "class-ring": lambda: _in_classes(_ring8(), "class-ring", 4),
    "class-64d": lambda: _in_classes(_mixture64(), "class-64d", 5),
    "fashion-kde": partial(_garments, ""),
}
