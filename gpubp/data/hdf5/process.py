"""Starting the process of `warden`, handing it files, and telling a person how it ended if it did not survive one."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import Any

from ...errors import DataError
from .wire import Ended, receive, send

_WAIT = 60.0  # seconds: what ends a process that does nothing at all; one that computes has a limit of its own
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from gpubp.data.hdf5 import warden; warden.main(int(sys.argv[1]))"
)


class Refusal(OSError):
    """What HDF5 says about a file that it cannot read as asked."""


class Parser:
    """A process that has one file open and answers questions about it.

    Args:
        fd: the file, open for reading.
        shown: the file as the user named it, for messages.
        plugins: whether filters from `hdf5plugin` are wanted.

    Raises:
        Refusal: HDF5 cannot open the file.
        DataError: it does not survive it.
    """

    def __init__(self, fd: int, shown: str, *, plugins: bool) -> None:
        self._shown, self._lock = shown, threading.Lock()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._warden, self._pid = _hand_over(fd, theirs, plugins)
                self._socket = ours
                ours.settimeout(_WAIT)
                self.ask(None)
            except BaseException:
                ours.close()
                raise

    def ask(
        self, question: dict[str, Any] | None, into: memoryview | None = None
    ) -> tuple[dict[str, Any], bytearray | memoryview]:
        """The answer to a question, and its bytes, in `into` where given. From any thread.

        Raises:
            Refusal: HDF5 cannot give it.
            DataError: it does not survive the question.
        """
        with self._lock:
            try:
                if question is not None:
                    send(self._socket, question)
                answer, data = receive(self._socket, into)
            except (Ended, TimeoutError) as error:
                raise self._death(isinstance(error, TimeoutError)) from None
        if "error" in answer:
            raise Refusal(str(answer["error"]))
        return answer, data

    def close(self) -> None:
        """End the process."""
        self._socket.close()

    def _death(self, silent: bool) -> DataError:
        if silent:
            self._socket.close()
            how = "did not answer"
        else:
            number = self._warden.signal_of(self._pid)
            how = "did not come to an end" if number == signal.SIGPROF else f"crashed ({_name(number)})"
        return DataError(
            f"{self._shown} is damaged or made to do harm: the HDF5 library {how} over it",
            wanted="a sound file",
            do="make or copy it again",
        )


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name if number else "it ended"
    except ValueError:
        return f"signal {number}"


class _Warden:
    """The process that forks one for each file. See `warden.main`."""

    def __init__(self, plugins: bool) -> None:
        self._lock = threading.Lock()
        self.owner = os.getpid()
        ours, theirs = socket.socketpair()
        # No plug-in that an environment or a file may name; one thread, so that forking is safe.
        environment = os.environ | {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        environment.pop("HDF5_PLUGIN_PATH", None)
        path = json.dumps([os.path.abspath(folder) for folder in sys.path])
        command = [sys.executable, "-I", "-c", _BOOT, path, str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                command + ["--plugins"] * plugins, env=environment, pass_fds=[theirs.fileno()], start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )  # fmt: skip
        self._socket = ours
        ours.settimeout(_WAIT)
        try:
            receive(ours)
        except (Ended, TimeoutError):
            self._process.kill()
            said = (self._process.communicate()[1] or b"").decode(errors="replace").strip().splitlines()
            reason = f": {said[-1][:200]}" if said else ""
            raise DataError(f"the process that reads HDF5 files did not start{reason}") from None

    def open(self, fd: int, to: socket.socket) -> int:
        with self._lock:
            try:
                socket.send_fds(self._socket, [b"f"], [fd, to.fileno()])
            except OSError:
                raise Ended from None
            send(self._socket, {})
            return int(receive(self._socket)[0]["pid"])

    def signal_of(self, pid: int) -> int:
        """The signal that ended a process; 0 if none did, or it cannot be known."""
        with self._lock:
            try:
                socket.send_fds(self._socket, [b"s"], [])
                send(self._socket, {"pid": pid})
                return int(receive(self._socket)[0]["signal"])
            except (Ended, TimeoutError, OSError, KeyError):
                return 0

    def close(self) -> None:
        self._socket.close()
        if self.owner == os.getpid():
            try:
                self._process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stderr is not None:
                self._process.stderr.close()


_wardens: dict[bool, _Warden] = {}
_making = threading.Lock()


def _hand_over(fd: int, to: socket.socket, plugins: bool) -> tuple[_Warden, int]:
    with _making:
        for again in (True, False):
            held = _wardens.get(plugins)
            if held is None or held.owner != os.getpid():  # a process does not share its parent's
                held = _wardens[plugins] = _Warden(plugins)
            try:
                return held, held.open(fd, to)
            except (Ended, TimeoutError, KeyError, ValueError):
                held.close()
                _wardens.pop(plugins, None)
                if not again:
                    raise DataError("the process that reads HDF5 files has ended") from None
    raise AssertionError


@atexit.register
def _end() -> None:
    for held in _wardens.values():
        if held.owner == os.getpid():
            held.close()
    _wardens.clear()
