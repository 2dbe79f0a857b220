"""`mpiexec -n N gpubp …`, as on one machine of a cluster."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from running import ENVIRONMENT, Result

MPIEXEC = Path(sys.executable).parent / "mpiexec"
there = MPIEXEC.exists() and importlib.util.find_spec("mpi4py") is not None
needs_mpi = pytest.mark.skipif(not there, reason="mpi4py and an mpiexec beside it are not installed")


def gpubp(
    ranks: int, *arguments: object, cwd: Path, check: int | None = 0, env: dict[str, str] | None = None
) -> Result:
    """Run `gpubp …` on so many ranks and, unless `check` is None, insist on that exit code."""
    done = subprocess.run(
        [MPIEXEC, "-n", str(ranks), sys.executable, "-m", "gpubp", *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT | (env or {}), timeout=240,
    )  # fmt: skip
    if check is not None:
        assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return Result(done.args, done.returncode, done.stdout, done.stderr)
