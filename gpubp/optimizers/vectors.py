"""Where an optimizer's vectors live, and what is done with them there.

An optimizer is written in these few operations, so its vectors may be NumPy's or lie in the memory of a GPU. Vectors
are (P,) float64, matrices of them (n, P); what is small (ρ, coefficients) is NumPy's everywhere.

A product of vectors is a number, and on a GPU it has not arrived yet when it was asked for: `read` waits for all that
were asked for so far, once. So an optimizer asks for everything it may need, and then reads.

Where several processes train together each has the same vectors and makes the same of them. Of matrices whose rows are
long vectors each keeps a part, and so do products and sums of rows: see `parted`. An optimizer does not notice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Protocol

import numpy as np

from .elementwise import Elementwise
from .parted import Parted, Row, added, cut, parts, span

Vector = Any  # (P,) float64 where these vectors live
Number = Any  # a float, or one that `read` will give


class Vectors(Protocol):
    """The operations.

    Attributes:
        early: whether reading is dear, so that what an accepted trial will need is asked for before it is accepted.
        waits: how often `read` and `to_host` waited.
    """

    early: bool
    waits: int

    def zeros(self, *shape: int) -> Any:
        """A new vector, or small matrix."""
        ...

    def matrix(self, n: int, P: int) -> Any:
        """A new (n, P) matrix whose rows are vectors. A row is something to `copy` and to have products with."""
        ...

    def put(self, host: Any, out: Any) -> None:
        """out ← an array of NumPy's. For a `matrix` its rows one after the other are enough."""
        ...

    def to_host(self, array: Any) -> Any:
        """An array as NumPy's; it may be the array itself. A matrix of which this process has a part comes as it is."""
        ...

    def copy(self, source: Any, out: Any) -> None:
        """out ← source."""
        ...

    def move(self, a: Vector, alpha: float, d: Vector, out: Vector) -> None:
        """out ← a + α·d; out may be d, but not a alone. Steps far too long give infinities, no warning: J judges."""
        ...

    def subtract(self, a: Vector, b: Vector, out: Vector) -> None:
        """out ← a − b."""
        ...

    def combine(
        self, sign: float, factor: float, a: Vector, terms: Sequence[tuple[np.ndarray, Any]], out: Vector
    ) -> None:
        """out ← sign·(factor·a + Σ over (c, M) of cᵀM), sign being 1 or −1; M is (n, P), c is (n,), at most two."""
        ...

    def apply(
        self, formula: Elementwise, reads: Sequence[Vector], numbers: Sequence[float], writes: Sequence[Vector]
    ) -> None:
        """writes ← the formula of the elements of `reads` and of the numbers; a vector may be in both lists.

        What is too large gives infinities and no warning.
        """
        ...

    def dot(self, a: Vector, b: Vector) -> Number:
        """aᵀb. Overflows to infinity without a warning."""
        ...

    def dots(self, *pairs: tuple[Vector, Vector]) -> list[Number]:
        """aᵀb of each pair (a, b), asked for in one go."""
        ...

    def max_abs(self, v: Vector) -> Number:
        """max|v|; NaN if any is NaN."""
        ...

    def sum_abs(self, v: Vector) -> Number:
        """Σ|v|."""
        ...

    def products(self, matrices: Sequence[Any], rows: Sequence[int], vectors: Sequence[Vector]) -> Any:
        """vᵀ(row) of each vector with each of these rows of each matrix, (matrices, vectors, rows), when it is read.

        Matrices are of one shape, one or two; rows follow each other, after the last the first.
        """
        ...

    def gemm(self, a: Any, b: Any, out: Any, *, transpose: str = "nn", beta: int = 0) -> None:
        """out ← op(a)·op(b) + beta·out for contiguous matrices, views of vectors; `transpose` is two letters of n and
        t, beta 0 or 1."""
        ...

    def read(self, *numbers: Any) -> list[Any]:
        """What was asked for as floats and arrays, in order. Floats and arrays are given back as they are."""
        ...


class HostVectors:
    """NumPy's memory. Every sum has one order whatever the number of threads, or of processes.

    Args:
        threads: how many share work on long vectors.
        ranks: the processes that do the same, a `gpubp.communicator.Communicator`; None: there are no others.
    """

    early = False
    waits = 0

    def __init__(self, threads: int = 1, ranks: Any = None) -> None:
        self._threads = threads
        self._ranks: Any = ranks if ranks is not None and ranks.size > 1 else None
        self._tops: dict[tuple[int, int], Any] = {}
        self._bytes: dict[int, list[int]] = {}

    def zeros(self, *shape: int) -> np.ndarray:
        return np.zeros(shape)

    def matrix(self, n: int, P: int) -> Any:
        own = self._own(P)
        if own == (0, parts(P)):
            return np.zeros((n, P))
        columns = span(P, *own)
        return Parted(np.zeros((n, columns.stop - columns.start)), columns, P)

    def put(self, host: Any, out: Any) -> None:
        if not isinstance(out, Parted):
            out[...] = host
            return
        for row, given in zip(out.own, host, strict=True):
            row[...] = given[out.columns]

    def to_host(self, array: Any) -> Any:
        return np.zeros(array.shape) if isinstance(array, Parted) and not len(array) else array

    def copy(self, source: Any, out: Any) -> None:
        if isinstance(out, Row):
            out.own[...] = _columns(source, out.columns)
        elif isinstance(source, Row):
            self._gather(source.own, out)
        else:
            out[...] = source

    def move(self, a: np.ndarray, alpha: float, d: np.ndarray, out: np.ndarray) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(d, alpha, out=out)
            np.add(a, out, out=out)

    def subtract(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        np.subtract(a, b, out=out)

    def combine(
        self, sign: float, factor: float, a: np.ndarray, terms: Sequence[tuple[np.ndarray, Any]], out: np.ndarray
    ) -> None:
        first, stop = self._own(len(a)) if terms else (0, parts(len(a)))
        columns = span(len(a), first, stop)
        made = out[columns]

        def combined(piece: slice) -> None:
            r = np.multiply(a[piece], factor, out=out[piece])
            for c, M in terms:
                r += c @ _columns(M, piece)
            if sign < 0:
                np.negative(r, out=r)

        pieces = [
            slice(at, min(at + PIECE, part.stop))
            for part in cut(len(a), first, stop)
            for at in range(part.start, part.stop, PIECE)
        ]
        shared(combined, pieces, len(a), self._threads)
        if len(made) < len(out):
            self._gather(made.copy(), out)

    def apply(
        self,
        formula: Elementwise,
        reads: Sequence[np.ndarray],
        numbers: Sequence[float],
        writes: Sequence[np.ndarray],
    ) -> None:
        def applied(piece: slice) -> None:
            made = formula.reference(*(v[piece] for v in reads), *numbers)
            for out, values in zip(writes, made, strict=True):
                out[piece] = values

        P = len(writes[0])
        shared(applied, [slice(at, at + PIECE) for at in range(0, P, PIECE)], P, self._threads)

    def dot(self, a: Any, b: Any) -> float:
        return self.dots((a, b))[0]

    def dots(self, *pairs: tuple[Any, Any]) -> list[float]:
        if parts(len(pairs[0][0])) == 1:  # short vectors are many a run's, and a tree over one part is dear for them
            with np.errstate(over="ignore", invalid="ignore"):
                return [float(np.dot(a, b)) for a, b in pairs]
        return self._sums([((a,), (b,)) for a, b in pairs]).tolist()

    def max_abs(self, v: np.ndarray) -> float:
        return max(float(v.max()), -float(v.min()))  # without a temporary

    def sum_abs(self, v: np.ndarray) -> float:
        with np.errstate(over="ignore"):
            return float(np.abs(v).sum())

    def products(self, matrices: Sequence[Any], rows: Sequence[int], vectors: Sequence[Any]) -> np.ndarray:
        chosen = [M[i] for M in matrices for i in rows]
        if parts(matrices[0].shape[1]) == 1:
            done = shared(lambda row: [np.dot(row, v) for v in vectors], chosen, matrices[0].shape[1], self._threads)
            found = np.array(done, np.float64)
        else:
            found = self._sums([(chosen, vectors)])
        return found.reshape(len(matrices), len(rows), len(vectors)).swapaxes(1, 2)

    def gemm(self, a: np.ndarray, b: np.ndarray, out: np.ndarray, *, transpose: str = "nn", beta: int = 0) -> None:
        a = a.T if transpose[0] == "t" else a
        b = b.T if transpose[1] == "t" else b

        def columns(piece: slice) -> None:
            if beta:
                out[:, piece] += a @ b[:, piece]
            else:
                np.matmul(a, b[:, piece], out=out[:, piece])

        # cut where the shape says and not the number of threads: no bit depends on it
        width = -(-out.shape[1] // max(1, min(4, out.shape[1] // 128)))
        pieces = [slice(at, at + width) for at in range(0, out.shape[1], width)]
        # `shared` weighs work in elements that are gone through; a core multiplies some 64 numbers in the time of one
        shared(columns, pieces, out.size * a.shape[1] // 64, self._threads)

    def read(self, *numbers: Any) -> list[Any]:
        return list(numbers)

    def _sums(self, wanted: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> np.ndarray:
        """Of each of these pairs (rows, vectors) the products of every row with every vector, one after the other."""
        numbers = sum(len(rows) * len(vectors) for rows, vectors in wanted)
        if not numbers:
            return np.zeros(0)
        P = len(wanted[0][0][0])
        count, own = parts(P), self._own(P)

        def of_part(task: tuple[np.ndarray, list[np.ndarray]]) -> list[float]:
            row, vectors = task
            return [np.dot(row, v) for v in vectors]

        def nodes() -> dict[int, tuple[np.ndarray]]:
            tasks = [
                (_columns(row, part), theirs)
                for part in cut(P, *own)
                for rows, vectors in wanted
                for theirs in [[_columns(v, part) for v in vectors]]
                for row in rows
            ]
            found = [number for done in shared(of_part, tasks, P, self._threads) for number in done]
            with np.errstate(over="ignore", invalid="ignore"):
                return added(own[0], np.array(found, np.float64).reshape(-1, numbers), count)

        if self._ranks is None or count == 1:
            return nodes()[1][0]
        top = self._tops.get((count, numbers))
        if top is None:
            top = self._tops[count, numbers] = self._ranks.top(count, [((numbers,), np.dtype(np.float64))])
        return top.root(nodes)[0].copy()

    def _own(self, P: int) -> tuple[int, int]:
        """First and stop of the parts of a vector of P elements that are this process's."""
        count = parts(P)
        return (0, count) if self._ranks is None or count == 1 else self._ranks.own(count)

    def _gather(self, own: np.ndarray, out: np.ndarray) -> None:
        """out, (P,) ← what each process has of it, in their order."""
        P = len(out)
        if P not in self._bytes:
            self._bytes[P] = self._ranks.gather(own.nbytes)
        self._ranks.all_gather(own.view(np.uint8), out.view(np.uint8), self._bytes[P])


HOST = HostVectors()


def vectors_of(f: Any) -> Vectors:
    """Where the vectors of a function are best kept: what it says itself, else NumPy's memory and its threads, of all
    processes that evaluate it together."""
    return getattr(f, "vectors", None) or HostVectors(int(getattr(f, "threads", 1)), getattr(f, "communicator", None))


PIECE = 8192  # elements: of 2 × 30 pairs, 4 MB
LONG = 1 << 16  # elements from which threads are worth waking


def _columns(array: Any, columns: slice) -> np.ndarray:
    """These elements of a vector, or columns of a matrix, which this process has if they are its own."""
    if type(array) is np.ndarray:
        return array[..., columns]
    start = array.columns.start
    return array.own[..., columns.start - start : columns.stop - start]


def shared(work: Callable[[Any], Any], tasks: list[Any], P: int, threads: int) -> list[Any]:
    """``[work(task) for task in tasks]``, by threads where vectors of P elements are long. Of overflow no warning."""

    def done(tasks: list[Any]) -> list[Any]:
        with np.errstate(over="ignore", invalid="ignore"):  # each thread has its own
            return [work(task) for task in tasks]

    threads = min(threads, len(tasks))
    if threads <= 1 or P < LONG:
        return done(tasks)
    groups = [tasks[i * len(tasks) // threads : (i + 1) * len(tasks) // threads] for i in range(threads)]
    return [result for group in _pool(threads).map(done, groups) for result in group]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "vectors")  # they stay, whatever objectives come and go
