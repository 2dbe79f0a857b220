"""How pictures look, and how they become text or a file.

Colours are Okabe and Ito's, and none tells anything alone: lines differ in dash and mark as well, so that a print
without colours is read as well. Text stays text in an SVG, in whatever plain letters the reader has.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np

from .. import canvas
from ..errors import UsageError, visible
from ..results import put, refuse_no_folder

KINDS = (".png", ".svg", ".pdf")
BLUE, ORANGE, GREEN, PURPLE, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "0.62"
LINES = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (PURPLE, ":"))
# from a dark blue through grey to a light yellow: a sign is seen by hue, and without colours by its darkness
SIGNED = ("#00203a", "#0072B2", "#b4b4b4", "#f0b83c", "#fff8d6")
# light to dark: the more, the darker
MORE = ("#ffffff", "#cfe3f3", "#7fb5dc", "#0072B2", "#003355")
WIDTH = 4.7  # inches: letters stay legible on a telephone
_POINTS = 800  # of a line
_GROWS = 1.25  # times its own size, in a page

_RC = {
    "svg.fonttype": "none", "svg.hashsalt": "gpubp", "font.family": "sans-serif", "font.size": 9.0,
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"], "axes.titlesize": 10.0,
    "axes.edgecolor": "0.3", "pdf.fonttype": 42, "image.composite_image": False,
}  # fmt: skip


def require() -> None:
    """Refuse to go on without Matplotlib.

    Raises:
        UsageError: it is missing.
    """
    canvas.require("pictures are asked for, and Matplotlib is not installed")


@contextmanager
def styled() -> Iterator[None]:
    """Inside, figures are made and written as they are to look."""
    with import_module("matplotlib").rc_context(_RC), warnings.catch_warnings():
        # letters that our font lacks: text stays text, and the reader's own font may have them
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def name_of(words: str, most: int) -> str:
    """A name that a user gave, as text in a picture: short, and nothing in it is taken for a formula or for hidden."""
    shown = visible(words)
    shown = shown if len(shown) <= most else f"{shown[: most - 1]}…"
    return (" " if shown.startswith("_") else "") + shown.replace("$", r"\$")


def blank(width: float = WIDTH, height: float = 3.2) -> Any:
    """An empty figure, inches wide and high."""
    return canvas.figure(width, height, layout="constrained")


def plot(width: float = WIDTH, height: float = 3.2) -> tuple[Any, Any]:
    """A figure and its one pair of axes."""
    figure = blank(width, height)
    axes = figure.add_subplot()
    plain(axes)
    return figure, axes


def plain(axes: Any) -> None:
    """Thin lines behind the data, and no box around them."""
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def colours(names: Sequence[str]) -> Any:
    """A scale of colours through these."""
    return import_module("matplotlib.colors").LinearSegmentedColormap.from_list("gpubp", list(names))


def svg(figure: Any, name: str) -> str:
    """The figure as an <svg> element to stand in a page: its ids begin with `name`, it has no size of its own."""
    text = StringIO()
    with styled():
        figure.savefig(text, format="svg", dpi=150, transparent=True, bbox_inches="tight", pad_inches=0.04,
                       metadata={"Date": None, "Creator": None, "Format": None, "Type": None})  # fmt: skip
    found = text.getvalue()
    found = found[found.index("<svg") :]
    found = re.sub(r"<metadata>.*?</metadata>", "", found, flags=re.DOTALL)
    # a rule for all elements would be one for the page's
    found = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", found, count=1, flags=re.DOTALL)
    found = re.sub(r'\bid="', f'id="{name}-', found)
    found = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", found)
    head, rest = found.split(">", 1)
    wide = re.search(r'width="([\d.]+)pt"', head)
    head = re.sub(r' (width|height)="[\d.]+pt"', "", head)
    head += f' style="stroke-linejoin:round;max-width:{float(wide[1]) * 4 / 3 * _GROWS:.0f}px"' if wide else ""
    return f'{head} role="img" aria-labelledby="{name}-title"><title id="{name}-title">{{title}}</title>{rest}'


def write(figure: Any, path: Path) -> None:
    """The figure as a file, by the suffix of its name.

    Raises:
        UsageError: another kind of file.
        DataError: it cannot be written.
    """
    check(path)
    kind, drawn = path.suffix.lower(), BytesIO()
    dated = {".png": None, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[kind]
    with styled():
        figure.savefig(drawn, format=kind[1:], dpi=160, metadata=dated, bbox_inches="tight", pad_inches=0.06)
    put(path, drawn.getvalue())


def check(path: Path) -> None:
    """Whether a picture can be made there, to be asked before the work begins.

    Raises:
        UsageError: a file of another kind; Matplotlib is missing.
        DataError: no such folder.
    """
    if path.suffix.lower() not in KINDS:
        raise UsageError(f"a picture named {path.name}", wanted=f"a name that ends in {', '.join(KINDS)}")
    refuse_no_folder(path)
    require()


def thinned(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """A line of few enough points: of each stretch the lowest and the highest one."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) <= _POINTS:
        return x, y
    kept = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), _POINTS // 2):
        kept |= {int(part[y[part].argmin()]), int(part[y[part].argmax()])}
    chosen = sorted(kept)
    return x[chosen], y[chosen]


def spans(values: Any, factor: float = 20.0) -> bool:
    """Whether values, all positive, lie so far apart that a logarithmic axis shows them better."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    return len(values) > 1 and bool(values.min() > 0) and bool(values.max() > factor * values.min())


def logarithmic(axes: Any, values: Any) -> None:
    """A logarithmic y axis with plain numbers on it, also where it spans little."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values) & (values > 0)]
    ticker = import_module("matplotlib.ticker")
    axes.set_yscale("log")
    decades = float(np.log10(values.max() / values.min()))
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.2 else (1.0,), numticks=12))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
