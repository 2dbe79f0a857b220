"""Signals in every phase of a run, sent to a process of its own: how it ends, and what it leaves."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import ENVIRONMENT, gpubp, write
from test_run import wait_for_iteration

from gpubp.run_folder import find_checkpoint
from gpubp.training import StopRequest

# What is put before `main` to hold a run in one of its phases: each says that it is there, and does not end by itself.
# A lock that is held already, taken by C without Python's lock, is a pass or a disk that no signal interrupts.
HOLD = """
import ctypes, os, sys, threading, time
C = ctypes.CDLL(None)
room = ctypes.create_string_buffer(64)
C.pthread_mutex_lock(room)
def stuck():
    print("held", file=sys.stderr, flush=True)
    C.pthread_mutex_lock(room)
"""
A_PASS = """
from gpubp.objective import Objective
real = Objective.value_and_gradient
count = []
def value_and_gradient(self, Theta, out):
    count.append(1)
    return real(self, Theta, out) if len(count) < 4 else stuck()
Objective.value_and_gradient = value_and_gradient
"""
A_WORKER = """
from gpubp.tree import SumTree
real = SumTree._own
count = []
def own(self, owner, fill):
    if threading.current_thread() is threading.main_thread():
        count.append(1)
    elif len(count) > 3:
        stuck()
    real(self, owner, fill)
SumTree._own = own
"""
A_SAVE = """
from pathlib import Path
real = os.fsync
def fsync(fd):
    if "checkpoint-00000003" in os.readlink(f"/proc/self/fd/{fd}"):
        stuck()
    real(fd)
os.fsync = fsync
"""
THE_SCAN = """
from gpubp.data import scan
real = scan._Look._read
def read(self, start, stop):
    if start:
        print("held", file=sys.stderr, flush=True)
        time.sleep(0.05)
    return real(self, start, stop)
scan._Look._read, scan._PIECE = read, 4096
"""
MAIN = "\nfrom gpubp.cli import main\nmain(sys.argv[1:])"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(20_000, 20)).astype(np.float32)
    return write(tmp_path / "d.h5", X=X, y=(X[:, 0] * X[:, 1] > 0).astype(np.uint8))


@pytest.fixture
def held(tmp_path: Path, data: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Begins a run that is held in a phase, and waits until it is there."""

    begun: list[subprocess.Popen[str]] = []

    def begin(phase: str, *options: str) -> subprocess.Popen[str]:
        line = ["train", str(data), "--out", "run", "--hidden", "16", "--backend", "cpu", "--iterations", "100000"]
        line += ["--checkpoint-every", "1it", *options]
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD + phase + MAIN, *line],
            cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        begun.append(process)
        assert process.stderr is not None
        for said in process.stderr:
            if said.startswith("held"):
                return process
        raise AssertionError(process.communicate())

    yield begin
    for process in begun:
        if process.poll() is None:
            process.kill()
            process.communicate()


def until_heard(process: subprocess.Popen[str], word: str) -> None:
    assert process.stderr is not None
    while word not in (said := process.stderr.readline()):
        assert said


@pytest.mark.parametrize(
    ("phase", "options"),
    [
        (A_PASS, []),
        (A_PASS, ["--kernel", "numpy"]),
        (A_WORKER, ["--kernel", "numpy", "--threads", "2", "--hidden", "90,90"]),
        (A_SAVE, []),
    ],
    ids=["in a pass", "in a pass of NumPy's", "in a worker thread", "while a checkpoint is written"],
)
def test_a_second_ctrl_c_ends_at_once_wherever_the_run_is(held, tmp_path, phase, options):
    process = held(phase, *options)
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").glob("checkpoint-*.h5")}
    process.send_signal(signal.SIGINT)
    until_heard(process, "SIGINT: stopping")
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130 and error.splitlines()[-1] == "gpubp: interrupted", error
    assert "Traceback" not in error and out == ""
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert not [name for name in names if ".tmp." in name]
    assert before and before.items() <= {p.name: p.read_bytes() for p in (tmp_path / "run").glob("*.h5")}.items()
    done = find_checkpoint(tmp_path / "run").checkpoint.iteration
    assert gpubp("resume", "run", "--iterations", done + 2, "--json", cwd=tmp_path).json["iterations"] == done + 2


@pytest.mark.parametrize(
    ("sent", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 75), ("SIGHUP", 129)], ids=lambda x: str(x)
)
def test_a_signal_during_the_first_reading_of_the_data_ends_it_and_leaves_nothing(held, tmp_path, sent, code):
    process = held(THE_SCAN, "--threads", "1")
    process.send_signal(getattr(signal, sent))
    # all of the pieces would take a minute and more
    out, error = process.communicate(timeout=30)
    assert process.returncode == code and out == "", error
    last = f"gpubp: stopped by {sent} while the data were read for the first time; nothing is lost"
    assert error.splitlines()[-1].startswith(last) and "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_a_resume_is_stopped_during_the_reading_too_and_its_run_is_as_it_was(held, data, tmp_path):
    gpubp("train", data, "--out", "run", "--hidden", "16", "--backend", "cpu", "--iterations", 2, cwd=tmp_path)
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.name != "lock"}
    process = held(THE_SCAN, "--threads", "1", "--resume", "auto")
    process.terminate()
    _, error = process.communicate(timeout=30)
    assert process.returncode == 143 and "stopped by SIGTERM while the data" in error
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.name != "lock"} == before


def test_a_sweep_is_stopped_during_the_reading_too(data, tmp_path):
    line = [sys.executable, "-c", HOLD + THE_SCAN + MAIN, "sweep", str(data), "--hidden", "4", "--lambda", "0,1"]
    process = subprocess.Popen(line, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    until_heard(process, "held")
    process.terminate()
    _, error = process.communicate(timeout=30)
    assert process.returncode == 143 and "stopped by SIGTERM" in error and "Traceback" not in error


ORDERS = {
    "SIGUSR1 SIGTERM": 75,  # as a scheduler sends them: the first one says what is to be done after
    "SIGTERM SIGINT": 143,
    "SIGTERM SIGTERM SIGTERM": 143,
    "SIGINT SIGTERM": 130,
    "SIGHUP SIGTERM": 129,
}


@pytest.mark.parametrize("order", ORDERS)
def test_the_first_signal_says_how_a_run_ends(data, tmp_path, order):
    line = ["train", str(data), "--out", "run", "--hidden", "16", "--optimizer", "gd", "--iterations", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gpubp", *line], cwd=tmp_path, env=ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_iteration(tmp_path / "run", 3, process)
    first, *others = order.split()
    process.send_signal(getattr(signal, first))
    until_heard(process, f"{first}: stopping")
    for name in others:
        process.send_signal(getattr(signal, name))
    out, error = process.communicate(timeout=60)
    assert process.returncode == ORDERS[order], error
    assert f"stopped by {first}" in out and "Traceback" not in error
    assert find_checkpoint(tmp_path / "run").checkpoint.iteration >= 3


def test_a_run_under_nohup_outlives_its_terminal(data, tmp_path):
    line = ["train", str(data), "--out", "run", "--hidden", "16", "--optimizer", "gd", "--iterations", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gpubp", *line], cwd=tmp_path, env=ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    wait_for_iteration(tmp_path / "run", 3, process)
    process.send_signal(signal.SIGHUP)
    done = (tmp_path / "run" / "history.jsonl").read_text().count("\n")
    wait_for_iteration(tmp_path / "run", done + 5, process)
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and "stopped by SIGTERM" in out


def test_a_terminal_that_is_closed_leaves_a_checkpoint(data, tmp_path):
    """A bar on a pseudo-terminal; its other end is closed, as by an ssh connection that breaks."""
    line = ["train", str(data), "--out", str(tmp_path / "run"), "--hidden", "16", "--optimizer", "gd"]
    command = [sys.executable, "-m", "gpubp", *line, "--iterations", "100000"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(command[0], command, ENVIRONMENT)
    history, seen = tmp_path / "run" / "history.jsonl", b""
    end = time.monotonic() + 60
    while not (history.exists() and history.read_text().count("\n") >= 3 and b"[" in seen) and time.monotonic() < end:
        seen += os.read(terminal, 4096)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 129, seen
    done = find_checkpoint(tmp_path / "run").checkpoint
    assert done.ending is not None and "stopped by SIGHUP" in done.ending["reason"] and done.iteration >= 3


def test_handlers_are_as_they_were_when_nobody_asked_to_stop():
    from gpubp.training import StopRequest

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
    before: list[Any] = [signal.getsignal(number) for number in numbers]
    with StopRequest().listening(for_good=True):
        assert [signal.getsignal(number) for number in numbers] != before
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1


SWALLOWED = """
import os, sys, weakref
class Thing: pass
def gone(reference): os.kill(os.getpid(), 2); sum(range(1000))  # Python swallows what is raised in here
thing = Thing(); reference = weakref.ref(thing, gone)
import gpubp.job
make = gpubp.job.Job.__init__
def init(self, *a, **o):
    global thing
    thing = None
    make(self, *a, **o)
gpubp.job.Job.__init__ = init
"""


def test_a_ctrl_c_that_python_swallows_before_the_run_listens_stops_it_all_the_same(tmp_path, data):
    process = subprocess.run(
        [sys.executable, "-c", "import sys\n" + SWALLOWED + MAIN, "train", str(data), "--out", "run", "--hidden", "4"],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert process.returncode == 130 and "Traceback" not in process.stderr, process
    assert "stopped by SIGINT while the data were read" in process.stderr, process


def test_a_third_ctrl_c_does_not_disturb_the_tidying_up(monkeypatch):
    monkeypatch.setattr(StopRequest, "_end_at_once", lambda self: None)  # that of another test
    tidied = []
    with pytest.raises(KeyboardInterrupt), StopRequest().listening():
        os.kill(os.getpid(), signal.SIGINT)
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)  # a handler runs between two instructions
            tidied.append(1)
            raise
    assert tidied
