"""Measurements that are kept in an audit's folder: what cannot be read is measured again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from eddy_bench.audit.run import Cell


@dataclass(frozen=True)
class Placed(Cell):
    """A cell whose file is called `a`."""

    @property
    def path(self) -> Path:
        return self.folder / "a.json"


@pytest.mark.parametrize("content", [None, b"", b"[" * 100_000, b"\xff\xfe", b"[]", b"{}"])
def test_what_cannot_be_read_is_measured_again(tmp_path: Path, content: bytes | None) -> None:
    anything: Any = None
    cell = Placed(anything, anything, 1, tmp_path)
    if content is None:
        os.mkfifo(tmp_path / "a.json")
    else:
        (tmp_path / "a.json").write_bytes(content)
    assert cell.kept() is None
