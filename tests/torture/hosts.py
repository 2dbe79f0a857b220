"""Ranks on three hosts, which are network namespaces with real TCP between them: cables are pulled, ranks are killed.

A chain begins a run on three hosts, and pulls the cable of one at a random instant, for good or for a few seconds, or
kills, stops or signals a rank on any of them; then it goes on with it. It is a loss if after a cable that was pulled
for good or a rank that is gone the launcher does not end within the watchdog and a while, if a process is left on any
host, the ones that nobody can reach included, if nobody says why, if after a blip the run does not go on, if a
checkpoint that was acknowledged is gone, or if the end differs in any bit from a run of one process that nobody
disturbed.
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

from launches import LIMIT, SOON, begin, straight
from mpi import BANNER, Launch, rows
from netns import NAMES, Hosts, missing
from room import added, bits, differing, new_folder, newest
from running import write

WHAT = "three hosts: cables pulled, ranks killed, then resumed"
SHORT = 1

WATCHDOG = 6  # seconds; a cable that was out a moment ago may take some
CHAIN = 3  # disturbances
KINDS = ("cut", "blip", "kill", "stop", "signal")


def rounds(place: Path, dice: random.Random) -> Iterator[Counter[str]]:
    if why := missing():
        for _ in range(SHORT):
            yield Counter({f"not here: {why}": 1})
        return
    X, y = rows()
    data, wanted = write(place / "d.h5", X=X, y=y), straight(place)
    (place / "ssh").mkdir()
    with Hosts(place / "ssh") as hosts:
        while True:
            with new_folder(place) as folder:
                yield chain(hosts, folder / "run", data, wanted, dice)


def chain(hosts: Hosts, run: Path, data: Path, wanted: dict[str, Any], dice: random.Random) -> Counter[str]:
    """One run, until its end."""
    counts: Counter[str] = Counter()
    while sum(counts[kind] for kind in KINDS) < CHAIN:
        there = newest(run).iteration if run.exists() else -1
        if there >= LIMIT - 2:
            break
        words = begin(data, run) if there < 0 else ["-v", "resume", str(run)]
        kind = dice.choice(KINDS)
        patience = 60 if kind == "blip" else WATCHDOG
        with hosts.launch(*words, "--watchdog", patience, cwd=run.parent) as launch:
            launch.until(lambda: launch.over or launch.errors.count("saved checkpoint-") > 1)
            time.sleep(0.3 * dice.random())
            counts = added(counts, disturb(hosts, launch, kind, run, dice))
    if newest(run).iteration < LIMIT:
        with hosts.launch("-v", "resume", run, cwd=run.parent) as launch:
            done = launch.wait()
        assert done.code == 0 and not done.left, done
    found = differing(bits(newest(run)), wanted)
    assert not found, f"other bits than of one process: {found}"
    return counts + Counter({"chains": 1})


def disturb(hosts: Hosts, launch: Launch, kind: str, run: Path, dice: random.Random) -> Counter[str]:
    """Do something to it, wait for its end and look."""
    name, rank = dice.choice(NAMES), dice.randrange(len(NAMES))
    if rank not in launch.pids:
        launch.wait()
        return Counter({"ended before": 1})
    if kind == "blip":
        hosts.cut(name)
        time.sleep(3 * dice.random())
        hosts.mend(name)
        at = (run / "history.jsonl").read_bytes().count(b"\n")
        launch.until(lambda: launch.over or (run / "history.jsonl").read_bytes().count(b"\n") > at)
        launch.signal(signal.SIGTERM)
    elif kind == "cut":
        launch.began = time.monotonic()
        hosts.cut(name)
    else:
        launch.signal({"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "signal": signal.SIGTERM}[kind], rank)
    done = launch.wait()
    hosts.mend(name)
    what = f"{kind} {name if kind in ('cut', 'blip') else rank}: {done}"
    assert done.seconds < WATCHDOG + SOON and not done.left and "Abort(" not in done.errors, what
    ended = done.code == 0 and "cost J" in done.out
    if kind in ("cut", "stop"):
        assert ended or ("has waited" in done.errors and "Traceback" not in done.errors), what
    elif kind == "kill":
        assert ended or BANNER in done.out, what
    else:
        assert ended or (done.code == 143 and "gpubp: error" not in done.errors), what
    saved = [int(found) for found in re.findall(r"^saved checkpoint-(\d+)", done.errors, re.M)]
    assert newest(run).iteration >= max([0, *saved]), what
    return Counter({kind: 1, f"most seconds after a {kind}": round(done.seconds)})
