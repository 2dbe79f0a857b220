"""Where everything of the drawing lies: layers as columns, a fan of edges between them, a legend below.

A column has its bias unit on top, a small square as in the course, then its shown units, then a box for the others.
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import UsageError
from ..pictures import Picture
from .fold import Fold, added
from .notation import Pieces, cost_name, in_pieces, number, plain_pieces, symbol
from .plain import name_of
from .record import Explanation
from .shapes import (
    INK,
    NEGATIVE,
    NEITHER,
    PALE,
    PAPER,
    POSITIVE,
    Box,
    Circle,
    Drawing,
    Group,
    Line,
    Raster,
    Shape,
    Words,
    bytes_of,
    room,
)
from .sums import backward, text_of

By = Literal["theta", "contribution"]

MOST = 20_000  # edges: a drawing of more is neither readable nor small
_R, _R_INPUT, _SQUARE = 45.0, 37.0, 26.0  # radii of units and inputs, the side of a bias unit
_PITCH, _REST = 101.0, (112.0, 44.0)  # from unit to unit; the box of the others
_TEXT, _SMALL, _STEP = 11.5, 11.0, 14.5  # sizes of letters; from line to line in a unit
_MARGIN, _PICTURE = 16.0, 90.0  # the picture stands above the names of the inputs
_DIGITS, _FEWER = 4, 3  # of a number in and beside a unit, and upon an edge
_ALONG = sorted((0.2 + 0.03 * i for i in range(21)), key=lambda t: abs(t - 0.32))  # where a number is tried
_FAN = math.radians(30)  # how far from level an edge leaves a unit


@dataclass(frozen=True)
class _Spot:
    """Where something stands that edges lead to: a circle of radius r, or a box 2 r wide and 2 half high."""

    x: float
    y: float
    r: float
    half: float | None = None

    def towards(self, other: _Spot) -> tuple[float, float]:
        """Where an edge to there leaves it: never so steep that it would cross a neighbour."""
        side = math.copysign(1, other.x - self.x)
        if self.half is not None:
            return self.x + side * self.r, self.y + max(-self.half, min(self.half, 0.1 * (other.y - self.y)))
        angle = max(-_FAN, min(_FAN, math.atan2(other.y - self.y, abs(other.x - self.x))))
        return self.x + side * self.r * math.cos(angle), self.y + self.r * math.sin(angle)


def layout(e: Explanation, fold: Fold, by: By = "theta", *, title: bool = True) -> Drawing:
    """The drawing of an example.

    Args:
        by: what makes an edge thick: "theta" |Θ|, "contribution" |Θ·a|.
        title: whether what it is stands above it; a page has said so already.

    Raises:
        UsageError: another `by`; more edges than can be looked at.
    """
    if by not in ("theta", "contribution"):
        raise UsageError(f"edges by '{by}'", wanted="theta or contribution")
    edges = sum(len(fold.shown[l + 1]) * (1 + len(fold.shown[l])) for l in range(1, e.L))
    if edges > MOST:
        raise UsageError(f"a drawing of {edges:,} edges", wanted=f"{MOST:,} or fewer", do="show fewer units: --top 8")
    return _Layout(e, fold, by).made(title)


class _Layout:
    def __init__(self, e: Explanation, fold: Fold, by: By) -> None:
        self.e, self.fold, self.by = e, fold, by
        self.spots: dict[tuple[int, int | str], _Spot] = {}
        self.taken: list[tuple[float, float, float, float]] = []  # where numbers of edges stand already
        self.drawing = Drawing(
            f"Network {'-'.join(map(str, e.network.sizes))}: {short_example(e.names.example) or 'one example'}"
        )

    def made(self, title: bool) -> Drawing:
        xs = self._columns()
        drawing = self.drawing
        y = self._title() if title else _MARGIN
        top = y + 12
        y = self._heads(xs, top)
        heights = [_PITCH * len(shown) + (_REST[1] + 12) * (self.fold.hidden(l) > 0)
                   for l, shown in self._layers()]  # fmt: skip
        above = _SQUARE + 18  # the bias unit
        tall = max(heights)
        centre = y + above + tall / 2
        for (l, shown), x, height in zip(self._layers(), xs, heights, strict=True):
            self._place(l, shown, x, centre - height / 2)
        for l in range(1, self.e.L):
            self._edges(l)
        for l, shown in self._layers():
            self._column(l, shown)
        if self.e.names.picture:
            self._picture(top)
        drawing.height = self._legend(centre + tall / 2 + 10) + _MARGIN
        return drawing

    def _layers(self) -> list[tuple[int, tuple[int, ...]]]:
        return [(l, self.fold.shown[l]) for l in range(1, self.e.L + 1)]

    def _columns(self) -> list[float]:
        """x of each column, and how wide it all is."""
        e = self.e
        left = max((room(text, size) for j in self.fold.shown[1] for text, size, _ in self._left(j)), default=0.0)
        right = max(room(text, size) for j in self.fold.shown[e.L] for text, size, _ in self._right(j))
        left = max(left + 10 * (left > 0), _PICTURE if e.names.picture else 0)
        x = _MARGIN + left + _REST[0] / 2
        xs = [x]
        for l in range(1, e.L):
            rows = max(len(self.fold.shown[l]), len(self.fold.shown[l + 1]))
            xs.append(xs[-1] + min(236.0, 196.0 + 8.0 * max(0, rows - 3)))
        wide = xs[-1] + max(_R + 10 + right, _REST[0] / 2, 70) + _MARGIN
        self.drawing.width = max(wide, 600.0)
        return [x + (self.drawing.width - wide) / 2 for x in xs]

    # --- words --------------------------------------------------------------------------------------------------------

    def _title(self) -> float:
        e, names = self.e, self.e.names
        network = "-".join(map(str, e.network.sizes))
        hidden = f", {e.network.activation}" * (e.L > 2)
        lines = [f"{network}{hidden}, {e.network.cost}" + (f": {names.network}" * bool(names.network))]
        said = [short_example(names.example)] * bool(names.example)
        said += [f"{what} {name}" for what, name in (("wanted", names.truth), ("answer", names.answer)) if name]
        lines.append("; ".join([*said, f"{cost_name(e)} = {number(e.C)}"]))
        y = _MARGIN
        for i, line in enumerate(lines):
            size = 14 if i == 0 else 12.5
            for part in textwrap.wrap(line, int((self.drawing.width - 2 * _MARGIN) / (0.62 * size))):
                y += size + 4
                self._add(Words(_MARGIN, y, plain_pieces(part), size, "start", bold=i == 0))
        return y

    def _heads(self, xs: list[float], y: float) -> float:
        e = self.e
        for l, x in enumerate(xs, start=1):
            name = "input" if l == 1 else "output" if l == e.L else f"layer {l}"
            kind, size = "unit" if 1 < l < e.L else name, e.network.sizes[l - 1]
            what = f"{size:,} {kind}{'s' * (size != 1)}" + f", {e.network.activation}" * (1 < l < e.L)
            self._add(Words(x, y + 14, in_pieces(f"{name} a^({l})"), 14, bold=True))
            self._add(Words(x, y + 31, plain_pieces(what), _SMALL, colour=PALE))
            if l < e.L:
                self._add(Words((x + xs[l]) / 2, y + 14, in_pieces(f"Θ^({l})"), 14, colour=PALE))
        return y + 40

    def _left(self, j: int) -> list[tuple[str, float, bool]]:
        """What stands beside an input: its name, and x where scaling changed it."""
        e = self.e
        name = _short(input_name(e, j))
        x = float(e.x[j - 1])
        changed = not math.isclose(x, float(e.a[1][j - 1]), rel_tol=1e-6)
        return [(name, _TEXT, True)] * bool(name) + [(f"x = {number(x, _DIGITS)}", _SMALL, False)] * changed

    def _right(self, j: int) -> list[tuple[str, float, bool]]:
        """What stands beside an output: its name, what is wanted of it, and whether it is the answer."""
        e = self.e
        name, y = _short(name_of(e, e.L, j)), float(e.y[j - 1])
        found = [(name, 13.0, True)] * bool(name) + [(f"y = {number(y, _DIGITS)}", _TEXT, False)]
        chosen = e.network.K > 1 and e.network.J.takes == "distribution" and j == int(e.a[e.L].argmax()) + 1
        return found + [("the answer", _SMALL, False)] * chosen

    def _legend(self, y: float) -> float:
        value = "Θ" if self.by == "theta" else "Θ·a"
        items: list[tuple[str, str]] = [
            (f"{value} > 0", POSITIVE), (f"{value} < 0", NEGATIVE),
            (f"thick: large |{value}| for its layer", ""), ("bias unit", "square"),
            (f"unit: z, a = g(z), δ = ∂{cost_name(self.e)}/∂z", "circle"),
        ]  # fmt: skip
        x, y = _MARGIN, y + 16
        for text, mark in items:
            indent = 42 if mark in (POSITIVE, NEGATIVE) else 21 if mark else 0
            wide = indent + room(text, _SMALL) * 0.9
            if x > _MARGIN and x + wide > self.drawing.width - _MARGIN:
                x, y = _MARGIN, y + 20
            shapes: list[Shape] = []
            if mark in (POSITIVE, NEGATIVE):
                shapes.append(_line(x, y - 4, x + 34, y - 4, 3.0, 1 if mark == POSITIVE else -1))
            elif mark == "square":
                shapes.append(Box(x + 1, y - 11, 14, 14))
            elif mark == "circle":
                shapes.append(Circle(x + 8, y - 4, 8))
            shapes.append(Words(x + indent, y, plain_pieces(text), _SMALL, "start"))
            self._add(*shapes)
            x += wide + 18
        return y

    # --- units --------------------------------------------------------------------------------------------------------

    def _place(self, l: int, shown: tuple[int, ...], x: float, y: float) -> None:
        if l < self.e.L:
            self.spots[l, 0] = _Spot(x, y - 8 - _SQUARE / 2, _SQUARE / 2, _SQUARE / 2)
        for i, j in enumerate(shown):
            self.spots[l, j] = _Spot(x, y + _PITCH * (i + 0.5), _R_INPUT if l == 1 else _R)
        if self.fold.hidden(l):
            self.spots[l, "rest"] = _Spot(x, y + _PITCH * len(shown) + 6 + _REST[1] / 2, _REST[0] / 2, _REST[1] / 2)

    def _column(self, l: int, shown: tuple[int, ...]) -> None:
        e = self.e
        if l < e.L:
            spot = self.spots[l, 0]
            box = Box(spot.x - spot.r, spot.y - spot.r, _SQUARE, _SQUARE)
            one = Words(spot.x, spot.y + 4, plain_pieces("1"), _TEXT)
            self._add(box, one, kind="bias", key=(l, 0), label=f"bias unit of layer {l}: always 1")
        for j in shown:
            self._unit(l, j)
        if hidden := self.fold.hidden(l):
            spot, (width, height) = self.spots[l, "rest"], _REST
            hide = [j for j in range(e.network.sizes[l - 1]) if j + 1 not in set(shown)]
            letter, values = ("a", e.a[l]) if l == 1 else ("δ", e.delta[l])
            total = f"Σ|{letter}| = {number(float(np.abs(values[hide]).sum()), _DIGITS)}"
            self._add(
                Box(spot.x - width / 2, spot.y - height / 2, width, height, NEITHER, "#f6f6f6", 1.0, (4, 3)),
                Words(spot.x, spot.y - 3, plain_pieces(f"⋮ {hidden:,} more"), _TEXT),
                Words(spot.x, spot.y + 13, plain_pieces(total), _SMALL, colour=PALE),
                kind="rest", key=(l, "rest"), label=f"{hidden:,} more units of layer {l}, {total}",
            )  # fmt: skip

    def _unit(self, l: int, j: int) -> None:
        e, spot = self.e, self.spots[l, j]
        values = [("a", e.a[l])] if l == 1 else [("z", e.z[l]), ("a", e.a[l]), ("δ", e.delta[l])]
        shapes: list[Shape] = [Circle(spot.x, spot.y, spot.r, 2.6 if l == e.L and self._wanted(j) else 1.4)]
        lines: list[tuple[Pieces, bool]] = [(in_pieces(symbol("a", j, l)), True)]
        texts = [f"{letter} {number(float(column[j - 1]), _DIGITS)}" for letter, column in values]
        lines += [(plain_pieces(text), False) for text in texts]
        step, y = _STEP, spot.y - _STEP * (len(lines) - 1) / 2 + 4
        for pieces, bold in lines:
            far = abs(y - 4 - spot.y) + 4
            chord = 2 * math.sqrt(max(spot.r**2 - far**2, 1)) - 3
            size = min(_TEXT, _TEXT * chord / room(pieces, _TEXT))
            shapes.append(Words(spot.x, y, pieces, round(size, 2), bold=bold, colour=PALE if bold else INK))
            y += step
        if l == 1:
            shapes += _beside(spot.x - spot.r - 8, spot.y, self._left(j), "end")
        if l == e.L:
            shapes += _beside(spot.x + spot.r + 8, spot.y, self._right(j), "start")
        self._add(*shapes, kind="unit", key=(l, j), label=_said(e, self.fold, l, j))

    def _wanted(self, j: int) -> bool:
        return self.e.network.J.takes != "numbers" and self.e.y[j - 1] > 0.5

    def _picture(self, y: float) -> None:
        picture = self.e.names.picture
        assert picture is not None
        pixels = bytes_of(picture.pixels(self.e.x))
        scale = _PICTURE / max(picture.height, picture.width)
        width, height = picture.width * scale, picture.height * scale
        x = _MARGIN
        marks: list[Shape] = []
        for j in self.fold.shown[1]:
            row, column = _pixel(picture, j)
            side = max(scale, 4.0)
            at = x + (column - 0.5) * scale - side / 2, y + (row - 0.5) * scale - side / 2
            marks.append(Box(*at, side, side, "#E69F00", "none", 1.6))
        raster = Raster(x, y, width, height, pixels)
        frame = Box(x, y, width, height, NEITHER, "none", 1.0)
        words = Words(x + width / 2, y + height + 15, plain_pieces("x, shown marked"), _SMALL, colour=PALE)
        self._add(raster, frame, *marks, words)

    # --- edges --------------------------------------------------------------------------------------------------------

    def _edges(self, l: int) -> None:
        """Those of Θ^(l), the thickest last; to and from the boxes of the others, what they bring together."""
        e, fold = self.e, self.fold
        values: dict[tuple[int | str, int | str], float] = {}
        for to in fold.shown[l + 1]:
            row = e.Theta[l][to - 1]
            for i in (0, *fold.shown[l]):
                a = 1.0 if i == 0 else float(e.a[l][i - 1])
                values[to, i] = float(row[i]) * (a if self.by == "contribution" else 1.0)
            if fold.hidden(l):
                rest = added(fold.split(e.forward_sum(l + 1, to))[1])
                values[to, "rest"] = rest if self.by == "contribution" else math.nan
        if fold.hidden(l + 1) and l > 1:
            values |= {("rest", i): math.nan for i in fold.shown[l]}
        most = max((abs(v) for v in values.values() if v == v), default=0.0) or 1.0
        thick = 5.4 if len(values) <= 30 else 3.4
        labelled = len(values) <= 12
        numbers: list[Group] = []
        for (to, i), v in sorted(values.items(), key=lambda one: (one[1] == one[1], abs(one[1]))):
            start, end = self.spots[l, i], self.spots[l + 1, to]
            points = *start.towards(end), *end.towards(start)
            line = _line(*points, 0.6 + thick * abs(v) / most, v) if v == v else Line(*points, 0.9, "#b5b5b5", (1.5, 3))
            self._add(line, kind="edge", key=(l, to, i))
            if labelled:
                numbers += [Group(text, "number", (l, to, i))] if (text := self._number(points, v)) else []
        self.drawing.groups += numbers

    def _number(self, points: tuple[float, float, float, float], v: float) -> tuple[Shape, ...]:
        """The number of an edge upon it; none where it would cover another one or a unit."""
        x1, y1, x2, y2 = points
        half, tall = room(text := number(v, _FEWER), _SMALL) / 2 + 2, 14.0
        for t in _ALONG:
            x, y = x1 + t * (x2 - x1), y1 + t * (y2 - y1)
            box = (x - half, y - tall / 2, x + half, y + tall / 2)
            if self._free(box):
                self.taken.append(box)
                paper = Box(box[0], box[1], 2 * half, tall, "none", PAPER, 0.0)
                return paper, Words(x, y + 4, plain_pieces(text), _SMALL)
        return ()

    def _free(self, box: tuple[float, float, float, float]) -> bool:
        left, top, right, bottom = box
        for l, t, r, b in self.taken:
            if left < r + 4 and l < right + 4 and top < b + 2 and t < bottom + 2:
                return False
        for spot in self.spots.values():
            near = max(left, min(spot.x, right)), max(top, min(spot.y, bottom))
            if math.dist(near, (spot.x, spot.y)) < spot.r + 2:
                return False
        return True

    def _add(self, *shapes: Shape, kind: str = "", key: tuple[Any, ...] = (), label: str = "") -> None:
        self.drawing.groups.append(Group(shapes, kind, key, label))


def _line(x1: float, y1: float, x2: float, y2: float, width: float, sign: float) -> Line:
    colour = POSITIVE if sign > 0 else NEGATIVE if sign < 0 else NEITHER
    return Line(x1, y1, x2, y2, width, colour, (4 + 1.5 * width, 2 + width) if sign < 0 else None)


def _beside(x: float, y: float, lines: list[tuple[str, float, bool]], anchor: Literal["start", "end"]) -> list[Shape]:
    top = y + 4 - 15 * (len(lines) - 1) / 2
    return [Words(x, top + 15 * i, plain_pieces(text), size, anchor, bold=bold)
            for i, (text, size, bold) in enumerate(lines)]  # fmt: skip


def _short(name: str) -> str:
    name = "".join(c if c.isprintable() else " " for c in name)
    return name if len(name) <= 18 else f"{name[:17]}…"


def short_example(example: str) -> str:
    """Row 7 of a file, without the folders that the file is in."""
    row, of, path = example.partition(" of ")
    return f"{row}{of}{Path(path).name}" if row.startswith("row ") else example


def input_name(e: Explanation, j: int) -> str:
    """What an input is: its name, or where it is in the picture; "" if neither is known."""
    name, picture = name_of(e, 1, j), e.names.picture
    return name if name or picture is None else "pixel {}, {}".format(*_pixel(picture, j))


def _pixel(picture: Picture, j: int) -> tuple[int, int]:
    """Row and column of an input, from 1."""
    row, column = np.argwhere(picture.pixels(np.arange(1, picture.features + 1)) == j)[0][:2]
    return int(row) + 1, int(column) + 1


def _said(e: Explanation, fold: Fold, l: int, j: int) -> str:
    """A unit for those who listen: its numbers, and how δ comes about."""
    name = input_name(e, j) if l == 1 else name_of(e, l, j)
    parts = [f"unit {j} of layer {l}" + f", {name}" * bool(name)]
    parts += [f"z = {number(float(e.z[l][j - 1]))}"] if l > 1 else []
    parts.append(f"a = {number(float(e.a[l][j - 1]))}")
    if l > 1:
        delta = backward(e, l, j, fold.split)[0]
        parts.append(f"{delta.name} = {', = '.join(map(text_of, delta.sides))}")
    return "; ".join(parts)
