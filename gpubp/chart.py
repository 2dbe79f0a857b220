"""Curves drawn in characters: J in dots, four to a line and two to a column, and the validation cost in signs."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # of a braille cell, by column and row
_BOTH, _VALIDATION = "*", "+"
_AXIS = 10  # columns of the numbers beside the chart
_LOGARITHMIC = 5  # from this ratio of the largest cost to the smallest
NARROWEST = _AXIS + 12  # columns that a chart is worth drawing in


def known(value: Any) -> TypeGuard[float]:
    """Whether it is a number: a history has null for what is not known, and for NaN."""
    return isinstance(value, int | float) and math.isfinite(value)


def chart(rows: Sequence[Mapping[str, Any]], width: int, height: int) -> list[str]:
    """J and the validation cost against iterations: `height` lines of dots, an axis, its numbers and what is what."""
    costs = {name: [(r["iteration"], r[name]) for r in rows if known(r.get(name))] for name in ("J", "validation")}
    values = [value for points in costs.values() for _, value in points]
    columns = width - _AXIS - 2
    if not values:
        return ["J is not finite"]
    low, high = min(values), max(values)
    logarithmic = low > 0 and high > _LOGARITHMIC * low
    scale = math.log10 if logarithmic else float
    bottom, top = scale(low), scale(high)
    if top - bottom <= 1e-12 * max(abs(top), abs(bottom)):
        beside = 0.1 * abs(top) or 0.5
        bottom, top = bottom - beside, top + beside
    first, last = rows[0]["iteration"], rows[-1]["iteration"]

    def level(value: float, steps: int) -> int:
        return round((top - scale(value)) / (top - bottom) * (steps - 1))

    cells = [[0] * columns for _ in range(height)]
    before = None
    for x in range(2 * columns):
        value = _at(costs["J"], first + (last - first) * x / max(1, 2 * columns - 1))
        if value is None:
            continue
        y = level(value, 4 * height)
        for dot in range(min(y, y if before is None else before), max(y, y if before is None else before) + 1):
            cells[dot // 4][x // 2] |= _DOTS[x % 2][dot % 4]
        before = y
    drawn = [[chr(0x2800 + cell) if cell else " " for cell in line] for line in cells]
    if costs["validation"]:
        for x in range(columns):
            value = _at(costs["validation"], first + (last - first) * x / max(1, columns - 1))
            if value is not None:
                y = level(value, height)
                drawn[y][x] = _VALIDATION if drawn[y][x] == " " else _BOTH
    unscaled = (lambda v: 10**v) if logarithmic else float
    marks = {y: unscaled(top - (top - bottom) * y / (height - 1)) for y in {0, height // 2, height - 1}}
    lines = []
    for y, line in enumerate(drawn):
        mark = f"{marks[y]:.4g}" if y in marks else ""
        lines.append(f"{mark:>{_AXIS}} {'┤' if mark else '│'}{''.join(line).rstrip()}")
    lines.append(f"{'':{_AXIS}} └{'─' * columns}")
    signs = f"{_VALIDATION} validation" if costs["validation"] else ""
    words = [f"⠶ J{' (log)' if logarithmic else ''}", signs, f"{_BOTH} both" if signs else ""]
    left, right = f"{first:,}", f"{last:,}"
    middle = columns - len(left) - len(right)
    while len(legend := "  ".join(word for word in words if word)) > middle - 2 and len(words) > 1:
        words.pop()
    lines.append(f"{'':{_AXIS}}  {left}{legend:^{max(0, middle)}}{right if last != first else ''}".rstrip())
    return lines


def _at(points: Sequence[tuple[int, float]], iteration: float) -> float | None:
    """A curve between its points; None outside."""
    if not points or not points[0][0] <= iteration <= points[-1][0]:
        return None
    i = bisect_right(points, iteration, key=lambda point: point[0])
    a, b = points[i - 1], points[min(i, len(points) - 1)]
    part = (iteration - a[0]) / (b[0] - a[0]) if b[0] > a[0] else 0.0
    return a[1] + (b[1] - a[1]) * part
