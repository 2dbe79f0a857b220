"""Real runs are sent SIGTERM, SIGINT or SIGUSR1 at random instants, some of them a second Ctrl-C.

Once a run has said its first line its handlers are there, and it is a loss if it does not end with the signal's exit
code, if its report is not about the checkpoint that is there, or if there is a traceback. Before that a signal ends a
process as it always does; then it is a loss if a run that was there is not, or there is a traceback. After a second
Ctrl-C, which interrupts at once, everything that was acknowledged is to be there.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from forks import Child, forks
from room import added, data_file, new_folder, newest

from gpubp.errors import CheckpointError

WHAT = "signals at random instants: exit code, report and checkpoint agree"
SHORT = 4

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 75, signal.SIGHUP: 129}
SIZES = {"small": (120, 5), "large": (60_000, 40)}  # rows, columns: passes of a millisecond, and of many
STARTUP = 0.3  # seconds: about what a start takes up to its first iterations


def rounds(place: Path, dice: random.Random) -> Iterator[Counter[str]]:
    files = {name: data_file(place / f"{name}.h5", *size) for name, size in SIZES.items()}
    while True:
        with new_folder(place) as folder:
            yield signalled(folder / "run", files[dice.choice(list(files))], dice)


def signalled(run: Path, data: Path, dice: random.Random) -> Counter[str]:
    """Begin a run, stop it by a signal, go on with it, stop it again."""
    counts: Counter[str] = Counter()
    every = dice.choice(["1it", "100000it"])
    optimizer = dice.choice(["klbfgs", "gd", "gn"])
    begin = ["-v", "train", str(data), "--out", str(run), "--hidden", "4", "--threads", "1", "--kernel", "numpy"]
    begin += ["--iterations", "1000000", "--tolerance", "0", "--checkpoint-every", every, "--optimizer", optimizer]
    before = -1
    for _ in range(3):
        command = begin if before < 0 else ["-v", "resume", str(run), "--threads", "1"]
        start = forks().separate if dice.random() < 0.1 else forks().start
        with start(*command, "--json") as child:
            counts = added(counts, stop(run, child, before, dice))
        try:
            before = newest(run).iteration
        except CheckpointError as error:
            assert before < 0, child.says(f"iteration {before} was there, and now {error}")
    return counts


def stop(run: Path, child: Child, before: int, dice: random.Random) -> Counter[str]:
    """Send a signal, wait for the end and look."""
    number = dice.choice(list(CODES))
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as under nohup: then a run ignores it too
        number = signal.SIGTERM if number == signal.SIGHUP else number
    name = signal.Signals(number).name
    again = number == signal.SIGINT and dice.random() < 0.3
    if dice.random() < 0.4:
        time.sleep(dice.random() * STARTUP)
    else:
        child.line("^saved checkpoint-" if before < 0 else "^going on from")
        time.sleep(dice.random() * 0.1)
    over, installed = child.over, bool(child.read() or child.lines)
    child.send(number)
    began = time.monotonic()
    if again:
        time.sleep(dice.random() * 0.03)
        child.send(number)
    try:
        code = child.wait()
    except AssertionError as error:
        first = " / ".join(line for line in child.lines if not line.startswith("saved "))
        raise AssertionError(f"{name}{' twice' * again}, installed {installed}, {first}: {error}") from None
    seconds = time.monotonic() - began
    counts = Counter({"signals": 1, name: 1})
    # A KeyboardInterrupt that is raised in a callback of Python's own, a weakref's say, is printed and swallowed: the
    # run then ends by the first Ctrl-C. The handler's raising is to blame, and counted until it does so no more.
    swallowed = number == signal.SIGINT and any(line.startswith("Exception ignored in") for line in child.lines)
    counts["second Ctrl-C swallowed by Python"] += swallowed
    # so early that Python itself was still beginning
    early = not installed and not child.output and code in (-number, 130) and "_main.py" not in " ".join(child.lines)
    traced = any("Traceback" in line for line in child.lines) and not swallowed and not early
    assert not traced, child.says(f"a traceback after {name}")
    if over:  # of its own accord: rounding is all that was left, say
        assert code == 0, child.says("it ended by itself")
        return Counter({"runs that had ended before": 1})
    if not installed and not child.output and code in (-number, 130):
        return counts + Counter({"before there were handlers": 1})
    interrupted = code == CODES[number] and not child.output
    if again and interrupted:
        assert "gpubp: interrupted" in child.lines, child.says("a second Ctrl-C without a word")
        least = max(before, child.saved)
        there = newest(run).iteration if least >= 0 else 0
        assert there >= least, child.says(f"iteration {there} is there where {least} was")
        return counts + Counter({"second Ctrl-C at once": 1})
    if not child.output and any(f"stopped by {name} while the data were read" in line for line in child.lines):
        assert code == CODES[number], child.says(f"exit code {code} after {name}, wanted {CODES[number]}")
        assert (newest(run).iteration if before >= 0 else -1) == before, child.says("the run is not as it was")
        return counts + Counter({"in the first reading": 1})
    report = json.loads(child.output)
    if code == 0 and report["ending"] in ("converged", "stalled"):
        return Counter({"runs that had ended before": 1})
    assert code == CODES[number], child.says(f"exit code {code} after {name}, wanted {CODES[number]}")
    assert report["ending"] == "stopped" and f"stopped by {name}" in report["reason"], child.says("another reason")
    if "before the first evaluation" in report["reason"]:
        assert before < 0 and child.saved < 0, child.says("it had been further")
        return counts + Counter({"before the first evaluation": 1})
    checkpoint = newest(run)
    assert checkpoint.iteration == report["iterations"] >= max(before, child.saved), child.says(
        f"iteration {checkpoint.iteration} is there, where {max(before, child.saved)} was, and the report says "
        f"{report['iterations']}"
    )
    assert checkpoint.ending is not None and checkpoint.ending["reason"] == report["reason"], child.says("another end")
    row = dict(zip(checkpoint.history_columns, checkpoint.history[-1], strict=True)) if len(checkpoint.history) else {}
    a_pass = row["seconds"] / row["passes"] if row else 0.0
    late = max(0, round(1000 * (seconds - a_pass)))
    return counts + Counter({"stopped and saved": 1, "most ms from the signal to the exit, but for a pass": late})
