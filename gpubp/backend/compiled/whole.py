"""A whole pass over rows in memory or in files: the threads, and what Python does between their calls. See `owners`."""

from __future__ import annotations

import threading
import time
import weakref
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from ...formula import plus
from ...tree import cover
from ..numpy import aligned
from . import build, source

AWAKE = 1e-3  # seconds that a thread looks for work before it sleeps
SLICE = 0.1  # seconds after which the calling thread looks whether somebody asks to stop


class Node:
    """A sum: Δ and the costs, to be read before the next pass."""

    def __init__(self, flat: np.ndarray, cost: np.ndarray) -> None:
        self.flat, self.cost = flat, cost


class WholeSum:
    """The sum tree, or the part of it over some leaves, by threads of its own; the calling thread is one of them.

    Args:
        loops: a `CompiledLeaf` for each owner.
        rows: a `gpubp.data.rows.Rows`: what is in memory, and where in files the others lie.
        Theta: flat, (P,), of the pass; its content is read anew in each pass.
        m, leaves, block_rows: how rows become leaves and blocks.
        leaf_seconds: how long a leaf takes, roughly.
        own: first and stop of the leaves that are summed here; by default all.
    """

    def __init__(
        self,
        loops: list[Any],
        rows: Any,
        Theta: np.ndarray,
        m: int,
        leaves: int,
        block_rows: int,
        leaf_seconds: float,
        own: tuple[int, int] | None = None,
    ) -> None:
        from . import owners as native

        self._native, self._Theta = native, Theta
        self._loops, self._rows = loops, rows  # the threads know addresses of what lies in them, and open files
        self._parts = [loop.part(rows) for loop in loops]
        n = len(loops)
        self._shared = np.zeros(native.OWN + n * native.PER_OWNER, np.int64)
        self._ranges = np.zeros(n, np.int64)
        first, stop = own or (0, leaves)
        edges = [first + i * (stop - first) // n for i in range(n + 1)]
        self._all = np.array([a << 32 | b for a, b in pairwise(edges)], np.int64)
        self._cover = cover(first, stop, leaves)
        self._waiting = np.zeros(leaves, np.int64)
        # alive are a leaf for each owner, and what waits along the two ends of each range: a buffer for each level
        most = n * (2 * leaves.bit_length() + 2)
        self._free, self._nodes = np.zeros(most + 1, np.int64), np.zeros(most, np.int64)
        self._costs = aligned((most, 2), np.dtype(np.float64))
        self._flats: list[np.ndarray] = []
        self._add = build.address(source.addition(plus, Theta.dtype))
        self._m, self._block_rows = m, block_rows
        self._most = max(1, int(SLICE / max(leaf_seconds, 1e-9)))
        self._making = threading.Lock()
        self._errors: list[BaseException] = []  # of the helpers, in the pass that runs
        self._asleep = np.zeros(n, np.int64)
        self._beds = [threading.Lock() for _ in range(n)]
        for bed in self._beds:
            bed.acquire()
        work = self._work_arguments
        for owner in range(1, n):
            arguments = (native, owner, work(owner), self._beds[owner], weakref.ref(self))
            threading.Thread(target=_help, args=arguments, daemon=True, name=f"gpubp-{owner}").start()
        self._finalizer = weakref.finalize(self, _stop, native, self._shared, self._asleep, self._beds)

    def nodes(self, with_gradient: bool) -> dict[int, Node]:
        """One pass: the topmost nodes by heap index. An interrupt ends it between two leaves, and all
        is ready for the next one.

        Raises:
            DataError: rows that cannot be read.
        """
        native, shared = self._native, self._shared
        if not self._finalizer.alive:
            raise ValueError("a pass after close()")
        self._waiting[...] = 0
        self._ranges[...] = self._all
        count = len(self._flats)
        self._free[0], self._free[1 : count + 1] = count, range(count)
        shared[native.OWN + native.LEAF :: native.PER_OWNER] = 0  # an interrupted pass may have left one
        shared[native.DONE], shared[native.GRADIENT], shared[native.FAILED] = 0, with_gradient, 0
        try:
            native.wake(shared, self._asleep)
            _rouse(self._asleep, self._beds)
            state = native.MORE
            while state != native.FINISHED:
                state = native.work(0, *self._work_arguments(0), self._most)
                if state == native.NO_BUFFER:
                    self.add_buffer()
            self._await_others()
        except BaseException:
            _rouse(self._asleep, self._beds)  # where the interrupt came before all were up
            native.empty(self._ranges)
            self._await_others()
            self._errors.clear()
            raise
        if self._errors:
            error = self._errors[0]
            self._errors.clear()
            raise error
        if shared[native.FAILED]:
            self._rows.refuse(int(shared[native.FROM]), int(shared[native.TO]))
        found = {}
        for index in self._cover:  # the first of two siblings waits at their parent, here for another process
            node = int(shared[native.ROOT] if index == 1 else self._waiting[index >> 1] - 1)
            found[index] = Node(self._flats[node], self._costs[node])
        return found

    def add_buffer(self) -> None:
        """One more buffer for a node: there are as many as were ever alive at the same time."""
        with self._making:
            flat = aligned(self._Theta.shape, self._Theta.dtype)
            flat[...] = 0  # the gaps between layers stay zero from here on
            number = len(self._flats)
            self._nodes[number] = flat.ctypes.data
            self._flats.append(flat)
            self._native.give(number, self._shared, self._free)

    def help_with_buffer(self, owner: int) -> None:
        """`add_buffer` for a helper, whose error is for the calling thread to raise."""
        try:
            self.add_buffer()
        except BaseException as error:
            self._errors.append(error)
            self._native.give_up(owner, self._shared, self._ranges)

    def close(self) -> None:
        """End the threads."""
        self._finalizer()

    def _work_arguments(self, owner: int) -> tuple[Any, ...]:
        layers, places, data, code, scratch, sums = self._parts[owner]
        return (
            self._shared, self._ranges, self._waiting, self._free, self._nodes, self._costs, self._add, self._m,
            self._block_rows, layers, places, data, code, self._Theta, scratch, sums,
        )  # fmt: skip

    def _await_others(self) -> None:
        others, done = len(self._parts) - 1, self._shared.ctypes.data + 8 * self._native.DONE
        while not self._native.wait_until(done, others, spins()):
            time.sleep(AWAKE / 5)


def _rouse(asleep: np.ndarray, beds: list[threading.Lock]) -> None:
    for owner in np.flatnonzero(asleep).tolist():
        if beds[owner].locked():  # not yet released
            beds[owner].release()
        asleep[owner] = 0


def _stop(native: Any, shared: np.ndarray, asleep: np.ndarray, beds: list[threading.Lock]) -> None:
    shared[native.STOP] = 1
    native.wake(shared, asleep)
    _rouse(asleep, beds)


def _help(native: Any, owner: int, arguments: tuple[Any, ...], bed: threading.Lock, whole: Any) -> None:
    """A helper thread. It holds no reference to the sum, so that a forgotten one ends it."""
    while True:
        state = native.help_out(owner, spins(), *arguments)
        if state == native.STOPPED:
            return
        if state == native.SLEEP:
            bed.acquire()
        elif (alive := whole()) is not None:
            alive.help_with_buffer(owner)
            del alive


@cache
def spins() -> int:
    """How many looks take `AWAKE` on this machine."""
    from . import owners as native

    number = np.zeros(1, np.int64)
    native.wait_for(number.ctypes.data, 0, 1)
    began, count = time.perf_counter(), 1000
    native.wait_for(number.ctypes.data, 0, count)
    return max(100, int(count * AWAKE / max(time.perf_counter() - began, 1e-9)))
