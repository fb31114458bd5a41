"""The best or the worst image of each group in the place of its mean."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from eddy_bench.errors import CompareError, ParameterError, StoreError
from eddy_bench.ids import MetricId
from eddy_bench.results.io import GROUP, read_image_rows
from eddy_bench.results.results import Results
from eddy_bench.storage.paths import as_path

STATISTICS = ("mean", "best", "worst")


def check_statistic(statistic: str) -> None:
    """Raise ParameterError for what is no statistic."""
    if statistic not in STATISTICS:
        *others, last = STATISTICS
        raise ParameterError(
            f"Expected --statistic {', '.join(others)} or {last}, got {statistic!r}."
        )


def with_statistic(results: Results, statistic: str) -> tuple[Results, list[str]]:
    """Return results whose metrics of single images are each group's best or worst image.

    They are named after it, as `clip[fmnist-clip]:image=best`; all other metrics stay.

    Args:
        results: of run folders.
        statistic: one of `STATISTICS`.

    Returns:
        The results, and notes on what was taken.

    Raises:
        CompareError: a run holds no values of single images.

    """
    if statistic == "mean":
        return results, []
    frames, changed, lacking = [], dict[MetricId, None](), list[str]()
    for source, rows in results.frame.groupby("source", sort=False):
        frame, left = _with_statistic(results, rows, str(source), statistic)
        frames.append(frame)
        changed |= dict.fromkeys(own for own in frame["metric"] if own.image)
        lacking += [_lacking(results, str(source), left)] if left else []
    columns = ", ".join(map(str, changed))
    note = f"{columns}: of each group's {statistic} image; all else as without --statistic"
    return replace(results, frame=pd.concat(frames)), [note, *lacking]


def _with_statistic(
    results: Results, rows: pd.DataFrame, source: str, statistic: str
) -> tuple[pd.DataFrame, list[MetricId]]:
    """Return the rows, and the metrics that lack values of single images and stay as they are."""
    images = _images_of(source).astype(dict.fromkeys(GROUP, str))
    groups = images.groupby(GROUP, sort=False)["value"].agg(["max", "min", "mean", "count"])
    keys = pd.MultiIndex.from_frame(rows[GROUP].astype(str))
    single = {
        column: (metric := results.metric(column)).judges_images and not metric.source
        for column in results.columns
    }
    wanted = rows["metric"].map(single).astype(bool) | keys.isin(groups.index)
    if not wanted.any():
        raise CompareError(
            f"Expected a metric of single images, such as clip, aesthetic or pickscore, in "
            f"{source} for --statistic {statistic}, found none. "
            f"Add one: eddy-bench score {shlex.quote(source)} --metric clip."
        )
    left = _without_images(rows[wanted], groups.reindex(keys[wanted]))
    wanted &= ~rows["metric"].isin(left).astype(bool)
    if not wanted.any():
        raise CompareError(_lacking(results, source, left))
    own, chosen = groups.reindex(keys[wanted]), rows[wanted]
    highest = chosen["higher_is_better"].to_numpy(bool) == (statistic == "best")
    values = np.where(highest, own["max"], own["min"])
    changed = rows.astype({"metric": object})
    changed.loc[wanted, "value"] = np.where(chosen["value"].isna().to_numpy(), np.nan, values)
    changed.loc[wanted, "metric"] = [
        replace(column, image=statistic) for column in chosen["metric"]
    ]
    return changed, left


def _images_of(source: str) -> pd.DataFrame:
    """Return the rows of single images beside a score file."""
    path = as_path(source)
    folder = path if path.is_dir() else path.parent
    if not path.is_dir() and path.name != "scores.csv":
        raise CompareError(
            f"Expected a run folder for --statistic, got {source}: values of single images stand "
            "in its scores.parquet. Name the folder."
        )
    try:
        return read_image_rows(folder)
    except StoreError as error:
        raise CompareError(str(error)) from None


def _without_images(rows: pd.DataFrame, groups: pd.DataFrame) -> list[MetricId]:
    """Return the metrics whose images lack values, or have those of another score file."""
    held = rows["value"].notna().to_numpy()
    counts, means = groups["count"].to_numpy(), groups["mean"].to_numpy(np.float64)
    particles = pd.to_numeric(rows["particles"].astype(str)).to_numpy()
    fits = (counts == particles) & np.isclose(means, rows["value"], rtol=1e-4, atol=1e-6)
    return list(dict.fromkeys(rows["metric"][held & ~fits]))


def _lacking(results: Results, source: str, columns: Sequence[MetricId]) -> str:
    """Say which metrics of a run lack values of single images, and how they come by them."""
    ours = [column for column in columns if not results.metric(column).source]
    options = "".join(f" --metric {shlex.quote(str(column))}" for column in ours)
    call = f": eddy-bench score {shlex.quote(source)}{options}" if options else ""
    how = "" if len(ours) == len(columns) else ", plug-ins by their file or package"
    return (
        f"{source} holds no values of single images for {', '.join(map(str, columns))}, or others "
        f"than its scores.csv. To compare its best and worst images score it again{how}{call}."
    )
