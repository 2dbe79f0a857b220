"""Pieces of work done by several threads a little ahead of the one who asks; results come in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ..backend.cores import available_cores

THREADS = 4  # the most that help: memory and the disk are shared
_Result = TypeVar("_Result")


def in_order(work: Callable[[int], _Result], starts: range) -> Iterator[tuple[int, _Result]]:
    """(start, work(start)) for each of `starts`; no more than a few are worked on or waiting at a time.

    Whoever stops asking, by an exception or by leaving the loop, waits for what is being worked on and no longer.
    """
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
            pool.shutdown(wait=True, cancel_futures=True)
