"""Several threads for one read: a few helpers that sleep until a piece of work can be shared.

A pool of futures costs some 50 µs a task, a tenth of what reading 4 MB takes. Here whoever asks works too, pieces are
taken one by one, and nobody waits for a helper that has not begun: a helper that wakes late costs nothing.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

from ...backend.cores import available_cores

MOST = 8  # threads: what reads of a warm file or decoding gain from more was not measured


class _Job:
    """Pieces of work, taken by whoever comes."""

    def __init__(self, work: Callable[[int], object], count: int, last: int) -> None:
        self._work, self._count, self._shared = work, count, count - last
        self._taken, self._finished = itertools.count(), itertools.count(1)  # `next` of these is atomic
        self._all = threading.Lock()
        self._all.acquire()
        self.error: BaseException | None = None

    def help(self) -> None:
        """Work until every piece is taken that is for anyone."""
        for piece in self._taken:
            if piece >= self._shared:
                return
            self._do(piece)

    def _do(self, piece: int) -> None:
        try:
            if self.error is None:
                self._work(piece)
        except BaseException as error:
            self.error = error
        if next(self._finished) == self._count:
            self._all.release()

    def finish(self) -> None:
        """The last pieces, then wait until every piece is done: the caller's buffers are nobody else's any more."""
        for piece in range(self._shared, self._count):
            self._do(piece)
        stopped: BaseException | None = None
        while True:
            try:
                self._all.acquire()
                break
            except BaseException as error:  # Ctrl-C: a helper may still be writing
                stopped = self.error = error
        if stopped is not None:
            raise stopped


_jobs: SimpleQueue[_Job] | None = None
_helpers, _owner = 0, 0
_starting = threading.Lock()
_lately = (0, 0, 0)  # the threads that asked last


def each(work: Callable[[int], object], count: int, last: int = 0) -> None:
    """`work(0)` … `work(count − 1)`, in any order, by this thread and those that are idle.

    Args:
        last: how many pieces are for this thread alone, when all others are taken: it then ends after its helpers and
            need not be woken, which takes as long as reading 200 kB. For pieces that are small.

    Raises:
        Exception: the first that `work` raised; pieces that had not begun by then are left out.
    """
    helpers = min(_start(), count - 1)
    if helpers < 1 or _jobs is None:
        for piece in range(count):
            work(piece)
        return
    job = _Job(work, count, min(last, count))
    for _ in range(helpers):
        _jobs.put(job)
    job.help()
    job.finish()
    if job.error is not None:
        raise job.error


def idle() -> bool:
    """Whether this thread has lately been the only one to ask: callers that are several keep the cores busy themselves.

    Then a read that is shared would only be cut into pieces and wait for its turn.
    """
    global _lately
    me = threading.get_ident()
    before, _lately = _lately, (*_lately[1:], me)
    return all(one == me for one in before)


def _start() -> int:
    """How many helpers there are; they are started by the first who needs them, in each process anew."""
    global _jobs, _helpers, _owner
    if _owner != os.getpid():
        with _starting:
            if _owner != os.getpid():
                jobs: SimpleQueue[_Job] = SimpleQueue()
                count = min(available_cores(), MOST) - 1
                for number in range(count):
                    threading.Thread(target=_serve, args=(jobs,), name=f"gpubp-read-{number}", daemon=True).start()
                _jobs, _helpers, _owner = jobs, count, os.getpid()
    return _helpers


def _serve(jobs: SimpleQueue[_Job]) -> None:
    while True:
        jobs.get().help()


def _forget() -> None:
    """A process that was forked has no helpers, and perhaps a lock that nobody will release."""
    global _starting, _owner
    _starting, _owner = threading.Lock(), 0


os.register_at_fork(after_in_child=_forget)
