"""The process in which libhdf5 works on a user's file: it can do nothing else, and may die.

`main` runs in a process that was started once. It has loaded h5py, knows no file, and forks a child for each file. The
child gets an open descriptor (so that it is the file that was looked at, whatever happens to its name), opens it, and
then gives up: opening any other file, writing, more memory and more time than the file's size explains. These are
limits that the kernel keeps, whatever a crafted file makes libhdf5 do. It answers questions until nobody asks.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from typing import Any

from .wire import Ended, receive, send

SURVEY_MEMORY = 200 << 20  # on top of what the process takes before
READ_MEMORY = 256 << 20  # and three times a chunk, and twice the rows that are asked for
CHUNK_CACHE = 32 << 20  # a row of compressed chunks is then decoded once, not once for every block that touches it
SIGNATURE_TIME = 2.0  # seconds of computing for a file however small
BYTES_PER_SECOND = 20e6


def main(control: int) -> None:
    """Serve: each message on the control socket brings a file and the socket its child is to answer on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks; we end when it does
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _rehearse()
    ended: dict[int, int] = {}
    with socket.socket(fileno=control) as asked:
        plugins = "--plugins" in sys.argv
        if plugins:
            import hdf5plugin  # noqa: F401  it registers its filters
        send(asked, {"ready": True})
        while True:
            try:
                head, fds, _, _ = socket.recv_fds(asked, 1, 2)
                if not head:
                    return
                message, _ = receive(asked)
            except (Ended, OSError):
                return
            if "pid" in message:
                send(asked, {"signal": _signal_of(message["pid"], ended)})
                continue
            _collect(ended)
            pid = os.fork()
            if pid == 0:
                asked.close()
                _child(fds[0], fds[1])
            for fd in fds:
                os.close(fd)
            send(asked, {"pid": pid})


def _rehearse() -> None:
    """Ask every question once of a file in memory: whatever Python loads on first use cannot be loaded later."""
    import h5py
    import numpy as np

    from . import survey

    with h5py.File("rehearsal", "w", driver="core", backing_store=False) as file:
        file["g/x"] = np.zeros((2, 2), [("a", "f4"), ("b", "i4")])
        file["t"], file["f"] = ["é"], np.array([b"a"])
        file["s"] = h5py.SoftLink("/g/x")
        file.create_dataset("c", (4, 2), chunks=(2, 2), compression="gzip")[...] = 1
        file.attrs["a"] = ["é"]
        survey.survey(file)
        values: Any = file
        survey.locate(values["c"])
        survey.read(values["g/x"], 0, 1, ["a"])
        for name in ("t", "f"):
            survey.text(values[name], 0, 1)
        try:
            b"\xff".decode("utf-8")
        except UnicodeDecodeError as error:
            survey.words(error)


def _collect(ended: dict[int, int]) -> None:
    """How children have ended so far; those that nobody asks about are forgotten in time."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        ended[pid] = status
        if len(ended) > 1000:
            del ended[next(iter(ended))]


def _signal_of(pid: int, ended: dict[int, int]) -> int:
    """The signal that ended a child, 0 for none."""
    try:
        status = ended.pop(pid) if pid in ended else os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _child(fd: int, answers: int) -> None:
    code = 1
    try:
        _serve(fd, socket.socket(fileno=answers))
        code = 0
    finally:
        os._exit(code)


def _serve(fd: int, to: socket.socket) -> None:
    """Answer questions about one file until nobody asks any more."""
    import h5py

    from . import survey

    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    size = os.fstat(fd).st_size
    allowed = SIGNATURE_TIME + size / BYTES_PER_SECOND
    _limit(allowed, SURVEY_MEMORY)
    errors = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, UnicodeError, IndexError)
    try:
        # without a lock: whether somebody writes was looked at before, and ours could keep a writer out, or hang on NFS
        name = f"/proc/self/fd/{fd}" if os.path.isdir("/proc/self/fd") else f"/dev/fd/{fd}"
        file = h5py.File(name, "r", rdcc_nbytes=CHUNK_CACHE, locking=False)
    except MemoryError:
        send(to, {"error": "it takes more memory than a file of this size can need"})
        return
    except errors as error:
        send(to, {"error": survey.words(error)})
        return
    _no_more_files()
    send(to, {"open": True})
    while True:
        try:
            question, _ = receive(to)
        except Ended:
            return
        try:
            answer, data = _answer(file, question, allowed)
        except MemoryError:
            answer, data = {"error": "it takes more memory than a file of this size can need"}, b""
        except UnicodeDecodeError as error:
            answer, data = {"error": f"holds text that is not UTF-8 ({error.reason})"}, b""
        except errors as error:
            answer, data = {"error": survey.words(error)}, b""
        try:
            send(to, answer, data)
        except Ended:
            return


def _answer(file: Any, question: dict[str, Any], allowed: float) -> tuple[dict[str, Any], bytes | memoryview]:
    from . import survey

    asked = question["ask"]
    if asked == "survey":
        _limit(allowed, SURVEY_MEMORY)
        found, attributes = survey.survey(file)
        return {"entries": [one.to_json() for one in found], "attributes": attributes}, b""
    values = file[question["path"]]
    chunk = 1
    for side in values.chunks or ():
        chunk *= side
    room = READ_MEMORY + 3 * chunk * values.id.get_type().get_size() + 2 * question.get("bytes", 0)
    _limit(allowed + question.get("bytes", 0) / BYTES_PER_SECOND, room)
    if asked == "locate":
        chunks, samples = survey.locate(values)
        table = b"" if chunks is None else chunks.tobytes()
        sizes = [len(table), *map(len, samples)]
        return {"sizes": sizes}, b"".join([table, *samples])
    if asked == "rows":
        return {}, survey.read(values, question["start"], question["stop"], question["fields"])
    if asked == "text":
        return {"text": survey.text(values, question["start"], question["stop"])}, b""
    raise ValueError(f"nobody knows what '{asked}' asks")


_base = 0


def _limit(seconds: float, memory: int) -> None:
    """From now on: no more memory than this on top of what was taken at first, and so much computing time."""
    global _base
    if not _base and os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm") as status:
            _base = int(status.read().split()[0]) * resource.getpagesize()
    if _base:
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        wanted = _base + memory
        resource.setrlimit(resource.RLIMIT_AS, (wanted if most < 0 else min(wanted, most), most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.setitimer(signal.ITIMER_PROF, max(0.1, seconds))  # its signal ends the process, also inside libhdf5


def _no_more_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
