"""Records as CSV that no spreadsheet runs, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from eddy_bench.shown import cell_text, shown_json


def as_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Return a line per record."""
    cells = [
        {name: cell_text(cell) if isinstance(cell, str) else cell for name, cell in record.items()}
        for record in records
    ]
    text: str = pd.DataFrame(cells).to_csv(index=False, lineterminator="\n")
    return text


def as_json(document: Any) -> str:
    """Return a JSON document; numbers that are not finite are null."""
    return shown_json(json.dumps(_finite(document), indent=1, ensure_ascii=False)) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
