"""What an error in the midst of a step leaves: the state before it, or one that says it is whole no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from suits import NAMES, on
from zoo import ZOO

from gpubp import optimizers
from gpubp.optimizers.vectors import HostVectors

OPERATIONS = ("put", "copy", "move", "subtract", "combine", "apply", "dot", "max_abs", "sum_abs", "products", "gemm")


TORN = "gn", "klbfgs", "lbfgs", "scg"  # those that change what is saved by operations on vectors


@pytest.mark.parametrize("name", NAMES)
def test_a_state_is_whole_or_says_that_it_is_not(name, monkeypatch):
    """No memory in any operation on vectors of some steps: a state that says it is whole is one between two steps."""
    problem = replace(ZOO[2], factored=name in ("klbfgs", "gn"))
    optimizer = optimizers.make(name, **on(name, problem.name))
    calls, fail_at = [0], [0]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            calls[0] += 1
            if calls[0] == fail_at[0]:
                raise MemoryError
            return real(*arguments, **more)

        return call

    for operation in OPERATIONS:
        monkeypatch.setattr(HostVectors, operation, counted(getattr(HostVectors, operation)))

    def bits(state: Any) -> dict[str, bytes]:
        return {key: np.asarray(value).tobytes() for key, value in state.saved().items()}

    state = optimizer.init(problem, np.array(problem.start))
    seen, begun = [bits(state)], calls[0]
    for _ in range(7):
        optimizer.step(problem, state)
        seen.append(bits(state))
    torn = 0
    for at in range(begun + 1, calls[0] + 1):
        calls[0] = fail_at[0] = 0
        state = optimizer.init(problem, np.array(problem.start))
        calls[0], fail_at[0] = begun, at
        for done in range(7):
            try:
                optimizer.step(problem, state)
            except MemoryError:
                torn += not state.whole
                assert not state.whole or bits(state) == seen[done], f"operation {at}, step {done}"
                break
    assert torn > 0 or name not in TORN
