"""The driver: stages in order, a process for each framework, a budget of time.

A process that dies, hangs or fills the card costs its row and is replaced. Before each task the time left is looked at:
what would not fit is left out and listed. Tasks of one stage, side and group share a process; races have two alive at
once, and ask them in turn.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from . import checks, plan
from .journal import Journal
from .measure import summary
from .plan import Task
from .worker import task_of

SCRIPT = Path(__file__).parents[1] / "gpu.py"
ROUNDS = 3  # of a race


@dataclass
class Budget:
    """Seconds for everything, counted from the start of the program."""

    seconds: float
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.began)

    @property
    def spent(self) -> float:
        return self.seconds - self.left


class Lost(Exception):
    """A process that gave no answer; `status` is "crashed" or "timeout"."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status


class Process:
    """A worker, seen from here."""

    def __init__(self, side: str, smoke: bool, folder: str) -> None:
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        more = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor"}
        if smoke:
            more |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), "--worker", json.dumps([side, smoke, folder])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._complaints, text=True,
            env={**more, **os.environ},
        )  # fmt: skip

    def ask(self, task: Task, timeout: float, *, again: bool = False) -> dict[str, Any]:
        """The worker's row.

        Raises:
            Lost: it ended or was silent for too long; it is closed.
        """
        assert self._process.stdin and self._process.stdout
        with suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write(json.dumps({"task": asdict(task), "again": again}) + "\n")
            self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], max(0.1, timeout))
        line = self._process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)
        self._process.kill()
        code = self._process.wait()
        self._complaints.seek(0)
        last = (self._complaints.read().strip() or "no word of it").splitlines()[-1][:400]
        self.close()
        if ready:
            raise Lost("crashed", f"exit code {code}: {last}")
        raise Lost("timeout", f"no answer within {timeout:.0f} s; last words: {last}")

    def close(self) -> None:
        """End it; a second time nothing happens."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._complaints):
            with suppress(OSError):
                assert stream
                stream.close()


class Crew:
    """The processes of a stage; they end with it."""

    def __init__(self, smoke: bool, folder: str, sanitizer: str | None) -> None:
        self._smoke, self._folder, self._sanitizer = smoke, folder, sanitizer
        self._alive: dict[tuple[str, str], Process] = {}

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._alive):
            self._alive.pop(name).close()

    def do(self, task: Task, rows: plan.Rows, timeout: float) -> dict[str, Any]:
        """The row of a task, whatever happens."""
        if task.side == "checks":
            return checks.carry_out(task, self._smoke, timeout, self._sanitizer)
        try:
            return self._race(task, rows, timeout) if task.side == "race" else self._ask(task, timeout)
        except Lost as reason:
            return {"status": reason.status, "why": str(reason)}

    def _ask(self, task: Task, timeout: float, *, again: bool = False, beside: Task | None = None) -> dict[str, Any]:
        """What this task's process says; processes other than it and that of `beside` are ended first."""
        name, kept = (task.side, task.group), (beside.side, beside.group) if beside else None
        for other in [other for other in self._alive if other not in (name, kept)]:
            self._alive.pop(other).close()
        if name not in self._alive:
            self._alive[name] = Process(task.side, self._smoke, self._folder)
        try:
            row = self._alive[name].ask(task, timeout, again=again)
        except Lost:
            del self._alive[name]
            raise
        if row["status"] == "failed":
            self._alive.pop(name).close()
        return row

    def _race(self, task: Task, rows: plan.Rows, timeout: float) -> dict[str, Any]:
        """Two contenders measured again, turn and turn about."""
        end = time.monotonic() + timeout
        pair = [self._entry(rows[key], task) for key in task.rival]
        taken: list[list[float]] = [[], []]
        for turn in range(ROUNDS + 1):
            for which, entry in enumerate(pair):
                row = self._ask(entry, end - time.monotonic(), again=turn > 0, beside=pair[1 - which])
                if row["status"] != "ok":
                    return row | {"why": f"{entry.side} {entry.what}: {row.get('why')}"}
                if turn:  # the first one prepared
                    taken[which].append(row["median_s"])
        ours, peer = (summary(times) for times in taken)
        return {"status": "ok", "ours": ours, "peer": peer, "lead": peer["median_s"] / ours["median_s"]}

    def _entry(self, row: Any, race: Task) -> Task:
        known = asdict(Task("", "", ""))
        entry = task_of({name: row.get(name, value) for name, value in known.items()})
        return replace(entry, stage="racing", group=race.group if entry.side == "jax" else "race")


def carry_out(
    stages: Sequence[str],
    journal: Journal,
    budget: Budget,
    *,
    smoke: bool,
    resume: bool,
    only: Sequence[str] = (),
    sanitizer: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Go through the stages until everything is done or the budget is spent.

    Args:
        resume: skip rows that the journal has from the same sources and versions.
        only: parts of keys; other tasks are not done.
        sanitizer: where compute-sanitizer is, if not on the path.
        say: told what is going on.
    """
    if not resume and not only:
        journal.forget(stages)
    with tempfile.TemporaryDirectory() as folder:
        for stage in stages:
            with Crew(smoke, folder, sanitizer) as crew:
                for task in plan.tasks(stage, smoke, journal.rows):
                    if only and not any(part in task.key for part in only):
                        continue
                    if resume and journal.finished(task):
                        continue
                    if budget.left < task.expect:
                        journal.leave_out(task, f"{task.expect:.0f} s wanted, {max(0, budget.left):.0f} s left")
                        continue
                    say(f"{budget.spent:5.0f} s  {stage}: {task.key}")
                    row = crew.do(task, journal.rows, min(task.limit, budget.left))
                    journal.add(task, row)
                    if row["status"] != "ok":
                        say(f"         {row['status']}: {row.get('why', '')}")
    journal.note(took_s=budget.spent)
    journal.save()
