"""`eddy-bench list`: names of methods, models, metrics and others."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from eddy_bench.cli.arguments import one_of
from eddy_bench.errors import ParameterError, UnknownName, counted, unknown
from eddy_bench.shown import shown_json

COLUMNS = ("name", "what", "cost", "source")
KINDS = ("methods", "models", "tasks", "metrics", "prompts", "schedulers", "suites")
NAMES = f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(help=f"{NAMES}.", show_default=False, autocompletion=one_of(*KINDS)),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON list of objects instead of a table.")
    ] = False,
) -> None:
    """List what can be requested by name."""
    if kind is None:
        raise ParameterError(f"Expected what to list ({NAMES}), got nothing.")
    (print_json if as_json else print_list)(kind)


def names(kind: str) -> list[str]:
    """Return the names of a list that can be typed as they stand."""
    listed = [name for name, *_ in _lines(kind)]
    return [name for name in listed if name[0].isalnum() and name.islower() and "/" not in name]


def print_list(kind: str) -> None:
    """Print a table, or in a narrow terminal a paragraph each; methods by what they act on."""
    from eddy_bench.cli.console import print_table
    from eddy_bench.render.table import Cell, Column, Table

    lines, sections = _lines(kind), None
    if kind == "methods":
        parts = [_acts_on(name) for name, *_ in lines]
        begins = [k for k, part in enumerate(parts) if k == 0 or part != parts[k - 1]]
        sections = {k: f"acts on {parts[k]}" for k in begins}
    own, *cells = zip(*lines, strict=True)
    columns = [
        Column(title, [*map(Cell, texts)]) for title, texts in zip(COLUMNS[1:], cells, strict=True)
    ]
    print_table(Table(kind, own, columns, heading=COLUMNS[0], sections=sections))


def print_json(kind: str) -> None:
    """Print the same as a JSON list of objects."""
    records = []
    for line in _lines(kind):
        record: dict[str, Any] = dict(zip(COLUMNS, line, strict=True))
        if kind == "methods":
            record["acts_on"] = _acts_on(record["name"])
        if kind == "metrics":
            record |= _metric_record(record["name"])
        records.append(record)
    print(shown_json(json.dumps(records, indent=1, ensure_ascii=False)))


def _acts_on(name: str) -> str:
    from eddy_bench.methods.registry import load_method

    return str(load_method(name).acts_on())


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
    """Return the lines of a list: under the titles of `COLUMNS`."""
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
    return makers[kind]()


def _list_methods() -> list[tuple[str, ...]]:
    """Return methods, those that act on the same thing together."""
    from eddy_bench.methods.base import ACTED_ON
    from eddy_bench.methods.registry import load_method, method_names

    methods = {name: load_method(name) for name in method_names()}
    ordered = sorted(methods, key=lambda name: ACTED_ON.index(methods[name].acts_on()))
    return [
        (name, own.summary, own.cost, own.citation) for name in ordered for own in [methods[name]]
    ]


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
    from textwrap import shorten

    from eddy_bench.suites.prompts import load_prompts, prompt_set_names

    found: list[tuple[str, ...]] = []
    for prompts in map(load_prompts, prompt_set_names()):
        ends = [shorten(own.text, 30, placeholder=" ...") for own in prompts.prompts]
        count = len(ends)
        what = f"{count} prompts, from {ends[0]!r} to {ends[-1]!r}"
        found.append((prompts.name, what, f"{count} groups a seed", "eddy-bench"))
    return found


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
