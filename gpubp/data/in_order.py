"""Pieces of work done by several threads a little ahead of the one who asks; results come in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Event
from typing import TypeVar

from ..backend.cores import available_cores

THREADS = 4  # the most that help: memory and the disk are shared
_Piece = TypeVar("_Piece")
_Result = TypeVar("_Result")


@contextmanager
def in_order(
    work: Callable[[_Piece], _Result],
    pieces: Iterable[_Piece],
    *,
    threads: int | None = None,
    ahead: int | None = None,
    stopped: Event | None = None,
) -> Iterator[Iterator[tuple[_Piece, _Result]]]:
    """Gives an iterator over (piece, work(piece)); no more than a few are worked on or waiting at a time.

    When the `with` block ends, in whatever way, nothing is worked on any more: what is begun is waited for.

    Args:
        pieces: taken by the thread that asks, each when there is room for it.
        threads: by default the cores there are, up to `THREADS`; with one, the thread that asks does all work itself.
        ahead: how many pieces may be worked on or wait beside the one that is asked for; by default twice the threads.
        stopped: is set before that waiting, for `work` to look at.
    """
    threads = threads or min(THREADS, available_cores())
    if threads == 1:
        yield ((piece, work(piece)) for piece in pieces)
        return
    with closing(_results(work, pieces, threads, ahead or 2 * threads, stopped or Event())) as results:
        yield results


def _results(
    work: Callable[[_Piece], _Result], pieces: Iterable[_Piece], threads: int, ahead: int, stopped: Event
) -> Generator[tuple[_Piece, _Result], None, None]:
    with ThreadPoolExecutor(threads, "gpubp in order") as pool:
        waiting: deque[tuple[_Piece, Future[_Result]]] = deque()
        try:
            for piece in pieces:
                waiting.append((piece, pool.submit(work, piece)))
                if len(waiting) > ahead:
                    begun, result = waiting.popleft()
                    yield begun, result.result()
            while waiting:
                begun, result = waiting.popleft()
                yield begun, result.result()
        finally:
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
