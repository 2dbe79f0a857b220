"""The network drawn, with the numbers of one example: SVG by itself; PNG and PDF by Matplotlib.

There is one layout, a list of shapes; what is here puts them on paper.
"""

from __future__ import annotations

import io
import math
from importlib import import_module
from pathlib import Path
from typing import Any

from .. import canvas
from ..errors import UsageError
from ..results import put, refuse_no_folder
from .fold import Fold
from .layout import By, layout
from .notation import Pieces
from .record import Explanation
from .shapes import INK, PAPER, Box, Circle, Drawing, Line, Raster, Shape, Words
from .svg import render

KINDS = (".svg", ".png", ".pdf")
_POINT = 0.75  # points of a pixel: 72 of an inch, 96 of which make one
_SHARP, _MOST = 2.0, 48e6  # pixels of a PNG for one of the layout, and how many it has in all


def svg(e: Explanation, fold: Fold, by: By = "theta") -> str:
    """The drawing as an SVG file's text.

    Raises:
        UsageError: as `layout`.
    """
    return render(layout(e, fold, by))


def save(e: Explanation, fold: Fold, path: str | Path, by: By = "theta") -> None:
    """Draw into a file, which is replaced when the drawing is whole: .svg, .png or .pdf.

    Args:
        by: what makes an edge thick: "theta" |Θ|, "contribution" |Θ·a|.

    Raises:
        UsageError: a file of another kind, Matplotlib is missing, or as `layout`.
        DataError: no such folder, or the file cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise UsageError(f"a drawing named {path.name}", wanted=f"a name that ends in {', '.join(KINDS)}")
    refuse_no_folder(path)
    put(path, svg(e, fold, by).encode() if kind == ".svg" else _printed(layout(e, fold, by), kind[1:]))


def _printed(drawing: Drawing, kind: str) -> bytes:
    canvas.require(f"a .{kind} drawing without Matplotlib", ", or take .svg, which needs nothing")
    matplotlib: Any = import_module("matplotlib")
    w, h = drawing.width, drawing.height
    figure = canvas.figure(w / 96, h / 96, facecolor=PAPER)
    axes: Any = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, w), ylim=(h, 0))
    axes.axis("off")
    for order, shape in enumerate(shape for group in drawing.groups for shape in group.shapes):
        _draw(axes, shape, order)
    sharp = min(_SHARP, math.sqrt(_MOST / (w * h)), 60_000 / max(w, h))
    out = io.BytesIO()
    meta = {"Title": drawing.title} if kind == "png" else {"Title": drawing.title, "CreationDate": None}
    with matplotlib.rc_context({"mathtext.default": "regular", "pdf.fonttype": 42}):
        figure.savefig(out, format=kind, dpi=96 * sharp, metadata=meta)
    return out.getvalue()


def _draw(axes: Any, shape: Shape, order: int) -> None:
    patches: Any = import_module("matplotlib.patches")
    match shape:
        case Line(x1, y1, x2, y2, width, colour, dash):
            # Matplotlib measures dashes in widths of the line
            style = (0, (dash[0] / width, dash[1] / width)) if dash else "-"
            line = import_module("matplotlib.lines").Line2D(
                [x1, x2], [y1, y2], linewidth=width * _POINT, color=colour, linestyle=style, dash_capstyle="butt",
                solid_capstyle="butt", zorder=order,
            )  # fmt: skip
            axes.add_line(line)
        case Circle(x, y, r, width):
            axes.add_patch(patches.Circle((x, y), r, fc=PAPER, ec=INK, lw=width * _POINT, zorder=order))
        case Box(x, y, width, height, stroke, fill, line, dash):
            style = (0, (dash[0] / line, dash[1] / line)) if dash and line else "-"
            axes.add_patch(
                patches.Rectangle(
                    (x, y), width, height, fc=fill, ec=stroke, lw=line * _POINT, linestyle=style, zorder=order
                )
            )
        case Raster(x, y, width, height, pixels):
            grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if pixels.ndim == 2 else {}
            extent = (x, x + width, y + height, y)
            axes.imshow(pixels, extent=extent, interpolation="nearest", aspect="auto", zorder=order, **grey)
            axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
        case Words(x, y, pieces, size, anchor, bold, colour):
            symbol = any(place != "on" for _, place in pieces)
            text = _mathtext(pieces, bold) if symbol else pieces[0].text
            side = {"start": "left", "middle": "center", "end": "right"}[anchor]
            axes.text(
                x, y, text, fontsize=size * _POINT, ha=side, va="baseline", color=colour, zorder=order,
                fontweight="bold" if bold else "normal", parse_math=symbol,
            )  # fmt: skip


def _mathtext(pieces: Pieces, bold: bool) -> str:
    """A symbol for Matplotlib; only our own letters come here, and none of them means anything to it."""
    font = r"\mathbf" if bold else r"\mathregular"
    found = ""
    for text, place in pieces:
        letters = f"{font}{{{text.replace(' ', chr(92) + ' ')}}}"
        # an empty base between them: one index after the other, as in the SVG and on the page
        found += letters if place == "on" else f"{{}}_{{{letters}}}" if place == "sub" else f"{{}}^{{{letters}}}"
    return f"${found}$"
