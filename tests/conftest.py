"""What tests share: small data files, and the command line as a person runs it."""

from __future__ import annotations

import os

# before NumPy is imported: its BLAS reads these once
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("GPUBP_")} | {"PYTHONPATH": str(ROOT)}


class Result(subprocess.CompletedProcess):
    """A finished command."""

    @property
    def json(self) -> Any:
        """The one object on stdout."""
        return json.loads(self.stdout)

    @property
    def error(self) -> str:
        """The one line that begins with `gpubp: error:`; a traceback or a second such line is a failure."""
        lines = self.stderr.splitlines()
        assert "Traceback" not in self.stderr, self.stderr
        errors = [line for line in lines if line.startswith("gpubp: error: ")]
        assert len(errors) == 1, self.stderr
        return errors[0].removeprefix("gpubp: error: ")


@pytest.fixture
def gpubp_command(tmp_path: Path) -> Callable[..., Result]:
    """Runs `gpubp …` in a process of its own, in the test's folder."""

    def run(*arguments: object, check: int | None = 0, env: dict[str, str] | None = None) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "gpubp", *map(str, arguments)],
            capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT | (env or {}), timeout=120,
        )  # fmt: skip
        if check is not None:
            assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Result(done.args, done.returncode, done.stdout, done.stderr)

    return run


def write(path: Path, **datasets: Any) -> Path:
    """An HDF5 file with these datasets."""
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file[name.replace("__", "/")] = data
    return path


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """600 rows of 12 features in 3 classes labelled 1, 2 and 10; classes overlap, so training takes a while."""
    rng = np.random.default_rng(5)
    y = rng.integers(0, 3, 600)
    X = rng.normal(size=(600, 12)) + 0.8 * rng.normal(size=(3, 12))[y]
    return write(tmp_path / "digits.h5", X=X.astype(np.float32), y=np.array([1, 2, 10])[y])
