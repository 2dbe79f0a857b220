"""Pieces of work done by several threads a little ahead of the one who asks; results come in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Event
from typing import TypeVar

from ...backend.cores import available_cores

THREADS = 4  # the most that help: memory and the disk are shared
_Result = TypeVar("_Result")


@contextmanager
def in_order(
    work: Callable[[int], _Result], starts: range, stopped: Event | None = None
) -> Iterator[Iterator[tuple[int, _Result]]]:
    """Gives an iterator over (start, work(start)); no more than a few are worked on or waiting at a time.

    When the `with` block ends, in whatever way, nothing is worked on any more: what is begun is waited for.

    Args:
        stopped: is set before that waiting, for `work` to look at.
    """
    with closing(_results(work, starts, stopped or Event())) as results:
        yield results


def _results(
    work: Callable[[int], _Result], starts: range, stopped: Event
) -> Generator[tuple[int, _Result], None, None]:
    threads = min(THREADS, available_cores(), len(starts))
    if threads <= 1:
        for start in starts:
            yield start, work(start)
        return
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[tuple[int, Future[_Result]]] = deque()
        try:
            for start in starts:
                ahead.append((start, pool.submit(work, start)))
                if len(ahead) > 2 * threads:
                    begun, result = ahead.popleft()
                    yield begun, result.result()
            while ahead:
                begun, result = ahead.popleft()
                yield begun, result.result()
        finally:
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
