"""Whether a file is still the one that was opened."""

from __future__ import annotations

import os

from ..errors import DataError


class Stamp:
    """What the system says of an open file: its size, the time of its last change, which file it is.

    A file whose name is gone can be read as before and is no trouble; another file under its name is, for rows and
    labels of a resumed run would come from there.

    Args:
        fd: of the open file.
        path: the file as the user named it.
    """

    def __init__(self, fd: int, path: str | os.PathLike[str]) -> None:
        self._fd, self._path = fd, os.fspath(path)
        self._place = os.path.abspath(self._path)
        now = os.fstat(fd)
        self._size, self._time, self._which = now.st_size, now.st_mtime_ns, (now.st_dev, now.st_ino)

    def check(self) -> None:
        """Compare.

        Raises:
            DataError: the file has another size, was written to, or is another one.
        """
        now = os.fstat(self._fd)
        trouble = ""
        if now.st_size != self._size:
            trouble = f"had {self._size:,} bytes when it was opened and has {now.st_size:,}"
        elif now.st_mtime_ns != self._time:
            trouble = "was written to after it was opened"
        else:
            try:
                named = os.stat(self._place)
            except OSError:
                return  # gone, or out of sight
            if (named.st_dev, named.st_ino) != self._which:
                trouble = "was replaced by another file after it was opened"
        if trouble:
            raise DataError(
                f"{self._path} {trouble}",
                wanted="a file that stays as it is while it is used",
                do="put the file back as it was and go on with gpubp resume, or begin a new run",
            )
