"""An HDF5 file as the process that trains sees it: a description, and bytes. libhdf5 is elsewhere (`process`).

A file once looked at is remembered by its name, size, time and inode, for as long as this process lives.
"""

from __future__ import annotations

import fcntl
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
from .stored import Stored

Key = tuple[str, int, int, int, int]

# File systems on which a lock can hang, fail, or keep others out for nothing: we only read.
_NETWORK = {"nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "smb3", "ceph", "fuse.sshfs", "9p", "afs", "panfs"}
_surveys: dict[Key, tuple[dict[str, Stored], dict[str, Any]]] = {}
_located: dict[tuple[Key, str], Stored] = {}
_REMEMBERED = 4096


class HdfFile:
    """A file, open for reading.

    Args:
        path: an HDF5 file, already known to be a regular file.

    Attributes:
        shown: the file as the user named it.
        fd: its descriptor.
        entries: by path: every dataset, and every link that leads out of the file.
        attributes: text and numbers on the file itself.

    Raises:
        DataError: it is damaged, or libhdf5 does not survive it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.shown = os.fspath(path)
        self._lock = threading.Lock()
        self._parser: Parser | None = None
        self._plugins = False
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._refuse_written()
            self._stamp, self._state = Stamp(self.fd, path), _state(self.fd)
            self.key: Key = (os.path.realpath(path), *self._state)
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

    def refusal(self, entry: Stored) -> DataError:
        """Why a dataset is not taken."""
        return DataError(
            f"{self.shown}: {quoted(entry.path)} {entry.trouble}",
            wanted="values that lie in this file, all of them",
            do=entry.remedy,
        )

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
        return self._ask(question | {"bytes": size}, into)[1]

    def text(self, stored: Stored, start: int, stop: int) -> Any:
        """Rows of text, as lists of str.

        Raises:
            DataError: they cannot be read, or are not UTF-8.
        """
        question = {"ask": "text", "path": stored.path, "start": start, "stop": stop, "bytes": 200 * (stop - start)}
        try:
            return self._ask(question)[0]["text"]
        except Refusal as error:
            what, reason = f"{self.shown}: y {quoted(stored.path)}", str(error)
            if "UTF-8" in reason:
                raise DataError(f"{what} {reason}", wanted="text in UTF-8") from None
            raise DataError(f"{what} cannot be read: {reason}", wanted="a sound file") from None

    def check(self) -> None:
        """Raise DataError if the file changed since it was opened."""
        self._stamp.check()

    def rest(self) -> None:
        """Let go of the process that looks at the file; the next question starts another."""
        with self._lock:
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
        self, question: dict[str, Any], into: memoryview | None = None
    ) -> tuple[dict[str, Any], bytearray | memoryview]:
        with self._lock:
            if self._parser is None:
                if self.fd < 0:
                    raise ValueError(f"{self.shown} is closed")
                self._parser = Parser(self.fd, self.shown, plugins=self._plugins)
            parser = self._parser
        return parser.ask(question, into)

    def _survey(self) -> tuple[dict[str, Stored], dict[str, Any]]:
        try:
            answer, _ = self._ask({"ask": "survey"})
            entries = [Stored.from_json(record) for record in answer["entries"]]
            return {entry.path: entry for entry in entries}, dict(answer["attributes"])
        except Refusal as error:
            raise self._damaged(error) from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._nonsense(error) from None

    def _locate(self, entry: Stored) -> Stored:
        try:
            answer, data = self._ask({"ask": "locate", "path": entry.path})
            first, *samples = answer["sizes"]
            chunks = None
            if entry.layout == "chunked":
                chunks = np.frombuffer(data[:first], np.int64).reshape(-1, 3).copy()
                self._check_chunks(entry, chunks)
            return entry.located(chunks, _cut(data[first:], samples))
        except Refusal as error:
            raise self._damaged(error) from None
        except (KeyError, TypeError, ValueError) as error:
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

    def _check_chunks(self, entry: Stored, chunks: NDArray[np.int64]) -> None:
        """Every chunk is there and lies in the file."""
        count = 1
        for side in entry.grid():
            count *= side
        ends = chunks[:, 0].astype(np.float64) + chunks[:, 1]
        if len(chunks) != count or (chunks[:, :2] < 0).any() or (ends > self._state[0]).any():
            raise DataError(
                f"{self.shown}: {quoted(entry.path)} has chunks outside of the file",
                wanted="values that lie in this file, all of them",
                do="make or copy the file again",
            )

    def _again_with_plugins(self) -> None:
        self.rest()
        self._plugins = True

    def _damaged(self, error: Exception) -> DataError:
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
