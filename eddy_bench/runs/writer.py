"""Write groups while the next batch is drawn: images are encoded and hashed on other threads."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Self

from eddy_bench.errors import brief
from eddy_bench.runs.batches import GroupResult
from eddy_bench.storage.group import png_bytes

WAITING = 16  # groups between drawing and the disk; then drawing waits
Write = Callable[[GroupResult, list[bytes] | None], None]


class GroupWriter:
    """Hand results to `write` in order, on a thread of its own, with their images as PNG.

    What was handed over is written when the block ends, also when it ends by Ctrl-C; a process
    that is killed loses what was waiting, which the next run draws again.

    Args:
        write: takes a result and its images' bytes, None for a group that failed.

    Raises:
        EddyError: what `write` raised, at the next `put` or at the end of the block.
    """

    def __init__(self, write: Write) -> None:
        self.write = write
        self.waiting: queue.Queue[tuple[GroupResult, list[Future[bytes]]] | None]
        self.waiting = queue.Queue(WAITING)
        self.pool = ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1)), "encode")
        self.thread = threading.Thread(target=self._work, name="write", daemon=True)
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def put(self, result: GroupResult) -> None:
        """Hand over a result; waits where the disk is slower than drawing."""
        self._raise()
        images = result.images or ()
        encoded = [self.pool.submit(png_bytes, image) for image in images]
        self.waiting.put((result, encoded))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.waiting.put(None)
        self.thread.join()
        self.pool.shutdown(cancel_futures=True)
        if error is None:
            self._raise()

    def _work(self) -> None:
        while (item := self.waiting.get()) is not None:
            if self.error is not None:
                continue  # what cannot be written is drawn again by the next run
            try:
                self.write(*_contents(*item))
            except BaseException as error:
                self.error = error

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error


def _contents(
    result: GroupResult, encoded: Sequence[Future[bytes]]
) -> tuple[GroupResult, list[bytes] | None]:
    """Wait for the images of a result; one that is no image makes it a failure."""
    if result.images is None:
        return result, None
    try:
        return result, [future.result() for future in encoded]
    except Exception as error:
        reason = f"{type(error).__name__}: {brief(error)}"
        return replace(result, images=None, reason=reason), None
