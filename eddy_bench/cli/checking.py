"""`eddy-bench check-method` and `check-metric`: what each promises, checked on small models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from eddy_bench.cli.console import console, write_line
from eddy_bench.cli.progress import progress_bar

if TYPE_CHECKING:
    from eddy_bench.audit.conformance import Finding

OUTCOMES = {True: ("holds", "green"), False: ("broken", "red"), None: ("not tested", None)}
PARTICLES = 4  # that the checks draw


def check_promises(text: str) -> int:
    """Check a method and print a table; returns 1 when a promise is broken."""
    from eddy_bench.methods.registry import build_method
    from eddy_bench.suites.method_spec import MethodSpec
    from eddy_bench.suites.plugins import Permission

    method = build_method(MethodSpec.parse(text), Permission())
    method.drawn(max(PARTICLES, method.min_particles))  # what a run would refuse is refused here
    from eddy_bench.audit.conformance import CHECKS, check_contract

    with progress_bar("Checking", len(CHECKS)) as advance:
        findings = check_contract(method, advance)
    return _print(text, findings)


def check_metric_promises(text: str, weights: str | None) -> int:
    """Check a metric and print a table; returns 1 when a promise is broken."""
    from eddy_bench.audit.metric_conformance import CHECKS, check_metric
    from eddy_bench.cli.judging import check_folder
    from eddy_bench.scoring.metrics import MetricSpec
    from eddy_bench.suites.plugins import Permission

    check_folder(weights, "a folder at --weights")
    spec = MetricSpec.parse(text, Permission())
    with progress_bar("Checking", len(CHECKS)) as advance:
        findings = check_metric(spec, Path(weights) if weights else None, advance)
    return _print(text, findings)


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
