"""A run's folder: who may write into it, which checkpoints it holds, which of them counts.

    RUN/lock                        held by the trainer at work; its text says who
    RUN/checkpoint-00000120.h5      by iteration; the last few
    RUN/history.jsonl               one line for each iteration: for people and plots, never read back
    RUN/replaced-checkpoint-….h5    of an earlier run, until the first checkpoint that replaces it is on the disk

A trainer takes the lock before it touches anything else. The system gives a lock back when its holder dies, however it
dies, so there is never a stale one. Readers take no lock and change nothing.

**Overwriting.** At the first save of the new run the earlier checkpoints are renamed, then the new one is written, then
they are removed. So at every instant a whole checkpoint is there, and the newest is never the earlier run's once the
new run has one, whatever their iterations.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import math
import os
import re
import socket
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from .checkpoint import Checkpoint, Known, one_line, read, sync_folder, warn_once, write, write_all, write_whole
from .errors import CheckpointError, MismatchError, UsageError, visible

log = logging.getLogger("gpubp")

_MOMENT = 0.1  # seconds
_LOCK, _HISTORY, _REPLACED = "lock", "history.jsonl", "replaced-"
_CHECKPOINT = re.compile(r"(?P<replaced>replaced-)?checkpoint-(?P<iteration>\d{8,})\.h5")
_TEMPORARY = re.compile(r"\.(checkpoint-\d{8,}\.h5|history\.jsonl)\.tmp\.\d+")


class Found(NamedTuple):
    """The newest sound checkpoint, and the newer files that were not: path and reason."""

    path: Path
    checkpoint: Checkpoint
    rejected: list[tuple[Path, str]]


class RunFolder:
    """The folder of a run as its trainer has it: inside `with`, nobody else trains there.

    Args:
        path: the folder; it and its parents are made if needed.
        must_exist: to go on with a run: the folder must hold a checkpoint, else nothing is made.

    Raises:
        CheckpointError: on entering: it is a file, another trainer holds it (the message says who), it cannot be
            written, or with `must_exist` holds no checkpoint.
    """

    def __init__(self, path: str | Path, *, must_exist: bool = False) -> None:
        self.path = Path(path)
        self._must_exist = must_exist
        self._lock: int | None = None
        self._history: int | None = None
        self._replacing = False
        self._known = Known()

    def __enter__(self) -> RunFolder:
        if _is_folder(self.path, missing=not self._must_exist) and self._must_exist and not self.checkpoints():
            raise _nothing_in(self.path)
        with one_line(f"cannot write in {self.path}"):
            _made(self.path)
            self._lock, alone = _locked(self.path / _LOCK)
        if alone:  # unsure of that, a living trainer's temp file could not be told from a dead one's
            for left in temporaries(self.path):
                with suppress(OSError):
                    left.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close_history()
        finally:
            if self._lock is not None:
                os.close(self._lock)  # gives the lock back; the file stays, or two trainers could lock two of them
                self._lock = None

    @staticmethod
    def check(path: str | Path, *, overwrite: bool = False) -> None:
        """Refuse a folder that a new run must not use, touching nothing: to be asked before the work begins.

        Raises:
            CheckpointError: it is a file; it holds a checkpoint, or files but no run, and not `overwrite`.
        """
        path = Path(path)
        if not _is_folder(path, missing=True) or overwrite:
            return
        held = checkpoints(path)
        if held:
            do = f"go on with gpubp resume {path} or with --resume auto, or replace it with --overwrite"
            raise CheckpointError(f"{path} holds {held[-1].name}", wanted="a folder without a checkpoint", do=do)
        names = set(_names(path))
        others = sorted(name for name in names if name != _LOCK and not _TEMPORARY.fullmatch(name))
        if others and _HISTORY not in names:
            do = "name a new folder with --out, or add --overwrite: other files stay as they are"
            raise CheckpointError(f"{path} holds {others[0]} and no run", wanted="a new or empty folder", do=do)

    def refuse_if_used(self, overwrite: bool) -> None:
        """`check` again, now that the lock is held. With `overwrite` the first save replaces what is there.

        Raises:
            CheckpointError: as `check`.
        """
        self.check(self.path, overwrite=overwrite)
        self._replacing = overwrite

    def checkpoints(self) -> list[Path]:
        """The checkpoints, oldest first; those of a run that is being replaced come before all others."""
        return checkpoints(self.path)

    def newest(self) -> Found:
        """The newest checkpoint that is sound.

        Raises:
            MismatchError: the newest one was written by another gpubp. Going on from an older one would lose it.
            CheckpointError: there is none; the message names each one tried.
        """
        return _newest(self.path)

    def save(
        self,
        checkpoint: Checkpoint,
        keep: int = 3,
        *,
        versions: Mapping[str, Sequence[Hashable]] | None = None,
        go_on: Callable[[], None] = lambda: None,
    ) -> Path:
        """Write a checkpoint and, once it is on the disk, remove all but the last `keep` and the best one.

        The best is that of the lowest validation cost, where there is one, else of the lowest J. Those of later
        iterations are removed too: they were not sound when this run went on without them.

        Args:
            versions, go_on: see `gpubp.checkpoint.write`.

        Raises:
            CheckpointError: it cannot be written; earlier checkpoints are untouched.
        """
        if keep < 1:
            raise UsageError(f"{keep} checkpoints to keep", wanted="1 or more")
        if self._replacing:
            with one_line(f"cannot write in {self.path}"):
                for path in self.checkpoints():
                    if not path.name.startswith(_REPLACED):
                        os.replace(path, path.with_name(_REPLACED + path.name))
                        sync_folder(self.path)  # in this order: the newest of those not renamed is the newest of all
            self._replacing = False
        saved = self.path / f"checkpoint-{checkpoint.iteration:08d}.h5"
        write(saved, checkpoint, known=self._known, versions=versions, go_on=go_on)
        log.debug("saved %s", saved.name)  # whoever reads this may cut the power
        held = self.checkpoints()
        up_to_now = held[: held.index(saved) + 1]
        kept = [*up_to_now[-keep:], best(up_to_now, checkpoint)]
        for path in held:
            if path not in kept or path.name.startswith(_REPLACED):
                try:
                    path.unlink()
                except OSError as error:  # the new one is safe: no reason to end a run
                    log.warning("cannot remove %s: %s", path, error.strerror)
        return saved

    def append_history(self, row: Mapping[str, Any]) -> None:
        """Add a line to history.jsonl. JSON has no NaN and no ±∞: they become null.

        Raises:
            CheckpointError: it cannot be written.
        """
        with one_line(f"cannot write {self.path / _HISTORY}"):
            if self._history is None:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                self._history = os.open(self.path / _HISTORY, flags, 0o666)
            fd = self._history
            write_all(lambda rest: os.write(fd, rest), memoryview(_json_line(row).encode()))

    def rewrite_history(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Make history.jsonl these rows, at once: a resumed run's must agree with its checkpoint.

        Raises:
            CheckpointError: it cannot be written; the earlier one is untouched.
        """
        self._close_history()
        write_whole(self.path / _HISTORY, "".join(map(_json_line, rows)).encode())

    def _close_history(self) -> None:
        if self._history is not None:
            os.close(self._history)
            self._history = None


def find_checkpoint(path: str | Path) -> Found:
    """The newest sound checkpoint of a run folder, or the checkpoint file itself. Takes no lock, changes nothing.

    Raises:
        MismatchError: it was written by another gpubp.
        CheckpointError: nothing is there, or nothing sound; the message names each one tried.
    """
    path = Path(path)
    with one_line(f"cannot read {path}"):
        folder = path.is_dir()
    return _newest(path) if folder else Found(path, read(path), [])


def best(paths: Sequence[Path], checkpoint: Checkpoint) -> Path | None:
    """Which of these checkpoints of a run has the lowest validation cost, or where there is none the lowest J, by the
    history in the newest one; None if that does not know. Of equal ones it is the latest."""
    columns = {name: checkpoint.history[:, i] for i, name in enumerate(checkpoint.history_columns)}
    if "iteration" not in columns:
        return None
    validation = columns.get("validation")
    cost = columns.get("J") if validation is None or np.isnan(validation).all() else validation
    if cost is None:
        return None
    found: list[tuple[float, int, Path]] = []
    for path in paths:
        row = int(np.searchsorted(columns["iteration"], iteration(path)))
        if row < len(cost) and columns["iteration"][row] == iteration(path) and not np.isnan(cost[row]):
            found.append((float(cost[row]), -row, path))
    return min(found)[2] if found else None


def iteration(path: Path) -> int:
    """Of the checkpoint of that name, as its trainer named it."""
    match = _CHECKPOINT.fullmatch(path.name)
    return -1 if match is None or match["replaced"] else int(match["iteration"])


def _newest(folder: Path, tries: int = 10) -> Found:
    rejected: list[tuple[Path, str]] = []
    for path in reversed(checkpoints(folder)):
        try:
            return Found(path, _read(path), rejected)
        except MismatchError:
            raise
        except CheckpointError as error:
            if tries and not os.path.lexists(path):  # a trainer at work removed it, having written a newer one
                return _newest(folder, tries - 1)
            rejected.append((path, visible(error.found)))  # what to do is another matter where there are others
    if not rejected:
        raise _nothing_in(folder)
    raise CheckpointError(
        f"no sound checkpoint in {folder}: " + "; ".join(reason for _, reason in rejected),
        wanted="one of them sound",
        do="copy one back from where you have another, or begin anew with gpubp train --overwrite",
    )


def _read(path: Path) -> Checkpoint:
    """`read`, and where the system refuses, once more: what passes is no reason to go on from an older one."""
    try:
        return read(path)
    except CheckpointError as error:
        if not isinstance(error.__cause__, OSError) or not os.path.lexists(path):
            raise
        time.sleep(_MOMENT)
        return read(path)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run folder, sound or not, the oldest first; before all those of a run that is replaced.

    Raises:
        CheckpointError: the folder cannot be read.
    """
    named = [match for name in _names(folder) if (match := _CHECKPOINT.fullmatch(name))]
    found = [match for match in named if not (folder / match[0]).is_dir()]
    found.sort(key=lambda match: (match["replaced"] is None, int(match["iteration"])))
    return [folder / match[0] for match in found]


def temporaries(folder: Path) -> list[Path]:
    """What a trainer at work, or one that was killed, has begun to write."""
    return [folder / name for name in _names(folder) if _TEMPORARY.fullmatch(name)]


def _names(folder: Path) -> list[str]:
    with one_line(f"cannot read {folder}"):
        return os.listdir(folder)


def _made(path: Path) -> None:
    """Make a folder and its parents, where they are missing; their names are then on the disk."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder.parent)


def _is_folder(path: Path, *, missing: bool) -> bool:
    """True for a folder, False where nothing is and that is right; anything else is refused."""
    with one_line(f"cannot read {path}"):
        if path.is_dir():
            return True
        there = path.exists() or path.is_symlink()
    if there or not missing:
        do = f"name its folder, {path.parent}" if there and not missing and iteration(path) >= 0 else ""
        raise CheckpointError(f"{path} {'is no folder' if there else 'does not exist'}", wanted="a run folder", do=do)
    return False


def _nothing_in(folder: Path) -> CheckpointError:
    return CheckpointError(f"{folder} holds no checkpoint", wanted="a run folder", do="begin a run with gpubp train")


def _locked(path: Path) -> tuple[int, bool]:
    """The open lock file, and whether the lock is surely ours (some network file systems have none)."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        text = os.pread(fd, 200, 0).decode(errors="replace")
        # torn by a full disk or a power cut it is a first part of the word, or has zeros in place of letters
        ours = all(found in (letter, "\0") for found, letter in zip(text, "gpubp ", strict=False))
        if not ours:
            raise CheckpointError(f"{path} is not gpubp's", do="name another folder with --out")
        alone = True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_MOMENT)  # it may not have written its name yet
            text = os.pread(fd, 200, 0).decode(errors="replace")
            holder = text.strip().removeprefix("gpubp ") or "another process"
            do = "wait for it, or name another folder with --out"
            raise CheckpointError(
                f"{path.parent} is in use by {holder}", wanted="one trainer at a time", do=do
            ) from None
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK):
                raise
            alone = False
            warn_once(f"the file system of {path.parent} has no locks: see that no second trainer uses this folder")
        name = f"gpubp process {os.getpid()} on {socket.gethostname()}\n".encode()
        write_all(lambda rest: os.pwrite(fd, rest, len(name) - len(rest)), memoryview(name))
        os.ftruncate(fd, len(name))
        return fd, alone
    except BaseException:
        os.close(fd)
        raise


def _json_line(row: Mapping[str, Any]) -> str:
    plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
    return json.dumps(plain, allow_nan=False) + "\n"
