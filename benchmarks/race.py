"""Contenders timed side by side: turn and turn about.

The driver goes round, in the other direction each time, so that a machine that becomes slower does so for everyone.
Answers are checked before any time is taken. Contenders that take the rows in chunks are first tried with each size,
and only the best one goes on.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
from contenders import CONTENDERS
from problems import Shape, chunk_sizes, make, reference
from runner import Dropped, Pace, Result, Runner

WRONG = 1e-3  # relative error of a float32 gradient beyond which it is no answer; kinks of relu alone give 6e-5
Say = Callable[[str], None]


@dataclass
class Race:
    """Everything that was found about one shape.

    Attributes:
        tuning: for each contender with chunks, the seconds at each chunk size.
        skipped: who cannot take part here, and why.
        failed: who did not run, or gave a wrong answer, and why.
    """

    shape: Shape
    threads: int
    results: list[Result] = field(default_factory=list)
    tuning: dict[str, dict[int, float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def race(
    names: Sequence[str],
    shape: Shape,
    threads: int,
    pace: Pace,
    *,
    chunks: Sequence[int] | None = None,
    say: Say = lambda text: None,
) -> Race:
    """Check everyone's answer, find the best chunk sizes, then take the times.

    Args:
        names: of `CONTENDERS`.
        chunks: rows of a chunk to try; by default those of `chunk_sizes`.
        say: told what is going on.
    """
    found = Race(shape, threads)
    with tempfile.TemporaryDirectory() as folder:
        J, gradient = reference(make(shape))
        truth = (J, os.path.join(folder, "gradient.npy"))
        np.save(truth[1], gradient)
        entries: list[tuple[str, int]] = []
        for name in names:
            if not CONTENDERS[name].chunked:
                entries.append((name, 0))
            elif rows := _best_rows(name, found, truth, chunks or chunk_sizes(shape.m), say):
                entries.append((name, rows))
        found.results = _lap(entries, found, truth, pace, say)
    return found


def refuse_wrong(result: Result) -> None:
    """Take no time of a float32 contender whose gradient is another one.

    Raises:
        Dropped: the gradient's relative error is `WRONG` or more.
    """
    error = result.gradient_error
    if error is not None and not error < WRONG and result.kind != "information":
        raise Dropped(f"wrong answer: the gradient's relative error is {error:.1e}")


def _best_rows(name: str, found: Race, truth: tuple[float, str], chunks: Sequence[int], say: Say) -> int:
    """The chunk size at which this contender is fastest, by two turns at each; 0 if it cannot run."""
    sizes = [rows for rows in chunks if rows < found.shape.m]
    if len(sizes) == 1:
        return sizes[0]
    tried = Race(found.shape, found.threads)
    results = _lap([(name, rows) for rows in sizes], tried, truth, Pace(rounds=2), say)
    found.tuning[name] = {result.rows: min(result.turns) for result in results}
    if results:
        return min(results, key=lambda result: min(result.turns)).rows
    found.skipped |= tried.skipped if sizes else {name: f"{found.shape.m:,} rows are no more than one chunk"}
    found.failed |= tried.failed
    return 0


def _lap(
    entries: Sequence[tuple[str, int]], found: Race, truth: tuple[float, str], pace: Pace, say: Say
) -> list[Result]:
    """The results of these (name, rows of a chunk), timed side by side. Who drops out is noted in `found`."""
    where = found.shape.name or "shape"
    with ExitStack() as processes:
        running: list[Runner] = []

        def drop(runner: Runner, reason: Dropped) -> None:
            (found.skipped if reason.skipped else found.failed)[runner.result.name] = str(reason)
            runner.close()

        for name, rows in entries:
            if name in found.skipped:  # at another chunk size already
                continue
            say(f"{where}: {name}" + (f", {rows:,} rows" if rows else ""))
            runner = Runner(name, found.shape, found.threads, rows)
            processes.callback(runner.close)
            try:
                runner.begin()
                runner.check(*truth)
                refuse_wrong(runner.result)
                running.append(runner)
            except Dropped as reason:
                drop(runner, reason)
        for turn in range(pace.rounds):
            say(f"{where}: round {turn + 1} of {pace.rounds}")
            for runner in list(running) if turn % 2 == 0 else running[::-1]:
                try:
                    runner.turn(pace)
                except Dropped as reason:
                    drop(runner, reason)
                    running.remove(runner)
        return [runner.result for runner in running]
