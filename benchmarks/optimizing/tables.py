"""What was found: a table for each task, one over all of them, a record."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from report import table

from .match import Match, Outcome
from .tasks import TASKS

Value = Callable[[Outcome, int], "float | None"]  # of the mark of that number

PEERS = ("scipy", "torch10")  # against whom ratios are given
ALL_PEERS = (*PEERS, "scipy-equal", "optax", "sklearn-own", "torch10-own", "optax-own")  # in the tables over all tasks


def _passes(outcome: Outcome, mark: int) -> float | None:
    return outcome.passes[mark]


def _seconds(outcome: Outcome, mark: int) -> float | None:
    return outcome.seconds[mark]


def ratios(matches: Sequence[Match], name: str, peer: str, mark: int, value: Value) -> dict[tuple[str, int], float]:
    """How many times more the peer took than this one, to a mark, for each task and seed.

    0 where this one did not reach it. A peer that did not reach it took what it had spent, at least.
    """
    found = {}
    for match in matches:
        by = {(one.name, one.seed): one for one in match.outcomes}
        for seed in match.goals:
            ours, theirs = by.get((name, seed)), by.get((peer, seed))
            if ours is None or theirs is None:
                continue
            a, b = value(ours, mark), value(theirs, mark)
            if b is None:
                if value is _seconds:
                    continue  # nothing is known of the seconds that it would have taken
                b = theirs.spent
            found[match.task, seed] = 0.0 if a is None else b / a
    return found


def text(match: Match) -> str:
    """The table of one task, in Markdown."""
    task = TASKS[match.task]
    layers = "-".join(map(str, task.layers))
    lines = [
        f"### {match.task}: {task.about}, {layers} {task.activation} {task.cost}, λ = {task.lambda_:g}, "
        f"{match.precision}, {len(match.goals)} seed{'s' if len(match.goals) > 1 else ''}",
        "",
        f"Medians over the seeds; marks are {match.reference}'s costs after {', '.join(map(str, match.marks))} "
        f"evaluations. {match.how}.",
        "",
    ]
    names = list(dict.fromkeys(one.name for one in match.outcomes))
    rows = []
    for name in names:
        own = [one for one in match.outcomes if one.name == name]
        row = [name]
        for k in range(len(match.marks)):
            row.append(_middle([one.passes[k] for one in own], ".0f"))
        for k in range(len(match.marks)):
            row.append(_middle([one.seconds[k] for one in own], ".2f"))
        middle = len(match.marks) // 2
        for value in (_passes, _seconds):
            for peer in PEERS:
                row.append(_spread(list(ratios([match], name, peer, middle, value).values())))
        row += [_score(median(one.score for one in own), task.cost), f"{median(one.J for one in own):.6g}"]
        rows.append(row)
    at = match.marks[len(match.marks) // 2]
    head = ["", *(f"passes {m}" for m in match.marks), *(f"s {m}" for m in match.marks)]
    head += [f"{what} {peer} ÷" for what in (f"passes {at}:", f"s {at}:") for peer in PEERS]
    head += ["held-out " + ("MSE" if task.cost == "squares" else "%"), "last J"]
    lines += [*table(head, rows), "", "Ratios are median (worst): the peer's over the contender's, so more is better."]
    lines += _remarks(match)
    return "\n".join(lines)


def _remarks(match: Match) -> list[str]:
    lines = [f"- {name}: absent, {reason}" for name, reason in match.absent.items()]
    early = [one for one in match.outcomes if one.ending not in ("goal", "budget")]
    lines += [f"- {one.name}, seed {one.seed}: {one.ending}, after {one.evaluations} evaluations" for one in early]
    lines += [
        f"- **{one.name}, seed {one.seed}: charged itself {one.undercharged:.2f} passes less than it asked for**"
        for one in match.outcomes
        if one.undercharged > 1e-6
    ]
    return ["", *lines] if lines else []


def overall(matches: Sequence[Match]) -> str:
    """One table over all tasks and seeds: how many times fewer passes and seconds than each peer, at each mark."""
    names = list(dict.fromkeys(one.name for match in matches for one in match.outcomes))
    marks = matches[0].marks
    lines = [f"### All: {', '.join(match.task for match in matches)}", ""]
    for what, value in (("passes", _passes), ("seconds", _seconds)):
        for peer in ALL_PEERS:
            if peer not in names:
                continue
            rows = []
            for name in names:
                cells = [_worst(ratios(matches, name, peer, k, value)) for k in range(len(marks))]
                rows.append([name, *(cell for pair in cells for cell in pair)])
            head = [f"{what} of {peer} ÷", *(cell for m in marks for cell in (f"{m}: median", "worst"))]
            lines += [*table(head, rows), ""]
    return "\n".join(lines).rstrip()


def content(matches: Sequence[Match]) -> dict[str, Any]:
    """Everything, for the record."""
    names = list(dict.fromkeys(one.name for match in matches for one in match.outcomes))
    summary: dict[str, Any] = {}
    for what, value in (("passes", _passes), ("seconds", _seconds)):
        for peer in ALL_PEERS:
            for name in names:
                for k, mark in enumerate(matches[0].marks):
                    found = ratios(matches, name, peer, k, value)
                    if found and name != peer:
                        place = summary.setdefault(name, {}).setdefault(f"{what} of {peer}", {})
                        place[str(mark)] = {"median": median(found.values()), "worst": min(found.values())}
    return {"summary": summary, "matches": [asdict(match) for match in matches]}


def _middle(values: Sequence[float | None], form: str) -> str:
    """The median, those that did not come in counted as infinite."""
    found = median(math.inf if one is None else one for one in values)
    return format(found, form) if math.isfinite(found) else "–"


def _spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f})" if values else ""


def _worst(found: dict[tuple[str, int], float]) -> tuple[str, str]:
    if not found:
        return "", ""
    task, seed = min(found, key=lambda key: found[key])
    return f"{median(found.values()):.2f}", f"{found[task, seed]:.2f} {task} {seed}"


def _score(score: float, cost: str) -> str:
    return f"{score:.4f}" if cost == "squares" else f"{100 * score:.2f}"
