"""Prediction and evaluation: forward passes over any number of rows.

A `Model` is what training leaves: the network, Θ, how x is scaled, what the outputs mean. Rows stream through in
chunks, so predictions for a file larger than memory can be written as they come.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from . import backprop
from .backend import Backend, for_forward
from .backprop import Workspace
from .communicator import Communicator, Solo
from .data.missing import RULES
from .data.rows import Rows
from .data.scaling import Scaling
from .data.select import Selection
from .data.source import ArrayRows, RowSource
from .data.targets import TargetSpec, decode
from .data.views import Columns, Filled, Gapless
from .errors import DataError, UsageError
from .feed import Feed, fold
from .network import Network
from .precision import EXACT
from .precision import precision as precision_of
from .tree import blocks


@dataclass(frozen=True)
class Model:
    """A trained network.

    Attributes:
        network: layers, activation, cost.
        Theta: the flat parameters, (P,) float64; `matrices` gives Ng's Θ^(l).
        scaling: how x is scaled before it enters the network.
        targets: what the outputs stand for: classes as the user wrote them, labels, or real numbers.
        lambda_: λ of the training.
        job: what was asked for: the data file, names in it, options.
        history: one record per iteration.
        ending: why training ended, `{"kind": …, "reason": …}`; None for a run in flight.
        fill: (s_1,) float64, what a missing value (NaN) of each column is replaced by, where training was told
            ``missing="mean"`` or ``"drop"``; else None.
        reached: ``iteration``, ``J``, ``gradient`` and ``validation`` of this Θ, which need not be of the last
            iteration; None is what is not known. Empty where nothing was trained.

    Examples:
        >>> import numpy as np, gpubp
        >>> X, y = np.arange(6.0).reshape(6, 1), ["low", "low", "low", "high", "high", "high"]
        >>> model = gpubp.train(X, y, hidden=(2,), lambda_=0.01)
        >>> model.network.sizes, model.targets.classes
        ((1, 2, 1), ('high', 'low'))
        >>> [Theta.shape for Theta in model.matrices]
        [(2, 2), (1, 3)]
    """

    network: Network
    Theta: np.ndarray
    scaling: Scaling
    targets: TargetSpec
    lambda_: float = 0.0
    job: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    ending: dict[str, str] | None = None
    fill: np.ndarray | None = None
    reached: dict[str, Any] = field(default_factory=dict)

    @property
    def drops(self) -> bool:
        """Whether rows with a missing value were left out of the training."""
        rule = RULES.get(self.job.get("missing", "error"))
        return rule is not None and rule.drops

    @property
    def selection(self) -> Selection:
        """The columns that the network is given, of those that the data have."""
        return replace(Selection.of(tuple(self.job.get("select") or ())), rows=None)

    @property
    def matrices(self) -> list[np.ndarray]:
        """Θ^(1) … Θ^(L−1), float64, shape (s_{l+1}, s_l + 1), the bias in column 0."""
        return self.network.unpack(self.Theta)

    def predict_proba(self, X: Any, *, backend: str = "auto", precision: str = "fp32") -> np.ndarray:
        """h_Θ(x) for each row of X, (m, K): probabilities of a classifier's outputs, predictions of a regression.

        With one output of a 0/1 classifier the two columns are the probabilities of both classes.

        Where training selected columns by number, they are taken from X; where it did by name, X has these alone.
        Missing values are replaced as in the training.

        Raises:
            DataError: X is not a matrix of the network's number of features, or holds a value that is not finite.

        Examples:
            >>> import numpy as np, gpubp
            >>> X, y = np.arange(6.0).reshape(6, 1), ["low", "low", "low", "high", "high", "high"]
            >>> model = gpubp.train(X, y, hidden=(2,), lambda_=0.01)
            >>> model.predict_proba([[0], [5]]).round(1)  # "high", "low"
            array([[0., 1.],
                   [1., 0.]])
        """
        h = self._outputs(X, backend, precision)
        return np.concatenate([1 - h, h], axis=1) if self.targets.kind == "binary" else h

    def predict(self, X: Any, *, backend: str = "auto", precision: str = "fp32") -> np.ndarray:
        """The class of each row as the user wrote it (m,), 0/1 labels (m, K), or real predictions.

        Real predictions are (m, K), or (m,) where there is one output.

        Examples:
            >>> import numpy as np, gpubp
            >>> X, y = np.arange(6.0).reshape(6, 1), ["low", "low", "low", "high", "high", "high"]
            >>> gpubp.train(X, y, hidden=(2,), lambda_=0.01).predict([[0], [5]]).tolist()
            ['low', 'high']
        """
        return decide(self.targets, self._outputs(X, backend, precision))

    def _outputs(self, X: Any, backend: str, precision: str) -> np.ndarray:
        source: RowSource = ArrayRows(np.asarray(X))
        if columns := self._columns(source.features):
            source = Columns(source, columns)
        if self.fill is not None:
            source = Gapless(source) if self.drops else Filled(source, self.fill)
        kept = source.array if isinstance(source, ArrayRows) else np.empty((0, source.features), source.dtype)
        rows = Rows(source, kept, self.scaling)
        parts = [chunk.h for chunk in outputs(self, rows, backend=for_forward(backend), precision=precision)]
        return np.concatenate(parts)

    def _columns(self, features: int) -> list[int]:
        """The columns to take of an array; none where it has the right ones."""
        selection = self.selection
        if not selection.columns or (features == self.network.sizes[0] and not selection.numbered):
            return []
        return selection.numbers(features, None, "X")


def decide(targets: TargetSpec, h: np.ndarray) -> np.ndarray:
    """Outputs as answers: the class with the largest output (binary: h ≥ ½), labels with h ≥ ½, or h itself."""
    if targets.kind == "classes":
        return decode(h.argmax(axis=1), targets)
    if targets.kind == "binary":
        return decode((h[:, 0] >= 0.5).astype(np.intp), targets)
    if targets.kind == "multilabel":
        return (h >= 0.5).astype(np.uint8)
    return h[:, 0] if targets.outputs == 1 else h


@dataclass(frozen=True)
class Chunk:
    """Outputs of rows [start, stop): h (rows, K), and the sum of w·cost where labels are known."""

    start: int
    stop: int
    h: np.ndarray
    cost: float


def outputs(
    model: Model, rows: Rows, *, backend: Backend, precision: str = "fp32", communicator: Communicator | None = None
) -> Iterator[Chunk]:
    """h_Θ(x) for all rows, chunk by chunk in order; blocks of a chunk are shared among the backend's owners.

    Args:
        communicator: the processes that share the chunks. They come to rank 0, the others get none.

    Raises:
        UsageError: another precision than fp32 and fp64.
        DataError: another number of features than the network has; a value of x that is not finite;
            at the end, a file that changed since it was opened.
    """
    network, dtype, ranks = model.network, precision_of(precision).dtype, communicator or Solo()
    if precision not in EXACT:
        raise UsageError(f"precision {precision} for outputs", wanted=f"one of {', '.join(EXACT)}")
    if rows.features != network.sizes[0]:
        raise DataError(f"rows of {rows.features} features", wanted=f"{network.sizes[0]}, as the model was trained on")
    _, most = backend.leaves_and_block(rows.m, network.sizes)
    pieces = blocks(0, rows.m, most)
    labelled = rows.labels is not None
    local = threading.local()

    size = max(stop - start for start, stop in pieces)
    with backend.guard():
        feed = Feed(backend, rows, network.K, dtype, check=True)
        Theta = fold(network, rows.scaling, model.Theta, np.empty(network.P)) if feed.folds else model.Theta
        layers = network.views(backend.upload(Theta.astype(dtype)))

    def one(piece: tuple[int, int]) -> Chunk:
        start, stop = piece
        with backend.guard():
            if not hasattr(local, "work"):
                local.work = Workspace(backend, network, dtype, size)
                local.staging = np.empty((size, network.sizes[0]), rows.source.dtype)
                local.cost = backend.empty((1,), np.dtype(np.float64))
            block = local.work.block(stop - start)
            feed.load(start, stop, local.staging, block, labelled=labelled)
            backprop.forward(backend, network, layers, block)
            backend.zero(local.cost)
            if labelled:
                backprop.add_cost(backend, network, block, block.w, local.cost)
            backprop.output(backend, network, block)
            h = np.array(backend.to_host(block.a[network.L]), dtype=np.float64)
            if not np.isfinite(h).all():
                row = start + int(np.argmin(np.isfinite(h).all(axis=1)))
                raise DataError(
                    f"the outputs for row {row} are not finite",
                    wanted="features within what the model was trained on",
                    do="try --precision fp64" if precision != "fp64" else "",
                )
            return Chunk(start, stop, h, float(backend.to_host(local.cost)[0]) * rows.unit)

    with ThreadPoolExecutor(backend.owners, "gpubp") if backend.owners > 1 else nullcontext() as pool:
        work = map if pool is None else pool.map
        if ranks.size == 1:
            # finished chunks that may wait for their turn: bounded, whatever m is
            group = 1 if pool is None else 4 * backend.owners
            for at in range(0, len(pieces), group):
                yield from work(one, pieces[at : at + group])
            rows.check()
            return
        group = 4 * min(ranks.gather(backend.owners))
        for at in range(0, len(pieces), group * ranks.size):
            first = at + group * ranks.rank
            found: list[Chunk] = []
            with ranks.together():
                found += work(one, pieces[first : first + group])
            for theirs in ranks.collect(found):
                with ranks.alone("writing what was computed"):
                    yield from theirs
    with ranks.together():
        rows.check()


def evaluate(
    model: Model, rows: Rows, *, backend: Backend, precision: str = "fp32", communicator: Communicator | None = None
) -> dict[str, Any]:
    """How well a model does on labelled rows, in one forward pass.

    Args:
        communicator: the processes that share the rows; all get the result.

    Returns:
        ``rows``, ``dropped`` (how many more have a missing value, where there are any), ``cost`` (without the λ term);
        for classifiers ``accuracy`` and ``confusion`` (rows: the true class, columns: the predicted one) with
        ``classes``, or ``accuracy`` per label and ``exact`` for several labels; for regressions ``rmse`` and ``r2``
        over all outputs. Row weights count throughout.
    """
    if rows.labels is None:
        raise DataError("rows without labels", wanted="y to compare with", do="name it with --y")
    targets, labels = model.targets, rows.labels
    w = np.ones(rows.m) if rows.weights is None else rows.weights
    K = 2 if targets.kind == "binary" else targets.outputs
    confusion = np.zeros((K, K))
    right, exact, cost = np.zeros(targets.outputs), 0.0, 0.0
    squared = np.zeros(targets.outputs)
    ranks = communicator or Solo()
    for chunk in outputs(model, rows, backend=backend, precision=precision, communicator=ranks):
        y, weight, h = labels[chunk.start : chunk.stop], w[chunk.start : chunk.stop], chunk.h
        cost += chunk.cost
        if targets.kind in ("classes", "binary"):
            answer = h.argmax(axis=1) if targets.kind == "classes" else (h[:, 0] >= 0.5).astype(np.intp)
            np.add.at(confusion, (y.astype(np.intp), answer), weight)
        elif targets.kind == "multilabel":
            hit = (h >= 0.5) == (y >= 0.5)
            right += weight @ hit
            exact += float(weight @ hit.all(axis=1))
        else:
            squared += weight @ (h - y.reshape(h.shape)) ** 2
    dropped = {"dropped": rows.dropped} if rows.dropped else {}
    result: dict[str, Any] = {"rows": rows.m - rows.dropped, **dropped, "cost": cost / rows.weight_sum}
    total = rows.weight_sum
    if targets.kind in ("classes", "binary"):
        result["accuracy"] = float(np.trace(confusion)) / total
        result["classes"] = list(targets.classes or ())
        whole = confusion.round()
        result["confusion"] = (whole.astype(int) if (whole == confusion).all() else confusion).tolist()
    elif targets.kind == "multilabel":
        result["accuracy"] = float(right.mean()) / total
        result["accuracy_per_label"] = (right / total).tolist()
        result["exact"] = exact / total
    else:
        y = labels.reshape(rows.m, -1).astype(np.float64)
        spread = w @ (y - (w @ y) / total) ** 2
        result["rmse"] = float(np.sqrt(squared.mean() / total))
        result["r2"] = float(np.mean(1 - squared / spread)) if (spread > 0).all() else None
        if targets.outputs > 1:
            result["rmse_per_output"] = np.sqrt(squared / total).tolist()
            result["r2_per_output"] = [1 - a / b if b > 0 else None for a, b in zip(squared, spread, strict=True)]
    return ranks.share(result)  # the outputs have come to the first rank alone
