"""What tests of the command share: data files, and the command line as a person runs it, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("GPUBP_")} | {"PYTHONPATH": str(ROOT)}


class Result(subprocess.CompletedProcess[str]):
    """A finished command."""

    @property
    def json(self) -> Any:
        """The one object on stdout."""
        return json.loads(self.stdout)

    @property
    def error(self) -> str:
        """The one line that begins with `gpubp: error:`; a traceback or a second such line is a failure."""
        assert "Traceback" not in self.stderr, self.stderr
        errors = [line for line in self.stderr.splitlines() if line.startswith("gpubp: error: ")]
        assert len(errors) == 1, self.stderr
        return errors[0].removeprefix("gpubp: error: ")


def gpubp(*arguments: object, cwd: Path, check: int | None = 0, env: dict[str, str] | None = None) -> Result:
    """Run `gpubp …` and, unless `check` is None, insist on that exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "gpubp", *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT | (env or {}), timeout=120,
    )  # fmt: skip
    if check is not None:
        assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return Result(done.args, done.returncode, done.stdout, done.stderr)


def write(path: Path, **datasets: Any) -> Path:
    """An HDF5 file with these datasets; `train__X` becomes `train/X`."""
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file[name.replace("__", "/")] = data
    return path
