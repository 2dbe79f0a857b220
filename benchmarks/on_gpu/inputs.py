"""Rows made on the card, the same in every process, and the float64 answer to them.

Nothing travels: a number of X is a hash of its row and column, so gigabytes are there in milliseconds. Each feature is
the sum of four uniform numbers, near enough to a normal one, with 18 random bits; the feature that a row's class points
to is raised by one. Peers get the very memory through DLPack.

The oracle is the textbook (`problems.textbook`) in float64, a block of rows after the other, kept in a file for the
processes that follow. Of shape G's thousand million rows two million are different; its answer is theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from problems import Array, Shape, flat, matrices, regularised, textbook

from .card import Card
from .plan import PERIODS

PIECE = 1 << 26  # numbers made at a time
ORACLE_BYTES = 1 << 29  # of the widest layer of a block in float64
SCALE = np.float32(1 / 37837.0)  # the spread of a sum of four numbers from 0 to 65,535
BYTE, MIDDLE = 37.0, 128.0  # the spread and the mean of what is stored as a byte

_FILL = r"""
__device__ unsigned long long mixed(unsigned long long h) {
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9ull;
    h = (h ^ (h >> 27)) * 0x94D049BB133111EBull;
    return h ^ (h >> 31);
}
extern "C" __global__ void codes(unsigned* out, unsigned long long n, unsigned long long first,
                                 unsigned long long period, unsigned classes) {
    for (unsigned long long i = blockIdx.x * 256ull + threadIdx.x; i < n; i += gridDim.x * 256ull)
        out[i] = mixed(((first + i) % period + 1) * 0xD1B54A32D192ED03ull) % classes;
}
extern "C" __global__ void features(float* out, unsigned long long n, unsigned long long first,
                                    unsigned long long period, unsigned classes, unsigned wide, float scale,
                                    int bytes) {
    for (unsigned long long i = blockIdx.x * 256ull + threadIdx.x; i < n; i += gridDim.x * 256ull) {
        const unsigned long long row = (first + i / wide) % period, column = i % wide;
        const unsigned long long h = mixed((row * wide + column + 1) * 0x9E3779B97F4A7C15ull);
        const int sum = int(h & 0xffff) + int((h >> 16) & 0xffff) + int((h >> 32) & 0xffff) + int(h >> 48) - 131070;
        const unsigned code = mixed((row + 1) * 0xD1B54A32D192ED03ull) % classes;
        const int raised = column == code % wide;
        if (bytes) out[i] = float(min(255, (sum >> 10) + 128 + 37 * raised));
        else out[i] = float(sum) * scale + float(raised);
    }
}
"""


@dataclass
class Data:
    """A problem on the card.

    Attributes:
        stored: the type of X.
        X, codes: (m, s_1) and (m,) int32 (uint8 beside an X of bytes), of `card.xp`.
        Theta: Ng's matrices for X as it is stored, float32, on the host.
        period: rows after which the rows begin anew.
    """

    shape: Shape
    stored: str
    X: Any
    codes: Any
    Theta: list[Array]
    period: int


def make(card: Card, shape: Shape, stored: str) -> Data:
    """The rows of a shape in a stored type."""
    xp, m, wide = card.xp, shape.m, shape.layers[0]
    fill = _host_fill if card.smoke else _card_fill(xp)
    period, classes = m // PERIODS.get(shape.name, 1), max(2, shape.layers[-1])
    X = xp.empty((m, wide), stored)
    codes = xp.empty(m, "uint8" if stored == "uint8" else "int32")
    rows = max(1, PIECE // wide)
    for start in range(0, m, rows):
        stop = min(start + rows, m)
        some, numbers = fill(start, stop - start, period, classes, wide, stored == "uint8")
        X[start:stop] = numbers
        codes[start:stop] = some
    Theta = matrices(shape, np.random.default_rng(0))
    if stored == "uint8":  # as a run would fold (x − mean)/spread into its first layer
        Theta[0][:, 1:] /= BYTE
        Theta[0][:, 0] -= Theta[0][:, 1:].sum(axis=1) * MIDDLE
    card.wait()
    return Data(shape, stored, X, codes, Theta, period)


def answer(card: Card, data: Data, folder: str) -> tuple[float, Array]:
    """J, and ∇J as one vector (D^(1), D^(2), … row by row), in float64; from `folder` if somebody was here before."""
    file = Path(folder) / f"answer-{data.shape.name}-{data.stored}.npz"
    if file.exists():
        kept = np.load(file)
        return float(kept["J"]), kept["gradient"]
    found = oracle(card, data)
    np.savez(file, J=found[0], gradient=found[1])
    return found


def oracle(card: Card, data: Data) -> tuple[float, Array]:
    """The textbook over one period, in float64."""
    shape, xp = data.shape, card.xp
    part = replace(shape, m=data.period)
    Theta = [xp.asarray(matrix.astype(np.float64)) for matrix in data.Theta]
    rows = max(64, ORACLE_BYTES // (8 * max(shape.layers)))
    cost, Delta = 0.0, [xp.zeros_like(matrix) for matrix in Theta]
    for start in range(0, part.m, rows):
        stop = min(start + rows, part.m)
        X = data.X[start:stop].astype("float64")
        K = shape.layers[-1]
        codes = data.codes[start:stop, None]
        Y = (codes if K == 1 else codes == xp.arange(K, dtype=codes.dtype)[None]).astype("float64")
        some, sums = textbook(shape, X, Y, Theta, xp)
        cost += some
        for D, new in zip(Delta, sums, strict=True):
            D += new
    on_host = [np.asarray(D if card.smoke else D.get()) * (shape.m / part.m) for D in Delta]
    J, gradient = regularised(shape, cost * (shape.m / part.m), on_host, [m.astype(np.float64) for m in data.Theta])
    return J, flat(gradient)


def _card_fill(cupy: Any) -> Any:
    module = cupy.RawModule(code=_FILL)
    make_codes, make_features = module.get_function("codes"), module.get_function("features")

    def fill(first: int, rows: int, period: int, classes: int, wide: int, bytes_: bool) -> tuple[Any, Any]:
        codes, numbers = cupy.empty(rows, "uint32"), cupy.empty((rows, wide), "float32")
        at = np.uint64(first), np.uint64(period), np.uint32(classes)
        grid = (4096,), (256,)
        make_codes(*grid, (codes, np.uint64(rows), *at))
        make_features(*grid, (numbers, np.uint64(rows * wide), *at, np.uint32(wide), SCALE, np.int32(bytes_)))
        return codes, numbers

    return fill


def _host_fill(first: int, rows: int, period: int, classes: int, wide: int, bytes_: bool) -> tuple[Array, Array]:
    """What the kernels do, in NumPy."""
    row = (np.arange(first, first + rows, dtype=np.uint64) % np.uint64(period))[:, None]
    column = np.arange(wide, dtype=np.uint64)[None]
    h = _mixed((row * np.uint64(wide) + column + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    pieces = np.stack([(h >> np.uint64(shift)) & np.uint64(0xFFFF) for shift in (0, 16, 32, 48)])
    total = pieces.sum(axis=0).astype(np.int64) - 131070
    codes = _mixed((row[:, 0] + np.uint64(1)) * np.uint64(0xD1B54A32D192ED03)) % np.uint64(classes)
    raised = column == (codes % np.uint64(wide))[:, None]
    if bytes_:
        return codes, np.minimum(255, (total >> 10) + 128 + 37 * raised).astype(np.float32)
    return codes, total.astype(np.float32) * SCALE + raised.astype(np.float32)


def _mixed(h: Array) -> Array:
    with np.errstate(over="ignore"):
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return h ^ (h >> np.uint64(31))
