"""How good a model is on labelled rows: one forward pass, in memory that does not grow with rows × features.

A row's cost is found from its outputs (`gpubp.choosing.point.row_costs`); the rows of largest cost are then taken once
more in fp64, where log h keeps its digits. Row weights count throughout, and rows of weight 0 do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import Backend
from ..choosing.point import constant_cost, row_costs
from ..data.rows import Rows
from ..data.source import ArrayRows
from ..inference import Model, decide, outputs
from .answers import AnswerCollector, Answers
from .numbers import NumberCollector, Numbers

WORST = 24  # rows that are named


@dataclass(frozen=True)
class Worst:
    """A row that the model does badly on.

    Attributes:
        row: its place among the rows that were looked at, from 0.
        cost: of this row, without the λ term.
        truth, answer: as the user writes them.
        probability: of the answer; None of a regression.
        of_truth: the probability given to the truth; None of a regression and where there are several labels.
        x: (s_1,) as stored.
    """

    row: int
    cost: float
    truth: Any
    answer: Any
    probability: float | None
    of_truth: float | None
    x: np.ndarray


@dataclass(frozen=True)
class Quality:
    """What was found.

    Attributes:
        rows: that count; `dropped` more have a missing value.
        weighted: whether rows have weights: then all that is counted are sums of these.
        cost: the mean over rows, without the λ term, with its standard error (NaN where it is not known).
        constant: what the best constant answer costs on these rows.
        answers: of a classifier.
        numbers: of a regression.
        worst: rows of the largest cost, the worst first.
    """

    rows: int
    dropped: int
    weighted: bool
    cost: float
    cost_se: float
    constant: float
    answers: Answers | None
    numbers: Numbers | None
    worst: tuple[Worst, ...]


def measure(
    model: Model, rows: Rows, *, backend: Backend, precision: str = "fp32", worst: int = WORST
) -> Quality:  # fmt: skip
    """Run the model over labelled rows.

    Raises:
        DataError, UsageError: as `gpubp.inference.outputs`.
    """
    assert rows.labels is not None
    w = np.ones(rows.m) if rows.weights is None else rows.weights
    collect: AnswerCollector | NumberCollector
    if model.targets.kind == "real":
        collect = NumberCollector(rows.labels, w)
    else:
        collect = AnswerCollector(model.targets, rows.m)
    cost, squares, candidates = 0.0, np.zeros(3), _Largest(2 * worst)  # squares: Σw²c, Σw²c², Σw²
    for chunk in outputs(model, rows, backend=backend, precision=precision):
        part = slice(chunk.start, chunk.stop)
        y, weight = rows.labels[part], w[part]
        each = row_costs(model.network, chunk.h, y)
        cost += chunk.cost
        squares += [float(weight**2 @ each), float(weight**2 @ each**2), float(weight @ weight)]
        candidates.add(chunk.start, np.where(weight > 0, each, -np.inf))
        collect.add(chunk.start, chunk.h, y, weight)
    total = rows.weight_sum
    mean = cost / total
    spread = squares[1] - 2 * mean * squares[0] + mean**2 * squares[2]
    found = collect.result()
    weighted = bool(((w != 0) & (w != 1)).any())
    return Quality(
        rows.m - rows.dropped, rows.dropped, weighted, mean, float(np.sqrt(np.maximum(0.0, spread))) / total,
        constant_cost(model.network, rows),
        found if isinstance(found, Answers) else None, found if isinstance(found, Numbers) else None,
        _worst(model, rows, candidates.rows, worst, backend),
    )  # fmt: skip


class _Largest:
    """The rows of the largest cost; of equal ones the first."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._rows, self._costs = np.zeros(0, np.intp), np.zeros(0)

    def add(self, start: int, costs: np.ndarray) -> None:
        rows = np.concatenate([self._rows, np.arange(start, start + len(costs))])
        costs = np.concatenate([self._costs, costs])
        kept = np.argsort(-costs, kind="stable")[: self._count]
        kept = kept[costs[kept] > -np.inf]
        self._rows, self._costs = rows[kept], costs[kept]

    @property
    def rows(self) -> list[int]:
        return [int(row) for row in np.sort(self._rows)]


def _worst(model: Model, rows: Rows, chosen: Sequence[int], count: int, backend: Backend) -> tuple[Worst, ...]:
    """Of these rows those of the largest cost, in fp64."""
    if not chosen:
        return ()
    assert rows.labels is not None
    X = np.empty((len(chosen), rows.features), rows.source.dtype)
    for i, row in enumerate(chosen):
        rows.source.read(row, row + 1, X[i : i + 1])
    labels = rows.labels[list(chosen)]
    few = Rows(ArrayRows(X), X, rows.scaling, labels)
    h = np.concatenate([chunk.h for chunk in outputs(model, few, backend=backend, precision="fp64")])
    costs = row_costs(model.network, h, labels)
    answers = decide(model.targets, h)
    found = []
    for i in np.argsort(-costs, kind="stable")[:count]:
        truth, probability, of_truth = _said(model, labels[i], h[i])
        found.append(Worst(chosen[i], float(costs[i]), truth, answers[i].tolist(), probability, of_truth, X[i]))
    return tuple(found)


def _said(model: Model, label: Any, h: np.ndarray) -> tuple[Any, float | None, float | None]:
    """The truth as the user writes it, the probability of the answer, and of the truth."""
    kind, classes = model.targets.kind, model.targets.classes
    if kind in ("classes", "binary"):
        assert classes is not None
        code = int(np.reshape(label, -1)[0])
        each = h if kind == "classes" else np.array([1 - h[0], h[0]])
        answer = int(each.argmax()) if kind == "classes" else int(h[0] >= 0.5)
        return classes[code], float(each[answer]), float(each[code])
    if kind == "multilabel":
        return label.tolist(), float(np.where(h >= 0.5, h, 1 - h).prod()), None
    truth = np.reshape(label, -1)
    return (truth[0].item() if len(truth) == 1 else truth.tolist()), None, None
