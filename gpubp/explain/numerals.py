"""How numbers and names are written: six digits, Ng's indices, sums whose printed terms add up to the printed total."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .record import Edge, Explanation

DIGITS = 6


def numeral(value: float) -> str:
    """Six digits, for a line of mathematics: with the minus sign of print."""
    return plain_numeral(value).replace("-", "−")


def plain_numeral(value: float) -> str:
    """Six digits, for a table: with the minus that programs read."""
    return f"{value + 0.0:.{DIGITS}g}"


def factor(value: float) -> str:
    """A number that something is multiplied by: in parentheses if it is negative."""
    text = numeral(value)
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
    def unit(self) -> float:
        """One in the last place."""
        return 10.0 ** (self.exponent - self.decimals)

    @property
    def power(self) -> str:
        """What is to be written after the numbers."""
        return f"·10^{self.exponent}".replace("-", "−") if self.exponent else ""

    def digits(self, value: float) -> str:
        """Without its sign."""
        return f"{abs(value) / 10.0**self.exponent:.{self.decimals}f}"

    def number(self, value: float) -> str:
        """With its sign, and the power of ten."""
        digits = self.digits(value)
        return f"{'−' if value < 0 and digits.strip('0.') else ''}{digits}{self.power}"

    def added(self, values: Iterable[float]) -> list[str]:
        """The terms of a sum, each with the sign between it and the one before."""
        found: list[str] = []
        for value in values:
            digits = self.digits(value)
            minus = value < 0 and digits.strip("0.") != ""
            found.append((("− " if minus else "+ ") if found else "−" if minus else "") + digits)
        return found


def symbol(letter: str, unit: int, layer: int) -> str:
    """z, a, s or δ of a unit: δ_2^(3)."""
    return f"{letter}_{unit}^({layer})"


def along(edge: Edge, kind: str) -> str:
    """What comes along an edge: a from the left (1 of the bias unit), δ from the right."""
    if kind == "s":
        return symbol("δ", edge.to, edge.layer + 1)
    return symbol("a", edge.from_, edge.layer) if edge.from_ else "1"


def cost_name(e: Explanation) -> str:
    """What δ is a slope of: the loss C, or the course's cost(t) = −C."""
    return "C" if e.sign == "loss" else "cost(t)"
