"""A pass layer by layer: matrix products by cuBLAS, one fused kernel between two of them.

What it computes is `gpubp.backprop`, block by block, with what the device likes: activations in the type in which it
multiplies (`stored`: float64, float32 or bfloat16), z and errors in the type of the pass, sums of columns in fixed
chunks. A block is as long as elementwise work finds its rows in the L2 cache. Everything is allocated at the beginning.

The tree over leaves is walked depth first, so that log2(leaves) + 1 sums are alive; twice as many at most where other
processes have leaves too and the topmost nodes of a part are several.

Inside, every layer has a multiple of 8 units: tensor cores take rows of whole 16-byte words, and a layer of 10 outputs
would cost as much as one of hundreds. The units that were added have no weights, so their errors are 0 and they change
nothing; what their gradients hold is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ...formula import cast, standardise
from ...tree import blocks, cover, depth_first, leaf_count, leaf_rows
from ..kernels import BF16, Type
from . import layers, products
from .conveyor import Conveyor
from .device import ALIGN, Device, add, elementwise
from .recorded import Step

LEAF_ROWS = 1 << 16  # a leaf fills the device by itself, so leaves are few
MOST_LEAVES = 64
CACHED = 32 << 20  # bytes of the widest layer of a block in float32: elementwise work finds them in the L2 cache
MOST_BLOCK_ROWS = 1 << 16
BLOCK_BYTES = 1 << 30  # for one block's buffers in float64: fits devices of 8 GiB beside rows and Θ


class LayeredPass:
    """The sums of all rows, layer by layer.

    Args:
        network, layout: a `gpubp.network.Network`, and as it is inside, see `padded`.
        feed: the `gpubp.feed.Feed` of its rows.
        Theta, narrow: the flat Θ of the layout, and likewise as bfloat16 (or None): where each pass finds them.
        kind: how products are taken: "exact", "tf32x3", "tf32" or "bf16".
        own: first and stop of the leaves to sum.

    Attributes:
        nodes: of the topmost nodes over these, by heap index, where a pass leaves Δ, flat as the layout, and the sums
            of w·cost and v·cost, (2,) float64.
        conveyor: brings the rows that do not stay on the device, if there are such.
    """

    def __init__(
        self, device: Device, network: Any, layout: Any, feed: Any, Theta: Any, narrow: Any, kind: str, leaves: int,
        block_rows: int, own: tuple[int, int],
    ) -> None:  # fmt: skip
        self._device, self._network, self._feed = device, network, feed
        T = self._T = Theta.dtype
        self._bf16 = kind == "bf16"
        self._O: Type = BF16 if self._bf16 else T
        m, L, sizes = feed.rows.m, network.L, layout.sizes
        self._sizes, self._features = sizes, network.sizes[0]
        self._leaf_blocks = [blocks(*leaf_rows(leaf, leaves, m), block_rows) for leaf in range(*own)]
        self._places = list(depth_first(*own, leaves))
        rows = max((v - u for leaf in self._leaf_blocks for u, v in leaf), default=0)
        self._multiply = products.make(device, kind, T, rows, layout)
        self._W, self._b = layout.views(narrow if self._bf16 else Theta)[0], layout.views(Theta)[1]

        # the sums: of the nodes that are alive together, of each chunk of rows for the columns of all layers
        alive = max((place + 1 for place, _ in self._places), default=0)
        apart = ALIGN // T.itemsize  # a library may choose its kernel by where a node begins: they are all alike
        memory = device.empty((alive, -(-layout.P // apart) * apart), T)
        device.zero(memory)  # the gaps between layers stay zero from here on
        self._nodes = [memory[k, : layout.P] for k in range(alive)]
        self._costs = device.empty((alive, 2), np.dtype(np.float64))
        self._sums = [layout.views(node)[0] for node in self._nodes]
        self.nodes = {index: (self._nodes[k], self._costs[k]) for k, index in enumerate(cover(*own, leaves))}
        width = sum(sizes[1:])
        chunks = max((sum(layers.chunks(v - u) for u, v in leaf) for leaf in self._leaf_blocks), default=0)
        self._partials = device.empty((chunks, width), T)
        self._cost_partials = device.empty((chunks, 2), np.dtype(np.float64))
        index = layout.views(np.arange(layout.P, dtype=np.int32))[1]
        self._where = device.upload(np.concatenate([index[l][0] for l in range(1, L)]))
        self._offsets = [0, 0, *np.cumsum(sizes[1:-1]).tolist()]  # of layer l + 1's columns at [l]

        self._buffers(rows)
        self._kernels()
        missing = [(u, v) for leaf in self._leaf_blocks for u, v in leaf if v > u and feed.resident(u, v) is None]
        self.conveyor = Conveyor(device, feed.rows.read, missing, self._features, feed.stored) if missing else None

    def steps(self, with_gradient: bool) -> Iterator[Step]:
        """One pass."""
        sent = 0
        for (place, added), ranges in zip(self._places, self._leaf_blocks, strict=True):
            chunk = 0
            for u, v in ranges:
                if u == v:
                    continue
                x, piece = self._feed.resident(u, v), None
                if x is None:
                    assert self.conveyor
                    piece, sent = sent, sent + 1
                    x = self.conveyor.rows(piece)
                yield Step(partial(self._block, x, u, v, place, chunk, with_gradient), piece)
                chunk += layers.chunks(v - u)
            yield Step(partial(self._leaf, place, chunk, with_gradient))
            for k in added:
                yield Step(partial(self._add, k, with_gradient))

    @property
    def launches(self) -> int:
        """How many there are in a pass, roughly."""
        return sum(map(len, self._leaf_blocks)) * 8 * self._network.L

    def close(self) -> None:
        """End the thread that reads rows."""
        if self.conveyor:
            self.conveyor.close()

    def _add(self, k: int, with_gradient: bool) -> None:
        """The sums in place k + 1 become part of those in k: both are siblings."""
        if with_gradient:
            add(self._device, self._nodes[k], self._nodes[k + 1])
        add(self._device, self._costs[k], self._costs[k + 1])

    def _leaf(self, node: int, chunk: int, with_gradient: bool) -> None:
        """What the blocks of a leaf, of so many chunks, left in parts."""
        if not chunk and with_gradient:  # a leaf without rows
            self._device.zero(self._nodes[node])
        width = self._partials.shape[1] if with_gradient else 0
        arguments = (
            *(self._partials, self._where, self._cost_partials),
            *(self._nodes[node], self._costs[node], chunk, width),
        )
        self._device.launch(self._leaf_sums, layers.leaf_sums_blocks(width), arguments)

    def _block(self, x: Any, u: int, v: int, node: int, chunk: int, with_gradient: bool) -> None:
        """One block of rows: the course, as in `gpubp.backprop`."""
        network, multiply, rows, sizes, L = self._network, self._multiply, v - u, self._sizes, self._network.L
        W, b = self._W, self._b
        g, stored = network.g, self._O
        if self._x is not None:
            formula = self._feed.conversion or cast
            more = self._feed.moments if formula is standardise else ()
            types = [self._feed.stored, *(np.dtype(np.float64) for _ in more), stored]
            converted = _matrix(self._x, rows, sizes[0])
            elementwise(self._device, formula, types, x, *more, converted[:, : self._features])
            x = converted
        a: list[Any] = [None, x, *(_matrix(self._a[l], rows, sizes[l - 1]) for l in range(2, L))]
        z: list[Any] = [None, None, *(_matrix(self._z[l], rows, sizes[l - 1]) for l in range(2, L + 1))]
        for l in range(1, L):
            multiply(a[l], W[l], z[l + 1], transpose="nt")
            if l + 1 < L:
                elementwise(self._device, g.g, [self._T, self._T, stored], z[l + 1], b[l], a[l + 1])
        self._end(z[L], u, v, chunk, with_gradient)
        if not with_gradient:
            return
        delta = self._error(None, z[L], (), self._delta[L % 2], rows, L, chunk)
        for l in range(L - 1, 0, -1):
            multiply(delta, a[l], self._sums[node][l], transpose="tn", beta=int(chunk > 0))
            if l > 1:
                e = _matrix(self._e[l % 2], rows, sizes[l - 1])
                multiply(delta, W[l], e, transpose="nn")
                at = (a[l],) if g.slope_from_a else (z[l], b[l - 1])
                delta = self._error(g.slope, e, at, self._delta[l % 2], rows, l, chunk)

    def _end(self, z: Any, u: int, v: int, chunk: int, with_gradient: bool) -> None:
        feed = self._feed
        w, held = (None if column is None else column[u:v] for column in (feed.weights, feed.validation))
        last = self._b[self._network.L - 1]
        arguments = (z, last, feed.labels[u:v], feed.numbers, w, held, self._cost_partials, v - u, chunk, with_gradient)
        self._device.launch(self._end_kernel, layers.chunks(v - u), arguments)

    def _error(self, slope: Any, e: Any, at: tuple[Any, ...], buffer: Any, rows: int, l: int, chunk: int) -> Any:
        """δ^(l) out of the error e, in place or in the type of products; the bias's partial sums."""
        columns, width = self._sizes[l - 1], self._partials.shape[1]
        out = _matrix(buffer, rows, columns) if self._bf16 else e
        kernel = self._errors[slope is not None]
        arguments = (e, *at, out, self._partials, rows, columns, chunk, width, self._offsets[l - 1])
        self._device.launch(kernel, layers.error_blocks(rows, columns), arguments)
        return out

    def _buffers(self, rows: int) -> None:
        """Of a block: a of each layer, z where it is another one, two errors that take turns."""
        network, feed, T = self._network, self._feed, self._T
        sizes, L = self._sizes, network.L
        bits = np.dtype(np.uint16)

        def take(columns: int, dtype: np.dtype) -> Any:
            return self._device.empty((rows * columns,), dtype)

        self._x = None if as_stored(feed, self._bf16) else take(sizes[0], bits if self._bf16 else T)
        if self._x is not None:
            self._device.zero(self._x)
        keeps_z = not network.g.slope_from_a
        widest = max(sizes[1:])
        common = take(widest, T) if self._bf16 and not keeps_z else None
        self._z = [None, None, *(take(s, T) if common is None else common for s in sizes[1:])]
        self._a = list(self._z[:L])
        if self._bf16 or keeps_z:
            self._a[2:] = [take(s, bits if self._bf16 else T) for s in sizes[1:-1]]
        self._e = [take(widest, T) for _ in range(2)]
        self._delta = [take(widest, bits) for _ in range(2)] if self._bf16 else self._e

    def _kernels(self) -> None:
        network, feed, T = self._network, self._feed, self._T
        self._end_kernel = layers.end(
            network.J, feed.targets, network.K, self._sizes[-1], T, feed.labels.dtype,
            one_hot=feed.numbers is not None, weighted=feed.weights is not None, held=feed.validation is not None,
        )  # fmt: skip
        self._errors = [layers.error(slope, T, self._O) for slope in (None, network.g.slope)]
        self._leaf_sums = layers.leaf_sums(T)


def layered_plan(m: int, sizes: tuple[int, ...]) -> tuple[int, int]:
    """Leaves and the most rows of a block: of rows and shape alone, since the bits depend on them."""
    # x, y, z and a of every layer, two errors
    numbers = sizes[0] + sizes[-1] + 2 * sum(sizes[1:]) + 2 * max(sizes[1:])
    cached = CACHED // (4 * max(sizes[1:]))
    rows = max(64, min(MOST_BLOCK_ROWS, max(1024, cached), BLOCK_BYTES // (8 * numbers)))
    return leaf_count(m, LEAF_ROWS, MOST_LEAVES), rows


def as_stored(feed: Any, bf16: bool) -> bool:
    """Whether rows are multiplied as they are stored."""
    return feed.conversion is None and not bf16


def padded(network: Any, feed: Any, bf16: bool) -> Any:
    """The network with a multiple of 8 units in each layer, but for rows that are used as they are stored."""
    sizes = [-(-s // 8) * 8 for s in network.sizes]
    if as_stored(feed, bf16):
        sizes[0] = network.sizes[0]
    return replace(network, sizes=tuple(sizes))


def places(network: Any, layout: Any) -> np.ndarray:
    """Where each element of the network's flat vector lies in the layout's, (P,) int32; −1 for gaps."""
    where = np.full(network.P, -1, np.int32)
    own, inside = (one.views(np.arange(one.P, dtype=np.int32)) for one in (network, layout))
    for l in range(1, network.L):
        outputs, inputs = own.W[l].shape
        where[own.W[l]] = inside.W[l][:outputs, :inputs]
        where[own.b[l]] = inside.b[l][:, :outputs]
    return where


def _matrix(buffer: Any, rows: int, columns: int) -> Any:
    """The first rows of a buffer as a matrix without gaps."""
    return buffer[: rows * columns].reshape(rows, columns)
