"""NCCL as CuPy has it (`cupy.cuda.nccl`), for devices on the host and ranks that are threads.

What is called is queued on a stream, and done when that comes to it and all ranks have come. All must have called the
same: an NCCL of GPUs would hang or mix up memory where they have not, this one says so.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Callable
from typing import Any

from thread_ranks import Meeting

available = True
NCCL_UINT8 = 1
log: list[tuple[int, list[Any]]] = []  # what each rank has called, in groups
_meetings: dict[tuple[int, ...], Meeting] = {}
_streams: dict[int, Stream] = {}
_numbers = itertools.count(1)
_lock = threading.Lock()
_open = threading.local()  # the group that a thread has begun


class NcclError(RuntimeError):
    """As CuPy's."""


class Stream:
    """What NCCL is told of a device's stream: a number."""

    def __init__(self, work: Any) -> None:
        self.add: Callable[[Callable[[], None]], None] = work.add
        self.ptr = next(_numbers)
        _streams[self.ptr] = self


def get_unique_id() -> tuple[int, ...]:
    return (next(_numbers),) * 128


def groupStart() -> None:
    assert getattr(_open, "calls", None) is None
    _open.calls = []


def groupEnd() -> None:
    calls, _open.calls = _open.calls, None
    comms = {call[0] for call in calls}
    assert len(comms) <= 1
    for comm in comms:
        streams = {call[1] for call in calls}
        assert len(streams) == 1
        comm.queue(streams.pop(), [call[2:] for call in calls])


class NcclCommunicator:
    """One rank's."""

    def __init__(self, size: int, identity: tuple[int, ...], rank: int) -> None:
        with _lock:
            self._meeting = _meetings.setdefault(identity, Meeting(size))
        self._rank = rank
        assert self._meeting.exchange(rank, "begin", size) == [size] * size

    def allGather(self, send: int, out: int, count: int, kind: int, stream: int) -> None:
        assert kind == NCCL_UINT8 and count > 0
        _open.calls.append((self, stream, "allGather", send, count, out))

    def send(self, send: int, count: int, kind: int, peer: int, stream: int) -> None:
        assert kind == NCCL_UINT8 and count > 0 and peer != self._rank
        _open.calls.append((self, stream, "send", send, count, peer))

    def recv(self, out: int, count: int, kind: int, peer: int, stream: int) -> None:
        assert kind == NCCL_UINT8 and count > 0 and peer != self._rank
        _open.calls.append((self, stream, "recv", out, count, peer))

    def check_async_error(self) -> None:
        pass

    def queue(self, stream: int, calls: list[Any]) -> None:
        log.append((self._rank, [(call[0], call[2]) for call in calls]))
        _streams[stream].add(lambda: self._run(calls))

    def _run(self, calls: list[Any]) -> None:
        gathers = [call for call in calls if call[0] == "allGather"]
        sends = [call for call in calls if call[0] == "send"]
        given = [ctypes.string_at(call[1], call[2]) for call in gathers]
        messages = [(call[3], ctypes.string_at(call[1], call[2])) for call in sends]
        everybody = self._meeting.exchange(self._rank, "group", (given, messages))
        assert all([len(a) for a in theirs[0]] == [call[2] for call in gathers] for theirs in everybody)
        for i, (_, _, count, out) in enumerate(gathers):
            for rank, (theirs, _) in enumerate(everybody):
                ctypes.memmove(out + rank * count, theirs[i], count)
        for rank, (_, theirs) in enumerate(everybody):
            came = [data for peer, data in theirs if peer == self._rank]
            wanted = [call for call in calls if call[0] == "recv" and call[3] == rank]
            assert [len(data) for data in came] == [call[2] for call in wanted]
            for data, (_, out, count, _) in zip(came, wanted, strict=True):
                ctypes.memmove(out, data, count)
