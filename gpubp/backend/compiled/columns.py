"""Sums over the columns of rows as they are stored, as `gpubp.data.moments` defines them: the same bits, at once.

NumPy takes a number in hand once for each operation; here it is in a register for all of them. Nothing is reordered or
fused: each sum begins with its first term and goes down the rows.
"""

from __future__ import annotations

from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
def deviations(wide, shift, fold, offsets, M2, one, sums):  # type: ignore[no-untyped-def]
    """For each block x̄ − shift and Σ(x − x̄)², per column.

    Args:
        wide: (blocks, lines, fold · columns) as stored, `fold` rows side by side.
        shift: (columns,) float64; two columns or more (NumPy sums a single one in another order).
        offsets, M2: (blocks, columns) float64, to be filled.
        one, sums: (fold · columns,) float64 scratch.
    """
    blocks, lines, width = wide.shape
    columns = len(shift)
    for block in range(blocks):
        x, offset, squares = wide[block], offsets[block], M2[block]
        for j in range(width):
            one[j] = shift[j % columns]  # the shift side by side, as rows are
            sums[j] = x[0, j] - one[j]
        for i in range(1, lines):
            for j in range(width):
                sums[j] += x[i, j] - one[j]
        down(sums, fold, offset)
        for j in range(columns):
            offset[j] /= lines * fold
        for j in range(width):
            deviation = (x[0, j] - one[j]) - offset[j % columns]
            sums[j] = deviation * deviation
        for i in range(1, lines):
            for f in range(fold):
                first = f * columns
                for j in range(columns):
                    deviation = (x[i, first + j] - shift[j]) - offset[j]
                    sums[first + j] += deviation * deviation
        down(sums, fold, squares)


@njit(nogil=True, cache=True, error_model="numpy")
def down(sums, fold, out):  # type: ignore[no-untyped-def]
    """The rows that lay side by side, one after the other."""
    columns = len(out)
    for j in range(columns):
        out[j] = sums[j]
    for f in range(1, fold):
        for j in range(columns):
            out[j] += sums[f * columns + j]
