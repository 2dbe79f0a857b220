"""The sums of a unit written out as the course does, in symbols and with the numbers under them.

    δ_2^(2) = (Θ_12^(2)·δ_1^(3) + Θ_22^(2)·δ_2^(3)) · g′(z_2^(2))
            = (0.4·(−0.121) + 1.2·0.0797) · 0.225

A line is a row of tokens; one that stands for an edge of the drawing says which.
"""

from __future__ import annotations

from typing import NamedTuple

from .fold import Fold, added
from .notation import Piece, Pieces, as_html, as_text, factor, number, of_cost, plain_pieces, symbol, weight
from .record import Explanation, Sum

DIGITS = 6


class Token(NamedTuple):
    """A part of a line; `edge` is its (layer, to, from), where it is the term of one."""

    pieces: Pieces
    edge: tuple[int | str, ...] = ()


Line = list[Token]


def forward(e: Explanation, fold: Fold, layer: int, unit: int) -> list[Line]:
    """How z and a of a unit come about; layer 2 … L."""
    z, a = symbol("z", unit, layer), symbol("a", unit, layer)
    symbols, numbers = _terms(e.forward_sum(layer, unit), fold, "a")
    value, activity = number(float(e.z[layer][unit - 1]), DIGITS), number(float(e.a[layer][unit - 1]), DIGITS)
    lines = [[*_words(*z, " = "), *symbols], [*_words(" = "), *numbers], _words(f" = {value}")]
    if layer < e.L:
        g = e.network.activation
        lines.append(_words(*a, " = g(", *z, f") = {g}({value}) = {activity}"))
    else:
        lines.append(_words(*a, " = h(", *z, f") = {activity}"))
    return lines


def backward(e: Explanation, fold: Fold, layer: int, unit: int) -> list[Line]:
    """How δ of a unit comes about; layer 2 … L."""
    delta, value = symbol("δ", unit, layer), number(float(e.delta[layer][unit - 1]), DIGITS)
    if layer == e.L:
        return _output(e, unit, delta, value)
    symbols, numbers = _terms(e.backward_sum(layer, unit), fold, "δ")
    slope = float(e.slope[layer][unit - 1])
    s = number(float(e.s[layer][unit - 1]), DIGITS)
    return [
        [*_words(*delta, " = ("), *symbols, *_words(") · g′(", *symbol("z", unit, layer), ")")],
        [*_words(" = ("), *numbers, *_words(f") · {factor(slope, DIGITS)}")],
        _words(f" = {s} · {factor(slope, DIGITS)}"),
        _words(f" = {value}"),
    ]


def _output(e: Explanation, unit: int, delta: Pieces, value: str) -> list[Line]:
    a, y = symbol("a", unit, e.L), (Piece("y"), Piece(str(unit), "sub"))
    activity, wanted = float(e.a[e.L][unit - 1]), float(e.y[unit - 1])
    parts, values = ((a, y), (activity, wanted)) if e.sign == "loss" else ((y, a), (wanted, activity))
    gap = _words(*parts[0], " − ", *parts[1])
    gap_numbers = f"{number(values[0], DIGITS)} − {factor(values[1], DIGITS)}"
    if e.difference:
        return [[*_words(*delta, " = "), *gap], _words(f" = {gap_numbers}"), _words(f" = {value}")]
    slope = _words(*delta, f" = ∂{of_cost(e.sign)}/∂", *symbol("z", unit, e.L), f" = {value}")
    away = [*_words("with this cost it is not "), *gap, *_words(f" = {number(values[0] - values[1], DIGITS)}")]
    return [slope, away]


def _terms(one: Sum, fold: Fold, letter: str) -> tuple[Line, Line]:
    """The terms of shown units in symbols and in numbers; the others as one more."""
    ours, rest = fold.split(one)
    symbols: Line = []
    numbers: Line = []
    for term in ours:
        edge = term.edge
        other, layer = (edge.from_, edge.layer) if one.kind == "z" else (edge.to, edge.layer + 1)
        other_factor = plain_pieces("1") if other == 0 else symbol(letter, other, layer)
        plus = _words(" + ") if symbols else []
        symbols += [*plus, Token((*weight(edge), Piece("·"), *other_factor), tuple(edge))]
        first = factor(term.weight, DIGITS) if numbers else number(term.weight, DIGITS)
        product = f"{first}·{factor(term.factor, DIGITS)}"
        numbers += [*plus, Token(plain_pieces(product), tuple(edge))]
    if rest:
        l, to = (one.layer - 1, one.unit) if one.kind == "z" else (one.layer, "rest")
        edge_key = (l, to, "rest" if one.kind == "z" else one.unit)
        plus = _words(" + ") if symbols else []
        symbols += [*plus, Token(plain_pieces(f"{len(rest):,} more"), edge_key)]
        numbers += [*plus, Token(plain_pieces(factor(added(rest), DIGITS)), edge_key)]
    return symbols, numbers


def _words(*parts: str | Piece) -> Line:
    return [Token(tuple(Piece(part) if isinstance(part, str) else part for part in parts))]


def text_of(line: Line) -> str:
    """A line without anything that a terminal could not show."""
    return "".join(as_text(token.pieces) for token in line)


def html_of(line: Line) -> str:
    """A line with indices, its terms marked by their edges."""
    found = []
    for token in line:
        inner = as_html(token.pieces)
        key = "-".join(map(str, token.edge))
        found.append(f'<span class="t" data-edge="{key}">{inner}</span>' if key else inner)
    return "".join(found)
