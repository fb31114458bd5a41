"""A smooth network of random weights, in the place of a guide network on exact tasks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from eddy_bench.errors import SuiteError, UnknownName, unknown
from eddy_bench.models.attributes import CLASSES, parse
from eddy_bench.models.mixture import Classes, Mixture, orthogonal
from eddy_bench.models.network_features import NetworkFeatures, RowLimit
from eddy_bench.storage.files import read_yaml

HIDDEN, FEATURES = 64, 16
ROWS = 2**13  # points at once: their hidden values stay near the processor's cache
SEED = 16


@dataclass(frozen=True)
class RandomNetwork:
    """Features phi(x) = tanh(tanh((x - centre) W / scale + b) V), float64.

    Two layers of tanh, d -> 64 -> 16, with curvature everywhere: what a feature kernel needs, and
    nothing that knows of the task's modes.
    """

    centre: Tensor  # the mixture's mean, (d,)
    scale: float  # the mixture's standard deviation
    first: Tensor  # W, (d, 64)
    bias: Tensor  # b, (64,)
    second: Tensor  # V, (64, 16)

    @classmethod
    def of(cls, mixture: Mixture) -> RandomNetwork:
        """Return the network of a task: always the same weights for a number of dimensions.

        W has variance 2 / d, so that typical points reach the bends of tanh, V 1 / 64.
        """
        generator = torch.Generator().manual_seed(SEED)
        draw = partial(torch.randn, generator=generator, dtype=torch.float64)
        dimension = mixture.dimension
        first = draw(dimension, HIDDEN) * (2 / dimension) ** 0.5
        bias = draw(HIDDEN) * 0.5
        second = draw(HIDDEN, FEATURES) * HIDDEN**-0.5
        return cls(mixture.weights @ mixture.means, mixture.scale(), first, bias, second)

    def __call__(self, points: Tensor) -> Tensor:
        """Return phi at points (rows, d), (rows, 16), each within (-1, 1)."""
        hidden = torch.tanh((points - self.centre) / self.scale @ self.first + self.bias)
        return torch.tanh(hidden @ self.second)

    def feature_map(self, shape: tuple[int, ...]) -> NetworkFeatures:
        """Return the network as the map that feature kernels see."""
        # points as they are: there is no decoder
        return NetworkFeatures(lambda x: x.flatten(1).double(), self, shape, RowLimit.of(ROWS))


MAX_BYTES = 64 * 2**20
# Standard deviations of a task between which sampling starts from noise and ends at data
SCALES = (0.1, 10.0)
SMALLEST = 0.01

Finite = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=1e-12, le=1e12, allow_inf_nan=False)]


class TaskFile(BaseModel):
    """The contents of a task's YAML file.

    Attributes:
        name: as in tables.
        means: K rows of d numbers.
        covariances: one variance, K variances, K diagonals of d, or K full d x d matrices (never
            one matrix for all: K rows of d numbers are diagonals).
        weights: K positive numbers, made to sum to 1; equal when left out.
        features: `random` gives feature kernels a smooth network of random weights in an audit.
    """

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
    means: Annotated[list[Annotated[list[Finite], Field(min_length=1)]], Field(min_length=1)]
    covariances: Positive | list[Positive] | list[list[Positive]] | list[list[list[Finite]]]
    weights: list[Positive] | None = None
    features: Literal["random"] | None = None


def read_task_file(path: Path) -> tuple[str, Mixture, bool]:
    """Read a task from a YAML file: its name, its mixture, and whether kernels see features.

    Raises:
        SuiteError: not YAML, a missing or unknown key, a number out of range, shapes that do not
            fit, or a matrix that is no covariance.
    """
    data = read_yaml(path, SuiteError, "a task", MAX_BYTES)
    try:
        file = TaskFile.model_validate(data)
    except ValidationError as error:
        raise SuiteError(f"{path}: {_first_problem(error, data)}") from None
    mixture = _mixture(file, path)
    centre = float((mixture.weights @ mixture.means).norm())
    scale, smallest = mixture.scale(), float(mixture.variances.min()) ** 0.5
    if not SCALES[0] <= scale <= SCALES[1] or centre > 5 * SCALES[1] or smallest < SMALLEST:
        raise SuiteError(
            f"{path}: the noise levels of the schedule fit a standard deviation from {SCALES[0]} "
            f"to {SCALES[1]}, a mean within {5 * SCALES[1]:g} of 0 and modes no narrower than "
            f"{SMALLEST}; here they are {scale:.3g}, {centre:.3g} and {smallest:.3g}. "
            "Shift and rescale the task."
        )
    return file.name, mixture, file.features is not None


def _first_problem(error: ValidationError, data: Any) -> str:
    if not isinstance(data, dict):
        return f"expected the keys {', '.join(TaskFile.model_fields)}, got {type(data).__name__}."
    problem = error.errors()[0]
    key = str(problem["loc"][0]) if problem["loc"] else ""
    if problem["type"] == "extra_forbidden":
        return unknown("key", key, TaskFile.model_fields)
    if key == "covariances":
        return (
            "covariances: expected one positive number, one per mode, a diagonal per mode, "
            "or a full matrix per mode, all finite."
        )
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}."


def _mixture(file: TaskFile, path: Path) -> Mixture:
    count, dimension = len(file.means), len(file.means[0])
    if any(len(row) != dimension for row in file.means):
        raise SuiteError(
            f"{path}: means: expected {dimension} numbers in every row, as in the first."
        )
    weights = torch.tensor(file.weights or [1.0] * count, dtype=torch.float64)
    if len(weights) != count:
        raise SuiteError(f"{path}: weights: expected {count}, one per mode, got {len(weights)}.")
    covariances = _covariances(file, path, count, dimension)
    means, weights = torch.tensor(file.means, dtype=torch.float64), weights / weights.sum()
    if covariances.ndim < 3:
        each = covariances.expand(count) if covariances.ndim == 0 else covariances
        return Mixture(means, each, weights)
    variances, basis = _axes(covariances, path)
    return Mixture(means, variances, weights, basis)


def _covariances(file: TaskFile, path: Path, count: int, dimension: int) -> Tensor:
    """Return covariances of shape (), (K,), (K, d) or (K, d, d)."""
    try:
        covariances = torch.tensor(file.covariances, dtype=torch.float64)
    except ValueError:
        covariances = torch.empty(0)
    by_mode, diagonals, full = (count,), (count, dimension), (count, dimension, dimension)
    if tuple(covariances.shape) not in ((), by_mode, diagonals, full):
        raise SuiteError(
            f"{path}: covariances: expected one number, or the shape {by_mode}, {diagonals} "
            f"or {full}."
        )
    return covariances


def _axes(covariances: Tensor, path: Path) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues (K, d) and eigenvectors (K, d, d) of covariances."""
    if (covariances - covariances.mT).abs().max() > 1e-9 * covariances.abs().max():
        raise SuiteError(f"{path}: covariances: expected symmetric matrices.")
    variances, basis = torch.linalg.eigh(covariances)
    if variances.min() <= 1e-12 * variances.max():
        raise SuiteError(
            f"{path}: covariances: expected positive definite matrices, "
            f"got one with the eigenvalue {float(variances.min()):.3g}."
        )
    return variances, basis


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
    """A known distribution."""

    name: str  # as in tables
    mixture: Mixture  # of prompts that fix nothing
    particles: int = 8  # N of an audit by default
    groups: int = 1500  # of an audit by default
    of_prompt: Callable[[str], Mixture] | None = None  # from a prompt to its mixture
    # what feature kernels see in an audit; None where there is nothing
    network: RandomNetwork | None = None
    classes: Classes | None = None  # what a condition means; `mixture` is then p(x | c) of `prompt`
    prompt: str = ""  # of an audit
    guidance_scale: float = 1.0  # of an audit

    @property
    def counts_modes(self) -> bool:
        """Whether the number of components in a group says how diverse it is."""
        return 2 <= len(self.mixture.means) <= MAX_MODES

    @property
    def digest(self) -> str:
        """A sha256 over everything that defines the task, its first 16 hex digits."""
        mixture = self.mixture
        parts = [
            *(mixture.means, mixture.variances, mixture.weights, mixture.basis),
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
        pixels = self._pixels(samples.detach().double().cpu()).clamp(-1, 1)
        return [Image.fromarray(x) for x in ((pixels + 1) * 127.5).round().to(torch.uint8).numpy()]

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
    """Load a task by name, or from a YAML file: name, means, covariances, weights, features."""
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
    ones = torch.ones(len(means), dtype=torch.float64)
    return Mixture(means, variance * ones, ones / len(means))


def _circle(count: int, radius: float) -> Tensor:
    angle = torch.arange(count, dtype=torch.float64) * (2 * torch.pi / count)
    return radius * torch.stack([angle.cos(), angle.sin()], 1)


def _ring8() -> Task:
    return Task("ring8", _equal(_circle(8, 4.0), 0.3**2))


def _grid25() -> Task:
    axis = torch.arange(-2, 3, dtype=torch.float64) * 2
    return Task("grid25", _equal(torch.cartesian_prod(axis, axis), 0.2**2))


def _mixture64() -> Task:
    generator = torch.Generator().manual_seed(64)
    means = torch.randn(20, 64, generator=generator, dtype=torch.float64)
    return Task("mixture-64d", _equal(means, 0.3**2), groups=400)


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
    prompt, law = "class 0", classes.law("class 0")
    own = replace(task, name=name, mixture=law, classes=classes)
    return replace(own, prompt=prompt, guidance_scale=3.0)


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
    name = f"fashion-kde:{garment}" if garment else "fashion-kde"
    return Task(name, _garment_mixture(named), 4, 100, _of_prompt)


_MAKERS: dict[str, Callable[[], Task]] = {
    "ring8": _ring8,
    "ring10": lambda: Task("ring10", _equal(_circle(10, 1.0), 0.005), particles=10),
    "grid25": _grid25,
    "mixture-64d": _mixture64,
    "anisotropic": _anisotropic,
    "ring8-features": lambda: _with_network(_ring8(), "ring8-features"),
    "mixture-64d-features": lambda: _with_network(_mixture64(), "mixture-64d-features"),
    "class-ring": lambda: _in_classes(_ring8(), "class-ring", 4),
    "class-64d": lambda: _in_classes(_mixture64(), "class-64d", 5),
    "fashion-kde": partial(_garments, ""),
}
