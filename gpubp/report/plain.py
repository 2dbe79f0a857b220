"""A report as plain values, for JSON: the page says the same numbers."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import numpy as np

from . import pictures
from .answers import MOST_PAIRS, Answers, plain_confusion
from .curves import Curve
from .material import Material
from .measures import Quality
from .numbers import QUANTILES, Numbers

_MOST_MATRIX = 100  # classes: a larger confusion matrix is told by its most frequent mistakes
_PAIRS = 20


def numbers(m: Material) -> dict[str, Any]:
    """All of it. Keys of `quality` that `gpubp evaluate` has as well mean the same."""
    last = m.run.history[-1] if m.run.history else {}
    return {
        "run": str(m.run.path),
        "checkpoint": m.run.checkpoint.name,
        "has_ended": m.run.ended,
        "verdict": {
            "kind": m.said.kind,
            "sentences": m.said.sentences,
            "next": [{"do": text, "command": command} for text, command in m.said.next],
        },
        "description": m.described,
        "command": m.command,
        "training": {
            **{name: last.get(name) for name in ("iteration", "evaluations", "passes", "seconds", "precision")},
            "reached": m.run.model.reached,
            "cost": m.training_cost,
            "rows": m.trained.training,
            "rows_of_a_pass": m.trained.rows,
        },
        "judged": {"on": m.judged.what, "kind": m.judged.kind, "split": m.judged.split} if m.judged else None,
        "why_not_judged": m.why_not,
        "quality": None if m.quality is None else _quality(m.quality, m.run.model.targets.classes),
        "worst": _worst(m),
        "throughput": _throughput(m),
        "conditions": m.run.conditions,
        "pictures": list(pictures.of(m)),
    }


def _quality(q: Quality, classes: tuple[Any, ...] | None) -> dict[str, Any]:
    found = {
        "rows": q.rows,
        **({"dropped": q.dropped} if q.dropped else {}),
        "weighted": q.weighted,
        "cost": q.cost,
        "cost_se": q.cost_se,
        "constant": q.constant,
    }
    if q.answers:
        return found | _answers(q.answers, classes)
    return found | (_numbers(q.numbers) if q.numbers else {})


def _answers(a: Answers, classes: tuple[Any, ...] | None) -> dict[str, Any]:
    found: dict[str, Any] = {"accuracy": a.accuracy}
    if a.exact is not None:
        found["exact"] = a.exact
    if classes is not None:
        found["classes"] = list(classes)
    if a.confusion is not None and len(a.confusion) <= _MOST_MATRIX:
        found["confusion"] = plain_confusion(a.confusion)
    if a.confusion is not None and len(a.confusion) > 2:
        found["most_confused"] = [dict(zip(("truth", "answer", "rows"), one, strict=True)) for one in a.pairs(_PAIRS)]
    return found | {
        "each": [
            {"name": one.name, "rows": one.rows, "answered": one.answered, "right": one.right,
             "precision": one.precision, "recall": one.recall, "auc": one.auc, "ap": one.ap}
            for one in a.each[:MOST_PAIRS]
        ],
        "mean_auc": a.mean_auc,
        "mean_ap": a.mean_ap,
        "pooled": _curve(a.pooled),
        "curves_are_exact": a.exact_curves,
        "calibration": {
            "of": a.calibration.of,
            "ece": a.calibration.ece,
            "bins": [
                {"weight": float(w), "confidence": float(c), "share": float(s)}
                for w, c, s in zip(a.calibration.weight, a.calibration.confidence, a.calibration.share, strict=True)
            ],
        },
    }  # fmt: skip


def _curve(curve: Curve) -> dict[str, Any]:
    return {"auc": curve.auc, "ap": curve.ap, "auc_may_be_off_by": curve.unsure}


def _numbers(n: Numbers) -> dict[str, Any]:
    return {
        "rmse": n.rmse,
        "r2": n.r2,
        "rmse_per_output": n.rmse_each.tolist(),
        "r2_per_output": [None if np.isnan(value) else value for value in n.r2_each.tolist()],
        "bias_per_output": n.bias.tolist(),
        "error_within": {f"{100 * q:g} %": float(value) for q, value in zip(QUANTILES, n.within, strict=True)},
        "every": n.every,
    }


def _worst(m: Material) -> list[dict[str, Any]]:
    if not (m.quality and m.judged):
        return []
    names = ("truth", "answer", "probability", "of_truth", "cost")
    return [
        {"row": m.judged.number(one.row), **{name: getattr(one, name) for name in names}} for one in m.quality.worst
    ]


def _throughput(m: Material) -> dict[str, Any] | None:
    return None if m.throughput is None else {
        **asdict(m.throughput), "of_limit": m.throughput.of_limit, "notes": m.throughput.notes,
    }  # fmt: skip


def folder(path: str) -> str:
    """The last part of a path: what a person calls a run."""
    return os.path.basename(os.path.normpath(path)) or path
