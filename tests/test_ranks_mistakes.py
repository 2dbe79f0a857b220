"""What a person, a launcher or a data file gets wrong where ranks train together: one message, and nothing is left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mpi
import numpy as np
import pytest
from in_process import Theta_of
from in_process import ran as alone
from mpi import ENDLESS, SOON, TRAIN, Ended, Launch, on_rank, ran, rows, sound
from running import ENVIRONMENT, write

pytestmark = mpi.needs_mpi


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    X, y = rows()
    return write(tmp_path_factory.mktemp("failures") / "d.h5", X=X, y=y)


# --- the launcher


@pytest.mark.parametrize(
    "variables", [{"PMI_SIZE": "3", "PMI_RANK": "0"}, {"SLURM_STEP_NUM_TASKS": "3"}, {"OMPI_COMM_WORLD_SIZE": "3"}],
    ids=lambda variables: next(iter(variables)),
)  # fmt: skip
def test_a_launcher_of_another_mpi(data, tmp_path, variables):
    done = single(data, tmp_path, env=variables)
    assert done.code == 3 and done.errors.count("\n") == 1, done
    assert "has started 3 processes, and MPI knows of 1 (MPICH" in done.error
    assert "wanted a launcher of the same MPI" in done.error


def test_mpi4py_is_missing(data, tmp_path):
    before = "import sys; sys.modules['mpi4py'] = None"
    done = single(data, tmp_path, env={"PMI_SIZE": "2", "PMI_RANK": "0"}, before=before)
    assert done.code == 3 and done.errors.count("\n") == 1, done
    assert done.error == "mpiexec has started 2 processes, and mpi4py is not installed; pip install 'gpubp[mpi]'"
    both = ran(2, "train", data, "--out", "run", cwd=tmp_path, before=before)
    assert both.ended(3) and both.error == done.error


def single(data: Path, tmp_path: Path, env: dict[str, str], before: str = "") -> Ended:
    """One process that believes to be one of several."""
    with Launch(1, "train", data, "--out", "run", cwd=tmp_path, env=env, before=before, launcher=()) as launch:
        return launch.wait()


# --- what a person gets wrong


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["train", "DATA", "--out", "run", "--hiden", "3"], 2, "No such option '--hiden'"),
        (["train", "DATA", "--out", "run", "--optimizer", "foo"], 2, "optimizer 'foo'; wanted one of adam"),
        (["train", "nowhere.h5", "--out", "run"], 3, "nowhere.h5: No such file or directory"),
        (["resume", "nowhere"], 3, "nowhere does not exist; wanted a run folder"),
        (["evaluate", "nowhere", "DATA"], 3, "nowhere"),
        (["info", "nowhere.h5"], 3, "nowhere.h5 does not exist"),
        (["trian"], 2, "No such command 'trian'"),
    ],
    ids=lambda words: " ".join(words[:1] + words[-2:]) if isinstance(words, list) else "",
)
def test_a_mistake_is_said_once(data, tmp_path, words, code, says):
    done = ran(3, *(data if word == "DATA" else word for word in words), cwd=tmp_path)
    assert done.code == code and says in done.error and done.out == "" and done.seconds < SOON, done
    assert not (tmp_path / "run").exists()


def test_what_ranks_do_not_share_the_first_does_alone(tmp_path):
    done = ran(3, "demo", "--out", "run", "--iterations", 1, "--kernel", "numpy", "--json", cwd=tmp_path)
    assert done.code == 0 and json.loads(done.out)["iterations"] == 1 and not done.left, done


# --- data that are not the same everywhere, or not as they should be


def two_folders(tmp_path: Path, other: Path | None) -> tuple[str, str]:
    """A path that is one file for rank 1 and another for the others, and what makes it so."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    if other is not None:
        shutil.copy(other, tmp_path / "b" / "d.h5")
    where = f"'{tmp_path}/' + ('b' if os.environ['PMI_RANK'] == '1' else 'a')"
    return "/proc/self/cwd/d.h5", f"import os\nos.chdir({where})\n"


def test_a_file_is_missing_on_one_host(data, tmp_path):
    path, before = two_folders(tmp_path, None)
    shutil.copy(data, tmp_path / "a")
    done = ran(3, "train", path, "--out", tmp_path / "run", *TRAIN, cwd=tmp_path, before=before)
    here = os.uname().nodename
    assert done.ended(3) and f"rank 1 on {here}: {path}: No such file or directory" in done.error, done
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("what", ["labels", "dtype", "rows"])  # the others in test_ranks_start.py
def test_another_file_on_one_host(data, tmp_path, what):
    X, y = rows()
    if what == "labels":
        y = 1 - y
    elif what == "rows":
        X[12_000:] += 1
    else:
        X = X.astype(np.float64)
    path, before = two_folders(tmp_path, write(tmp_path / "other.h5", X=X, y=y))
    shutil.copy(data, tmp_path / "a")
    done = ran(2, "train", path, "--out", tmp_path / "run", *TRAIN, cwd=tmp_path, before=before)
    says = {"labels": "other labels or weights", "rows": "other rows", "dtype": "20,000 rows of 20 features (float64)"}
    assert done.ended(3) and f"has {says[what]}" in done.error and "on rank 1" in done.error, done
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["evaluate", "predict"])
@pytest.mark.parametrize("what", ["labels", "rows", "fewer"])
def test_another_file_on_one_host_for_a_model(data, tmp_path, command, what):
    assert alone("train", data, "--out", tmp_path / "run", *TRAIN, "--iterations", 1).returncode == 0
    X, y = rows()
    if what == "labels":
        y[-1] = 1 - y[-1]
    elif what == "rows":
        X[::2] += 1
    else:
        X, y = X[:-1], y[:-1]
    path, before = two_folders(tmp_path, write(tmp_path / "other.h5", X=X, y=y))
    shutil.copy(data, tmp_path / "a")
    more = ["-o", tmp_path / "p.csv"] if command == "predict" else []
    done = ran(2, command, tmp_path / "run", path, *more, cwd=tmp_path, before=before)
    says = {"labels": "other labels or weights", "rows": "other rows", "fewer": "19,999 rows"}
    assert done.ended(3) and says[what] in done.error and "on rank 1" in done.error, done
    assert not (tmp_path / "p.csv").exists()


def test_another_theta_on_one_host(data, tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        rng = np.random.default_rng(seed)
        np.savez(tmp_path / name / "theta.npz", Theta1=rng.normal(size=(3, 21)), Theta2=rng.normal(size=(1, 4)))
    before = f"import os\nos.chdir('{tmp_path}/' + ('b' if os.environ['PMI_RANK'] == '1' else 'a'))\n"
    done = ran(2, "evaluate", "--theta", "theta.npz", data, cwd=tmp_path, before=before)
    assert done.ended(3) and "has another Theta than rank 0" in done.error, done


def test_the_file_of_one_rank_is_cut_while_they_train(data, tmp_path):
    path, before = two_folders(tmp_path, data)
    shutil.copy(data, tmp_path / "a")
    words = ["train", path, "--out", tmp_path / "run", *ENDLESS, "--memory", "500kB"]
    with Launch(3, *words, cwd=tmp_path, before=before).reaches("run") as launch:
        os.truncate(tmp_path / "b" / "d.h5", 500_000)
        done = launch.wait()
    assert done.ended(3) and done.error.startswith(f"rank 1 on {os.uname().nodename}: {path}"), done
    assert "is kept: gpubp resume" in done.error and done.seconds < SOON
    for name in ("a", "b"):
        shutil.copy(data, tmp_path / name / "d.h5")
    at = sound(tmp_path / "run", 3)
    done = ran(2, "resume", tmp_path / "run", "--iterations", at + 1, "--json", cwd=tmp_path, before=before)
    assert done.code == 0 and json.loads(done.out)["iterations"] == at + 1, done


def test_a_nan_in_the_rows_of_one_rank(tmp_path):
    X, y = rows()
    X[13_001, 7] = np.nan
    file = write(tmp_path / "d.h5", X=X, y=y)
    done = ran(3, "train", file, "--out", "run", *TRAIN, cwd=tmp_path)
    assert done.ended(3) and not (tmp_path / "run").exists(), done
    assert done.error.count("d.h5") == 1 and "row 13001" in done.error.replace(",", "") and "column 7" in done.error


def test_a_cost_that_is_not_finite(tmp_path):
    X, y = rows()
    file = write(tmp_path / "d.h5", X=(X * 1e30).astype(np.float32), y=y * 1e30)
    words = ["--hidden", "4", "--scale", "none", "--activation", "identity", "--kernel", "numpy"]
    one = alone("train", file, "--out", tmp_path / "one", *words)
    assert one.returncode == 1, one
    done = ran(3, "train", file, "--out", "run", *words, "--json", cwd=tmp_path)
    done.quiet()
    assert done.code == 1 and json.loads(done.out)["ending"] == "failed", done
    assert "error" not in done.errors and sound(tmp_path / "run") == 0


def test_fewer_leaves_than_ranks(tmp_path):
    X, y = rows()
    file = write(tmp_path / "d.h5", X=X[:300], y=y[:300])
    words = ["--hidden", "4", "--kernel", "numpy", "--iterations", 5]
    done = ran(3, "train", file, "--out", "run", *words, cwd=tmp_path)
    done.quiet()
    assert done.code == 0 and "0 to 1 of the 1 leaves of the sum each" in done.errors, done
    assert "2 of them have nothing to do: take 1 or fewer" in done.errors
    assert alone("train", file, "--out", tmp_path / "one", *words).returncode == 0
    assert Theta_of(tmp_path / "run") == Theta_of(tmp_path / "one")


# --- what is printed


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    assert alone("train", data, "--out", data.parent / "model", *TRAIN, "--iterations", 1).returncode == 0
    return data.parent / "model"


def test_nobody_reads_the_predictions(data, model, tmp_path):
    line = [mpi.launched.MPIEXEC, "-n", "3", sys.executable, "-m", "gpubp", "-q", "predict", model, data, "-o", "-"]
    with subprocess.Popen(
        [*map(str, line)], cwd=tmp_path, env=ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout and process.stderr and process.stdout.readline()
        process.stdout.close()
        process.wait(SOON)
        said = process.stderr.read()
    assert "Traceback" not in said and "gpubp: error" not in said, said


def test_nobody_reads_what_the_first_rank_prints(data, model, tmp_path):
    closed = "read, into = os.pipe(); os.close(read); os.dup2(into, 1); os.close(into)"
    words = ["predict", model, data, "-o", "-"]
    done = ran(3, *words, cwd=tmp_path, before=on_rank(0, closed))
    done.quiet()
    assert done.ended(141) and "error" not in done.errors and done.seconds < SOON, done
