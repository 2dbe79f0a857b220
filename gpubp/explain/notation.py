"""Ng's symbols and numbers as people read them, for the drawing and the page.

A symbol is a row of pieces, each on the line, below or above it, so that every medium sets it in its own way.
"""

from __future__ import annotations

import html
from typing import Literal, NamedTuple

from .record import Edge


class Piece(NamedTuple):
    """Some letters and where they stand."""

    text: str
    place: Literal["on", "sub", "sup"] = "on"


Pieces = tuple[Piece, ...]


def plain_pieces(text: str) -> Pieces:
    """Letters that are no symbol."""
    return (Piece(text),)


def symbol(letter: str, unit: int | str, layer: int) -> Pieces:
    """Such as δ_2^(2)."""
    return Piece(letter), Piece(str(unit), "sub"), Piece(f"({layer})", "sup")


def weight(edge: Edge) -> Pieces:
    """Such as Θ_12^(2), with a comma where an index has two digits."""
    comma = "," if max(edge.to, edge.from_) > 9 else ""
    return symbol("Θ", f"{edge.to}{comma}{edge.from_}", edge.layer)


def as_text(pieces: Pieces) -> str:
    """As in a terminal: δ_2^(2)."""
    return "".join({"on": "", "sub": "_", "sup": "^"}[place] + text for text, place in pieces)


def as_html(pieces: Pieces) -> str:
    """With <sub> and <sup>, escaped."""
    return "".join(html.escape(text) if place == "on" else f"<{place}>{html.escape(text)}</{place}>"
                   for text, place in pieces)  # fmt: skip


def number(value: float, digits: int = 4) -> str:
    """A number with that many significant digits, its signs as long as a plus: −0.01234, 1.234e−7."""
    mantissa, e, exponent = f"{value + 0.0:.{digits}g}".partition("e")
    return (mantissa + (f"e{int(exponent)}" if e else "")).replace("-", "−")


def factor(value: float, digits: int = 4) -> str:
    """A number behind a sign: a negative one in parentheses."""
    text = number(value, digits)
    return f"({text})" if text.startswith("−") else text


def of_cost(sign: str) -> str:
    """What δ is a slope of, as a symbol."""
    return "C" if sign == "loss" else "cost(t)"
