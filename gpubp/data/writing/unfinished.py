"""A file that comes into being whole or not at all.

It is made under another name in the folder of the result, brought to the disk, and then named. Its name tells whose it
is, and a lock, which the kernel lets go of when its process ends in whatever way, tells whether that one still works:
what a killed process left is removed by the next one that makes the same file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from ...errors import DataError

SPARE = 4 << 20  # bytes that stay free: HDF5 writes its own records at the end, and does not survive a full disk


class Unfinished:
    """The file while it is made; used as a context manager, which leaves nothing behind but what `finish` named.

    Args:
        target: the final name.
        overwrite: whether a file of that name may be replaced.

    Attributes:
        path: the name meanwhile.
        fd: open for reading and writing.

    Raises:
        DataError: the folder cannot be written to.
    """

    def __init__(self, target: Path, *, overwrite: bool) -> None:
        self._target, self._overwrite = target, overwrite
        self.path = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
        sweep(target)
        self.fd = self._created()

    def finish(self) -> None:
        """Bring the bytes to the disk and give them the final name.

        Raises:
            DataError: a file of that name appeared meanwhile.
            OSError: the disk or the folder refuses.
        """
        os.fsync(self.fd)
        if self._overwrite:
            os.replace(self.path, self._target)
        else:
            try:
                os.link(self.path, self._target)  # unlike a renaming it fails where there is a file
            except FileExistsError:
                raise exists(self._target) from None
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES):
                    raise
                if self._target.exists():  # a file system without hard links
                    raise exists(self._target) from None
                os.replace(self.path, self._target)
        fsync_folder(self._target.parent)

    def require_room(self, more: int) -> None:
        """Raise DataError unless `more` bytes can be added, and HDF5's own records with them."""
        folder = self._target.parent
        free = shutil.disk_usage(folder).free
        if more + SPARE > free:
            raise DataError(
                f"{self._target} takes {more:,} bytes more", wanted=f"room for them in {folder}, which has {free:,}"
            )
        most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = os.fstat(self.fd).st_size + more + SPARE
        if most != resource.RLIM_INFINITY and size > most:
            raise DataError(f"{self._target} takes {size:,} bytes", wanted=f"at most the {most:,} of 'ulimit -f'")

    def _created(self) -> int:
        for _ in range(100):
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            with suppress(OSError):  # a file system without locks: what is left there is not swept
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                if os.stat(self.path).st_ino == os.fstat(fd).st_ino:
                    return fd
            except FileNotFoundError:  # swept between its making and its lock
                pass
            os.close(fd)
        raise DataError(f"{self.path} disappears as soon as it is made", wanted="a folder that is left alone")

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.path.unlink(missing_ok=True)
        os.close(self.fd)


def exists(target: Path) -> DataError:
    """That there is such a file, and what to do."""
    return DataError(f"{target} exists", wanted="a new name", do="say --overwrite to replace it")


def sweep(target: Path) -> None:
    """Remove what processes that are gone left of `target`. A file whose lock is held is still being made."""
    name = target.name.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")
    for left in target.parent.glob(f".{name}.*.unfinished"):
        with suppress(OSError):
            fd = os.open(left, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
            finally:
                os.close(fd)


def fsync_folder(folder: Path) -> None:
    """Bring a folder's list of names to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
