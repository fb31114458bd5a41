"""What is printed: the summary table and the lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from eddy_bench.cli.console import console

if TYPE_CHECKING:
    import pandas as pd

    from eddy_bench.storage.run_folder import RunFolder

WIDE = 154
SHOWN = (
    "vendi",
    "pdist",
    "attributes",
    "lpips",
    "clip",
    "align",
    "fd",
    "fid",
    "drift",
    "seconds_per_image",
    "nfe",
)


def print_summary(
    summary: pd.DataFrame, folder: RunFolder, grids: Sequence[Path], wanted: Sequence[str] = ()
) -> None:
    """The table: one row per method and kernel, baseline first, best values marked with a star."""
    from eddy_bench.scoring.metrics import METRICS

    values = [column for column in summary.columns if not column.endswith((".low", ".high"))]
    columns = [column for name in SHOWN for column in values if _bare(column) == name]
    columns[-2:-2] = [column for column in values if column not in columns and column in wanted]
    flagged = _small_samples(folder)
    table = Table(
        title=escape(str(folder.path)),
        caption="Mean over prompts with half the width of its 95% interval. * best of the column (none where samples are too few)."
        + (f"\nThrough: {', '.join(seen)}." if (seen := _extractors(columns)) else ""),
        caption_justify="left",
    )
    table.add_column("method", no_wrap=True)
    table.add_column("kernel")
    for column in columns:
        name, _, extractor = column.partition("[")
        arrow = "↑" if METRICS[_bare(column)].higher_is_better else "↓"
        extractor = (
            extractor if sum(other.partition("[")[0] == name for other in columns) > 1 else ""
        )
        table.add_column(
            f"{'s/image' if name == 'seconds_per_image' else name} {arrow}"
            + (f"\n{extractor.rstrip(']')}" if extractor else ""),
            justify="right",
        )
    compared = summary["groups"].nunique() == 1
    varied = [
        column
        for column in columns
        if compared and column not in flagged and summary[column].nunique() > 1
    ]
    highest = {column: METRICS[_bare(column)].higher_is_better for column in varied}
    best = {
        column: summary[column].max() if highest[column] else summary[column].min()
        for column in varied
    }
    for record in summary.to_dict("records"):
        row = {str(key): value for key, value in record.items()}
        parameters = row["params"] if isinstance(row["params"], str) and row["params"] else ""
        shown = ", ".join(
            part for part in parameters.split(",") if part and not part.startswith("kernel=")
        )
        name = f"{row['method']}" + (f" ({shown})" if shown else "")
        kernel = row["kernel"] if isinstance(row["kernel"], str) and row["kernel"] else "-"
        table.add_row(
            escape(name), kernel, *(_cell(row, column, best.get(column)) for column in columns)
        )
    out = console()
    out.print(table)
    for label, path in [
        ("scores", folder.path / "scores.csv"),
        ("summary", folder.path / "summary.csv"),
    ]:
        out.print(escape(f"{label:9}{path}"), soft_wrap=True)
    for path in grids or sorted((folder.path / "grids").glob("*.png")):
        out.print(escape(f"{'grid':9}{path}"), soft_wrap=True)


def _extractors(columns: Sequence[str]) -> list[str]:
    """The networks that the columns are seen through, each once."""
    return list(
        dict.fromkeys(column.partition("[")[2].rstrip("]") for column in columns if "[" in column)
    )


def _bare(column: str) -> str:
    """The metric of a column: `vendi` of `vendi-q2[fmnist-clip]`."""
    return column.partition("[")[0].partition("-q")[0]


def _small_samples(folder: RunFolder) -> set[str]:
    """Columns whose values are flagged: they are shown, and no best is marked."""
    from eddy_bench.scoring.score_table import read_table

    scores = read_table(folder.path / "scores.csv", usecols=["metric", "extractor", "signature"])
    small = scores[scores["signature"].str.contains("small-sample")]
    return {
        f"{metric}[{extractor}]"
        for metric, extractor in zip(small["metric"], small["extractor"], strict=True)
    }


def _cell(row: dict[str, Any], column: str, best: float | None) -> str:
    value = row[column]
    if value != value:
        return "-"
    text = (
        f"{value:.4f}"
        if column == "seconds_per_image"
        else f"{value:.0f}"
        if column == "nfe"
        else f"{value:.3f}"
        if abs(value) < 10
        else f"{value:.2f}"
    )
    low, high = row.get(f"{column}.low"), row.get(f"{column}.high")
    if low is not None and low == low and high is not None:
        text += f"±{(high - low) / 2:.2f}"
    return f"[bold green]{text}*[/]" if value == best else text
