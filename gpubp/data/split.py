"""Which rows are kept for validation: a property of (seed, row), not of a shuffle.

Row r is a validation row if the hash of (seed, "validation", r) lies below fraction · 2⁶⁴. No permutation is
stored, any rank knows its own rows, a larger fraction keeps the rows of a smaller one, and rows appended to a file
leave the choice for the earlier rows as it was.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..counter_hash import hash_bits
from ..errors import UsageError

_CHUNK = 1 << 20


def validation_mask(m: int, fraction: float, seed: int) -> NDArray[np.bool_] | None:
    """True for the rows that are kept for validation.

    Args:
        m: rows in all.
        fraction: the share that is wanted, 0 ≤ fraction < 1; the share one gets differs by about √(f(1 − f)/m).
        seed: any integer.

    Returns:
        (m,) bool, or None for fraction 0.

    Raises:
        UsageError: the fraction is no share, or m is so small that no row, or every row, would be chosen.
    """
    if not 0 <= fraction < 1:
        raise UsageError(f"a validation share of {fraction}", wanted="0 or more and less than 1, such as 0.1")
    if fraction == 0:
        return None
    limit = np.uint64(int(fraction * 2**64))
    mask = np.empty(m, np.bool_)
    for start in range(0, m, _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, m), dtype=np.uint64)
        np.less(hash_bits(seed, "validation", rows), limit, out=mask[start : start + rows.size])
    if not mask.any() or mask.all():
        chosen = "every row" if mask.any() else "no row"
        raise UsageError(
            f"a validation share of {fraction} chooses {chosen} of {m}",
            wanted="at least one row on each side",
            do="take another share or seed, or keep the validation rows in a group of their own",
        )
    return mask
