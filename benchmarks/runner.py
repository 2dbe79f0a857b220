"""A contender in a process of its own, and how its driver talks to it.

Worker threads of two BLAS or OpenMP libraries in one process spin against each other (6 ms a call were seen), so each
contender has its own. It builds the same data from the seed, answers once so that the answer can be checked, and waits.

**A turn is passes back to back.** In training a pass follows a pass. One evaluation after a pause measures how cores
wake up and caches fill instead (2.5 ms against 1.1 ms at shape A), so a turn evaluates once unrecorded and then for a
fifth of a second or more, at least twice; its figure is the median of those.

Driver and worker talk in lines of JSON: the worker is this program with `--worker {…}`, a word asks for a turn.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from contenders import CONTENDERS
from problems import Absent, Shape, flat, make

ROOT = Path(__file__).parent.parent
SILENCE = 900.0  # seconds without a word after which a worker is given up
NOISE = 0.15  # cores busy with other work, beyond which a figure is no good
_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def environment_for(threads: int) -> dict[str, str]:
    """What a worker is started with: every library's threads counted, none told which processor it has."""
    kept = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    return kept | dict.fromkeys(_POOLS, str(threads))


@dataclass(frozen=True)
class Pace:
    """How long and how often.

    Attributes:
        rounds: turns of each contender.
        least: seconds that the evaluations of a turn take together.
        pause: seconds before each turn, in which the spinning threads of the last contender fall asleep.
        patience: seconds that a turn may be put off, pause by pause, while the cores have other work.
    """

    rounds: int = 7
    least: float = 0.2
    pause: float = 0.25
    patience: float = 5.0

    def rest(self) -> None:
        """The pause before a turn."""
        began = now = time.perf_counter()
        while True:
            busy, since = _busy(), now
            time.sleep(self.pause)
            now = time.perf_counter()
            if _busy() - busy <= NOISE * (now - since) or now - began > self.patience:
                return


@dataclass
class Result:
    """What was measured of one contender.

    Attributes:
        rows: of a chunk, 0 for the whole batch.
        setup_s, first_s: imports and preparation; the first evaluation, which compiles where something does.
        memory_mb: the most resident memory above what it was with the data alone; libraries are counted.
        J_error, gradient_error: relative, against float64; the gradient's is ‖g − ref‖/‖ref‖.
        turns: the median seconds of each turn.
        evaluations, cores, others: of each turn; how many cores the contender had, and how many were busy elsewhere.
        products: for the limit, each product's seconds in each turn.
    """

    name: str
    kind: str
    rows: int = 0
    setup_s: float = 0.0
    first_s: float = 0.0
    memory_mb: float = 0.0
    J_error: float | None = None
    gradient_error: float | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    turns: list[float] = field(default_factory=list)
    evaluations: list[int] = field(default_factory=list)
    cores: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    products: dict[str, list[float]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """The median of the turns."""
        return float(np.median(self.turns))

    @property
    def spread(self) -> float:
        """The distance between the quartiles over the median."""
        low, high = np.percentile(self.turns, (25, 75))
        return float(high - low) / self.seconds

    @property
    def title(self) -> str:
        return f"{self.name} of {self.rows:,}" if self.rows else self.name


class Dropped(Exception):
    """A contender that does not run: `skipped` says that it cannot here, otherwise something is wrong with it."""

    def __init__(self, reason: str, skipped: bool = False) -> None:
        super().__init__(reason)
        self.skipped = skipped


class Runner:
    """The driver's end of one contender."""

    def __init__(self, name: str, shape: Shape, threads: int, rows: int = 0) -> None:
        contender = CONTENDERS[name]
        self.result = Result(name, contender.kind, rows)
        job = {"name": name, "shape": asdict(shape), "threads": threads, "rows": rows or shape.m}
        environment = environment_for(1 if contender.alone else threads)
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("cpu.py")), "--worker", json.dumps(job)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._complaints, text=True, env=environment,
        )  # fmt: skip

    def begin(self) -> None:
        """Wait until it is built and has evaluated once.

        Raises:
            Dropped: it cannot take part, or failed.
        """
        self._note(self._listen())

    def check(self, J: float, gradient: str) -> None:
        """Have it compare its answer with the reference, whose gradient lies in the file `gradient`."""
        self._note(self.ask(f"check {J!r} {gradient}"))

    def turn(self, pace: Pace) -> None:
        """Passes back to back; the result grows by one turn."""
        pace.rest()
        got, result = self.ask(f"turn {pace.least}"), self.result
        result.turns.append(got["seconds"])
        result.evaluations.append(got["evaluations"])
        result.cores.append(got["cores"])
        result.others.append(got["others"])
        for product, seconds in got["products"].items():
            result.products.setdefault(product, []).append(seconds)

    def ask(self, words: str) -> dict[str, Any]:
        """Say these words and wait for the answer."""
        assert self._process.stdin
        with suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write(words + "\n")
            self._process.stdin.flush()
        return self._listen()

    def close(self) -> None:
        """End the process; a second time nothing happens."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._complaints):
            with suppress(OSError):  # what was said last may never have been read
                assert stream
                stream.close()

    def _note(self, got: dict[str, Any]) -> None:
        for name, value in got.items():
            setattr(self.result, name, value)

    def _listen(self) -> dict[str, Any]:
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], SILENCE)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            self._complaints.seek(0)
            last = (self._complaints.read().strip() or "no word of it").splitlines()[-1]
            raise Dropped(f"ended without an answer: {last}" if ready else f"silent for {SILENCE:g} s")
        got = json.loads(line)
        if "absent" in got:
            raise Dropped(got["absent"], skipped=True)
        return got


def serve(text: str) -> None:
    """Be the contender that `text` describes: build it, then do what each line of stdin asks for, until it ends."""
    talk = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not come between the answers

    def say(**words: Any) -> None:
        talk.write(json.dumps(words) + "\n")

    job = json.loads(text)
    if hasattr(os, "sched_setaffinity"):  # some libraries count cores and not what they are told
        mine = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, mine[: job["threads"]])
    sys.path.insert(0, str(ROOT))
    problem = make(Shape(**{**job["shape"], "layers": tuple(job["shape"]["layers"])}))
    before = _reset_peak()
    began = time.perf_counter()
    try:
        built = CONTENDERS[job["name"]].build(problem, job["threads"], job["rows"])
    except ModuleNotFoundError as error:
        return say(absent=f"{error.name} is not installed")
    except Absent as error:
        return say(absent=str(error))
    ready = time.perf_counter()
    value = built.evaluate()
    first = time.perf_counter() - ready
    say(setup_s=ready - began, first_s=first, notes=built.notes or {})
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "turn":
            say(**_turn(built.evaluate, float(rest[0])))
            continue
        value = built.evaluate()
        found: dict[str, Any] = {"memory_mb": (_memory("VmHWM") - before) / 1e6}
        if built.answer:
            J, gradient = built.answer(value)
            expected = np.load(rest[1])
            error = np.linalg.norm(flat(gradient) - expected) / np.linalg.norm(expected)
            found |= {"J_error": abs(J / float(rest[0]) - 1), "gradient_error": float(error)}
        say(**found)


def _turn(evaluate: Callable[[], Any], least: float) -> dict[str, Any]:
    evaluate()
    seconds: list[float] = []
    products: dict[str, list[float]] = {}
    busy, cpu, began = _busy(), time.process_time(), time.perf_counter()
    end = began
    while len(seconds) < 2 or end - began < least:
        start, value = time.perf_counter(), evaluate()
        end = time.perf_counter()
        seconds.append(end - start)
        if isinstance(value, dict):
            for name, took in value.items():
                products.setdefault(name, []).append(took)
    cores = (time.process_time() - cpu) / (end - began)
    return {
        "seconds": float(np.median(seconds)),
        "evaluations": len(seconds),
        "cores": cores,
        "others": max(0.0, (_busy() - busy) / (end - began) - cores),
        "products": {name: float(np.median(took)) for name, took in products.items()},
    }


def _busy() -> float:
    """Seconds that the cores this process may use were busy, or taken by the machine's host, since it started."""
    ticks = 0
    with suppress(OSError), open("/proc/stat") as file:
        names = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        for name, *counts in map(str.split, file):
            if name in names:
                user, nice, system, _idle, _waiting, interrupts, soft, steal = map(int, counts[:8])
                ticks += user + nice + system + interrupts + soft + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def _reset_peak() -> int:
    """Forget the peak of resident memory so far; the bytes resident now."""
    with suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return _memory("VmRSS")


def _memory(name: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))
