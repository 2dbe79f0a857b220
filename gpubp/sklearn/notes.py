"""What is noted of a training while it runs."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..data.rows import Rows
    from ..data.source import RowSource
    from ..prepare import Prepared
    from .perceptron import Perceptron


class Notes:
    """What is noted after each iteration: the loss, under early stopping the score on the rows held out, and aloud
    where `verbose` asks for it."""

    def __init__(self, estimator: Perceptron, ready: Prepared) -> None:
        self.losses: list[float] = []
        self.scores: list[float] = []
        self._verbose, self._ready = estimator.verbose, ready
        self._held = _held_out(ready.rows) if estimator.early_stopping else None

    def __call__(self, progress: Any, state: Any) -> None:
        self.losses.append(progress.J)
        if self._verbose:
            sys.stdout.write(f"Iteration {progress.iteration}, loss = {progress.J:.8f}\n")
        if self._held is not None:
            self.scores.append(self.score(state.vectors.to_host(state.Theta)))
            if self._verbose:
                sys.stdout.write(f"Validation score: {self.scores[-1]:f}\n")

    def score(self, Theta: np.ndarray) -> float:
        """On the rows held out: the share of right answers, or R²; NaN where that is not defined."""
        from ..inference import evaluate
        from ..precision import EXACT

        ready, held = self._ready, self._held
        assert held is not None
        objective = ready.objective
        precision = objective.precision if objective.precision in EXACT else "fp32"
        found = evaluate(ready.model(Theta), held, backend=objective.backend, precision=precision)
        score = found["r2"] if "r2" in found else found.get("exact", found.get("accuracy"))
        return math.nan if score is None else float(score)


def _held_out(rows: Rows) -> Rows:
    """The rows held out, by themselves: in memory where all rows are, else read again each time."""
    from ..data.rows import Rows
    from ..data.source import ArrayRows
    from ..data.views import Picked

    assert rows.validation is not None and rows.labels is not None
    held = np.flatnonzero(rows.validation)
    source: RowSource = Picked(rows.source, held)
    kept = np.empty((len(held) if len(rows.kept) == rows.m else 0, source.features), source.dtype)
    if len(kept):
        source.read(0, len(held), kept)
        source = ArrayRows(kept)
    return Rows(source, kept, rows.scaling, rows.labels[held], rows.validation[held])
