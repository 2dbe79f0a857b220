"""How the fused kernel is cut: tiles, strips, warps, rectangles, and the place of everything in shared memory.

Every cut gives the same network; they differ in shared-memory words read per product instruction, in registers and in
how many blocks a multiprocessor holds. `best` weighs all of them. Bits depend on the cut, so it follows from the task
and the limits alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from ...errors import BackendError

WIDEST = 128  # units of a hidden or output layer: wider ones are better served by whole matrix products
_MULTIPROCESSOR_REGISTERS = 65536
_MULTIPROCESSOR_WARPS = 64
_RESERVED = 1024  # bytes of shared memory that every block takes for the system
_MOST_REGISTERS = 255
_OTHER_REGISTERS = 64  # addresses, counters, a formula's own: the most that was seen, so that nothing is spilled
_ENOUGH_WARPS = 8  # on a multiprocessor, to hide the time of shared memory and products
_BARRIER = 60  # clocks that one costs a block, about
_PRODUCT = 1.6  # clocks of a multiprocessor: what mma.sync reaches of a Hopper's tensor cores


@dataclass(frozen=True)
class Layout:
    """What decides shapes: layer sizes, columns per 32-bit word, and bytes per row of what is stored.

    Attributes:
        sizes: s_1 … s_L.
        per_word: columns of an operand in 32 bits: 1, or 2 in bf16.
        split: whether each product is three (tf32x3).
        stored, label, weights: bytes of a row of X, of its labels, and of w and v together (0, 4 or 8).
        targets: numbers of y that are kept of a row.
        keeps_z: whether g′ needs z.
    """

    sizes: tuple[int, ...]
    per_word: int
    split: bool
    stored: int
    label: int
    weights: int
    targets: int
    keeps_z: bool


@dataclass(frozen=True)
class Rectangle:
    """A warp's part of Δ^(l): `down` times 16 rows, `across` times 8 columns."""

    down: int
    across: int


@dataclass(frozen=True)
class Shape:
    """One cut of the work.

    Attributes:
        tile, bands, groups, warps: rows of a tile; 16-row bands of a strip; warps of a strip; warps of a block.
        widths: by Ng's l: units of layer l rounded up to what the products take.
        columns: by Ng's l from 2: how many times 8 columns of layer l a warp computes at a time.
        rectangles: by Ng's l up to L − 1.
        places, shared: bytes from the start of shared memory, by name; bytes in all.
        registers: of a thread, estimated.
        blocks: of a multiprocessor.
        words, products: of a tile: warp-wide 32-bit reads and writes of shared memory, product instructions.
    """

    tile: int
    bands: int
    groups: int
    warps: int
    widths: tuple[int, ...]
    columns: tuple[int, ...]
    rectangles: tuple[Rectangle | None, ...]
    places: dict[str, int]
    shared: int
    registers: int
    blocks: int
    words: int
    products: int

    @property
    def clocks_per_row(self) -> float:
        """What a multiprocessor needs for a row, about: the measure by which shapes are compared."""
        waiting = 2 * len(self.widths) * _BARRIER / self.blocks
        busy = max(self.words, _PRODUCT * self.products)  # a word a clock
        return (busy / min(1.0, self.blocks * self.warps / _ENOUGH_WARPS) + waiting) / self.tile


def best(layout: Layout, shared_limit: int, **only: int) -> Shape:
    """The cut with the fewest clocks per row; `only` fixes its `tile`, `bands` or `warps` (for tests).

    Raises:
        BackendError: no cut fits.
    """
    for l, units in enumerate(layout.sizes[1:], start=2):
        if units > WIDEST:
            raise BackendError(f"layer {l} of {units} units", wanted=f"{WIDEST} or fewer for the fused kernel")
    shapes = list(_shapes(layout, shared_limit, **only))
    fitting = [s for s in shapes if s.shared <= shared_limit]
    if not fitting:
        least = min(s.shared for s in shapes)
        raise BackendError(
            f"{least} bytes of shared memory for layers {layout.sizes}",
            wanted=f"{shared_limit} or fewer for the fused kernel",
        )
    possible = [s for s in fitting if s.registers <= _most_registers(s.warps)]
    if not possible:
        nearest = min(fitting, key=lambda s: s.registers / _most_registers(s.warps))
        raise BackendError(
            f"about {nearest.registers} registers in each of {32 * nearest.warps} threads for layers {layout.sizes}",
            wanted=f"{_most_registers(nearest.warps)} or fewer for the fused kernel",
        )
    return min(possible, key=lambda s: s.clocks_per_row)


def _most_registers(warps: int) -> int:
    return min(_MOST_REGISTERS, _MULTIPROCESSOR_REGISTERS // (32 * warps))


def _shapes(
    layout: Layout, shared_limit: int, tile: int | None = None, bands: int | None = None, warps: int | None = None
) -> Iterator[Shape]:
    """Every cut that can be made, whether it fits or not."""
    choices = product(
        (tile,) if tile else (16, 32, 64, 128), (bands,) if bands else (1, 2), (warps,) if warps else (4, 8, 12, 16),
        (2, 4, 8),
    )  # fmt: skip
    for rows, high, count, most_columns in choices:
        strips, rest = divmod(rows, 16 * high)
        if not rest and strips and count % strips == 0:
            yield _shape(layout, shared_limit, rows, high, count // strips, count, most_columns)


def _shape(
    layout: Layout, shared_limit: int, tile: int, bands: int, groups: int, warps: int, most_columns: int
) -> Shape:
    sizes, L, step = layout.sizes, len(layout.sizes), 8 * layout.per_word
    widths, columns = [0, _up(sizes[0], step)], [0, 0]
    for units in sizes[1:]:
        width, at_once = _columns(units, layout.per_word, groups, most_columns)
        widths.append(width)
        columns.append(at_once)
    halves = [width == 8 for width in widths]
    rectangles: list[Rectangle | None] = [None]
    words = products = 0
    strips, steps = tile // (16 * bands), tile // step
    for l in range(1, L):
        turns = widths[l + 1] // (8 * columns[l + 1]) * strips * (widths[l] // step)  # forward, to layer l + 1
        words += turns * (4 * bands + 2 * columns[l + 1])
        products += turns * bands * columns[l + 1]
        if l > 1:  # backward, to layer l; and a stored, a read, δ stored
            turns = widths[l] // (8 * columns[l]) * strips * (widths[l + 1] // step)
            words += turns * (4 * bands + 2 * columns[l])
            products += turns * bands * columns[l]
            words += 3 * tile * widths[l] // (32 * layout.per_word) + 2 * layout.keeps_z * tile * widths[l] // 32
        rows, across = -(-widths[l + 1] // 16), widths[l] // 8
        rectangle = _rectangle(rows, across, warps, halves[l + 1])
        rectangles.append(rectangle)
        active = rows // rectangle.down * -(-across // rectangle.across)
        words += active * steps * _fragment_words(rectangle, halves[l + 1])
        products += steps * rows * across
    if layout.split:
        products *= 3
    registers = _registers(layout, bands, columns, rectangles)
    places, shared = _places(layout, tile, tile // strips, strips, warps, widths)
    blocks = max(1, min(
        (shared_limit + _RESERVED) // (shared + _RESERVED),
        _MULTIPROCESSOR_REGISTERS // (32 * warps * _up(registers, 8)),
        _MULTIPROCESSOR_WARPS // warps,
    ))  # fmt: skip
    return Shape(
        tile, bands, groups, warps, tuple(widths), tuple(columns), tuple(rectangles), places, shared, registers, blocks,
        words, products,
    )  # fmt: skip


def _columns(units: int, per_word: int, groups: int, most: int) -> tuple[int, int]:
    """The width of a layer, and how many times 8 columns a warp takes at a time: no part turns, little padding.

    A width beyond 8 is a multiple of 16, for the layer is also the rows of a gradient.
    """
    least = 8 if units <= 8 and per_word == 1 else _up(units, 16)
    wanted = min(most, -(-least // (8 * groups)))
    choices = [(_up(least, math.lcm(16 if least > 8 else 8, 8 * n)), -n) for n in range(1, most + 1) if 2 * n > wanted]
    width, at_once = min((c for c in choices if -c[1] <= wanted), key=lambda c: (c[0] * (1 + 0.5 / -c[1]), c[1]))
    return width, -at_once


def _rectangle(rows: int, across: int, warps: int, half: bool) -> Rectangle:
    """The rectangle of which all warps together read the fewest words."""

    def total(r: Rectangle) -> tuple[int, int]:
        active = rows // r.down * -(-across // r.across)
        return active * _fragment_words(r, half), r.down * r.across

    candidates = []
    for down in range(1, rows + 1):
        if rows % down or rows // down > warps:
            continue
        candidates.append(Rectangle(down, -(-across // (warps // (rows // down)))))
    return min(candidates, key=total)


def _fragment_words(r: Rectangle, half: bool) -> int:
    return (2 if half else 4) * r.down + 2 * r.across


def _registers(layout: Layout, bands: int, columns: Sequence[int], rectangles: Sequence[Rectangle | None]) -> int:
    """A thread's sums of the gradient, which live through the kernel, and the largest of what lives for a while."""
    lasting = sum(4 * r.down * r.across + 2 * r.down for r in rectangles if r)
    copies = 3 if layout.split else 1
    passing = max(
        max(4 * bands * n + copies * (4 * bands + 2 * n) for n in columns[2:]),
        max(copies * (4 * r.down + 2 * min(4, r.across)) for r in rectangles if r),
        max(4 * r.across for r in rectangles if r),  # while it is flushed
    )
    return lasting + passing + _OTHER_REGISTERS


def stride(width: int, per_word: int) -> int:
    """Words from one row of an operand to the next: 8k + 4, so that 8 rows meet all banks."""
    return width // per_word + 4


def _places(
    layout: Layout, tile: int, strip: int, strips: int, warps: int, widths: Sequence[int]
) -> tuple[dict[str, int], int]:
    """Where everything lies in shared memory."""
    places: dict[str, int] = {}
    end = 0

    def put(name: str, size: int) -> None:
        nonlocal end
        places[name] = end
        end += _up(size, 16)

    L, sizes = len(layout.sizes), layout.sizes
    # a strip's bytes as stored start anywhere in 16 and are fetched to a multiple of 16
    for name, row in (("x", layout.stored), ("label", layout.label)):
        put(f"staged_{name}", strips * staged(strip, row))
    for name in ("w", "v")[: layout.weights // 4]:
        put(f"staged_{name}", strips * staged(strip, 4))
    put("cost_sums", 16 * warps)
    for l in range(1, L):
        put(f"a{l}", 4 * tile * stride(widths[l], layout.per_word))
        if l > 1 and layout.keeps_z:
            put(f"z{l}", 4 * tile * (widths[l] + 4))
    put("delta", 4 * tile * stride(widths[L], layout.per_word))
    put("scores", 4 * tile * scores_stride(sizes[-1]))
    put("y", 4 * tile * layout.targets)
    put("w", 4 * tile)
    put("v", 4 * tile)
    put("numbers", 4 * sizes[-1])
    for l in range(1, L):
        put(f"W{l}", 4 * widths[l + 1] * stride(widths[l], layout.per_word))
        put(f"b{l}", 4 * widths[l + 1])
    return places, end


def staged(strip: int, row: int) -> int:
    """Bytes in which a strip's rows are staged, wherever in 16 bytes they start."""
    return _up(strip * row, 16) + 16


def scores_stride(K: int) -> int:
    """Odd, so that threads of different rows meet different banks."""
    return K | 1


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
