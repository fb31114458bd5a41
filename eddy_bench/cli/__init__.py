"""The command line, the one place that prints."""

from eddy_bench.cli.app import main

__all__ = ["main"]
