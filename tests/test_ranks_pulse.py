"""A disk that is slower than the watchdog: whoever waits for rank 0 to write or to read waits on, and else not."""

from __future__ import annotations

import signal
from pathlib import Path

import mpi
import pytest
from in_process import Theta_of
from in_process import ran as alone
from mpi import SOON, TRAIN, VAIN, WATCHDOG, Launch, on_rank, ran, rows, sound
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


@pytest.mark.parametrize("before", ["", PARTED], ids=["whole", "parted"])
def test_a_checkpoint_may_take_longer_than_the_watchdog(data, tmp_path, before):
    few = [word if word != "gd" else "klbfgs" for word in FEW]
    done = ran(3, "train", data, "--out", "run", *few, cwd=tmp_path, before=before + on_rank(0, SLOW))
    assert done.code == 0 and not done.said and done.seconds > LONG, done
    assert "writing a checkpoint takes" in done.errors and "the other ranks wait for it" in done.errors
    assert sound(tmp_path / "run") == 4
    if not before:
        straight = tmp_path / "straight"
        assert alone("train", data, "--out", straight, *few[:-2]).returncode == 0
        assert Theta_of(tmp_path / "run") == Theta_of(straight)


def test_a_run_folder_may_take_longer_to_be_read(data, tmp_path):
    assert alone("train", data, "--out", tmp_path / "run", *FEW[:-2]).returncode == 0
    slow = f"import time\nfrom gpubp import run\nreal = run.find_checkpoint\ntime_ = {LONG}\n"
    slow += "def find(out):\n    time.sleep(time_)\n    return real(out)\nrun.find_checkpoint = find"
    words = ["resume", "run", "--iterations", 5, "--watchdog", WATCHDOG]
    done = ran(2, *words, cwd=tmp_path, before=on_rank(0, slow))
    assert done.code == 0 and not done.said and done.seconds > LONG, done
    assert "looking at the run folder takes" in done.errors and sound(tmp_path / "run") == 5


def test_predictions_may_take_longer_to_be_written(data, tmp_path):
    assert alone("train", data, "--out", tmp_path / "run", *FEW[:-2]).returncode == 0
    slow = "import time\nfrom gpubp.data.writing import unfinished\nreal = unfinished.Unfinished.finish\n"
    slow += f"def finish(self):\n    time.sleep({LONG})\n    real(self)\nunfinished.Unfinished.finish = finish"
    words = ["predict", "run", data, "-o", "p.csv", "--watchdog", WATCHDOG]
    done = ran(2, *words, cwd=tmp_path, before=on_rank(0, slow))
    assert done.code == 0 and not done.said and done.seconds > LONG, done
    assert (tmp_path / "p.csv").exists()


def test_rank_0_may_hang_while_it_writes(data, tmp_path):
    words = ["train", data, "--out", "run", *VAIN]
    with Launch(3, *words, cwd=tmp_path, before=on_rank(0, SLOW)).says("slow") as launch:
        launch.signal(signal.SIGSTOP, 0)
        done = launch.wait()
    assert done.ended(3) and "for the other ranks" in done.said[0] and done.seconds < WATCHDOG + SOON, done
    assert sound(tmp_path / "run") == 1


def test_another_rank_may_hang_while_rank_0_writes(data, tmp_path):
    words = ["train", data, "--out", "run", *VAIN]
    with Launch(3, *words, cwd=tmp_path, before=on_rank(0, SLOW)).says("slow") as launch:
        launch.signal(signal.SIGSTOP, 1)
        done = launch.wait()
    assert done.ended(3) and "for the other ranks" in done.said[0] and done.seconds < LONG + WATCHDOG + SOON, done
    assert sound(tmp_path / "run") >= 1


def test_a_library_for_one_thread_has_the_watchdog_alone(data, tmp_path):
    done = ran(2, "train", data, "--out", "run", *VAIN, cwd=tmp_path, before=ONE_THREAD + on_rank(0, SLOW))
    assert done.ended(3) and "for the other ranks" in done.error, done
