"""One task, all contenders, seed after seed.

The reference goes first: SciPy with its default history, for 400 evaluations. What it has reached after 100, 200 and
400 of them are the marks; everyone else goes on until the last mark is reached or the budget is used up. All of them
begin at the same Θ. Counts do not depend on the machine's mood, seconds do: contenders run in turn, the other way round
each time, and the shortest time to a mark counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from problems import Absent

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
    from gpubp.errors import GpubpError

    found = Match(task, marks, precision, "")
    contenders: dict[str, Contender] = {}
    for seed in seeds:
        ready = Ready(TASKS[task], seed, precision, threads)
        try:
            with one_thread():
                if not found.reference:
                    for name, entry in entries.items():
                        try:
                            contender = entry(ready)
                            gone(Counted(ready.objective, WARM), contender, ready.Theta)
                            contenders[name] = contender
                            found.notes[name] = contender.notes
                        except (Absent, GpubpError) as error:
                            found.absent[name] = str(error)
                    if not contenders:
                        raise Absent("nobody can take part: " + "; ".join(found.absent.values()))
                    found.reference, found.how = next(iter(contenders)), ready.how
                _seed(found, ready, seed, contenders, budget, turns, say)
        finally:
            ready.objective.close()
    return found


def _seed(
    found: Match, ready: Ready, seed: int, contenders: dict[str, Contender], budget: float, turns: int, say: Any
) -> None:
    last = found.marks[-1]
    outcomes: dict[str, Outcome] = {}
    for turn in range(turns):
        order = list(contenders)
        if turn % 2:
            order.reverse()
        for name in order:
            say(f"{found.task}, seed {seed}, turn {turn + 1} of {turns}: {name}")
            contender, goals = contenders[name], found.goals.get(seed)
            first = name == found.reference
            limit = last if first else budget * last
            f = Counted(ready.objective, limit, -float("inf") if first or goals is None else goals[-1], contender.ours)
            ending = gone(f, contender, ready.Theta)
            if goals is None:
                goals = found.goals[seed] = [f.best[min(mark, f.evaluations) - 1] for mark in found.marks]
            reached = [f.reached(goal) for goal in goals]
            now = [None if one is None else one[1] for one in reached]
            if name not in outcomes:
                passes = [None if one is None else one[0] for one in reached]
                outcomes[name] = Outcome(
                    name, seed, passes, now, f.evaluations, f.evaluations + max(f.asked, f.extra),
                    max(0.0, f.asked - f.extra) if contender.ours else 0.0, f.J, ready.score(f.Theta), ending,
                    [(k, f.passes[k - 1], f.best[k - 1]) for k in KEPT if k <= f.evaluations],
                )  # fmt: skip
            else:
                before = outcomes[name].seconds
                outcomes[name].seconds = [
                    a if b is None else b if a is None else min(a, b) for a, b in zip(before, now, strict=True)
                ]
    found.outcomes += outcomes.values()
