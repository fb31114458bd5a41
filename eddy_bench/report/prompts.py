"""Show single prompts on the page: their images, and the largest gains and losses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from eddy_bench.compare.load import ScoreSet
from eddy_bench.compare.paired import Difference, by_prompt
from eddy_bench.report.strips import BUDGET, OVERHEAD, SMALL, Strip, groups_of, make_strip
from eddy_bench.scoring.feature_cache import Advance
from eddy_bench.scoring.metrics import MetricSpec, judging
from eddy_bench.storage.group import FinishedGroup

EXTREMES = 4  # largest gains, and as many losses
PROMPTS = 100  # shown with images at most
TEXT = 300  # characters of a prompt that are shown
ALT = 80  # characters of a prompt in an image's description


def prompt_fields(
    folders: Sequence[Path],
    scores: ScoreSet,
    differences: Sequence[Difference],
    baseline: str,
    progress: Callable[[int], Advance],
) -> dict[str, Any]:
    """Return the template's fields on prompts; those with the largest differences come first."""
    column = _diversity_column(differences)
    frame = scores.frame
    texts = {
        prompt: shortened(text, TEXT)
        for prompt, text in zip(frame["prompt_id"], frame["prompt"], strict=True)
        if prompt
    }
    seeds = sorted(set(frame["seed"]) - {""})
    order, values, gains = list(texts), pd.DataFrame(), pd.DataFrame()
    extremes: list[dict[str, Any]] = []
    if column is not None:
        rows = frame[frame["column"] == column]
        order, extremes = _largest_differences(column, by_prompt(rows), baseline, texts)
        gains = _gains(column, by_prompt(rows), baseline)
        values = by_prompt(rows[rows["seed"] == seeds[0]])  # of the seed that is shown
    advance = progress(min(PROMPTS, len(order)))
    labels = [baseline, *(label for label in scores.labels if label != baseline)]
    prompts = _prompts(groups_of(folders), labels, order[:PROMPTS], texts, values, advance)
    strips = [strip for prompt in prompts for strip in prompt["strips"]]
    return {
        "extremes": extremes,
        "pictures": prompts,
        "small_images": all(strip.height <= SMALL for strip in strips),
        "shown_prompts": _shown(len(order) - len(prompts), seeds, prompts),
        "gains": _gains_by_method(gains, [prompt["id"] for prompt in prompts]),
    }


def _gains(column: str, table: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Return differences to the baseline, prompts down, methods across, better counted up."""
    sign = 1 if MetricSpec.of_column(column).metric.higher_is_better else -1
    return sign * table.drop(columns=baseline).sub(table[baseline], axis=0)


def _gains_by_method(gains: pd.DataFrame, prompts: Sequence[str]) -> dict[str, list[float | None]]:
    """Return each method's gain on the prompts that are shown, in their order."""
    return {
        str(label): [
            round(float(gains[label][prompt]), 4)
            if prompt in gains.index and pd.notna(gains[label][prompt])
            else None
            for prompt in prompts
        ]
        for label in gains.columns
    }


def first_prompts(
    gains: Mapping[str, Sequence[float | None]], count: int, answered: Sequence[str]
) -> list[int]:
    """Return the prompts of the first screen: where the first answer gains most, middling, least.

    Without an answer they are the first ones.
    """
    shown = next((gains[label] for label in answered if label in gains), [])
    if not shown:  # or no images are at hand
        return list(range(min(count, 3)))
    order = sorted(range(len(shown)), key=lambda k: -(shown[k] or 0.0))
    return list(dict.fromkeys([order[0], order[len(order) // 2], order[-1]]))


def _diversity_column(differences: Sequence[Difference]) -> str | None:
    """Return the first column of the first diversity metric that was compared per prompt."""
    columns = {
        difference.column: MetricSpec.of_column(difference.column).name
        for difference in differences
        if difference.prompts
    }
    return next(
        (
            column
            for name in judging("diversity")
            for column, metric in columns.items()
            if metric == name
        ),
        None,
    )


def _shown(left: int, seeds: Sequence[str], prompts: Sequence[dict[str, Any]]) -> str:
    """Say which prompts and seeds are shown."""
    unread = sum(prompt["unread"] for prompt in prompts)
    return (
        (f"{left} more prompts are left out to keep the page small. " if left else "")
        + (f"Seed {seeds[0]} of {len(seeds)} is shown." if len(seeds) > 1 else "")
        + (f" {unread} groups could not be read." if unread else "")
    )


def _largest_differences(
    column: str, table: pd.DataFrame, baseline: str, texts: Mapping[str, str]
) -> tuple[list[str], list[dict[str, Any]]]:
    """Return prompts by their largest difference, and the extremes of each method."""
    gaps = table.drop(columns=baseline).sub(table[baseline], axis=0)
    largest = gaps.abs().max(axis=1).sort_values(ascending=False)
    extremes = [
        _extremes(
            column,
            str(label),
            gaps[label].dropna().sort_values(ascending=False),
            table,
            baseline,
            texts,
        )
        for label in gaps.columns
    ]
    return [str(prompt) for prompt in largest.index], extremes


def _extremes(
    column: str,
    label: str,
    gaps: pd.Series,
    table: pd.DataFrame,
    baseline: str,
    texts: Mapping[str, str],
) -> dict[str, Any]:
    """Return the prompts on which a method gains and loses most."""
    sign = 1 if MetricSpec.of_column(column).metric.higher_is_better else -1
    gains = (sign * gaps).sort_values(ascending=False)
    if len(gains) > 2 * EXTREMES:
        gains = pd.concat([gains.head(EXTREMES), gains.tail(EXTREMES).iloc[::-1]])
    rows = [
        {
            "prompt": texts.get(prompt, prompt),
            "baseline": f"{float(table[baseline][prompt]):.3f}",
            "value": f"{float(table[label][prompt]):.3f}",
            "difference": f"{sign * gain:+.3f}",
            "tone": "better" if gain > 0 else "worse" if gain < 0 else "",
        }
        for prompt, gain in zip(map(str, gains.index), gains.to_numpy(float), strict=True)
    ]
    return {"label": label, "column": column, "rows": rows}


def _prompts(
    groups: Mapping[tuple[str, str], FinishedGroup],
    labels: Sequence[str],
    order: Sequence[str],
    texts: Mapping[str, str],
    values: pd.DataFrame,
    advance: Advance,
) -> list[dict[str, Any]]:
    """Return prompts with their strips, until the budget is spent; of the first as many as fit."""
    prompts: list[dict[str, Any]] = []
    spent = 0
    for prompt in order:
        strips, unread = _strips(groups, labels, prompt, values)
        lengths = (len(strip.data) + OVERHEAD for strip in strips)
        sizes = list(itertools.accumulate(lengths, initial=spent))
        if sizes[-1] > BUDGET and prompts:
            break
        strips = [strip for strip, size in zip(strips, sizes[1:], strict=True) if size <= BUDGET]
        spent = sizes[len(strips)]
        if strips:
            text = texts[prompt]
            entry = {
                "id": prompt,
                "text": text,
                "alt": shortened(text, ALT),
                "strips": strips,
                "unread": unread,
            }
            prompts.append(entry)
        advance(1, prompt)
    return prompts


def _strips(
    groups: Mapping[tuple[str, str], FinishedGroup],
    labels: Sequence[str],
    prompt: str,
    values: pd.DataFrame,
) -> tuple[list[Strip], int]:
    """Return a prompt's strips, and how many groups could not be read."""
    strips = []
    for label in labels:
        if (label, prompt) in groups:
            known = label in values and prompt in values.index
            value = f"{float(values[label][prompt]):.2f}" if known else ""
            strips.append(make_strip(groups[label, prompt], label, value))
    readable = [strip for strip in strips if strip is not None]
    return readable, len(strips) - len(readable)


def shortened(text: str, length: int) -> str:
    """Return at most that many characters, an ellipsis for the rest.

    >>> shortened("a red dress", 6)
    'a red…'
    """
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
