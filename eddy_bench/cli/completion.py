"""What the shell offers while a value is typed: names of methods, models, suites and others."""

from __future__ import annotations

from collections.abc import Callable


def names_of(kind: str) -> Callable[[str], list[str]]:
    """Return what completes a value with the names that `eddy-bench list KIND` shows."""

    def complete(incomplete: str) -> list[str]:
        from eddy_bench.cli.listing import names

        return [name for name in names(kind) if name.startswith(incomplete)]

    return complete


def one_of(*values: str) -> Callable[[str], list[str]]:
    """Return what completes a value with one of a few."""
    return lambda incomplete: [value for value in values if value.startswith(incomplete)]
