"""An explanation for the terminal, at most 110 columns wide: the network forward, then backward, in tables; a unit
written out."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from .fold import TOP, Fold, added, largest
from .notation import cost_name, symbol, weight
from .notation import table_number as number
from .plain import name_of
from .record import Edge, Explanation
from .slopes import TOLERANCE, SlopeCheck
from .sums import MINUS, PLUS, Equation, Line, backward, forward, literal_meaning, literal_sum, meaning

WIDTH = 110
_EDGES = 24  # of a layer: more are more than a person looks at, and the largest are shown
_FEWER = 16
_NAME, _WORDS = 12, 40  # characters of a feature's or an output's name, and of an answer
_FAILED = 20  # units that are listed, though their layer is folded

Row = Sequence[str]


def header(e: Explanation) -> str:
    """What is explained: network, example, answer, cost, and what δ is a slope of."""
    names, network = e.names, e.network
    sizes = "-".join(map(str, network.sizes))
    inside = f", {network.activation} units" if e.L > 2 else ""
    lines = [("network", f"{sizes}{inside}, {network.cost} cost{f'; {names.network}' if names.network else ''}")]
    lines += [("example", names.example)] if names.example else []
    if names.answer:
        truth = f"; the truth is {_short(names.truth, _WORDS)}" if names.truth else ""
        lines += [("answer", _short(names.answer, _WORDS) + truth)]
    formula, _, about = network.J.formula.partition(": ")
    C = f"C = {number(e.C)}" if e.sign == "loss" else f"cost(t) = {number(e.C)}, the negative of"
    lines += [("cost", f"{C} {'=' if e.sign == 'loss' else 'C ='} {formula}"), *([("", about)] if about else [])]
    lines += [("sign", line) if i == 0 else ("", line) for i, line in enumerate(meaning(e))]
    return "\n".join(f"{name:<7}  {text}" for name, text in lines)


def literal_means(e: Explanation) -> str:
    """What the column "literal" is, in two sentences."""
    first, second = literal_meaning(e)
    return "\n".join([f"literal: {first}", *textwrap.wrap(second, WIDTH)])


def unit(e: Explanation, layer: int, j: int, *, top: int = TOP, literal: bool = False) -> str:
    """Everything about one unit, written out: z_j^(l) and a_j^(l), then δ_j^(l).

    Args:
        top: how many terms of a sum are written out, the largest; 0 for all.
        literal: also the course's recursion without g′.

    Raises:
        UsageError: there is no such unit, or nothing leads to it.
    """
    choice = largest(top)
    equations = [*forward(e, layer, j, choice), *backward(e, layer, j, choice)]
    if literal and layer < e.L:
        equations.append(literal_sum(e, layer, j, choice))
    return "\n".join(map(_set, equations))


def _set(equation: Equation) -> str:
    """name = one side, and below it the others, the signs = below each other, lines broken between terms."""
    name, indent = equation.name, " " * len(equation.name)
    lines = []
    for i, side in enumerate(equation.sides):
        line = f"{name if i == 0 else indent} ="
        for part in _unbroken(side):
            if len(line) + 1 + len(part) > WIDTH and not line.endswith("="):
                lines.append(line)
                line = f"{indent}  "
            line += f" {part}"
        lines.append(line)
    return "\n".join(lines)


def _unbroken(side: Line) -> list[str]:
    """The parts between which a line may be broken: each term with the sign before it."""
    parts = [""]
    for token in side:
        if token in (PLUS, MINUS):
            parts.append(token.text.lstrip())
        else:
            parts[-1] += token.text
    return parts


def tables(e: Explanation, fold: Fold, *, literal: bool = False) -> str:
    """All layers forward, all layers backward, and the edges."""
    parts = ["Forward: z_j^(l) = Σ_i Θ_ji^(l−1)·a_i^(l−1), the bias unit a_0 = 1 among them; a_j^(l) = g(z_j^(l))"]
    parts += [_forward(e, fold, l) for l in range(1, e.L + 1)]
    C = cost_name(e)
    parts += [
        f"Backward: s_j^(l) = Σ_i Θ_ij^(l)·δ_i^(l+1) = ∂{C}/∂a_j^(l); δ_j^(l) = s_j^(l)·g′(z_j^(l)) = ∂{C}/∂z_j^(l)"
    ]
    parts += [_backward(e, fold, l, literal=literal) for l in range(e.L, 1, -1)]
    parts += [literal_means(e)] if literal else []
    parts += [f"Edges: what comes along each forward, Θ·a, and backward, Θ·δ; the gradient is ∂{C}/∂Θ = a·δ"]
    parts += [_edges(e, fold, l) for l in range(1, e.L)]
    return "\n\n".join(parts)


def slopes(e: Explanation, fold: Fold, checked: SlopeCheck, *, literal: bool = False) -> str:
    """Each δ beside the slope of the cost, with the verdict.

    Args:
        literal: of each hidden layer also how far the course's recursion without g′ is from the slopes.
    """
    what = cost_name(e)
    parts = [f"Slopes: δ_j^(l) beside the finite difference of {what} in z_j^(l), all to its right computed again"]
    for l in range(e.L, 1, -1):
        part = _layer_slopes(e, fold, l, checked)
        if literal and l < e.L:
            apart = checked.layers[l].distance_of(e.literal()[l])
            part += f"\n  literal, without g′, for δ: {apart:.1e}, {'PASS' if apart <= TOLERANCE else 'FAIL'}"
        parts.append(part)
    near = sum(int(layer.rounding.sum()) for layer in checked.layers[2:])
    if near:
        parts.append(f"* {near:,} as near as float64 can tell: the difference is what rounding may make of it")
    kinks = [((l, j), unit) for (l, j), unit in checked.units.items() if unit.verdict == "KINK"]
    for (l, j), unit in kinks[:_FAILED]:
        assert unit.sides is not None
        left, right = map(number, unit.sides)
        parts.append(f"KINK at {symbol('z', j, l)}: the slope is {left} to the left and {right} to the right; δ is one")
    failed = sum(int((~layer.passed).sum()) for layer in checked.layers[2:])
    verdict = (
        f"FAIL: {failed:,} of {checked.count:,} δ's are not" if failed else f"PASS: {checked.count:,} δ's, each is"
    )
    side = ", at a kink to one side" if kinks else ""
    parts.append(f"{verdict} the slope of {what}{side}, relative error {TOLERANCE:g} or less")
    return "\n\n".join(parts)


def _title(e: Explanation, l: int) -> str:
    what = "input" if l == 1 else "output" if l == e.L else ""
    return f"layer {l}{f', the {what}' if what else ''}"


def _forward(e: Explanation, fold: Fold, l: int) -> str:
    columns: dict[str, Callable[[int], str]] = {}
    if l == 1:
        columns["x"] = lambda j: number(e.x[j - 1])
        columns["a"] = lambda j: number(e.a[1][j - 1])
    else:
        if fold.hidden(l - 1):
            columns["from shown"] = lambda j: number(added(fold.split(e.forward_sum(l, j))[0]))
            columns["from others"] = lambda j: number(added(fold.split(e.forward_sum(l, j))[1]))
        columns["z"] = lambda j: number(e.z[l][j - 1])
        columns["a"] = lambda j: number(e.a[l][j - 1])
        if l == e.L:
            columns["y"] = lambda j: number(e.y[j - 1])
    return f"{_title(e, l)}\n{_units(e, fold, l, columns)}"


def _backward(e: Explanation, fold: Fold, l: int, *, literal: bool) -> str:
    columns: dict[str, Callable[[int], str]] = {}
    if l == e.L:
        columns["a"] = lambda j: number(e.a[l][j - 1])
        columns["y"] = lambda j: number(e.y[j - 1])
    else:
        if fold.hidden(l + 1):
            columns["from shown"] = lambda j: number(added(fold.split(e.backward_sum(l, j))[0]))
            columns["from others"] = lambda j: number(added(fold.split(e.backward_sum(l, j))[1]))
        columns["s"] = lambda j: number(e.s[l][j - 1])
        columns["g′(z)"] = lambda j: number(e.slope[l][j - 1])
    columns["δ"] = lambda j: number(e.delta[l][j - 1])
    if literal:
        along = e.literal()[l]
        columns["literal"] = lambda j: number(along[j - 1])
    text = f"{_title(e, l)}\n{_units(e, fold, l, columns)}"
    if fold.hidden(l):
        others = sorted(set(range(1, fold.sizes[l] + 1)) - set(fold.shown[l]))
        text += f", Σ|δ| = {number(math.fsum(abs(float(e.delta[l][j - 1])) for j in others))}"
    return text


def _units(e: Explanation, fold: Fold, l: int, columns: dict[str, Callable[[int], str]]) -> str:
    """The shown units of a layer, a line for each, and one for all the others."""
    named = bool(name_of(e, l, 1))
    head = ["unit", *(["name"] if named else []), *columns]
    rows = [
        [str(j), *([_short(name_of(e, l, j))] if named else []), *(column(j) for column in columns.values())]
        for j in fold.shown[l]
    ]
    more = fold.hidden(l)
    return aligned(head, rows) + (f"\n  … {more:,} more {'inputs' if l == 1 else 'units'}" if more else "")


def _edges(e: Explanation, fold: Fold, l: int) -> str:
    """The edges between shown units of layers l and l+1, or the largest of them by what they carry."""
    found = []
    for to in fold.shown[l + 1]:
        delta = float(e.delta[l + 1][to - 1])
        for i in (0, *fold.shown[l]):
            Theta, a = float(e.Theta[l][to - 1, i]), 1.0 if i == 0 else float(e.a[l][i - 1])
            backward = Theta * delta if i and l > 1 else None
            found.append((Edge(l, to, i), Theta, a, delta, backward, float(e.gradient[l][to - 1, i])))
    kept = found
    if len(found) > _EDGES:
        size = [abs(one[1] * one[2]) if l == 1 else abs(one[4] or 0.0) for one in found]
        order = sorted(sorted(range(len(found)), key=lambda i: -size[i])[:_FEWER])
        kept = [found[i] for i in order]
    head = ["edge", "Θ", "a", "Θ·a", "δ", *(["Θ·δ"] if l > 1 else []), f"∂{cost_name(e)}/∂Θ"]
    rows = []
    for edge, Theta, a, delta, backward, gradient in kept:
        along = [] if l == 1 else ["" if backward is None else number(backward)]
        rows.append([weight(edge), *map(number, (Theta, a, Theta * a, delta)), *along, number(gradient)])
    text = f"layer {l} to layer {l + 1}\n{aligned(head, rows)}"
    shown, all_ = len(found) - len(kept), e.Theta[l].size - len(found)
    more = [f"{shown:,} more between these units"] if shown else []
    more += [f"{all_:,} more of units that are not shown"] if all_ else []
    largest = f"; these have the largest |{'Θ·a' if l == 1 else 'Θ·δ'}|" if shown else ""
    return text + (f"\n  … {', '.join(more)}{largest}" if more else "")


def _layer_slopes(e: Explanation, fold: Fold, l: int, checked: SlopeCheck) -> str:
    layer = checked.layers[l]
    failed = [int(i) + 1 for i in (~layer.passed).nonzero()[0]]
    listed = sorted({*fold.shown[l], *failed[:_FAILED]})
    rows = []
    for j in listed:
        unit = layer.unit(j)
        verdict = f"{unit.verdict}{'*' if unit.rounding else ' '}"
        delta, slope = (f"{value + 0.0:.10g}" for value in (unit.delta, unit.slope))
        rows.append([str(j), delta, slope, f"{unit.uncertainty:.0e}", f"{unit.error:.1e}", verdict])
    text = f"{_title(e, l)}\n" + aligned(["unit", "δ", "slope", "±", "relative error", "verdict "], rows)
    others = [i for i in range(layer.delta.size) if i + 1 not in set(listed)]
    if others:
        worst = max(others, key=lambda i: float(layer.error[i]))
        wrong = int((~layer.passed[others]).sum())
        said = f"{wrong:,} of them FAIL" if wrong else "all PASS"
        text += (
            f"\n  … {len(others):,} more units, {said}, the largest error {layer.error[worst]:.1e} in unit {worst + 1}"
        )
    return f"{text}\n  ‖slope − δ‖ / (‖slope‖ + ‖δ‖) = {layer.distance:.1e}"


def aligned(head: Row, rows: Sequence[Row]) -> str:
    """A table whose columns end below each other."""
    lines: list[Any] = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    cells = (("  ".join(f"{cell:>{w}}" for cell, w in zip(line, widths, strict=True))) for line in lines)
    return "\n".join(f"  {line}".rstrip() for line in cells)


def _short(name: str, most: int = _NAME) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
