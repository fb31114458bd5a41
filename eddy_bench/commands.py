"""What the commands do, with progress and tables."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from eddy_bench.errors import UnknownName, unknown
from eddy_bench.suite import Suite, load_suite

if TYPE_CHECKING:
    import pandas as pd

    from eddy_bench.runner import Drawn, Plan
    from eddy_bench.store import RunFolder

WIDE = 150
SHOWN = ("vendi", "pdist", "attributes", "lpips", "clip", "align", "fd", "fid", "drift", "seconds_per_image", "nfe")


def _console(stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else WIDE, highlight=False, soft_wrap=False)


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A bar on stderr with time left; yields a function of (groups done, what is at work)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_console(stderr=True), transient=False) as bar:
        task = bar.add_task(title, total=total)

        def advance(count: int, label: str) -> None:
            bar.update(task, advance=count, description=f"{title} {escape(label)}")

        yield advance
        bar.update(task, description=title)


def run_suite(source: str | None, flags: dict[str, Any], out: Path | None, allow_code: bool, dry_run: bool) -> int:
    """`eddy-bench run`. Returns the exit code: 2 when a group could not be drawn."""
    suite = load_suite(source, flags, allow_code)
    path = out or Path("results") / suite.name
    _check_early(suite, path)
    warnings.filterwarnings("ignore")  # of libraries; ours are printed
    from eddy_bench.runner import draw_missing, draw_reference, find_missing, make_plan, open_folder, open_model

    say = _console(stderr=True)
    model = open_model(suite)
    if "methods" not in flags and not model.has_features:
        suite = _without_features(suite, say)
    plan = make_plan(suite, model)
    if dry_run:
        return _print_plan(plan, path)
    folder = open_folder(plan, path)
    missing, notes = find_missing(plan, folder)
    for note in notes:
        say.print(f"[yellow]Note:[/] {escape(note)}")
    start = time.perf_counter()
    with progress_bar("Drawing", len(missing)) as advance:
        done = draw_missing(plan, model, folder, missing, advance)
        if any(planned.label == "iid" for planned in plan.methods):
            draw_reference(plan, model, folder, lambda count, label: None)
    for note in done.warnings[:5]:
        say.print(f"[yellow]Warning:[/] {escape(note)}")
    if len(done.warnings) > 5:
        say.print(f"[yellow]Warning:[/] {len(done.warnings) - 5} more prompts use words that the model does not know.")
    _say_drawn(done, len(plan.groups), time.perf_counter() - start)
    for group, reason in done.failures[:20]:
        say.print(f"[red]Failed:[/] {escape(str(group.place))}: {escape(reason)}")
    if done.drawn or done.kept:
        _score_if_needed(folder, suite.metrics, suite.reference, suite.weights)
    return 2 if done.failures else 0


def _without_features(suite: Suite, say: Console) -> Suite:
    """A suite's own methods, less those that ask for a guide network where the model has none; what a user asks for stays an error."""
    dropped = [spec for spec in suite.methods if spec.parameters.get("kernel") == "features"]
    for spec in dropped:
        say.print(f"[yellow]Note:[/] {escape(spec.text())} left out: this model has no guide network.")
    return suite.model_copy(update={"methods": [spec for spec in suite.methods if spec not in dropped]})


def _check_early(suite: Suite, path: Path) -> None:
    """What can be refused before a model is loaded."""
    from eddy_bench.metrics.base import parse_metric
    from eddy_bench.runner import selected_prompts
    from eddy_bench.store import RunFolder

    selected_prompts(suite)
    for text in suite.metrics or []:
        parse_metric(text)
    if path.exists() and not path.is_dir():
        RunFolder.prepare(path, {})
    if suite.scheduler.name != "default":
        from eddy_bench.sampling.schedulers import SCHEDULERS

        if suite.scheduler.name not in SCHEDULERS:
            raise UnknownName(unknown("scheduler", suite.scheduler.name, [*SCHEDULERS, "default"]))
    from eddy_bench.methods import build_method

    for spec in suite.methods:
        build_method(spec)


def _say_drawn(done: Drawn, total: int, seconds: float) -> None:
    say = _console(stderr=True)
    if done.drawn == 0 and not done.failures:
        say.print(f"Nothing to draw: all {total} groups are finished.")
    else:
        say.print(f"Drew {done.drawn} groups in {seconds:.0f} s, kept {done.kept}, failed {len(done.failures)}.")


def _print_plan(plan: Plan, path: Path) -> int:
    out = _console()
    suite = plan.suite
    out.print(
        f"{len(plan.groups)} groups of {suite.particles} into {path}: {len(plan.methods)} methods, {len(plan.prompts.prompts)} prompts, {suite.seeds} seeds."
    )
    for planned in plan.methods:
        out.print(f"  {planned.label:28} kernel {planned.kernel or '-':9} {planned.parameters}")
    return 0


def _score_if_needed(folder: RunFolder, metrics: Sequence[str] | None, reference: str | None, weights: str | None) -> None:
    from eddy_bench.scoring import scoring_state

    state = scoring_state(folder, metrics, reference, weights)
    manifest = folder.read_manifest()
    if manifest.get("scored") == state and (folder.path / "scores.csv").is_file() and (folder.path / "summary.csv").is_file():
        import pandas as pd

        _console(stderr=True).print("Nothing to score: scores.csv is up to date.")
        print_summary(pd.read_csv(folder.path / "summary.csv", keep_default_na=True), folder, [])
        return
    _score(folder, metrics, reference, weights)
    folder.write_manifest({**folder.read_manifest(), "scored": state})


def score_run(path: Path, metrics: Sequence[str] | None, reference: str | None, weights: str | None) -> None:
    """`eddy-bench score`."""
    warnings.filterwarnings("ignore")
    from eddy_bench.metrics.base import parse_metric
    from eddy_bench.store import RunFolder

    for text in metrics or []:
        parse_metric(text)
    folder = RunFolder.existing(path)
    _score(folder, metrics, reference, weights)
    folder.write_manifest({key: value for key, value in folder.read_manifest().items() if key != "scored"})


def _score(folder: RunFolder, metrics: Sequence[str] | None, reference: str | None, weights: str | None) -> None:
    from eddy_bench.grids import write_grids
    from eddy_bench.scoring import score_folder

    total = sum(1 for _ in folder.finished())
    with progress_bar("Scoring", total) as advance:
        summary, skipped = score_folder(folder, metrics, reference, weights, advance)
        advance(total, "")
    labels = sorted({found.group.label for found in folder.finished()})
    grids = write_grids(folder, sorted(labels, key=lambda label: label != "iid"))
    for note in skipped:
        _console(stderr=True).print(f"[yellow]Warning:[/] {escape(note)}")
    print_summary(summary, folder, grids)


def print_summary(summary: pd.DataFrame, folder: RunFolder, grids: Sequence[Path]) -> None:
    """The table: one row per method and kernel, baseline first, best values marked with a star."""
    from eddy_bench.metrics.base import METRICS

    columns = [
        column
        for name in SHOWN
        for column in summary.columns
        if column.partition("[")[0] == name and not column.endswith((".low", ".high"))
    ]
    table = Table(
        title=f"{folder.path}",
        caption="Mean over prompts with half the width of its 95% interval. * best of the column.",
        caption_justify="left",
    )
    table.add_column("method", no_wrap=True)
    table.add_column("kernel")
    for column in columns:
        name, _, extractor = column.partition("[")
        arrow = "↑" if METRICS[name].higher_is_better else "↓"
        table.add_column(
            f"{'s/image' if name == 'seconds_per_image' else name} {arrow}" + (f"\n{extractor.rstrip(']')}" if extractor else ""),
            justify="right",
        )
    varied = [column for column in columns if summary[column].nunique() > 1]
    highest = {column: METRICS[column.partition("[")[0]].higher_is_better for column in varied}
    best = {column: summary[column].max() if highest[column] else summary[column].min() for column in varied}
    for record in summary.to_dict("records"):
        row = {str(key): value for key, value in record.items()}
        parameters = row["params"] if isinstance(row["params"], str) and row["params"] else ""
        shown = ", ".join(part for part in parameters.split(",") if part and not part.startswith("kernel="))
        name = f"{row['method']}" + (f" ({shown})" if shown else "")
        kernel = row["kernel"] if isinstance(row["kernel"], str) and row["kernel"] else "-"
        table.add_row(escape(name), kernel, *(_cell(row, column, best.get(column)) for column in columns))
    out = _console()
    out.print(table)
    for label, path in [("scores", folder.path / "scores.csv"), ("summary", folder.path / "summary.csv")]:
        out.print(f"{label:9}{path}", soft_wrap=True)
    for path in grids or sorted((folder.path / "grids").glob("*.png")):
        out.print(f"{'grid':9}{path}", soft_wrap=True)


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
        text += f" ±{(high - low) / 2:.2f}"
    return f"[bold green]{text}*[/]" if value == best else text


def print_list(kind: str) -> None:
    """`eddy-bench list`."""
    makers: dict[str, Callable[[], list[tuple[str, ...]]]] = {
        "methods": _list_methods, "models": _list_models, "metrics": _list_metrics, "prompts": _list_prompts, "schedulers": _list_schedulers, "suites": _list_suites,
    }  # fmt: skip
    if kind not in makers:
        raise UnknownName(unknown("list", kind, makers))
    table = Table("name", "what", "cost", "source", title=kind)
    for line in makers[kind]():
        table.add_row(*map(escape, line))
    _console().print(table)


def _list_methods() -> list[tuple[str, ...]]:
    from eddy_bench.registry import load_method, method_names

    found = [(name, load_method(name)) for name in method_names()]
    return [(name, method.summary, method.cost, method.citation) for name, method in found]


def _list_models() -> list[tuple[str, ...]]:
    from eddy_bench.models.load import EMBEDDED

    return [
        *((name, text, "", "") for name, text in EMBEDDED.items()),
        ("FOLDER", "any text-to-image pipeline saved by diffusers", "", ""),
        ("owner/model", "any text-to-image pipeline on the hub", "", ""),
    ]


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
        (found.name, f"{len(found.prompts)} prompts, from {found.prompts[0].text!r} to {found.prompts[-1].text!r}", "", "")
        for found in sets
    ]


def _list_schedulers() -> list[tuple[str, ...]]:
    from eddy_bench.sampling.schedulers import SCHEDULERS

    return [(name, cls, "", ", ".join(f"{key}={value}" for key, value in settings.items())) for name, (cls, settings) in SCHEDULERS.items()]


def _list_suites() -> list[tuple[str, ...]]:
    from eddy_bench.suite import FOLDER, suite_names

    return [(name, os.path.relpath(FOLDER / f"{name}.yaml"), "", "") for name in suite_names()]
