"""Tasks from YAML files: a Gaussian mixture by its means, covariances and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from eddy_bench.errors import SuiteError, unknown
from eddy_bench.models.mixture import Mixture
from eddy_bench.storage.files import read_yaml

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
        return Mixture(
            means, covariances.expand(count) if covariances.ndim == 0 else covariances, weights
        )
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
