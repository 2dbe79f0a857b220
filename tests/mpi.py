"""`mpiexec -n N gpubp …` while it runs: which process is which rank, how far it is, what it says, who is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import launched
import numpy as np
import pytest
from running import ENVIRONMENT

from gpubp.run_folder import find_checkpoint

needs_mpi = [
    launched.needs_mpi,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="ranks are found in /proc, which is Linux's"),
]
MARK = "RANKS_OF_A_TEST"
BANNER = "BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES"  # hydra's, where a rank was killed
PATIENCE = 120.0  # seconds for what takes one or two: a machine may be busy
MAIN = "\nimport sys\nfrom gpubp.cli import main\nmain(sys.argv[1:])"


WATCHDOG = 4  # seconds, where a rank is to wait in vain: ranks that share busy cores may wait for two
SOON = 90.0  # seconds, of a machine that is busy with other tests: what it takes on a quiet one is in NOTES.md
# 8 leaves of 2,500 rows, and passes that take a while
TRAIN = ["--hidden", "64,64", "--kernel", "numpy", "--optimizer", "gd", "--tolerance", "0", "--no-climb"]
ENDLESS = [*TRAIN, "--iterations", "100000", "--checkpoint-every", "1it"]
VAIN = [*ENDLESS, "--watchdog", WATCHDOG]


def rows() -> tuple[np.ndarray, np.ndarray]:
    """X and y that overlap, for a network with those layers."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(20_000, 20)).astype(np.float32)
    return X, (X[:, 0] * X[:, 1] > 0).astype(np.uint8)


@dataclass(frozen=True)
class Ended:
    """How a launch ended.

    Attributes:
        code: the launcher's exit code; −n for a signal n.
        seconds: from the last `Launch.signal`, or from its beginning, to the launcher's end.
        left: the processes that outlived it by a while.
    """

    code: int
    out: str
    errors: str
    seconds: float
    left: list[int]

    @property
    def error(self) -> str:
        """The one line that begins with `gpubp: error:`, of all ranks; nobody is left."""
        said = self.said
        assert len(said) == 1, self
        return said[0]

    @property
    def said(self) -> list[str]:
        """All such lines, where ranks that cannot hear each other may both speak."""
        assert "Traceback" not in self.errors, self
        self.quiet()
        found = [line for line in self.errors.splitlines() if line.startswith("gpubp: error: ")]
        return [line.removeprefix("gpubp: error: ") for line in found]

    def quiet(self) -> None:
        """The MPI library has said nothing, and nobody is left."""
        assert "Abort(" not in self.errors, self
        assert not self.left, self

    def ended(self, code: int) -> bool:
        """Whether it ended with that code. Where one rank ends all, hydra sometimes sees those that it killed before
        the one that ended: then it has their signal, and its banner."""
        return self.code == code or (self.code == signal.SIGKILL and BANNER in self.out)


class Launch:
    """Ranks at work; use as a context manager, at the end of which all are dead.

    Args:
        ranks: how many.
        arguments: of `gpubp`.
        before: Python that each rank runs before it, see `on_rank`.
        launcher: words before the ranks' own command; by default mpiexec's.
    """

    def __init__(
        self, ranks: int, *arguments: object, cwd: Path, before: str = "", env: dict[str, str] | None = None,
        launcher: Sequence[object] | None = None,
    ) -> None:  # fmt: skip
        self.cwd, self.size, self._mark = cwd, ranks, uuid.uuid4().hex
        program = ["-c", before + MAIN] if before else ["-m", "gpubp"]
        words = [launched.MPIEXEC, "-n", ranks] if launcher is None else launcher
        self._out, self._errors = (tempfile.TemporaryFile("w+") for _ in range(2))  # noqa: SIM115  closed at the end
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [*map(str, words), sys.executable, *program, *map(str, arguments)],
            cwd=cwd, env=ENVIRONMENT | {MARK: self._mark} | (env or {}), stdin=subprocess.DEVNULL,
            stdout=self._out, stderr=self._errors,
        )  # fmt: skip

    def __enter__(self) -> Launch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        until = time.monotonic() + PATIENCE
        while (found := self._processes()) and time.monotonic() < until:
            for pid in found:
                _kill(pid, signal.SIGKILL)
            self.process.poll()
            time.sleep(0.01)
        self.process.wait()
        for file in (self._out, self._errors):
            file.close()

    @property
    def over(self) -> bool:
        """Whether the launcher has ended."""
        return self.process.poll() is not None

    @property
    def pids(self) -> dict[int, int]:
        """The process of each rank that is there."""
        found = self._processes()
        ranked = {pid: int(one["PMI_RANK"]) for pid, one in found.items() if "PMI_RANK" in one}
        parents = {pid: _parent(pid) for pid in ranked}  # a rank's own children have its number too
        return {rank: pid for pid, rank in ranked.items() if parents[pid] not in ranked}

    def signal(self, number: int, rank: int | None = None) -> None:
        """Send a signal to a rank, or to the launcher."""
        pid = self.process.pid if rank is None else self.pids[rank]
        self.began = time.monotonic()
        _kill(pid, number)

    def reaches(self, run: str, iterations: int = 3) -> Launch:
        """Wait until the history of a run has so many lines."""
        history = self.cwd / run / "history.jsonl"
        self.until(lambda: history.exists() and history.read_bytes().count(b"\n") >= iterations)
        return self

    def says(self, text: str) -> Launch:
        """Wait until a rank has said that on stderr."""
        self.until(lambda: text in self._said(self._errors))
        return self

    def until(self, done: Callable[[], Any]) -> None:
        """Wait for it; that the launcher ends before is a failure."""
        until = time.monotonic() + PATIENCE
        while True:
            over = self.over  # before looking: what it did is then all there
            if done():
                return
            assert not over, (self.process.returncode, self._said(self._out), self.errors)
            assert time.monotonic() < until, self.errors
            time.sleep(0.01)

    def wait(self) -> Ended:
        """Wait for the end of the launcher, and a while for that of all others."""
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still at work after {PATIENCE:g} s: {self._said(self._out)} {self.errors}") from None
        seconds = time.monotonic() - self.began
        until = time.monotonic() + 5
        while (left := list(self._processes())) and time.monotonic() < until:
            time.sleep(0.01)
        return Ended(self.process.returncode, self._said(self._out), self.errors, seconds, left)

    @property
    def errors(self) -> str:
        """What was said on stderr so far."""
        return self._said(self._errors)

    def _said(self, file: Any) -> str:
        return os.pread(file.fileno(), 1 << 20, 0).decode(errors="replace")

    def _processes(self) -> dict[int, dict[str, str]]:
        """All that descend from the launcher and live, with their environment."""
        found = {}
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                environment = Path(f"/proc/{name}/environ").read_bytes()
                state = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if f"{MARK}={self._mark}".encode() in environment.split(b"\0") and state != "Z":
                pairs = (one.partition("=") for one in environment.decode(errors="replace").split("\0"))
                found[int(name)] = {name: value for name, _, value in pairs}
        return found


def ran(ranks: int, *arguments: object, cwd: Path, **more: Any) -> Ended:
    """`gpubp …` on so many ranks, to its end."""
    with Launch(ranks, *arguments, cwd=cwd, **more) as launch:
        return launch.wait()


def on_rank(rank: int, code: str) -> str:
    """Python that one rank alone runs before the command."""
    return f"import os\nif os.environ['PMI_RANK'] == '{rank}':\n" + "".join(
        f"    {line}\n" for line in code.strip().splitlines()
    )


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def sound(folder: Path, least: int = 0) -> int:
    """The iteration of the newest checkpoint of a run in which all are sound."""
    found = find_checkpoint(folder)
    assert not found.rejected and found.checkpoint.iteration >= least
    return found.checkpoint.iteration
