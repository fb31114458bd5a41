"""How a run is carried out, which its results do not depend on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eddy_bench.errors import ParameterError
from eddy_bench.runs.sharding import Shard

if TYPE_CHECKING:
    from eddy_bench.runs.batches import Executor
    from eddy_bench.runs.plan import Plan
    from eddy_bench.storage.records import Group


@dataclass(frozen=True)
class RunOptions:
    """Hold how a suite is run.

    executor: `local` or `ray`.
    address: of a Ray cluster to join, `auto` or HOST:PORT; None starts one here.
    workers: how many; None is one per GPU, or one per `cpus_per_worker`.
    cpus_per_worker: of a Ray worker.
    shard: draw this shard only; None for all groups.
    verify: hash every image of finished groups.
    """

    executor: str = "local"
    address: str | None = None
    workers: int | None = None
    cpus_per_worker: int = 1
    shard: Shard | None = None
    verify: bool = False

    def check(self) -> None:
        """Raise ParameterError for options that do not exist or do not fit together."""
        if self.executor not in ("local", "ray"):
            raise ParameterError(f"Expected --executor local or ray, got {self.executor!r}.")
        of_cluster = self.address or self.workers or self.cpus_per_worker != 1
        if self.executor == "local" and of_cluster:
            raise ParameterError(
                "--address, --workers and --cpus-per-worker are of a cluster. Add --executor ray."
            )

    def folder(self, path: Path) -> Path:
        """Return the folder that is drawn into: the run's, or beside it the shard's.

        Raises:
            ParameterError: there is nothing beside the run's folder.
        """
        if self.shard is None:
            return path
        path = path.resolve() if path.name in ("", "..") else path
        if not path.name:
            raise ParameterError(
                f"A share goes beside its run folder, and there is nothing beside {path}. "
                "Give another --out."
            )
        number, count = self.shard.first + 1, self.shard.count
        return path.with_name(f"{path.name}-shard-{number}-of-{count}")

    def share(self, plan: Plan, groups: Sequence[Group]) -> list[Group]:
        """Return those groups of a plan, or of its reference set, that are drawn here."""
        from eddy_bench.runs.batches import method_batches

        if self.shard is None or not groups:
            return list(groups)
        # method by method, so that every shard has its share of each
        return self.shard.of([batch for own in method_batches(plan, groups) for batch in own])


@contextmanager
def open_executor(plan: Plan, options: RunOptions) -> Iterator[Executor | None]:
    """Open the executor that was asked for; None is this process."""
    if options.executor == "local":
        yield None
        return
    from eddy_bench.runs.ray_executor import ray_executor

    with ray_executor(plan, options.address, options.workers, options.cpus_per_worker) as executor:
        yield executor


def out_of_shard(path: Path) -> Path:
    """Return the run folder that a shard's folder belongs to."""
    return path.with_name(re.sub(r"-shard-\d+-of-\d+$", "", path.name))
