"""What is printed: the summary table and the lists."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eddy_bench.errors import UnknownName, unknown

if TYPE_CHECKING:
    import pandas as pd

    from eddy_bench.store import RunFolder

WIDE = 154
SHOWN = ("vendi", "pdist", "attributes", "lpips", "clip", "align", "fd", "fid", "drift", "seconds_per_image", "nfe")


def console(stderr: bool = False) -> Console:
    """A console as wide as the terminal, or wide enough for the table where there is none."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else WIDE, highlight=False, soft_wrap=False)


def print_summary(summary: pd.DataFrame, folder: RunFolder, grids: Sequence[Path], wanted: Sequence[str] = ()) -> None:
    """The table: one row per method and kernel, baseline first, best values marked with a star."""
    from eddy_bench.metrics.base import METRICS

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
        extractor = extractor if sum(other.partition("[")[0] == name for other in columns) > 1 else ""
        table.add_column(
            f"{'s/image' if name == 'seconds_per_image' else name} {arrow}" + (f"\n{extractor.rstrip(']')}" if extractor else ""),
            justify="right",
        )
    compared = summary["groups"].nunique() == 1
    varied = [column for column in columns if compared and column not in flagged and summary[column].nunique() > 1]
    highest = {column: METRICS[_bare(column)].higher_is_better for column in varied}
    best = {column: summary[column].max() if highest[column] else summary[column].min() for column in varied}
    for record in summary.to_dict("records"):
        row = {str(key): value for key, value in record.items()}
        parameters = row["params"] if isinstance(row["params"], str) and row["params"] else ""
        shown = ", ".join(part for part in parameters.split(",") if part and not part.startswith("kernel="))
        name = f"{row['method']}" + (f" ({shown})" if shown else "")
        kernel = row["kernel"] if isinstance(row["kernel"], str) and row["kernel"] else "-"
        table.add_row(escape(name), kernel, *(_cell(row, column, best.get(column)) for column in columns))
    out = console()
    out.print(table)
    for label, path in [("scores", folder.path / "scores.csv"), ("summary", folder.path / "summary.csv")]:
        out.print(escape(f"{label:9}{path}"), soft_wrap=True)
    for path in grids or sorted((folder.path / "grids").glob("*.png")):
        out.print(escape(f"{'grid':9}{path}"), soft_wrap=True)


def _extractors(columns: Sequence[str]) -> list[str]:
    """The networks that the columns are seen through, each once."""
    return list(dict.fromkeys(column.partition("[")[2].rstrip("]") for column in columns if "[" in column))


def _bare(column: str) -> str:
    """The metric of a column: `vendi` of `vendi-q2[fmnist-clip]`."""
    return column.partition("[")[0].partition("-q")[0]


def _small_samples(folder: RunFolder) -> set[str]:
    """Columns whose values are flagged: they are shown, and no best is marked."""
    from eddy_bench.score_files import read_table

    scores = read_table(folder.path / "scores.csv", usecols=["metric", "extractor", "signature"])
    small = scores[scores["signature"].str.contains("small-sample")]
    return {f"{metric}[{extractor}]" for metric, extractor in zip(small["metric"], small["extractor"], strict=True)}


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


def print_list(kind: str) -> None:
    """`eddy-bench list`."""
    makers: dict[str, Callable[[], list[tuple[str, ...]]]] = {
        "methods": _list_methods, "models": _list_models, "tasks": _list_tasks, "metrics": _list_metrics, "prompts": _list_prompts, "schedulers": _list_schedulers, "suites": _list_suites,
    }  # fmt: skip
    if kind not in makers:
        raise UnknownName(unknown("list", kind, makers))
    table = Table("name", "what", "cost", "source", title=kind)
    for line in makers[kind]():
        table.add_row(*map(escape, line))
    console().print(table)


def _list_methods() -> list[tuple[str, ...]]:
    from eddy_bench.registry import load_method, method_names

    found = [(name, load_method(name)) for name in method_names()]
    return [(name, method.summary, method.cost, method.citation) for name, method in found]


def _list_models() -> list[tuple[str, ...]]:
    from eddy_bench.models.load import EMBEDDED

    return [
        *((name, text, "0.3 s per image on two cores", "eddy_bench/assets/MODEL_CARD.md") for name, text in EMBEDDED.items()),
        (
            "exact:TASK",
            "a distribution whose score is known: a task's name or YAML file (list tasks)",
            "no network",
            "eddy_bench/models/tasks.py",
        ),
        ("FOLDER", "any text-to-image pipeline saved by diffusers", "the model's own", "diffusers"),
        ("owner/model", "any text-to-image pipeline on the hub", "the model's own", "its model card"),
    ]


def _list_tasks() -> list[tuple[str, ...]]:
    from eddy_bench.models.tasks import DEFAULT_TASKS, TASKS

    return [(name, text, "" if name in DEFAULT_TASKS else "only when asked for", "") for name, text in TASKS.items()]


def _list_metrics() -> list[tuple[str, ...]]:
    from eddy_bench.metrics.base import METRICS
    from eddy_bench.metrics.extractors import NAMES

    lines: list[tuple[str, ...]] = [
        (m.name, f"{m.summary} ({'higher' if m.higher_is_better else 'lower'} is better)", m.cost, m.citation) for m in METRICS.values()
    ]
    return [*lines, *((f"[{name}]", text, "", "extractor") for name, text in NAMES.items())]


def _list_prompts() -> list[tuple[str, ...]]:
    from eddy_bench.prompts import load_prompts, prompt_set_names

    sets = [load_prompts(name) for name in prompt_set_names()]
    return [
        (
            found.name,
            f"{len(found.prompts)} prompts, from {found.prompts[0].text!r} to {found.prompts[-1].text!r}",
            f"{len(found.prompts)} groups a seed",
            "eddy-bench",
        )
        for found in sets
    ]


def _list_schedulers() -> list[tuple[str, ...]]:
    from eddy_bench.sampling.schedulers import SCHEDULERS

    return [(name, cls, "", ", ".join(f"{key}={value}" for key, value in settings.items())) for name, (cls, settings) in SCHEDULERS.items()]


def _list_suites() -> list[tuple[str, ...]]:
    from eddy_bench.suite import suite_files

    return [(name, os.path.relpath(path), "", "") for name, path in sorted(suite_files().items())]
