"""Measurements kept in an audit's folder, a file per method and step count."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eddy_bench.audit.candidates import Candidate
from eddy_bench.audit.estimates import Estimate
from eddy_bench.audit.measure import Measured, Row
from eddy_bench.audit.plan import AuditPlan, Block
from eddy_bench.errors import StoreError
from eddy_bench.storage.files import parse_json, write_text
from eddy_bench.storage.paths import open_file, read_many, replacing

PARTS = "parts"


@dataclass(frozen=True)
class Parts:
    """Hold where the measurements of a block at one step count are kept.

    Each file is written as soon as its method is measured, so that a kill loses one method's draw;
    the iid groups are kept beside it, so that other methods are compared with the same ones.
    """

    plan: AuditPlan
    block: Block
    steps: int
    folder: Path

    def kept(self, candidate: Candidate) -> Measured | None:
        """Return what was measured before; None where it was not, or the file is damaged."""
        try:
            stored = self._parsed(candidate)
            from_truth = stored["from_truth"]
            return Measured(
                np.asarray(stored["gain"], np.float64),
                Estimate(**stored["energy"]),
                Estimate(**stored["spread"]),
                stored["slot_p"],
                tuple(Row(**row) for row in stored["rows"]),
                stored["problem"],
                stored["beyond_p"],
                None if from_truth is None else Estimate(**from_truth),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def keep(self, candidate: Candidate, measured: Measured) -> None:
        """Write what was measured of a method."""
        text = json.dumps({**asdict(measured), "gain": measured.gain.tolist()})
        write_text(self._path(candidate), text)

    def kept_rows(self) -> tuple[Row, ...] | None:
        """Return the lines of iid; None where they were not measured."""
        try:
            rows = tuple(Row(**row) for row in self._parsed())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return rows or None

    def keep_rows(self, rows: tuple[Row, ...]) -> None:
        """Write the lines of iid."""
        write_text(self._path(), json.dumps([asdict(row) for row in rows]))

    def kept_draws(self) -> list[Tensor] | None:
        """Return the iid groups to pair with and the disjoint ones, (G, N, d) each, or None."""
        block = self.block
        shape = (2, block.groups, block.particles, block.task.mixture.dimension)
        try:
            with open_file(self._draws()) as file:
                draws = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        if draws.shape != shape or draws.dtype != np.float64 or not np.isfinite(draws).all():
            return None
        return [torch.from_numpy(draw) for draw in draws]

    def has_draws(self) -> bool:
        """Return whether the iid groups seem to be there."""
        return self._draws().is_file()

    def keep_draws(self, draws: list[Tensor]) -> None:
        """Write the iid groups.

        Raises:
            StoreError: the folder cannot be written.

        """
        path = self._draws()
        try:
            with replacing(path) as file, file.open("wb") as stream:
                np.save(stream, torch.stack(draws).numpy())
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error}.") from None

    def _parsed(self, candidate: Candidate | None = None) -> Any:
        return parse_json(read_many([self._path(candidate)])[0])

    def _path(self, candidate: Candidate | None = None) -> Path:
        key = self.plan.key(self.block, self.steps, candidate)
        return self.folder / PARTS / f"{key}.json"

    def _draws(self) -> Path:
        return self._path().with_suffix(".npy")
