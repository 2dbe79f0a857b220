"""Two or three trainers are let go on one folder at the same moment.

They are processes that wait at a pipe until it is closed: two that begin a run, two that go on with one, one that goes
on and one that overwrites. It is a loss unless exactly one trains: the others end with exit code 3 and a line that says
who uses the folder, or what it holds where the winner was there long before. What the winner leaves must be what it
leaves alone: the same files, its name in the lock, each line of the history once, and the bits of the undisturbed run.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from forks import TIMEOUT, Child, forks
from resumes import history
from room import bits, data_file, differing, new_folder, newest, temporary

WHAT = "trainers at once on one folder: one trains, the others change nothing"
SHORT = 4

FIRST, LIMIT = 4, 30  # iterations of a run to go on with, and of a whole one
SEEDS = 0, 1  # of a run that is there, and of one that overwrites it
KINDS = {
    "train and train": ["train", "train"],
    "resume and resume": ["resume", "resume"],
    "resume and overwrite": ["resume", "overwrite"],
    "overwrite and overwrite": ["overwrite", "overwrite"],
}


def rounds(place: Path, dice: random.Random) -> Iterator[Counter[str]]:
    data = data_file(place / "data.h5")
    half, whole = place / "half", {}
    with forks().start(*train(data, half, SEEDS[0], FIRST)) as child:
        assert child.wait() == 0, child.says("the run to go on with failed")
    for seed in SEEDS:
        whole[seed] = place / f"whole-{seed}"
        with forks().start(*train(data, whole[seed], seed, LIMIT)) as child:
            assert child.wait() == 0, child.says("the undisturbed run failed")
    while True:
        with new_folder(place) as folder:
            yield race(folder / "run", data, half, whole, dice)


def train(data: Path, run: Path, seed: int, limit: int) -> list[str]:
    options = "--hidden 4 --kernel numpy --threads 1 --tolerance 0 --checkpoint-every 1it --optimizer gd"
    return f"-v train {data} --out {run} --seed {seed} --iterations {limit} {options}".split()


def race(run: Path, data: Path, half: Path, whole: dict[int, Path], dice: random.Random) -> Counter[str]:
    kind = dice.choice(list(KINDS))
    entrants = KINDS[kind] + ([dice.choice(KINDS[kind])] if dice.random() < 0.25 else [])
    dice.shuffle(entrants)
    if "train" not in entrants:
        shutil.copytree(half, run)
    commands = {
        "train": train(data, run, SEEDS[0], LIMIT),
        "resume": f"-v resume {run} --iterations {LIMIT} --threads 1".split(),
        "overwrite": [*train(data, run, SEEDS[1], LIMIT), "--overwrite"],
    }
    reading, gun = os.pipe()
    with ExitStack() as stack:
        children = [stack.enter_context(forks().start(*commands[what], barrier=reading)) for what in entrants]
        os.close(reading)
        time.sleep(0.005)  # they stand at the pipe
        os.close(gun)
        winner = the_one_that_trains(run, children)
        time.sleep(dice.random() * 0.05)
        winner.send(signal.SIGSTOP)  # or a loser that is slow might find it done, and rightly go on
        others = [child for child in children if child is not winner]
        for child in others:
            child.wait()
        told = Counter(look_at_loser(child, winner) for child in others)
        winner.send(signal.SIGCONT)
        held = (run / "lock").read_text()
        assert held.startswith(f"gpubp process {winner.pid} on "), winner.says(f"the lock says {held!r}")
        assert winner.wait() == 0, winner.says("the winner failed")
        what = entrants[children.index(winner)]
        look_at_folder(run, winner, whole[SEEDS[1] if what == "overwrite" else SEEDS[0]])
    return Counter({"races": 1, f"of {len(children)}": 1, kind: 1}) + told


def the_one_that_trains(run: Path, children: list[Child]) -> Child:
    """Wait until the lock has the name of one of them."""
    until = time.monotonic() + TIMEOUT
    while time.monotonic() < until:
        with suppress(FileNotFoundError):
            held = (run / "lock").read_text()
            for child in children:
                if f"process {child.pid} on" in held:
                    return child
        assert not all(child.over for child in children), "\n".join(child.says("none trains") for child in children)
        time.sleep(0.001)
    raise AssertionError("\n".join(child.says("none has the lock") for child in children))


def look_at_loser(child: Child, winner: Child) -> str:
    """What it was told: who uses the folder, or that a run is there."""
    assert child.code == 3 and child.saved < 0, child.says("the loser")
    said = [line for line in child.lines if line.startswith("gpubp: error: ")]
    assert len(said) == 1 and "Traceback" not in "".join(child.lines), child.says("not one line")
    if f"is in use by process {winner.pid} on " in said[0]:
        return "told in use by the winner"
    if "is in use by " in said[0]:  # the winner has the lock and has not written its name into it yet
        return "told in use, without its name"
    begins = child.command[1] == "train" and "--overwrite" not in child.command
    assert begins and " holds checkpoint-" in said[0], child.says(f"not about process {winner.pid}")
    return "told what it holds"


def look_at_folder(run: Path, winner: Child, alone: Path) -> None:
    """The folder as the winner alone would have left it."""
    assert not temporary(run), winner.says(f"temp files: {temporary(run)}")
    names, wanted = (sorted(path.name for path in folder.iterdir()) for folder in (run, alone))
    assert names == wanted, winner.says(f"the folder holds {names}; alone it leaves {wanted}")
    unlike = differing(bits(newest(run)), bits(newest(alone)))
    assert not unlike, winner.says(f"it differs from the run alone in {unlike}")
    assert history(run) == history(alone), winner.says("history.jsonl is not that of the run alone")
