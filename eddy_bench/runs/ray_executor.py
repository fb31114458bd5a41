"""Drawing on Ray: one actor per GPU or per few CPUs, which keeps its pipeline loaded; the driver alone writes into the run folder."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from eddy_bench.errors import ModelError, ParameterError, brief
from eddy_bench.models.base import Cost
from eddy_bench.runs.batches import (
    REFERENCE,
    Batch,
    GroupResult,
    OutOfMemory,
    draw_batch,
    memory_note,
)
from eddy_bench.runs.plan import Plan, open_model
from eddy_bench.suites.suite import Suite

PATIENCE = 60.0  # seconds until something is said of workers that are not ready
TRIES = 3  # of a job whose worker died
FIRST_ORDER, SECOND_ORDER = 2.0, 20.0  # about how many times iid's seconds feature kernels take


class Worker:
    """What an actor does: it loads the pipeline once and draws jobs.

    Args:
        suite: as JSON, so that nothing but data is sent. threads: of its arithmetic on CPUs.

    """

    def __init__(self, suite: str, threads: int) -> None:
        import warnings

        import torch

        from eddy_bench.methods.iid import Iid
        from eddy_bench.methods.registry import build_method, method_label

        warnings.filterwarnings("ignore")
        if not torch.cuda.is_available():
            torch.set_num_threads(threads)
        self.suite = Suite.model_validate_json(suite)
        self.model = open_model(self.suite)
        self.methods: dict[str, Any] = {REFERENCE: Iid()}
        for spec in self.suite.methods:
            method = build_method(spec)
            self.methods[method_label(spec, method)] = method

    def ready(self) -> bool:
        """Whether the pipeline is loaded."""
        return True

    def draw(self, job: Batch) -> list[GroupResult] | None:
        """The outcomes of a job; None when memory ran out and fewer prompts may be tried."""
        try:
            return draw_batch(self.suite, self.model, self.methods[job.groups[0].label], job)
        except OutOfMemory:
            return None


def weight(job: Batch) -> float:
    """About how long a job takes, next to iid: the largest are started first, so that none is left for the end."""
    group = job.groups[0]
    factor = (
        1.0
        if group.kernel != "features"
        else SECOND_ORDER
        if group.method.startswith("eddy")
        else FIRST_ORDER
    )
    drawn = dict(part.split("=", 1) for part in group.parameters.split(",") if "=" in part).get(
        "m", ""
    )
    return len(job.groups) * factor * (int(drawn) / group.particles if drawn.isdecimal() else 1.0)


@dataclass
class RayExecutor:
    """Draws jobs on actors, which keep their pipelines from one call to the next; one that dies is replaced, and its job is drawn again."""

    ray: Any
    remote: Any
    arguments: tuple[str, int]
    count: int
    idle: list[Any] = field(default_factory=list)

    @property
    def title(self) -> str:
        """For the progress bar."""
        return f"{self.count} Ray worker{'s' if self.count > 1 else ''}"

    def run(self, jobs: Sequence[Batch], notes: list[str]) -> Iterator[GroupResult]:
        """Outcomes as they come."""
        waiting = deque(sorted(jobs, key=weight, reverse=True))
        idle = self.idle
        new = [
            self.remote.remote(*self.arguments)
            for _ in range(min(self.count, len(waiting)) - len(idle))
        ]
        self._check(new)
        idle += new
        working: dict[Any, tuple[Any, Batch]] = {}
        tries: dict[str, int] = {}
        size = max((job.size for job in jobs), default=1)
        while waiting or working:
            while waiting and idle:
                job = waiting.popleft()
                if job.size > size:
                    waiting.extendleft(reversed(job.halves()))
                    continue
                actor = idle.pop()
                working[actor.draw.remote(job)] = (actor, job)
            (done,), _ = self.ray.wait(list(working), num_returns=1)
            actor, job = working.pop(done)
            try:
                found = self.ray.get(done)
            except self.ray.exceptions.RayError as error:
                place = job.groups[0].key
                tries[place] = tries.get(place, 0) + 1
                idle.append(self.remote.remote(*self.arguments))
                notes.append(
                    f"a worker died ({type(error).__name__}); it was replaced, and its {len(job.groups)} groups are drawn again"
                )
                if tries[place] < TRIES:
                    waiting.append(job)
                else:
                    yield from (
                        GroupResult(
                            group,
                            None,
                            Cost(),
                            0,
                            f"{TRIES} workers died over it: {brief(error, 120)}",
                        )
                        for group in job.groups
                    )
                continue
            idle.append(actor)
            if found is None:
                size = min(size, max(1, job.size // 2))
                notes.append(memory_note(size))
                waiting.appendleft(job)
            else:
                yield from found

    def _check(self, actors: Sequence[Any]) -> None:
        ready = [actor.ready.remote() for actor in actors]
        try:
            if ready and not self.ray.wait(ready, timeout=PATIENCE)[0]:
                print(
                    f"Waiting for {self.title}: the cluster may be busy, or the model takes long to load.",
                    file=sys.stderr,
                )
            self.ray.get(ready)
        except self.ray.exceptions.RayError as error:
            raise ModelError(
                f"A Ray worker cannot load the model: {brief(getattr(error, 'cause', None) or error, 300)}"
            ) from None


@contextmanager
def ray_executor(
    plan: Plan, address: str | None, workers: int | None, cpus: int
) -> Iterator[RayExecutor]:
    """An executor on a cluster that is joined, or on one that is started here, on the loopback address and without a dashboard.

    Args:
        address: `auto` or HOST:PORT; None starts one. workers: how many; None is one per GPU, without GPUs one per `cpus` CPUs.

    Raises:
        ParameterError: the package is missing, the cluster cannot be joined, or has no room for one worker.

    """
    try:
        import ray
    except ImportError:
        raise ParameterError(
            "--executor ray needs the package ray. Install eddy-bench[ray]."
        ) from None
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": False,
    }
    try:
        if address:
            ray.init(address=address, **options)
        else:
            ray.init(
                address="local",
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                num_cpus=_enough(workers, cpus),
                **options,
            )
    except Exception as error:
        hint = (
            " If it asks for a token, set RAY_AUTH_MODE=token and give this machine the token."
            if address
            else ""
        )
        raise ParameterError(
            f"The Ray cluster {address or 'on this machine'} cannot be used: {brief(error, 200).rstrip('.')}.{hint}"
        ) from None
    try:
        room = ray.cluster_resources()
        gpus = int(room.get("GPU", 0))
        most = int(room.get("CPU", 0)) // cpus
        most = min(most, gpus) if gpus else most
        count = workers or most
        if not 1 <= count <= most:
            raise ParameterError(
                f"The Ray cluster has {room.get('CPU', 0):g} CPUs and {gpus} GPUs, room for {most} workers of {cpus} CPUs{' and a GPU' if gpus else ''}; "
                f"{max(count, 1)} {'were asked for' if workers else 'is needed'}. Lower --workers or --cpus-per-worker."
            )
        actor = ray.remote(num_cpus=cpus, num_gpus=1 if gpus else 0, max_restarts=0)(Worker)
        yield RayExecutor(ray, actor, (plan.suite.model_dump_json(), cpus), count)
    finally:
        ray.shutdown()


def _enough(workers: int | None, cpus: int) -> int | None:
    """CPUs of a cluster that is started here: those of the machine, unless more workers were asked for."""
    import os

    have = os.cpu_count() or 1
    return max(have, workers * cpus) if workers else None
