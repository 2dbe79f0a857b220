"""A drawing as SVG: one file that needs nothing, or a part of a page whose units can be pointed at."""

from __future__ import annotations

import base64
from html import escape

from .notation import Pieces
from .shapes import INK, PAPER, Box, Circle, Drawing, Group, Line, Raster, Shape, Words, png

FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
_DOWN, _UP, _SMALLER = 0.28, -0.4, 0.72  # of the size: where an index stands, and how large it is


def render(drawing: Drawing, *, live: bool = False) -> str:
    """The SVG element.

    Args:
        live: for a page: units can be focused and say what they are; else each says so where the pointer rests.
    """
    w, h = f"{drawing.width:.0f}", f"{drawing.height:.0f}"
    title = escape(drawing.title)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" '
    head += f'font-family="{FONT}" role="group" aria-label="{title}">'
    parts = [head, "" if live else f"<title>{title}</title>", f'<rect width="{w}" height="{h}" fill="{PAPER}"/>']
    parts += [_group(group, live) for group in drawing.groups]
    return "\n".join([*filter(None, parts), "</svg>\n"])


def _group(group: Group, live: bool) -> str:
    shapes = "".join(map(_shape, group.shapes))
    if not group.kind:
        return shapes
    ids = "-".join(map(str, group.key))
    head = f'<g class="{group.kind}" data-key="{ids}"'
    if not group.label:
        return f'{head} aria-hidden="true">{shapes}</g>'
    label = escape(group.label)
    if not live:
        return f"{head}><title>{label}</title>{shapes}</g>"
    return f'{head} id="at-{ids}" tabindex="0" role="button" aria-pressed="false" aria-label="{label}">{shapes}</g>'


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _shape(shape: Shape) -> str:
    match shape:
        case Line(x1, y1, x2, y2, width, colour, dash):
            return (
                f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" '
                f'stroke="{colour}" stroke-width="{_n(width)}"{_dash(dash)}/>'
            )
        case Circle(x, y, r, width):
            at = f'cx="{_n(x)}" cy="{_n(y)}" r="{_n(r)}"'
            return f'<circle {at} fill="{PAPER}" stroke="{INK}" stroke-width="{_n(width)}"/>'
        case Box(x, y, width, height, stroke, fill, line, dash):
            return (
                f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" fill="{fill}" '
                f'stroke="{stroke}" stroke-width="{_n(line)}"{_dash(dash)}/>'
            )
        case Raster(x, y, width, height, pixels):
            data = base64.b64encode(png(pixels)).decode()
            return (
                f'<image x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" '
                f'style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'
            )
        case Words(x, y, pieces, size, anchor, bold, colour):
            weight = ' font-weight="bold"' if bold else ""
            start = "" if anchor == "start" else f' text-anchor="{anchor}"'
            return (
                f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}"{start}{weight} fill="{colour}">'
                f"{_pieces(pieces, size)}</text>"
            )


def _pieces(pieces: Pieces, size: float) -> str:
    found, now = [], 0.0
    for text, place in pieces:
        want = {"on": 0.0, "sub": _DOWN, "sup": _UP}[place] * size
        if place == "on" and want == now:
            found.append(escape(text))
        else:
            small = "" if place == "on" else f' font-size="{_n(size * _SMALLER)}"'
            found.append(f'<tspan dy="{_n(want - now)}"{small}>{escape(text)}</tspan>')
        now = want
    return "".join(found)


def _dash(dash: tuple[float, float] | None) -> str:
    return f' stroke-dasharray="{_n(dash[0])} {_n(dash[1])}"' if dash else ""
