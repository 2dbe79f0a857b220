"""The steps of formulas as the text of one loop, for numba.

The text is Python that a person can read; `build` compiles it. There are four kinds of loop:

`load`      rows or labels from the type they are stored in to the type of the pass
`activate`  a = g(z + b)
`slope`     δ = e · g′ in place, and the bias's gradient Σ_rows δ in the same pass over memory
`output`    from z^(L): the cost of each cell in float64, δ^(L) in place of z^(L), and the bias's gradient

A loop over a (rows, columns) matrix runs over it as over one long row, so that layers of 10 or 25 units fill whole
vectors. What belongs to columns (a bias, its gradient, the sums of cells) is therefore *tiled*: `tile` copies, one
after the other. Sums go into such a row of sums, element by element: their order is in the text and not the compiler's.
Loops that need a whole row first (softmax: its largest, its sum) run row by row.

Addresses and lengths travel as int64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import BackendError
from ...formula import Formula
from ...trace import Number, Recorder, Shape, Step, Symbol, needed

FULL: Shape = (True, True)
ROW: Shape = (False, True)
COLUMN: Shape = (True, False)

TERMS = 4  # rows of scratch memory that a loop may use
REDUCTIONS = 16  # along rows, that it may have

_INFIX = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "bitwise_or": "|", "bitwise_and": "&",
    "less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">=", "equal": "==", "not_equal": "!=",
}  # fmt: skip
_OWN = ("exp", "expm1", "log", "log1p", "tanh")  # vector_math has them; the compiler's own would end vectorisation

_HEADER = """\
import numpy as np
from numba import boolean, cfunc, float32, float64, int8, int16, int32, int64
from numba import types, uint8, uint16, uint32, uint64, void
from gpubp.backend.compiled.intrinsics import half, wide_vectors
from gpubp.backend.compiled.vector_math import exp, expm1, log, log1p, sigmoid, tanh

# {what}
"""


def load(formula: Formula, dtypes: Mapping[str, np.dtype], out: np.dtype, *, one_output: bool = False) -> str:
    """``kernel(rows, columns, tile, x, mu, sigma, out)`` or ``(…, label, k, out)``: rows or labels as they are stored.

    `dtypes` are those of the arguments; the formula takes those it knows by name. One output is one long row: its k is
    tiled and its labels are not one for each row but simply one after the other.
    """
    recorder = Recorder()
    shapes = {"mu": ROW, "sigma": ROW, "k": ROW, "label": FULL if one_output else COLUMN}
    symbols = {name: recorder.input(name, dtype, shapes.get(name, FULL)) for name, dtype in dtypes.items()}
    result = formula(recorder, *(symbols[a.name] for a in formula.inputs))
    loop = _Loop(recorder, formula.name, [s.step for s in symbols.values()], {"out": out})
    loop.store("out", result.step)
    return loop.text()


def activate(formula: Formula, dtype: np.dtype, *, inplace: bool) -> str:
    """``kernel(rows, columns, tile, z, b, a)``: a ← g(z + b), b is tiled; `inplace`: z ← g(z + b), and a is not read.

    One text for both would do, but the compiler would find z and a to overlap and take its slow loop.
    """
    recorder = Recorder()
    z, b = recorder.input("z", dtype), recorder.input("b", dtype, ROW)
    loop = _Loop(recorder, formula.name, [z.step, b.step], {"a": dtype})
    loop.store("z" if inplace else "a", formula(recorder, z, b).step)
    return loop.text()


def addition(formula: Formula, dtype: np.dtype) -> str:
    """``kernel(rows, columns, tile, a, b)``: a ← a + b."""
    recorder = Recorder()
    symbols = [recorder.input(a.name, dtype) for a in formula.inputs]
    loop = _Loop(recorder, formula.name, [s.step for s in symbols], {})
    loop.store(formula.inputs[0].name, formula(recorder, *symbols).step)
    return loop.text()


def slope(formula: Formula, dtype: np.dtype) -> str:
    """``kernel(rows, columns, tile, e, a, z, b, sums)``: e ← e·g′, sums += e; b is tiled, sums too."""
    recorder = Recorder()
    symbols = {name: recorder.input(name, dtype, ROW if name == "b" else FULL) for name in "eazb"}
    delta = formula(recorder, *(symbols[a.name] for a in formula.inputs)).astype(dtype)
    loop = _Loop(recorder, formula.name, [s.step for s in symbols.values()], {"sums": dtype})
    loop.store("e", delta.step)
    loop.add("sums", delta.step)
    return loop.text()


def output(
    score: Formula, cell: Formula, h: Formula, delta: Formula, dtype: np.dtype, *, weighted: bool, held: bool
) -> str:
    """``kernel(rows, columns, tile, z, b, y, w, v, sums, cells, held_cells, rest, terms)``: the forward pass's end.

    z ← δ^(L), sums += δ^(L), cells += w·cost, held_cells += v·cost; b and all sums are tiled. w, v: (rows, columns),
    not read unless `weighted`, `held`. rest: (columns,) float64 for each reduction along rows; terms: `TERMS` tiled
    rows.
    """
    recorder = Recorder()
    z, b, y, w, v = (recorder.input(n, dtype, ROW if n == "b" else FULL) for n in "zbywv")
    weight: Any = w if weighted else 1.0
    s = score(recorder, z, b).astype(dtype)
    d = delta(recorder, h(recorder, s).astype(dtype), y, weight).astype(dtype)
    real = np.dtype(np.float64)
    more = {"sums": dtype, "cells": real, "held_cells": real, "rest": real, "terms": dtype}
    name = f"{cell.name}{'_weighted' if weighted else ''}{'_held' if held else ''}"
    loop = _Loop(recorder, name, [i.step for i in (z, b, y, w, v)], more)
    cost: Symbol = cell(recorder, s, y, weight)
    loop.add("cells", cost.step)
    if held:
        loop.add("held_cells", cell(recorder, s, y, v).step)
    loop.store("z", d.step)
    loop.add("sums", d.step)
    return loop.text()


class _Loop:
    """Writes one kernel: its results are noted by `store` and `add`, `text` gives the whole."""

    def __init__(self, recorder: Recorder, name: str, inputs: list[Step], more: dict[str, np.dtype]) -> None:
        self._recorder, self._name, self._inputs, self._more = recorder, name, inputs, more
        self._sinks: list[tuple[str, Step]] = []
        self._names: dict[int, str] = {}

    def store(self, name: str, step: Step) -> None:
        """name[i, j] = step."""
        kind = {**{i.name: i.dtype for i in self._inputs}, **self._more}[name]
        value = "{value}" if kind == step.dtype else _type(kind) + "({value})"
        self._sinks.append((name + "[{at}] = " + value, step))

    def add(self, name: str, step: Step) -> None:
        """name[j] += step, where `name` is tiled as a row is."""
        self._sinks.append((name + "[j] += {value}", step))

    def text(self) -> str:
        """The kernel."""
        steps = needed(self._recorder, [step for *_, step in self._sinks])
        self._names = {id(step): f"v{k}" for k, step in enumerate(steps)}
        if any(s.dtype == np.float16 and s.operation != "input" for s in steps) or np.float16 in self._more.values():
            raise BackendError(f"{self._name}: float16 inside a formula", do="take --kernel numpy")
        by_rows = any(not step.shape[1] for step in steps)
        pointers = [(step.name, step.dtype) for step in self._inputs] + list(self._more.items())
        types = "".join(f", types.CPointer({_type(dtype)})" for _, dtype in pointers)
        body = self._by_rows(steps) if by_rows else self._flat()
        return (
            _HEADER.format(what=self._name)
            + f'@cfunc(void(int64, int64, int64{types}), cache=True, error_model="numpy", fastmath={{"contract"}})\n'
            + f"def kernel(rows, columns, tile, {', '.join(name for name, _ in pointers)}):\n"
            + "".join(f"    {line}\n" for line in ["wide_vectors()", *body])
        )

    def _flat(self) -> list[str]:
        """One long row."""
        return [
            "size = rows * columns",
            "period = max(tile, 1) * columns",  # a block may have no rows, and then no tile
            "for q in range(0, size, period):",
            "    width = min(period, size - q)",
            *(f"    {line}" for line in self._results("q + j", "width")),
        ]

    def _by_rows(self, steps: list[Step]) -> list[str]:
        """What a row has one of (a largest, a sum) comes first, then the row's elements."""
        lines, reductions = [], 0
        for step in (s for s in steps if not s.shape[1]):
            value = self._value(step)
            if step.operation == "input":
                lines.append(f"{value} = {step.name}[i]")
            elif step.operation in ("row_max", "row_sum"):
                # its terms are computed as vectors, and then taken one by one
                term, at = step.operands[0], f"rest[{reductions} * columns + j]"
                assert isinstance(term, Step)
                if reductions == REDUCTIONS:
                    raise BackendError(
                        f"{self._name}: more than {REDUCTIONS} reductions along rows", do="take --kernel numpy"
                    )
                largest = step.operation == "row_max"
                lines += [
                    *self._loop(term, "i * columns + j", "columns", [at + " = {value}"]),
                    f"{value} = {'-np.inf' if largest else '0.0'}",
                    "for j in range(columns):",
                    f"    {value} = " + (f"max({value}, {at})" if largest else f"{value} + {at}"),
                ]
                reductions += 1
            else:
                lines.append(f"{value} = {self._expression(step)}")
        lines += self._results("i * columns + j", "columns")
        return ["for i in range(rows):", *(f"    {line}" for line in lines)]

    def _results(self, at: str, width: str) -> list[str]:
        """What each element of a row is, and where that goes: a loop for each value.

        Not one for all: the compiler must make sure at run time that no two arrays overlap, and where there are many
        pairs it gives up and leaves the loop scalar.
        """
        lines = []
        for result in dict.fromkeys(step for _, step in self._sinks):
            lines += self._loop(result, at, width, [sink for sink, step in self._sinks if step is result])
        return lines

    def _loop(self, result: Step, at: str, width: str, sinks: list[str]) -> list[str]:
        """The loop along a row that computes one step and lets it go where `sinks` say.

        As many elements are computed at a time as there is room for of the *widest* type in a loop. So functions in
        float32 whose values a float64 result takes get a loop of their own before it.
        """
        lines, apart = [], self._narrow_functions(result)
        if len(apart) > TERMS:
            apart = []
        kept = {id(step): f"terms[{k} * {width} + j]" for k, step in enumerate(apart)}
        for goals, known in (*(([step], {}) for step in apart), ([result], kept)):
            lines.append(f"for j in range({width}):")
            lines += [f"    {line}" for line in self._elements(goals, at, known)]
            ends = sinks if known is kept or not apart else [kept[id(goals[0])] + " = {value}"]
            lines += [f"    {sink.format(at=at, value=self._value(goals[0]))}" for sink in ends]
        return lines

    def _narrow_functions(self, result: Step) -> list[Step]:
        """The steps below `result` of a narrower type than those that read them, where they are no mere arithmetic."""
        found: dict[int, Step] = {}
        for step in self._below([result]):
            for operand in _reads(step):
                narrower = operand.dtype.kind == "f" and operand.dtype.itemsize < step.dtype.itemsize
                if narrower and any(s.operation in _OWN for s in self._below([operand])):
                    found[id(operand)] = operand
        return list(found.values())

    def _below(self, results: list[Step], known: Mapping[int, str] | None = None) -> list[Step]:
        """The steps of one element that lead to these results, in order; not beyond those that are known already."""
        wanted: set[int] = set()
        stack = list(results)
        while stack:
            step = stack.pop()
            if id(step) not in wanted and step.shape[1]:
                wanted.add(id(step))
                stack.extend(() if known and id(step) in known else _reads(step))
        return [step for step in self._recorder.steps if id(step) in wanted]

    def _elements(self, results: list[Step], at: str, known: Mapping[int, str]) -> list[str]:
        return [
            f"{self._value(step)} = {known.get(id(step)) or self._expression(step, at)}"
            for step in self._below(results, known)
        ]

    def _value(self, step: Step) -> str:
        return self._names[id(step)]

    def _expression(self, step: Step, at: str = "") -> str:
        if step.operation == "input":
            value = f"{step.name}[{'j' if step.shape == ROW else at}]"
            return f"half({value})" if step.dtype == np.float16 else value
        if step.operation == "astype":
            (operand,) = step.operands
            assert isinstance(operand, Step)
            return f"{_type(step.dtype)}({self._value(operand)})"
        taken = [self._operand(o, dtype) for o, dtype in zip(step.operands, step.loop, strict=True)]
        if z := _logistic(step):
            return f"sigmoid({self._value(z)})"
        if step.operation in _INFIX:
            sign = _INFIX[step.operation]
            if step.dtype == bool:  # NumPy's truth + truth is truth
                sign = {"+": "|", "*": "&"}.get(sign, sign)
            value = f" {sign} ".join(taken)
            return f"{_type(step.dtype)}({value})" if step.dtype.kind in "iu" else value  # bytes wrap
        match step.operation:
            case "negative":
                return f"-{taken[0]}"
            case "absolute":
                return f"abs({taken[0]})"
            case "invert":
                return f"not {taken[0]}" if step.dtype == bool else f"~{taken[0]}"
            case "where":
                return f"{taken[1]} if {taken[0]} else {taken[2]}"
            case "maximum" | "minimum":  # a NaN on either side stays one
                a, b = taken
                sign = "<" if step.operation == "maximum" else ">"
                return f"{b} if ({a} {sign} {b}) | ({b} != {b}) else {a}"
            case name:
                return f"{'' if name in _OWN else 'np.'}{name}({', '.join(taken)})"

    def _operand(self, operand: Step | Number, dtype: np.dtype) -> str:
        if isinstance(operand, Step):
            text = self._value(operand)
            known = np.dtype(np.float32) if operand.dtype == np.float16 else operand.dtype
            return text if known == dtype else f"{_type(dtype)}({text})"
        if dtype.kind == "f" and not math.isfinite(operand):
            return f"{_type(dtype)}({'-' if operand < 0 else ''}np.{'nan' if operand != operand else 'inf'})"
        return f"{_type(dtype)}({operand!r})"


def _reads(step: Step) -> list[Step]:
    """The steps whose values the step's expression names."""
    z = _logistic(step)
    return [z] if z else [o for o in step.operands if isinstance(o, Step)]


def _logistic(step: Step) -> Step | None:
    """z where the step is 1 / (1 + e^−z), which vector_math has as one function, cheaper than its parts."""

    def parts(of: Step | Number, operation: str, number: Number | None = None) -> Step | None:
        """The operand of such a step that is not the number."""
        if not isinstance(of, Step) or of.operation != operation:
            return None
        left = [o for o in of.operands if isinstance(o, Step)]
        numbers = [o for o in of.operands if not isinstance(o, Step)]
        return left[0] if len(left) == 1 and numbers == ([] if number is None else [number]) else None

    found = parts(step, "divide", 1) if step.operands[:1] == (1,) else None
    for operation, number in (("add", 1), ("exp", None), ("negative", None)):
        found = parts(found, operation, number) if found else None
    return found


def _type(dtype: np.dtype) -> str:
    """numba's name of the type. It does not know half precision: such numbers are read as they lie, see `half`."""
    return {"bool": "boolean", "float16": "uint16"}.get(dtype.name, dtype.name)
