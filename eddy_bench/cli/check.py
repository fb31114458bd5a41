"""`eddy-bench check-method` and `check-metric`: what each promises, checked on small models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from eddy_bench.cli.arguments import Weights, names_of
from eddy_bench.cli.console import print_table, write_line
from eddy_bench.cli.progress import progress_bar
from eddy_bench.render.table import Cell, Column, Table
from eddy_bench.suites.plugins import Permission

if TYPE_CHECKING:
    from eddy_bench.audit.conformance import Finding
    from eddy_bench.experiment.events import Advance

OUTCOMES = {True: ("holds", "better"), False: ("broken", "worse"), None: ("not tested", "")}
PARTICLES = 4  # that the checks draw


def check_method(
    method: Annotated[
        str,
        typer.Argument(
            help="name:key=value,... or FILE.py:Name:key=value,...",
            autocompletion=names_of("methods"),
        ),
    ],
) -> None:
    """Check what every method promises, on small models.

    Zero strength, N = 1, permutation, batches, finite values, determinism.

    Exit code 1 when a promise is broken.
    """
    from eddy_bench.methods.registry import build_method
    from eddy_bench.suites.method_spec import MethodSpec

    built = build_method(MethodSpec.parse(method), Permission())
    built.drawn(max(PARTICLES, built.min_particles))  # what a run would refuse is refused here
    from eddy_bench.audit.conformance import CHECKS, check_contract

    _check(method, len(CHECKS), lambda advance: check_contract(built, advance))


def check_metric(
    metric: Annotated[
        str,
        typer.Argument(
            help="name[extractor]:key=value, or FILE.py:name, or torchmetrics:CLASS.",
            autocompletion=names_of("metrics"),
        ),
    ],
    weights: Weights = None,
) -> None:
    """Check what every metric promises, on small images.

    Range, determinism, order of images and groups, one image, blank images, and that blur, noise
    or duplicates are no gain.

    Exit code 1 when a promise is broken.
    """
    from eddy_bench.audit.metric_conformance import CHECKS
    from eddy_bench.audit.metric_conformance import check_metric as check
    from eddy_bench.experiment.checks import check_folder
    from eddy_bench.scoring.metrics import MetricSpec

    check_folder(weights, "a folder at --weights")
    spec = MetricSpec.parse(metric, Permission())
    folder = Path(weights) if weights else None
    _check(metric, len(CHECKS), lambda advance: check(spec, folder, advance))


def _check(text: str, count: int, check: Callable[[Advance], Sequence[Finding]]) -> NoReturn:
    """Print what a check of so many promises found."""
    with progress_bar("Checking", count) as advance:
        findings = check(advance)
    outcomes = [OUTCOMES[finding.holds] for finding in findings]
    table = Table(
        "",
        [finding.name for finding in findings],
        [
            Column("outcome", [Cell(outcome) for outcome, _ in outcomes]),
            Column("detail", [Cell(finding.detail) for finding in findings]),
        ],
        tones=[tone for _, tone in outcomes],
        heading="promise",
    )
    print_table(table)
    broken = [finding.name for finding in findings if finding.holds is False]
    untested = [each.name for each in findings if each.detail.startswith("not tested")]
    kept = f"{text} keeps every promise that applies to it"
    kept += f", but {', '.join(untested)} could not be tested." if untested else "."
    write_line(f"{text}: {', '.join(broken)} broken." if broken else kept)
    raise typer.Exit(1 if broken else 0)
