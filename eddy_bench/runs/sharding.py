"""Equal shards of a run, for schedulers that start many processes."""

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
    """Hold one of `count` equal shards of a plan; `first` counts from 0."""

    first: int = 0
    count: int = 1

    def of(self, batches: Sequence[Batch]) -> list[Group]:
        """Return the groups of this shard: whole batches, drawn as in the whole run."""
        return [group for batch in batches[self.first :: self.count] for group in batch.groups]


def parse_shard(text: str) -> Shard:
    """Read `i/n`, i from 1.

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
