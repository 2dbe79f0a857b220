"""The other end: a process that does one task after the other for one framework.

Driver and worker talk in lines of JSON: a task comes, a row goes. A row's status is one of

    ok, absent (it cannot take part here), memory (the card's is full), wrong (another answer), failed (an exception)

and after a failure the process ends: on a device one never knows what is left of it.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from . import inputs, limits, plan
from .card import Card
from .measure import SMOKE, Absent, Pace, Ready, Wrong, measured, summary, turns
from .plan import Task

ROOT = Path(__file__).parents[2]
RACING = Pace(turns=3, warm=0.1, spent=0.6)


def task_of(record: dict[str, Any]) -> Task:
    """A task out of its JSON."""
    return Task(**{**record, "rival": tuple(record["rival"])})


def serve(side: str, smoke: bool, folder: str) -> None:
    """Do what each line of stdin asks for, until it ends.

    Args:
        side: whose framework this process is for.
        folder: where processes leave float64 answers for each other.
    """
    talk = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    sys.path.insert(0, str(ROOT))
    bench: Bench | None = None
    for line in sys.stdin:
        job = json.loads(line)
        task, began = task_of(job["task"]), time.perf_counter()
        row: dict[str, Any]
        try:
            bench = bench or Bench(side, smoke, folder)
            row = {"status": "ok", **(bench.again() if job["again"] else bench.do(task))}
        except Absent as reason:
            row = {"status": "absent", "why": str(reason)}
        except Wrong as reason:
            row = {"status": "wrong", "why": str(reason)}
        except Exception as error:
            traceback.print_exc()
            full = isinstance(error, MemoryError) or any(
                words in f"{type(error).__name__} {error}" for words in ("OutOfMemory", "out of memory", "EXHAUSTED")
            )
            why = " ".join(f"{type(error).__name__}: {error}".split())[:400]
            row = {"status": "memory" if full else "failed", "why": why}
        row["took_s"] = time.perf_counter() - began
        talk.write(json.dumps(row) + "\n")
        if row["status"] == "failed":
            talk.flush()
            os._exit(1)


class Bench:
    """The framework's process: its card, and the problem it has at hand."""

    def __init__(self, side: str, smoke: bool, folder: str) -> None:
        self.side, self.folder = side, folder
        self.pace = SMOKE if smoke else Pace()
        self.racing = SMOKE if smoke else RACING
        self.card = Card(smoke)
        self.data: inputs.Data | None = None
        self.ready: Ready | None = None
        self.batch = 1  # evaluations of a turn

    def do(self, task: Task) -> dict[str, Any]:
        """The row of a task, without its status."""
        self._drop()
        if self.side == "limits":
            return limits.measured(task, self.card, self.pace)
        if self.side == "faulty":
            return _misbehave(task.what)
        if self.data is None or (self.data.shape.name, self.data.stored) != (task.shape, task.stored):
            self.data = None
            self.card.forget()
            self.data = inputs.make(self.card, plan.shapes(self.card.smoke)[task.shape], task.stored)
        truth = inputs.answer(self.card, self.data, self.folder)
        self.card.forget()
        if task.what == "50 iterations":
            from . import ours

            return ours.iterate(task, self.data, self.card, 5 if self.card.smoke else 50)
        if task.what == "streaming":
            from . import ours

            data, self.data = self.data, None
            return ours.stream(task, data, self.card, self.pace)
        ready = self.ready = self._side().build(task, self.data, self.card)
        found = measured(ready, truth, task.precision, self.racing if task.stage == "racing" else self.pace)
        self.batch = found["evaluations"]
        return found | {"card_mb": self.card.used_mb()}

    def again(self) -> dict[str, Any]:
        """More turns of the contender that was measured last."""
        assert self.ready
        return summary(turns(self.ready, self.batch, self.racing))

    def _side(self) -> ModuleType:
        from . import jax_peers, ours, torch_peers

        return {"ours": ours, "torch": torch_peers, "jax": jax_peers}[self.side]

    def _drop(self) -> None:
        if self.ready:
            self.ready.close()
        self.ready = None
        self.card.forget()
        if self.side == "torch" and "torch" in sys.modules:
            from . import torch_peers

            torch_peers.forget()


def _misbehave(what: str) -> dict[str, Any]:
    """For the tests: what contenders do on a bad day."""
    if what == "raises":
        raise RuntimeError(f"illegal address near {ROOT}/gpubp")
    if what == "crashes":
        os._exit(7)
    if what == "hangs":
        time.sleep(60)
    if what == "fills the memory":
        raise MemoryError("out of memory")
    if what == "answers wrongly":
        raise Wrong("the gradient's relative error is 1.0e+00")
    return summary([1.0, 1.0, 1.0])
