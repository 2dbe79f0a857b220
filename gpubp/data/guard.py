"""Opening a user's file without trusting it.

An HDF5 file can point elsewhere (links into other files, values kept in other files, virtual datasets whose missing
sources read as zeros) and can declare more than it holds (values that were never written also read as zeros). HDF5
follows and fills silently. So a dataset is taken only if every component of its path is a plain link inside the file
and its values lie, all of them, in the file itself; what is refused is said in one line. The file is opened read-only
and only if it is a regular file, since opening a pipe would wait for ever.
"""

from __future__ import annotations

import math
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from ..errors import DataError
from .names import listed, quoted

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_CHUNK_CACHE = 32 << 20  # a row of compressed chunks is then decoded once, not once for every block that touches it
_DEPTH, _ENTRIES = 6, 10_000  # of groups and names that are looked at: a file can hold itself


@dataclass(frozen=True)
class Entry:
    """One name in a file that stands for values.

    Attributes:
        path: groups separated by ``/``, without a leading one.
        trouble: why it cannot be read, as the predicate of a sentence; empty for a plain dataset.
    """

    path: str
    trouble: str = ""


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


@contextmanager
def one_line(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever HDF5 raises over a damaged file becomes a DataError of one line."""
    try:
        yield
    except DataError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, UnicodeError) as error:
        reason = " ".join(str(error).split())[:200]
        if "unable to lock" in reason:
            raise DataError(
                f"{os.fspath(path)} is open in a program that writes to it",
                wanted="a file at rest",
                do="wait until that program has closed it",
            ) from None
        raise DataError(
            f"{os.fspath(path)} is damaged or no complete HDF5 file: {reason}",
            wanted="a sound file",
            do="make or copy it again",
        ) from None


def open_file(path: str | os.PathLike[str]) -> h5py.File:
    """The HDF5 file, open for reading.

    Raises:
        DataError: it is no regular file, not HDF5, or damaged.
    """
    place = regular_file(path)
    if not is_hdf5(place):
        raise _not_hdf5(place)
    with one_line(place):
        return h5py.File(place, "r", rdcc_nbytes=_CHUNK_CACHE)


def _not_hdf5(path: Path) -> DataError:
    from .formats import recognise  # only now: what other files look like is the formats' knowledge

    known = recognise(path)
    if known is None:
        return DataError(f"{path} is not an HDF5 file", wanted="HDF5 with X and y")
    target = path.with_name(f"{path.name.split('.')[0] or 'data'}.h5")
    line = shlex.join(["gpubp", "convert", str(path), str(target)])
    return DataError(f"{path} is not an HDF5 file but {known.title}", wanted="HDF5", do=f"make it so: {line}")


def entries(file: h5py.File) -> list[Entry]:
    """Every name in the file that stands for a dataset or for something that would lead out of it, sorted.

    Only plain links are entered, so that nothing outside the file is opened by looking.
    """
    found: list[Entry] = []

    def look(group: h5py.Group, above: str, depth: int) -> None:
        for name in group:
            if len(found) >= _ENTRIES:
                return
            path = f"{above}{name}"
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                found.append(Entry(path, f"is a link into another file ({quoted(str(link.filename))})"))
            elif isinstance(link, h5py.SoftLink):
                found.append(Entry(path, f"is a soft link (to {quoted(str(link.path))})"))
            else:
                kind = group.get(name, getclass=True)
                if kind is h5py.Dataset:
                    found.append(Entry(path))
                elif kind is h5py.Group and depth < _DEPTH:
                    look(_plain(group[name], h5py.Group), f"{path}/", depth + 1)

    look(file, "", 1)
    return sorted(found, key=lambda entry: entry.path)


def dataset(file: h5py.File, path: str, shown: str, held: list[Entry]) -> h5py.Dataset:
    """A dataset whose values all lie in the file.

    Args:
        file: from `open_file`.
        path: one of the names in `held`.
        shown: the file as the user named it.
        held: from `entries`.

    Raises:
        DataError: it is a link, its values lie elsewhere, were never written, or cannot be decoded.
    """
    refuse_links(held, shown, path)
    if not any(entry.path == path for entry in held):
        raise DataError(f"{shown} has no dataset {quoted(path)}; it holds {listed([entry.path for entry in held])}")
    found = _plain(file[path], h5py.Dataset)
    if trouble := _storage_trouble(found):
        raise _refusal(shown, path, trouble)
    return found


def refuse_links(held: list[Entry], shown: str, path: str | None) -> None:
    """Raise DataError if a path, or a group on the way to it, is a link that leads elsewhere."""
    for entry in held:
        if path is not None and entry.trouble and f"{path}/".startswith(f"{entry.path}/"):
            raise _refusal(shown, entry.path, entry.trouble)


def _refusal(shown: str, path: str, trouble: str) -> DataError:
    do = "copy the values into one file, for instance with h5repack or h5py"
    return DataError(f"{shown}: {quoted(path)} {trouble}", wanted="values that lie in this file, all of them", do=do)


def _plain(thing: Any, kind: type) -> Any:
    if not isinstance(thing, kind):
        raise TypeError(f"{thing!r} is no {kind.__name__}")
    return thing


def _storage_trouble(values: h5py.Dataset) -> str:
    """Why the values cannot all be read from the file itself; empty if they can."""
    if values.shape is None:
        return "is empty (it has no shape)"
    stored = values.id.get_create_plist()
    layout = stored.get_layout()
    if stored.get_external_count():
        return "keeps its values in another file (external storage)"
    if layout == h5py.h5d.VIRTUAL:
        return "is a virtual dataset, put together from other files"
    for position in range(stored.get_nfilters()):
        code, _, _, name = stored.get_filter(position)
        if not h5py.h5z.filter_avail(code):
            return f"is compressed by filter {code} ({name.decode(errors='replace')}), which this h5py does not have"
    if 0 in values.shape:
        return ""  # an empty table: the reader says so with the shape
    if layout == h5py.h5d.CONTIGUOUS:
        size = math.prod(values.shape) * values.id.get_type().get_size()
        offset = values.id.get_offset()
        if offset is None:
            return "declares a shape, but its values were never written"
        if offset + size > os.fstat(values.file.id.get_vfd_handle()).st_size:
            return f"declares {size:,} bytes, more than the file has: the file was cut short"
    elif layout == h5py.h5d.CHUNKED:
        chunks = math.prod(-(-long // short) for long, short in zip(values.shape, values.chunks or (), strict=True))
        written = values.id.get_num_chunks()
        if written < chunks:
            return f"has only {written:,} of its {chunks:,} chunks: the rest was never written"
    return ""
