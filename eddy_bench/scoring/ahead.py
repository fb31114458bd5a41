"""Work in threads ahead of whoever needs its results."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
MOST_THREADS = 8


@contextmanager
def ahead(
    function: Callable[[Item], Result], items: Iterable[Item], limit: int
) -> Iterator[Iterator[Result]]:
    """Yield the results of a function in the order of its items; threads work ahead.

    What the function raises is raised where its result would have come. When the block is left,
    by an error or Ctrl-C too, what was not begun is dropped and no thread remains.

    Args:
        function: safe to call in several threads.
        items: taken in this thread.
        limit: results that may wait, which bounds memory.

    """
    threads = min(MOST_THREADS, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead")
    try:
        yield _in_order(pool, function, items, limit)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    limit: int,
) -> Iterator[Result]:
    begun: deque[Future[Result]] = deque()
    for item in items:
        begun.append(pool.submit(function, item))
        if len(begun) > limit:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()
