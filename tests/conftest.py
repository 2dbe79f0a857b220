"""For every test: BLAS pinned to one thread; the command line and a small data file as fixtures."""

from __future__ import annotations

import os
import signal

# before NumPy is imported: its BLAS reads these once
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.pop("GPUBP_PROGRAM", None)  # by scripts/dev hints begin with its own name
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background, and then in every process begun here
    signal.signal(signal.SIGINT, signal.default_int_handler)

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, chromium
from in_process import ran
from running import Result, gpubp, write


@pytest.fixture
def gpubp_process(tmp_path: Path) -> Callable[..., Result]:
    """Runs `gpubp …` in the test's folder, in a process of its own: see `running.gpubp`."""
    return partial(gpubp, cwd=tmp_path)


@pytest.fixture
def gpubp_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Likewise in this process, which has all imported; in one of its own where it is to have another environment."""
    monkeypatch.chdir(tmp_path)

    def command(
        *arguments: object, cwd: Path = tmp_path, check: int | None = 0, env: dict[str, str] | None = None
    ) -> Result:
        if env is not None:
            return gpubp(*arguments, cwd=cwd, check=check, env=env)
        monkeypatch.chdir(cwd)
        done = ran(*arguments)
        assert check is None or done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return command


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """600 rows of 12 features in 3 classes labelled 1, 2 and 10; classes overlap, so training takes a while."""
    rng = np.random.default_rng(5)
    y = rng.integers(0, 3, 600)
    X = rng.normal(size=(600, 12)) + 0.8 * rng.normal(size=(3, 12))[y]
    return write(tmp_path / "digits.h5", X=X.astype(np.float32), y=np.array([1, 2, 10])[y])


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The machine's Chromium."""
    with chromium() as found:
        yield found
