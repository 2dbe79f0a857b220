"""One look at every row: the columns' statistics, a fingerprint, and the first rows kept in memory.

`scan` reads X once, in pieces that several threads share: each reads its piece, takes its checksum and the moments of
its blocks (see `moments`). The calling thread puts these together in the order of the rows, so that what comes out is
the same bits for any number of threads and any memory budget.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend.cores import available_cores
from ..communicator import Communicator, Solo
from ..errors import DataError, UsageError
from .direct import Direct
from .in_order import in_order
from .moments import Moments, Node, Tree, block_shape, moments, moments_of_each
from .scaling import Array, Statistics
from .source import ArrayRows, RowSource

_PIECE = 4 << 20  # bytes read at a time
_GROUP = 8  # blocks at a time
_WORTH = 32 << 20  # bytes for which code is compiled: the first time it takes a second
_MOST_THREADS = 8  # beyond it Python's lock is what they wait for


def scan(
    source: RowSource,
    *,
    training: NDArray[np.bool_] | None = None,
    weights: Array | None = None,
    budget: int,
    feature_names: tuple[str, ...] | None = None,
    progress: Callable[[int], object] | None = None,
    threads: int | None = None,
    compiled: bool = False,
    own: tuple[int, int] | None = None,
    ranks: Communicator | None = None,
) -> tuple[Statistics, NDArray[Any]]:
    """Read every row once.

    Args:
        source: the rows.
        training: (m,) bool, the rows that count; None for all. The others are only checked.
        weights: (m,) row weights; a row of weight 2 counts like the row twice.
        budget: bytes of rows to keep in memory.
        feature_names: for messages.
        progress: called with the number of rows done so far.
        threads: how many may share the work; by default as many as there are cores. It changes no bit.
        compiled: sum large data by code that numba compiles, which must be there and takes 100 MB: for those who load
            it anyhow. It changes no bit.
        own: first and stop of the rows to be kept; all by default. Where there are other processes, each has its own
            part of the rows, in their order, and reads that alone.
        ranks: those. The statistics come to be the same bits as by one process.

    Returns:
        The statistics, and the first of its own rows that fit the budget: (kept, features) of the stored type,
        C-contiguous, 64-byte aligned. An array that already lies in memory as one block is returned itself, whatever
        the budget.

    Raises:
        DataError: a value is NaN or infinite (file, row and column are named), or so large that its square is infinite;
            no training row is left; the file changed while it was read.
    """
    ranks, own = ranks or Solo(), own or (0, source.m)
    checksums: list[int] = []
    with ranks.together():
        kept, resident = _room(source, budget, own)
        look = _Look(source, training, weights, kept, resident, feature_names, compiled, own)
        tree = Tree[Moments](look.blocks_before(look.pieces[0][0]) if look.pieces else 0)
        many = max(1, min(threads or available_cores(), _MOST_THREADS, len(look.pieces)))
        with in_order(lambda rows: look.piece(*rows), look.pieces, threads=many) as results:
            for (_, stop), (checksum, found) in results:
                checksums.append(checksum)
                with np.errstate(over="ignore", invalid="ignore"):  # `_statistics` refuses what came of it
                    for node in found:
                        tree.add(node)
                if progress is not None:
                    looked = look.pieces[-1][1] - look.pieces[0][0]
                    progress((stop - look.pieces[0][0]) * source.m // looked)
        look.keep_the_rest()
        source.check()
    digest = hashlib.blake2b(repr((source.m, source.features, source.dtype.str)).encode(), digest_size=16)
    every = Tree[Moments]()
    whole: list[tuple[list[int], list[Node[Moments]]]] = ranks.gather((checksums, tree.waiting))
    for theirs, nodes in whole:
        digest.update(np.array(theirs, "<u4").tobytes())
        with np.errstate(over="ignore", invalid="ignore"):
            for node in nodes:
                every.put(*node)
    return _statistics(every.root(), look.shift, source, digest, feature_names), kept


Piece = tuple[int, list[Moments]]  # its checksum, and the moments of its blocks


class _Look:
    """What a thread does with a piece of the rows.

    Attributes:
        pieces: (start, stop) of each that begins among its own rows; whole blocks, whatever the budget.
        shift: the first training row, what all moments are relative to; None where there is none.
    """

    def __init__(
        self, source: RowSource, training: NDArray[np.bool_] | None, weights: Array | None, kept: NDArray[Any],
        resident: bool, feature_names: tuple[str, ...] | None, compiled: bool, own: tuple[int, int],
    ) -> None:  # fmt: skip
        m, d, dtype = source.m, source.features, source.dtype
        self._source, self._direct, self._names = source, Direct(source), feature_names
        self._training, self._weights, self._kept = training, weights, kept
        self._resident = source.array if resident and isinstance(source, ArrayRows) else None
        self._fold, self._block_rows = block_shape(d)
        self._step = self._block_rows * max(1, _PIECE // (self._block_rows * d * dtype.itemsize))
        self._first, step = own[0], self._step
        self.pieces = [(at, min(at + step, m)) for at in range(-(-own[0] // step) * step, own[1], step)]
        self._own = threading.local()
        # operations on single blocks are so short that two threads would mostly wait for Python's lock
        self._short = threading.Lock()
        self._compiled = None
        if compiled and weights is None and m * d * dtype.itemsize >= _WORTH:
            from ..backend.compiled import build

            self._compiled = build.column_sums()
        self.shift: Array | None = None
        row = next(
            (at + int(np.argmax(c)) for at in range(0, m, step) if (c := self._counts(at, min(at + step, m))).any()), -1
        )
        if row >= 0:
            first = np.empty((1, d), dtype)
            self._direct.read(row, row + 1, first)
            self.shift = first[0].astype(np.float64)

    def piece(self, start: int, stop: int) -> Piece:
        rows = self._read(start, stop)
        checksum, found = zlib.crc32(rows.data), []
        group = _GROUP * self._block_rows
        with np.errstate(over="ignore", invalid="ignore"):
            for low in range(start, stop, group):
                high = min(low + group, stop)
                found += self._blocks(rows[low - start : high - start], low, high)
        return checksum, found

    def _blocks(self, rows: NDArray[Any], low: int, high: int) -> list[Moments]:
        """The moments of some blocks, as far as any of their rows counts."""
        if rows.dtype == np.float16:
            rows = rows.astype(np.float32)  # exact, and NumPy works through float16 one number at a time
        counts = None
        if self._training is not None or self._weights is not None:
            counts = self._counts(low, high)
            counts = None if counts.all() else counts
        n, shift = self._block_rows, self.shift
        if counts is None and shift is not None and (high - low) % n == 0:
            w = None if self._weights is None else self._weights[low:high].reshape(-1, n)
            if not hasattr(self._own, "room"):
                self._own.room = np.empty(max(2 * self._fold, _GROUP * n) * rows.shape[1])
            found = moments_of_each(
                rows.reshape(-1, n, rows.shape[1]), shift, w, self._fold, self._own.room, self._compiled
            )
            if rows.dtype.kind == "f":  # NaN is the least and the greatest of all
                ends = np.stack([end for one in found for end in (one.minimum, one.maximum)])
                if not np.isfinite(ends).all():
                    _refuse_non_finite(rows, low, self._source, self._names)
            return found
        found = []
        with self._short:
            _refuse_non_finite(rows, low, self._source, self._names)
            for at in range(0, high - low, n):
                block = rows[at : at + n]
                w = None if self._weights is None else self._weights[low + at : min(low + at + n, high)]
                if counts is not None:
                    these = counts[at : at + n]
                    block, w = block[these], None if w is None else w[these]
                if len(block):
                    assert shift is not None
                    found.append(moments(block, shift, w, self._fold))
        return found

    def _counts(self, low: int, high: int) -> NDArray[np.bool_]:
        """Which rows are training rows."""
        counts = np.ones(high - low, np.bool_) if self._training is None else self._training[low:high]
        return counts if self._weights is None else counts & (self._weights[low:high] > 0)

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows start … stop − 1, in their place in `kept` as far as that goes."""
        kept, first = self._kept, self._first
        if self._resident is not None:
            return self._resident[start:stop]
        if stop - first <= kept.shape[0]:
            piece = kept[start - first : stop - first]
            self._direct.read(start, stop, piece)
            return piece
        if not hasattr(self._own, "buffer"):
            self._own.buffer = _aligned(min(self._step, self._source.m), kept.shape[1], kept.dtype)
        piece = self._own.buffer[: stop - start]
        self._direct.read(start, stop, piece)
        if start - first < kept.shape[0]:
            kept[start - first :] = piece[: kept.shape[0] - (start - first)]
        return piece

    def blocks_before(self, row: int) -> int:
        """How many blocks before this row, the first of a piece, have a row that counts."""
        n = self._block_rows
        if self._training is None and self._weights is None:
            return row // n
        return sum(int(self._counts(at, at + n).any()) for at in range(0, row, n))

    def keep_the_rest(self) -> None:
        """Read what is to be kept and lies before the first piece, which another process looks at."""
        first = self._first
        stop = min(self.pieces[0][0] if self.pieces else first + len(self._kept), first + len(self._kept))
        if first < stop and self._resident is None:
            self._direct.read(first, stop, self._kept[: stop - first])


def _statistics(
    found: Moments | None, shift: Array | None, source: RowSource, digest: Any, feature_names: tuple[str, ...] | None
) -> Statistics:
    if found is None or shift is None:
        raise DataError(f"{source.describe()}: no row is left to train on", wanted="a row with a positive weight")
    mean, std = shift + found.mean, np.sqrt(found.M2 / found.weight)
    wide = ~(np.isfinite(std) & np.isfinite(mean))
    if wide.any():
        column = int(np.argmax(wide))
        raise DataError(
            f"{source.describe()}: {_column(column, feature_names)} goes from {found.minimum[column]:g} to"
            f" {found.maximum[column]:g}",
            wanted="numbers whose squares are finite",
            do="scale the column down in the file",
        )
    for values in (mean, std, found.minimum, found.maximum, np.array([found.count, found.weight])):
        digest.update(values.astype("<f8").tobytes())
    return Statistics(found.count, mean, std, found.minimum, found.maximum, digest.hexdigest())


def _room(source: RowSource, budget: int, own: tuple[int, int]) -> tuple[NDArray[Any], bool]:
    """The array for the kept rows, and whether they already lie in it."""
    if isinstance(source, ArrayRows) and source.array.flags.c_contiguous:
        return source.array if own == (0, source.m) else source.array[own[0] : own[1]], True
    rows = min(own[1] - own[0], budget // (source.features * source.dtype.itemsize))
    try:
        return _aligned(rows, source.features, source.dtype), False
    except MemoryError:
        raise UsageError(
            f"there is no room for {rows:,} rows in memory", wanted="a smaller budget", do="say --memory 1GB, or less"
        ) from None


def _refuse_non_finite(
    block: NDArray[Any], first: int, source: RowSource, feature_names: tuple[str, ...] | None
) -> None:
    if block.dtype.kind != "f":
        return
    finite = np.isfinite(block)
    if not finite.all():
        row, column = (int(i) for i in np.argwhere(~finite)[0])
        gap = bool(np.isnan(block[row, column]))
        raise DataError(
            f"{source.where(first + row)}, {_column(column, feature_names)} is {block[row, column]}",
            wanted="finite numbers (rows and columns are counted from 0)",
            do="say --missing mean or --missing drop, or fill it in" if gap else "remove or fill in the row",
        )


def _column(column: int, feature_names: tuple[str, ...] | None) -> str:
    return f"column {column}" + (f" ({feature_names[column]!r})" if feature_names else "")


def _aligned(rows: int, d: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """An uninitialised (rows, d) array that starts at a multiple of 64 bytes."""
    size = rows * d * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(rows, d)
