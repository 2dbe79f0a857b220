"""What the numbers mean, in the course's words: high bias, high variance, both, or neither.

Costs are measured by what the best constant answer costs: a model that knows nothing of x has 1, a perfect one 0. Where
the training cost itself stays high, the model is too simple for the data or the data do not tell more: bias. Where the
cost on rows that were held out is far above the training cost, it has learned these rows by heart: variance. What
counts as high and wide are rules of thumb, said with their numbers; the difference between bias and noise in y no
curve shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

HIGH = 0.3  # of the constant answer's cost: a training cost that is high
WIDE = 1.25  # times the training cost: a validation cost that is far above it
SMALL = 0.02  # of the constant answer's cost: a gap that is worth nothing


@dataclass(frozen=True)
class Verdict:
    """What the numbers mean.

    Attributes:
        kind: "high bias", "high variance", "high bias and high variance" or "neither"; "unknown" where costs cannot be
            compared.
        because: the numbers it rests on, a sentence.
        advice: what helps, a sentence each.
    """

    kind: str
    because: str
    advice: tuple[str, ...]

    @property
    def title(self) -> str:
        """The kind, where it stands alone."""
        return "neither high bias nor high variance" if self.kind == "neither" else self.kind

    @property
    def text(self) -> str:
        """All of it for a person."""
        return "\n".join([f"{self.title}: {self.because}", *(f"- {one}" for one in self.advice)])


def kind_of(cost: float, validation: float, se: float, constant: float) -> str:
    """The verdict on a training cost and a validation cost.

    Args:
        se: the standard error of the validation cost; a gap of less than two of them is none.
        constant: what the best constant answer costs.
    """
    if not (constant > 0 and math.isfinite(cost + validation)):
        return "unknown"
    gap = validation - cost
    noise = 2 * se if math.isfinite(se) else 0.0
    wide = validation > WIDE * cost and gap > noise and gap > SMALL * constant
    high = cost > HIGH * constant
    return " and ".join([*(["high bias"] if high else []), *(["high variance"] if wide else [])]) or "neither"


def of_sweep(candidates: Sequence[Any], chosen: int, simplest: int) -> Verdict:
    """The verdict on a sweep's chosen candidate, with what its neighbours say."""
    best = candidates[chosen]
    others = [one for one in candidates if one.hidden == best.hidden and one.sound]
    smallest, largest = min(one.lambda_ for one in others), max(one.lambda_ for one in others)
    kind = kind_of(best.cost, best.validation, best.validation_se, best.constant)
    advice: list[str] = []
    several = len(others) > 1
    if several and best.lambda_ == largest:
        advice.append(
            f"λ = {best.lambda_:g} is the largest of those tried: the best one may be larger. Add "
            f"{_listed(best.lambda_ * 3 or 0.1, best.lambda_ * 10 or 1)} to --lambda"
        )
    elif several and best.lambda_ == smallest and smallest > 0:
        advice.append(
            f"λ = {best.lambda_:g} is the smallest of those tried: the best one may be smaller. Add "
            f"{_listed(0, best.lambda_ / 10, best.lambda_ / 3)} to --lambda"
        )
    units = {sum(one.hidden) for one in candidates}
    if len(units) > 1 and sum(best.hidden) == max(units):
        advice.append("the chosen network is the largest of those tried: a larger one may be better still")
    rival = candidates[simplest]
    if rival.lambda_ != best.lambda_:
        advice.append(
            f"by the rule of one standard error, λ = {rival.lambda_:g} is as good: its validation cost "
            f"{rival.validation:.4g} is within {best.validation_se:.2g} of the lowest, {best.validation:.4g}, and a "
            "larger λ gives the simpler model"
        )
    if "bias" in kind:
        lowest = min(one.cost for one in others)
        below = f" (at λ = {smallest:g} the training cost is {lowest:.4g})" if smallest < best.lambda_ else ""
        advice.append(f"against bias: more units or layers, more or better features, a smaller λ{below}")
        advice.append(_NOISE)
    if "variance" in kind:
        there = next(one.validation for one in others if one.lambda_ == largest)
        tried = f" (a larger λ was tried: at {largest:g} the validation cost is {there:.4g})"
        more = tried if best.lambda_ < largest else ""
        advice.append(f"against variance: more rows, fewer features or units, a larger λ{more}")
        advice.append("whether more rows would help, gpubp learning-curve shows")
    return Verdict(kind, _because(best), tuple(advice))


def of_learning_curve(parts: Sequence[Any]) -> Verdict:
    """The verdict on the largest part, and whether more rows would help.

    Args:
        parts: sound ones, from few rows to many, as `learning_curve.Part`.
    """
    last, before = parts[-1], parts[-2]
    kind = kind_of(last.cost, last.validation, last.validation_se, last.constant)
    fallen = before.validation - last.validation
    noise = last.validation_se if math.isfinite(last.validation_se) else 0.0
    falling = fallen > max(noise / 2, 0.02 * last.validation)
    trend = (
        f"from {before.rows:,} to {last.rows:,} rows the validation cost fell from {before.validation:.4g} to "
        f"{last.validation:.4g}"
        if fallen > 0
        else f"from {before.rows:,} to {last.rows:,} rows the validation cost did not fall "
        f"({before.validation:.4g}, {last.validation:.4g})"
    )
    advice: list[str] = []
    if "variance" in kind:
        hope = "more rows would help" if falling else "more rows alone may help little"
        advice.append(f"{trend}: {hope}; also a larger λ, fewer features or units")
    elif falling:
        advice.append(f"{trend}: more rows would still help")
    else:
        advice.append(f"{trend}: more rows of this kind will help little")
    if "bias" in kind:
        advice.append("against bias: more units or layers, more or better features, a smaller λ")
        advice.append(_NOISE)
    return Verdict(kind, _because(last), tuple(advice))


_NOISE = (
    "noise in y looks the same as bias: if no network does better, the features do not tell more, and no curve of "
    "costs can say which it is"
)


def _because(one: Any) -> str:
    if not (one.constant > 0 and math.isfinite(one.cost + one.validation)):
        return f"training cost {one.cost:.4g}, validation cost {one.validation:.4g}, and nothing to measure them by"
    error = f" ± {one.validation_se:.2g}" if math.isfinite(one.validation_se) else ""
    ratio = f"{one.validation / one.cost:.3g} times that" if one.cost > 0 else "above it"
    share = 100 * one.cost / one.constant
    return (
        f"training cost {one.cost:.4g}, which is {share:.3g} % of what the best constant answer costs "
        f"({one.constant:.4g}; above {100 * HIGH:g} % counts as high); validation cost {one.validation:.4g}{error}, "
        f"{ratio} (above {WIDE:g} times, and by two standard errors, counts as a wide gap)"
    )


def _listed(*lambdas: float) -> str:
    return ",".join(f"{one:g}" for one in lambdas)
