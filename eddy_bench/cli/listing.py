"""`eddy-bench list`: what can be asked for by name."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from eddy_bench.cli.console import console, print_whole
from eddy_bench.errors import UnknownName, counted, unknown
from eddy_bench.shown import shown_json

COLUMNS = ("name", "what", "cost", "source")
TABLE_WIDTH = 100  # columns of a terminal that hold a table


def names(kind: str) -> list[str]:
    """Return the names of a list that can be typed as they stand."""
    listed = [name for _, name, *_ in _lines(kind)]
    return [name for name in listed if name[0].isalnum() and name.islower() and "/" not in name]


def print_list(kind: str) -> None:
    """Print what `eddy-bench list` shows: a table, or in a narrow terminal a paragraph each."""
    lines = _lines(kind)
    if console().width < TABLE_WIDTH:
        _print_paragraphs(lines)
        return
    grouped = kind == "methods"
    # a folded name of a method cannot be copied to the command line
    widest = max(len(line[1]) for line in lines) if grouped else None
    columns = ("touches", Column("name", min_width=widest), *COLUMNS[1:])
    table = Table(*columns[not grouped :], title=kind)
    for line, after in zip(lines, [*lines[1:], None], strict=True):
        ends = after is not None and after[0] != ""
        table.add_row(*map(escape, line[not grouped :]), end_section=ends)
    print_whole(table)


def _print_paragraphs(lines: list[tuple[str, ...]]) -> None:
    """Print each entry's name above what it is, what it costs and where it is from."""
    for touches, name, what, cost, source in lines:
        labelled = [f"{key}: {text}" for key, text in (("cost", cost), ("source", source)) if text]
        if touches:
            console().rule(f"touches {touches}", style="", align="left")
        console().print(Text(name, style="bold"))
        for text in (what, *labelled):
            console().print(Padding(Text(text), (0, 0, 0, 2)))


def print_json(kind: str) -> None:
    """Print the same as a JSON list of objects."""
    records, touched = [], ""
    for touches, *entry in _lines(kind):
        touched = touches or touched
        record: dict[str, Any] = dict(zip(COLUMNS, entry, strict=True))
        if kind == "methods":
            record["touches"] = touched
        if kind == "metrics":
            record |= _metric_record(record["name"])
        records.append(record)
    print(shown_json(json.dumps(records, indent=1, ensure_ascii=False)))


def _metric_record(name: str) -> dict[str, Any]:
    """Return what else is known of a metric, or of an extractor in brackets."""
    from eddy_bench.scoring.cost import cost_of_metric
    from eddy_bench.scoring.metrics import METRICS

    metric = METRICS.get(name)
    taken = cost_of_metric(name, metric.extractor if metric else "")
    record: dict[str, Any] = asdict(taken) if taken else {}
    if metric is not None:
        low, high = (None if math.isinf(bound) else bound for bound in metric.range)
        record |= {
            "needs": metric.needs,
            "higher_is_better": metric.higher_is_better,
            "range": [low, high],
            "citation": metric.citation,
            "licence": metric.licence,
            "download": metric.download,
        }
    return record


def _lines(kind: str) -> list[tuple[str, ...]]:
    """Return the lines of a list behind what the first method of each group touches, or ""."""
    makers: dict[str, Callable[[], list[tuple[str, ...]]]] = {
        "methods": _list_methods,
        "models": _list_models,
        "tasks": _list_tasks,
        "metrics": _list_metrics,
        "prompts": _list_prompts,
        "schedulers": _list_schedulers,
        "suites": _list_suites,
    }
    if kind not in makers:
        raise UnknownName(unknown("list", kind, makers))
    lines = makers[kind]()
    return lines if kind == "methods" else [("", *line) for line in lines]


def _list_methods() -> list[tuple[str, ...]]:
    from eddy_bench.methods.base import TOUCHED
    from eddy_bench.methods.registry import load_method, method_names

    methods = {name: load_method(name) for name in method_names()}
    lines: list[tuple[str, ...]] = []
    for touched in TOUCHED:
        group = [name for name, method in methods.items() if method.touches() == touched]
        for name in group:
            method = methods[name]
            first = touched if name == group[0] else ""
            lines.append((first, name, method.summary, method.cost, method.citation))
    return lines


def _list_models() -> list[tuple[str, ...]]:
    from eddy_bench.models.embedded import EMBEDDED

    return [
        *(
            (name, model.about, model.cost, "eddy_bench/assets/MODEL_CARD.md")
            for name, model in EMBEDDED.items()
        ),
        (
            "exact:TASK",
            "a distribution whose score is known: a task's name or YAML file (list tasks)",
            "no network",
            "eddy_bench/models/tasks.py",
        ),
        ("FOLDER", "any text-to-image pipeline saved by diffusers", "the model's own", "diffusers"),
        (
            "owner/model",
            "any text-to-image pipeline on the hub",
            "the model's own",
            "its model card",
        ),
    ]


def _list_tasks() -> list[tuple[str, ...]]:
    from eddy_bench.models.tasks import DEFAULT_TASKS, TASKS

    return [
        (name, text, "" if name in DEFAULT_TASKS else "only when asked for", "")
        for name, text in TASKS.items()
    ]


def _list_metrics() -> list[tuple[str, ...]]:
    from eddy_bench.scoring.cost import cost_of_metric
    from eddy_bench.scoring.extractors import NAMES
    from eddy_bench.scoring.metrics import METRICS
    from eddy_bench.scoring.plugins import METRIC_GROUP, plugin_names

    installed = plugin_names()
    lines: list[tuple[str, ...]] = [
        (
            m.name,
            f"{m.summary} ({'higher' if m.higher_is_better else 'lower'} is better)"
            + ("; a package's metric of this name is ignored" if m.name in installed else ""),
            "; ".join(
                filter(None, (m.cost, m.download, str(cost_of_metric(m.name, m.extractor) or "")))
            ),
            "; ".join(filter(None, (m.citation, m.licence))),
        )
        for m in METRICS.values()
    ]
    extractors = [
        (f"[{name}]", text, str(cost_of_metric(f"[{name}]") or ""), "extractor")
        for name, text in NAMES.items()
    ]
    installed = [name for name in installed if name not in METRICS]
    lines += [(name, "of an installed package", "", METRIC_GROUP) for name in installed]
    return [*lines, *extractors]


def _list_prompts() -> list[tuple[str, ...]]:
    from eddy_bench.suites.prompts import load_prompts, prompt_set_names

    sets = [load_prompts(name) for name in prompt_set_names()]
    return [
        (
            prompts.name,
            f"{len(prompts.prompts)} prompts, from {prompts.prompts[0].text!r} "
            f"to {prompts.prompts[-1].text!r}",
            f"{len(prompts.prompts)} groups a seed",
            "eddy-bench",
        )
        for prompts in sets
    ]


def _list_schedulers() -> list[tuple[str, ...]]:
    from eddy_bench.sampling.scheduler_table import SCHEDULERS

    lines: list[tuple[str, ...]] = []
    for name, row in SCHEDULERS.items():
        settings = ", ".join(f"{key}={value}" for key, value in row.settings.items())
        what = f"{row.class_name} with {settings}" if settings else row.class_name
        lines.append((name, what, "", "diffusers"))
    return lines


def _list_suites() -> list[tuple[str, ...]]:
    """Read what each suite's first line says, its model, and how many methods it has."""
    from eddy_bench.suites.suite import load_suite, suite_files

    lines: list[tuple[str, ...]] = []
    for name, path in sorted(suite_files().items()):
        first, suite = path.read_text(encoding="utf-8").partition("\n")[0], load_suite(name)
        paper = re.search(r"arXiv \d+\.\d+", first)
        what = re.split(r" \(arXiv|: ", first.removeprefix("# "))[0].rstrip(".")
        cost = counted(len(suite.methods), "method")
        lines.append((name, f"{what}; {suite.model}", cost, paper[0] if paper else "eddy-bench"))
    return lines
