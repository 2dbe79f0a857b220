"""Savers that are broken on purpose, in one line each: mutants that a room must notice, or it notices nothing.

They are made of the product at hand by replacing functions while they are in place, so they break what is there now,
however it is written.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from gpubp import recording, run_folder
from gpubp.checkpoint import guard, table
from gpubp.run_folder import RunFolder

Broken = Callable[[], Any]


def _is_folder(fd: int) -> bool:
    return os.path.isdir(f"/proc/self/fd/{fd}")


@contextmanager
def without_fsync_of_files() -> Iterator[None]:
    real = os.fsync
    with patch.object(os, "fsync", lambda fd: real(fd) if _is_folder(fd) else None):
        yield


@contextmanager
def without_fsync_of_the_folder() -> Iterator[None]:
    real = os.fsync
    with patch.object(os, "fsync", lambda fd: None if _is_folder(fd) else real(fd)):
        yield


@contextmanager
def renamed_before_it_is_synced() -> Iterator[None]:
    """The fsync of the file comes after its rename."""
    real_fsync, real_replace = os.fsync, os.replace
    waiting: list[str] = []

    def fsync(fd: int) -> None:
        if _is_folder(fd):
            real_fsync(fd)
        else:
            waiting.append(os.readlink(f"/proc/self/fd/{fd}"))

    def rename(a: Any, b: Any) -> None:
        real_replace(a, b)
        if os.path.abspath(os.fspath(a)) in waiting:
            waiting.remove(os.path.abspath(os.fspath(a)))
            fd = os.open(b, os.O_RDWR)
            folder = os.open(os.path.dirname(b), os.O_RDONLY | os.O_DIRECTORY)
            real_fsync(folder)
            real_fsync(fd)
            os.close(folder)
            os.close(fd)

    with patch.object(os, "fsync", fsync), patch.object(os, "replace", rename):
        yield


@contextmanager
def old_ones_removed_first() -> Iterator[None]:
    """Before the new checkpoint is durable the earlier ones go."""
    real = RunFolder.save

    def save(self: RunFolder, record: Any, keep: int = 3, **more: Any) -> Any:
        for path in self.checkpoints():
            os.unlink(path)
        return real(self, record, keep, **more)

    with patch.object(RunFolder, "save", save):
        yield


@contextmanager
def temporary_files_stay() -> Iterator[None]:
    """Neither a failed save nor a sweep removes one."""
    real = os.unlink

    def unlink(path: Any, *more: Any, **options: Any) -> None:
        if ".tmp." not in os.fspath(path):
            real(path, *more, **options)

    with patch.object(os, "unlink", unlink):
        yield


@contextmanager
def without_a_lock() -> Iterator[None]:
    with patch.object(fcntl, "flock", lambda fd, how: None):
        yield


@contextmanager
def swept_before_the_lock() -> Iterator[None]:
    """A trainer that is refused has removed the living one's temporary file by then."""
    real = RunFolder.__enter__

    def enter(self: RunFolder) -> RunFolder:
        if self.path.is_dir():
            for name in os.listdir(self.path):
                if ".tmp." in name:
                    os.unlink(self.path / name)
        return real(self)

    with patch.object(RunFolder, "__enter__", enter):
        yield


@contextmanager
def a_number_not_saved() -> Iterator[None]:
    """Of the optimizer's state one number is left as it was at the beginning."""
    real = recording.Recorder._record

    def record(self: Any, *arguments: Any, **options: Any) -> Any:
        made = real(self, *arguments, **options)
        return replace(made, state=made.state | {"pairs": 0, "S": made.state["S"][:0], "Y": made.state["Y"][:0]})

    with patch.object(recording.Recorder, "_record", record):
        yield


@contextmanager
def short_writes_not_continued() -> Iterator[None]:
    """What a write did not take is believed to be written."""
    real = os.write

    def write(fd: int, data: Any) -> int:
        real(fd, data)
        return len(data)

    with patch.object(os, "write", write):
        yield


@contextmanager
def no_checkpoint_at_the_end() -> Iterator[None]:
    with patch.object(recording.Recorder, "end", lambda self, *arguments, **options: None):
        yield


@contextmanager
def the_oldest_preferred() -> Iterator[None]:
    real = run_folder.checkpoints
    with patch.object(run_folder, "checkpoints", lambda folder: real(folder)[::-1]):
        yield


class _Alike(bytes):
    """A digest that is like every other."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = bytes.__hash__


@contextmanager
def digests_not_checked(of: str) -> Iterator[None]:
    """A digest is right whatever it is: that of the "header", of the "table", or of the "data" behind them."""
    sums = table.Table.sums

    def digest(parts: Any) -> bytes:
        parts = list(parts)
        made = table.blake2b(parts)
        return _Alike(made) if (sum(map(len, parts)) == 52) == (of == "header") else made

    def alike(self: table.Table, *arguments: Any) -> table.Sums:
        made = sums(self, *arguments)
        return table.Sums({name: _Alike(one) for name, one in made.leaves.items()}, _Alike(made.rest))

    with patch.object(*((table.Table, "sums", alike) if of == "data" else (guard, "blake2b", digest))):
        yield


@contextmanager
def lengths_not_checked() -> Iterator[None]:
    """A file is read as if it had the length that its header says."""
    real = os.fstat

    def fstat(fd: int) -> Any:
        found = real(fd)
        with suppress(OSError):
            block = os.pread(fd, 20, 0)
            if block.startswith(guard.MAGIC) and len(block) == 20:
                length = int.from_bytes(block[12:20], "little")
                return os.stat_result((*found[:6], length, *found[7:]))
        return found

    with patch.object(os, "fstat", fstat):
        yield
