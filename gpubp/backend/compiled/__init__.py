"""The CPU at the speed of its matrix products: whole leaves in one compiled loop (numba), BLAS called by address.

`source` writes each formula's loop from the formula itself, `build` has numba compile it and keeps it on disk, `leaf`
is the loop over the blocks of a leaf, and `CompiledBackend` here hands it addresses. What the loop computes is
`gpubp.backprop`, which NumPy runs step by step; tests hold the two together, for every activation and cost.
"""

from __future__ import annotations

import importlib.util
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ...tree import blocks, leaf_rows
from .. import blas
from ..numpy import NumpyBackend, aligned, row_time
from . import source

if TYPE_CHECKING:
    from .whole import WholeSum

_ALIGN = 16  # elements: 64 bytes in float32


def missing() -> str:
    """Why compiled passes cannot be had here, in a few words; "" if they can."""
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed (pip install 'gpubp[cpu]')"
    try:
        import numba  # noqa: F401  beside a NumPy that it does not know it refuses to be imported
    except ImportError as error:
        return f"numba cannot be imported: {' '.join(str(error).split())}"
    return ""


class CompiledBackend(NumpyBackend):
    """Host memory, leaves shared among threads, each leaf in one compiled call.

    Args:
        threads: how many threads a pass uses; by default all cores it may.
        library: the BLAS for the passes.
    """

    most_rows, block_bytes = 1024, 4 << 20  # flat from 512 to 2,500 rows
    long_leaf, short_leaf = 1_000_000, 500_000

    def __init__(self, threads: int | None, library: blas.Blas) -> None:
        super().__init__(threads)
        self._blas = library
        own = blas.of_numpy()
        self.choice = {"kernel": "compiled", "blas": "numpy" if own and own.path == library.path else "mkl"}

    def leaf_loop(self, network: Any, feed: Any, dtype: np.dtype, rows: int, block_rows: int) -> CompiledLeaf:
        return CompiledLeaf(self._blas, network, feed, dtype, rows, block_rows)

    def whole_sum(
        self, network: Any, feed: Any, Theta: np.ndarray, leaves: int, owners: int, block_rows: int,
        own: tuple[int, int] | None = None,
    ) -> WholeSum | None:  # fmt: skip
        rows, m = feed.rows, feed.rows.m
        first, stop = (leaf_rows(leaf, leaves, m)[0] for leaf in own or (0, leaves))
        # a block that is only partly in memory is read as a whole
        there = rows.keeps(first, stop) or rows.direct.covers(max(first, rows.kept_to - block_rows))
        if not (there and rows.kept.flags.c_contiguous):
            return None  # some rows must be read, or put in order, by Python
        from .whole import WholeSum

        most = min(block_rows, -(-m // leaves))
        loops = [self.leaf_loop(network, feed, Theta.dtype, most, block_rows) for _ in range(owners)]
        seconds = 1e-9 * row_time(network.sizes) * m / leaves
        return WholeSum(loops, rows, Theta, m, leaves, block_rows, seconds, own)

    def conditions(self) -> dict[str, str]:
        import llvmlite.binding
        import numba

        return {
            "device": "CPU",
            "kernel": "compiled",
            "blas": self._blas.describe(),
            **blas.conditions(),
            "numba": numba.__version__,
            "cpu": llvmlite.binding.get_host_cpu_name(),  # what numba compiles for
        }


class CompiledLeaf:
    """One owner's scratch memory, and the addresses that `leaf.run` is given. See `protocol.LeafLoop`."""

    def __init__(
        self, library: blas.Blas, network: Any, feed: Any, dtype: np.dtype, rows: int, block_rows: int
    ) -> None:
        from . import build

        self._run = build.loops()[0].run
        self._feed, self._block_rows = feed, block_rows
        self._staging = aligned((rows, network.sizes[0]), feed.stored)
        self._lay_out(network, dtype, rows)
        self._addresses(library, network, dtype)

    def run(self, Theta: Any, start: int, stop: int, Delta: Any, cost: Any, with_gradient: bool) -> None:
        rows = self._feed.resident(start, stop)
        if rows is not None and rows.flags.c_contiguous:
            count = len(blocks(start, stop, self._block_rows))
            self._blocks(rows, start, Theta, start, stop, count, Delta, cost, False, with_gradient)
            return
        for i, (u, v) in enumerate(blocks(start, stop, self._block_rows)):
            x = self._feed.raw(u, v, self._staging)
            if not x.flags.c_contiguous:  # an array of Python's that lies column by column, or has gaps
                np.copyto(self._staging[: v - u], x)
                x = self._staging
            self._blocks(x, u, Theta, u, v, 1, Delta, cost, i > 0, with_gradient)

    def _blocks(
        self, x: np.ndarray, first: int, Theta: Any, start: int, stop: int, count: int, Delta: Any, cost: Any,
        keep: bool, with_gradient: bool,
    ) -> None:  # fmt: skip
        from .leaf import ROW_BYTES, ROWS

        self._data[ROWS] = x.ctypes.data - first * self._data[ROW_BYTES]
        self._run(
            self._layers, self._places, self._data, self._code, Theta, Delta, self._scratch, self._sums, cost,
            start, stop, count, keep, with_gradient,
        )  # fmt: skip

    def part(self, rows: Any) -> tuple[Any, ...]:
        """What `whole.WholeSum` is told of an owner, for rows that are in memory or in files as they are used."""
        from .leaf import DEPTH, FILES, KEPT, PARTS, ROWS, STEP

        row = rows.features * self._feed.stored.itemsize
        self._data[[ROWS, KEPT]] = rows.kept.ctypes.data - rows.first * row, rows.kept_to
        if not rows.keeps_all:
            self._opened = rows.direct.opened_again()
            table = self._opened.table
            self._data[[FILES, PARTS, STEP, DEPTH]] = table.ctypes.data, len(table), *rows.direct.ahead
        return self._layers, self._places, self._data, self._code, self._scratch, self._sums

    def _lay_out(self, network: Any, dtype: np.dtype, rows: int) -> None:
        """Where everything lies in the scratch memory."""
        sizes, K = network.sizes, network.K
        used = 0

        def take(elements: int) -> int:
            nonlocal used
            start, used = used, used + -(-elements // _ALIGN) * _ALIGN
            return start

        flat = np.zeros(network.P, np.uint8)
        W, b = network.views(flat)
        errors = [take(rows * max(sizes[1:])) for _ in range(2)]  # take turns as δ^(l+1) and δ^(l)
        layers = []
        for l, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
            final = l == network.L - 1
            # short layers are repeated to rows of 256 elements or more, a multiple of 16
            tile = 1 if outputs >= 256 else -(-256 // outputs) if outputs % _ALIGN == 0 else -(-16 // outputs) * 16
            z = take(rows * outputs)
            a = z if final or network.g.slope_from_a else take(rows * outputs)
            at = [int(view.ctypes.data - flat.ctypes.data) for view in (W[l], b[l])]
            delta = z if final else errors[l % 2]
            layers.append([inputs, outputs, tile, *at, z, a, delta, take(tile * outputs), take(tile * outputs)])
        self._layers = np.array(layers, np.int64)
        # rows that are used as they are stored need no place for x
        x = 0 if self._feed.conversion is None else take(rows * sizes[0])
        terms = source.TERMS * int(layers[-1][2]) * K
        self._places = np.array([x, *(take(rows * K) for _ in range(3)), take(terms)], np.int64)
        self._scratch = aligned((used,), dtype)
        self._scratch[...] = 0
        self._sums = aligned((3, max(int(layers[-1][2]), source.REDUCTIONS) * K), np.dtype(np.float64))

    def _addresses(self, library: blas.Blas, network: Any, dtype: np.dtype) -> None:
        """The kernels and the constant part of the data."""
        from . import build, fetch
        from .leaf import TILE

        feed, g, J = self._feed, network.g, network.J
        numbers, real = np.dtype(np.int32), np.dtype(np.float64)
        load_x = 0
        if feed.conversion is not None:
            taken = {"x": feed.stored, "mu": real, "sigma": real}
            load_x = build.address(source.load(feed.conversion, taken, dtype))
        labels, K = feed.labels, network.K
        self._numbers = None if feed.numbers is None else np.tile(feed.numbers, int(self._layers[-1][TILE]))
        if self._numbers is not None:
            load_y = source.load(feed.targets, {"label": labels.dtype, "k": numbers}, dtype, one_output=K == 1)
        else:
            load_y = source.load(feed.targets, {"x": labels.dtype, "mu": real, "sigma": real}, dtype)
        weighted, held = feed.weights is not None, feed.validation is not None
        end = source.output(J.score, J.cell, J.h, J.delta, dtype, weighted=weighted, held=held)
        gemm = library.gemm(dtype)
        assert gemm
        hidden = network.L > 2
        self._code = np.array(
            [
                load_x,
                build.address(load_y),
                build.address(source.activate(g.g, dtype, inplace=g.slope_from_a)) if hidden else 0,
                build.address(source.slope(g.slope, dtype)) if hidden else 0,
                build.address(end),
                *gemm,
                *fetch.addresses(),
            ],
            np.int64,
        )

        def at(array: np.ndarray | None) -> int:
            return 0 if array is None else array.ctypes.data

        self._data = np.array(
            [
                0,
                feed.stored.itemsize * network.sizes[0],
                at(labels),
                labels.strides[0],
                *map(at, feed.moments),
                at(self._numbers),
                at(feed.weights),
                at(feed.validation),
                1 << 62,  # `run` puts a block in place
                at(self._staging),
                *(0, 0, 0, 0, -1),
            ],
            np.int64,
        )
