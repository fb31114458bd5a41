"""`eddy-bench report`: what the page holds, put into its template."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from eddy_bench.compare.front_tables import CAPTION as FRONTS_CAPTION
from eddy_bench.compare.front_tables import front_header, front_lines
from eddy_bench.compare.load import (
    SETTINGS,
    ScoreSet,
    canonical,
    check_comparable,
    lacking,
    read_scores,
)
from eddy_bench.compare.paired import Difference, by_prompt, compare
from eddy_bench.compare.pareto import Fronts, fronts
from eddy_bench.compare.tables import HEADER, caption, cells
from eddy_bench.errors import CompareError
from eddy_bench.report.plots import pareto_plot
from eddy_bench.report.strips import BUDGET, OVERHEAD, SMALL, Strip, groups_of, make_strip
from eddy_bench.report.verdicts import DIVERSITY, bare, verdicts, warnings
from eddy_bench.scoring.feature_cache import Advance
from eddy_bench.scoring.metrics import COSTS, METRICS
from eddy_bench.scoring.score_table import read_table, unescaped
from eddy_bench.storage.files import write_text
from eddy_bench.storage.run_files import read_manifest

EXTREMES = 4  # largest gains, and as many losses
PROMPTS = 100  # shown with pictures at most
TEXT = 300  # characters of a prompt that are shown


def write_report(
    folders: Sequence[Path],
    out: Path | None,
    baseline: str,
    partly: bool,
    progress: Callable[[int], Advance] = lambda total: lambda count, label: None,
) -> Path:
    """Write the page of one or several run folders; returns where.

    Raises:
        CompareError: a folder is no scored run, or they cannot be compared.

    """
    for path in folders:
        if not path.is_dir():
            raise CompareError(f"Expected a run folder, got {path}. A report shows its images.")
    scores = read_scores(folders)
    notes = check_comparable(scores, None, partly)
    baseline = baseline if baseline in scores.labels else canonical(baseline)
    target = out or folders[0] / "report.html"
    several = len(scores.labels) > 1
    found = compare(scores, baseline) if several else []
    parts = fronts(scores, baseline) if several else None
    fields = {
        **_texts(folders, scores, found, baseline, notes),
        **_front_fields(
            parts,
            target.parent
            / ("plots" if out is None or target.stem == "report" else f"{target.stem}-plots"),
        ),
        **_prompt_fields(folders, scores, found, baseline, progress),
        "costs": _costs(scores),
        "manifests": [
            (str(path), json.dumps(read_manifest(path).as_dict(), indent=2, ensure_ascii=False))
            for path in folders
        ],
    }
    write_text(target, _template().render(fields))
    return target


def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    text = (Path(__file__).parent / "template.html").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(
        text
    )


def _texts(
    folders: Sequence[Path],
    scores: ScoreSet,
    found: Sequence[Difference],
    baseline: str,
    notes: Sequence[str],
) -> dict[str, Any]:
    settings = ", ".join(
        f"{name.replace('_', ' ')} {scores.frame[name].iloc[0]}" for name in SETTINGS
    )
    prompts = scores.frame[scores.frame["prompt_id"] != ""]["prompt_id"].nunique()
    tones = {True: "better", False: "worse", None: ""}
    shown = [one for one in found if one.prompts or one.difference]
    by_column = [
        [one for one in shown if one.column == column]
        for column in dict.fromkeys(one.column for one in shown)
    ]
    return {
        "title": ", ".join(path.resolve().name for path in folders),
        "settings": f"{settings}, {prompts} prompts.",
        "baseline": baseline,
        "verdicts": verdicts(found, scores, baseline),
        "warnings": [
            *notes,
            *lacking(scores),
            *warnings(found, scores, _kernels(folders, scores.labels)),
        ],
        "header": HEADER[1:],
        "tables": [
            (
                cells(rows[0])[0],
                [{"cells": cells(one)[1:], "tone": tones[one.better]} for one in rows],
            )
            for rows in by_column
        ],
        "caption": caption(found, baseline),
    }


def _kernels(folders: Sequence[Path], labels: Sequence[str]) -> dict[str, str]:
    """The kernel of each method that is compared, from summary.csv."""
    found = {}
    for path in folders:
        try:
            table = read_table(
                path / "summary.csv", keep_default_na=False, usecols=["method", "params", "kernel"]
            ).pipe(unescaped)
        except (OSError, ValueError):
            continue
        for method, params, kernel in table.itertuples(index=False):
            found[f"{method}:{params}" if params else method] = kernel
    return {label: found[label] for label in labels if label in found}


def _front_fields(parts: Fronts | None, plots: Path) -> dict[str, Any]:
    if parts is None:
        return {"plot": "", "plots": "", "front_header": (), "front_lines": [], "front_caption": ""}
    return {
        "plot": pareto_plot(parts, plots),
        "plots": plots.name,
        "front_caption": FRONTS_CAPTION,
        "front_header": front_header(parts),
        "front_lines": front_lines(parts),
    }


def _prompt_fields(
    folders: Sequence[Path],
    scores: ScoreSet,
    found: Sequence[Difference],
    baseline: str,
    progress: Callable[[int], Advance],
) -> dict[str, Any]:
    columns = [one.column for one in found if one.prompts]
    column = next(
        (column for name in DIVERSITY for column in columns if bare(column) == name), None
    )
    frame = scores.frame
    texts = {
        prompt: shortened(text, TEXT)
        for prompt, text in zip(frame["prompt_id"], frame["prompt"], strict=True)
        if prompt
    }
    if column is None:
        order, table, extremes = list(texts), pd.DataFrame(), []
    else:
        table = by_prompt(frame[frame["column"] == column])
        gaps = table.drop(columns=baseline).sub(table[baseline], axis=0)
        order = [
            str(prompt) for prompt in gaps.abs().max(axis=1).sort_values(ascending=False).index
        ]
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
    seeds = sorted(set(frame["seed"]) - {""})
    own = (
        by_prompt(frame[(frame["column"] == column) & (frame["seed"] == seeds[0])])
        if column is not None
        else table
    )  # of the seed that is shown
    pictures = _pictures(
        folders, scores.labels, order, texts, own, progress(min(PROMPTS, len(order)))
    )
    left = len(order) - len(pictures)
    strips = [strip for prompt in pictures for strip in prompt["strips"]]
    unread = sum(prompt["unread"] for prompt in pictures)
    return {
        "extremes": extremes,
        "pictures": pictures,
        "small_images": all(strip.height <= SMALL for strip in strips),
        "shown_prompts": (
            f"{left} more prompts are left out to keep the page small. " if left else ""
        )
        + (f"Seed {seeds[0]} of {len(seeds)} is shown." if len(seeds) > 1 else "")
        + (f" {unread} groups could not be read." if unread else ""),
    }


def _extremes(
    column: str,
    label: str,
    gaps: pd.Series,
    table: pd.DataFrame,
    baseline: str,
    texts: dict[str, str],
) -> dict[str, Any]:
    sign = 1 if METRICS[bare(column)].higher_is_better else -1
    gaps = (sign * gaps).sort_values(ascending=False)
    chosen = sign * (
        gaps
        if len(gaps) <= 2 * EXTREMES
        else pd.concat([gaps.head(EXTREMES), gaps.tail(EXTREMES).iloc[::-1]])
    )
    rows = [
        {
            "prompt": texts.get(prompt, prompt),
            "baseline": f"{float(table[baseline][prompt]):.3f}",
            "value": f"{float(table[label][prompt]):.3f}",
            "difference": f"{gap:+.3f}",
            "tone": "better" if sign * gap > 0 else "worse" if sign * gap < 0 else "",
        }
        for prompt, gap in zip(map(str, chosen.index), chosen.to_numpy(float), strict=True)
    ]
    return {"label": label, "column": column, "rows": rows}


def _pictures(
    folders: Sequence[Path],
    labels: Sequence[str],
    order: Sequence[str],
    texts: dict[str, str],
    table: pd.DataFrame,
    advance: Advance,
) -> list[dict[str, Any]]:
    """Prompts with their strips, until the budget is spent."""
    found: list[dict[str, Any]] = []
    groups, spent = groups_of(folders), 0
    for prompt in order[:PROMPTS]:
        strips: list[Strip] = []
        unread = 0
        for label in labels:
            if (label, prompt) in groups:
                value = (
                    f"{float(table[label][prompt]):.2f}"
                    if label in table and prompt in table.index
                    else ""
                )
                strip = make_strip(groups[label, prompt], label, value)
                strips += [strip] if strip else []
                unread += strip is None
        sizes = list(
            itertools.accumulate((len(strip.data) + OVERHEAD for strip in strips), initial=spent)
        )
        if sizes[-1] > BUDGET and found:
            break
        strips = [
            strip for strip, size in zip(strips, sizes[1:], strict=True) if size <= BUDGET
        ]  # of the first prompt as many as fit
        spent = sizes[len(strips)]
        if strips:
            found.append(
                {
                    "text": texts[prompt],
                    "alt": shortened(texts[prompt], 80),
                    "strips": strips,
                    "unread": unread,
                }
            )
        advance(1, prompt)
    return found


def _costs(scores: ScoreSet) -> dict[str, Any]:
    frame = scores.frame[scores.frame["metric"].isin(COSTS)]
    table = frame.pivot_table(
        index="label", columns="metric", values="value", aggfunc="mean", sort=False
    )
    names = [name for name in COSTS if name in table and table[name].abs().sum() > 0]
    return {
        "names": names,
        "rows": [
            [str(label), *(f"{value:.4g}" for value in table.loc[label, names])]
            for label in table.index
        ],
    }


def shortened(text: str, length: int) -> str:
    """At most that many characters, an ellipsis for the rest.

    >>> shortened("a red dress", 6)
    'a red…'
    """
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
