"""A training so small that it can be cut, failed and damaged thousands of times; and what two of them must share."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from running import write
from test_checkpoint import same

from gpubp.checkpoint import Checkpoint
from gpubp.job import Job
from gpubp.run_folder import find_checkpoint

# What of two runs of the same bits is not the same.
_CLOCK = "seconds"


def data_in(place: Path) -> Path:
    """16 rows of 2 features in two classes that overlap."""
    dice = np.random.default_rng(1)
    y = dice.integers(0, 2, 16)
    X = (dice.normal(size=(16, 2)) + y[:, None]).astype(np.float32)
    place.mkdir(parents=True, exist_ok=True)
    return write(place / "rows.h5", X=X, y=y)


def job(data: Path, **changes: Any) -> Job:
    """L-BFGS on 2-2-1 units, a checkpoint after each of three iterations."""
    asked: dict[str, Any] = {
        "data": str(data), "hidden": (2,), "iterations": 3, "checkpoint_every": "1it", "optimizer": "lbfgs",
        "options": {"history": 2}, "kernel": "numpy", "blas": "auto", "backend": "cpu", "threads": 1,
    }  # fmt: skip
    return Job(**(asked | changes))


def command(data: Path, run: Path, *more: str, iterations: int = 3, keep: int = 3) -> list[str]:
    """The same as `job`, on the command line."""
    return [
        "-v", "train", str(data), "--out", str(run), "--hidden", "2", "--iterations", str(iterations),
        "--keep", str(keep), "--checkpoint-every", "1it", "--optimizer", "lbfgs", "--set", "history=2",
        "--kernel", "numpy", "--backend", "cpu", "--threads", "1", *more,
    ]  # fmt: skip


def newest(run: Path) -> Checkpoint:
    """The newest checkpoint of a folder in which all are sound."""
    found = find_checkpoint(run)
    assert not found.rejected, found.rejected
    return found.checkpoint


def difference(a: Checkpoint, b: Checkpoint) -> str:
    """The first field in which two runs that must have the same bits differ; "" if there is none.

    Times differ, and so do the times in what is said of the end; where the run lies may.
    """
    for field in fields(Checkpoint):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if field.name == "history":
            if a.history_columns != b.history_columns:
                return "history_columns"
            kept = [i for i, name in enumerate(a.history_columns) if name != _CLOCK]
            one, other = np.ascontiguousarray(one[:, kept]), np.ascontiguousarray(other[:, kept])
        if field.name == "job":  # a resume may move the file and the limit, and writes all options out
            told = ("data", "threads", "iterations", "options")
            one, other = ({k: v for k, v in side.items() if k not in told} for side in (one, other))
        if not same(one, other):
            return field.name
    return ""
