"""Torture: do to real runs what machines do to them, for minutes or for hours, and say what was lost.

    python3 scripts/dev torture                       every room for ten minutes in all
    python3 scripts/dev torture --minutes 600         overnight
    python3 scripts/dev torture --only kills --seed 7 one room, with the dice of an earlier time

The rooms are the modules of this folder, see `room`. They take turns, the next turn being that of the one which had the
least time. A loss ends its room, the others go on. Exit code 0: nothing was lost; 1: something was; 2: usage.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, ModuleType
from typing import NoReturn

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before NumPy is imported: its BLAS reads these once

HERE = Path(__file__).resolve().parent
for _folder in (HERE.parents[1], HERE.parent, HERE):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

import room  # noqa: E402

LINE_EVERY = 10.0  # seconds between two lines where stderr is no terminal


class Parser(argparse.ArgumentParser):
    """Mistakes are one line."""

    def error(self, message: str) -> NoReturn:
        sys.exit(_said(f"torture: error: {message}; see --help", 2))


@dataclass
class Turn:
    """What a room has done so far.

    Attributes:
        seconds: spent in it.
        failure: what was lost, in words; "" if nothing.
    """

    name: str
    module: ModuleType
    place: Path
    seed: int
    rounds: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    failure: str = ""
    over: bool = False

    def __post_init__(self) -> None:
        self._rounds = self.module.rounds(self.place, random.Random(f"{self.seed} {self.name}"))

    def take(self) -> None:
        """One round more."""
        began = time.monotonic()
        try:
            counts = next(self._rounds, None)
            if counts is None:
                self.over = True
            else:
                self.rounds += 1
                self.counts = room.added(self.counts, counts)
        except Exception as error:
            self.over = True
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = str(error) if isinstance(error, AssertionError) else traceback.format_exc()
            at = f"{Path(where.filename).name}:{where.lineno}"
            again = f"again with --only {self.name} --seed {self.seed}"
            self.failure = f"{self.name}, round {self.rounds + 1}, seed {self.seed}, {at}: {said}\n({again})"
        finally:
            self.seconds += time.monotonic() - began

    def close(self, keep: bool) -> None:
        """End it; what a failed round has left is removed unless it is to be kept."""
        self._rounds.close()
        if keep and self.failure:
            print(f"kept for inspection: {self.place}", file=sys.stderr)
        else:
            shutil.rmtree(self.place, ignore_errors=True)

    @property
    def verdict(self) -> str:
        return "LOST" if self.failure else "nothing lost" if self.rounds else "no round was done"

    def report(self) -> dict[str, object]:
        return {
            "what": self.module.WHAT, "rounds": self.rounds, "counts": dict(self.counts),
            "seconds": round(self.seconds, 1), "verdict": self.verdict, "failure": self.failure,
        }  # fmt: skip


class Shown:
    """Where it is: a line that renews itself on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.last = time.monotonic()

    def __call__(self, turns: list[Turn], left: float) -> None:
        if time.monotonic() - self.last < (0.2 if self.terminal else LINE_EVERY):
            return
        self.last = time.monotonic()
        done = ", ".join(f"{one.name} {one.rounds}{'!' if one.failure else ''}" for one in turns)
        line = f"{max(left, 0):.0f} s left; rounds: {done}"
        if self.terminal:
            line = line[: shutil.get_terminal_size().columns - 1]
        print(f"\r\x1b[K{line}" if self.terminal else line, end="" if self.terminal else "\n", file=sys.stderr)
        sys.stderr.flush()

    def clear(self) -> None:
        if self.terminal:
            print("\r\x1b[K", end="", file=sys.stderr)


def main(arguments: list[str]) -> int:
    parser = Parser(
        prog="torture", description=(__doc__ or "").partition(":")[2], formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="in all; default 10")
    parser.add_argument("--only", action="append", default=[], metavar="ROOM", help="one room; may be repeated")
    parser.add_argument("--seed", type=int, help="of the dice; by default a new one, which is printed")
    parser.add_argument("--keep", action="store_true", help="leave the folder of a round in which something was lost")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
    given = parser.parse_args(arguments)
    if not 0 < given.minutes < float("inf"):
        parser.error(f"--minutes {given.minutes:g}; wanted a number above 0")
    found = room.rooms(HERE)
    if unknown := [name for name in given.only if name not in found]:
        parser.error(f"--only {unknown[0]} is no room; wanted one of {', '.join(found)}")
    seed = random.SystemRandom().randrange(10**9) if given.seed is None else given.seed
    print(f"seed {seed}", file=sys.stderr, flush=True)
    signal.signal(signal.SIGTERM, _interrupted)
    began = time.monotonic()
    turns: list[Turn] = []
    try:
        for name in given.only or found:
            place = Path(tempfile.mkdtemp(prefix=f"torture-{name}-"))
            turns.append(Turn(name, found[name], place, seed))
        work(turns, began + 60 * given.minutes)
    except KeyboardInterrupt:
        print("\ntorture: interrupted; this is what was done", file=sys.stderr)
    finally:
        for one in turns:
            one.close(given.keep)
    for one in turns:
        if one.failure:
            print(f"LOST in {one.failure}\n", file=sys.stderr)
    print(table(turns), flush=True)
    lost = any(one.failure for one in turns)
    if given.json:
        result = {"seed": seed, "seconds": round(time.monotonic() - began, 1), "lost": lost}
        try:
            given.json.write_text(json.dumps(result | {"rooms": {one.name: one.report() for one in turns}}, indent=1))
        except OSError as error:
            return _said(f"torture: error: cannot write {given.json}: {error.strerror}", 2)
    return int(lost)


def work(turns: list[Turn], until: float) -> None:
    """Take turns until the time is up."""
    show = Shown()
    try:
        while time.monotonic() < until and (left := [one for one in turns if not one.over]):
            next_one = min(left, key=lambda one: one.seconds)
            next_one.take()
            if next_one.failure:
                show.clear()
                print(f"{next_one.name}: something was lost in round {next_one.rounds + 1}", file=sys.stderr)
            show(turns, until - time.monotonic())
    finally:
        show.clear()


def table(turns: list[Turn]) -> str:
    """What was done, a line for each room, and below it what was counted."""
    lines = [("room", "rounds", "seconds", "verdict", "what is done, and what was counted")]
    for one in turns:
        counted = ", ".join(f"{number:,} {name}" for name, number in sorted(one.counts.items()))
        lines.append((one.name, f"{one.rounds:,}", f"{one.seconds:.0f}", one.verdict, one.module.WHAT))
        lines.append(("", "", "", "", counted))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    filled = ([cell.ljust(width) for cell, width in zip(line[:4], widths, strict=True)] + [line[4]] for line in lines)
    return "\n".join("  ".join(cells).rstrip() for cells in filled)


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _said(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
