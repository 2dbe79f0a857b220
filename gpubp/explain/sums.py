"""One unit written out as the course does it: its z, its a and its δ, first with letters, then with numbers.

    δ_2^(2) = (Θ_12^(2)·δ_1^(3) + Θ_22^(2)·δ_2^(3)) · g′(z_2^(2))
            = (0.6·(−0.120954) + 1.2·0.0797257) · 0.225348
            = (−0.0725721 + 0.0956708) · 0.225348
            = 0.0230987 · 0.225348
            = 0.00520524

These are equations, made of tokens; `text` sets them for the terminal, `page` for the browser. The products of a sum
have the same last place and add up to the printed total, within half a unit of that place for each of them.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from .fold import Choice, added
from .notation import DIGITS, Column, as_html, cost_name, factor, number, symbol, weight
from .record import Edge, Explanation, Sum
from .written import steps, written

_LONG = 60  # characters: a formula that takes more is no help with numbers in it


class Token(NamedTuple):
    """A part of a line; where it is the term of an edge, `edge` is its (layer, to, from), with "rest" for all the units
    that are not chosen."""

    text: str
    edge: tuple[int | str, ...] = ()


Line = list[Token]
PLUS, MINUS = Token(" + "), Token(" − ")  # before one of these a line may be broken


class Equation(NamedTuple):
    """A name and what it is equal to, one line below the other."""

    name: str
    sides: list[Line]


def forward(e: Explanation, layer: int, j: int, choice: Choice) -> list[Equation]:
    """How z_j^(l) and a_j^(l) come about, l = 2 … L.

    Args:
        choice: which terms are written out.

    Raises:
        UsageError: there is no such unit, or nothing leads to it.
    """
    total = e.forward_sum(layer, j)
    z, value = symbol("z", j, layer), number(float(e.a[layer][j - 1]))
    if layer < e.L:
        activation = f"g({z}) = {e.network.activation}({number(total.total)}) = {value}"
    else:
        activation = f"h(z^({layer})){f'_{j}' if e.network.K > 1 else ''} = {value}"
    return [
        Equation(z, list(_sides(total, choice))),
        Equation(symbol("a", j, layer), [_words(activation)]),
    ]


def backward(e: Explanation, layer: int, j: int, choice: Choice) -> list[Equation]:
    """How δ_j^(l) comes about, l = 2 … L; of a hidden unit also what g′ and the sum are.

    Args, Raises:
        As `forward`.
    """
    if layer == e.L:
        return [_output(e, j)]
    total = e.backward_sum(layer, j)
    letters, numbers, products, summed = _sides(total, choice)
    slope = f" · {factor(float(e.slope[layer][j - 1]))}"
    lines = [
        _bracketed(letters, f" · g′({symbol('z', j, layer)})"),
        _bracketed(numbers, slope),
        *([_bracketed(products, slope)] if len(total.terms) > 1 else []),
        [*summed, Token(slope)],
        _words(number(float(e.delta[layer][j - 1]))),
    ]
    s = f"{number(total.total)}, the sum, is ∂{cost_name(e)}/∂{symbol('a', j, layer)}"
    delta = Equation(symbol("δ", j, layer), lines)
    return [delta, _slope(e, layer, j), Equation(symbol("s", j, layer), [_words(s)])]


def literal_sum(e: Explanation, layer: int, j: int, choice: Choice) -> Equation:
    """The recursion of the course's note without g′ for a unit of a hidden layer, with numbers.

    Args, Raises:
        As `forward`.
    """
    total, found = e.backward_sum(layer, j), e.literal()
    terms = tuple(term._replace(factor=float(found[layer + 1][term.edge.to - 1])) for term in total.terms)
    value = float(found[layer][j - 1])
    numbers = _sides(Sum(layer, j, "s", terms, value), choice)[1]
    return Equation(f"without g′, from the output to here: {symbol('δ', j, layer)}", [numbers, _words(number(value))])


def meaning(e: Explanation) -> list[str]:
    """What every δ is a slope of, in words."""
    if e.sign == "loss":
        last = ": δ^(L) = a^(L) − y" if e.difference else ""
        return [f"every δ is a slope of the loss C = −cost(t), which gradient descent goes down{last}"]
    first = "every δ is a slope of the course's cost(t), a log-likelihood"
    follows = "the slope of C = −cost(t), which gradient descent follows"
    if e.difference:
        return [f"{first}; δ^(L) = y − a^(L)", f"its correction, δ^(L) = a^(L) − y, is {follows}"]
    return [first, f"−δ is {follows}"]


def literal_meaning(e: Explanation) -> tuple[str, str]:
    """What the course's recursion without g′ is, and what its sum is where the δ's to its right are exact."""
    C = cost_name(e)
    return (
        "the course's recursion as it is written, each δ a plain weighted sum of the δ's to its right, no g′.",
        f"With exact δ's to the right that sum is ∂{C}/∂a (s), and times g′(z) it is ∂{C}/∂z = δ; carried on by "
        "itself it is neither, unless every g′ is 1.",
    )


def text_of(line: Line) -> str:
    """A line as a terminal shows it."""
    return "".join(token.text for token in line)


def html_of(line: Line) -> str:
    """A line with indices below and above, its terms marked by their edges; to be broken before a sign, not after."""
    found = []
    for text, edge in line:
        inner = re.sub("([+−·=]) ", r"\1&nbsp;", as_html(text)).replace("(1 −", "(1&nbsp;−")
        found.append(f'<span class="t" data-edge="{"-".join(map(str, edge))}">{inner}</span>' if edge else inner)
    return "".join(found)


def _words(text: str) -> Line:
    return [Token(text)]


def _bracketed(line: Line, after: str) -> Line:
    return [Token("("), *line, Token(f"){after}")]


def _slope(e: Explanation, layer: int, j: int) -> Equation:
    """g′(z), with its formula where that is short."""
    g, z, a = e.network.g, symbol("z", j, layer), symbol("a", j, layer)
    name, value = f"g′({z})", number(float(e.slope[layer][j - 1]))
    formula = steps(g.slope, **({"e": 1.0, "a": None} if g.slope_from_a else {"e": 1.0, "z": None, "b": 0}))
    if formula is None:
        return Equation(name, [_words(value)])
    letters = written(formula, {"a": a, "z": z}, number)
    numbers = {"a": number(float(e.a[layer][j - 1])), "z": number(float(e.z[layer][j - 1]))}
    if " where " in letters:  # a choice and no sum: with numbers it says no more
        said = f"{value}: {letters}"
    elif len(letters) <= _LONG and letters != value:
        said = f"{letters} = {written(formula, numbers, number)} = {value}"
    else:
        said = value
    return Equation(name, [_words(said)])


def _output(e: Explanation, k: int) -> Equation:
    """δ^(L) by the formula of the cost: a − y is a property of the pair of cost and output function."""
    delta, a, y = (float(values[k - 1]) for values in (e.delta[e.L], e.a[e.L], e.y))
    names = symbol("a", k, e.L), f"y_{k}" if e.network.K > 1 else "y"
    # as many decimals as it takes to see the difference of two numbers that are nearly the same
    decimals = DIGITS if delta == 0 else min(17, max(DIGITS, DIGITS - 1 - math.floor(math.log10(abs(delta)))))
    formula = None if e.difference else steps(e.network.J.delta, h=None, y=None, w=1.0)
    lines: list[Line] = []
    for h, wanted in (names, (_decimal(a, decimals), _decimal(y, decimals))):
        if e.difference:
            one, other = (h, wanted) if e.sign == "loss" else (wanted, h)
            lines.append(_words(f"{one} − {f'({other})' if other.startswith('−') else other}"))
        elif formula is not None:
            text = written(formula, {"h": h, "y": wanted}, number)
            lines.append(_words(text if e.sign == "loss" else f"−({text})"))
    return Equation(symbol("δ", k, e.L), [*lines, _words(number(delta))])


def _decimal(value: float, decimals: int) -> str:
    """A number with that many decimals, as few as say the same."""
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return number(value)
    text = f"{value:.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")


def _sides(total: Sum, choice: Choice) -> tuple[Line, Line, Line, Line]:
    """A sum with letters, with numbers, with its products, and its total; what is not chosen is one more term."""
    terms, rest = choice(total)
    column = Column([*(term.product for term in terms), added(rest), total.total])
    letters: Line = []
    numbers: Line = []
    products: Line = []
    for term in terms:
        key, sign = tuple(term.edge), [PLUS] if letters else []
        letters += [*sign, Token(f"{weight(term.edge)}·{_along(term.edge, total.kind)}", key)]
        numbers += [*sign, Token(f"{factor(term.weight)}·{factor(term.factor)}", key)]
        products += _added(column, term.product, key, first=not products)
    if rest:
        l, j = total.layer, total.unit
        key = (l - 1, j, "rest") if total.kind == "z" else (l, "rest", j)
        more = Token(f"… ({len(rest):,} more)", key)
        letters += [PLUS, more]
        numbers += [PLUS, more]
        products += _added(column, added(rest), key, after=f" ({len(rest):,} more term{'s' * (len(rest) > 1)})")
    if column.power:
        products = _bracketed(products, column.power)
    return letters, numbers, products, _words(column.number(total.total))


def _added(column: Column, value: float, key: tuple[int | str, ...], *, first: bool = False, after: str = "") -> Line:
    """One more term of a printed sum, with the sign before it."""
    minus, digits = column.signed(value)
    if first:
        return [Token(f"{minus}{digits}{after}", key)]
    return [MINUS if minus else PLUS, Token(f"{digits}{after}", key)]


def _along(edge: Edge, kind: str) -> str:
    """What comes along an edge: a from the left (1 of the bias unit), δ from the right."""
    if kind == "s":
        return symbol("δ", edge.to, edge.layer + 1)
    return symbol("a", edge.from_, edge.layer) if edge.from_ else "1"
