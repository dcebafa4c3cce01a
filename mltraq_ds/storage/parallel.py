"""Work that is done several at a time: how many, and in the order in which it was asked for."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["core_count", "in_parallel"]

A = TypeVar("A")
B = TypeVar("B")


def core_count() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # pragma: no cover — macOS, Windows
        return os.cpu_count() or 1


def in_parallel(work: Callable[[A], B], arguments: Iterator[A], count: int) -> Iterator[B]:
    """Yield ``work(argument)`` of all, in order; at most `count` are under way or waiting to be yielded.

    The next argument is taken only when there is room for it, so that what is in memory is bounded.  After a failure
    nothing new is begun, and what is under way has ended when the error is raised: nothing is written behind it.
    """
    pending: deque[Future[B]] = deque()
    with ThreadPoolExecutor(count, thread_name_prefix="mltraq-ds") as pool:
        try:
            for argument in arguments:
                pending.append(pool.submit(work, argument))
                if len(pending) >= count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BaseException:
            for future in pending:
                future.cancel()
            raise
