"""The verdict: what the run is, how it ended, how good it is on which rows, and what to do next, in sentences."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..choosing.next_step import train_line
from ..choosing.verdict import SMALL, WIDE, kind_of
from .chosen import Judged
from .measures import Quality
from .runs import Run


@dataclass(frozen=True)
class Said:
    """A verdict.

    Attributes:
        kind: as `gpubp.choosing.verdict.kind_of` says, "unknown" where costs cannot be compared.
        what, ended, good: a sentence each; `good` is "" without rows to judge by.
        because: what the kind rests on; "" where it is unknown.
        next: what to do, a sentence each, some with a command.
    """

    kind: str
    what: str
    ended: str
    good: str
    because: str
    next: tuple[tuple[str, str], ...]

    @property
    def sentences(self) -> list[str]:
        """All of it, one after the other."""
        return [one for one in (self.what, self.ended, self.good, self.because) if one] + [
            text + (f": {command}" if command else ".") for text, command in self.next
        ]


@dataclass(frozen=True)
class Trained:
    """What is known of the rows of the training.

    Attributes:
        rows: of a pass, those held out counted; None where the files cannot be looked at.
        training: those that were learned from.
        weight_sum: Σw over these; None where it is not known.
        why_not: why they are not known.
        bytes_: whether x is stored as bytes, as pixels are.
    """

    rows: int | None = None
    training: int | None = None
    weight_sum: float | None = None
    why_not: str = ""
    bytes_: bool = False


def say(
    run: Run, trained: Trained, judged: Judged | None, quality: Quality | None, cost: float | None, program: str
) -> Said:
    """The verdict.

    Args:
        cost: the training cost without the λ term, None where it is not known.
    """
    kind = "unknown"
    if quality and cost is not None and judged and judged.kind != "training":
        kind = kind_of(cost, quality.cost, quality.cost_se, quality.constant)
    return Said(
        kind, _what(run, trained), _ended(run), _good(run, judged, quality),
        _because(kind, cost, quality, judged), tuple(_next(run, judged, quality, kind, program)),
    )  # fmt: skip


def _what(run: Run, trained: Trained) -> str:
    network, job = run.model.network, run.job
    of = ""
    if job.files:
        of = f" of {os.path.basename(job.files[0])}" + (f" and {len(job.files) - 1} more" if len(job.files) > 1 else "")
    on = f"{trained.training:,} rows{of}" if trained.training is not None else f"rows{of}" if of else "arrays"
    hidden = f"{network.activation} units and " if network.L > 2 else ""
    return (
        f"A {'-'.join(map(str, network.sizes))} network with {hidden}{network.cost} cost at λ = {run.model.lambda_:g}, "
        f"trained by {job.optimizer} on {on}."
    )


def _ended(run: Run) -> str:
    last = run.history[-1] if run.history else None
    work = f" after {last['iteration']:,} iterations and {last['passes']:,.0f} passes" if last else ""
    if run.model.ending is None:
        where = f"it has made {last['iteration']:,} iterations" if last else "it has made no iteration"
        return f"Its end is not recorded: it is at work, or was interrupted; {where} so far."
    reason = run.model.ending["reason"].rstrip(".").removeprefix("failed: ")
    word = {"failed": "It failed", "stopped": "It was stopped"}.get(run.model.ending["kind"], "It ended")
    return f"{word}{work}: {reason}."


def _good(run: Run, judged: Judged | None, quality: Quality | None) -> str:
    if judged is None or quality is None:
        return ""
    seen = {
        "training": "These are the rows it was trained on: how good it is on others they do not tell.",
        "validation": "It has not learned from these rows"
        + (", but they decided when it ended." if judged.decided else "."),
        "test": "It has never seen these rows.",
    }.get(judged.kind, "")
    behind = bool(run.history) and run.history[-1]["iteration"] > run.iteration
    head = f"The newest checkpoint is of iteration {run.iteration:,}. On" if behind else "On"
    return f"{head} {judged.what}, {figures(quality)}. {seen}".strip()


def figures(quality: Quality) -> str:
    """The few figures that say most: "93.14 % are right; the cost is 0.4557"."""
    if quality.answers:
        right = "labels" if quality.answers.kind == "multilabel" else "answers"
        head = f"{100 * quality.answers.accuracy:.2f} % of its {right} are right"
        if quality.answers.exact is not None:
            head += f" (all labels of a row: {100 * quality.answers.exact:.2f} %)"
    else:
        assert quality.numbers is not None
        r2 = quality.numbers.r2
        head = f"its RMSE is {quality.numbers.rmse:.4g}" + (f" and R² = {r2:.4f}" if r2 is not None else "")
    share = 100 * quality.cost / quality.constant if quality.constant else math.nan
    of_constant = f", {share:.3g} % of the best constant answer's" if math.isfinite(share) else ""
    return f"{head}; the cost is {quality.cost:.4g}{of_constant}"


def _because(kind: str, cost: float | None, quality: Quality | None, judged: Judged | None) -> str:
    if kind == "unknown" or quality is None or cost is None:
        return ""
    ratio = f"{quality.cost / cost:.3g} times" if cost > 0 else "above"
    head = f"The training cost is {cost:.4g}, and on these rows it is {ratio} that: "
    words = {
        "high variance": "it has learned its rows by heart (high variance)",
        "high bias": "both are high, so it is too simple for the data, or they do not tell more (high bias)",
        "high bias and high variance": "both are high and the gap is wide (high bias and high variance)",
        "neither": f"it is not high, and the gap is too small to count (more than {WIDE:g} times, than two standard "
        f"errors, and than {100 * SMALL:g} % of the best constant answer's cost would)",
    }
    return head + words[kind] + "."


def _next(
    run: Run, judged: Judged | None, quality: Quality | None, kind: str, program: str
) -> list[tuple[str, str]]:  # fmt: skip
    found: list[tuple[str, str]] = []
    job, ending = run.job, run.model.ending
    here = shlex.quote(str(run.path))
    last = run.history[-1]["iteration"] if run.history else 0
    if ending is None:
        found.append(("If nobody is at work on it, go on", f"{program} resume {here}"))
    elif ending["kind"] == "failed":
        found.append(
            ("Look for what no number can be made of in the data, and at the columns' scale", _info(job, program))
        )
    hidden = ",".join(map(str, job.hidden)) or "none"
    lambda_ = run.model.lambda_
    if "variance" in kind:
        larger = ",".join(f"{f * (lambda_ or 0.1):g}" for f in (1, 3, 10, 30))
        found.append(
            ("Against variance: a larger λ, more rows, fewer units or features",
             _line(run, program, "sweep", "--hidden", hidden, "--lambda", larger))
        )  # fmt: skip
    if "bias" in kind:
        wider = ",".join(str(2 * s) for s in job.hidden) or "25"
        smaller = ",".join(f"{f * lambda_:g}" for f in (0, 0.1, 1)) if lambda_ else "0"
        found.append(
            ("Against bias: more units or layers, better features, a smaller λ",
             _line(run, program, "sweep", "--hidden", f"{hidden};{wider}", "--lambda", smaller))
        )  # fmt: skip
    if ending is not None and ending["kind"] in ("stopped", "limit") and _still_falling(run.history):
        more = f" --iterations {max(2 * last, 100)}" if ending["kind"] == "limit" else ""
        why = "J was still falling when it ended: go on" if last else "No iteration was finished: begin"
        found.append((why, f"{program} resume {here}{more}"))
    if judged is not None and judged.kind == "training" and quality is not None:
        options = ("--out", f"{run.path}-validated", "--hidden", hidden, "--lambda", f"{lambda_:g}", "--iterations",
                   str(job.iterations), "--validation", "0.2")  # fmt: skip
        found.append(
            ("Hold rows out, so that there is something to judge it by", _line(run, program, "train", *options))
        )
    if judged is not None and quality is not None and quality.worst:
        row = judged.number(quality.worst[0].row)
        if judged.files:
            files = map(shlex.quote, judged.files)
            command = " ".join([program, "explain", here, *files, *judged.opened.split(), "--row", str(row)])
            found.append(("See how the worst row comes about", command))
    return found


def _line(run: Run, program: str, what: str, *options: str) -> str:
    """A command for the same data with the words of the run, but for these options; "" where data were arrays."""
    if not run.job.files:
        return ""
    words = shlex.split(train_line(run.asked, 0.0, None))[2:]
    for name in ("--out", "--iterations", *options[::2]):
        if name in words:
            at = words.index(name)
            del words[at : at + 2]
    return f"{program} {what} {shlex.join([*words, *options])}"


def _info(job: Any, program: str) -> str:
    return f"{program} info --full {shlex.quote(job.files[0])}" if job.files else ""


def _still_falling(history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last tenth of the iterations took J down by more than a thousandth of it."""
    J = [row["J"] for row in history if math.isfinite(row["J"])]
    if len(J) < 2:
        return True
    before = J[-1 - max(1, len(J) // 10)]
    return before - J[-1] > 1e-3 * abs(J[-1])
