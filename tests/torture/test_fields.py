"""Every field that a checkpoint holds is needed: without it, or with its fresh value, a run is another or refused.

A field for which that is not so is either exercised by no trial here, and then a trial is missing, or it follows from
others, and then it is in the list with the reason.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from room import bits, differing, newest
from suits import NAMES, SUITS

from gpubp import optimizers
from gpubp.checkpoint import Checkpoint, write
from gpubp.errors import GpubpError, MismatchError
from gpubp.job import Job
from gpubp.optimizers import State
from gpubp.prepare import array_dataset, prepare
from gpubp.run import resume, start

CURVED = "klbfgs", "gn", "lm"  # what they ask of the curvature is charged in `extra`
# Fields of a state that follow from others, of one optimizer or of all: with the reason.
FOLLOW: dict[tuple[str, str], str] = {
    ("klbfgs", "damping"): "is the option of that name, from the first iteration to the last",
    ("lm", "growth"): "is 2 after every step: it grows within a step alone",
}
FOLLOW |= {(name, "extra"): "is 0: it asks for J and ∇J alone" for name in NAMES if name not in CURVED}


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    X = rng.normal(size=(90, 4)).astype(np.float32)
    return X, (X @ rng.normal(size=(4, 3)) + rng.normal(size=(90, 3))).argmax(axis=1)


DATA = array_dataset(*data())
COMMON: dict[str, Any] = {"hidden": (4,), "kernel": "numpy", "threads": 1, "backend": "cpu", "climb": False}
# Trainings: λ, how much J and ∇J are off, and for how many iterations. Where they are off by much a run soon goes up
# and down and stands still: then the fields matter that notice it.
TRIALS = (0.1, 0.0, 12), (3.0, 1e-3, 30)


class Uncertain:
    """J and ∇J of a real objective, off by something that follows from Θ as rounding does."""

    def __init__(self, objective: Any, off: float) -> None:
        self.objective, self.off = objective, off
        self.vectors, self.threads, self.curvature = objective.vectors, 1, objective.curvature
        self.noise = 5 * off or 1e-7

    def value_and_gradient(self, Theta: Any, out: Any) -> float:
        J = float(self.objective.value_and_gradient(Theta, out))
        if not self.off:
            return J
        rng = np.random.default_rng(crc32(Theta.tobytes()))
        out[out != 0] += self.off * rng.normal(size=np.count_nonzero(out))
        return J * (1 + self.off * rng.normal())


class Training:
    """One undisturbed training, with its state after each iteration."""

    def __init__(self, optimizer: str, lambda_: float, off: float, iterations: int) -> None:
        options = dict(SUITS[optimizer].restless) | {"tolerance": 0.0}
        options |= {"patience": 3} if "patience" in optimizers.of(optimizer).__dataclass_fields__ else {}
        job = Job(optimizer=optimizer, lambda_=lambda_, options=options, **COMMON)
        ready = prepare(job, DATA)
        self.f, self.optimizer, self.iterations = Uncertain(ready.objective, off), ready.optimizer, iterations
        state = self.optimizer.init(self.f, ready.network.initial_Theta(job.seed))
        self.after = [copied(state)]
        self.end = self.go_on(state, self.after)

    def go_on(self, state: State, after: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        """Step up to the limit; all that is there at the end."""
        ending = None
        while ending is None and state.iteration < self.iterations:
            ending = self.optimizer.step(self.f, state)
            if after is not None:
                after.append(copied(state))
        saved = {k: v.tobytes() if isinstance(v, np.ndarray) else repr(v) for k, v in state.saved().items()}
        return saved | {"best": state.Theta_on_host.tobytes(), "ending": ending}

    def resumed(self, saved: dict[str, Any]) -> dict[str, Any]:
        return self.go_on(self.optimizer.restore(self.f, saved))

    def with_fresh(self, name: str, at: int) -> dict[str, Any]:
        """The saved state of the iteration with this field as a state has it before anything is known."""
        saved = self.after[at]
        value = getattr(self.optimizer._blank(self.f, len(saved["Theta"])), name)
        if isinstance(value, np.ndarray):  # of a ring, the filled rows are saved
            value = value[: len(saved[name])]
        return saved | {name: value}


def copied(state: State) -> dict[str, Any]:
    return {k: np.array(v) if isinstance(v, np.ndarray) else v for k, v in state.saved().items()}


@cache
def trainings(optimizer: str) -> list[Training]:
    return [Training(optimizer, *trial) for trial in TRIALS]


def saved_fields() -> list[tuple[str, str]]:
    found = []
    for name in NAMES:
        state = optimizers.make(name).blank(1)
        found += [(name, field) for field in state.saved()]
    return found


def shows(optimizer: str, field: str) -> bool:
    """Whether any trial, cut anywhere, notices that the field is fresh."""
    for training in trainings(optimizer):
        for at in range(len(training.after) - 2, -1, -1):
            try:
                if training.resumed(training.with_fresh(field, at)) != training.end:
                    return True
            except (GpubpError, ArithmeticError):
                return True
    return False


@pytest.mark.parametrize("optimizer", NAMES)
def test_a_state_cut_anywhere_goes_on_to_the_same_end(optimizer):
    for training in trainings(optimizer):
        assert len(training.after) > 4
        for saved in training.after[:-1:3]:
            assert training.resumed(saved) == training.end


@pytest.mark.parametrize(("optimizer", "field"), saved_fields())
def test_a_state_without_a_field_is_refused_and_with_a_fresh_one_is_another(optimizer, field):
    training = trainings(optimizer)[0]
    left_out = {name: value for name, value in training.after[3].items() if name != field}
    with pytest.raises(MismatchError, match=rf"without ({field}|\w+, wanted one with \w+)"):
        training.resumed(left_out)
    if (optimizer, field) not in FOLLOW:
        assert shows(optimizer, field), (
            f"no trial needs {field} of {optimizer}: options by which J rises and falls, restless in tests/suits.py; "
            "or one more trial here; or say in FOLLOW why it follows"
        )


def test_what_follows_from_others_does():
    unknown = set(FOLLOW) - set(saved_fields())
    assert not unknown
    for optimizer, field in FOLLOW:
        assert not shows(optimizer, field), f"{field} of {optimizer} is needed: take it from the list"


# The record around the state -----------------------------------------------------------------------------------------

EARLY = Job(
    optimizer="lbfgs", options={"history": 5}, lambda_=0.0, validation=0.3, patience=30, checkpoint_every="1it",
    **(COMMON | {"hidden": (8,)}),
)  # fmt: skip
AT, END = 14, 22
# Every field of the record but `state`: as it might be if nobody had saved it.
WITHOUT: dict[str, Callable[[Checkpoint], Any]] = {
    "Theta": lambda c: tuple(np.zeros_like(one) for one in c.Theta),
    "network": lambda c: c.network | {"activation": "tanh"},
    "optimizer": lambda c: c.optimizer | {"history": 30},
    "lambda_": lambda c: 1.0,
    "scaling": lambda c: c.scaling | {k: np.ones_like(v) for k, v in c.scaling.items() if isinstance(v, np.ndarray)},
    "targets": lambda c: {},
    "history": lambda c: c.history[:0],
    "history_columns": lambda c: c.history_columns[::-1],
    "conditions": lambda c: {},
    "job": lambda c: {},
    "iteration": lambda c: 0,
    "ending": lambda c: None,
    "stopping": lambda c: {},
}
WITHOUT |= {
    f"stopping.{name}": lambda c, name=name: c.stopping | {name: 0 if name in ("iteration", "idle") else np.inf}
    for name in ("validation", "J", "iteration", "mark", "idle")
}
FOLLOW_IN_RECORD = {
    "network": "is made of the job, the columns and the targets: for those who read the file",
    "lambda_": "is the job's: for those who read the file",
    "iteration": "is the state's: for those who read the file",
    "ending": "is why the run ended, if it did: a run that goes on has another",
}


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run cut in its midst, and the end of the undisturbed one."""
    place = tmp_path_factory.mktemp("fields")
    start(replace(EARLY, iterations=AT), place / "cut", dataset=DATA)
    start(replace(EARLY, iterations=END), place / "whole", dataset=DATA)
    whole = newest(place / "whole")
    assert 0 < whole.stopping["iteration"] < AT and whole.stopping["idle"] > 0, whole.stopping
    return place / "cut", bits(whole)


def resumed(cut: Path, run: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    shutil.copytree(cut, run)
    for path in run.glob("checkpoint-*.h5"):
        path.unlink()
    write(run / f"checkpoint-{AT:08d}.h5", checkpoint)
    resume(run, iterations=END, dataset=DATA, threads=1)
    return bits(newest(run))


def test_the_list_of_the_records_fields_is_whole(cut):
    assert {one.name for one in fields(Checkpoint)} - {"state"} == {name for name in WITHOUT if "." not in name}
    stopping = {name.partition(".")[2] for name in WITHOUT if "." in name}
    assert stopping == set(newest(cut[0]).stopping) and set(FOLLOW_IN_RECORD) <= set(WITHOUT)


@pytest.mark.parametrize("name", ["nothing", *WITHOUT])
def test_a_record_without_a_field_makes_another_run_or_none(cut, tmp_path, name):
    folder, wanted = cut
    checkpoint = newest(folder)
    if name in WITHOUT:
        field, _, _ = name.partition(".")
        value = WITHOUT[name](checkpoint)
        checkpoint = replace(checkpoint, **{field: value})
    try:
        shown = bool(differing(resumed(folder, tmp_path / "run", checkpoint), wanted))
    except (GpubpError, KeyError, TypeError, ValueError, AttributeError):
        shown = True
    assert shown == (name in WITHOUT and name not in FOLLOW_IN_RECORD)
