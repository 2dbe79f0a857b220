"""Ranks on one machine are signalled, stopped and killed at random instants, and the run is resumed on other numbers.

A chain begins a run on two to five ranks and disturbs it: a signal to the launcher or to a rank, kill −9 of a rank or
of the launcher, a rank that is stopped for good. Then it goes on with another number of ranks, until after some
disturbances nobody disturbs it any more. It is a loss if the launcher does not end within the watchdog and a while, if
a process is left, if there is a traceback, a word of MPI's or more than one message (a second rank may speak up in the
same moment where one hangs), if the exit code is another than what happened says, if a checkpoint that was acknowledged
is gone or one is not sound, or if the end differs in any bit from a run of one process that nobody disturbed.
"""

from __future__ import annotations

import random
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import launched
from forks import forks
from mpi import BANNER, TRAIN, Ended, Launch, rows
from room import added, bits, differing, new_folder, newest
from running import write

from gpubp.errors import CheckpointError

WHAT = "ranks signalled, stopped and killed, then resumed on others"
SHORT = 1

WATCHDOG = 3
SOON = 60.0  # seconds for what takes a few: a machine may be busy
CHAIN = 4  # disturbances
LIMIT = 40  # iterations, of some 50 ms
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 75}


def rounds(place: Path, dice: random.Random) -> Iterator[Counter[str]]:
    if not launched.there:
        for _ in range(SHORT):
            yield Counter({"not here: no mpi4py": 1})
        return
    X, y = rows()
    data, wanted = write(place / "d.h5", X=X, y=y), straight(place)
    while True:
        with new_folder(place) as folder:
            yield chain(folder / "run", data, wanted, dice)


def straight(place: Path) -> dict[str, Any]:
    """The end of a run that nobody disturbs."""
    with forks().start(*begin(place / "d.h5", place / "straight")) as child:
        assert child.wait() == 0, child.says("the undisturbed run failed")
    return bits(newest(place / "straight"))


def begin(data: Path, run: Path) -> list[str]:
    words = [str(word) for word in ("-v", "train", data, "--out", run, *TRAIN, "--checkpoint-every", "1it")]
    return [*words, "--iterations", str(LIMIT)]


def chain(run: Path, data: Path, wanted: dict[str, Any], dice: random.Random) -> Counter[str]:
    """One run, until its end."""
    counts: Counter[str] = Counter()
    before = -1
    for _ in range(CHAIN):
        words = begin(data, run) if before < 0 else ["-v", "resume", str(run)]
        with Launch(dice.randint(2, 5), *words, "--watchdog", WATCHDOG, cwd=run.parent) as launch:
            counts = added(counts, disturb(launch, before, dice))
        try:
            before = newest(run).iteration
        except CheckpointError as error:
            assert before < 0, f"iteration {before} was there, and now {error}"
    words = begin(data, run) if before < 0 else ["-v", "resume", str(run)]
    with Launch(dice.randint(1, 5), *words, cwd=run.parent) as launch:
        done = launch.wait()
    assert done.code == 0 and not done.left, done
    found = differing(bits(newest(run)), wanted)
    assert not found, f"other bits than of one process: {found}"
    return counts + Counter({"chains": 1})


def disturb(launch: Launch, before: int, dice: random.Random) -> Counter[str]:
    """Do something to it, wait for its end and look."""
    early = dice.random() < 0.3
    if early:
        time.sleep(dice.random())
    else:
        word = "saved checkpoint-" if before < 0 else "going on from"
        launch.until(lambda: word in launch.errors or launch.over)
        time.sleep(0.3 * dice.random())
    number = dice.choice([*CODES, signal.SIGKILL, signal.SIGSTOP])
    rank = dice.choice([None, *launch.pids])
    if number == signal.SIGSTOP:
        rank = dice.choice(list(launch.pids) or [None])
    if launch.over or (number == signal.SIGSTOP and rank is None):
        return Counter({"ended before": 1})
    listened = "network  " in launch.errors  # all handlers are there
    launch.signal(number, rank)
    done = launch.wait()
    what = f"{signal.Signals(number).name} to {'the launcher' if rank is None else f'rank {rank}'}"
    looked(done, what, number, rank, listened)
    saved = [int(found) for found in re.findall(r"^saved checkpoint-(\d+)", done.errors, re.M)]
    if saved or before >= 0:
        there = newest(launch.cwd / "run").iteration
        assert there >= max([before, *saved]), (
            f"{what}: iteration {there} is there, {max([before, *saved])} was: {done}"
        )
    seconds = max(0, round(done.seconds - (WATCHDOG if number == signal.SIGSTOP else 0)))
    return Counter({what.replace(f"rank {rank}", "a rank"): 1, "most seconds until the end": seconds})


def looked(done: Ended, what: str, number: int, rank: int | None, listened: bool) -> None:
    """How it ended, and what was said."""
    assert done.seconds < WATCHDOG + SOON and not done.left and "Abort(" not in done.errors, f"{what}: {done}"
    if done.code == 0 and "cost J" in done.out:
        return  # it had ended before
    said = [line for line in done.errors.splitlines() if line.startswith("gpubp: error: ")]
    if number == signal.SIGSTOP:
        unmet = any("not all of them came" in line for line in said)
        assert said and (unmet or done.ended(3)), f"{what}: {done}"
        assert len(said) <= 2 and all("has waited" in line or unmet for line in said), f"{what}: {done}"
    elif number == signal.SIGKILL:
        assert not said and done.code == (-signal.SIGKILL if rank is None else signal.SIGKILL), f"{what}: {done}"
        assert rank is None or BANNER in done.out, f"{what}: {done}"
    elif listened:
        assert not said and done.code == CODES[signal.Signals(number)], f"{what}: {done}"
    else:  # by the signal itself, or while the data are read; a Ctrl-C may find Python itself at its beginning
        unmet = number == signal.SIGINT and rank is not None and all("not all of them came" in line for line in said)
        assert (unmet or not said) and done.code, f"{what}: {done}"
    early = number == signal.SIGINT and not listened
    assert "Traceback" not in done.errors or early, f"{what}: {done}"
