"""The command on ranks, as processes that MPI connects: the same files, and one voice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import launched
import numpy as np
import pytest
from in_process import Theta_of
from running import gpubp as alone
from running import write

from gpubp.run_folder import find_checkpoint

pytestmark = launched.needs_mpi

TRAIN = ["--hidden", "9,5", "--validation", "0.1", "--memory", "64MB", "--tolerance", "0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20,000 rows, 16 leaves; some values are missing."""
    rng = np.random.default_rng(7)
    X = (rng.normal(size=(20_000, 10)) * 3 + 1).astype(np.float32)
    y = np.array(["ash", "elm", "oak"])[(X @ rng.normal(size=(10, 3)) + rng.normal(size=(20_000, 3))).argmax(axis=1)]
    X[rng.integers(0, 20_000, 50), rng.integers(0, 10, 50)] = np.nan
    folder = tmp_path_factory.mktemp("ranks")
    return write(folder / "data.h5", X=X, y=y.astype("S3"), weights=rng.random(20_000))


@pytest.fixture(scope="module")
def straight(data: Path) -> Path:
    """A run by one process."""
    alone("-q", "train", data, "--out", "straight", *TRAIN, "--missing", "mean", "--iterations", 12, cwd=data.parent)
    return data.parent / "straight"


def known(run: Path) -> dict[str, Any]:
    """All that a run has come to, but for the time it took and where."""
    checkpoint = find_checkpoint(run).checkpoint
    history = {name: checkpoint.history[:, i].tobytes() for i, name in enumerate(checkpoint.history_columns)}
    del history["seconds"]
    state = {name: np.asarray(value).tobytes() for name, value in checkpoint.state.items()}
    job = {name: value for name, value in checkpoint.job.items() if name not in ("data", "iterations", "options")}
    return {
        "Theta": Theta_of(run), "history": history, "state": state, "conditions": checkpoint.conditions,
        "fill": checkpoint.scaling["fill"].tobytes(), "mean": checkpoint.scaling["mean"].tobytes(), "job": job,
    }  # fmt: skip


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_a_run_is_the_same_to_the_bit_and_does_not_say_how_many_made_it(data, straight, tmp_path, ranks):
    done = launched.gpubp(
        ranks, "train", data, "--out", "run", *TRAIN, "--missing", "mean", "--iterations", 12, cwd=tmp_path
    )
    assert known(tmp_path / "run") == known(straight)
    assert done.stdout.count("cost J") == 1 and done.stderr.count("network") == 1
    assert f"ranks    {ranks} ({ranks} on " in done.stderr
    assert len((tmp_path / "run" / "history.jsonl").read_text().splitlines()) == 12


def test_a_run_goes_on_with_other_numbers_of_ranks(data, straight, tmp_path):
    launched.gpubp(4, "-q", "train", data, "--out", "run", *TRAIN, "--missing", "mean", "--iterations", 3, cwd=tmp_path)
    launched.gpubp(2, "-q", "resume", "run", "--iterations", 7, cwd=tmp_path)
    alone("-q", "resume", "run", "--iterations", 9, cwd=tmp_path)
    launched.gpubp(3, "-q", "resume", "run", "--iterations", 12, cwd=tmp_path)
    assert known(tmp_path / "run") == known(straight)
    again = launched.gpubp(2, "resume", "run", "--iterations", 12, "--json", cwd=tmp_path)
    assert again.json["iterations"] == 12 and "nothing to do" in again.stderr


def test_rows_that_stay_in_the_file_have_the_same_bits(data, straight, tmp_path):
    few = [word if word != "64MB" else "300kB" for word in TRAIN]
    done = launched.gpubp(
        3, "train", data, "--out", "run", *few, "--missing", "mean", "--iterations", 12, "--kernel", "compiled",
        cwd=tmp_path, check=None,
    )  # fmt: skip
    if done.returncode == 3 and "compiled" in done.stderr:
        pytest.skip("numba is not installed")
    assert Theta_of(tmp_path / "run") == Theta_of(straight)


def test_evaluate_and_predict_share_the_rows(data, straight, tmp_path):
    one = alone("evaluate", straight, data, "--json", cwd=tmp_path)
    two = launched.gpubp(3, "evaluate", straight, data, "--json", cwd=tmp_path)
    assert one.json == two.json and len(two.stdout.splitlines()) == 1
    alone("-q", "predict", straight, data, "-o", "one.csv", cwd=tmp_path)
    launched.gpubp(3, "-q", "predict", straight, data, "-o", "three.csv", cwd=tmp_path)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "three.csv").read_bytes()
    printed = launched.gpubp(2, "-q", "predict", straight, data, "-o", "-", cwd=tmp_path)
    assert printed.stdout == (tmp_path / "one.csv").read_text()


def figures(text: str) -> Any:
    """A result without times and names of folders."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: bare(v) for k, v in value.items() if k not in ("seconds", "next")}
        return [bare(v) for v in value] if isinstance(value, list) else value

    return bare(json.loads(text))


def test_a_sweep_goes_on_where_another_number_of_ranks_left_it(data, tmp_path):
    words = ["-q", "sweep", data, "--hidden", "4", "--missing", "mean", "--iterations", 10, "--json"]
    whole = alone(*words, "--lambda", "0,1", "--out", "whole", cwd=tmp_path)
    launched.gpubp(2, *words, "--lambda", "1", "--out", "shared", cwd=tmp_path)
    shared = launched.gpubp(3, *words, "--lambda", "0,1", "--out", "shared", cwd=tmp_path)
    assert figures(whole.stdout) == figures(shared.stdout)


def test_a_learning_curve(data, tmp_path):
    words = ["-q", "learning-curve", data, "--hidden", "4", "--missing", "mean", "--iterations", 5, "--points", 2]
    one = alone(*words, "--least", 3000, "--json", cwd=tmp_path)
    two = launched.gpubp(2, *words, "--least", 3000, "--json", cwd=tmp_path)
    assert figures(one.stdout) == figures(two.stdout)


def test_a_command_that_ranks_do_not_share_runs_once(straight, tmp_path):
    done = launched.gpubp(3, "info", straight, "--json", cwd=tmp_path)
    assert len(done.stdout.splitlines()) == 1 and done.json
    assert launched.gpubp(2, "--help", cwd=tmp_path).stdout.count("Usage:") == 1
