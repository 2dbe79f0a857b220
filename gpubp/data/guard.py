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


def regular_file(path: str | os.PathLike[str]) -> Path:
    """The path, if it is a file one can read.

    Raises:
        DataError: it is missing, a folder, a pipe or a device, empty, or not permitted.
    """
    shown = os.fspath(path)
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
            kind = kinds.get(stat.S_IFMT(found.st_mode), "a device")
            raise DataError(f"{shown} is {kind}", wanted="a data file")
        if found.st_size == 0:
            raise DataError(f"{shown} is empty (0 bytes)", wanted="a data file")
        with open(path, "rb"):
            return Path(path)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        name = shown if shown.isprintable() else repr(shown)
        raise DataError(f"{name}: {reason}", wanted="a data file that can be read") from None


def is_hdf5(path: Path) -> bool:
    """Whether the HDF5 signature stands where the format allows it: at byte 0, 512, 1024, 2048, …"""
    size, at = path.stat().st_size, 0
    with open(path, "rb") as file:
        while at < size:
            file.seek(at)
            if file.read(len(_SIGNATURE)) == _SIGNATURE:
                return True
            at = 2 * at or 512
    return False


def open_file(path: str | os.PathLike[str]) -> HdfFile:
    """The HDF5 file, open for reading.

    Raises:
        DataError: it is no regular file, not HDF5, or damaged.
    """
    place = regular_file(path)
    if not is_hdf5(place):
        raise _not_hdf5(place)
    return HdfFile(place)


def _not_hdf5(path: Path) -> DataError:
    from .formats import recognise  # only now: what other files look like is the formats' knowledge

    known = recognise(path)
    if known is None:
        return DataError(f"{path} is not an HDF5 file", wanted="HDF5 with X and y")
    target = path.with_name(f"{path.name.split('.')[0] or 'data'}.h5")
    line = shlex.join(["gpubp", "convert", str(path), str(target)])
    return DataError(f"{path} is not an HDF5 file but {known.title}", wanted="HDF5", do=f"make it so: {line}")
