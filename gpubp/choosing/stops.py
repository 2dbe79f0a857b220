"""When a training is good enough to be compared with others: the same rule for all of them.

It ends when the last `OVER` iterations together have taken J down by no more than a fraction `decrease` of it, so that
one short step does not end it.
"""

from __future__ import annotations

from typing import Any

from ..errors import UsageError

OVER = 5  # iterations that are looked at together


class Decrease:
    """A callback of `gpubp.training.fit` that ends a run where J hardly falls any more: J_{k−5} − J_k ≤ decrease · J_k.

    Raises:
        UsageError: a fraction that is none.
    """

    def __init__(self, decrease: float) -> None:
        if not 0 <= decrease < 1:
            raise UsageError(f"a decrease of {decrease}", wanted="0 or more and less than 1, such as 0.001")
        self.decrease, self.reached = decrease, False
        self._costs: list[float] = []

    def __call__(self, progress: Any, state: Any) -> bool:
        self._costs = [*self._costs[-OVER:], progress.J]
        first, last = self._costs[0], self._costs[-1]
        self.reached = len(self._costs) > OVER and first - last <= self.decrease * abs(last)
        return self.reached
