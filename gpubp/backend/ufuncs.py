"""A formula as a list of NumPy ufuncs that work in place: the reference's own operations, without its temporaries.

A reference written as ``1 / (1 + xp.exp(-(z + b)))`` makes five arrays, each new from the operating system where blocks
are large: that costs more than the arithmetic. Here each step of its trace gets a place: the result's own array where
that is free, a buffer whose last reader has passed, or another buffer of the thread. The bits are the reference's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from ..formula import Formula
from ..trace import Number, Recorder, Shape, Step, needed

MOST_BOUND = 2048  # bound programs of a thread: beyond, blocks are not what they were
OUT = -1  # the place of the result; places 0, 1, … are the inputs', then the buffers'


@dataclass(frozen=True)
class Place:
    """Where a value lies that an operation reads."""

    index: int


@dataclass(frozen=True)
class _Call:
    """One operation: its operands, places or numbers, and the place of its result."""

    step: Step
    operands: tuple[Place | Number, ...]
    place: int


class Program:
    """The steps of one formula for inputs of certain types and shapes.

    Args:
        formula: what to compute.
        dtypes, shapes: of the inputs.
        numbers: what an input is where it is one number for all rows (the weight of rows that have none): what can be
            left out then is.
        out: the type of the result's array; None where the formula is a sum and its cells stay in a buffer. The array
            may be that of an input that looks like it.
    """

    def __init__(
        self,
        formula: Formula,
        dtypes: tuple[np.dtype, ...],
        shapes: tuple[Shape, ...],
        numbers: tuple[Number | None, ...],
        out: np.dtype | None,
    ) -> None:
        recorder = Recorder()
        symbols = [recorder.input(a.name, d, s) for a, d, s in zip(formula.inputs, dtypes, shapes, strict=True)]
        inputs = [symbol.step for symbol in symbols]
        given = [symbol if number is None else number for symbol, number in zip(symbols, numbers, strict=True)]
        result = formula(recorder, *given).step
        whole = (any(s[0] for s in shapes), any(s[1] for s in shapes))
        self.calls: list[_Call] = []
        self.buffers: list[tuple[np.dtype, Shape]] = []
        at = {id(step): k for k, step in enumerate(inputs)}
        # the values that lie in a place; it is free once their last readers have passed
        holds: dict[int, list[Step]] = {OUT: [s for s in inputs if out and (s.dtype, s.shape) == (out, whole)]}
        steps = needed(recorder, [result])
        last = {id(o): i for i, step in enumerate(steps) for o in step.operands if isinstance(o, Step)}
        for i, step in enumerate(steps):
            if step.operation == "input":
                continue
            inplace = _inplace(step)

            def fits(place: int, i: int = i, step: Step = step, inplace: tuple[Step, ...] = inplace) -> bool:
                if place == OUT and out is None:  # a type compared with None is float64
                    return False
                kind = (out, whole) if place == OUT else self.buffers[place - len(inputs)]
                passed = (last.get(id(v), -1) < i + any(v is one for one in inplace) for v in holds[place])
                return kind == (step.dtype, step.shape) and all(passed)

            warm = [at[id(o)] for o in inplace if at[id(o)] in holds]  # in the cache, for they are read just now
            place = next((k for k in (OUT, *warm, *holds) if fits(k)), None)
            if place is None:
                place = len(inputs) + len(self.buffers)
                self.buffers.append((step.dtype, step.shape))
            operands = tuple(Place(at[id(o)]) if isinstance(o, Step) else o for o in step.operands)
            self.calls.append(_Call(step, operands, place))
            holds[place], at[id(step)] = [step], place
        self._result = at[id(result)]

    def bind(self, inputs: Sequence[np.ndarray], out: np.ndarray | None, memory: Memory) -> Bound:
        """The calls for these arrays."""
        # not the largest: a block may have no rows
        rows, columns = (next((i.shape[axis] for i in inputs if i.shape[axis] != 1), 1) for axis in (0, 1))
        places = [
            *inputs,
            *(
                memory.buffer(k, dtype, (rows if many else 1, columns if wide else 1))
                for k, (dtype, (many, wide)) in enumerate(self.buffers)
            ),
            out,  # index −1
        ]
        calls: list[Callable[[], Any]] = []
        for call in self.calls:
            operands = [places[o.index] if isinstance(o, Place) else o for o in call.operands]
            calls += _calls(call.step, operands, places[call.place])
        result = places[self._result]
        if out is not None and self._result != OUT:
            calls.append(partial(np.copyto, out, result, casting="unsafe"))
            result = out
        return Bound((inputs, out), calls, result)


class Bound(NamedTuple):
    """A program for certain arrays, which it keeps alive; its calls, and where the result lies after them."""

    arrays: Any
    calls: list[Callable[[], Any]]
    result: np.ndarray


def _calls(step: Step, operands: list[Any], out: Any) -> list[Callable[[], Any]]:
    match step.operation:
        case "astype":
            return [partial(np.copyto, out, operands[0], casting="unsafe")]
        case "where":
            condition, a, b = operands
            return [partial(np.copyto, out, b), partial(np.copyto, out, a, where=condition)]
        case "row_max":
            return [partial(np.maximum.reduce, operands[0], axis=1, keepdims=True, out=out)]
        case "row_sum":
            return [partial(np.add.reduce, operands[0], axis=1, keepdims=True, out=out)]
        case ufunc:
            return [partial(getattr(np, ufunc), *operands, out=out)]


def _inplace(step: Step) -> tuple[Step, ...]:
    """The operands that the operation may overwrite with its result."""
    if step.operation in ("row_max", "row_sum"):
        return ()
    # where() is two copies: only what is copied first may lie where the result goes
    operands = step.operands[2:] if step.operation == "where" else step.operands
    return tuple(o for o in operands if isinstance(o, Step))


class Memory(threading.local):
    """What a thread keeps: arrays for intermediate values, grown to the largest block, and bound programs.

    A pass goes over the same blocks as the one before it, and Python's part of a call is what other threads wait for.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[int, np.dtype], np.ndarray] = {}
        self.bound: dict[tuple[Any, ...], Bound] = {}

    def buffer(self, index: int, dtype: np.dtype, shape: tuple[int, int]) -> np.ndarray:
        """Buffer number `index`, its content undefined."""
        size = shape[0] * shape[1]
        flat = self._buffers.get((index, dtype))
        if flat is None or flat.size < size:
            flat = self._buffers[index, dtype] = np.empty(size, dtype)
        return flat[:size].reshape(shape)


@lru_cache(maxsize=1024)
def program(
    formula: Formula,
    dtypes: tuple[np.dtype, ...],
    shapes: tuple[Shape, ...],
    numbers: tuple[Number | None, ...],
    out: np.dtype | None,
) -> Program:
    """The program, made once."""
    return Program(formula, dtypes, shapes, numbers, out)


def compute(formula: Formula, inputs: Sequence[np.ndarray], out: np.ndarray | None, memory: Memory) -> np.ndarray:
    """formula(inputs) for matrices that broadcast, into `out`; or its cells, in a buffer, where that is None."""
    key = (formula, *map(id, inputs), id(out))
    bound = memory.bound.get(key)
    if bound is None:
        if len(memory.bound) >= MOST_BOUND:
            memory.bound.clear()
        bound = memory.bound[key] = _bind(formula, inputs, out, memory)
    for call in bound.calls:
        call()
    return bound.result


def _bind(formula: Formula, inputs: Sequence[np.ndarray], out: np.ndarray | None, memory: Memory) -> Bound:
    rows = [i[None] if i.ndim == 1 else i for i in inputs]
    target = out[None] if out is not None and out.ndim == 1 else out
    numbers = tuple(i.item(0) if i.strides == (0, 0) else None for i in rows)
    shapes = tuple((i.shape[0] != 1, i.shape[1] != 1) for i in rows)
    made = program(formula, tuple(i.dtype for i in rows), shapes, numbers, None if target is None else target.dtype)
    return made.bind(rows, target, memory)._replace(arrays=(inputs, out))
