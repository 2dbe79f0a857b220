"""Trainings of every optimizer are cut at a random place and resumed, and must end in the bits of the undisturbed one.

Each round is one training, by an optimizer and a precision that take turns, with an activation, a cost, a network and
an early stopping or none that the dice choose; it is cut several times over by a limit, by a request to stop before a
random pass, by an exception that ends it there as a kill would, or by a real kill −9. It is a loss if after the resumes
Θ, a field of the state, the history but for its seconds, the record of early stopping or the ending differs in a bit.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from forks import forks
from room import bits, differing, new_folder, newest
from running import write

from gpubp import optimizers
from gpubp.job import Job
from gpubp.run import resume, start
from gpubp.run_folder import RunFolder
from gpubp.training import StopRequest

WHAT = "cut anywhere and resume, every optimizer: equal bits"
SHORT = 20  # every optimizer at both precisions

TRIALS = 4  # of one training
ACTIVATIONS = "sigmoid", "tanh", "relu"
COSTS = {"softmax": "classes", "logistic": "two", "squares": "numbers"}


class Killed(BaseException):
    """Stands for kill −9: nothing of ours runs after it but what gives the lock back."""


class Cut(StopRequest):
    """A request to stop that comes, or a kill that strikes, before pass number `at`."""

    def __init__(self, at: int, kill: bool) -> None:
        self.at, self.kill, self.asked = at, kill, 0

    @property
    def by(self) -> str | None:  # type: ignore[override]
        self.asked += 1
        if self.asked < self.at:
            return None
        if self.kill:
            raise Killed
        return "SIGTERM"


def rounds(place: Path, dice: random.Random) -> Iterator[Counter[str]]:
    files = {kind: data(place / f"{kind}.h5", kind) for kind in COSTS.values()}
    while True:
        deck = [(name, precision) for name in optimizers.names() for precision in ("fp32", "fp64")]
        dice.shuffle(deck)
        for optimizer, precision in deck:
            # no power is cut here, and a wait for the disk would be most of the time
            with new_folder(place) as folder, mock.patch("os.fsync", lambda fd: None):
                yield trials(folder, job_of(optimizer, precision, files, dice), dice)


def data(path: Path, kind: str) -> Path:
    """Few rows that cannot be learned by heart."""
    rng = np.random.default_rng(7)
    X = rng.normal(size=(90, 4)).astype(np.float32)
    z = X @ rng.normal(size=(4, 3)) + rng.normal(size=(90, 3))
    y = {"classes": z.argmax(axis=1), "two": (z[:, 0] > 0).astype(int), "numbers": z[:, 0]}[kind]
    return write(path, X=X, y=y)


def job_of(optimizer: str, precision: str, files: dict[str, Path], dice: random.Random) -> Job:
    cost = dice.choice(list(COSTS))
    options = {"learning_rate": 0.1} if "learning_rate" in optimizers.of(optimizer).__dataclass_fields__ else {}
    early = dice.choice([{}, {"validation": 0.3}, {"validation": 0.3, "patience": dice.randint(2, 6)}])
    return Job(
        data=str(files[COSTS[cost]]), cost=cost, activation=dice.choice(ACTIVATIONS), optimizer=optimizer,
        hidden=dice.choice([(), (4,), (5, 3)]), lambda_=dice.choice([0.0, 0.1, 1.0]), options=options,
        precision=precision, iterations=dice.randint(4, 16), seed=dice.randrange(100), kernel="numpy", threads=1,
        backend="cpu", checkpoint_every=dice.choice(["1it", "7it", "60", "60"]), **early,
    )  # fmt: skip


def trials(folder: Path, job: Job, dice: random.Random) -> Counter[str]:
    """One training undisturbed, and cut in as many ways as there are trials."""
    whole = folder / "whole"
    start(job, whole)
    wanted, rows = bits(newest(whole)), history(whole)
    done, passes = newest(whole).iteration, int(newest(whole).state["evaluations"])
    counts: Counter[str] = Counter()
    for trial in range(TRIALS):
        run = folder / f"cut{trial}"
        how = dice.choice(["limit", "request to stop", "exception"] * 7 + ["kill −9"])
        cuts = [cut(run, job, how, done, passes, dice) for _ in range(dice.choice([1, 1, 2, 3]))]
        go_on(run, job, StopRequest())
        unlike = differing(bits(newest(run)), wanted)
        assert not unlike, f"after {cuts} the end differs in {unlike}: {job}"
        assert history(run) == rows, f"after {cuts} history.jsonl differs: {job}"
        counts += Counter({"trials": 1, f"by {how}": 1, "resumes": len(cuts)})
    return counts


def cut(run: Path, job: Job, how: str, done: int, passes: int, dice: random.Random) -> str:
    """Train, or go on, to a place of the dice's choice; in words what was done."""
    if how == "limit":
        reached = newest(run).iteration if run.exists() else 0
        limit = dice.randint(reached, max(reached, done))
        go_on(run, replace(job, iterations=limit), StopRequest())
        return f"a limit of {limit} iterations"
    if how == "kill −9":
        lines = dice.randint(1, max(1, done))
        with forks().start(*command(run, job)) as child:
            child.line("^saved", count=lines)
            child.send(9)
            child.wait()
        return f"a kill −9 after {lines} saves"
    at = dice.randint(2, max(2, passes + 2))
    request = Cut(at, kill=how == "exception")
    with suppress(Killed):
        go_on(run, job, request)
    return f"{how} before pass {at}"


def go_on(run: Path, job: Job, stop: StopRequest) -> None:
    """What a person would do: resume, or begin where there is nothing to resume."""
    if run.exists() and RunFolder(run).checkpoints():
        resume(run, iterations=job.iterations, threads=1, stop=stop)
    else:
        start(job, run, stop=stop)


def command(run: Path, job: Job) -> list[str]:
    """The command line that means the same."""
    if run.exists() and RunFolder(run).checkpoints():
        return ["-v", "resume", str(run), "--iterations", str(job.iterations), "--threads", "1"]
    given: dict[str, Any] = {
        "cost": job.cost, "activation": job.activation, "optimizer": job.optimizer, "lambda": job.lambda_,
        "hidden": ",".join(map(str, job.hidden)) or "none", "precision": job.precision, "iterations": job.iterations,
        "seed": job.seed, "kernel": "numpy", "threads": 1, "backend": "cpu", "checkpoint-every": job.checkpoint_every,
    }  # fmt: skip
    given |= {"validation": job.validation} | ({} if job.patience is None else {"patience": job.patience})
    settings = [word for name, value in job.options.items() for word in ("--set", f"{name}={value}")]
    options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    return ["-v", "train", *job.files, "--out", str(run), *options, *settings]


def history(run: Path) -> list[dict[str, Any]]:
    """The lines of history.jsonl without seconds."""
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
