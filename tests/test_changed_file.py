"""A data file that changes while a run reads it: one line, exit code 3, and what was reached on good rows is kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_rows import later
from running import ENVIRONMENT, gpubp, write

import gpubp as package
from gpubp.errors import DataError
from gpubp.run import resume

SETTINGS: dict[str, Any] = {"hidden": (8,), "memory": "1KB", "seed": 3, "backend": "cpu", "climb": False}


def data(path: Path, m: int = 3000) -> Path:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(m, 12)).astype(np.float32)
    return write(path, X=X, y=(X[:, 0] * X[:, 1] + 0.3 * rng.normal(size=m) > 0).astype(np.uint8))


@pytest.mark.parametrize("kernel", ["auto", "numpy"])
@pytest.mark.parametrize("how", ["written to", "bytes when it was opened", "replaced"])
def test_the_run_ends_and_can_be_resumed_to_the_same_bits(tmp_path, kernel, how):
    path = data(tmp_path / "d.h5")
    good = shutil.copy2(path, tmp_path / "good.h5")
    wanted = package.train(path, iterations=9, kernel=kernel, **SETTINGS)

    def spoil(progress: Any, state: Any) -> None:
        if progress.iteration == 4:
            if how == "replaced":
                os.replace(shutil.copy2(path, tmp_path / "other.h5"), path)
            elif how == "written to":
                later(path)
            else:
                os.truncate(path, os.path.getsize(path) - 1000)

    run = tmp_path / "run"
    with pytest.raises(DataError, match=how):
        package.train(path, out=run, iterations=9, kernel=kernel, callbacks=[spoil], **SETTINGS)
    assert sorted(one.name for one in run.glob("*.h5")) == ["checkpoint-00000000.h5", "checkpoint-00000004.h5"]
    shutil.copy2(good, path)
    assert resume(run).Theta.tobytes() == wanted.Theta.tobytes()


def test_on_the_command_line(tmp_path):
    path, run = data(tmp_path / "d.h5", 100_000), tmp_path / "run"
    good = shutil.copy2(path, tmp_path / "good.h5")
    options = ["--hidden", "64", "--memory", "1KB", "--iterations", "100000", "--out", str(run), "--backend", "cpu"]
    command = [sys.executable, "-m", "gpubp", "--quiet", "train", str(path), *options]
    training = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    history, end = run / "history.jsonl", time.monotonic() + 60
    while not (history.exists() and history.read_text().count("\n") >= 2) and time.monotonic() < end:
        time.sleep(0.01)
    later(path)
    out, error = training.communicate(timeout=60)
    assert training.returncode == 3, error
    assert error.startswith(f"gpubp: error: {path} was written to after it was opened") and error.count("\n") == 1, out
    done = history.read_text().count("\n")
    assert (run / f"checkpoint-{done:08}.h5").exists() and done >= 2
    shutil.copy2(good, path)
    gpubp("resume", run, "--iterations", done + 1, cwd=tmp_path)
