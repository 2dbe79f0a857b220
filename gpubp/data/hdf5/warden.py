"""The process in which libhdf5 works on a user's file: it can do nothing else, and may die.

`main` runs in a process that was started once. It has loaded h5py, knows no file, and forks a child for each file. The
child gets an open descriptor (so that it is the file that was looked at, whatever happens to its name), opens it, and
then gives up: opening any other file, writing, starting programs, more memory and more time than the file explains.
These are limits that the kernel keeps, whatever a crafted file makes libhdf5 do (`cage` has those that are no
rlimits). It answers questions until nobody asks, and ends with the process that asks.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import socket
import time
from contextlib import suppress
from typing import Any

from . import cage
from .stored import MOST_CHUNKS
from .wire import REPLACED, Ended, receive, send

SURVEY_MEMORY = 200 << 20  # on top of what the process takes before
READ_MEMORY = 256 << 20  # and three times a chunk, and twice the rows that are asked for
CHUNK_CACHE = 32 << 20  # a row of compressed chunks is then decoded once, not once for every block that touches it
# Seconds of computing. Measured on one slow core: 0.18 ms a dataset, 2 µs a chunk, 60 ms to begin with.
LEAST_TIME, NAME_TIME, CHUNK_TIME = 2.0, 1e-3, 2e-5
INDEX_SPEED, READ_SPEED = 100e6, 20e6  # bytes a second: of a file that is looked through, of rows that are decoded
LONGEST = 60.0  # what looking through a file of any size may take, names and chunks not counted
PATIENCE = 0.5  # seconds that a child has to end by itself once nobody listens to it


def main(control: int, *, plugins: bool) -> None:
    """Serve: each message on the control socket brings a file and the socket its child is to answer on, or a child
    whose end is wanted."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks; we end when it does
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _rehearse()
    if plugins:
        import hdf5plugin  # noqa: F401  it registers its filters
    ended: dict[int, int] = {}
    signal.signal(signal.SIGCHLD, lambda *_: _collect(ended))  # no child stays a zombie
    with socket.socket(fileno=control) as asked:
        send(asked, {"ready": True})
        while True:
            try:
                head, fds, _, _ = socket.recv_fds(asked, 1, 2)
                if not head:
                    return
                message, _ = receive(asked)
                send(asked, _do(message, fds, ended, asked))
            except (Ended, OSError):
                return


def _do(message: dict[str, Any], fds: list[int], ended: dict[int, int], asked: socket.socket) -> dict[str, Any]:
    if "end" in message:
        return {"signal": _end(message["end"], ended)}
    try:
        pid = os.fork()
    except OSError as error:
        return {"error": error.strerror or "no process can be forked"}
    if pid == 0:
        asked.close()
        _child(fds[0], fds[1], message["path"])
    for fd in fds:
        os.close(fd)
    return {"pid": pid}


def _rehearse() -> None:
    """Ask every question once of a file in memory: whatever Python loads on first use cannot be loaded later."""
    import h5py
    import numpy as np

    from . import survey

    # libhdf5 looks for a file of that name all the same: there can be none
    with h5py.File("/dev/null/rehearsal", "w", driver="core", backing_store=False) as file:
        file["g/x"] = np.zeros((2, 2), [("a", "f4"), ("b", "i4")])
        file["t"], file["f"] = ["é"], np.array([b"a"])
        file["s"] = h5py.SoftLink("/g/x")
        file.create_dataset("c", (4, 2), chunks=(2, 2), compression="gzip")[...] = 1
        file.attrs["a"] = ["é"]
        survey.survey(file, 1)
        values: Any = file
        survey.locate(values["c"])
        survey.read(values["g/x"], 0, 1, ["a"])
        for name in ("t", "f"):
            survey.text(values[name], 0, 1, 99)
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


def _end(pid: int, ended: dict[int, int]) -> int:
    """The signal that ended a child, 0 for none; one that goes on is killed."""
    until = time.monotonic() + PATIENCE
    while pid not in ended and time.monotonic() < until:
        time.sleep(0.002)  # SIGCHLD cuts it short
    if pid not in ended:
        with suppress(ProcessLookupError, ChildProcessError):  # it is none of ours, or has been collected just now
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return 0
    status = ended.pop(pid)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _child(fd: int, answers: int, path: str) -> None:
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        cage.end_with_parent()
        with socket.socket(fileno=answers) as to:
            _serve(fd, to, path)
        code = 0
    finally:
        os._exit(code)


def _serve(fd: int, to: socket.socket, path: str) -> None:
    """Answer questions about one file until nobody asks any more."""
    from . import survey

    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    os.close(null)
    real = survey.written(fd, 0, os.fstat(fd).st_size)
    looking = LEAST_TIME + min(LONGEST, real / INDEX_SPEED)
    _limit(looking, SURVEY_MEMORY)
    _never()
    answer, file = _attempt(lambda: (({"open": True}, ()), _open(fd, path)))
    send(to, answer[0])
    while file is not None:
        try:
            question, _ = receive(to)
            answer, _ = _attempt(lambda q=question, f=file: (_answer(f, q, real, looking), None))
            try:
                send(to, answer[0], *answer[1])
            except ValueError as error:
                send(to, {"error": survey.words(error)})
        except Ended:
            return


def _attempt(what: Any) -> Any:
    """What a function gives; or an answer that says why not, and None."""
    from . import survey

    try:
        return what()
    except MemoryError:
        return ({"error": "it takes more memory than a file of this size can need"}, ()), None
    except UnicodeDecodeError as error:
        return ({"error": f"holds text that is not UTF-8 ({error.reason})"}, ()), None
    except Exception as error:
        return ({"error": survey.words(error)}, ()), None


def _open(fd: int, path: str) -> Any:
    import h5py

    cage.one_file_more()
    cage.no_programs(opening=True)
    known = f"/proc/self/fd/{fd}"
    # without a lock: whether somebody writes was looked at before, and ours could keep a writer out, or hang on NFS
    try:
        file = h5py.File(known if os.path.exists(known) else path, "r", rdcc_nbytes=CHUNK_CACHE, locking=False)
    except OSError:
        if os.fstat(fd).st_nlink == 0:
            raise OSError(REPLACED) from None
        raise
    cage.no_more_files()
    cage.no_programs(opening=False)
    handle: Any = file.id.get_vfd_handle()
    if not os.path.samestat(os.fstat(handle), os.fstat(fd)):
        raise OSError(REPLACED)
    return file


def _answer(
    file: Any, question: dict[str, Any], real: int, looking: float
) -> tuple[dict[str, Any], tuple[bytes | memoryview, ...]]:
    """The answer to a question, and the bytes that go with it."""
    from . import survey

    asked = question["ask"]
    if asked == "survey":
        _limit(looking, SURVEY_MEMORY)
        found, attributes = survey.survey(file, real, lambda names: _more_time(names * NAME_TIME))
        return {"entries": [one.to_json() for one in found], "attributes": attributes}, ()
    _limit(looking, SURVEY_MEMORY)
    values = file[question["path"]]
    shape, sides = values.shape or (), values.chunks or ()
    chunk = math.prod(sides) * values.id.get_type().get_size()
    room, seconds = READ_MEMORY + 3 * chunk + 2 * question.get("bytes", 0), looking
    grid = [-(-long // short) for long, short in zip(shape, sides, strict=False)]
    if asked == "locate":
        if math.prod(grid) > MOST_CHUNKS:
            raise ValueError(f"has {math.prod(grid):,} chunks, more than {MOST_CHUNKS:,}")
        _limit(seconds + math.prod(grid) * CHUNK_TIME, room + 100 * math.prod(grid))
        chunks, samples = survey.locate(values)
        pieces = [b"" if chunks is None else chunks.reshape(-1).data, *samples]
        return {"sizes": [memoryview(piece).nbytes for piece in pieces]}, tuple(pieces)
    start, stop = question["start"], question["stop"]
    if sides:  # every chunk that the rows touch is decoded
        seconds += chunk * math.prod(grid[1:]) * (stop // sides[0] - start // sides[0] + 1) / READ_SPEED
    _limit(seconds + question["bytes"] / READ_SPEED, room)
    if asked == "rows":
        return {}, (survey.read(values, start, stop, question["fields"]),)
    if asked == "text":
        _limit(seconds + question["bytes"] / READ_SPEED, room + 6 * question["bytes"])
        return {}, survey.text(values, start, stop, question["bytes"])
    raise ValueError(f"nobody knows what '{asked}' asks")


_base = _most = 0


def _limit(seconds: float, memory: int) -> None:
    """From now on: no more memory than this on top of what was taken at first, and so much computing time."""
    global _base, _most
    if not _base:
        _base, _most = 1 << 29, min(one & (1 << 63) - 1 for one in resource.getrlimit(resource.RLIMIT_AS))
        if os.path.exists("/proc/self/statm"):
            with open("/proc/self/statm") as status:
                _base = int(status.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (min(_base + memory, _most), resource.getrlimit(resource.RLIMIT_AS)[1]))
    signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends the process, also inside libhdf5


def _more_time(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, signal.getitimer(signal.ITIMER_PROF)[0] + seconds)


def _never() -> None:
    """What is never needed: writing, and leaving a core behind, which would hold the user's data."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
