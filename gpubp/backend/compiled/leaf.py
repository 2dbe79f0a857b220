"""One leaf of the sum over rows: `gpubp.backprop`, block after block, in one call without Python's lock.

The lines are `backprop`'s, with three differences that cost nothing in truth and save passes over memory: a bias is
added where the activation is computed, a bias's gradient is summed where δ is, and matrix products accumulate in the
leaf's Δ.

Everything elementwise is a kernel that `source` wrote and `build` compiled, called by its address; so is the BLAS. That
keeps this loop the same for all networks: it is compiled once for float32 and once for float64. Addresses are int64, as
numba keeps no compiled code on disk that holds a pointer of this process.
"""

from __future__ import annotations

from numba import njit

from .fetch import fetch
from .intrinsics import call, cblas_gemm, read

# The columns of `layers`, one row for each Θ^(l): its shape; how often a bias is repeated; where W^(l) and b^(l) begin
# in Θ and Δ; where z^(l+1), a^(l+1), δ^(l+1), the repeated b^(l) and its gradient begin in the scratch memory.
INPUTS, OUTPUTS, TILE, WEIGHTS, BIAS, Z, A, DELTA, BIAS_TILED, SUMS = range(10)
# The entries of `places` (in the scratch memory): x, y and the weights of a block's rows; what `output` wants besides.
X, Y, W, V, TERMS = range(5)
# The entries of `data`: addresses and bytes per row of the rows and labels as stored; μ and σ, or 0; the outputs'
# numbers (tiled), or 0 where labels are y itself; the rows' weights and their weights in the validation cost, or 0.
# How many rows, the first ones, are in memory; for the others a place for one block, the table of where they lie in
# files, and its length; how far ahead the system is told what will be read; the row behind those read last.
ROWS, ROW_BYTES, LABELS, LABEL_BYTES, MEAN, SCALE, NUMBERS, WEIGHT, HELD = range(9)
KEPT, STAGING, FILES, PARTS, STEP, DEPTH, NEXT = range(9, 16)
# The entries of `code`: addresses of the kernels (LOAD_X is 0 where rows are used as stored) and of the BLAS; whether
# its integers have 64 bits; see `fetch.addresses`.
LOAD_X, LOAD_Y, G, SLOPE, OUTPUT, GEMM, WIDE, PREAD, ADVISE, ERRNO = range(10)


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def run(layers, places, data, code, Theta, Delta, scratch, sums, cost, start, stop, blocks, keep, with_gradient):  # type: ignore[no-untyped-def]
    """Rows start … stop − 1 in so many blocks; 0, or 1 + the number of the block that could not be read.

    Args:
        layers, places, data, code: see above; `data`'s addresses are those of row 0.
        Theta, Delta: flat, (P,), of the pass. Δ is set, or added to where `keep`.
        scratch: of the pass, as the layout says.
        sums: (2, at least the longest tiled row, and outputs × 3) float64 scratch for the cost's cells.
        cost: (2,) float64; Σ w·cost and Σ v·cost are added to it.
    """
    size = Theta.itemsize
    at_Theta, at_Delta, at = Theta.ctypes.data, Delta.ctypes.data, scratch.ctypes.data
    one, zero = Theta.dtype.type(1), Theta.dtype.type(0)
    last = len(layers) - 1
    n, K = layers[0, INPUTS], layers[last, OUTPUTS]
    y, w, v = at + places[Y] * size, at + places[W] * size, at + places[V] * size
    for l in range(last + 1):
        outputs, bias, tiled = layers[l, OUTPUTS], layers[l, BIAS], layers[l, BIAS_TILED]
        for i in range(layers[l, TILE] * outputs):
            scratch[tiled + i] = Theta[bias + i % outputs]
    for q in range(blocks):
        first = start + (stop - start) * q // blocks
        rows = start + (stop - start) * (q + 1) // blocks - first
        x, labels = data[ROWS] + first * data[ROW_BYTES], data[LABELS] + first * data[LABEL_BYTES]
        if first + rows > data[KEPT]:
            x = data[STAGING]
            there = fetch(
                data[FILES], data[PARTS], data[STEP], data[DEPTH], first != data[NEXT], data[ROW_BYTES],
                first, first + rows, x, code[PREAD], code[ADVISE], code[ERRNO],
            )  # fmt: skip
            data[NEXT] = first + rows
            if not there:
                return q + 1
        if code[LOAD_X]:
            stored, x = x, at + places[X] * size
            call(code[LOAD_X], (rows, n, 1 if data[MEAN] else rows, stored, data[MEAN], data[SCALE], x))
        if data[NUMBERS]:
            call(code[LOAD_Y], (rows, K, layers[last, TILE], labels, data[NUMBERS], y))
        else:
            call(code[LOAD_Y], (rows, K, rows, labels, 0, 0, y))
        if data[WEIGHT]:
            spread(data[WEIGHT] + first * size, scratch, places[W], rows, K)
        if data[HELD]:
            spread(data[HELD] + first * size, scratch, places[V], rows, K)

        # forward: z^(l+1) = W^(l) a^(l), and a^(l+1) = g(z^(l+1) + b^(l))
        a = x
        for l in range(last + 1):
            layer = layers[l]
            z = at + layer[Z] * size
            cblas_gemm(
                code[GEMM], code[WIDE], 0, 1, rows, layer[OUTPUTS], layer[INPUTS],
                one, a, layer[INPUTS], at_Theta + layer[WEIGHTS] * size, layer[INPUTS], zero, z, layer[OUTPUTS],
            )  # fmt: skip
            if l < last:
                a = at + layer[A] * size
                call(code[G], (rows, layer[OUTPUTS], layer[TILE], z, at + layer[BIAS_TILED] * size, a))

        # the cost and δ^(L); then δ from right to left, and Δ
        for l in range(last, -1, -1):
            layer = layers[l]
            tile, outputs, inputs = layer[TILE], layer[OUTPUTS], layer[INPUTS]
            delta, tiled, width = at + layer[DELTA] * size, layer[SUMS], layer[TILE] * layer[OUTPUTS]
            scratch[tiled : tiled + width] = zero
            if l == last:
                sums[:2, :width] = 0.0
                call(
                    code[OUTPUT],
                    (rows, outputs, tile, delta, at + layer[BIAS_TILED] * size, y, w, v, at + tiled * size,
                     sums[0].ctypes.data, sums[1].ctypes.data, sums[2].ctypes.data, at + places[TERMS] * size),
                )  # fmt: skip
                for i in range(width):
                    cost[0] += sums[0, i]
                    cost[1] += sums[1, i]
                if not with_gradient:
                    break
            else:
                z, a, bias = at + layer[Z] * size, at + layer[A] * size, at + layer[BIAS_TILED] * size
                above = layers[l + 1]
                cblas_gemm(
                    code[GEMM], code[WIDE], 0, 0, rows, outputs, above[OUTPUTS],
                    one, at + above[DELTA] * size, above[OUTPUTS], at_Theta + above[WEIGHTS] * size, outputs,
                    zero, delta, outputs,
                )  # fmt: skip
                call(code[SLOPE], (rows, outputs, tile, delta, a, z, bias, at + tiled * size))
            for i in range(outputs):
                total = zero
                for k in range(i, width, outputs):
                    total += scratch[tiled + k]
                bias = layer[BIAS] + i
                Delta[bias] = Delta[bias] + total if keep or q else total
            a = x if l == 0 else at + layers[l - 1, A] * size
            cblas_gemm(
                code[GEMM], code[WIDE], 1, 0, outputs, inputs, rows,
                one, delta, outputs, a, inputs, one if keep or q else zero, at_Delta + layer[WEIGHTS] * size, inputs,
            )  # fmt: skip
    return 0


@njit(nogil=True, cache=True, error_model="numpy")
def spread(address, scratch, place, rows, columns):  # type: ignore[no-untyped-def]
    """A (rows, 1) column repeated to (rows, columns) in the scratch memory."""
    for i in range(rows):
        value = read(address + i * scratch.itemsize, scratch[0])
        for j in range(columns):
            scratch[place + i * columns + j] = value
