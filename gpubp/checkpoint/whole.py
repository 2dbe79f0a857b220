"""Bytes on the disk all at once or not at all: temp file → fsync → rename → fsync of the folder.

A reader finds the earlier file or the new one, never half of one, whatever kills the process or cuts the power. Without
the first fsync a rename can outlive the bytes it names; without the second one a file that was reported as saved can be
gone. (T. S. Pillai and others, "All File Systems Are Not Created Equal", OSDI 2014.)
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from ..errors import CheckpointError

log = logging.getLogger("gpubp")


def write_whole(path: str | Path, data: bytes | memoryview) -> None:
    """Put `data` at `path` durably.

    On any exception the temp file ``.NAME.tmp.PID`` is removed, and `path` is what it was or, where the rename was
    done, all of `data`.

    Raises:
        CheckpointError: it cannot be written; the message says why.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp.{os.getpid()}")
    with one_line(f"cannot write {path}"):
        with suppress(FileNotFoundError):  # in a container the process that was killed had our number: 1
            os.unlink(temporary)
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(fd, rest) :]
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_folder(path.parent)


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


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
        warn_once(f"the file system of {folder} cannot sync a folder: a power cut may lose the newest checkpoint")
    finally:
        os.close(fd)
