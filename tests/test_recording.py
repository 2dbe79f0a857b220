"""Checkpoints are written while training goes on: of a state nobody changes meanwhile; a failure ends the run."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_checkpoint import record
from test_run_folder import iterations

import gpubp
from gpubp import objective, recording, sitting
from gpubp.checkpoint import Background, layout, whole
from gpubp.errors import CheckpointError, OutOfMemory
from gpubp.optimizers import names
from gpubp.run_folder import RunFolder, find_checkpoint
from gpubp.training import Progress


def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    y = rng.integers(0, 3, 300)
    return (rng.normal(size=(300, 6)) + 0.8 * rng.normal(size=(3, 6))[y]).astype(np.float32), y


def frozen(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value.tobytes() if isinstance(value, np.ndarray) else value for name, value in state.items()}


# The state is left alone --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("climbs", [False, True])
def test_before_its_commit_no_optimizer_changes_what_is_saved(monkeypatch, name, climbs):
    held: dict[str, Any] = {}
    looks = []

    class Looking(recording.Recorder):
        def note(self, progress: Any, state: Any) -> None:
            super().note(progress, state)
            held.update(arrays=state.saved(), as_it_was=frozen(state.saved()))

        def begin(self, state: Any) -> None:
            super().begin(state)
            settle = state.settle

            def settled() -> None:
                settle()
                if held:
                    changed = {k for k, v in frozen(held["arrays"]).items() if v != held["as_it_was"][k]}
                    assert not changed, changed
                    looks.append(1)
                    held.clear()

            state.settle = settled

    monkeypatch.setattr(sitting, "Recorder", Looking)
    X, y = rows()
    options = {"lambda_": 0.0, "options": {"tolerance": 1e-9}} if climbs else {}
    gpubp.train(X, y, hidden=(4,), optimizer=name, iterations=60 if climbs else 25, climb=climbs, **options)
    assert len(looks) > 10


@pytest.mark.parametrize("name", ["klbfgs", "adam", "irprop"])
def test_a_slow_disk_changes_no_bit(tmp_path, monkeypatch, name):
    X, y = rows()
    options: dict[str, Any] = {"hidden": (4,), "optimizer": name, "validation": 0.2, "patience": 30}
    for at in (5, 12):
        gpubp.train(X, y, out=tmp_path / f"to{at}", iterations=at, **options)
    real = layout.Layout.write

    def slowly(self: layout.Layout, *arguments: Any, **more: Any) -> bytes:
        time.sleep(0.05)
        return real(self, *arguments, **more)

    monkeypatch.setattr(layout.Layout, "write", slowly)
    gpubp.train(X, y, out=tmp_path / "run", iterations=12, checkpoint_every="1it", keep=50, **options)
    for at in (5, 12):
        a, b = (find_checkpoint(tmp_path / x / f"checkpoint-{at:08d}.h5").checkpoint for x in ("run", f"to{at}"))
        assert frozen(a.state) == frozen(b.state)
        assert [T.tobytes() for T in a.Theta] == [T.tobytes() for T in b.Theta]


def test_training_goes_on_while_the_writer_writes_but_no_step_ends_before_it_is_done(tmp_path, monkeypatch):
    events: list[str] = []
    began = threading.Event()
    real_save, real_pass = RunFolder.save, objective.Objective.value_and_gradient

    def save(self: RunFolder, checkpoint: Any, *arguments: Any, **more: Any) -> Path:
        if checkpoint.iteration == 3:
            assert began.wait(20), "no pass began before it was written"
            events.append("written")
        return real_save(self, checkpoint, *arguments, **more)

    def one_pass(self: Any, *arguments: Any) -> Any:
        if "iteration 3" in events:
            began.set()
        return real_pass(self, *arguments)

    monkeypatch.setattr(RunFolder, "save", save)
    monkeypatch.setattr(objective.Objective, "value_and_gradient", one_pass)
    X, y = rows()
    note: Any = lambda progress, state: events.append(f"iteration {progress.iteration}")  # noqa: E731
    gpubp.train(X, y, out=tmp_path / "run", hidden=(4,), iterations=5, checkpoint_every="3it", callbacks=[note])
    assert events == ["iteration 1", "iteration 2", "iteration 3", "written", "iteration 4", "iteration 5"]


# What cannot be written ---------------------------------------------------------------------------------------------


@pytest.fixture
def full(monkeypatch):
    """From that iteration on, no checkpoint can be written."""

    def from_now(at: int) -> None:
        real = recording.Recorder._record

        def marking(self: Any, state: Any, ending: Any) -> Any:
            if state.iteration >= at:
                monkeypatch.setattr(whole.Sink, "write", refuse)
            return real(self, state, ending)

        def refuse(self: Any, data: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(recording.Recorder, "_record", marking)

    return from_now


def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_names_the_one_that_is_there(tmp_path, full):
    X, y = rows()
    full(4)
    with pytest.raises(CheckpointError) as caught:
        gpubp.train(X, y, out=tmp_path / "run", hidden=(4,), iterations=50, checkpoint_every="2it")
    assert str(caught.value).startswith(
        f"cannot write {tmp_path}/run/checkpoint-00000004.h5: No space left on device; "
    )
    assert "checkpoint-00000002.h5 is kept" in str(caught.value) and f"gpubp resume {tmp_path}/run" in str(caught.value)
    assert iterations(tmp_path / "run") == ["", "2"]
    assert not [name for name in os.listdir(tmp_path / "run") if ".tmp." in name]


def test_without_any_the_message_does_not_speak_of_one(tmp_path, full):
    X, y = rows()
    full(0)
    with pytest.raises(CheckpointError) as caught:
        gpubp.train(X, y, out=tmp_path / "run", hidden=(4,), iterations=50)
    assert "No space left on device" in str(caught.value) and "resume" not in str(caught.value)


def test_a_line_of_the_history_that_cannot_be_written_ends_the_run_and_its_iteration_is_kept(tmp_path, monkeypatch):
    X, y = rows()
    real = RunFolder.append_history

    def append(self: RunFolder, row: Any) -> None:
        if row["iteration"] == 7:
            raise CheckpointError("cannot write history.jsonl: Input/output error")
        real(self, row)

    monkeypatch.setattr(RunFolder, "append_history", append)
    with pytest.raises(CheckpointError, match=r"history\.jsonl: Input.*checkpoint-00000007\.h5 is kept: gpubp resume"):
        gpubp.train(X, y, out=tmp_path / "run", hidden=(4,), iterations=50)
    assert find_checkpoint(tmp_path / "run").checkpoint.iteration == 7


def test_what_the_writer_raises_comes_out_where_it_is_waited_for():
    work = Background()
    work.settle()
    work.begin(lambda go_on: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        work.settle()
    work.settle()
    work.begin(lambda go_on: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        work.begin(lambda go_on: None)
    done: list[int] = []
    work.begin(lambda go_on: (time.sleep(0.05), done.append(1)))
    work.settle()
    assert done == [1]


def test_without_a_thread_for_the_writer_a_run_ends_in_words_and_nobody_waits(tmp_path, monkeypatch):
    X, y = rows()
    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if self.name == "gpubp-checkpoint" and (tmp_path / "run" / "checkpoint-00000003.h5").exists():
            raise RuntimeError("can't start new thread")
        real(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(CheckpointError, match=r"no thread.*checkpoint-00000003\.h5 is kept: gpubp resume"):
        gpubp.train(X, y, out=tmp_path / "run", hidden=(4,), iterations=9, checkpoint_every="3it")
    assert iterations(tmp_path / "run") == ["", "3"]


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_an_error_of_a_callback_waits_for_the_writer_and_a_second_ctrl_c_does_not(tmp_path, monkeypatch, kind):
    X, y = rows()
    real = layout.Layout.write

    def slowly(self: layout.Layout, *arguments: Any, **more: Any) -> bytes:
        time.sleep(0.1)
        return real(self, *arguments, **more)

    def note(progress: Any, state: Any) -> None:
        if progress.iteration == 6:
            raise kind

    monkeypatch.setattr(layout.Layout, "write", slowly)
    with pytest.raises(kind):
        gpubp.train(X, y, out=tmp_path / "run", hidden=(4,), iterations=9, checkpoint_every="3it", callbacks=[note])
    assert iterations(tmp_path / "run") == ["", "3"] + ["6"] * (kind is not KeyboardInterrupt)
    assert not [name for name in os.listdir(tmp_path / "run") if ".tmp." in name]


def test_given_up_it_ends_soon_and_leaves_nothing(tmp_path):
    folder, work, began = RunFolder(tmp_path / "run"), Background(), threading.Event()

    def write(go_on: Any) -> None:
        def at_each_step() -> None:
            began.set()
            while True:  # until it is given up
                go_on()
                time.sleep(0.001)

        folder.save(record(1), go_on=at_each_step)

    with folder:
        work.begin(write)
        assert began.wait(10)
        work.give_up()
        assert os.listdir(folder.path) == ["lock"]


def test_given_up_while_the_disk_is_waited_for_it_gets_no_name(tmp_path, monkeypatch):
    """Who gave up has given the lock back by then: another trainer may be there."""
    synced: list[int] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        real(fd)
        synced.append(fd)

    def go_on() -> None:
        if synced:
            raise InterruptedError

    monkeypatch.setattr(os, "fsync", fsync)
    with RunFolder(tmp_path / "run") as folder:
        synced.clear()
        with pytest.raises(CheckpointError):
            folder.save(record(1), go_on=go_on)
        assert len(synced) == 1 and os.listdir(folder.path) == ["lock"]


def test_where_the_writer_fails_as_a_run_climbs_nothing_is_kept_under_the_wrong_precision(tmp_path, monkeypatch):
    X, y = rows()
    options: dict[str, Any] = {"hidden": (4,), "lambda_": 0.0, "options": {"tolerance": 1e-9}, "optimizer": "lbfgs"}
    last = len(gpubp.train(X, y, iterations=400, climb=False, **options).history)
    real, failed = RunFolder.save, []

    def save(self: RunFolder, checkpoint: Any, *arguments: Any, **more: Any) -> Path:
        if checkpoint.iteration == last and not failed:
            failed.append(1)
            raise MemoryError
        return real(self, checkpoint, *arguments, **more)

    monkeypatch.setattr(RunFolder, "save", save)
    with pytest.raises(OutOfMemory):
        gpubp.train(X, y, out=tmp_path / "run", iterations=400, checkpoint_every="1it", **options)
    found = find_checkpoint(tmp_path / "run").checkpoint
    assert failed and found.iteration == last - 1 and found.conditions["precision"] == "fp32"


# How often, and which stay ------------------------------------------------------------------------------------------


def test_checkpoints_that_cost_much_become_rarer(monkeypatch):
    class Due(recording.Recorder):
        def __init__(self, every: tuple[float, int], cost: float) -> None:
            self._every, self._saved_at, self._expense = every, 1000.0, recording.Expense()
            self._expense.seconds = cost

    now = [1000.0]
    monkeypatch.setattr(recording.time, "monotonic", lambda: now[0])

    def first(every: tuple[float, int], cost: float) -> float:
        now[0] = 1000.0
        while not Due(every, cost)._due(record()):  # pyright: ignore[reportArgumentType]
            now[0] += 1
        return now[0] - 1000

    assert first((60.0, 0), 0.0) == 60
    assert first((60.0, 0), -1.0) == 60
    assert first((60.0, 0), 0.5) == 60
    assert first((60.0, 0), 2.0) == 200
    assert first((60.0, 0), 30.0) == 600
    now[0] = 1e9
    assert Due((0.0, 7), 99.0)._due(record(7)) and not Due((0.0, 7), 99.0)._due(record(8))  # pyright: ignore


def test_what_a_checkpoint_costs_is_what_iterations_take_longer_meanwhile():
    expense, seconds, passes = recording.Expense(), 0.0, 0.0

    def iteration(takes: float, of: float = 1.0, writing: bool = False) -> None:
        nonlocal seconds, passes
        seconds, passes = seconds + takes, passes + of
        expense.note(Progress(1, 1, 0.0, 0.0, None, seconds, passes=passes), writing=writing)

    expense.begin()
    iteration(9.0, writing=True)
    iteration(9.0)  # nothing to compare with: not known
    assert expense.seconds == 0
    for takes, of in ((2.0, 1.0), (4.0, 2.0), (2.0, 1.0), (90.0, 1.0), (2.0, 1.0)):
        iteration(takes, of)
    assert expense.seconds == 0
    expense.begin()
    iteration(2.5, writing=True)
    iteration(4.25, of=2.0)
    assert expense.seconds == 0.75
    iteration(50.0)
    assert expense.seconds == 0.75
    expense.begin()
    iteration(2.0)
    assert expense.seconds == 0


def with_costs(at: int, *costs: tuple[float, float]) -> Any:
    """A checkpoint of that iteration whose history has (J, validation)."""
    history = np.array([[float(i), J, validation] for i, (J, validation) in enumerate(costs[:at], start=1)]).reshape(
        -1, 3
    )
    return record(at, history=history, history_columns=("iteration", "J", "validation"))


NONE = float("nan")


@pytest.mark.parametrize(
    ("costs", "left"),
    [
        ([(5, NONE), (4, NONE), (3, NONE), (2, NONE), (1, NONE)], ["1", "12", "23", "34", "45"]),
        ([(5, NONE), (1, NONE), (3, NONE), (2, NONE), (4, NONE)], ["1", "12", "23", "234", "245"]),
        ([(5, 9), (4, 1), (3, 2), (2, 3), (1, 4)], ["1", "12", "23", "234", "245"]),
        ([(5, 1), (4, 1), (3, 1), (2, NONE), (1, 2)], ["1", "12", "23", "34", "345"]),
    ],
)  # fmt: skip
def test_the_best_one_stays_beside_the_last(tmp_path, costs, left):
    with RunFolder(tmp_path / "run") as folder:
        for at, names_left in enumerate(left, start=1):
            folder.save(with_costs(at, *costs), keep=2)
            assert iterations(folder.path) == [*names_left]
        assert folder.newest().checkpoint.iteration == 5
        folder.save(record(6, history_columns=("a", "b")), keep=2)  # a history that does not know
        assert iterations(folder.path) == ["5", "6"]


def test_a_run_keeps_the_checkpoint_of_its_lowest_validation_cost(tmp_path):
    X, y = rows()
    model = gpubp.train(
        X, y, out=tmp_path / "run", hidden=(30,), lambda_=0.0, validation=0.3, iterations=20, checkpoint_every="1it"
    )
    best = min(model.history, key=lambda row: (row["validation"], -row["iteration"]))["iteration"]
    assert best < 17 and iterations(tmp_path / "run") == [str(best), "18", "19", "20"]
