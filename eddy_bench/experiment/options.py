"""How a run is carried out, which its results do not depend on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eddy_bench.errors import ParameterError

if TYPE_CHECKING:
    from eddy_bench.experiment.batches import Batch, Executor
    from eddy_bench.experiment.plan import Plan
    from eddy_bench.storage.records import Group


@dataclass(frozen=True)
class Shard:
    """One of `count` equal shards of a plan; `first` counts from 0."""

    first: int
    count: int

    def of(self, batches: Sequence[Batch]) -> list[Group]:
        """Return the groups of this shard: whole batches, drawn as in the whole run."""
        return [group for batch in batches[self.first :: self.count] for group in batch.groups]


def parse_shard(text: str) -> Shard:
    """Read `i/n`, i from 1 to n.

    >>> parse_shard("2/8")
    Shard(first=1, count=8)
    """
    first, slash, count = text.partition("/")
    numbers = all(part.isdecimal() and len(part) <= 5 for part in (first, count))
    if not slash or not numbers or not 1 <= int(first) <= int(count) <= 10_000:
        raise ParameterError(
            f"Expected --shard i/n with i from 1 to n, such as 2/8, got {text[:40]!r}."
        )
    return Shard(int(first) - 1, int(count))


@dataclass(frozen=True)
class RunOptions:
    """How a suite is run.

    executor: `local` or `ray`.
    address: of a Ray cluster to join, `auto` or HOST:PORT; None starts one here.
    workers: how many; None is one per GPU, or one per `cpus_per_worker`.
    shard: draw this shard only; None for all groups.
    verify: hash every image of finished groups.
    dry_run: only say what would be drawn.
    pack: put finished groups into packs, those that are there already, too.
    """

    executor: str = "local"
    address: str | None = None
    workers: int | None = None
    cpus_per_worker: int = 1
    shard: Shard | None = None
    verify: bool = False
    dry_run: bool = False
    pack: bool = False

    def check(self) -> None:
        """Raise ParameterError for options that do not exist or do not fit together."""
        if self.executor not in ("local", "ray"):
            raise ParameterError(f"Expected --executor local or ray, got {self.executor!r}.")
        of_cluster = self.address or self.workers or self.cpus_per_worker != 1
        if self.executor == "local" and of_cluster:
            raise ParameterError(
                "--address, --workers and --cpus-per-worker are of a cluster. Add --executor ray."
            )

    @property
    def scores(self) -> bool:
        """Whether what is drawn is scored; a shard is scored after merging."""
        return self.shard is None and not self.dry_run

    def folder(self, path: Path) -> Path:
        """Return the folder that is drawn into: the run's, or beside it the shard's."""
        if self.shard is None:
            return path
        path = path.resolve() if path.name in ("", "..") else path
        if not path.name:
            raise ParameterError(
                f"A shard goes beside its run folder, and there is nothing beside {path}. "
                "Give another --out."
            )
        number, count = self.shard.first + 1, self.shard.count
        return path.with_name(f"{path.name}-shard-{number}-of-{count}")

    def shard_of(self, plan: Plan, groups: Sequence[Group]) -> list[Group]:
        """Return those groups of a plan, or of its reference set, that are drawn here."""
        from eddy_bench.experiment.batches import method_batches

        if self.shard is None or not groups:
            return list(groups)
        # method by method, so that every shard has its share of each
        return self.shard.of([batch for own in method_batches(plan, groups) for batch in own])


@contextmanager
def open_executor(
    plan: Plan, options: RunOptions, tell: Callable[[str], None]
) -> Iterator[Executor | None]:
    """Open the executor of some options; None is this process."""
    if options.executor == "local":
        yield None
        return
    from eddy_bench.experiment.ray_executor import ray_executor

    with ray_executor(plan, options, tell) as executor:
        yield executor


def out_of_shard(path: Path) -> Path:
    """Return the run folder that a shard's folder belongs to."""
    return path.with_name(re.sub(r"-shard-\d+-of-\d+$", "", path.name))
