"""One task, all contenders, seed after seed.

The reference goes first: SciPy with its default history, for 400 evaluations. What it has reached after 100, 200 and
400 of them are the marks; everyone else goes on until the last mark is reached or the budget is used up. All of them
begin at the same Θ. Counts do not depend on the machine's mood, seconds do: contenders run in turn, the other way round
each time, and the shortest time to a mark counts.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from problems import Absent
from runner import ROOT, SILENCE, environment_for

from .contenders import Contender, gone
from .counting import Counted
from .tasks import TASKS, Ready

MARKS = (100, 200, 400)
WARM = 4.0  # passes of a run that is not recorded, in which libraries are loaded and steps compiled
# evaluations at which the record keeps the lowest J
KEPT = sorted({round(10 ** (n / 10)) for n in range(36)})


@dataclass
class Outcome:
    """What one contender did with one seed.

    Attributes:
        passes, seconds: to each mark, None where it was not reached.
        evaluations, spent: evaluations, and all passes charged, in the whole run; `undercharged`, passes that
            curvature was asked for and the optimizer did not charge itself.
        J: the lowest; `score`, of the Θ there, on the held-out rows.
        ending: why the run ended.
        curve: (evaluations, passes, lowest J) here and there.
    """

    name: str
    seed: int
    passes: list[float | None] = field(default_factory=list)
    seconds: list[float | None] = field(default_factory=list)
    evaluations: int = 0
    spent: float = 0.0
    undercharged: float = 0.0
    J: float = 0.0
    score: float = 0.0
    ending: str = ""
    curve: list[tuple[int, float, float]] = field(default_factory=list)


@dataclass
class Match:
    """Everything that was found about one task.

    Attributes:
        goals: for each seed, the costs that the reference has after each of `marks` evaluations.
        reference: who that was.
        absent: who cannot take part, and why.
        how: how J was computed.
    """

    task: str
    marks: tuple[int, ...]
    precision: str
    reference: str
    how: str = ""
    goals: dict[int, list[float]] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


Entry = Callable[[Ready], Contender]  # a contender for this task; may raise Absent or one of gpubp's errors


def play(
    task: str,
    seeds: Sequence[int],
    entries: dict[str, Entry],
    *,
    marks: tuple[int, ...] = MARKS,
    budget: float = 1.5,
    turns: int = 1,
    precision: str = "fp64",
    threads: int = 2,
    say: Callable[[str], None] = lambda text: None,
) -> Match:
    """Let all of them go, on each seed.

    Args:
        entries: by name; the first that can take part is the reference.
        budget: passes, in parts of the last mark, after which a contender that has not reached it is stopped.

    Raises:
        Absent: the data are not to be had, or nobody can take part.
    """
    from gpubp.backend.blas import one_thread

    found = Match(task, marks, precision, "")
    for seed in seeds:
        ready = Ready(TASKS[task], seed, precision, threads)
        try:
            with one_thread():
                contenders = _present(found, ready, entries, say)
                found.reference, found.how = next(iter(contenders)), ready.how
                _seed(found, ready, seed, contenders, budget, turns, say)
        finally:
            ready.objective.close()
    return found


def _present(found: Match, ready: Ready, entries: dict[str, Entry], say: Any) -> dict[str, Contender]:
    """Those who can take part, warm."""
    from gpubp.errors import GpubpError

    contenders: dict[str, Contender] = {}
    for name, entry in entries.items():
        if name in found.absent:
            continue
        say(f"{found.task}: {name} warms up")
        try:
            contenders[name] = contender = entry(ready)
            if not contender.alone:
                gone(Counted(ready.objective, WARM, obedient=contender.ours), contender, ready.Theta)
            found.notes[name] = contender.notes
        except (Absent, GpubpError) as error:
            contenders.pop(name, None)
            found.absent[name] = str(error)
    if not contenders:
        raise Absent("nobody can take part: " + "; ".join(found.absent.values()))
    return contenders


def _seed(
    found: Match, ready: Ready, seed: int, contenders: dict[str, Contender], budget: float, turns: int, say: Any
) -> None:
    last = found.marks[-1]
    outcomes: dict[str, Outcome] = {}
    for turn in range(turns):
        for name in list(contenders) if turn % 2 == 0 else list(contenders)[::-1]:
            say(f"{found.task}, seed {seed}, turn {turn + 1} of {turns}: {name}")
            contender, goals = contenders[name], found.goals.get(seed)
            limit = last if name == found.reference else budget * last
            try:
                if contender.alone:
                    one = _elsewhere(found, name, seed, ready.objective.threads, limit)
                else:
                    one, f = measured(ready, contender, seed, limit, goals, name == found.reference)
                    if goals is None:
                        found.goals[seed] = [f.best[min(mark, f.evaluations) - 1] for mark in found.marks]
                        _mark(one, f, found.goals[seed])
            except Absent as reason:
                found.absent[name] = str(reason)
                del contenders[name]
                continue
            if name in outcomes:
                pairs = zip(outcomes[name].seconds, one.seconds, strict=True)
                one.seconds = [a if b is None else b if a is None else min(a, b) for a, b in pairs]
            outcomes[name] = one
    found.outcomes += outcomes.values()


def measured(
    ready: Ready, contender: Contender, seed: int, limit: float, goals: list[float] | None, on: bool = False
) -> tuple[Outcome, Counted]:
    """One run, until the last of the goals is reached, unless it is to go on, or so many passes are spent."""
    goal = -math.inf if on or goals is None else goals[-1]
    f = Counted(ready.objective, limit, goal, contender.ours)
    ending = gone(f, contender, ready.Theta)
    charged = max(f.asked, f.extra)
    one = Outcome(
        contender.name, seed, [], [], f.evaluations, f.evaluations + charged, charged - f.extra,
        f.J, ready.score(f.Theta), ending, [(k, f.passes[k - 1], f.best[k - 1]) for k in KEPT if k <= f.evaluations],
    )  # fmt: skip
    _mark(one, f, goals or [])
    return one, f


def _mark(one: Outcome, f: Counted, goals: list[float]) -> None:
    reached = [f.reached(goal) for goal in goals]
    one.passes = [None if at is None else at[0] for at in reached]
    one.seconds = [None if at is None else at[1] for at in reached]


def _elsewhere(found: Match, name: str, seed: int, threads: int, limit: float) -> Outcome:
    """One run in a process of its own: worker threads of two libraries in one process spin against each other.

    Raises:
        Absent: it cannot take part, or did not end well.
    """
    job = {"task": found.task, "name": name, "seed": seed, "limit": limit, "goals": found.goals[seed]}
    job |= {"precision": found.precision, "threads": threads}
    try:
        done = subprocess.run(
            [sys.executable, str(ROOT / "benchmarks" / "optimizers.py"), "--worker", json.dumps(job)],
            capture_output=True, text=True, env=environment_for(threads), timeout=SILENCE,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise Absent(f"silent for {SILENCE:g} s") from error
    if done.returncode:
        raise Absent("ended without an answer: " + (done.stderr.strip() or "no word of it").splitlines()[-1])
    got = json.loads(done.stdout.splitlines()[-1])
    if "absent" in got:
        raise Absent(got["absent"])
    return Outcome(**got)


def serve(text: str, make: Callable[[str, Ready, int], Contender]) -> None:
    """Be the contender that `text` describes: warm up, run once, and print what was found as JSON."""
    job = json.loads(text)
    if hasattr(os, "sched_setaffinity"):  # some libraries count cores and not what they are told
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["threads"]])
    ready = Ready(TASKS[job["task"]], job["seed"], job["precision"], job["threads"])
    try:
        contender = make(job["name"], ready, job["threads"])
    except Absent as error:
        return print(json.dumps({"absent": str(error)}))
    gone(Counted(ready.objective, WARM), contender, ready.Theta)
    one, _ = measured(ready, contender, job["seed"], job["limit"], job["goals"])
    print(json.dumps(asdict(one)))
