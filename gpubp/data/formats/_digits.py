"""Decimal numbers in text to arrays, many at once, each rounded as `float` rounds it.

A number such as −12.375 is the whole number 12375, gathered digit by digit for all cells at a time, over a power of
ten. Where both are exact as floats (below 2^53, up to 10^22) IEEE division rounds once, so the quotient is the nearest
float to the decimal: Clinger, "How to read floating point numbers accurately", PLDI 1990. With the 64-bit mantissas of
x86's long doubles the same goes for up to 18 digits, but for quotients so near the middle between two floats that
rounding twice could matter. What does not fit is given to `float` cell by cell.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Positions = NDArray[np.int64]

_TENS = 10 ** np.arange(19, dtype=np.int64)
_EXACT_TENS = np.array([float(10**k) for k in range(23)])
_EXACT = 1 << 53
_LONG = np.finfo(np.longdouble).nmant == 63
_LONG_TENS = np.array([np.longdouble(10) ** k for k in range(19)])
_WHOLE = re.compile(rb"[ \t]*[-+]?\d{1,40}[ \t]*")
_FLOAT = re.compile(rb"[ \t]*[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|inf(?:inity)?)[ \t]*", re.IGNORECASE)
_ZERO, _DOT, _MINUS = np.uint8(ord("0")), np.uint8(ord(".")), np.uint8(ord("-"))
_DIGITS = 18  # an int64 holds them


class Beyond(Exception):
    """A number in digits that float64 does not reach: who reads line by line says where it is."""


@dataclass(frozen=True)
class Marks:
    """Where the bytes of a piece of text are that are no digits.

    Attributes:
        text: the bytes.
        digits: the bytes less "0": digits are 0 to 9, all else is more.
        ends: where cells end: the places of the separators.
        starts: where cells begin.
        dots: the places of dots.
        minus: whether a cell may begin with a minus.
        odd: the places of all that is neither digit, dot, separator nor minus at the start.
    """

    text: Bytes
    digits: Bytes
    ends: Positions
    starts: Positions
    dots: Positions
    minus: bool
    odd: Positions

    @property
    def has_controls(self) -> bool:
        """Whether there are control characters but tabs: some count as blanks for some readers."""
        signs = self.text[self.odd]
        return bool(((signs < 32) & (signs != 9)).any())


def marks(text: Bytes, separators: bytes) -> Marks:
    """Look at a piece of text whose last byte is a separator."""
    digits = text - _ZERO
    rest = digits > 9
    separating = text == separators[0]
    for other in separators[1:]:
        separating |= text == other
    ends = np.flatnonzero(separating)
    starts = np.empty_like(ends)
    starts[:1], starts[1:] = 0, ends[:-1]
    starts[1:] += 1
    rest ^= separating
    dotted = text == _DOT
    dots = np.flatnonzero(dotted)
    rest ^= dotted
    odd = np.flatnonzero(rest)
    minus = False
    if odd.size:
        leading = text[odd] == _MINUS
        leading &= (odd == 0) | separating[odd - 1]
        minus = bool(leading.any())
        odd = odd[~leading] if minus else odd
    return Marks(text, digits, ends, starts, dots, minus, odd)


def numbers(
    found: Marks, starts: Positions, ends: Positions, whole: bool, gaps: frozenset[str] | None
) -> NDArray[Any] | None:
    """The numbers of some cells of a piece.

    Args:
        found: the piece.
        starts, ends: of the cells.
        whole: integers are wanted; else floats.
        gaps: what stands for a missing value, in lower case, and becomes NaN; None: nothing does.

    Returns:
        int16, int32 or int64, or float64; None if a cell is not such a number, or not a finite or infinite one.

    Raises:
        Beyond: a float is too large.
    """
    dots, strange = _dots(found, starts, ends)
    if whole and dots is not None:
        return None
    negative = found.text[starts] == _MINUS if found.minus else np.zeros(1, bool)
    first = starts + negative if found.minus else starts
    if dots is None:
        lengths = ends - first
        strange |= lengths < 1
        decimals = None
    else:
        lengths = dots - first
        decimals = ends - dots
        decimals -= 1
        np.maximum(decimals, 0, out=decimals)
        strange |= (lengths < 0) | (lengths + decimals < 1)
    if found.odd.size:
        after = np.searchsorted(found.odd, ends)
        strange |= after > np.searchsorted(found.odd, starts)
    digits = lengths if decimals is None else lengths + decimals
    strange |= digits > _DIGITS
    if strange.any():
        lengths = np.where(strange, 0, lengths)
        decimals = None if decimals is None else np.where(strange, 0, decimals)
    values = _whole(found.digits, ends if dots is None else dots, lengths)
    if whole:
        if found.minus:
            np.negative(values, out=values, where=negative)
        return _by_hand_whole(found.text, starts, ends, strange, values)
    if decimals is None:
        mantissas, decimals = values.astype(np.int64, copy=False), np.zeros_like(ends)
    else:
        mantissas = values * _TENS[decimals] + _whole(found.digits, ends, decimals)
    floats = mantissas.astype(np.float64)
    floats /= _EXACT_TENS[decimals]
    if int(mantissas.max(initial=0)) >= _EXACT:
        strange |= _long(mantissas, decimals, floats)
    if found.minus:
        np.negative(floats, out=floats, where=negative)
    return _by_hand(found.text, starts, ends, strange, floats, gaps)


def _dots(found: Marks, starts: Positions, ends: Positions) -> tuple[Positions | None, NDArray[np.bool_]]:
    """Where the dot of each cell is, or its end if it has none; None if none has one. And which cells have several."""
    dots = found.dots
    if dots.size == ends.size and bool(((starts <= dots) & (dots < ends)).all()):
        return dots, np.zeros(ends.size, bool)
    if not dots.size:
        return None, np.zeros(ends.size, bool)
    first = np.searchsorted(dots, starts)
    count = np.searchsorted(dots, ends) - first
    if not count.any():
        return None, np.zeros(ends.size, bool)
    return np.where(count > 0, dots[np.minimum(first, dots.size - 1)], ends), count > 1


def _whole(digits: Bytes, ends: Positions, lengths: Positions) -> NDArray[Any]:
    """The whole numbers of so many digits before each end."""
    longest = int(lengths.max(initial=0))
    dtype = np.int16 if longest <= 4 else np.int32 if longest <= 9 else np.int64
    short = lengths.astype(np.int8)  # at most 18
    at = ends - 1
    out = np.zeros(ends.size, dtype)
    for place in range(longest):
        digit = digits[at]
        digit *= short > place
        out += digit * dtype(10**place)
        at -= 1
    return out


def _long(mantissas: Positions, decimals: Positions, floats: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Put the quotients of mantissas beyond 2^53 right; which cells have to be done by hand."""
    large = mantissas >= _EXACT
    if not _LONG:
        return large
    at = np.flatnonzero(large)
    quotients = mantissas[at].astype(np.longdouble) / _LONG_TENS[decimals[at]]
    low = quotients.view(np.uint64).reshape(-1, 2)[:, 0] & 0x7FF  # the bits that a float drops: 0x400 is the middle
    floats[at] = quotients.astype(np.float64)
    by_hand = np.zeros(mantissas.size, bool)
    by_hand[at[(low >= 0x3FF) & (low <= 0x401)]] = True
    return by_hand


def is_beyond(cell: str) -> bool:
    """Whether a cell is a number, written in digits, that float64 does not reach: ``1e400``."""
    return math.isinf(float(cell)) and "inf" not in cell.lower()


def _by_hand_whole(
    text: Bytes, starts: Positions, ends: Positions, strange: NDArray[np.bool_], values: NDArray[Any]
) -> NDArray[Any] | None:
    if not strange.any():
        return values
    values = values.astype(np.int64)
    for at in np.flatnonzero(strange):
        cell = text[starts[at] : ends[at]].tobytes()
        if not _WHOLE.fullmatch(cell) or not -(1 << 63) <= (value := int(cell)) < 1 << 63:
            return None
        values[at] = value
    return values


def _by_hand(
    signs: Bytes,
    starts: Positions,
    ends: Positions,
    strange: NDArray[np.bool_],
    floats: NDArray[np.float64],
    gaps: frozenset[str] | None,
) -> NDArray[np.float64] | None:
    """Cells with exponents, many digits, infinity or nothing in them."""
    for at in np.flatnonzero(strange):
        cell = signs[starts[at] : ends[at]].tobytes()
        if gaps is not None and cell.decode("latin-1").strip().lower() in gaps:
            floats[at] = np.nan
            continue
        if not _FLOAT.fullmatch(cell):
            return None
        if is_beyond(text := cell.decode()):
            raise Beyond
        floats[at] = float(text)
    return floats


def texts(found: Marks, starts: Positions, ends: Positions, longest: int = 256) -> NDArray[Any] | None:
    """The text of some cells, without blanks around it; None where one is long, or not in UTF-8."""
    lengths = ends - starts
    width = max(1, int(lengths.max(initial=0)))
    if width > longest:
        return None
    steps = np.arange(width)
    at = np.minimum(starts[:, None] + steps, found.text.size - 1)
    signs = np.where(steps < lengths[:, None], found.text[at], np.uint8(0))
    distinct, where = np.unique(np.ascontiguousarray(signs).view(f"S{width}").reshape(-1), return_inverse=True)
    try:
        words = np.char.strip(np.char.decode(distinct, "utf-8"))
    except UnicodeDecodeError:
        return None
    return words[where.reshape(-1)]
