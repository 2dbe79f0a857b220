"""What messages call an array of values, and one row of it: rows of several files keep the file's own numbers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate


class Place:
    """Where values come from.

    Args:
        name: all of them, such as ``data.h5: 'y'``.
        row: the place of one row; by default the name and the number.
    """

    def __init__(self, name: str, row: Callable[[int], str] | None = None) -> None:
        self._name, self._row = name, row

    def __str__(self) -> str:
        return self._name

    def row(self, row: int) -> str:
        """One row, as a person finds it again."""
        return f"{self._name} row {row}" if self._row is None else self._row(row)

    def of_range(self, rows: range) -> Place:
        """The place of those rows alone."""
        return Place(self._name, lambda row: self.row(rows[row]))


def stacked(places: Sequence[Place], counts: Sequence[int]) -> Place:
    """The place of rows that lie below each other, so many of each place."""
    starts = [0, *accumulate(counts)]

    def row(row: int) -> str:
        at = bisect_right(starts, row, 1, len(places)) - 1
        return places[at].row(row - starts[at])

    more = f" and {len(places) - 1} more" if len(places) > 1 else ""
    return Place(f"{places[0]}{more}", row)


def row_of(place: str | Place, row: int) -> str:
    """One row of a place, or of what is only a name."""
    return place.row(row) if isinstance(place, Place) else f"{place} row {row}"
