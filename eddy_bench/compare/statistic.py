"""The best or the worst image of each group in the place of its mean."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from eddy_bench.compare.load import ScoreSet
from eddy_bench.errors import CompareError, ParameterError, StoreError
from eddy_bench.scoring.image_scores import GROUP, read_image_rows
from eddy_bench.scoring.metrics import METRICS, OURS, MetricSpec
from eddy_bench.storage.paths import as_path

STATISTICS = ("mean", "best", "worst")


def check_statistic(statistic: str) -> None:
    """Raise ParameterError for what is no statistic."""
    if statistic not in STATISTICS:
        *others, last = STATISTICS
        raise ParameterError(
            f"Expected --statistic {', '.join(others)} or {last}, got {statistic!r}."
        )


def with_statistic(scores: ScoreSet, statistic: str) -> tuple[ScoreSet, list[str]]:
    """Return scores whose metrics of single images are each group's best or worst image.

    Their columns are named after it, as `clip-best[fmnist-clip]`; all other metrics stay.

    Args:
        scores: of run folders.
        statistic: one of `STATISTICS`.

    Returns:
        the scores, and a note on what was taken.

    Raises:
        CompareError: a run holds no values of single images.

    """
    if statistic == "mean":
        return scores, []
    frames, changed, lacking = [], [], []
    for source, rows in scores.frame.groupby("source", sort=False):
        frame, left = _with_statistic(rows, str(source), statistic)
        frames.append(frame)
        changed += list(dict.fromkeys(frame["column"][frame["column"] != rows["column"]]))
        lacking += [_lacking(str(source), left)] if left else []
    columns = ", ".join(dict.fromkeys(changed))
    note = f"{columns}: of each group's {statistic} image; all else as without --statistic"
    return replace(scores, frame=pd.concat(frames)), [note, *lacking]


def _with_statistic(
    rows: pd.DataFrame, source: str, statistic: str
) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows, and the columns that lack values of single images and stay as they are."""
    images = _images_of(source)
    keys = pd.MultiIndex.from_frame(rows[GROUP].astype(str))
    wanted = rows["metric"].map(_judges_images) | keys.isin(pd.MultiIndex.from_frame(images[GROUP]))
    if not wanted.any():
        raise CompareError(
            f"Expected a metric of single images, such as clip, aesthetic or pickscore, in "
            f"{source} for --statistic {statistic}, found none. "
            f"Add one: eddy-bench score {shlex.quote(source)} --metric clip."
        )
    groups = images.groupby(GROUP, sort=False)["value"].agg(["max", "min", "mean", "count"])
    left = _without_images(rows[wanted], groups.reindex(keys[wanted]))
    wanted &= ~rows["column"].isin(left)
    if not wanted.any():
        raise CompareError(_lacking(source, left))
    own = groups.reindex(keys[wanted])
    asked = rows[wanted]
    better = asked["higher_is_better"].astype(str).str.lower() == "true"
    highest = better.to_numpy() == (statistic == "best")
    values = np.where(highest, own["max"], own["min"])
    missing = asked["value"].isna().to_numpy()
    names = asked["column"].str.replace("[", f"-{statistic}[", n=1, regex=False)
    names = names.where(names != asked["column"], names + f"-{statistic}")
    changed = rows.copy()
    changed.loc[wanted, "value"] = np.where(missing, np.nan, values)
    changed.loc[wanted, "column"] = names
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
        return read_image_rows(Path(folder))
    except StoreError as error:
        raise CompareError(str(error)) from None


def _judges_images(name: str) -> bool:
    metric = METRICS[name]
    return metric.judges_images and not metric.source


def _without_images(rows: pd.DataFrame, groups: pd.DataFrame) -> list[str]:
    """Return the columns whose images lack values, or have those of another score file."""
    held = rows["value"].notna().to_numpy()
    counts, means = groups["count"].to_numpy(), groups["mean"].to_numpy(np.float64)
    particles = pd.to_numeric(rows["particles"]).to_numpy()
    fits = (counts == particles) & np.isclose(means, rows["value"], rtol=1e-4, atol=1e-6)
    return list(dict.fromkeys(rows["column"][held & ~fits]))


def _lacking(source: str, columns: list[str]) -> str:
    """Say which columns of a run lack values of single images, and how they come by them."""
    specs = [MetricSpec.of_column(column) for column in columns]
    ours = [spec for spec in specs if spec.name in OURS]
    asked = "".join(f" --metric {shlex.quote(str(spec))}" for spec in ours)
    call = f": eddy-bench score {shlex.quote(source)}{asked}" if asked else ""
    how = "" if len(ours) == len(specs) else ", plug-ins by their file or package"
    return (
        f"{source} holds no values of single images for {', '.join(columns)}, or others than its "
        f"scores.csv. To compare its best and worst images score it again{how}{call}."
    )
