"""What goes wrong where ranks train together: all end, with one message, in time, and the last checkpoint is sound."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import mpi
import pytest
from in_process import Theta_of
from in_process import ran as alone
from mpi import ENDLESS, SOON, TRAIN, VAIN, WATCHDOG, Launch, on_rank, ran, rows, sound
from running import write

from gpubp.run_folder import find_checkpoint

pytestmark = mpi.needs_mpi


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    X, y = rows()
    return write(tmp_path_factory.mktemp("failures") / "d.h5", X=X, y=y)


def goes_on(run: Path, data: Path, ranks: int) -> None:
    """On another number of ranks, to the bits of a run that nobody disturbed and that one process made."""
    limit = sound(run) + 2
    done = ran(ranks, "resume", run, "--iterations", limit, "--json", cwd=run.parent)
    assert done.code == 0 and json.loads(done.out)["iterations"] == limit, done
    straight = run.parent / "straight"
    assert alone("train", data, "--out", straight, *TRAIN, "--iterations", limit).returncode == 0
    assert Theta_of(run) == Theta_of(straight)

    def table(folder: Path) -> bytes:
        checkpoint = find_checkpoint(folder).checkpoint
        kept = [i for i, name in enumerate(checkpoint.history_columns) if name != "seconds"]
        return checkpoint.history[:, kept].tobytes()

    assert table(run) == table(straight)


# --- someone ends it

THE_SCAN = """
import sys, time
from gpubp.data import scan
real = scan._Look._read
def read(self, start, stop):
    print("held", file=sys.stderr, flush=True)
    time.sleep(0.05)
    return real(self, start, stop)
scan._Look._read, scan._PIECE = read, 4096
"""


@pytest.mark.parametrize(
    ("name", "rank", "code"), [("SIGTERM", None, 143), ("SIGINT", 0, 130), ("SIGUSR1", 2, 75)], ids=str
)
def test_a_signal_to_the_launcher_or_to_any_rank_stops_all_at_one_iteration(data, tmp_path, name, rank, code):
    with Launch(3, "train", data, "--out", "run", *ENDLESS, "--json", cwd=tmp_path).reaches("run") as launch:
        launch.signal(getattr(signal, name), rank)
        done = launch.wait()
    done.quiet()
    assert done.code == code and "error" not in done.errors and done.seconds < SOON, done
    said = json.loads(done.out)  # one object
    assert said["ending"] == "stopped" and f"stopped by {name} after" in said["reason"]
    assert said["iterations"] == sound(tmp_path / "run", 3)
    if rank is None:
        goes_on(tmp_path / "run", data, 2)


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_a_signal_to_a_rank_while_the_data_are_read(data, tmp_path, command):
    words = [command, data, "--out", "run", "--hidden", "4", "--kernel", "numpy", "--threads", 1]
    with Launch(2, *words, cwd=tmp_path, before=THE_SCAN).says("held") as launch:
        launch.signal(signal.SIGTERM, 1)
        done = launch.wait()
    done.quiet()
    assert done.code == 143 and "Traceback" not in done.errors and done.seconds < SOON, done
    assert done.errors.count("stopped by SIGTERM") == 1 and not list(tmp_path.glob("run/checkpoint*"))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_all_and_the_run_goes_on_from_the_last_checkpoint(data, tmp_path, rank):
    with Launch(3, "train", data, "--out", "run", *ENDLESS, cwd=tmp_path).reaches("run") as launch:
        launch.signal(signal.SIGKILL, rank)
        done = launch.wait()
    done.quiet()
    assert done.code == signal.SIGKILL and mpi.BANNER in done.out and done.seconds < SOON, done
    assert "gpubp: error" not in done.errors and "Traceback" not in done.errors
    if rank:
        goes_on(tmp_path / "run", data, 4)
    assert sound(tmp_path / "run") >= 1


@pytest.mark.parametrize("rank", [0, 1])
def test_a_hanging_rank_ends_all_by_the_watchdog(data, tmp_path, rank):
    with Launch(3, "train", data, "--out", "run", *VAIN, cwd=tmp_path).reaches("run") as launch:
        launch.signal(signal.SIGSTOP, rank)
        done = launch.wait()
    assert done.ended(3) and WATCHDOG * 0.5 < done.seconds < WATCHDOG + SOON, done
    for line in done.said:  # a second rank speaks where the first one cannot, or in the very same moment
        assert re.match(rf"rank [^{rank}] on {os.uname().nodename} has waited \d+ s for the other ranks", line), done
        assert "gpubp resume run goes on from" in line
    assert 1 <= len(done.said) <= 2
    assert sound(tmp_path / "run") >= 1


def test_a_hanging_rank_ends_all_though_the_run_is_gone(data, tmp_path):
    with Launch(2, "train", data, "--out", "run", *VAIN, cwd=tmp_path).reaches("run") as launch:
        launch.signal(signal.SIGSTOP, 1)
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        done = launch.wait()
    assert done.ended(3) and "for the other ranks" in done.error and done.seconds < WATCHDOG + SOON, done
    assert sound(tmp_path / "elsewhere") >= 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP], ids=lambda number: number.name)
def test_a_launcher_that_is_killed_leaves_nobody(data, tmp_path, number):
    with Launch(2, "train", data, "--out", "run", *ENDLESS, cwd=tmp_path).reaches("run", 1) as launch:
        launch.signal(number)
        done = launch.wait()
    done.quiet()
    assert "gpubp: error" not in done.errors and sound(tmp_path / "run") >= 0


# --- before they have met


@pytest.mark.parametrize(
    ("what", "codes"),
    # mpiexec may still have the code of the one that is gone, and ors them
    [("os._exit(5)", (3, 5 | 3)), ("import time; time.sleep(1000)", (3,))],
    ids=["gone", "hanging"],
)
def test_a_rank_that_never_comes(data, tmp_path, what, codes):
    says = f"mpiexec has started 3 processes, and not all of them came within {WATCHDOG} s"
    words = ["train", data, "--out", "run", *TRAIN, "--watchdog", WATCHDOG]
    done = ran(3, *words, cwd=tmp_path, before=on_rank(1, what))
    assert done.code in codes and done.ended(done.code) and done.error == says and done.seconds < SOON, done


MET = """
import gpubp.communicator
def current(*words, **more): raise {}
gpubp.communicator.current = current
"""


def test_an_error_that_is_not_ours_before_they_have_met(data, tmp_path):
    before = on_rank(1, MET.format("ZeroDivisionError('what now')"))
    done = ran(3, "train", data, "--out", "run", *TRAIN, cwd=tmp_path, before=before)
    done.quiet()
    assert done.ended(1) and done.errors.count("Traceback") == 1 and "ZeroDivisionError: what now" in done.errors, done
    assert done.seconds < SOON and not (tmp_path / "run").exists()


EARLY = """
import sys
class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            sys.meta_path.remove(self)
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
"""  # of all modules the first one that loads Click


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("command", ["train", "--help", "info"])
def test_a_ctrl_c_while_one_rank_still_loads_the_command_line(data, tmp_path, command, rank):
    words = {"train": [data, "--out", "run", *TRAIN], "--help": [], "info": [data]}[command]
    done = ran(3, command, *words, cwd=tmp_path, before=on_rank(rank, EARLY))
    done.quiet()
    assert done.ended(130) and done.errors == "gpubp: interrupted\n" and done.seconds < SOON, done


def test_a_ctrl_c_before_they_have_met(data, tmp_path):
    before = on_rank(1, MET.format("KeyboardInterrupt"))
    done = ran(3, "train", data, "--out", "run", *TRAIN, cwd=tmp_path, before=before)
    done.quiet()
    assert done.ended(130) and done.errors.split("\n") == ["", "gpubp: interrupted", ""] and done.seconds < SOON, done


def test_nothing_is_offered_to_go_on_from_where_nothing_is_kept(data, tmp_path):
    slow = on_rank(0, "from gpubp.data import scan\nimport time\nscan._Look._read = lambda *a: time.sleep(1000)")
    done = ran(2, "train", data, "--out", "run", *VAIN, cwd=tmp_path, before=slow)
    assert done.ended(3) and "for the other ranks" in done.error and "resume" not in done.error, done


def test_where_a_run_goes_on_its_checkpoint_is_offered_from_the_beginning(data, tmp_path):
    assert alone("train", data, "--out", tmp_path / "run", *TRAIN, "--iterations", 1).returncode == 0
    code = "from gpubp.objective import Objective\nimport time\n"
    slow = on_rank(0, code + "Objective.value_and_gradient = lambda *_: time.sleep(1000)")
    with Launch(2, "resume", "run", "--iterations", 9, "--watchdog", WATCHDOG, cwd=tmp_path, before=slow) as launch:
        done = launch.wait()
    assert done.ended(3) and "gpubp resume run goes on from the last checkpoint" in done.error, done
    with Launch(2, "train", data, "--out", "new", *VAIN, cwd=tmp_path, before=slow) as launch:
        done = launch.wait()
    assert done.ended(3) and "for the other ranks" in done.error and "resume" not in done.error, done


# --- a rank fails in the midst


FULL = """
real = os.fsync
def fsync(fd):
    if "checkpoint-0000000{}" in os.readlink(f"/proc/self/fd/{{fd}}"):
        raise OSError(28, "No space left on device")
    real(fd)
os.fsync = fsync
"""


SHARED = "from gpubp.optimizers import parted\nparted.PARTED, parted.PART = 256, 32\n"  # what is remembered


@pytest.mark.parametrize(("at", "before"), [(0, ""), (3, ""), (3, SHARED)], ids=["first", "later", "shared"])
def test_the_disk_of_the_run_is_full(data, tmp_path, at, before):
    words = ["train", data, "--out", "run", *(word if word != "gd" else "klbfgs" for word in ENDLESS)]
    done = ran(3, *words, cwd=tmp_path, before=before + on_rank(0, FULL.format(at)))
    assert done.ended(3) and "No space left on device" in done.error and done.seconds < SOON, done
    if at:
        assert "is kept: gpubp resume run goes on from there" in done.error
        assert sound(tmp_path / "run") == 2


def test_the_run_cannot_be_written(data, tmp_path):
    (tmp_path / "file").write_text("")
    done = ran(3, "train", data, "--out", "file/run", *ENDLESS, cwd=tmp_path)
    assert done.ended(3) and "file/run" in done.error and done.seconds < SOON, done


PASS = """
from gpubp.objective import Objective
real, count = Objective.value_and_gradient, []
def value_and_gradient(self, Theta, out):
    count.append(1)
    if len(count) > 4: {}
    return real(self, Theta, out)
Objective.value_and_gradient = value_and_gradient
"""


@pytest.mark.parametrize("rank", [0, 2])
def test_an_error_that_is_not_ours(data, tmp_path, rank):
    before = on_rank(rank, PASS.format("raise ZeroDivisionError('what now')"))
    done = ran(3, "train", data, "--out", "run", *ENDLESS, cwd=tmp_path, before=before)
    done.quiet()
    assert done.ended(1) and done.errors.count("Traceback") == 1 and "ZeroDivisionError: what now" in done.errors, done
    assert "gpubp: error" not in done.errors and done.seconds < SOON and sound(tmp_path / "run") >= 2


READ = """
from gpubp.data.rows import Rows
real, count = Rows.check, []
def check(self):
    count.append(1)
    if len(count) > 4: raise {}
    real(self)
Rows.check = check
"""


def test_an_error_that_is_not_ours_inside_a_pass(data, tmp_path):
    before = on_rank(1, READ.format("ZeroDivisionError('what now')"))
    done = ran(3, "train", data, "--out", "run", *ENDLESS, cwd=tmp_path, before=before)
    done.quiet()
    assert done.ended(1) and done.errors.count("Traceback") == 1 and "ZeroDivisionError: what now" in done.errors, done
    assert f"gpubp: error: rank 1 on {os.uname().nodename}: failed by ZeroDivisionError: what now; run/" in done.errors
    assert done.seconds < SOON and sound(tmp_path / "run") >= 1


def test_no_memory_on_one_rank(data, tmp_path):
    before = on_rank(1, READ.format("MemoryError"))
    done = ran(3, "train", data, "--out", "run", *ENDLESS, cwd=tmp_path, before=before)
    assert done.ended(3) and done.seconds < SOON, done
    assert done.error.startswith(f"rank 1 on {os.uname().nodename}: out of memory; keep fewer rows in it with --memory")
    assert "is kept: gpubp resume run goes on from there" in done.error and sound(tmp_path / "run") >= 1


OTHER = """
from gpubp.communicator.ranks import Ranks
real, count = Ranks.compare, []
def compare(self, Theta):
    count.append(1)
    found = Theta()
    if len(count) == 4: found.view("i8")[3] ^= 1
    real(self, lambda: found)
Ranks.compare = compare
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_another_Theta_on_one_rank(data, tmp_path, rank):
    done = ran(2, "train", data, "--out", "run", *ENDLESS, cwd=tmp_path, before=on_rank(rank, OTHER))
    here = os.uname().nodename
    assert done.ended(3) and f"rank 1 on {here} has another Theta than rank 0 on {here}" in done.error, done
    assert "checkpoint-00000003.h5 is kept" in done.error and sound(tmp_path / "run") == 3
    assert not (tmp_path / "run" / "checkpoint-00000004.h5").exists()


LEAVE = """
from gpubp.communicator.mpi import MpiCommunicator
import time
MpiCommunicator.leave = lambda self: time.sleep(1000)
"""


def test_a_rank_that_hangs_at_the_end(data, tmp_path):
    words = ["train", data, "--out", "run", *TRAIN, "--iterations", 2, "--watchdog", WATCHDOG, "--json"]
    done = ran(3, *words, cwd=tmp_path, before=on_rank(1, LEAVE))
    assert done.ended(3) and "s for the other ranks" in done.said[0] and done.seconds < SOON, done
    assert json.loads(done.out.splitlines()[0])["iterations"] == 2 == sound(tmp_path / "run")
