"""Starting the process of `warden`, handing it files, and telling a person how it ended if it did not survive one."""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ...errors import DataError, visible
from .wire import Ended, receive, send

_WAIT = 60.0  # seconds of silence: what ends a process that does nothing at all; one that computes has its own limit
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from gpubp.data.hdf5 import warden; warden.main(int(sys.argv[2]), plugins=sys.argv[3] == 'plugins')"
)


class Refusal(OSError):
    """What HDF5 says about a file that it cannot read as asked."""


class Parser:
    """A process that has one file open and answers questions about it.

    Args:
        fd: the file, open for reading.
        path: the file's name, for where descriptors have no names.
        shown: the file as the user named it, for messages.
        plugins: whether filters from `hdf5plugin` are wanted.

    Attributes:
        owner: the process that may ask.
        closed: whether it has ended, or a question was broken off, so that the next answer would be that of another.

    Raises:
        Refusal: HDF5 cannot open the file.
        DataError: it does not survive it; no process can be had.
    """

    def __init__(self, fd: int, path: str, shown: str, *, plugins: bool) -> None:
        self._shown, self._lock = shown, threading.Lock()
        self.owner, self.closed = os.getpid(), False
        ours, theirs = _pair()
        self._socket = ours
        with theirs:
            try:
                self._warden, self._pid = _hand_over(fd, theirs, path, plugins)
            except BaseException:
                self.close()
                raise
        try:
            self.ask(None)
        except Refusal:
            self.close()
            raise

    def ask(
        self, question: dict[str, Any] | None, into: memoryview | None = None, most: int = 0, wait: float = 0.0
    ) -> tuple[dict[str, Any], bytearray | memoryview]:
        """The answer to a question, and its bytes. From any thread.

        Args:
            question: see `warden`.
            into: what the bytes fill.
            most: how many there may be without `into`.
            wait: seconds it may take at most, beyond what every question may take.

        Raises:
            Refusal: HDF5 cannot give it.
            DataError: it does not survive the question.
        """
        with self._lock:
            if self.closed:
                raise DataError(f"{self._shown}: the process that reads it has ended", do="open the file again")
            try:
                self._socket.settimeout(_WAIT + wait)
                if question is not None:
                    send(self._socket, question)
                answer, data = receive(self._socket, into, most)
            except (Ended, TimeoutError) as error:
                self.close()
                raise self._death(isinstance(error, TimeoutError)) from None
            except BaseException:  # Ctrl-C: the answer is still on its way, and must not be taken for the next one
                self.close()
                raise
        if "error" in answer:
            raise Refusal(visible(str(answer["error"])[:200]))
        return answer, data

    def close(self) -> None:
        """End the process."""
        self.closed = True
        self._socket.close()

    def _death(self, silent: bool) -> DataError:
        number = self._warden.end(self._pid)
        if number == signal.SIGKILL:
            return DataError(
                f"{self._shown}: the process that reads it was killed",
                wanted="some 300 MB of free memory beside the rows that are kept",
                do="try again; if it is killed again, the file is made to do harm",
            )
        how = f"crashed ({_name(number)})" if number else "gave no sensible answer"
        if number == signal.SIGPROF:
            how = "did not come to an end"
        elif silent:
            how = "did not answer"
        return DataError(
            f"{self._shown} is damaged or made to do harm: the HDF5 library {how} over it",
            wanted="a sound file",
            do="make or copy it again",
        )


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class _Warden:
    """The process that forks one for each file. See `warden.main`."""

    def __init__(self, plugins: bool) -> None:
        self._lock = threading.Lock()
        self.owner = os.getpid()
        ours, theirs = _pair()
        self._socket = ours
        # Nothing of what an environment can make HDF5 load or open; one thread, so that forking is safe.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HDF5_")}
        environment |= {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable or "python3", "-I", "-c", _BOOT, json.dumps(_path()), str(theirs.fileno())]
        with theirs, _explained("the process that reads HDF5 files did not start"):
            try:
                self._process = subprocess.Popen(
                    [*command, "plugins" if plugins else ""], env=environment, pass_fds=[theirs.fileno()], cwd="/",
                    start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )  # fmt: skip
            except BaseException:
                ours.close()
                raise
        ours.settimeout(_WAIT)
        try:
            receive(ours)
        except BaseException as error:
            ours.close()
            self._process.kill()
            said = (self._process.communicate()[1] or b"").decode(errors="replace").strip().splitlines()
            if not isinstance(error, Ended | TimeoutError):
                raise
            reason = f": {said[-1][:200]}" if said else ""
            raise DataError(f"the process that reads HDF5 files did not start{reason}") from None

    def open(self, fd: int, to: socket.socket, path: str) -> int:
        """Fork one for a file; its number."""
        answer = self._ask({"path": path}, [fd, to.fileno()])
        if "error" in answer:
            raise DataError(f"no process can be had to read HDF5 files: {answer['error']}", do="end some others")
        return int(answer["pid"])

    def end(self, pid: int) -> int:
        """End one; the signal that ended it before, 0 if none did, or it cannot be known."""
        try:
            return int(self._ask({"end": pid}, [])["signal"])
        except (Ended, TimeoutError, KeyError):
            return 0

    def _ask(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        with self._lock:
            try:
                socket.send_fds(self._socket, [b"m"], fds)
                send(self._socket, message)
                return receive(self._socket)[0]
            except OSError as error:
                self._socket.close()  # whatever is still to come would be taken for another answer
                raise (error if isinstance(error, TimeoutError) else Ended()) from None
            except BaseException:
                self._socket.close()
                raise

    def close(self) -> None:
        """End it, and all that it has forked."""
        self._socket.close()
        if self.owner != os.getpid():
            self._process.returncode = 0  # it is not ours to wait for
        else:
            try:
                self._process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()


_wardens: dict[bool, _Warden] = {}
_making = threading.Lock()


def _hand_over(fd: int, to: socket.socket, path: str, plugins: bool) -> tuple[_Warden, int]:
    with _making:
        for again in (True, False):
            held = _wardens.get(plugins)
            if held is None:
                held = _wardens[plugins] = _Warden(plugins)
            try:
                return held, held.open(fd, to, path)
            except (Ended, TimeoutError, KeyError, ValueError):  # somebody killed it
                _wardens.pop(plugins).close()
                if not again:
                    raise DataError("the process that reads HDF5 files has ended") from None
            except BaseException as error:
                if not isinstance(error, DataError):
                    _wardens.pop(plugins).close()
                raise
    raise AssertionError


def _pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, under numbers that are not of stdin, stdout and stderr, which may be closed."""
    with _explained("no process can be asked about HDF5 files"):
        ours, theirs = socket.socketpair()
        return _above(ours), _above(theirs)


def _above(end: socket.socket) -> socket.socket:
    if end.fileno() > 2:
        return end
    with end:
        return socket.socket(fileno=fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))


@contextmanager
def _explained(found: str) -> Iterator[None]:
    """What the system refuses (no descriptors, no processes, no memory), in one line."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{found}: {error.strerror or error}", do="see ulimit -a") from None


def _path() -> list[str]:
    """Where modules are found, for a process with another working folder."""
    found = []
    for folder in sys.path:
        with suppress(OSError):  # "" while the working folder is gone
            found.append(os.path.abspath(folder))
    return found


def _forget() -> None:
    """In a process that was forked: what its parent asks is not for it to ask."""
    global _making
    _making = threading.Lock()
    for held in _wardens.values():
        held.close()
    _wardens.clear()


os.register_at_fork(after_in_child=_forget)


@atexit.register
def _end() -> None:
    for held in _wardens.values():
        held.close()
    _wardens.clear()
