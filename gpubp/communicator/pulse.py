"""Signs of life of rank 0, while it does alone what the others wait for: then they wait for as long as it takes.

The watchdog's thread sends them and takes them, beside whatever the main thread asks of MPI. A rank that hangs says
nothing, so neither does one that was stopped or cut off.
"""

from __future__ import annotations

import threading
from typing import Any

TAG = 7
NOTHING = bytearray()  # what they carry


class Pulse:
    """The messages of one rank.

    Args:
        mpi: the module of mpi4py, which several threads may call.
        comm: a communicator on which nothing else goes from rank to rank with `TAG`.

    Attributes:
        count: how many were sent to each rank, on rank 0; how many came, on the others.
        closed: whether no more are sent or taken, by `close` or because MPI has failed.
    """

    def __init__(self, mpi: Any, comm: Any) -> None:
        self.count = 0
        self._mpi, self._comm = mpi, comm
        self._lock, self.closed = threading.Lock(), False
        self._under_way: list[Any] = []

    def beat(self) -> None:
        """One to each other rank, if those before have gone."""
        with self._lock:
            if self.closed:
                return
            try:
                if not self._mpi.Request.Testall(self._under_way):
                    return
                to = range(1, self._comm.Get_size())
                self._under_way = [self._comm.Isend([NOTHING, self._mpi.BYTE], rank, TAG) for rank in to]
                self.count += 1
            except self._mpi.Exception:  # the next exchange says what is wrong
                self.closed = True

    def heard(self) -> bool:
        """Whether any have come since the last time."""
        found = False
        with self._lock:
            try:
                while not self.closed and self._comm.Iprobe(0, TAG):
                    self._comm.Recv([NOTHING, self._mpi.BYTE], 0, TAG)
                    self.count, found = self.count + 1, True
            except self._mpi.Exception:
                self.closed = True
        return found

    def close(self) -> None:
        """From now on nothing is sent or taken: MPI ends."""
        with self._lock:
            self.closed = True
