"""A server that forks real gpubp commands, so that starting one costs no imports.

A run that is to be killed after some milliseconds would spend most of them importing NumPy and h5py. So a server, a
process of its own with one thread, imports all of it, trains once to have every late import done, and then forks a
child for each command. The child is a process like any other: `gpubp.cli.main` is what it runs, and a kill −9, a
signal, a lock or an exit code means there what it means everywhere. `Forks.separate` starts a real `python -m gpubp`
with the same handle, to see that no difference hides in that.
"""

from __future__ import annotations

import array
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any

TIMEOUT = 60.0  # seconds for anything that takes milliseconds: a command that hangs is a loss, and said to be one
SAVED = re.compile(r"^saved checkpoint-(\d+)\.h5$")
BLAS = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL")}


class Child:
    """A gpubp command at work; use as a context manager, at the end of which it is dead.

    Attributes:
        pid: of the process, ours to kill until `wait` is done.
        lines: the whole lines of stderr read so far.
        code: the exit code, −n for signal n; None while it is not known to have ended.
        began: `time.monotonic()` when it was started.
    """

    def __init__(self, pid: int, stderr: int, stdout: IO[bytes], reap: Callable[[], int], command: list[str]) -> None:
        self.pid, self.command, self.lines = pid, command, list[str]()
        self.code: int | None = None
        self.began = time.monotonic()
        self._stderr, self._stdout, self._reap = stderr, stdout, reap
        self._rest, self._written = b"", ""
        os.set_blocking(stderr, False)
        self._ended = os.pidfd_open(pid)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.code is None:
            self.send(signal.SIGKILL)
            self.wait()
        self.output  # noqa: B018 - read while it can be
        for one in (self._stderr, self._ended):
            os.close(one)
        self._stdout.close()

    def send(self, number: int) -> None:
        """Send it a signal; nothing happens where it has ended already."""
        if self.code is None:
            os.kill(self.pid, number)  # not reaped yet, so the number is still its own

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.code is not None or bool(select.select([self._ended], [], [], 0)[0])

    def line(self, wanted: str, count: int = 1, timeout: float = TIMEOUT) -> bool:
        """Wait for so many lines of stderr that have a match of `wanted`; False where it ended before."""
        until = time.monotonic() + timeout
        while True:
            over = self.over  # before reading: what it said is then all there
            self.read()
            if sum(re.search(wanted, line) is not None for line in self.lines) >= count:
                return True
            if over:
                return False
            assert time.monotonic() < until, self.says(f"has not said {wanted} after {timeout:g} s")
            select.select([self._stderr, self._ended], [], [], 0.1)

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Wait for its end, reading what it says; its exit code."""
        until = time.monotonic() + timeout
        while self.code is None:
            if self.over:
                self.code = self._reap()
                break
            assert time.monotonic() < until, self.says(f"has not ended after {timeout:g} s")
            select.select([self._stderr, self._ended], [], [], 0.1)
            self.read()
        self.read()
        return self.code

    def read(self) -> None:
        """Take what is there of stderr. Not to its end: processes that it has started may hold it a moment longer."""
        try:
            while piece := os.read(self._stderr, 1 << 16):
                *whole, self._rest = (self._rest + piece).split(b"\n")
                self.lines += [line.decode(errors="replace") for line in whole]
        except BlockingIOError:
            pass

    @property
    def output(self) -> str:
        """What it has written on stdout."""
        if not self._stdout.closed:
            self._written = os.pread(self._stdout.fileno(), 1 << 20, 0).decode(errors="replace")
        return self._written

    @property
    def saved(self) -> int:
        """The iteration of the last checkpoint that it has acknowledged; −1 before the first."""
        return max((int(found[1]) for line in self.lines if (found := SAVED.match(line))), default=-1)

    def says(self, problem: str) -> str:
        """The problem with the command and its last words, for whoever has to understand it."""
        last = "\n  ".join(self.lines[-12:])
        return f"{problem}: gpubp {' '.join(self.command)} (exit {self.code})\n  {last}\n  {self.output}"


class Forks:
    """The client of a server, for any number of threads; `close` ends the server and all its children."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        # A session of its own: a Ctrl-C that is meant for us is none for the trainers.
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()], env=environment(), start_new_session=True, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self._socket, self._answers = ours, ours.makefile("r")
        self._asking = threading.Lock()
        assert self._answer() == "ready"

    def close(self) -> None:
        self._answers.close()
        self._socket.close()
        self._server.wait()

    def start(self, *command: object, barrier: int | None = None) -> Child:
        """Fork a child that runs this command, once it reads the end of the pipe `barrier` if there is one."""
        words = [str(word) for word in command]
        reading, writing = os.pipe()
        stdout = tempfile.TemporaryFile()  # noqa: SIM115 - the child's to close
        given = [writing, stdout.fileno(), *([] if barrier is None else [barrier])]
        message = json.dumps(words).encode()
        head = b"%c%08d" % (len(given), len(message))
        with self._asking:
            self._socket.sendmsg([head], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", given))])
            self._socket.sendall(message)
            pid = int(self._answer())
        os.close(writing)
        return Child(pid, reading, stdout, lambda: self._reaped(pid), words)

    def separate(self, *command: object) -> Child:
        """Start a real process of its own for this command."""
        words = [str(word) for word in command]
        reading, writing = os.pipe()
        stdout = tempfile.TemporaryFile()  # noqa: SIM115 - the child's to close
        process = subprocess.Popen(
            [sys.executable, "-m", "gpubp", *words],
            stdin=subprocess.DEVNULL, stdout=stdout, stderr=writing, env=environment(), process_group=0,
        )  # fmt: skip
        os.close(writing)
        return Child(process.pid, reading, stdout, process.wait, words)

    def _reaped(self, pid: int) -> int:
        with self._asking:
            self._socket.sendall(b"w%08d" % pid)
            return int(self._answer())

    def _answer(self) -> str:
        answer = self._answers.readline().strip()
        assert answer, "the server that forks commands has ended"
        return answer


_forks: list[Forks] = []


def forks() -> Forks:
    """The server of this process, started when it is asked for first. It ends when this process does."""
    if not _forks:
        _forks.append(Forks())
    return _forks[0]


def environment() -> dict[str, str]:
    """What a command finds in a test: no option of gpubp's, one thread of BLAS."""
    root = str(Path(__file__).parents[2])
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GPUBP_")}
    path = [root, *filter(None, [kept.get("PYTHONPATH")])]
    return kept | BLAS | {"PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"}


# The server ---------------------------------------------------------------------------------------------------------


def serve(requests: socket.socket) -> list[str] | None:
    """Fork where it is asked for. In a child: the command that it is to run. In the server: None, at the end."""
    living: set[int] = set()
    requests.sendall(b"ready\n")
    while True:
        head, given, _, _ = socket.recv_fds(requests, 9, 4)
        if not head:
            for pid in living:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            return None
        if head[:1] == b"w":
            _, status = os.waitpid(int(head[1:]), 0)
            living.discard(int(head[1:]))
            requests.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
            continue
        command = json.loads(requests.recv(int(head[1:]), socket.MSG_WAITALL))
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        if pid := os.fork():
            living.add(pid)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            for one in given:
                os.close(one)
            requests.sendall(b"%d\n" % pid)
            continue
        requests.close()
        os.setpgid(0, 0)
        os.dup2(given[0], 2)
        os.dup2(given[1], 1)
        if len(given) > 2:
            os.read(given[2], 1)
        for one in given:
            os.close(one)
        # Python's own were made for other files: whether these can seek, say.
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        return command


def warm_up() -> None:
    """Have everything imported that a run imports, by a run of each kind."""
    import numpy as np

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from running import write

    from gpubp import optimizers
    from gpubp.cli._main import _run

    optimizers.names()
    with tempfile.TemporaryDirectory() as place, open(os.devnull, "w") as nowhere:
        errors, prints, sys.stderr, sys.stdout = sys.stderr, sys.stdout, nowhere, nowhere
        rng = np.random.default_rng(0)
        data = write(Path(place, "data.h5"), X=rng.normal(size=(40, 3)), y=rng.integers(0, 3, 40))
        run = Path(place, "run")
        codes = [
            _run(["train", str(data), "--out", str(run), "--kernel", "numpy", "--threads", "1", "--iterations", "2"]),
            _run(["resume", str(run), "--iterations", "3", "--threads", "1", "--json"]),
        ]
        sys.stderr, sys.stdout = errors, prints
    assert [code[:2] for code in codes] == [(0, "")] * 2, codes
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"{len(threads)} threads: what is forked of these is not sound"


def main(number: int) -> Any:
    warm_up()
    requests = socket.socket(fileno=number)
    command = serve(requests)
    if command is None:
        return 0
    from gpubp.cli import main as gpubp

    sys.argv = ["gpubp", *command]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    return gpubp(command)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
