"""A run that works, looked at from outside: its history as it grows, drawn on a terminal.

Nothing here takes the run's lock or writes into its folder; whoever follows may come and go. Whether a trainer is at
work is read from the system's list of locks: to try the lock, however short, could be what refuses a trainer that
begins in that moment.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from .chart import NARROWEST, chart, known
from .errors import CheckpointError
from .run_folder import checkpoints, find_checkpoint, iteration
from .stopping import count

LINE_EVERY = 5.0  # seconds between lines where nobody watches a terminal
_LOCKS = Path("/proc/locks")
_HOLDER = re.compile(r"gpubp process (\d+) on (\S+)")
_RECENT = 10  # iterations that the speed is taken of
Row = Mapping[str, Any]


def follow(
    run: str | Path,
    *,
    as_json: bool = False,
    stream: TextIO | None = None,
    interval: float = 0.5,
    width: int | None = None,
    height: int | None = None,
) -> int:
    """Show a run while it works, until it ends; one that has ended is shown once; one that is to come is waited for.

    On a terminal a chart renews itself in place; elsewhere there is a line every few seconds, or with `as_json` a line
    for each iteration, as the history has it, and one for the ending. Ctrl-C ends the looking on, not the run.

    Args:
        run: its folder, which need not be there yet.
        stream: where to; stdout where absent.
        interval: seconds between two looks.
        width, height: of the terminal; what it says itself where absent.

    Returns:
        An exit code: 0, 1 where the run failed or its trainer is gone without an ending, 130 after Ctrl-C.

    Raises:
        CheckpointError: the run is a file; at its end no checkpoint can be read.
    """
    run = Path(run)
    if run.exists() and not run.is_dir():
        raise CheckpointError(f"{run} is no folder", wanted="a run folder")
    to: TextIO = sys.stdout if stream is None else stream
    shown = _Json(to) if as_json else _of(to, width, height)
    history = History(run)
    try:
        while True:
            at_work = trainer(run)  # first: what it writes before it ends is then read below
            history.look()
            newest = _newest(run)
            over = at_work is False and newest >= 0
            if at_work is None and newest == _iterations(history.rows):  # of one not to be seen from here
                over = _ending(run) is not None
            if over:
                ending = _ending(run)
                shown.end(run, history.rows, ending)
                return 0 if ending and ending["kind"] != "failed" else 1
            shown.show(run, history.rows)
            time.sleep(interval)
    except KeyboardInterrupt:
        return 130
    finally:
        history.close()
        shown.close()


def trainer(run: Path) -> bool | None:
    """Whether a trainer holds the run's lock; None where that cannot be seen from here."""
    lock = run / "lock"
    try:
        text, inode = lock.read_text(errors="replace"), lock.stat().st_ino
    except OSError:
        return False
    holder = _HOLDER.search(text)
    if holder is None:
        return False
    if holder[2] != socket.gethostname():
        return None
    try:
        locks = [line.split() for line in _LOCKS.read_text().splitlines()]
    except OSError:
        return None if _alive(int(holder[1])) else False
    # by the number of the process too: some file systems give a file another number than the list has
    return any(
        "FLOCK" in line and "->" not in line and (line[-3].rpartition(":")[2] == str(inode) or line[-4] == holder[1])
        for line in locks
        if len(line) >= 8
    )


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


class History:
    """A run's history.jsonl as it grows, or as another one takes its place.

    Attributes:
        rows: what it holds.
    """

    def __init__(self, run: Path) -> None:
        self._path = run / "history.jsonl"
        self._file: int | None = None
        self._rest = b""
        self.rows: list[Row] = []

    def look(self) -> None:
        """Read what is new. A line without its end is one that is still being written."""
        try:
            there = os.stat(self._path)
        except OSError:
            self.close()
            return
        if self._file is not None and not _same(self._file, there):
            self.close()
        if self._file is None:
            try:
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)  # kept: its number stays its own
            except OSError:
                return
        while new := os.read(self._file, 1 << 20):
            self._rest += new
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            with suppress(ValueError):  # torn by a full disk
                row = json.loads(line)
                if isinstance(row, dict) and isinstance(row.get("iteration"), int):
                    self.rows.append(row)

    def close(self) -> None:
        """Let go of the file and of what it held."""
        if self._file is not None:
            os.close(self._file)
        self._file, self._rest, self.rows = None, b"", []


def _same(file: int, there: os.stat_result) -> bool:
    """Whether an open file is the one that is there, and not shorter than what was read of it."""
    ours = os.fstat(file)
    read = os.lseek(file, 0, os.SEEK_CUR)
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino) and there.st_size >= read


def _iterations(rows: Sequence[Row]) -> int:
    return rows[-1]["iteration"] if rows else 0


def _newest(run: Path) -> int:
    """The iteration of the newest checkpoint; −1 where there is none."""
    try:
        held = checkpoints(run)
    except CheckpointError:
        return -1
    return iteration(held[-1]) if held else -1


def _ending(run: Path) -> dict[str, Any] | None:
    """Of the newest checkpoint: kind, reason and iteration; None while it has none."""
    try:
        checkpoint = find_checkpoint(run).checkpoint
    except CheckpointError:
        return None
    return None if checkpoint.ending is None else {**checkpoint.ending, "iteration": checkpoint.iteration}


def _words(run: Path, rows: Sequence[Row], ending: Mapping[str, Any] | None) -> str:
    """How it ended, in a sentence."""
    if ending is None:
        done = count(_iterations(rows))
        return f"its trainer is gone without an ending, after {done}: gpubp resume {run} goes on"
    return str(ending["reason"])


def _of(stream: TextIO, width: int | None, height: int | None) -> _Terminal | _Lines:
    return _Terminal(stream, width, height) if stream.isatty() else _Lines(stream, width, height)


class _Json:
    """A line for each iteration. One that is taken again after a resume is another line, and is shown again."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown: list[Row] = []

    def show(self, run: Path, rows: Sequence[Row]) -> None:
        at = next((i for i, (a, b) in enumerate(zip(self._shown, rows, strict=False)) if a is not b and a != b), None)
        at = min(len(self._shown), len(rows)) if at is None else at
        for row in rows[at:]:
            self._stream.write(json.dumps(row) + "\n")
        self._shown = list(rows)
        self._stream.flush()

    def end(self, run: Path, rows: Sequence[Row], ending: Mapping[str, Any] | None) -> None:
        self.show(run, rows)
        said = {"run": str(run), "ending": ending and ending["kind"], "reason": _words(run, rows, ending)}
        self._stream.write(json.dumps(said, ensure_ascii=False) + "\n")

    def close(self) -> None:
        pass


class _Lines:
    """A line every few seconds; at the end the chart."""

    def __init__(self, stream: TextIO, width: int | None, height: int | None) -> None:
        self._stream, self._size = stream, (width or 80, height or 24)
        self._spoke, self._last = -math.inf, None

    def show(self, run: Path, rows: Sequence[Row]) -> None:
        now = time.monotonic()
        if now - self._spoke < LINE_EVERY or (rows[-1] if rows else run) is self._last:
            return
        self._spoke, self._last = now, rows[-1] if rows else run
        said = "  ".join(numbers(rows)) if rows else f"waiting for {run} to begin"
        self._stream.write(said + "\n")
        self._stream.flush()

    def end(self, run: Path, rows: Sequence[Row], ending: Mapping[str, Any] | None) -> None:
        self._stream.write("\n".join([*picture(run, rows, *self._size), f"ended: {_words(run, rows, ending)}"]) + "\n")

    def close(self) -> None:
        pass


class _Terminal:
    """The chart, renewed in place."""

    def __init__(self, stream: TextIO, width: int | None, height: int | None) -> None:
        self._stream, self._wanted = stream, (width, height)
        self._lines, self._size = 0, (0, 0)
        stream.write("\x1b[?25l")  # no cursor

    def show(self, run: Path, rows: Sequence[Row]) -> None:
        size = self._now()
        lines = picture(run, rows, size[0], size[1] - 1)
        if size != self._size and self._lines:
            self._stream.write("\x1b[2J\x1b[H")  # what is there was folded by the terminal
            self._lines = 0
        up = f"\x1b[{self._lines}A" if self._lines else ""
        self._stream.write(f"{up}\r" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")
        self._stream.flush()
        self._lines, self._size = len(lines), size

    def end(self, run: Path, rows: Sequence[Row], ending: Mapping[str, Any] | None) -> None:
        self.show(run, rows)
        self._stream.write(f"ended: {_words(run, rows, ending)}\n")

    def close(self) -> None:
        with suppress(OSError):  # a terminal that is gone
            self._stream.write("\x1b[?25h")
            self._stream.flush()

    def _now(self) -> tuple[int, int]:
        found = shutil.get_terminal_size()
        with suppress(OSError, ValueError):
            found = os.get_terminal_size(self._stream.fileno())
        width, height = self._wanted
        return width or found.columns or 80, height or found.lines or 24


def numbers(rows: Sequence[Row]) -> list[str]:
    """The figures of the last iteration, one by one."""
    row = rows[-1]
    found = [f"iteration {row['iteration']:,}", f"J {_figure(row.get('J'))}"]
    held = [(one["validation"], -one["iteration"]) for one in rows if known(one.get("validation"))]
    if held:
        lowest, at = min(held)
        found.append(f"validation {_figure(row.get('validation'))}")
        found += [] if row.get("validation") == lowest else [f"lowest {lowest:.6g} at {-at:,}"]
    found += [f"max|∇J| {_figure(row.get('gradient'), '.2e')}"]
    found += [f"step {_figure(row['step'], '.2e')}"] if known(row.get("step")) else []
    found += [f"passes {row.get('passes', row.get('evaluations', 0)):,.0f}", f"{row.get('seconds', 0):,.1f} s"]
    speed = _speed(rows)
    found += [f"{speed:,.3g} passes/s"] if speed else []
    return [*found, str(row.get("precision", ""))]


def _speed(rows: Sequence[Row]) -> float:
    """Passes a second of the last iterations."""
    a, b = rows[max(0, len(rows) - 1 - _RECENT)], rows[-1]
    seconds = b.get("seconds", 0) - a.get("seconds", 0)
    passes = b.get("passes", 0) - a.get("passes", 0)
    return passes / seconds if seconds > 0 and passes > 0 else 0.0


def _figure(value: Any, form: str = ".6g") -> str:
    return f"{value:{form}}" if known(value) else "-"


def picture(run: Path, rows: Sequence[Row], width: int, height: int) -> list[str]:
    """Chart and figures in lines of at most `width` columns, at most `height` of them where that is enough for the
    figures."""
    if not rows:
        return [f"waiting for {run} to begin"[:width]]
    below = _folded(numbers(rows), width)
    title = f"{run}"[: max(0, width - 1)]
    room = height - len(below) - 3  # the title, the axis and its numbers
    if room < 3 or width < NARROWEST:
        return [title, *below][: max(1, height)]
    return [title, *chart(rows, width, room), *below]


def _folded(parts: Sequence[str], width: int) -> list[str]:
    """Parts in lines, none broken but one that is longer than a line."""
    lines = [""]
    for part in parts:
        longer = f"{lines[-1]}   {part}" if lines[-1] else part
        if len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part[:width])
    return [line for line in lines if line]
