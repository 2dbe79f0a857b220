"""How numbers and Ng's symbols are written: as a terminal shows them, δ_2^(3); in pieces for a page or a drawing."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from .record import Edge, Explanation

DIGITS = 6  # of a number in a table or a sum


def number(value: float, digits: int = DIGITS) -> str:
    """A number with that many significant digits and the minus sign of print: −0.0123456, 1.5e−07."""
    return table_number(value, digits).replace("-", "−")


def table_number(value: float, digits: int = DIGITS) -> str:
    """The same for a terminal's table: with the minus that programs read."""
    return f"{value + 0.0:.{digits}g}"


def factor(value: float) -> str:
    """A number that something is multiplied by: in parentheses if it is negative."""
    text = number(value)
    return f"({text})" if text.startswith("−") else text


class Column:
    """Numbers that are to be added: all with the same last place, so that a reader can add them.

    Args:
        values: the largest of them gets six digits.
    """

    def __init__(self, values: Iterable[float]) -> None:
        largest = max(map(abs, values), default=0.0)
        at = math.floor(math.log10(largest)) if 0 < largest < math.inf else 0
        self.exponent = 0 if -5 <= at < DIGITS else at
        self.decimals = max(0, DIGITS - 1 - (at - self.exponent))

    @property
    def power(self) -> str:
        """What is to be written after the numbers."""
        return f"·10^{self.exponent}".replace("-", "−") if self.exponent else ""

    def number(self, value: float) -> str:
        """With its sign, and the power of ten."""
        sign, digits = self.signed(value)
        return f"{sign}{digits}{self.power}"

    def signed(self, value: float) -> tuple[str, str]:
        """Its sign, "−" or "", and its digits; what is printed as zero has none."""
        digits = f"{abs(value) / 10.0**self.exponent:.{self.decimals}f}"
        return "−" if value < 0 and digits.strip("0.") else "", digits


def symbol(letter: str, index: int | str, layer: int) -> str:
    """Such as δ_2^(3)."""
    return f"{letter}_{index}^({layer})"


def weight(edge: Edge) -> str:
    """As the course writes it: Θ_12^(2), with a comma where an index has two digits."""
    comma = "," if max(edge.to, edge.from_) > 9 else ""
    return symbol("Θ", f"{edge.to}{comma}{edge.from_}", edge.layer)


def cost_name(e: Explanation) -> str:
    """What δ is a slope of: the loss C, or the course's cost(t) = −C."""
    return "C" if e.sign == "loss" else "cost(t)"


class Piece(NamedTuple):
    """Some letters and where they stand: on the line, below or above it."""

    text: str
    place: Literal["on", "sub", "sup"] = "on"


Pieces = tuple[Piece, ...]

# below: units, such as 2, 1,12 or ji; above: a layer in parentheses, or the exponent of a power of ten
_INDEX = re.compile(r"_(\d+(?:,\d+)?|[ijk]+\b)|\^(\([^()]*\)|−?\d+)")


def plain_pieces(text: str) -> Pieces:
    """Words as they are: a user's name may have any letters."""
    return (Piece(text),)


def in_pieces(text: str) -> Pieces:
    """What we wrote ourselves, its indices below and above: δ_2^(3)."""
    found, end = [], 0
    for index in _INDEX.finditer(text):
        found += [Piece(text[end : index.start()])] if index.start() > end else []
        found.append(Piece(index[1], "sub") if index[1] else Piece(index[2], "sup"))
        end = index.end()
    return (*found, Piece(text[end:])) if end < len(text) else tuple(found)


def as_html(text: str) -> str:
    """What we wrote ourselves, with <sub> and <sup>, escaped."""
    return "".join(html.escape(part) if place == "on" else f"<{place}>{html.escape(part)}</{place}>"
                   for part, place in in_pieces(text))  # fmt: skip
