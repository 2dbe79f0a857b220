"""Ranks as threads of one process: what several processes do together, without a launcher and without MPI."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from gpubp.communicator.ranks import Ranks

TIMEOUT = 60.0  # seconds after which a rank that waits for the others gives up


class Meeting:
    """Where the threads of so many ranks put what they give, and take what the others gave."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.given: list[Any] = [None] * size
        self.barrier = threading.Barrier(size, timeout=TIMEOUT)

    def exchange(self, rank: int, kind: str, value: Any) -> list[Any]:
        self.given[rank] = kind, value
        self.barrier.wait()
        found = list(self.given)
        self.barrier.wait()
        kinds = [kind for kind, _ in found]
        assert len(set(kinds)) == 1, f"ranks out of step: {kinds}"
        return [value for _, value in found]


class ThreadRanks(Ranks):
    """One rank, in a thread of its own."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        super().__init__(rank, meeting.size, [f"host{r // 2}" for r in range(meeting.size)])
        self._meeting = meeting

    def all_gather(self, send: np.ndarray, out: np.ndarray, counts: Any) -> None:
        parts = self._meeting.exchange(self.rank, "all_gather", send.copy())
        assert [len(part) for part in parts] == list(counts)
        out[...] = np.concatenate(parts)

    def all_to_all(self, send: np.ndarray, counts: Any, out: np.ndarray, out_counts: Any) -> None:
        edges = np.cumsum([0, *counts])
        pieces = self._meeting.exchange(self.rank, "all_to_all", [send[a:b].copy() for a, b in pairwise(edges)])
        mine = [theirs[self.rank] for theirs in pieces]
        assert [len(piece) for piece in mine] == list(out_counts)
        out[...] = np.concatenate(mine)

    def share(self, value: Any = None) -> Any:
        return self._meeting.exchange(self.rank, "share", value)[0]

    def gather(self, value: Any) -> list[Any]:
        return self._meeting.exchange(self.rank, "gather", value)

    def collect(self, value: Any) -> list[Any]:
        found = self._meeting.exchange(self.rank, "collect", value)
        return found if self.rank == 0 else []


def on_ranks(size: int, work: Callable[[ThreadRanks], Any]) -> list[Any]:
    """``work(communicator)`` on so many ranks: what each gives back. An error of one ends all, and is raised."""
    meeting = Meeting(size)

    def one(rank: int) -> Any:
        try:
            return work(ThreadRanks(meeting, rank))
        except BaseException as error:
            if not getattr(error, "agreed", False):
                meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        begun = [pool.submit(one, rank) for rank in range(size)]
    errors = [error for future in begun if (error := future.exception())]
    real = [error for error in errors if not isinstance(error, threading.BrokenBarrierError)]
    if errors:
        raise (real or errors)[0]
    return [future.result() for future in begun]
