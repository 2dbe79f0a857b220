"""What a program asks of the disk below a folder: recorded, and made to fail.

Every function of `os` by which a run's folder is touched is replaced while a `Disk` is entered, in this process and for
all of its threads; one call is done and noted at a time, so the order of the notes is the order in which they happened.
Calls that only look (a listing, a read) are not among them, the opening of a file for reading is.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        what: its name in `os`; "flock"; "saved", no call but the word that a checkpoint is safe.
        path: of what, relative to the folder that is watched; "." is that folder.
        to: the other name, of a rename or a link.
        data, at: the bytes that were written, and where; of ftruncate the new length.
        flags: of open.
        made: open made the file, or mkdir the folder.
    """

    what: str
    path: str
    to: str = ""
    data: bytes = b""
    at: int = 0
    flags: int = 0
    made: bool = False

    @property
    def reads(self) -> bool:
        """It is the opening of a file that is only read."""
        return self.what == "open" and not self.flags & (os.O_WRONLY | os.O_RDWR | os.O_DIRECTORY)

    def __str__(self) -> str:
        if self.what == "open" and self.reads:
            return f"open {self.path} to read"
        return " ".join(filter(None, (self.what, self.path, self.to, f"{len(self.data)} bytes" if self.data else "")))


# What decides of a call, given its number among the calls and the call: an errno with which it fails, or None.
Fault = Callable[[int, Call], int | None]

_NAMES = (
    "open", "close", "write", "pwrite", "writev", "pwritev", "fsync", "fdatasync", "ftruncate", "truncate",
    "replace", "rename", "link", "symlink", "unlink", "remove", "mkdir", "rmdir",
)  # fmt: skip


class Disk:
    """The disk below `folder`, inside `with`.

    Args:
        fault: fails calls.
        most: the most bytes that one write takes.

    Attributes:
        calls: what was asked, in order; a call that failed is not among them.
        failed: those that were made to fail.
        asked: how many calls there were, failed ones included.
    """

    def __init__(self, folder: Path, *, fault: Fault | None = None, most: int | None = None) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.calls: list[Call] = []
        self.failed: list[Call] = []
        self.asked = 0
        self._fault, self._most = fault, most
        self._alone = threading.RLock()
        self._fds: dict[int, tuple[str, int]] = {}  # our descriptors: path, flags
        self._real = {name: getattr(os, name) for name in _NAMES}
        self._flock = fcntl.flock
        self._listener = _Listener(self)

    def __enter__(self) -> Disk:
        for name in _NAMES:
            setattr(os, name, getattr(self, f"_{name}", None) or self._named(name))
        fcntl.flock = self._locked
        logger = logging.getLogger("gpubp")
        self._level = logger.level
        logger.setLevel(logging.DEBUG)
        logger.addHandler(self._listener)
        return self

    def __exit__(self, *error: object) -> None:
        for name, function in self._real.items():
            setattr(os, name, function)
        fcntl.flock = self._flock
        logging.getLogger("gpubp").removeHandler(self._listener)
        logging.getLogger("gpubp").setLevel(self._level)

    def note(self, what: str, path: str) -> None:
        """Note what is no call."""
        with self._alone:
            self.calls.append(Call(what, path))

    def inside(self, path: Any) -> str | None:
        """The path relative to the folder; None if it does not lie there."""
        if isinstance(path, int):
            return self._fds[path][0] if path in self._fds else None
        whole = os.path.abspath(os.fsdecode(path))
        if whole == str(self.folder) or whole.startswith(f"{self.folder}/"):
            return os.path.relpath(whole, self.folder)
        return None

    def _do(self, call: Call, work: Callable[[], Any], *, anyway: bool = False) -> Any:
        """Do it unless it is to fail; a close is done `anyway`, as by the system."""
        number = self.asked
        self.asked += 1
        code = self._fault(number, call) if self._fault else None
        if code is None:
            done = work()
            self.calls.append(replace(call, data=call.data[:done]) if call.data and isinstance(done, int) else call)
            return done
        self.failed.append(call)
        if anyway:
            work()
        raise OSError(code, os.strerror(code))

    # The calls ------------------------------------------------------------------------------------------------------

    def _open(self, path: Any, flags: int, *more: Any, **options: Any) -> int:
        where = None if options.get("dir_fd") is not None else self.inside(path)
        if where is None:
            return self._real["open"](path, flags, *more, **options)
        with self._alone:
            made = bool(flags & os.O_CREAT) and not os.path.lexists(path)
            fd = self._do(
                Call("open", where, flags=flags, made=made),
                lambda: self._real["open"](path, flags, *more, **options),
            )
            self._fds[fd] = (where, flags)
            return fd

    def _close(self, fd: int) -> None:
        with self._alone:
            path, flags = self._fds.pop(fd, (None, 0))
            if path is None:
                return self._real["close"](fd)
            return self._do(Call("close", path, flags=flags), lambda: self._real["close"](fd), anyway=True)

    def _write(self, fd: int, data: Any) -> int:
        return self._written("write", fd, data, None)

    def _pwrite(self, fd: int, data: Any, offset: int) -> int:
        return self._written("pwrite", fd, data, offset)

    def _writev(self, fd: int, buffers: Any) -> int:
        return self._written("write", fd, b"".join(buffers), None)

    def _pwritev(self, fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
        return self._written("pwrite", fd, b"".join(buffers), offset)

    def _written(self, what: str, fd: int, data: Any, offset: int | None) -> int:
        def work() -> int:
            return self._real["write"](fd, taken) if offset is None else self._real["pwrite"](fd, taken, offset)

        taken = memoryview(data).cast("B")
        with self._alone:
            path, flags = self._fds.get(fd, (None, 0))
            if path is None:
                return work()
            taken = taken[: self._most]
            at = offset
            if flags & os.O_APPEND:
                at = os.fstat(fd).st_size
            elif at is None:
                at = os.lseek(fd, 0, os.SEEK_CUR)
            return self._do(Call(what, path, data=bytes(taken), at=at), work)

    def _fsync(self, fd: int) -> None:
        self._of_fd("fsync", fd)

    def _fdatasync(self, fd: int) -> None:
        self._of_fd("fdatasync", fd)

    def _ftruncate(self, fd: int, length: int) -> None:
        self._of_fd("ftruncate", fd, length)

    def _of_fd(self, what: str, fd: int, *more: int) -> None:
        with self._alone:
            path, _ = self._fds.get(fd, (None, 0))
            if path is None:
                return self._real[what](fd, *more)
            return self._do(Call(what, path, at=sum(more)), lambda: self._real[what](fd, *more))

    def _locked(self, fd: Any, how: int) -> None:
        with self._alone:
            path, _ = self._fds.get(fd, (None, 0)) if isinstance(fd, int) else (None, 0)
            if path is None:
                return self._flock(fd, how)
            return self._do(Call("flock", path), lambda: self._flock(fd, how))

    def _named(self, name: str) -> Any:
        """A function of one name or of two."""
        what = {"remove": "unlink", "rename": "replace"}.get(name, name)

        def call(path: Any, *more: Any, **options: Any) -> Any:
            where = self.inside(path)
            known = where is not None and not any(v is not None for k, v in options.items() if k.endswith("dir_fd"))
            if not known:
                return self._real[name](path, *more, **options)
            two = name in ("replace", "rename", "link", "symlink")
            to = (self.inside(more[0]) or str(more[0])) if two else ""
            with self._alone:
                new = Call(what, where or "", to=to, made=name == "mkdir" and not os.path.lexists(path))
                return self._do(new, lambda: self._real[name](path, *more, **options))

        return call


class _Listener(logging.Handler):
    """Hears that a checkpoint is safe, and notes it among the calls."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(logging.DEBUG)
        self._disk = disk

    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage().split()
        if words[:1] == ["saved"] and len(words) == 2:
            self._disk.note("saved", words[1])


def failing(number: int, code: int) -> Fault:
    """Only that call fails."""
    return lambda n, call: code if n == number else None


def full_from(number: int, code: int = errno.ENOSPC) -> Fault:
    """From that call on the disk is full: what needs room fails, what gives room back works."""
    needs = ("write", "pwrite", "mkdir", "link", "symlink", "fsync", "fdatasync")

    def fault(n: int, call: Call) -> int | None:
        return code if n >= number and (call.what in needs or call.made) else None

    return fault


def dead_from(number: int, code: int = errno.EIO) -> Fault:
    """From that call on nothing that changes the disk works, as after a device's error or a remount for reading."""
    return lambda n, call: code if n >= number and not call.reads and call.what not in ("close", "flock") else None
