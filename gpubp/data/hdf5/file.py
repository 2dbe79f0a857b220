"""An HDF5 file as the process that trains sees it: a description, and bytes. libhdf5 is elsewhere (`process`).

A file once looked at is remembered by its name, size, time and inode, for as long as this process lives.
"""

from __future__ import annotations

import fcntl
import math
import os
import re
import threading
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..names import listed, quoted
from ..stamp import Stamp
from .process import Parser, Refusal
from .stored import (
    MOST_CHUNK,
    MOST_CHUNKS,
    MOST_COMPACT,
    SAMPLE,
    SUSPICIOUS_BYTES,
    SUSPICIOUS_RATIO,
    Stored,
    attributes_from_json,
    sizes,
)
from .wire import REPLACED

Key = tuple[str, int, int, int, int]

# File systems on which a lock can hang, fail, or keep others out for nothing: we only read.
_NETWORK = {"nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "smb3", "ceph", "fuse.sshfs", "9p", "afs", "panfs"}
_surveys: dict[Key, tuple[dict[str, Stored], dict[str, Any]]] = {}
_located: dict[tuple[Key, str], Stored] = {}
_REMEMBERED = 4096
_TEXTS = 1 << 14  # that are asked for at a time
_TEXT_ROOM, _MEAN_TEXT = 1 << 20, 1 << 10  # bytes: in all, and for each
_SLOWEST = 1e6  # bytes a second that the slowest disk gives
_CHUNK_WAIT = 1e-3  # seconds to find a chunk on such a disk
_ENCODED_MORE = 1 << 16  # bytes that filters may add to a chunk that they cannot make smaller
_NONSENSE = (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError)


class HdfFile:
    """A file, open for reading.

    Args:
        path: an HDF5 file, already known to be a regular file.
        fd: a descriptor of it, which is then closed here; without one it is opened.

    Attributes:
        shown: the file as the user named it.
        fd: its descriptor.
        entries: by path: every dataset, and every link that leads out of the file.
        attributes: text and numbers on the file itself.

    Raises:
        DataError: it is damaged, or libhdf5 does not survive it.
    """

    def __init__(self, path: str | os.PathLike[str], fd: int = -1) -> None:
        self.shown = os.fspath(path)
        self._lock, self._owner = threading.Lock(), os.getpid()
        self._parser: Parser | None = None
        self._plugins = False
        self.fd = fd if fd >= 0 else os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._refuse_written()
            self._stamp, self._state = Stamp(self.fd, path), _state(self.fd)
            self.key: Key = (_absolute(path), *self._state)
            if self.key not in _surveys:
                found = self._survey()
                if any(entry.unknown for entry in found[0].values()) and find_spec("hdf5plugin") is not None:
                    self._again_with_plugins()
                    found = self._survey()
                _remember(_surveys, self.key, found)
            found, self.attributes = _surveys[self.key]
            self.entries = {path: _decodable(entry) for path, entry in found.items()}
            used = {one.code for entry in found.values() if not entry.unknown for one in entry.filters}
            foreign = any(code > 255 and code != 32000 for code in used)  # h5py itself has the latter
            self._plugins = self._plugins or foreign  # where another HdfFile found them
        except BaseException:
            self.close()
            raise

    def dataset(self, path: str) -> Stored:
        """One dataset, with the places of its values.

        Raises:
            DataError: there is none of this name; it, or a group on the way to it, leads elsewhere; its values were
                never written, cannot be decoded or are more than the file can hold.
        """
        self.refuse_links(path)
        entry = self.entries.get(path)
        if entry is None:
            raise DataError(f"{self.shown} has no dataset {quoted(path)}; it holds {listed(sorted(self.entries))}")
        if entry.trouble:
            raise self.refusal(entry)
        key = (self.key, path)
        if key not in _located:
            _remember(_located, key, self._locate(entry))
        return _located[key]

    def refuse_links(self, path: str | None) -> None:
        """Raise DataError if a path, or a group on the way to it, is a link that leads elsewhere."""
        for entry in self.entries.values():
            if path is not None and entry.trouble and f"{path}/".startswith(f"{entry.path}/"):
                raise self.refusal(entry)

    def unseen(self, error: DataError) -> DataError:
        """The same error, saying also what of the file was not looked at, if not all was."""
        for entry in self.entries.values():
            if "not looked at" in entry.trouble or "too many to look at" in entry.trouble:
                return DataError(
                    f"{error.found}; {quoted(entry.path)} {entry.trouble}", wanted=error.wanted, do=error.do
                )
        return error

    def refusal(self, entry: Stored) -> DataError:
        """Why a dataset is not taken."""
        wanted, do = "values that lie in this file, all of them", entry.remedy
        if do.startswith("wanted "):
            wanted, _, do = do.removeprefix("wanted ").partition("; ")
        return DataError(f"{self.shown}: {quoted(entry.path)} {entry.trouble}", wanted=wanted, do=do)

    def read(
        self, stored: Stored, start: int, stop: int, into: memoryview | None = None, fields: list[str] | None = None
    ) -> bytes | bytearray | memoryview:
        """Rows by way of HDF5, as they are stored: slower than reading them oneself, but every file can be read so.

        Args:
            into: the bytes to fill, if the caller has them.
            fields: of a compound type; the bytes are then records of these fields alone.

        Raises:
            OSError: HDF5 cannot read them.
            DataError: it does not survive it.
        """
        question = {"ask": "rows", "path": stored.path, "start": start, "stop": stop, "fields": fields}
        size = (stop - start) * stored.row_bytes
        if fields is not None:
            size = (stop - start) * math.prod(stored.shape[1:]) * sum(stored.dtype[name].itemsize for name in fields)
        return self._ask(question | {"bytes": size}, into, size, size / _SLOWEST)[1]

    def text(self, stored: Stored, start: int, stop: int) -> Any:
        """Rows of text, as lists of str.

        Raises:
            DataError: they cannot be read, or are not UTF-8.
        """
        what = f"{self.shown}: {quoted(stored.path)}"
        width = math.prod(stored.shape[1:])
        rows = max(1, _TEXTS // max(1, width))
        found: list[str] = []
        try:
            for low in range(start, stop, rows):
                high = min(low + rows, stop)
                found += self._text(stored, low, high, (high - low) * width)
        except Refusal as error:
            reason = str(error)
            if "UTF-8" in reason:
                raise DataError(f"{what} {reason}", wanted="text in UTF-8") from None
            if reason.startswith("texts of"):
                raise DataError(f"{what} holds {reason}", wanted="short class labels") from None
            raise DataError(f"{what} cannot be read: {reason}", wanted="a sound file") from None
        except ValueError as error:
            raise self._nonsense(error) from None
        return np.array(found, np.object_).reshape(stop - start, *stored.shape[1:]).tolist()

    def _text(self, stored: Stored, start: int, stop: int, count: int) -> list[str]:
        room = _TEXT_ROOM + _MEAN_TEXT * count
        question = {"ask": "text", "path": stored.path, "start": start, "stop": stop, "bytes": room}
        _, data = self._ask(question, None, 4 * count + room)
        lengths = np.frombuffer(data[: 4 * count], np.uint32).tolist()
        if len(lengths) != count or sum(lengths) != len(data) - 4 * count:
            raise ValueError("lengths of texts")
        return [str(part, "utf-8") for part in _cut(data[4 * count :], lengths)]

    def check(self) -> None:
        """Raise DataError if the file changed since it was opened."""
        self._stamp.check()

    def rest(self) -> None:
        """Let go of the process that looks at the file; the next question starts another."""
        with self._mine():
            if self._parser is not None:
                self._parser.close()
                self._parser = None

    def close(self) -> None:
        """Let go of the file and of the process that looks at it; closing twice is no error."""
        self.rest()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        if getattr(self, "fd", -1) >= 0:
            self.close()

    def __enter__(self) -> HdfFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(
        self, question: dict[str, Any], into: memoryview | None = None, most: int = 0, wait: float = 0.0
    ) -> tuple[dict[str, Any], bytearray | memoryview]:
        with self._mine():
            if self._parser is None or self._parser.closed:
                if self.fd < 0:
                    raise ValueError(f"{self.shown} is closed")
                self._parser = Parser(self.fd, self.key[0], self.shown, plugins=self._plugins)
            parser = self._parser
        return parser.ask(question, into, most, wait)

    def _mine(self) -> threading.Lock:
        """The lock; in a process that was forked, one of its own, as the other's questions are not for it to ask."""
        if self._owner != os.getpid():
            self._owner, self._lock = os.getpid(), threading.Lock()
            if self._parser is not None:
                self._parser.close()
        return self._lock

    def _survey(self) -> tuple[dict[str, Stored], dict[str, Any]]:
        try:
            answer, _ = self._ask({"ask": "survey"}, wait=self._state[0] / _SLOWEST)
            entries = [Stored.from_json(record) for record in answer["entries"]]
            for entry in entries:
                self._check_size(entry)
            return {entry.path: entry for entry in entries}, attributes_from_json(answer["attributes"])
        except Refusal as error:
            raise self._damaged(error) from None
        except _NONSENSE as error:
            raise self._nonsense(error) from None

    def _locate(self, entry: Stored) -> Stored:
        count = math.prod(entry.grid()) if entry.layout == "chunked" else 0
        try:
            question = {"ask": "locate", "path": entry.path}
            most = 24 * count + 2 * min(entry.row_bytes, SAMPLE)
            answer, data = self._ask(question, None, most, count * _CHUNK_WAIT)
            first, *samples = sizes(answer["sizes"])
            if first + sum(samples) != len(data) or len(samples) not in (0, 2) or first != 24 * count:
                raise ValueError("sizes of what was located")
            chunks = None
            if entry.layout == "chunked":
                chunks = np.frombuffer(data[:first], np.int64).reshape(-1, 3).copy()
                self._check_chunks(entry, chunks)
            return entry.located(chunks, _cut(data[first:], samples))
        except Refusal as error:
            raise self._damaged(error) from None
        except _NONSENSE as error:
            raise self._nonsense(error) from None

    def _refuse_written(self) -> None:
        """Raise DataError if another program has the file open to write to it: HDF5 locks it then."""
        if _on_network(self.fd):
            return  # a lock can hang there, or fail; and we only read
        try:
            fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(self.fd, fcntl.LOCK_UN)
        except BlockingIOError:
            raise DataError(
                f"{self.shown} is open in a program that writes to it",
                wanted="a file at rest",
                do="wait until that program has closed it",
            ) from None
        except OSError:
            return  # a file system without locks

    def _check_size(self, entry: Stored) -> None:
        """What is said to lie in the file can lie there, whoever said it. Raises ValueError."""
        if entry.trouble or entry.odd or entry.layout == "virtual":
            return
        if entry.layout == "contiguous" and 0 not in entry.shape:
            end = self._state[0] + 1 if entry.offset is None else entry.offset + entry.exact * entry.declared
            if end > self._state[0]:
                raise ValueError("values outside of the file")
        slack = 1 if entry.exact else 16  # what HDF5 converts may take more in memory than in the file
        if entry.declared > slack * max(SUSPICIOUS_BYTES, SUSPICIOUS_RATIO * self._state[0]):
            raise ValueError(f"{entry.declared} bytes")
        if entry.layout == "compact" and entry.declared > slack * MOST_COMPACT:
            raise ValueError(f"{entry.declared} bytes")
        if entry.layout == "chunked":
            if math.prod(entry.chunk_shape or ()) * entry.dtype.itemsize > slack * MOST_CHUNK:
                raise ValueError("a chunk")
            if math.prod(entry.grid()) > min(MOST_CHUNKS, self._state[0]):
                raise ValueError(f"{math.prod(entry.grid())} chunks")

    def _check_chunks(self, entry: Stored, chunks: NDArray[np.int64]) -> None:
        """Every chunk is there, lies in the file, and takes no more there than encoding can have added to it."""
        whole = math.prod(entry.chunk_shape or ()) * entry.dtype.itemsize
        offset, size = chunks[:, 0], chunks[:, 1]
        if (offset < 0).any() or (size <= 0).any() or (size > self._state[0]).any():
            raise self._outside(entry, "chunks outside of the file")
        if (offset > self._state[0] - size).any():
            raise self._outside(entry, "chunks outside of the file")
        if entry.exact and (size > 2 * whole + _ENCODED_MORE).any():
            raise self._outside(entry, f"chunks of {whole:,} bytes that take {int(size.max()):,} in the file")
        if entry.exact and not entry.filters and (size != whole).any():
            raise self._outside(entry, f"chunks of {whole:,} bytes that take {int(size.min()):,} in the file")

    def _outside(self, entry: Stored, what: str) -> DataError:
        return DataError(
            f"{self.shown}: {quoted(entry.path)} has {what}",
            wanted="values that lie in this file, all of them",
            do="make or copy the file again",
        )

    def _again_with_plugins(self) -> None:
        self.rest()
        self._plugins = True

    def _damaged(self, error: Exception) -> DataError:
        if str(error) == REPLACED:
            return DataError(
                f"{self.shown} was removed or replaced while it was in use",
                wanted="a file that stays in place",
                do="begin again with it",
            )
        return DataError(
            f"{self.shown} is damaged or no complete HDF5 file: {error}",
            wanted="a sound file",
            do="make or copy it again",
        )

    def _nonsense(self, error: Exception) -> DataError:
        return DataError(
            f"{self.shown} is damaged: its description makes no sense ({' '.join(str(error).split()):.100})",
            wanted="a sound file",
            do="make or copy it again",
        )


def _decodable(entry: Stored) -> Stored:
    """A dataset whose only trouble is a filter that HDF5 lacks is none where we can undo its filters ourselves."""
    if not entry.trouble or entry.trouble != entry.lacking():
        return entry
    from .codecs import missing

    return entry if not entry.exact or missing(entry.filters) else replace(entry, trouble="", remedy="")


def _cut(data: Any, lengths: list[int]) -> tuple[bytes, ...]:
    parts, at = [], 0
    for length in lengths:
        parts.append(bytes(data[at : at + length]))
        at += length
    return tuple(parts)


def _absolute(path: str | os.PathLike[str]) -> str:
    try:
        return os.path.realpath(path)
    except OSError:  # the working folder is gone
        return os.fspath(path)


def _state(fd: int) -> tuple[int, int, int, int]:
    found = os.fstat(fd)
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev


def _remember(table: dict[Any, Any], key: Any, value: Any) -> None:
    table[key] = value
    while len(table) > _REMEMBERED:
        del table[next(iter(table))]


def _on_network(fd: int) -> bool:
    """Whether the file lies on a file system of another machine."""
    device = os.fstat(fd).st_dev
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace")
    except OSError:
        return False
    found = re.search(rf"^\d+ \d+ {os.major(device)}:{os.minor(device)} .* - (\S+) ", mounts, re.MULTILINE)
    return found is not None and found[1] in _NETWORK
