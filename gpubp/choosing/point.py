"""One training and what it reached, on the rows it was trained on and on those that were held out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data.rows import Rows
from ..errors import OutOfMemory, UsageError
from ..inference import Model, outputs
from ..network import Network
from ..precision import EXACT
from ..prepare import Prepared
from ..stopping import Watch
from ..training import Callback, Progress, StopRequest, fit

_ASLEEP = 0.01  # of the largest weight it began with: below it, a unit has no slope left to grow by


@dataclass(frozen=True)
class Point:
    """What one training reached.

    Attributes:
        lambda_, hidden: what it was trained with.
        fold: which rows were held out, by number; 0 without folds. For a learning curve, the repeat.
        rows: how many it was trained on.
        J, cost: with the λ term and without, on the rows it was trained on.
        validation, validation_se: the cost on those held out, and its standard error as a mean over rows.
        score: on those held out: the share of right answers, or R² of a regression; None where that is not defined.
        constant: the cost on the training rows of the best constant answer: what costs are measured by.
        passes: all that the training has cost, in passes over the rows; the forward pass that judges it, a third of
            one, is not counted.
        iterations, seconds: likewise.
        ending, reason: why it ended.
        start: "fresh", or the λ or number of rows whose Θ it began with; "woken" is added where units had to be.
    """

    lambda_: float
    hidden: tuple[int, ...]
    fold: int
    rows: int
    J: float
    cost: float
    validation: float
    validation_se: float
    score: float | None
    constant: float
    passes: float
    iterations: int
    seconds: float
    ending: str
    reason: str
    start: str


@dataclass(frozen=True)
class Asked:
    """What all trainings of a sweep or a learning curve share.

    Attributes:
        decrease: the rule that ends them, see `stopping.Stopping`; 0 for none.
        stop, callbacks: as `gpubp.training.fit` takes them.
    """

    decrease: float
    stop: StopRequest
    callbacks: Sequence[Callback] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.decrease < 1:
            raise UsageError(f"a decrease of {self.decrease}", wanted="0 or more and less than 1, such as 0.001")


class Interrupted(Exception):
    """Raised where someone asked to stop: the point in flight is given up."""


def trained(
    ready: Prepared, asked: Asked, *, fold: int, warm: tuple[str, np.ndarray] | None = None
) -> tuple[Point, np.ndarray]:
    """Train to the rule from a fresh Θ, or from another's; the flat Θ that was reached comes second.

    Args:
        warm: what the other is called, and its flat Θ.

    Raises:
        Interrupted: someone asked to stop.
        GpubpError: as training raises.
    """
    network, job = ready.network, ready.job
    fresh = network.initial_Theta(job.seed)
    first, start = (fresh, "fresh") if warm is None else (warm[1], warm[0])
    if warm is not None and (woken := wake(network, first, fresh)) is not None:
        first, start = woken, f"{start}, woken"
    watch, last = Watch(replace(job.stopping, decrease=asked.decrease or None)), Last()
    ending, state = fit(
        ready.objective, ready.optimizer, first,
        iterations=job.iterations, callbacks=[last, *asked.callbacks], stop=asked.stop,
        climb=ready.at if job.climb else None, watch=watch,
    )  # fmt: skip
    ranks = ready.objective.communicator
    if state is None or ranks.asked:
        raise Interrupted
    Theta = np.array(watch.Theta_on_host(state))
    J = float(state.best[1] if watch.Theta is None else watch.J)
    judged: dict[str, Any] = {"validation": math.nan, "validation_se": math.nan, "score": None}
    if ending.kind != "failed":
        with np.errstate(over="ignore", invalid="ignore"):
            try:
                judged = judge(ready, ready.model(Theta))
            except OutOfMemory:  # of a device that keeps the rows of the training, which is over
                ready.objective.close()
                judged = judge(ready, ready.model(Theta))
    training = ready.rows.weights
    point = Point(
        lambda_=job.lambda_, hidden=job.hidden, fold=fold,
        rows=ready.rows.m if training is None else int(np.count_nonzero(training)),
        J=J, cost=J - penalty(network, Theta, job.lambda_, ready.rows.weight_sum),
        passes=float(state.passes), iterations=state.iteration, seconds=last.seconds,
        ending=ending.kind, reason=ending.reason, start=start, constant=constant_cost(network, ready.rows), **judged,
    )  # fmt: skip
    return point, Theta


class Last:
    """A callback that remembers how long the training took."""

    seconds = 0.0

    def __call__(self, progress: Progress, state: Any) -> None:
        self.seconds = progress.seconds


def wake(network: Network, Theta: np.ndarray, fresh: np.ndarray) -> np.ndarray | None:
    """Θ with the hidden units that a large λ has put to sleep as they were at first; None where none sleeps.

    Where the weights into and out of a unit are 0, J has no slope by which they could grow again, however small λ
    becomes: trained from there, a network would stay as small as the largest λ made it.
    """
    woken = Theta.copy()
    new, old = network.views(woken), network.views(fresh)
    found = False
    for l in range(1, network.L - 1):
        into = np.abs(new.W[l]).max(axis=1) < _ASLEEP * np.abs(old.W[l]).max(axis=1)
        out = np.abs(new.W[l + 1]).max(axis=0) < _ASLEEP * np.abs(old.W[l + 1]).max(axis=0)
        asleep = into | out
        if asleep.any():
            found = True
            new.W[l][asleep], new.b[l][0, asleep] = old.W[l][asleep], 0.0
            new.W[l + 1][:, asleep] = old.W[l + 1][:, asleep]
    return woken if found else None


def penalty(network: Network, Theta: np.ndarray, lambda_: float, weight_sum: float) -> float:
    """λ/(2Σw) · ΣΘ² without the biases."""
    return lambda_ / (2 * weight_sum) * sum(float(np.vdot(W, W)) for W in network.views(Theta).W[1:])


def judge(ready: Prepared, model: Model) -> dict[str, Any]:
    """Cost with its standard error, and score, on the rows held out, in one forward pass."""
    rows, kind = ready.rows, model.targets.kind
    assert rows.validation is not None and rows.labels is not None
    weights, labels = rows.validation, rows.labels
    held = Rows(rows.source, rows.kept, rows.scaling, labels, weights, first=rows.first, until=rows.until)
    total, cost, right = held.weight_sum, 0.0, 0.0
    squares = np.zeros(3)  # Σw²c, Σw²c², Σw²
    targets = np.zeros((3, model.network.K))  # Σw y, Σw y², Σw (h − y)²
    precision = ready.job.precision if ready.job.precision in EXACT else "fp32"
    backend, ranks = ready.objective.backend, ready.objective.communicator
    for chunk in outputs(model, held, backend=backend, precision=precision, communicator=ranks):
        w, y = weights[chunk.start : chunk.stop], labels[chunk.start : chunk.stop]
        if not w.any():
            continue
        chosen = w > 0
        w, y, h = w[chosen], y[chosen], chunk.h[chosen]
        cost += chunk.cost
        each = row_costs(model.network, h, y)
        squares += [float(w**2 @ each), float(w**2 @ each**2), float(w @ w)]
        if kind == "real":
            t = y.reshape(h.shape).astype(np.float64)
            targets += [w @ t, w @ t**2, w @ (h - t) ** 2]
        elif kind == "multilabel":
            right += float(w @ ((h >= 0.5) == (y >= 0.5)).mean(axis=1))
        else:
            right += float(w @ (codes(h, kind) == y.reshape(len(y)).astype(np.intp)))
    mean = cost / total
    spread = max(0.0, squares[1] - 2 * mean * squares[0] + mean**2 * squares[2])
    score: float | None = right / total
    if kind == "real":
        around = targets[1] - targets[0] ** 2 / total
        score = float(np.mean(1 - targets[2] / around)) if (around > 0).all() else None
    found = {"validation": mean, "validation_se": math.sqrt(spread) / total, "score": score}
    return ranks.share(found)  # outputs come to the first rank alone


def codes(h: np.ndarray, kind: str) -> np.ndarray:
    """The class numbers that outputs mean."""
    return h.argmax(axis=1) if kind == "classes" else (h[:, 0] >= 0.5).astype(np.intp)


def row_costs(network: Network, h: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The cost of each row from its outputs, for standard errors: where h has rounded to 0 or 1, about 28 at most.

    NaN for a cost that does not say which score an output has.

    Args:
        h: (rows, K).
        y: codes (rows,), or (rows, K).
    """
    K = network.K
    if network.J.inverse is None:
        return np.full(len(y), np.nan)
    if y.ndim == 1 and K > 1 and network.J.takes != "numbers":
        Y = np.zeros((len(y), K))
        Y[np.arange(len(y)), y.astype(np.intp)] = 1
    else:
        Y = y.reshape(len(y), K).astype(np.float64)
    return network.J.cell(np, network.J.inverse(np, h), Y, 1.0).sum(axis=1)


_PIECE = 1 << 16  # rows looked at together


def constant_cost(network: Network, rows: Rows) -> float:
    """The cost on rows of the constant answer that does best there, the mean of y: a model that knows nothing of x. It
    minimises each of the costs there are."""
    assert rows.labels is not None
    w = np.ones(rows.m) if rows.weights is None else rows.weights
    if rows.labels.ndim == 1 and network.K > 1:
        mean = np.bincount(rows.labels.astype(np.intp), weights=w, minlength=network.K) / w.sum()
    else:
        mean = (w @ rows.labels.reshape(rows.m, network.K).astype(np.float64)) / w.sum()
    total = 0.0
    for at in range(0, rows.m, _PIECE):
        y = rows.labels[at : at + _PIECE]
        total += float(w[at : at + _PIECE] @ row_costs(network, np.broadcast_to(mean, (len(y), network.K)), y))
    return total / float(w.sum())
