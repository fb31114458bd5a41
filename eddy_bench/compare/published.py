"""A paper's figures beside ours, for the suites that carry a paper's set-up."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from eddy_bench.errors import EddyError
from eddy_bench.ids import IID, MethodId
from eddy_bench.results.results import Results
from eddy_bench.storage.paths import as_path
from eddy_bench.storage.run_folder import RunFolder
from eddy_bench.suites.suite import PAPERS

HEADER = ("published metric", "published", "ours", "our metric", "source")
CAPTION = (
    "Published figures are the paper's, on its own prompts, weights and metrics: "
    "orders of magnitude, not targets."
)


def published_lines(results: Results) -> list[tuple[str, ...]]:
    """Return lines of method and `HEADER` for a run of a paper's suite; nothing for other runs.

    Ours is the mean of the named metric over prompts, of every strength of the method; of seconds
    its ratio to iid's.
    """
    lines: list[tuple[str, ...]] = []
    for source in results.sources:
        table = _table(as_path(source))
        for row in [] if table is None else table.to_dict("records"):
            published = f"{row['value']} {row['unit']}".strip()
            ours = [own for own in results.methods if own.name == row["method"]]
            for method in ours or [MethodId(str(row["method"]))]:
                value, column = _ours(results, method, str(row["ours"]))
                name = str(method)
                lines.append(
                    (name, str(row["metric"]), published, value, column, str(row["source"]))
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


def _ours(results: Results, method: MethodId, metric: str) -> tuple[str, str]:
    columns = [own for own in results.columns if metric in (str(own), own.name)]
    if not columns:
        return "", ""
    column = columns[0]
    values = results.rows(column=column).groupby("method", sort=False, observed=True)["value"]
    seconds = results.metric(column).role == "seconds"
    means = (values.median() if seconds else values.mean()).to_dict()
    if method not in means or (seconds and not means.get(IID, 0) > 0):
        return "", ""
    if seconds:
        return f"{means[method] / means[IID]:.3f}", f"{column}, over iid's"
    return f"{means[method]:.4g}", str(column)
