"""Which row is for what: folds, and parts of the rows that lie one within the other.

Everything is a property of (seed, row): no order is drawn, so rows appended to a file leave the folds of the earlier
ones as they were. A role is 1 for training, −1 for validation, 0 for neither, as `gpubp.prepare.prepare` takes them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..counter_hash import hash_bits
from ..data.split import validation_mask
from ..errors import UsageError

Roles = Callable[[int], NDArray[np.int8]]


def fold_of_rows(m: int, folds: int, seed: int) -> NDArray[np.intp]:
    """The fold, 0 … folds − 1, in which each of m rows is validated: a hash of (seed, row), modulo `folds`.

    Raises:
        UsageError: fewer than 2 folds, or a fold without a row.
    """
    check_folds(folds)
    numbers = (hash_bits(seed, "fold", np.arange(m, dtype=np.uint64)) % np.uint64(folds)).astype(np.intp)
    empty = int(np.argmin(np.bincount(numbers, minlength=folds)))
    if not np.any(numbers == empty):
        raise UsageError(f"{folds} folds of {m} rows, of which fold {empty} has none", do="take fewer folds")
    return numbers


def check_folds(folds: int) -> None:
    """Refuse a number of folds that cannot be meant whatever the rows are.

    Raises:
        UsageError: fewer than 2.
    """
    if folds < 2:
        raise UsageError(f"{folds} folds", wanted="2 or more")


def fold(number: int, folds: int, seed: int) -> Roles:
    """Roles for one fold: its own rows for validation, all others for training."""

    def roles(m: int) -> NDArray[np.int8]:
        return np.where(fold_of_rows(m, folds, seed) == number, -1, 1).astype(np.int8)

    return roles


def training_rows(m: int, validation: float, seed: int) -> NDArray[np.bool_]:
    """Those of m rows that are not held out."""
    held = validation_mask(m, validation, seed)
    return np.ones(m, np.bool_) if held is None else ~held


def part(count: int, validation: float, seed: int, repeat: int) -> Roles:
    """Roles for a learning curve: `count` training rows, the first in an order by a hash of (seed, repeat, row).

    A larger part holds every row of a smaller one, and which rows these are does not depend on what lies in the file
    before or after them.

    Args:
        validation: the fraction held out, the same rows for every part.
        repeat: another order for each.
    """

    def roles(m: int) -> NDArray[np.int8]:
        training = training_rows(m, validation, seed)
        rows = np.flatnonzero(training)
        order = np.argsort(hash_bits(seed, f"part {repeat}", rows.astype(np.uint64)), kind="stable")
        role = np.where(training, 0, -1).astype(np.int8)
        role[rows[order[:count]]] = 1
        return role

    return roles


def sizes(most: int, points: int, least: int) -> tuple[int, ...]:
    """Numbers of rows from `least` to `most`, each about the same factor above the one before.

    Raises:
        UsageError: fewer than 2 points, or too few rows for them.
    """
    if points < 2:
        raise UsageError(f"{points} points", wanted="2 or more")
    if most <= least:
        raise UsageError(f"a learning curve of {most} training rows", wanted=f"more than {least}")
    found = sorted({int(n) for n in np.rint(np.geomspace(least, most, points))})
    return tuple(found)
