"""An optimizer's vectors in the device's memory: see `optimizers.vectors` for what the operations mean.

A sum has one order (`vector_kernels`): a product has the same bits in every run, on every grid, alone or among others.

A number that was asked for has a place in one array of results. Asking queues its sums over chunks; `read` queues one
kernel that adds up those of all numbers, waits, and fetches the array: once, whatever was asked for. Numbers that came
with an earlier answer cost nothing. Nothing is allocated but when something larger than ever before is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..kernels import THREADS
from .device import Device
from .vector_kernels import (
    ADD_UP,
    CHUNK,
    COMBINE,
    DOT,
    MAX_ABS,
    MEASURES,
    MOST_MEASURES,
    MOST_PRODUCTS,
    MOST_VECTORS,
    MOVE,
    PRODUCTS,
    SUBTRACT,
    SUM_ABS,
    WARPS,
    applied,
)

KEPT = 128  # results that belong to somebody for good, before all others
RESULTS = 8192  # numbers that may be asked for before they are read, and those
PARTIALS = 256  # numbers whose sums over chunks there is room for at first
ENOUGH_WARPS = 4096  # to fill a device: where chunks are fewer, the rows of a chunk are shared among warps
MOST_BLOCKS = 1 << 16
_REAL = np.dtype(np.float64)


class Numbers:
    """Numbers that were asked for, in the order of `array`."""

    def __init__(self, vectors: DeviceVectors, start: int, count: int) -> None:
        self._vectors, self._start, self._count = vectors, start, count
        self._values: np.ndarray | None = None
        self.lost = False  # whether others were written in their place before they were read

    def __getitem__(self, i: int) -> Number:
        return Number(self, i)

    @property
    def array(self) -> Any:
        """Their places on the device, to be written to by work that is queued before they are read."""
        return self._vectors.results[self._start : self._start + self._count]

    def fetched(self) -> np.ndarray:
        """The values, (count,) float64; waits for them if they are not here."""
        if self.lost:
            raise RuntimeError("a number of an earlier evaluation, which the next one has replaced")
        if self._values is None:
            self._vectors.fetch()
        assert self._values is not None
        return self._values

    @property
    def arrived(self) -> bool:
        """Whether reading them costs nothing."""
        return self._values is not None

    def take(self, results: np.ndarray) -> None:
        """Keep what an answer holds of these."""
        self._values = results[self._start : self._start + self._count].copy()


class Number:
    """One of them."""

    def __init__(self, numbers: Numbers, i: int) -> None:
        self._numbers, self._i = numbers, i

    def __float__(self) -> float:
        return float(self._numbers.fetched()[self._i])


class _Products:
    """Those of `products`: of several launches, each of some vectors with some rows."""

    def __init__(self, shape: tuple[int, int, int], parts: list[tuple[slice, slice, Numbers]]) -> None:
        self._shape, self._parts = shape, parts

    def value(self) -> np.ndarray:
        whole = np.empty(self._shape)
        for vectors, rows, numbers in self._parts:
            part = whole[:, vectors, rows]
            part[...] = numbers.fetched().reshape(len(part), part.shape[2], part.shape[1]).swapaxes(1, 2)
        return whole


class DeviceVectors:
    """`optimizers.vectors.Vectors` on a device."""

    early = True

    def __init__(self, device: Device) -> None:
        self._device = device
        self.waits = 0
        self.results = device.empty((RESULTS,), _REAL)
        self._kinds = device.empty((RESULTS,), np.dtype(np.int32))
        self._used = KEPT
        self._asked: list[Numbers] = []
        self._free = list(range(0, KEPT, 2))  # places that `keep` may give
        self._latest: dict[int, Numbers] = {}
        self._partials, self._room = None, 0
        self._open = 0, 0, 0  # results whose partial sums wait to be added up: first, count, chunks of each
        self._terms, self._most_terms = None, 0

    def zeros(self, *shape: int) -> Any:
        array = self._device.empty(shape, _REAL)
        self._device.zero(array)
        return array

    def matrix(self, n: int, P: int) -> Any:
        return self.zeros(n, P)

    def put(self, host: np.ndarray, out: Any) -> None:
        self._device.write(np.ascontiguousarray(host, np.float64), out)

    def to_host(self, array: Any) -> np.ndarray:
        if type(array) is np.ndarray:
            return array
        self.waits += 1
        with self._device.guard():  # states are also saved when a run is over
            return self._device.to_host(array)

    def copy(self, source: Any, out: Any) -> None:
        self._device.copy(source, out)

    def move(self, a: Any, alpha: float, d: Any, out: Any) -> None:
        self._device.launch(MOVE, _blocks(len(a)), (a, d, out, len(a), alpha))

    def subtract(self, a: Any, b: Any, out: Any) -> None:
        self._device.launch(SUBTRACT, _blocks(len(a)), (a, b, out, len(a)))

    def combine(self, sign: float, factor: float, a: Any, parts: Sequence[tuple[np.ndarray, Any]], out: Any) -> None:
        if len(parts) > 2:
            raise ValueError(f"{len(parts)} matrices in one sum")
        rows = [np.flatnonzero(c) for c, _ in parts]  # the others are not looked at
        places = [r.astype(np.int64).view(np.float64) for r in rows]  # integers, in one array with the coefficients
        terms = np.concatenate([np.zeros(0), *(c[r] for (c, _), r in zip(parts, rows, strict=True)), *places])
        if terms.size:
            self._terms, self._most_terms = self._with_room(self._terms, self._most_terms, terms.size)
            self._device.write(terms, self._terms[: terms.size])
        matrices = [*(M for _, M in parts), None, None][:2]
        counts = [*(len(r) for r in rows), 0, 0][:2]
        self._device.launch(COMBINE, _blocks(len(a)), (a, self._terms, *matrices, out, len(a), *counts, sign, factor))

    def apply(self, formula: Any, reads: Sequence[Any], numbers: Sequence[float], writes: Sequence[Any]) -> None:
        kernel = applied(formula.name, formula.reads, formula.numbers, formula.writes, formula.cuda)
        P = len(writes[0])
        self._device.launch(kernel, _blocks(P), (*reads, *writes, P, *numbers))

    def dot(self, a: Any, b: Any) -> Number:
        return self.dots((a, b))[0]

    def dots(self, *pairs: tuple[Any, Any]) -> list[Number]:
        return self._measured(DOT, pairs)

    def max_abs(self, v: Any) -> Number:
        return self._measured(MAX_ABS, [(v, v)])[0]

    def sum_abs(self, v: Any) -> Number:
        return self._measured(SUM_ABS, [(v, v)])[0]

    def products(self, matrices: Sequence[Any], rows: Sequence[int], vectors: Sequence[Any]) -> _Products:
        parts, most = [], MOST_PRODUCTS // (MOST_VECTORS * len(matrices))
        for v in range(0, len(vectors), MOST_VECTORS):
            for r in range(0, len(rows), most):
                some, these = vectors[v : v + MOST_VECTORS], rows[r : r + most]
                numbers = self._of_rows(matrices, these, some)
                parts.append((slice(v, v + len(some)), slice(r, r + len(these)), numbers))
        return _Products((len(matrices), len(vectors), len(rows)), parts)

    def gemm(self, a: Any, b: Any, out: Any, *, transpose: str = "nn", beta: int = 0) -> None:
        self._device.multiply(a, b, out, "float64", transpose=transpose, beta=beta)

    def read(self, *numbers: Any) -> list[Any]:
        return [float(n) if isinstance(n, Number) else n.value() if isinstance(n, _Products) else n for n in numbers]

    def numbers(self, count: int) -> Numbers:
        """Places for so many numbers; work that is queued next writes them to their `array`."""
        self._add_up()  # what is open lies side by side
        return self._places(count)

    def keep(self) -> int:
        """A place among the results that recorded work may write to in every replay, for two numbers."""
        if not self._free:
            raise RuntimeError(f"more than {KEPT // 2} evaluations at a time")
        return self._free.pop(0)

    def give_back(self, start: int) -> None:
        """The place of `keep` may be another's."""
        self._lose(self._latest.pop(start, None))
        self._free.append(start)

    def latest(self, start: int) -> Numbers:
        """What work queued so far leaves at that place; to be read before work queued later replaces it."""
        self._lose(self._latest.get(start))
        numbers = self._latest[start] = Numbers(self, start, 2)
        self._asked.append(numbers)
        return numbers

    def _lose(self, before: Numbers | None) -> None:
        """These are about to be overwritten: who has not read them must not get the others' values."""
        if before is not None and not before.arrived:
            before.lost = True
            self._asked.remove(before)

    def fetch(self) -> None:
        """Wait, once, for every number asked for so far."""
        with self._device.guard():  # a number may be read outside of it: another stream would not wait for ours
            self._add_up()
            results = self._device.to_host(self.results[: self._used])
        self.waits += 1
        for numbers in self._asked:
            numbers.take(results)
        self._used, self._asked = KEPT, []

    def _places(self, count: int) -> Numbers:
        if self._used + count > RESULTS:
            self.fetch()
        numbers = Numbers(self, self._used, count)
        self._used += count
        self._asked.append(numbers)
        return numbers

    def _places_for_sums(self, count: int, chunks: int) -> tuple[Numbers, int, int]:
        """Places, the first of them among the results, and where their partial sums begin."""
        _, open_, of_each = self._open
        if open_ and (of_each != chunks or (open_ + count) * chunks > self._room):
            self._add_up()
        numbers = self._places(count)
        first, open_, _ = self._open
        if not open_:
            first = self._used - count
            self._partials, self._room = self._with_room(self._partials, self._room, max(PARTIALS, count) * chunks)
        self._open = first, open_ + count, chunks
        return numbers, self._used - count, open_ * chunks

    def _add_up(self) -> None:
        first, count, chunks = self._open
        if count:
            self._device.launch(ADD_UP, count, (self._partials, self._kinds, self.results, first, chunks))
        self._open = 0, 0, 0

    def _with_room(self, array: Any, room: int, wanted: int) -> tuple[Any, int]:
        """The array, or a new one where it is too small; work is in order, so all can use the same."""
        return (array, room) if wanted <= room else (self._device.empty((wanted,), _REAL), wanted)

    def _measured(self, kind: int, pairs: Sequence[tuple[Any, Any]]) -> list[Number]:
        found: list[Number] = []
        for at in range(0, len(pairs), MOST_MEASURES):
            some = pairs[at : at + MOST_MEASURES]
            P, n = len(some[0][0]), len(some)
            chunks = -(-P // CHUNK)
            numbers, first, begin = self._places_for_sums(n, chunks)
            arrays = [v for pair in some for v in pair] + [None] * (2 * (MOST_MEASURES - n))
            arguments = (*arrays, self._partials, self._kinds, P, n, kind, first, begin)
            self._device.launch(MEASURES, _blocks(n * chunks, WARPS), arguments)
            found += [numbers[i] for i in range(n)]
        return found

    def _of_rows(self, matrices: Sequence[Any], rows: Sequence[int], vectors: Sequence[Any]) -> Numbers:
        """(matrices, rows, vectors) numbers."""
        ring, P = matrices[0].shape
        if len(matrices) > 2 or any(M.shape != (ring, P) for M in matrices):
            raise ValueError(f"products with matrices of shapes {', '.join(str(M.shape) for M in matrices)}")
        if list(rows) != [(rows[0] + r) % ring for r in range(len(rows))]:
            raise ValueError(f"rows {rows}, which do not follow each other in a ring of {ring}")
        chunks, n = -(-P // CHUNK), len(matrices) * len(rows)
        numbers, first, begin = self._places_for_sums(n * len(vectors), chunks)
        together = max(1, min(n, n * chunks // ENOUGH_WARPS))
        tasks = chunks * -(-n // together)
        arguments = (
            matrices[0], matrices[-1], *vectors, self._partials, self._kinds,
            P, ring, rows[0], len(rows), n, together, first, begin,
        )  # fmt: skip
        self._device.launch(PRODUCTS[len(vectors)], _blocks(tasks, WARPS), arguments)
        return numbers


def _blocks(tasks: int, of_block: int = THREADS) -> int:
    return min(-(-tasks // of_block), MOST_BLOCKS)
