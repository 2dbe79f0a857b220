"""What a classifier's answers are worth: confusion, ROC and precision–recall of each class or label, calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..choosing.point import codes
from ..data.targets import TargetSpec
from .calibration import Bins, Calibration
from .curves import Curve, Scores

MOST_PAIRS = 1000  # classes: the confusion matrix of more is not kept
DRAWN = 30  # outputs whose curves are kept
_HARDEST = 3  # curves that are kept of more


@dataclass(frozen=True)
class Of:
    """One class or label.

    Attributes:
        name: as the user writes it; of labels their number, from 1.
        rows: the weight of the rows that are of it.
        answered: of those for which it was the answer.
        right: of both together.
        auc, ap: of its output against all other rows, see `curves.Curve`; None where that is not defined, and for the
            first class of a binary problem, whose output is that of the second one.
    """

    name: str
    rows: float
    answered: float
    right: float
    auc: float | None
    ap: float | None

    @property
    def recall(self) -> float | None:
        """The share of its rows that were found."""
        return self.right / self.rows if self.rows else None

    @property
    def precision(self) -> float | None:
        """The share of the answers that were right."""
        return self.right / self.answered if self.answered else None


@dataclass(frozen=True)
class Answers:
    """What a classifier's answers are worth.

    Attributes:
        kind: "classes", "binary" or "multilabel".
        accuracy: the share of rows that were right; of labels the mean of their shares.
        exact: of labels the share of rows with every one right; else None.
        confusion: (K, K), rows the true class, columns the answer; None of labels and of very many classes.
        each: by class or label.
        pooled: the curves of all pairs of a row and an output together (micro-average).
        curves: by name, those of `DRAWN` outputs, or of more those of the lowest area.
        calibration: see there.
        exact_curves: whether curves are exact and not from histograms.
    """

    kind: str
    accuracy: float
    exact: float | None
    confusion: np.ndarray | None
    each: tuple[Of, ...]
    pooled: Curve
    curves: dict[str, Curve]
    calibration: Calibration
    exact_curves: bool

    @property
    def mean_auc(self) -> float | None:
        """The mean over the outputs that have one (macro-average)."""
        return _mean([one.auc for one in self.each])

    @property
    def mean_ap(self) -> float | None:
        """The mean average precision over the outputs that have one."""
        return _mean([one.ap for one in self.each])

    def pairs(self, most: int) -> list[tuple[str, str, float]]:
        """The most frequent confusions: true class, answer, and the weight of the rows; the most frequent first."""
        if self.confusion is None:
            return []
        wrong = self.confusion * (1 - np.eye(len(self.confusion)))
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        found = [(int(i) // len(wrong), int(i) % len(wrong)) for i in order]
        return [(self.each[t].name, self.each[a].name, float(wrong[t, a])) for t, a in found if wrong[t, a] > 0]


class AnswerCollector:
    """Collects outputs, chunk by chunk.

    Args:
        m: rows there will be.
    """

    def __init__(self, targets: TargetSpec, m: int) -> None:
        K = 2 if targets.kind == "binary" else targets.outputs
        self._targets, self._K = targets, K
        self._scores = Scores(m, targets.outputs)
        self._confusion = np.zeros((K, K)) if targets.kind != "multilabel" and K <= MOST_PAIRS else None
        self._true, self._answered, self._right = np.zeros(K), np.zeros(K), np.zeros(K)
        self._exact, self._total, self._labels_right = 0.0, 0.0, np.zeros(K)
        second = f"the probability of '{targets.classes[1]}', and how often it is true" if targets.classes else ""
        self._bins = Bins(
            second if targets.kind == "binary"
            else "the probability of each label, and how often it is true" if targets.kind == "multilabel"
            else "the probability of the answer, and how often it is right"
        )  # fmt: skip

    def add(self, start: int, h: np.ndarray, y: np.ndarray, w: np.ndarray) -> None:
        """Rows from `start`: outputs (rows, K), encoded labels, weights (rows,)."""
        kind, K = self._targets.kind, self._K
        self._total += float(w.sum())
        if kind == "multilabel":
            true, said = y.reshape(h.shape) >= 0.5, h >= 0.5
            hit = said == true
            self._labels_right += w @ hit
            self._exact += float(w @ hit.all(axis=1))
            self._true += w @ true
            self._answered += w @ said
            self._right += w @ (said & true)
            self._scores.add(start, h, true, w)
            self._bins.add(h.ravel(), true.ravel(), np.repeat(w, K))
            return
        code, answer = y.reshape(len(y)).astype(np.intp), codes(h, kind)
        if self._confusion is not None:
            np.add.at(self._confusion, (code, answer), w)
        for sums, at, weight in (
            (self._true, code, w), (self._answered, answer, w), (self._right, code, w * (code == answer)),
        ):  # fmt: skip
            sums += np.bincount(at, weights=weight, minlength=K)
        if kind == "binary":
            self._scores.add(start, h, code[:, None] == 1, w)
            self._bins.add(h[:, 0], code == 1, w)
        else:
            self._scores.add(start, h, code, w)
            self._bins.add(h[np.arange(len(h)), answer], code == answer, w)

    def result(self) -> Answers:
        """What was found."""
        kind, K = self._targets.kind, self._K
        names = [str(c) for c in self._targets.classes or ()] or [str(k + 1) for k in range(K)]
        scored = names[1:] if kind == "binary" else names
        areas: dict[str, tuple[float | None, float | None]] = {}
        kept: dict[str, Curve] = {}
        for k, name in enumerate(scored):
            found = self._scores.of(k)
            areas[name] = found.auc, found.ap
            if found.auc is not None:
                kept[name] = found
            if len(scored) > DRAWN and len(kept) > _HARDEST:
                del kept[max(kept, key=lambda one: kept[one].auc or 0.0)]
        each = tuple(
            Of(name, float(t), float(a), float(r), *areas.get(name, (None, None)))
            for name, t, a, r in zip(names, self._true, self._answered, self._right, strict=True)
        )
        multilabel = kind == "multilabel"
        right = float(self._labels_right.mean()) if multilabel else float(self._right.sum())
        if self._confusion is not None:
            right = float(np.trace(self._confusion))
        return Answers(
            kind, right / self._total, self._exact / self._total if multilabel else None, self._confusion, each,
            self._scores.pooled(), kept, self._bins.result(), self._scores.exact,
        )  # fmt: skip


def plain_confusion(confusion: np.ndarray) -> list[list[Any]]:
    """As `gpubp evaluate` says it: whole numbers where all are."""
    whole = confusion.round()
    return (whole.astype(int) if (whole == confusion).all() else confusion).tolist()


def _mean(values: list[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return sum(known) / len(known) if known else None
