"""ROC and precision–recall curves, exact or from histograms of scores.

Rows are sorted by score, the highest first, and those of equal score are one group: no threshold lies between them. So
ties count half in the area under the ROC curve, which is the probability that a positive row scores above a negative
one, and precision is asked for between groups only.

Memory does not grow with the number of rows: up to `EXACT` scores are kept, and of more there are histograms of the
log-odds of the score, whose bins are groups. Rows that share a bin without sharing a score are then taken for ties;
`Curve.unsure` says by how much the area can be off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EXACT = 2_000_000  # scores (rows × outputs) that are kept as they are
BINS = 1 << 16  # of a histogram of one output's log-odds
_REACH = 20.0  # log-odds at the ends of a histogram: beyond, float32's 1 − h has no digits
_DRAWN = 300  # points of a curve that is drawn


@dataclass(frozen=True)
class Groups:
    """Rows by score, the highest first, in groups of equal score.

    Attributes:
        positive, negative: the weight of the rows of each kind in each group.
    """

    positive: np.ndarray
    negative: np.ndarray

    @classmethod
    def of(cls, score: np.ndarray, positive: np.ndarray, w: np.ndarray) -> Groups:
        """From scores (m,), truth (m,) bool and weights (m,); rows of weight 0 are left out."""
        counted = w > 0
        score, positive, w = score[counted], positive[counted], w[counted]
        if not len(score):
            return cls(np.zeros(0), np.zeros(0))
        order = np.argsort(-score, kind="stable")
        score, positive, w = score[order], positive[order], w[order]
        starts = np.flatnonzero(np.concatenate([[True], score[1:] != score[:-1]]))
        return cls(np.add.reduceat(w * positive, starts), np.add.reduceat(w * ~positive, starts))


@dataclass(frozen=True)
class Curve:
    """How well one score tells positive rows from negative ones.

    Attributes:
        positive, negative: the weight of the rows of each kind.
        auc: the area under the ROC curve; None where a kind has no row.
        ap: the average precision Σ (R_n − R_{n−1}) P_n over groups; None without a positive row.
        unsure: how far `auc` may be off because a group holds different scores; 0 where it is exact.
        fpr, tpr: the ROC curve from (0, 0) to (1, 1), thinned for drawing.
        recall, precision: the other curve, thinned; as many points.
    """

    positive: float
    negative: float
    auc: float | None
    ap: float | None
    unsure: float
    fpr: np.ndarray
    tpr: np.ndarray
    recall: np.ndarray
    precision: np.ndarray


def curve(groups: Groups, *, exact: bool = True) -> Curve:
    """The curves through the groups; `exact`: a group is one score."""
    held = groups.positive + groups.negative > 0
    p, n = groups.positive[held], groups.negative[held]
    tp, fp = np.cumsum(p), np.cumsum(n)
    P, N = (float(tp[-1]), float(fp[-1])) if len(p) else (0.0, 0.0)
    auc = float((n * (tp - p / 2)).sum()) / (P * N) if P and N else None
    unsure = 0.0 if exact or auc is None else float((p * n).sum()) / (2 * P * N)
    precision = tp / np.maximum(tp + fp, np.finfo(float).tiny)
    ap = float((p * precision).sum()) / P if P else None
    tpr, fpr = tp / (P or 1.0), fp / (N or 1.0)
    shown = _thinned(tpr, fpr)
    return Curve(
        P, N, auc, ap, unsure,
        fpr=np.concatenate([[0.0], fpr[shown]]), tpr=np.concatenate([[0.0], tpr[shown]]),
        recall=tpr[shown], precision=precision[shown],
    )  # fmt: skip


def _thinned(tpr: np.ndarray, fpr: np.ndarray) -> np.ndarray:
    """Which points are drawn: the first, the last, and one wherever the way along the curve has grown enough."""
    if not len(tpr):
        return np.zeros(0, np.intp)
    step = np.floor((tpr + fpr) * _DRAWN / 2)
    changes = np.flatnonzero(np.diff(step)) + 1
    return np.unique(np.concatenate([[0], changes, [len(tpr) - 1]])).astype(np.intp)


class Scores:
    """The scores of each output and what was true, within bounded memory.

    Args:
        m: rows there will be.
        K: outputs.
    """

    def __init__(self, m: int, K: int, *, most: int = EXACT) -> None:
        self.m, self.K = m, K
        self.exact = m * K <= most
        if self.exact:
            self._score = np.empty((m, K))
            self._true = np.zeros((m, K), np.bool_)
            self._w = np.zeros(m)
        else:
            self._bins = max(64, min(BINS, most // K))
            self._positive = np.zeros((K, self._bins))
            self._all = np.zeros((K, self._bins))

    def add(self, start: int, h: np.ndarray, true: np.ndarray, w: np.ndarray) -> None:
        """Rows from `start`.

        Args:
            h: (rows, K) in 0 … 1.
            true: (rows, K) bool, or codes (rows,) of the one output that is.
            w: (rows,).
        """
        codes = true if true.ndim == 1 else None
        if self.exact:
            part = slice(start, start + len(h))
            self._score[part], self._w[part] = h, w
            if codes is None:
                self._true[part] = true
            else:
                self._true[np.arange(start, start + len(h)), codes] = True
            return
        at = self._bin(h) + np.arange(self.K) * self._bins
        np.add.at(self._all.reshape(-1), at.ravel(), np.repeat(w, self.K))
        if codes is None:
            chosen = true.ravel()
            np.add.at(self._positive.reshape(-1), at.ravel()[chosen], np.repeat(w, self.K)[chosen])
        else:
            np.add.at(self._positive.reshape(-1), at[np.arange(len(h)), codes], w)

    def of(self, k: int) -> Curve:
        """The curves of output k, from 0, against all rows of which it is not true."""
        if self.exact:
            return curve(Groups.of(self._score[:, k], self._true[:, k], self._w))
        return self._from_bins(self._positive[k], self._all[k])

    def pooled(self) -> Curve:
        """Those of all pairs of a row and an output together: the micro-average."""
        if self.exact:
            return curve(Groups.of(self._score.ravel(), self._true.ravel(), np.repeat(self._w, self.K)))
        return self._from_bins(self._positive.sum(axis=0), self._all.sum(axis=0))

    def _bin(self, h: np.ndarray) -> np.ndarray:
        tiny = np.exp(-_REACH)
        odds = np.log(np.maximum(h, tiny)) - np.log(np.maximum(1 - h, tiny))
        return np.clip((odds + _REACH) * (self._bins / (2 * _REACH)), 0, self._bins - 1).astype(np.intp)

    def _from_bins(self, positive: np.ndarray, all_: np.ndarray) -> Curve:
        return curve(Groups(positive[::-1], np.maximum(0.0, all_ - positive)[::-1]), exact=False)
