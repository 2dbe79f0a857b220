"""Opening a user's file without trusting it.

An HDF5 file can point elsewhere (links into other files, values kept in other files, virtual datasets whose missing
sources read as zeros) and can declare more than it holds (values that were never written also read as zeros). HDF5
follows and fills silently. So a dataset is taken only if every component of its path is a plain link inside the file
and its values lie, all of them, in the file itself; what is refused is said in one line (`hdf5.survey`). The file is
opened read-only and only if it is a regular file, since opening a pipe would wait for ever.
"""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from ..errors import DataError
from .hdf5.file import HdfFile

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def open_regular(path: str | os.PathLike[str]) -> int:
    """A descriptor to read a file with. What is opened is what is looked at: a name can come to mean something else.

    Raises:
        DataError: it is missing, a folder, a pipe or a device, empty, or not permitted.
    """
    shown, fd = os.fspath(path), -1
    try:
        _refuse_special(os.stat(path), shown)  # opening a pipe would wait, and opening a device may do something
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        found = os.fstat(fd)
        _refuse_special(found, shown)
        if found.st_size == 0:
            raise DataError(f"{shown} is empty (0 bytes)", wanted="a data file")
        return fd
    except (OSError, ValueError, DataError) as error:  # ValueError: a zero byte in the name
        if fd >= 0:
            os.close(fd)
        if isinstance(error, DataError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        name = shown if shown.isprintable() else repr(shown)
        raise DataError(f"{name}: {reason}", wanted="a data file that can be read") from None


def regular_file(path: str | os.PathLike[str]) -> Path:
    """The path, if it is a file one can read.

    Raises:
        DataError: it is missing, a folder, a pipe or a device, empty, or not permitted.
    """
    os.close(open_regular(path))
    return Path(path)


def is_hdf5(path: Path) -> bool:
    """Whether the HDF5 signature stands where the format allows it: at byte 0, 512, 1024, 2048, …

    Raises:
        DataError: as `open_regular`.
    """
    fd = open_regular(path)
    try:
        return _has_signature(fd, os.fspath(path))
    finally:
        os.close(fd)


def open_file(path: str | os.PathLike[str]) -> HdfFile:
    """The HDF5 file, open for reading.

    Raises:
        DataError: it is no regular file, not HDF5, or damaged.
    """
    fd = open_regular(path)
    try:
        sound = _has_signature(fd, os.fspath(path))
    except BaseException:
        os.close(fd)
        raise
    if not sound:
        os.close(fd)
        raise _not_hdf5(Path(path))
    return HdfFile(path, fd)


def _has_signature(fd: int, shown: str) -> bool:
    size, at = os.fstat(fd).st_size, 0
    try:
        while at < size:
            if os.pread(fd, len(_SIGNATURE), at) == _SIGNATURE:
                return True
            at = 2 * at or 512
    except OSError as error:
        raise DataError(f"{shown}: {error.strerror}", wanted="a data file that can be read") from None
    return False


def _refuse_special(found: os.stat_result, shown: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(found.st_mode), "a device")
        raise DataError(f"{shown} is {kind}", wanted="a data file")


def _not_hdf5(path: Path) -> DataError:
    from .formats import recognise  # only now: what other files look like is the formats' knowledge

    known = recognise(path)
    if known is None:
        return DataError(f"{path} is not an HDF5 file", wanted="HDF5 with X and y")
    stem = path.name.split(".")[0] or "data"
    target = path.with_name(f"{stem}.h5")
    if target == path:
        target = path.with_name(f"{stem}-converted.h5")
    line = shlex.join(["gpubp", "convert", str(path), str(target)])
    if known.guesses and not known.is_named(path):  # a program has commas too
        found, do = f"{path} is not an HDF5 file, perhaps {known.title}", "if it is one"
    else:
        found, do = f"{path} is not an HDF5 file but {known.title}", "make it so"
    return DataError(found, wanted="HDF5", do=f"{do}: {line}")
