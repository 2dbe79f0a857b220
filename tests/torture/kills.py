"""Real runs are killed by kill −9 at random instants and resumed, a chain of ten kills at a time.

Two chains go on at once. The instants are drawn from the start-up, the first save, the midst of training, and the
moments in which `--overwrite` replaces another run; one process in twenty is a `python -m gpubp` of its own, the others
are forked. It is a loss if the newest sound checkpoint is older than the last acknowledged one (the line
`saved checkpoint-…`), if any checkpoint under its final name is not sound, if no run is there where one was, if a temp
file outlives the next start, or if the chain's end differs in any bit from an undisturbed run's.
"""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from forks import Child, forks
from room import added, bits, data_file, differing, new_folder, newest, temporary

from gpubp.errors import CheckpointError

WHAT = "kill −9 at random instants, then resume"
SHORT = 2

KILLS = 10  # in a chain
STARTUP = 0.25  # seconds: about what a start takes up to its first save
AT_ONCE = 2  # chains: a machine has two cores at least
LIMIT = 40  # iterations of a run
OPTIMIZERS = {"klbfgs": (), "lbfgs": (), "gd": ("--set", "learning_rate=0.5"), "adam": ()}


class Runs:
    """The undisturbed runs, each made when it is needed first."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.data = data_file(place / "data.h5")
        self._bits: dict[tuple[str, int], dict[str, Any]] = {}
        self._making = threading.Lock()

    def train(self, optimizer: str, seed: int, out: Path) -> list[str]:
        """The command that begins the run."""
        options = f"--hidden 4 --kernel numpy --threads 1 --tolerance 0 --iterations {LIMIT} --checkpoint-every 1it"
        begin = ["-v", "train", str(self.data), "--out", str(out), *options.split(), "--seed", str(seed)]
        return [*begin, "--optimizer", optimizer, *OPTIMIZERS[optimizer]]

    def folder(self, optimizer: str, seed: int) -> Path:
        """A run that nobody disturbs."""
        out = self.place / f"{optimizer}-{seed}"
        with self._making:
            if not out.exists():
                with forks().start(*self.train(optimizer, seed, out)) as child:
                    assert child.wait() == 0, child.says("the undisturbed run failed")
        return out

    def bits(self, optimizer: str, seed: int) -> dict[str, Any]:
        """Its end."""
        key = optimizer, seed
        if key not in self._bits:
            self._bits[key] = bits(newest(self.folder(*key)))
        return self._bits[key]


def rounds(place: Path, dice: random.Random) -> Iterator[Counter[str]]:
    runs = Runs(place)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        while True:
            with new_folder(place) as folder:
                chains = [Chain(runs, folder / f"run{i}", random.Random(dice.random())) for i in range(AT_ONCE)]
                list(threads.map(Chain.until_the_end, chains))
            yield added(*(chain.counts for chain in chains))


class Chain:
    """One run: begun, killed and resumed until it reaches its limit.

    Attributes:
        known: of each run that is known to be in the folder, by its seed, the last iteration that was acknowledged.
    """

    def __init__(self, runs: Runs, run: Path, dice: random.Random) -> None:
        self.runs, self.run, self.dice = runs, run, dice
        self.counts: Counter[str] = Counter()
        self.optimizer, self.seed = dice.choice(list(OPTIMIZERS)), dice.randrange(2)
        self.known: dict[int, int] = {}
        self.there = -1  # the seed of the run that was found last
        if dice.random() < 0.3:  # another run is there, to be replaced
            self.there = 1 - self.seed
            shutil.copytree(runs.folder(self.optimizer, self.there), run)
            self.known[self.there] = newest(run).iteration

    def until_the_end(self) -> None:
        for _ in range(KILLS):
            separate = self.dice.random() < 0.05
            start = forks().separate if separate else forks().start
            with start(*self.command()) as child:
                self.wait_and_kill(child)
            self.counts["kills"] += 1
            self.counts["of processes of their own"] += separate
            self.look(child)
        with forks().start(*self.command()) as child:
            code = child.wait()
            self.look(child)
            assert code == 0, child.says(f"the run does not go on to its end after {KILLS} kills")
        checkpoint = newest(self.run)
        assert checkpoint.job["seed"] == self.seed, child.says("the end is that of another run")
        unlike = differing(bits(checkpoint), self.runs.bits(self.optimizer, self.seed))
        assert not unlike, child.says(f"the end differs from the undisturbed run's in {unlike}")
        names = sorted(path.name for path in self.run.iterdir())
        alone = sorted(path.name for path in self.runs.folder(self.optimizer, self.seed).iterdir())
        assert names == alone, child.says(f"the folder holds {names}; an undisturbed run leaves {alone}")
        self.counts["chains equal to the bit"] += 1

    def command(self) -> list[str]:
        """What a person would do now."""
        if self.there == self.seed:
            return ["-v", "resume", str(self.run), "--threads", "1"]
        overwrite = ["--overwrite"] if self.there >= 0 else []
        return [*self.runs.train(self.optimizer, self.seed, self.run), *overwrite]

    def wait_and_kill(self, child: Child) -> None:
        """Kill it at an instant of the dice's choice."""
        dice, moment = self.dice, self.dice.choice(["start-up", "first save", "midst", "midst", "midst"])
        if moment == "start-up":
            time.sleep(dice.random() * STARTUP)
        elif moment == "first save":
            resumes = child.command[1] == "resume"
            child.line("^going on from" if resumes else "^network ")
            time.sleep(dice.random() * 0.02)
        else:
            child.line(r"^saved checkpoint-", count=dice.randint(1, 4))
            time.sleep(dice.random() * 0.02)
        self.counts[f"in the {moment}"] += not child.over
        if moment != "start-up" and not child.over:
            stale = temporary(self.run, but=child.pid) if child.saved >= 0 or "resume" in child.command else []
            assert not stale, child.says(f"temp files of dead trainers outlive the next start: {stale}")
            self.counts["restarts that left no temp file"] += 1
        child.send(9)
        child.wait()

    def look(self, child: Child) -> None:
        """Before anything else: what is there after the kill?"""
        assert child.code in (-9, 0), child.says("it ended by itself")
        acknowledged = child.saved
        self.counts["acknowledged"] += sum("saved checkpoint-" in line for line in child.lines)
        if acknowledged >= 0:
            assert acknowledged >= self.known.get(self.seed, -1), child.says("it began before what was acknowledged")
            self.known = {self.seed: acknowledged}  # a run that this one replaces may be gone from now on
        self.counts["temp files left by kills"] += len(temporary(self.run))
        try:
            checkpoint = newest(self.run)
        except CheckpointError as error:
            assert not self.known, child.says(f"{self.known} was acknowledged, and now {error}")
            self.there = -1
            return
        found = int(checkpoint.job["seed"])
        assert found in self.known or found == self.seed, child.says(f"a run of seed {found} is there")
        least = self.known.get(found, -1)
        assert checkpoint.iteration >= least, child.says(
            f"iteration {checkpoint.iteration} is there where {least} was acknowledged"
        )
        if found != self.seed:
            assert self.seed not in self.known, child.says("the replaced run is back")
        self.there = found
