"""Draw on Ray: an actor per GPU, or per few CPUs, keeps its pipeline; the driver alone writes."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from eddy_bench.errors import ModelError, ParameterError, brief
from eddy_bench.experiment.batches import Batch, GroupResult, OutOfMemory, draw_batch, memory_note
from eddy_bench.experiment.options import RunOptions
from eddy_bench.experiment.plan import REFERENCE, Plan
from eddy_bench.experiment.setup import Setup
from eddy_bench.methods.base import Method
from eddy_bench.methods.iid import Iid
from eddy_bench.methods.registry import build_method, method_label
from eddy_bench.models.base import Cost
from eddy_bench.storage.group import png_bytes
from eddy_bench.suites.plugins import Permission
from eddy_bench.suites.suite import Suite

PATIENCE = 60.0  # seconds until something is said of workers that are not ready
TRIES = 3  # of a job whose worker died
FIRST_ORDER, SECOND_ORDER = 2.0, 20.0  # about how many times iid's seconds feature kernels take


class Worker:
    """Load the pipeline once in an actor, and draw batches there.

    Args:
        suite: as JSON, so that nothing but data is sent beside the permission.
        threads: of its arithmetic on CPUs.
        permission: to run the Python files that the suite's methods name.
    """

    def __init__(self, suite: str, threads: int, permission: Permission | None) -> None:
        import warnings

        import torch

        warnings.filterwarnings("ignore")
        if not torch.cuda.is_available():
            torch.set_num_threads(threads)
        self.setup = Setup.open(Suite.model_validate_json(suite))
        self.methods: dict[str, Method] = {REFERENCE: Iid()}
        for spec in self.setup.suite.methods:
            method = build_method(spec, permission)
            self.methods[method_label(spec, method)] = method

    def ready(self) -> bool:
        """Return once the pipeline is loaded."""
        return True

    def draw(self, batch: Batch) -> list[GroupResult] | None:
        """Draw a batch, encoded; None when memory ran out and fewer prompts may be tried."""
        try:
            results = draw_batch(self.setup, self.methods[batch.groups[0].label], batch)
        except OutOfMemory:
            return None
        # as PNG, which travels in fewer bytes
        encoded = [done.images and tuple(map(png_bytes, done.images)) for done in results]
        first, *rest = [
            replace(done, images=images) for done, images in zip(results, encoded, strict=True)
        ]
        model = self.setup.model
        notes, unkept = tuple(model.take_notes()), model.take_unkept()
        return [replace(first, notes=notes, unkept=unkept), *rest]


def weight(batch: Batch, method: Method, steps: int | None = None) -> float:
    """Return about how long a batch takes next to iid: the largest are started first.

    Candidates that are dropped after a preview count by their share of the steps.
    """
    group, factor = batch.groups[0], 1.0
    if group.kernel == "features":
        factor = SECOND_ORDER if group.method.startswith("eddy") else FIRST_ORDER
    draws = method.drawn(group.particles) / group.particles
    if method.previewed is not None and steps and draws > 1:
        draws = 1 + draws * method.previewed / steps
    return len(batch.groups) * factor * draws


@dataclass
class RayExecutor:
    """Draw batches on actors, which keep their pipelines from one call to the next.

    One that dies is replaced, and its batch is drawn again.
    """

    ray: Any
    remote: Any
    plan: Plan
    cpus: int
    count: int
    tell: Callable[[str], None]
    idle: list[Any] = field(default_factory=list)

    @property
    def title(self) -> str:
        """For the progress bar."""
        return f"{self.count} Ray worker{'s' if self.count > 1 else ''}"

    def run(self, batches: Sequence[Batch], notes: list[str]) -> Iterator[GroupResult]:
        """Yield results as they come."""
        waiting = deque(sorted(batches, key=self._weight, reverse=True))
        idle = self.idle
        new = [self._start() for _ in range(min(self.count, len(waiting)) - len(idle))]
        self._check(new)
        idle += new
        working: dict[Any, tuple[Any, Batch]] = {}
        tries: dict[str, int] = {}
        size, shrunk = max((batch.size for batch in batches), default=1), False
        while waiting or working:
            while waiting and idle:
                batch = waiting.popleft()
                if batch.size > size:
                    waiting.extendleft(reversed(batch.split()))
                    continue
                actor = idle.pop()
                working[actor.draw.remote(batch)] = (actor, batch)
            (done,), _ = self.ray.wait(list(working), num_returns=1)
            actor, batch = working.pop(done)
            try:
                results = self.ray.get(done)
            except self.ray.exceptions.RayError as error:
                idle.append(self._start())
                yield from self._after_death(batch, error, tries, waiting, notes)
                continue
            idle.append(actor)
            if results is None:
                size, shrunk = min(size, max(1, batch.size // 2)), True
                waiting.appendleft(batch)
            else:
                yield from results
        if shrunk:
            notes.append(memory_note(size))

    def _weight(self, batch: Batch) -> float:
        return weight(batch, self.plan.method_of(batch.groups[0]), self.plan.settings.steps)

    def _start(self) -> Any:
        return self.remote.remote(
            self.plan.suite.model_dump_json(), self.cpus, self.plan.suite.permission("methods")
        )

    def _after_death(
        self,
        batch: Batch,
        error: Exception,
        tries: dict[str, int],
        waiting: deque[Batch],
        notes: list[str],
    ) -> Iterator[GroupResult]:
        """Let the batch of a worker that died wait again, or fail after some tries."""
        key = batch.groups[0].key
        tries[key] = tries.get(key, 0) + 1
        notes.append(
            f"a worker died ({type(error).__name__}); it was replaced, "
            f"and its {len(batch.groups)} groups are drawn again"
        )
        if tries[key] < TRIES:
            waiting.append(batch)
            return
        reason = f"{TRIES} workers died over it: {brief(error, 120)}"
        for group in batch.groups:
            yield GroupResult(group, None, Cost(), 0, reason)

    def _check(self, actors: Sequence[Any]) -> None:
        ready = [actor.ready.remote() for actor in actors]
        try:
            if ready and not self.ray.wait(ready, timeout=PATIENCE)[0]:
                self.tell(
                    f"Waiting for {self.title}: the cluster may be busy, "
                    "or the model takes long to load."
                )
            self.ray.get(ready)
        except self.ray.exceptions.RayError as error:
            raise ModelError(
                "A Ray worker cannot load the model: "
                f"{brief(getattr(error, 'cause', None) or error, 300)}"
            ) from None


@contextmanager
def ray_executor(
    plan: Plan, options: RunOptions, tell: Callable[[str], None]
) -> Iterator[RayExecutor]:
    """Open an executor on a cluster that is joined, or on one that is started here.

    The latter is on the loopback address and without a dashboard.

    Raises:
        ParameterError: the package is missing, the cluster cannot be joined, or has no room for
            one worker.
    """
    try:
        import ray
    except ImportError:
        raise ParameterError(
            "--executor ray needs the package ray. Install eddy-bench[ray]."
        ) from None
    _join(ray, options)
    try:
        cpus, room = options.cpus_per_worker, ray.cluster_resources()
        gpus = 0 if plan.suite.device == "cpu" else int(room.get("GPU", 0))
        count = _count(room, options.workers, cpus, gpus)
        actor = ray.remote(num_cpus=cpus, num_gpus=1 if gpus else 0, max_restarts=0)(Worker)
        yield RayExecutor(ray, actor, plan, cpus, count, tell)
    finally:
        ray.shutdown()


def _join(ray: Any, options: RunOptions) -> None:
    """Join a cluster, or start one here with the machine's CPUs, or as many as workers need."""
    needed = options.workers and max(os.cpu_count() or 1, options.workers * options.cpus_per_worker)
    here = {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "num_cpus": needed}
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    own = {"address": options.address} if options.address else {"address": "local", **here}
    try:
        ray.init(**quiet, **own)
    except Exception as error:
        hint = " If it asks for a token, set RAY_AUTH_MODE=token and give this machine the token."
        raise ParameterError(
            f"The Ray cluster {options.address or 'on this machine'} cannot be used: "
            f"{brief(error, 200).rstrip('.')}.{hint if options.address else ''}"
        ) from None


def _count(room: dict[str, float], workers: int | None, cpus: int, gpus: int) -> int:
    """Return how many workers a cluster has room for, or as many as were requested."""
    most = int(room.get("CPU", 0)) // cpus
    most = min(most, gpus) if gpus else most
    count = workers or most
    if not 1 <= count <= most:
        raise ParameterError(
            f"The Ray cluster has {room.get('CPU', 0):g} CPUs and {gpus} GPUs, "
            f"room for {most} workers of {cpus} CPUs{' and a GPU' if gpus else ''}; "
            f"{max(count, 1)} {'were requested' if workers else 'is needed'}. "
            "Lower --workers or --cpus-per-worker."
        )
    return count
