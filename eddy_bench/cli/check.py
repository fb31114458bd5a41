"""`eddy-bench check-method` and `check-metric`: what each promises, checked on small models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from eddy_bench.cli.arguments import Weights, names_of
from eddy_bench.cli.console import console, write_line
from eddy_bench.cli.progress import progress_bar
from eddy_bench.suites.plugins import Permission

if TYPE_CHECKING:
    from eddy_bench.audit.conformance import Finding

OUTCOMES = {True: ("holds", "green"), False: ("broken", "red"), None: ("not tested", None)}
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

    with progress_bar("Checking", len(CHECKS)) as advance:
        findings = check_contract(built, advance)
    raise typer.Exit(_print(method, findings))


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
    with progress_bar("Checking", len(CHECKS)) as advance:
        findings = check(spec, Path(weights) if weights else None, advance)
    raise typer.Exit(_print(metric, findings))


def _print(text: str, findings: Sequence[Finding]) -> int:
    """Print findings; returns 1 when a promise is broken."""
    table = Table("promise", "outcome", "detail")
    for finding in findings:
        outcome, style = OUTCOMES[finding.holds]
        table.add_row(finding.name, outcome, escape(finding.detail), style=style)
    console().print(table)
    broken = [finding.name for finding in findings if finding.holds is False]
    untested = [each.name for each in findings if each.detail.startswith("not tested")]
    kept = f"{text} keeps every promise that applies to it"
    kept += f", but {', '.join(untested)} could not be tested." if untested else "."
    write_line(f"{text}: {', '.join(broken)} broken." if broken else kept)
    return 1 if broken else 0
