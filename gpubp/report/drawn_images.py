"""Pictures of rows and of hidden units, where the inputs are the pixels of a picture.

A hidden unit is shown as the course's exercise 4 shows it: its row of Θ^(1) without the bias, laid out as the input is,
scaled by its largest |Θ|. The picture it answers to most is the one with these signs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..pictures import Picture
from .material import Material
from .style import SIGNED, WIDTH, blank, colours, name_of

MOST_UNITS = 100
_MOST_ROWS = 24
_ROW_COLUMNS = 6
_SIDE = 64  # pixels: larger pictures are shown smaller


def has_hidden(m: Material) -> bool:
    """Whether hidden units have pictures."""
    return m.picture is not None and m.run.model.network.L > 2


def hidden(m: Material) -> Any:
    """The rows of Θ^(1) as pictures."""
    assert m.picture is not None
    Theta = m.run.model.matrices[0][:, 1:]
    shown = Theta[:MOST_UNITS]
    columns = int(np.ceil(np.sqrt(len(shown))))
    down = -(-len(shown) // columns)
    figure = blank(WIDTH, 0.5 + (WIDTH - 0.3) * down / columns * m.picture.height / m.picture.width)
    axes = figure.add_subplot()
    tiles = [_shrunk(_signed(m.picture, row), 4 * _SIDE // columns + _SIDE // 2) for row in shown]
    height, width = tiles[0].shape
    gap = max(1, width // 14)
    sheet = np.full((down * (height + gap) - gap, columns * (width + gap) - gap), np.nan)
    for i, tile in enumerate(tiles):
        at = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[at[0] : at[0] + height, at[1] : at[1] + width] = tile
    image = axes.imshow(sheet, cmap=colours(SIGNED), vmin=-1, vmax=1, interpolation="none")
    axes.set_axis_off()
    for i in range(len(tiles)):
        at = (i % columns) * (width + gap), (i // columns) * (height + gap)
        axes.text(at[0] + 0.04 * width, at[1] + 0.05 * height, str(i + 1), fontsize=7 if columns <= 6 else 5, va="top",
                  ha="left", color="black",
                  bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.8})  # fmt: skip
    bar = figure.colorbar(image, ax=axes, orientation="horizontal", fraction=0.035, pad=0.02, shrink=0.6)
    bar.set_ticks([-1, 0, 1], labels=["negative", "0", "positive"])
    bar.ax.tick_params(labelsize=8, length=0)
    bar.outline.set_visible(False)
    return figure


def has_worst(m: Material) -> bool:
    """Whether the worst rows have pictures."""
    return m.picture is not None and bool(m.quality and m.quality.worst)


def worst(m: Material) -> Any:
    """The rows of the largest cost, as pictures."""
    assert m.picture is not None and m.quality and m.judged
    rows = m.quality.worst[:_MOST_ROWS]
    down = -(-len(rows) // _ROW_COLUMNS)
    figure = blank(WIDTH, down * (0.72 * m.picture.height / m.picture.width + 0.44))
    for i, one in enumerate(rows):
        axes = figure.add_subplot(down, _ROW_COLUMNS, i + 1)
        shown = _shrunk(_bright(m.picture, one.x), _SIDE)
        axes.imshow(shown, cmap="gray_r" if shown.ndim == 2 else None, vmin=0, vmax=1, interpolation="none")
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color("0.7")
        sure = "" if one.probability is None else f"\n{100 * one.probability:.0f} %"
        axes.set_title(f"{_short(one.truth)} → {_short(one.answer)}{sure}", fontsize=7.5, pad=2, linespacing=1.0)
        axes.set_xlabel(f"row {m.judged.number(one.row):,}", fontsize=6.5, labelpad=1.5)
    return figure


def _signed(picture: Picture, row: np.ndarray) -> np.ndarray:
    """A row of Θ^(1) in −1 … 1; colours become their mean, by which a unit looks at light and dark."""
    found = picture.pixels(row)
    found = found[:, :, :3].mean(axis=2) if found.ndim == 3 else found
    largest = np.abs(found).max()
    return found / largest if largest else found


def _bright(picture: Picture, row: np.ndarray) -> np.ndarray:
    """A row of X in 0 … 1."""
    found = picture.pixels(row.astype(np.float64))
    if row.dtype == np.uint8:
        return found / 255
    low, high = found.min(), found.max()
    return (found - low) / (high - low) if high > low else np.zeros_like(found)


def _shrunk(pixels: np.ndarray, most: int) -> np.ndarray:
    """Every s-th pixel, so that a side has no more than that many."""
    step = max(1, -(-max(pixels.shape[:2]) // most))
    return pixels[::step, ::step]


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    text = "".join(map(str, value)) if isinstance(value, list) else str(value)
    return name_of(text, 9)
