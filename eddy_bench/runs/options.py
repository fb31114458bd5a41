"""How a run is carried out, which its results do not depend on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eddy_bench.runs.batches import Executor
    from eddy_bench.runs.plan import Plan
    from eddy_bench.runs.sharding import Shard


@dataclass(frozen=True)
class RunOptions:
    """How a suite is run, which its results do not depend on.

    executor: `local` or `ray`. address: of a Ray cluster to join, `auto` or HOST:PORT; none starts one here. workers: how many; None is one per GPU, or
    one per `cpus_per_worker`. shard: draw this share only. verify: hash every image of finished groups.
    """

    executor: str = "local"
    address: str | None = None
    workers: int | None = None
    cpus_per_worker: int = 1
    shard: Shard | None = None
    verify: bool = False


@contextmanager
def open_executor(plan: Plan, options: RunOptions) -> Iterator[Executor | None]:
    """The executor that was asked for; None is this process."""
    if options.executor == "local":
        yield None
        return
    from eddy_bench.runs.ray_executor import ray_executor

    with ray_executor(plan, options.address, options.workers, options.cpus_per_worker) as executor:
        yield executor


def out_of_shard(path: Path) -> Path:
    """The run folder that a share's folder belongs to."""
    return path.with_name(re.sub(r"-shard-\d+-of-\d+$", "", path.name))
