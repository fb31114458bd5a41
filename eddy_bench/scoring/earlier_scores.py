"""Values that a run folder holds already, and which of them still stand."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from eddy_bench.errors import brief
from eddy_bench.scoring.metrics import learn
from eddy_bench.scoring.score_table import COLUMNS, TEXTS, compact, read_table, unescaped
from eddy_bench.scoring.signature import BAD_IMAGES
from eddy_bench.scoring.summary import column_of
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.run_folder import RunFolder, read_manifest

ByLabel = Mapping[str, Sequence[FinishedGroup]]
GroupKey = tuple[str, str]  # prompt id and seed


@dataclass(frozen=True)
class EarlierScores:
    """Hold the rows of scores.csv by whether they are still of the images in the folder.

    A row stands while the images of its method that were scored are what they were; one of a
    pooled metric only while no image came to them.

    standing, outdated: rows with the method's `label` and the metric's `column`.
    counts: groups of each method now.
    lost: why scores.csv was no table of scores; empty where it is one, or is not there.
    """

    standing: pd.DataFrame
    outdated: pd.DataFrame
    counts: Mapping[str, int]
    lost: str = ""

    @classmethod
    def read(cls, folder: RunFolder, by_label: ByLabel) -> EarlierScores:
        """Read scores.csv; a file that is no table of scores counts as empty, and is told."""
        rows, lost = _read(folder, by_label)
        digests = read_manifest(folder.path).scored_images or {}
        stands = pd.Series(False, index=rows.index)
        for label, groups in by_label.items():
            own = rows["label"] == label
            pooled = own & (rows["prompt_id"] == "")
            current = {_key(group): group for group in groups}
            table = rows[own & ~pooled]
            scored = set(zip(table["prompt_id"], table["seed"], strict=True))
            if not scored <= current.keys():
                continue
            digest = _digest(current[key] for key in scored)
            if digests.get(label, digest) == digest:
                stands |= own if len(scored) == len(current) else own & ~pooled
        counts = {label: len(groups) for label, groups in by_label.items()}
        return cls(rows[stands], rows[~stands], counts, lost)

    def without(self, columns: Collection[str]) -> pd.DataFrame:
        """Return the rows that stand, but for some columns."""
        kept = self.standing[~self.standing["column"].isin(columns)]
        return compact(kept)

    def notes(self, columns: Collection[str]) -> list[str]:
        """Return warnings on values that were left out, or that new groups lack."""
        outdated = set(self.outdated["column"]) - set(columns)
        notes = [
            f"{column} of images that changed since was left out: score it again with --metric"
            for column in sorted(outdated)
        ]
        if self.lost:
            notes.append(
                f"scores.csv could not be read and was replaced, its values are gone: {self.lost}"
            )
        kept = self.standing[~self.standing["column"].isin(columns)]
        for column, rows in kept[kept["prompt_id"] != ""].groupby("column", sort=False):
            lacking = sum(self.counts.values()) - len(rows)
            if lacking and column not in outdated:
                notes.append(
                    f"{column} is kept from before and {lacking} groups have none: "
                    "score it again with --metric"
                )
        return notes


def images_digests(by_label: ByLabel) -> dict[str, str]:
    """Return a hash of each method's images."""
    return {label: _digest(groups) for label, groups in by_label.items()}


def _digest(groups: Iterable[FinishedGroup]) -> str:
    lines = sorted(f"{'/'.join(_key(group))} {group.fingerprint}" for group in groups)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _key(group: FinishedGroup) -> GroupKey:
    return group.group.prompt_id, str(group.group.seed)


def _read(folder: RunFolder, by_label: ByLabel) -> tuple[pd.DataFrame, str]:
    """Return the rows of scores.csv of methods that are still there, and why there are none."""
    empty = pd.DataFrame(columns=[*COLUMNS, "label", "column"])
    numbers = ("seed", "steps", "guidance_scale", "particles", "value")  # kept to the last digit
    try:
        rows = read_table(
            folder.path / "scores.csv",
            dtype=dict.fromkeys(TEXTS, "category") | dict.fromkeys(numbers, str),
            keep_default_na=False,
            na_values={"value": ["", "nan"]},
        )
        rows = unescaped(rows)[COLUMNS].assign(value=rows["value"].astype(float))
        rows = rows[rows["metric"] != BAD_IMAGES]  # counted anew
    except FileNotFoundError:
        return empty, ""
    except (OSError, ValueError, KeyError) as error:
        return empty, brief(error, 120)
    kinds = rows.drop_duplicates(["metric", "signature"])
    higher = kinds["higher_is_better"].astype(str).str.lower() == "true"
    learn(kinds["metric"].astype(str), kinds["signature"].astype(str), higher)
    methods = {
        (groups[0].group.method, groups[0].group.parameters): label
        for label, groups in by_label.items()
    }
    keys = zip(rows["method"], rows["params"], strict=True)
    rows["label"] = [methods.get(key, "") for key in keys]
    rows = rows[(rows["label"] != "") & (rows["signature"] != "")]
    known = rows.assign(
        column=column_of(rows),
        higher_is_better=rows["higher_is_better"].astype(str).str.lower() == "true",
    )
    return known, ""
