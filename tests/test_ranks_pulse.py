"""A disk that is slower than the watchdog: whoever waits for rank 0 to write or to read waits on, and else not."""

from __future__ import annotations

import shutil
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import mpi
import pytest
from in_process import Theta_of
from in_process import ran as alone
from mpi import SOON, TRAIN, VAIN, WATCHDOG, Launch, on_rank, rows, sound
from running import write

pytestmark = mpi.needs_mpi

LONG = 2 * WATCHDOG
SLOW = f"""
import sys, time
from gpubp.checkpoint import whole
real = whole.os.fsync
def fsync(fd):
    if "checkpoint-00000002" in os.readlink(f"/proc/self/fd/{{fd}}"):
        print("slow", file=sys.stderr, flush=True)
        time.sleep({LONG})
    real(fd)
whole.os.fsync = fsync
"""
PARTED = "from gpubp.optimizers import parted\nparted.PARTED, parted.PART = 256, 32\n"  # what is remembered
ONE_THREAD = """
from mpi4py import MPI
MPI.Query_thread = lambda: MPI.THREAD_SERIALIZED
"""
FEW = [*TRAIN, "--iterations", 4, "--checkpoint-every", "1it", "--watchdog", WATCHDOG]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    X, y = rows()
    return write(tmp_path_factory.mktemp("pulse") / "d.h5", X=X, y=y)


SLOW_LOOK = f"""
import time
from gpubp import run
real_find = run.find_checkpoint
def find(out):
    time.sleep({LONG})
    return real_find(out)
run.find_checkpoint = find
"""
SLOW_END = f"""
import time
from gpubp.data.writing import unfinished
real_finish = unfinished.Unfinished.finish
def finish(self):
    time.sleep({LONG})
    real_finish(self)
unfinished.Unfinished.finish = finish
"""


def test_what_rank_0_does_alone_may_take_longer_than_the_watchdog(data, tmp_path):
    """A checkpoint, one to which all give their part, a look at the run folder, predictions; all at the same time, for
    what they do is sleep."""
    shared = [word if word != "gd" else "klbfgs" for word in FEW]
    assert alone("train", data, "--out", tmp_path / "straight", *FEW[:-2]).returncode == 0
    for name in ("resumed", "model"):
        shutil.copytree(tmp_path / "straight", tmp_path / name)
    begun: dict[str, tuple[list[Any], str]] = {
        "whole": (["train", data, "--out", "whole", *FEW], on_rank(0, SLOW)),
        "parted": (["train", data, "--out", "parted", *shared], PARTED + on_rank(0, SLOW)),
        "looked": (["resume", "resumed", "--iterations", 5, "--watchdog", WATCHDOG], on_rank(0, SLOW_LOOK)),
        "predicted": (["predict", "model", data, "-o", "p.csv", "--watchdog", WATCHDOG], on_rank(0, SLOW_END)),
    }
    with ExitStack() as running:
        launches = {
            name: running.enter_context(Launch(2, *words, cwd=tmp_path, before=before))
            for name, (words, before) in begun.items()
        }
        ended = {name: launch.wait() for name, launch in launches.items()}
    for done in ended.values():
        assert done.code == 0 and not done.said and done.seconds > LONG, done
        assert "the other ranks wait for it" in done.errors
    assert "writing a checkpoint takes" in ended["whole"].errors and "writing a" in ended["parted"].errors
    assert "looking at the run folder takes" in ended["looked"].errors
    assert Theta_of(tmp_path / "whole") == Theta_of(tmp_path / "straight")
    assert sound(tmp_path / "whole") == sound(tmp_path / "parted") == 4 and sound(tmp_path / "resumed") == 5
    assert (tmp_path / "p.csv").read_bytes().count(b"\n") == 20_001


def test_a_rank_that_hangs_while_rank_0_writes_ends_all(data, tmp_path):
    """Rank 0 in the midst of it, and another one; and where the library is for one thread the slow disk itself."""
    before = {"first": on_rank(0, SLOW), "other": on_rank(0, SLOW), "one thread": ONE_THREAD + on_rank(0, SLOW)}
    with ExitStack() as running:
        launches = {
            name: running.enter_context(
                Launch(3, "train", data, "--out", name, *VAIN, cwd=tmp_path, before=code).says("slow")
            )
            for name, code in before.items()
        }
        launches["first"].signal(signal.SIGSTOP, 0)
        launches["other"].signal(signal.SIGSTOP, 1)
        ended = {name: launch.wait() for name, launch in launches.items()}
    for name, done in ended.items():
        assert done.ended(3) and done.said and all("for the other ranks" in line for line in done.said), (name, done)
        assert done.seconds < LONG + WATCHDOG + SOON and sound(tmp_path / name) >= 1, (name, done)
