"""A formula as a line of mathematics, with letters and with numbers, from the steps that `gpubp.trace` records.

So what is written is what is computed, and an activation or a cost that is added needs no words of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import BackendError
from ..formula import Formula
from ..trace import Number, Recorder, Step, Symbol

_TIGHT = {"add": 1, "subtract": 1, "multiply": 2, "divide": 2, "negative": 3}  # how tightly it binds
_SIGN = {"add": " + ", "subtract": " − ", "multiply": "·", "divide": "/"}
_ORDER = {"less": "<", "less_equal": "≤", "greater": ">", "greater_equal": "≥", "equal": "=", "not_equal": "≠"}
_WHOLE = 9


def steps(formula: Formula, **given: Any) -> Step | Number | None:
    """What a formula does with these inputs: None stands for a letter, a number for itself; None if it has no steps.

    With the number 1 for a factor, it is left out.
    """
    recorder = Recorder()
    inputs = [
        recorder.input(one.name, np.float64) if given[one.name] is None else given[one.name] for one in formula.inputs
    ]
    try:
        found = formula(recorder, *inputs)
    except (BackendError, AttributeError, TypeError):
        return None  # it does what no step stands for
    return found.step if isinstance(found, Symbol) else found


def written(value: Step | Number, names: Mapping[str, str], number: Callable[[float], str]) -> str:
    """A value as text.

    Args:
        names: what the inputs are called: a letter, or a number already written.
        number: how the numbers of the formula itself are written.
    """
    return _written(value, names, number)[0]


def _written(value: Step | Number, names: Mapping[str, str], number: Callable[[float], str]) -> tuple[str, int]:
    if not isinstance(value, Step):
        return number(value), _WHOLE
    if value.operation == "input":
        name = names[value.name]
        return name, 1 if name.startswith("−") else _WHOLE

    def part(operand: Step | Number, least: int) -> str:
        text, tight = _written(operand, names, number)
        return text if tight >= least else f"({text})"

    name, operands = value.operation, value.operands
    if name == "add" and 0 in operands:  # the bias, where z has it already
        return _written(operands[operands.index(0) ^ 1], names, number)
    if name in ("absolute", "row_sum", "row_max"):
        before, after = {"absolute": ("|", "|"), "row_sum": ("Σ(", ")"), "row_max": ("max(", ")")}[name]
        return f"{before}{part(operands[0], 0)}{after}", _WHOLE
    if name in _ORDER:
        return f"{part(operands[0], 1)} {_ORDER[name]} {part(operands[1], 1)}", 0
    if name == "where":
        condition, this, other = (part(one, 0) for one in operands)
        return f"{this} where {condition}, else {other}", 0
    if name == "negative":
        return f"−{part(operands[0], 3)}", 1
    if name in _SIGN:
        tight = _TIGHT[name]
        # what follows a minus or a dot wants its own minus in parentheses, and a second difference, too
        right = {"add": 2, "subtract": 2, "multiply": _WHOLE, "divide": _WHOLE}[name]
        left = 1 if tight == 1 else 2
        if name == "multiply" and isinstance(operands[1], Step) and operands[1].operation == "multiply":
            right = 2
        return f"{part(operands[0], left)}{_SIGN[name]}{part(operands[1], right)}", tight
    if name == "astype":
        return _written(operands[0], names, number)
    return f"{name}({', '.join(part(one, 0) for one in operands)})", _WHOLE
