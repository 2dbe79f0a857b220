"""What a run has left, finished or not: its model, its history up to the last line, what it depends on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..inference import Model
from ..job import Job
from ..loading import as_gpubp_writes, model_from, warn_of_damaged
from ..run_folder import find_checkpoint

HISTORY = "history.jsonl"


@dataclass(frozen=True)
class Run:
    """A run.

    Attributes:
        path: the folder, or a checkpoint file.
        checkpoint: the file that was read.
        iteration: of that one; the history may be further.
        model: with the history of the checkpoint.
        history: one record for each iteration, those after the checkpoint out of history.jsonl.
        conditions: what the bits depend on.
        optimizer: its name and hyperparameters.
        job: what was asked for.
    """

    path: Path
    checkpoint: Path
    iteration: int
    model: Model
    history: list[dict[str, Any]]
    conditions: dict[str, Any]
    optimizer: dict[str, Any]
    job: Job

    @property
    def asked(self) -> Job:
        """The job in the words that it was asked for, before "auto" and the like became what they meant."""
        return Job.from_dict({**vars(self.job), **self.job.asked, "asked": {}})

    @property
    def ended(self) -> bool:
        """Whether its end is recorded: a run in flight has none, and neither has one that was killed."""
        return self.model.ending is not None


def read_run(path: str | Path) -> Run:
    """A run folder's newest sound checkpoint and its history, or a checkpoint file.

    Raises:
        CheckpointError: nothing there that can be read.
    """
    path = Path(path)
    found = find_checkpoint(path)
    warn_of_damaged(found)
    model = model_from(found.checkpoint)
    with as_gpubp_writes(found.checkpoint):
        job = Job.from_dict(found.checkpoint.job)
    history = list(model.history)
    if path.is_dir() and model.ending is None:
        history += _since(path / HISTORY, history)
    saved = found.checkpoint
    return Run(path, found.path, saved.iteration, model, history, dict(saved.conditions), dict(saved.optimizer), job)


def _since(file: Path, known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of history.jsonl after the checkpoint's. Nothing of a file that tells another story, as that of a run
    which is being replaced, and nothing from a line on that is torn."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    rows: list[dict[str, Any]] = []
    for line in lines:
        row = _record(line)
        if row is None:
            break
        rows.append(row)
    if any(_differ(a, b) for a, b in zip(rows, known, strict=False)) or len(rows) < len(known):
        return []
    return rows[len(known) :]


def _record(line: str) -> dict[str, Any] | None:
    """A line as a record of the history; None of what is none."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, Mapping) or not isinstance(row.get("iteration"), int):
        return None
    numbers = {name: row.get(name) for name in ("J", "gradient", "seconds", "passes", "step", "evaluations")}
    if any(not isinstance(value, int | float | None) for value in (*numbers.values(), row.get("validation"))):
        return None
    filled = {name: math.nan if value is None else value for name, value in numbers.items()}
    return {**row, **filled, "validation": row.get("validation"), "precision": str(row.get("precision") or "")}


def _differ(line: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    # the checkpoint's numbers and the lines are the same to the bit; an older gpubp's may lack a column
    return line["iteration"] != row["iteration"] or (line["J"] != row["J"] and line["J"] == line["J"])
