"""The JSON file, written anew after every row, so that nothing measured is lost.

A file is one card's. It holds the conditions of each run (when, which commit and sources, which versions, which clocks)
and the newest row of each task, which says the run that it is from. No host name, no path.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .plan import Task

ROOT = Path(__file__).parents[2]
FINISHED = ("ok", "absent", "memory")  # what would come out again
_PATH = re.compile(r"(?<![\w:])(?:/[\w.@+~-]+)+/([\w.@+~-]+)")


class Journal:
    """What was found on one card.

    Args:
        path: the file; what it holds already is kept.
        conditions: of this run.
        earlier: where to begin if there is no such file yet.
    """

    def __init__(self, path: Path, card: str, conditions: dict[str, Any], earlier: Path | None = None) -> None:
        self.path = path
        self.record: dict[str, Any] = {"what": "one cost and gradient on a GPU", "card": card, "runs": [], "rows": {}}
        for file in (path, earlier):
            if file and file.exists():
                self.record |= json.loads(file.read_text())
                break
        self.record["runs"].append(conditions | {"left_out": {}})
        self.run = len(self.record["runs"]) - 1

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The rows by key."""
        return self.record["rows"]

    def finished(self, task: Task) -> bool:
        """Whether the row is there, from the same sources and versions, and would come out again."""
        row = self.rows.get(task.key)
        if row is None or row["status"] not in FINISHED:
            return False
        then, now = self.record["runs"][row["run"]], self.record["runs"][self.run]
        return all(then.get(name) == now.get(name) for name in ("sources", "versions", "card"))

    def forget(self, stages: Sequence[str]) -> None:
        """Drop the rows of these stages: they are measured again."""
        self.record["rows"] = {key: row for key, row in self.rows.items() if row["stage"] not in stages}

    def add(self, task: Task, row: dict[str, Any]) -> None:
        """One more row, on the disk when this returns."""
        about = {name: value for name, value in asdict(task).items() if name not in ("expect", "limit", "group")}
        self.rows[task.key] = {**about, **_bare(row), "run": self.run}
        self.record["runs"][self.run]["left_out"].pop(task.key, None)
        self.save()

    def leave_out(self, task: Task, why: str) -> None:
        """Note what there was no time for."""
        self.record["runs"][self.run]["left_out"][task.key] = why

    def note(self, **words: Any) -> None:
        """More conditions of this run."""
        self.record["runs"][self.run] |= words

    def save(self) -> None:
        """Write the file beside, then put it in place."""
        used = {row["run"] for row in self.rows.values()} | {self.run}
        record = {**self.record, "runs": [run if i in used else {} for i, run in enumerate(self.record["runs"])]}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".part")
        beside.write_text(json.dumps(record, indent=1) + "\n")
        os.replace(beside, self.path)


def sources() -> str:
    """A digest of everything a figure depends on that is not a package: gpubp's sources and this benchmark's."""
    digest = hashlib.sha256()
    files = [*(ROOT / "gpubp").rglob("*.py"), *(ROOT / "gpubp").rglob("*.cu*"), *(ROOT / "benchmarks").rglob("*.py")]
    for file in sorted(files):
        digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _bare(value: Any) -> Any:
    """Without the folders of this machine."""
    if isinstance(value, dict):
        return {name: _bare(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_bare(part) for part in value]
    return _PATH.sub(r"\1", value) if isinstance(value, str) else value
