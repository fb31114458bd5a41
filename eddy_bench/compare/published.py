"""A paper's figures beside ours, for the suites that carry a paper's set-up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.markup import escape
from rich.table import Table

from eddy_bench.compare.load import ScoreSet
from eddy_bench.errors import EddyError
from eddy_bench.storage.paths import as_path
from eddy_bench.storage.run_folder import RunFolder
from eddy_bench.suites.method_spec import MethodSpec
from eddy_bench.suites.suite import PAPERS

HEADER = ("method", "published metric", "published", "ours", "our metric", "source")
CAPTION = (
    "Published figures are the paper's, on its own prompts, weights and metrics: "
    "orders of magnitude, not targets."
)


def published_lines(scores: ScoreSet) -> list[tuple[str, ...]]:
    """Return lines of `HEADER` for a run of a paper's suite; nothing for other runs.

    Ours is the mean of the named metric over prompts, of every strength of the method; of
    `seconds_per_image` its ratio to iid's.
    """
    lines: list[tuple[str, ...]] = []
    for source in scores.sources:
        table = _table(as_path(source))
        for row in [] if table is None else table.to_dict("records"):
            labels = [
                label for label in scores.labels if MethodSpec.of_label(label).name == row["method"]
            ]
            for label in labels or [""]:
                value, column = _ours(scores, label, str(row["ours"])) if label else ("", "")
                lines.append(
                    (
                        label or str(row["method"]),
                        str(row["metric"]),
                        f"{row['value']} {row['unit']}".strip(),
                        value,
                        column,
                        str(row["source"]),
                    )
                )
    return lines


def _table(source: Path) -> pd.DataFrame | None:
    """Read the published figures of the suite that a folder was drawn with."""
    try:
        folder = RunFolder(source)
        name = folder.read_run().suite.name if folder.has_run else ""
    except EddyError:
        return None
    path = PAPERS / f"{name}.csv"
    return pd.read_csv(path, dtype=str, keep_default_na=False) if name and path.is_file() else None


def _ours(scores: ScoreSet, label: str, metric: str) -> tuple[str, str]:
    frame = (
        scores.frame[scores.frame["column" if "[" in metric else "metric"] == metric]
        if metric
        else scores.frame.iloc[:0]
    )
    column = next(iter(frame["column"]), "")
    values = frame[frame["column"] == column].groupby("label")["value"]
    means = values.median() if metric == "seconds_per_image" else values.mean()
    if label not in means:
        return "", ""
    if metric == "seconds_per_image":
        return (
            (f"{means[label] / means['iid']:.3f}", f"{column}, over iid's")
            if means.get("iid", 0) > 0
            else ("", "")
        )
    return f"{means[label]:.4g}", column


def published_table(lines: Sequence[tuple[str, ...]]) -> Table:
    """Return the published figures beside ours, for the terminal."""
    table = Table(*HEADER, caption=CAPTION, caption_justify="left")
    for line in lines:
        table.add_row(*map(escape, line))
    return table
