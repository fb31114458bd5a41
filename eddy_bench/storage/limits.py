"""The most of each thing that is made: counted before it is made, so that a slip costs one line."""

from __future__ import annotations

from collections.abc import Iterable

from eddy_bench.errors import EddyError

MAX_VALUES = 1_000_000  # of a YAML file, with its aliases and merged keys written out
MAX_DIGITS = 300  # of a number in YAML
MAX_COLUMNS = 10_000  # of a table
MAX_PROMPTS = 1_000_000
MAX_METHODS = 1_000  # of a suite, its grids written out
MAX_CHECKS = 1_000  # of a gate
MAX_CANDIDATES = 10_000  # images that a method draws of one prompt
MAX_GROUPS = 1_000_000  # methods x prompts x seeds
MAX_PAIRS = 1_000_000  # of images to vote on, over all shuffles
MAX_NAME = 1_000  # characters of a metric with its parameters


def refuse_more(
    factors: Iterable[int], most: int, what: str, cure: str, error: type[EddyError]
) -> None:
    """Raise an error where a product is larger than what may be made of it.

    Args:
        factors: of the product.
        most: that may be made.
        what: is made, with where it is from, as "groups".
        cure: what to do.
        error: is raised with one line.

    """
    count = 1
    for factor in factors:
        count *= factor
        if count > most:  # before the product itself grows beyond all bounds
            raise error(f"Expected at most {most:,} {what}, got {_many(count)}. {cure}")


def _many(count: int) -> str:
    return f"{count:,}" if count < 10**18 else "more than a trillion"
