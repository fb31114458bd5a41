"""Values of single images: rows of scores.parquet beside those of their groups."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from eddy_bench.errors import StoreError, brief
from eddy_bench.scoring.readings import Measured
from eddy_bench.scoring.score_table import COLUMNS, IMAGE, compact_images
from eddy_bench.storage.paths import open_file

PREFIX = "image:"  # of the metric, so that who selects one by name finds its groups alone
GROUP = ["method", "params", "prompt_id", "seed", "metric", "extractor", "signature"]


def image_rows(rows: pd.DataFrame, measured: Sequence[Measured]) -> pd.DataFrame:
    """Return a row for each image that has a value of its own.

    Args:
        rows: of scores.csv, a row for each measured value.
        measured: the values.

    """
    counts = [len(own.images) for own in measured]
    repeated = rows.loc[rows.index.repeat(counts)]
    images = repeated.assign(
        metric=PREFIX + repeated["metric"].astype(str),
        value=np.fromiter(chain.from_iterable(own.images for own in measured), np.float64),
        **{IMAGE: np.fromiter(chain.from_iterable(map(range, counts)), np.int64)},
    )
    return compact_images(images)


def read_image_rows(folder: Path) -> pd.DataFrame:
    """Read the rows of single images, under the names of their metrics.

    There are none where the file is missing or of an earlier version.

    Raises:
        StoreError: the file is damaged.

    """
    import pyarrow.parquet as pq

    path = folder / "scores.parquet"
    empty = pd.DataFrame(columns=[*COLUMNS, IMAGE])
    try:
        with open_file(path) as file:
            if IMAGE not in pq.read_schema(file).names:
                return empty
            file.seek(0)
            rows: pd.DataFrame = pd.read_parquet(file, filters=[(IMAGE, ">=", 0)])
        rows = rows[[*COLUMNS, IMAGE]].reset_index(drop=True)
        texts = dict.fromkeys([*GROUP, "prompt", "particles"], str)
        rows = rows.astype({**texts, "value": np.float64, IMAGE: np.int64})
    except FileNotFoundError:
        return empty
    except Exception as error:  # pyarrow has many
        raise StoreError(
            f"{path} cannot be read: {brief(error, 120)}. Score the run again: "
            f"eddy-bench score {folder}."
        ) from None
    return rows.assign(metric=rows["metric"].str.removeprefix(PREFIX))


def kept_image_rows(folder: Path, kept: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows of single images of groups whose own rows are kept, and what was lost.

    Args:
        folder: of the run, before its scores are replaced.
        kept: rows of scores.csv that stand, with the method's `label`.

    """
    lost = []
    try:
        rows = read_image_rows(folder)
    except StoreError as error:
        rows = pd.DataFrame(columns=[*COLUMNS, IMAGE])
        lost = [f"values of single images of metrics that are kept are gone: {error}"]
    groups = kept[[*GROUP, "label"]].astype(str)
    own = rows.merge(groups, on=GROUP) if len(rows) else rows.assign(label="")
    return compact_images(own.assign(metric=PREFIX + own["metric"])), lost
