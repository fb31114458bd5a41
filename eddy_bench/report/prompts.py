"""Show single prompts on the page: their images, and the largest gains and losses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from eddy_bench.compare.advice import of_aspect
from eddy_bench.compare.comparison import Comparison
from eddy_bench.compare.paired import Progress, by_prompt
from eddy_bench.errors import counted
from eddy_bench.ids import MetricId
from eddy_bench.report.strips import BUDGET, OVERHEAD, SMALL, Strip, groups_of, make_strip
from eddy_bench.storage.group import FinishedGroup

EXTREMES = 4  # largest gains, and as many losses
PROMPTS = 100  # shown with images at most
TEXT = 300  # characters of a prompt that are shown
ALT = 80  # characters of a prompt in an image's description


def prompt_fields(
    folders: Sequence[Path], comparison: Comparison, progress: Progress
) -> dict[str, Any]:
    """Return the template's fields on prompts; those with the largest differences come first."""
    results, baseline = comparison.results, str(comparison.results.baseline)
    frame = results.frame
    texts = {
        prompt: shortened(text, TEXT)
        for prompt, text in zip(frame["prompt_id"], frame["prompt"], strict=True)
        if prompt
    }
    seeds = sorted(set(frame["seed"]) - {""})
    order, values, gains = list(texts), pd.DataFrame(), pd.DataFrame()
    extremes: list[dict[str, Any]] = []
    if diversity := of_aspect("diversity", comparison.differences, results):
        column = diversity[0].metric
        rows, sign = results.rows(column=column), 1 if diversity[0].higher_is_better else -1
        table = _named(by_prompt(rows))
        gaps = table.drop(columns=baseline).sub(table[baseline], axis=0)
        gains = sign * gaps
        largest = gaps.abs().max(axis=1).sort_values(ascending=False)
        order = list(map(str, largest.index))
        extremes = [
            _extremes(column, str(name), gains, table, baseline, texts, sign) for name in gaps
        ]
        values = _named(by_prompt(rows[rows["seed"] == seeds[0]]))  # of the seed that is shown
    advance = progress(min(PROMPTS, len(order)))
    names = list(dict.fromkeys([baseline, *map(str, results.methods)]))
    broken: list[str] = []
    groups = groups_of(folders, broken)
    prompts = _prompts(groups, names, order[:PROMPTS], texts, values, advance)
    strips = [strip for prompt in prompts for strip in prompt["strips"]]
    return {
        "extremes": extremes,
        "pictures": prompts,
        "small_images": all(strip.height <= SMALL for strip in strips),
        "shown_prompts": _shown(len(order) - len(prompts), seeds, prompts, len(broken)),
        "gains": _gains_by_method(gains, [prompt["id"] for prompt in prompts]),
    }


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of prompts by methods with the methods' texts."""
    return table.set_axis([str(method) for method in table.columns], axis=1)


def _gains_by_method(gains: pd.DataFrame, prompts: Sequence[str]) -> dict[str, list[float | None]]:
    """Return each method's gain on the prompts that are shown, in their order."""
    return {
        str(name): [
            round(float(gains[name][prompt]), 4)
            if prompt in gains.index and pd.notna(gains[name][prompt])
            else None
            for prompt in prompts
        ]
        for name in gains.columns
    }


def first_prompts(
    gains: Mapping[str, Sequence[float | None]], count: int, answered: Sequence[str]
) -> list[int]:
    """Return the prompts of the first screen: where the first answer gains most, middling, least.

    Without an answer they are the first ones.
    """
    shown = next((gains[name] for name in answered if name in gains), [])
    if not shown:  # or no images are at hand
        return list(range(min(count, 3)))
    order = sorted(range(len(shown)), key=lambda k: -(shown[k] or 0.0))
    return list(dict.fromkeys([order[0], order[len(order) // 2], order[-1]]))


def _shown(left: int, seeds: Sequence[str], prompts: Sequence[dict[str, Any]], broken: int) -> str:
    """Say which prompts and seeds are shown, and how many groups cannot be."""
    unread = broken + sum(prompt["unread"] for prompt in prompts)
    return (
        (f"{left} more prompts are left out to keep the page small. " if left else "")
        + (f"Seed {seeds[0]} of {len(seeds)} is shown." if len(seeds) > 1 else "")
        + (f" {counted(unread, 'group')} could not be read." if unread else "")
    )


def _extremes(
    column: MetricId,
    name: str,
    gains: pd.DataFrame,
    table: pd.DataFrame,
    baseline: str,
    texts: Mapping[str, str],
    sign: int,
) -> dict[str, Any]:
    """Return the prompts on which a method gains and loses most."""
    own = gains[name].dropna().sort_values(ascending=False)
    if len(own) > 2 * EXTREMES:
        own = pd.concat([own.head(EXTREMES), own.tail(EXTREMES).iloc[::-1]])
    rows = [
        {
            "prompt": texts.get(prompt, prompt),
            "baseline": f"{float(table[baseline][prompt]):.3f}",
            "value": f"{float(table[name][prompt]):.3f}",
            "difference": f"{sign * gain:+.3f}",
            "tone": "better" if gain > 0 else "worse" if gain < 0 else "",
        }
        for prompt, gain in zip(map(str, own.index), own.to_numpy(float), strict=True)
    ]
    return {"name": name, "metric": column, "rows": rows}


def _prompts(
    groups: Mapping[tuple[str, str], FinishedGroup],
    names: Sequence[str],
    order: Sequence[str],
    texts: Mapping[str, str],
    values: pd.DataFrame,
    advance: Callable[[int, str], None],
) -> list[dict[str, Any]]:
    """Return prompts with their strips, until the budget is spent; of the first as many as fit."""
    prompts: list[dict[str, Any]] = []
    spent = 0
    for prompt in order:
        strips, unread = _strips(groups, names, prompt, values)
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
    names: Sequence[str],
    prompt: str,
    values: pd.DataFrame,
) -> tuple[list[Strip], int]:
    """Return a prompt's strips, and how many groups could not be read."""
    strips = []
    for name in names:
        if (name, prompt) in groups:
            known = name in values and prompt in values.index
            value = f"{float(values[name][prompt]):.2f}" if known else ""
            strips.append(make_strip(groups[name, prompt], name, value))
    readable = [strip for strip in strips if strip is not None]
    return readable, len(strips) - len(readable)


def shortened(text: str, length: int) -> str:
    """Return at most that many characters, an ellipsis for the rest.

    >>> shortened("a red dress", 6)
    'a red…'
    """
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
