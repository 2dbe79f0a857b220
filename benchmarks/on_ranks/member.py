"""One rank of gpubp: what it builds and measures.

Beside the tree stands what an expert would write: each rank's own sums, and one `Allreduce` over them. Both have the
same passes over the same rows in the same process, an evaluation of the one after an evaluation of the other.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

WAITING = 5e-3  # seconds between two looks of a rank that has nothing to do

Array = Any


class Plain:
    """A communicator whose sums are those of MPI's own `Allreduce`."""

    def __init__(self, communicator: Any) -> None:
        self._communicator = communicator
        self.rank, self.size = communicator.rank, communicator.size
        self.wish: Callable[[], str] = lambda: ""
        self.asked = ""

    def own(self, leaves: int) -> tuple[int, int]:
        return self._communicator.own(leaves)

    def top(self, leaves: int, node: Sequence[Any]) -> PlainTop:
        return PlainTop(leaves, self.own(leaves))

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def share(self, value: Any = None) -> Any:
        return self._communicator.share(value)

    def gather(self, value: Any) -> list[Any]:
        return self._communicator.gather(value)

    def compare(self, Theta: Callable[[], np.ndarray]) -> None:
        pass

    def agree(self, wishes: bool, seconds: float) -> tuple[bool, float]:
        return wishes, seconds


class PlainTop:
    """See `gpubp.communicator.Top`."""

    def __init__(self, leaves: int, own: tuple[int, int]) -> None:
        from mpi4py import MPI

        from gpubp.tree import cover

        self.own, self._mine, self._mpi = own, cover(*own, leaves), MPI

    def root(self, nodes: Callable[[], Mapping[int, Sequence[Array]]]) -> Sequence[Array]:
        found = nodes()
        sums, *others = [found[index] for index in self._mine]
        for other in others:
            for one, two in zip(sums, other, strict=True):
                np.add(one, two, out=one)
        for one in sums:
            self._mpi.COMM_WORLD.Allreduce(self._mpi.IN_PLACE, one)
        return sums


class Member:
    """What a rank can be asked for. Every method is called on all ranks; what rank 0 returns is the answer."""

    def __init__(self) -> None:
        from gpubp.communicator import current

        self.communicator = current()
        self.rank, self.size = self.communicator.rank, self.communicator.size
        if self.size > 1:
            self.communicator.watchdog.seconds = 1e6  # pyright: ignore[reportAttributeAccessIssue]
        self._objectives: dict[str, Any] = {}

    def build(self, shape: dict[str, Any], threads: int, how: list[str]) -> dict[str, Any]:
        """Keep the rows of this rank's own leaves, and prepare an evaluation for each way to the root."""
        from problems import Shape, make

        from gpubp.backend import choose
        from gpubp.data.rows import Rows
        from gpubp.data.scaling import Scaling
        from gpubp.data.source import ArrayRows
        from gpubp.network import Network
        from gpubp.objective import Objective
        from gpubp.tree import leaf_rows

        self.close()
        found = Shape(**{**shape, "layers": tuple(shape["layers"])})
        problem = make(found)
        network = Network(found.layers, found.activation, found.cost)
        backend, why = choose("cpu", threads=threads)
        leaves, _ = backend.leaves_and_block(found.m, found.layers)
        first, stop = self.communicator.own(leaves)
        begin, until = leaf_rows(first, leaves, found.m)[0], leaf_rows(stop, leaves, found.m)[0]
        kept, codes = problem.X[begin:until].copy(), problem.codes
        self.Theta = network.pack(problem.Theta)
        self.gradient = np.zeros(network.P)
        # only this rank's rows are in memory; where they come from is asked for the others' shape alone
        source = ArrayRows(np.broadcast_to(np.float32(0), problem.X.shape))
        del problem
        rows = Rows(source, kept, Scaling("none", None, None), codes, first=begin, until=until)
        ways: dict[str, Any] = {"tree": self.communicator, "allreduce": Plain(self.communicator)}
        for name in how:
            self._objectives[name] = Objective(
                network, rows, found.lambda_, backend=backend, precision="fp32", communicator=ways[name]
            )
        self._network = network
        conditions = self._objectives[how[0]].conditions()
        return {"why": why, "P": network.P, "rows": until - begin, "conditions": conditions}

    def check(self, J: float, gradient: str) -> dict[str, Any]:
        """The errors of each way, relative to the answer in that file, and a digest of its bits."""
        from problems import flat

        expected = np.load(gradient)
        found = {}
        for name, objective in self._objectives.items():
            ours = objective.value_and_gradient(self.Theta, self.gradient)
            got = flat(self._network.unpack(self.gradient))
            error = float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
            bits = hashlib.blake2b(self.gradient.tobytes() + np.float64(ours).tobytes(), digest_size=8).hexdigest()
            found[name] = {"J_error": abs(ours / J - 1), "gradient_error": error, "bits": bits}
        return found

    def turn(self, least: float) -> dict[str, Any]:
        """Evaluations back to back, the ways in turn, for so many seconds or more."""

        def evaluation(objective: Any) -> Callable[[], Any]:
            return lambda: objective.value_and_gradient(self.Theta, self.gradient)

        return self._timed({name: evaluation(one) for name, one in self._objectives.items()}, least)

    def exchange(self, bytes: int, least: float) -> dict[str, Any]:
        """The upper part of the tree without any pass below it: nodes whole, by slices, and one Allreduce."""
        from mpi4py import MPI

        from gpubp.communicator.top import HEADER, RanksTop, own_leaves
        from gpubp.tree import cover

        leaves = 1 << (self.size - 1).bit_length()
        elements = bytes // 4
        own = cover(*own_leaves(self.rank, self.size, leaves), leaves)
        nodes = {index: [np.zeros(elements, np.float32), np.zeros(2)] for index in own}
        node = [((elements,), np.dtype(np.float32)), ((2,), np.dtype(np.float64))]

        def top(small: int) -> Callable[[], Any]:
            made = RanksTop(
                self.communicator,  # pyright: ignore[reportArgumentType]
                self.rank, self.size, leaves, node, small=small,
                header=lambda error: np.zeros(HEADER // 8, np.int64), heard=lambda said, error: None,
            )  # fmt: skip
            return lambda: made.root(lambda: nodes)

        flat = np.zeros(elements + 4, np.float32)
        ways = {"slices": top(0), "allreduce": lambda: MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, flat)}
        if bytes * self.size <= 256 << 20:
            ways["whole"] = top(1 << 62)
        return self._timed(ways, least)

    def many(self, ranks: int, leaves: int, bytes: int, least: float) -> dict[str, Any]:
        """What the middle one of so many ranks does itself in an exchange, whose bytes travel in no time."""
        from gpubp.communicator.top import HEADER, RanksTop, own_leaves
        from gpubp.tree import cover

        class Nowhere:
            def all_gather(self, send: Any, out: Any, counts: Any) -> None:
                pass

            def all_to_all(self, send: Any, counts: Any, out: Any, out_counts: Any) -> None:
                pass

        rank = ranks // 2
        own = cover(*own_leaves(rank, ranks, leaves), leaves)
        nodes = {index: [np.zeros(bytes // 4, np.float32), np.zeros(2)] for index in own}
        node = [((bytes // 4,), np.dtype(np.float32)), ((2,), np.dtype(np.float64))]
        header = np.zeros(HEADER // 8, np.int64)
        made = RanksTop(
            Nowhere(), rank, ranks, leaves, node, header=lambda error: header, heard=lambda said, error: None
        )
        return self._timed({"root": lambda: made.root(lambda: nodes)}, least)

    def agreement(self, P: int, least: float) -> dict[str, Any]:
        """What follows an iteration: that Θ is the same, and whether to go on."""
        Theta = np.zeros(P)

        def compare() -> None:
            self.communicator.compare(lambda: Theta)

        def agree() -> None:
            self.communicator.agree(False, 0.0)

        return self._timed({"compare": compare, "agree": agree}, least)

    def close(self) -> None:
        for objective in self._objectives.values():
            objective.close()
        self._objectives = {}

    def _timed(self, ways: dict[str, Callable[[], Any]], least: float) -> dict[str, Any]:
        """For each way the median seconds on rank 0, and the mean seconds of cores on all ranks."""
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        cpu = dict.fromkeys(ways, 0.0)
        count, began = 1, 0.0
        for i in range(-2, 1 << 30):
            if i == -1:
                began = time.perf_counter()
            if i == 0:  # two rounds, unrecorded; how long they took says how many are needed
                round_ = time.perf_counter() - began
                count = self.communicator.share(max(3, int(least / max(round_, 1e-7))))
            if i == count:
                break
            names = list(ways) if i % 2 else list(ways)[::-1]
            for name in names:
                busy, start = time.process_time(), time.perf_counter()
                ways[name]()
                end = time.perf_counter()
                if i >= 0:
                    seconds[name].append(end - start)
                    cpu[name] += time.process_time() - busy
        every = self.communicator.gather(cpu)
        return {
            name: {
                "seconds": float(np.median(seconds[name])),
                "evaluations": count,
                "cpu_s": sum(one[name] for one in every) / count,
            }
            for name in ways
        }


def serve() -> None:
    """Be a rank: do what each line of rank 0's stdin asks for, until it ends."""
    talk = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    sys.path.insert(0, str(Path(__file__).parents[2]))
    member = Member()
    try:
        while line := _next(member):
            words = json.loads(line)
            answer = getattr(member, words.pop("do"))(**words)
            if member.rank == 0:
                talk.write(json.dumps(answer) + "\n")
        member.close()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        if member.size > 1:
            from mpi4py import MPI

            MPI.COMM_WORLD.Abort(1)
        raise


def _next(member: Member) -> str:
    """The next line, on all ranks. Those that wait for it sleep: others are being timed."""
    line = sys.stdin.readline() if member.rank == 0 else ""
    if member.size == 1:
        return line
    from mpi4py import MPI

    arrived = MPI.COMM_WORLD.Ibarrier()
    while not arrived.Test():
        time.sleep(WAITING)
    return MPI.COMM_WORLD.bcast(line)
