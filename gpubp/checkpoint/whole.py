"""Bytes on the disk all at once or not at all: temp file → fsync → rename → fsync of the folder.

A reader finds the earlier file or the new one, never half of one, whatever kills the process or cuts the power. Without
the first fsync a rename can outlive the bytes it names; without the second one a file that was reported as saved can be
gone. (T. S. Pillai and others, "All File Systems Are Not Created Equal", OSDI 2014.)

A long file goes past the system's page cache where the file system allows that (O_DIRECT), so that rows of the data
file stay in it.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from ..errors import CheckpointError

log = logging.getLogger("gpubp")

PIECE = 1 << 20  # bytes written at once: still in the processor's cache when a digest was just made of them
_PAGE = 4096  # what a direct write is a multiple of, in memory, in the file and in length
_LONG = 16 << 20  # bytes from which a file is written past the page cache


class Sink:
    """Where the bytes of a file go, one after the other.

    Args:
        fd: a new file.
        length: about how many bytes will come.
    """

    def __init__(self, fd: int, length: int) -> None:
        self._fd = fd
        self._buffer = memoryview(mmap.mmap(-1, PIECE))  # begins at a page, as a direct write must
        self._held = 0  # bytes in it
        self._direct = length >= _LONG and self._set_direct(True)

    def write(self, data: memoryview | bytes) -> None:
        """Append `data`.

        Raises:
            OSError: the system's.
        """
        rest = memoryview(data).cast("B")
        while rest:
            taken = min(len(rest), PIECE - self._held)
            self._buffer[self._held : self._held + taken] = rest[:taken]
            self._held += taken
            rest = rest[taken:]
            if self._held == PIECE:
                self._flush()

    def finish(self, head: bytes) -> None:
        """Put `head` over the first bytes, and bring everything to the disk."""
        self._direct = self._direct and not self._set_direct(False)
        self._flush()
        write_all(lambda rest: os.pwrite(self._fd, rest, len(head) - len(rest)), memoryview(head))
        os.fsync(self._fd)

    def _flush(self) -> None:
        write_all(self._written, self._buffer[: self._held])
        self._held = 0

    def _written(self, rest: memoryview) -> int:
        if self._direct and len(rest) % _PAGE:  # an earlier write was short
            self._direct = not self._set_direct(False)
        try:
            return os.write(self._fd, rest)
        except OSError as error:
            if not self._direct or error.errno != errno.EINVAL:
                raise
            self._direct = not self._set_direct(False)  # it allowed the flag and not the write
            return os.write(self._fd, rest)

    def _set_direct(self, on: bool) -> bool:
        """Whether that was possible."""
        direct = getattr(os, "O_DIRECT", 0)
        with suppress(OSError):
            flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
            fcntl.fcntl(self._fd, fcntl.F_SETFL, flags | direct if on else flags & ~direct)
            return bool(direct)
        return False


def write_all(write: Callable[[memoryview], int], data: memoryview) -> None:
    """Write all of `data` with a function that may write less."""
    while data:
        data = data[write(data) :]


def temporary_of(path: Path) -> Path:
    """Where this process writes the bytes of a file before they get its name."""
    return path.with_name(f".{path.name}.tmp.{os.getpid()}")


@contextmanager
def writing_whole(path: str | Path, length: int) -> Iterator[Sink]:
    """Inside, the bytes of `path` are written, and finished; when this ends they are there durably.

    On any exception the temp file ``.NAME.tmp.PID`` is removed, and `path` is what it was or, where the rename was
    done, all of the new bytes.

    Args:
        length: about how many bytes will come.

    Raises:
        CheckpointError: it cannot be written; the message says why.
    """
    path = Path(path)
    temporary = temporary_of(path)
    with one_line(f"cannot write {path}"):
        with suppress(FileNotFoundError):  # in a container the process that was killed had our number: 1
            os.unlink(temporary)
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            try:
                yield Sink(fd, length)
            finally:
                os.close(fd)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        sync_folder(path.parent)


def write_whole(path: str | Path, data: bytes | memoryview) -> None:
    """Put `data` at `path` durably.

    Raises:
        CheckpointError: it cannot be written; the message says why.
    """
    with writing_whole(path, len(data)) as sink:
        sink.write(data)
        sink.finish(b"")


@contextmanager
def one_line(doing: str) -> Iterator[None]:
    """Inside, an OSError becomes a CheckpointError of one line: what was being done, and the system's reason."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{doing}: {error.strerror or error}") from error


@cache
def warn_once(message: str) -> None:
    """Log a warning the first time it is met in this process."""
    log.warning(message)


def sync_folder(folder: Path) -> None:
    """Bring a folder's list of names to the disk; where the file system cannot, that is warned of once.

    Raises:
        OSError: the system's.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
        system = _mounted_at(folder)  # a run's folder and the one it is in are mostly on the same one
        warn_once(f"the file system at {system} cannot sync a folder: a power cut may lose the newest checkpoint")
    finally:
        os.close(fd)


def _mounted_at(folder: Path) -> Path:
    """Where the file system of a folder begins."""
    folder = Path(os.path.realpath(folder))
    return next(one for one in (folder, *folder.parents) if os.path.ismount(one))
