"""A Python script of the user's own on ranks: several trainings in one process, and what goes on beside them."""

from __future__ import annotations

from pathlib import Path

import mpi
import pytest
from mpi import SOON, WATCHDOG, Launch, rows
from running import write

pytestmark = mpi.needs_mpi

BEGIN = f"""
import sys, time
from gpubp.communicator import current
from gpubp import run
from gpubp.job import Job
from gpubp.training import StopRequest

ranks = current()
ranks.watchdog.seconds = {WATCHDOG}
job = Job(data=("DATA",), hidden=(8,), kernel="numpy", backend="cpu", iterations=6, optimizer="gd")
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    X, y = rows()
    return write(tmp_path_factory.mktemp("script") / "d.h5", X=X, y=y)


def script(ranks: int, data: Path, tmp_path: Path, text: str) -> mpi.Ended:
    launcher = [mpi.launched.MPIEXEC, "-n", ranks]
    (tmp_path / "script.py").write_text(BEGIN.replace("DATA", str(data)) + text)
    code = "import runpy\nrunpy.run_path('script.py')\nraise SystemExit"
    with Launch(ranks, cwd=tmp_path, before=code, launcher=launcher) as launch:
        return launch.wait()


TWO = """
stop, seen = StopRequest(), []
def at_three(progress, state):
    seen.append(progress)
    if len(seen) == 3 and ranks.rank == 1:
        stop.by = "SIGTERM"
first = run.start(job, "a", stop=stop, callbacks=[at_three])
assert ranks.kept() == "", ranks.kept()
second = run.start(job, "b", stop=StopRequest())
if ranks.rank == 0:
    print([(model.ending["kind"], len(model.history)) for model in (first, second)])
"""


def test_a_request_to_stop_ends_one_training_and_not_the_next(data, tmp_path):
    done = script(2, data, tmp_path, TWO)
    assert done.code == 0 and done.out == "[('stopped', 3), ('limit', 6)]\n", done


BUSY = f"""
run.start(job, "run")
if ranks.rank == 0:
    time.sleep({1.5 * WATCHDOG})
    print("done")
"""


def test_one_rank_may_work_on_alone_after_the_training(data, tmp_path):
    done = script(2, data, tmp_path, BUSY)
    assert done.code == 0 and done.out == "done\n" and not done.said, done


WAITS = f"""
import os, signal, threading
run.start(job, "run")
if ranks.rank == 0:
    time.sleep({1.5 * WATCHDOG})
    print("done", flush=True)
else:
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.daemon = True
    timer.start()
"""


def test_a_ctrl_c_of_a_rank_that_waits_at_the_end_is_no_success(data, tmp_path):
    done = script(2, data, tmp_path, WAITS)
    assert done.ended(130) and "done" not in done.out, done
    assert "Traceback" not in done.errors and "ignored" not in done.errors, done


ALONE = """
run.start(job, "run")
if ranks.rank == 0:
    run.start(job, "again")
"""


def test_what_all_must_do_and_one_does_is_ended(data, tmp_path):
    done = script(2, data, tmp_path, ALONE)
    assert done.ended(3) and 1 <= len(done.said) <= 2, done
    assert all("ranks out of step: rank 1 has ended, and rank 0 goes on" in line for line in done.said), done
    assert done.seconds < WATCHDOG + SOON
