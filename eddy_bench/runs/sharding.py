"""Equal shares of a run, for schedulers that start many processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eddy_bench.errors import ParameterError

if TYPE_CHECKING:
    from eddy_bench.runs.batches import Batch
    from eddy_bench.storage.records import Group


@dataclass(frozen=True)
class Shard:
    """One of `count` equal shares of a plan, by its place from 0."""

    first: int = 0
    count: int = 1

    def of(self, jobs: Sequence[Batch]) -> list[Group]:
        """The groups of this share's jobs: whole batches, so that a share draws them as the whole run would."""
        return [group for job in jobs[self.first :: self.count] for group in job.groups]


def parse_shard(text: str) -> Shard:
    """`i/n`, i from 1.

    >>> parse_shard("2/8")
    Shard(first=1, count=8)

    Raises:
        ParameterError: not two numbers with 1 <= i <= n.

    """
    first, slash, count = text.partition("/")
    numbers = all(part.isdecimal() and len(part) <= 5 for part in (first, count))
    if not slash or not numbers or not 1 <= int(first) <= int(count) <= 10_000:
        raise ParameterError(
            f"Expected --shard i/n with i from 1 to n, such as 2/8, got {text[:40]!r}."
        )
    return Shard(int(first) - 1, int(count))
