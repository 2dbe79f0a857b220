"""One unit written out as the course does it: its z, its a and its δ, first with letters, then with numbers.

The terms of a printed sum have the same last place and add up to the printed total, within half a unit of that place
for each of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .numerals import DIGITS, Column, along, cost_name, factor, numeral, symbol
from .record import Explanation, Sum, Term
from .written import steps, written

WIDTH = 110
_LONG = 60  # characters: a formula that takes more is no help with numbers in it


def unit(e: Explanation, layer: int, j: int, *, top: int = 8, literal: bool = False) -> str:
    """Everything about one unit: z_j^(l) and a_j^(l), then δ_j^(l).

    Args:
        top: how many terms of a sum are written out, the largest; 0 for all.
        literal: also the seed's recursion without g′.

    Raises:
        UsageError: there is no such unit, or nothing leads to it.
    """
    total = e.forward_sum(layer, j)
    z, a = symbol("z", j, layer), symbol("a", j, layer)
    g, at = ("h", f"z^({e.L})") if layer == e.L else ("g", z)
    value = numeral(e.a[layer][j - 1])
    if layer == e.L:
        activation = f"{a} = {g}({at}){f'_{j}' if e.network.K > 1 else ''} = {value}"
    else:
        activation = f"{a} = {g}({at}) = {e.network.activation}({numeral(total.total)}) = {value}"
    parts = [_sum(z, total, top), activation, _output(e, j) if layer == e.L else _hidden(e, layer, j, top)]
    if literal and layer < e.L:
        parts.append(_literal(e, layer, j, top))
    return "\n".join(parts)


def _sum(name: str, total: Sum, top: int) -> str:
    terms, rest = _chosen(total, top)
    return _equations(name, [*_sides(terms, rest, total.kind), _totalled(total, terms, rest)])


def _hidden(e: Explanation, layer: int, j: int, top: int) -> str:
    total = e.backward_sum(layer, j)
    terms, rest = _chosen(total, top)
    z, delta = symbol("z", j, layer), float(e.delta[layer][j - 1])
    slope = float(e.slope[layer][j - 1])
    letters, numbers, products = _sides(terms, rest, "s")
    lines = [
        _bracketed(letters, f" · g′({z})"),
        _bracketed(numbers, f" · {factor(slope)}"),
        *([_bracketed(products, f" · {factor(slope)}")] if len(products) > 1 else []),
        [f"{_totalled(total, terms, rest)[0]} · {factor(slope)}"],
        [numeral(delta)],
    ]
    said = f"{symbol('s', j, layer)} = {numeral(total.total)}, the sum, is ∂{cost_name(e)}/∂{symbol('a', j, layer)}"
    return "\n".join([_equations(symbol("δ", j, layer), lines), _slope(e, layer, j), said])


def _slope(e: Explanation, layer: int, j: int) -> str:
    """g′(z), with its formula where that is short."""
    g, z, a = e.network.g, symbol("z", j, layer), symbol("a", j, layer)
    given = {"e": 1.0, "a": None} if g.slope_from_a else {"e": 1.0, "z": None, "b": 0}
    formula = steps(g.slope, **given)
    value = numeral(e.slope[layer][j - 1])
    said = [f"g′({z})"]
    if formula is not None:
        at = {"a": numeral(e.a[layer][j - 1]), "z": numeral(e.z[layer][j - 1])}
        at_letters = {"a": a, "z": z}
        both = written(formula, at_letters, numeral), written(formula, at, numeral)
        if " where " in both[0]:  # a choice and no sum: with numbers it says no more
            return f"g′({z}) = {value}: {both[0]}"
        if len(both[0]) <= _LONG and both[0] != value:
            said += both
    return " = ".join([*said, value])


def _output(e: Explanation, k: int) -> str:
    """δ^(L) by the formula of the cost: a − y is a property of the pair of cost and output function."""
    delta, a, y = (float(values[k - 1]) for values in (e.delta[e.L], e.a[e.L], e.y))
    names = symbol("a", k, e.L), f"y_{k}" if e.network.K > 1 else "y"
    formula = None if e.difference else steps(e.network.J.delta, h=None, y=None, w=1.0)
    # as many decimals as it takes to see the difference of two numbers that are nearly the same
    decimals = DIGITS if delta == 0 else min(17, max(DIGITS, DIGITS - 1 - math.floor(math.log10(abs(delta)))))
    at = _decimal(a, decimals), _decimal(y, decimals)
    if e.difference:
        pairs = [names, at] if e.sign == "loss" else [names[::-1], at[::-1]]
        lines = [[f"{one} − {f'({other})' if other.startswith('−') else other}"] for one, other in pairs]
    elif formula is None:
        lines = []
    else:
        texts = [written(formula, dict(zip("hy", pair, strict=True)), numeral) for pair in (names, at)]
        lines = [[text] if e.sign == "loss" else [f"−({text})"] for text in texts]
    return _equations(symbol("δ", k, e.L), [*lines, [numeral(delta)]])


def _literal(e: Explanation, layer: int, j: int, top: int) -> str:
    found = e.literal()
    weights, values = e.Theta[layer][:, j], found[layer + 1]
    order = _largest(np.abs(weights * values), top)
    terms = [f"{factor(weights[i])}·{factor(values[i])}" for i in order]
    more = weights.size - len(order)
    value = numeral(found[layer][j - 1])
    head = f"without g′, from the output to here: {symbol('δ', j, layer)}"
    return _equations(head, [_joined(terms, more), [value]])


def _chosen(total: Sum, top: int) -> tuple[list[Term], list[Term]]:
    """The terms that are written out, and the others: all in their order, or the largest by size."""
    order = _largest(np.array([abs(term.product) for term in total.terms]), top)
    kept = set(order)
    return [total.terms[i] for i in order], [term for i, term in enumerate(total.terms) if i not in kept]


def _largest(sizes: Any, top: int) -> list[int]:
    if not top or sizes.size <= top + 1:  # one more term is as short as the words that there is one
        return list(range(sizes.size))
    return [int(i) for i in np.argsort(-sizes, kind="stable")[:top]]


def _column(total: Sum, terms: Sequence[Term], rest: Sequence[Term]) -> tuple[Column, list[float]]:
    values = [term.product for term in terms]
    if rest:
        values.append(math.fsum(term.product for term in rest))
    return Column([*values, total.total]), values


def _totalled(total: Sum, terms: Sequence[Term], rest: Sequence[Term]) -> list[str]:
    return [_column(total, terms, rest)[0].number(total.total)]


def _sides(terms: Sequence[Term], rest: Sequence[Term], kind: str) -> list[list[str]]:
    """A sum with letters, with numbers, and with its products: pieces between which a line may be broken."""
    total = Sum(0, 0, "z", (), math.fsum(term.product for term in (*terms, *rest)))
    column, values = _column(total, terms, rest)
    products = column.added(values)
    if rest:
        products[-1] += f" ({len(rest):,} more terms)"
    if column.power:
        products[0], products[-1] = f"({products[0]}", f"{products[-1]}){column.power}"
    letters = [f"{term.edge.name}·{along(term.edge, kind)}" for term in terms]
    numbers = [f"{factor(term.weight)}·{factor(term.factor)}" for term in terms]
    return [_joined(letters, len(rest)), _joined(numbers, len(rest)), products]


def _joined(terms: Sequence[str], more: int) -> list[str]:
    pieces = [terms[0], *(f"+ {term}" for term in terms[1:])]
    return [*pieces, f"+ … ({more:,} more)"] if more else pieces


def _bracketed(pieces: list[str], after: str) -> list[str]:
    return [*(f"({piece}" if i == 0 else piece for i, piece in enumerate(pieces[:-1])),
            f"{'(' if len(pieces) == 1 else ''}{pieces[-1]}){after}"]  # fmt: skip


def _decimal(value: float, decimals: int) -> str:
    """A number with that many decimals, as few as say the same."""
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return numeral(value)
    text = f"{value:.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")


def _equations(name: str, sides: list[list[str]]) -> str:
    """name = one side, and below it the others, the signs = below each other, lines broken between terms."""
    indent = " " * len(name)
    lines = []
    for i, pieces in enumerate(sides):
        line = f"{name if i == 0 else indent} ="
        for piece in pieces:
            if len(line) + 1 + len(piece) > WIDTH and not line.endswith("="):
                lines.append(line)
                line = f"{indent}  "
            line += f" {piece}"
        lines.append(line)
    return "\n".join(lines)
