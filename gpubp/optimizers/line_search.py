"""How far to go along a direction: a strong-Wolfe line search that knows α alone.

With φ(α) = J(Θ + α d), a step is accepted when it decreases J enough and flattens the slope enough:

    φ(α) ≤ φ(0) + c₁ α φ′(0)         sufficient decrease          N&W eq. 3.7a
    |φ′(α)| ≤ c₂ |φ′(0)|             curvature                    N&W eq. 3.7b

Near a minimum the first line fails for a reason of arithmetic: the true decrease drops below the rounding of J long
before the gradient is small (a float32 J is flat within 1e-7 of its value, that is over √1e-7 = 3e-4 of the way, while
its slope still points down). The slopes promise a decrease, that of the parabola through φ(0), φ′(0) and φ′(α),

    p = −α (φ′(0) + φ′(α)) / 2

and where p is so small that J cannot confirm it, the promise is enough:

    c₁ α |φ′(0)| ≤ p ≤ ν |φ(0)|  and  φ(α) ≤ φ* + ν |φ*|          approximate Wolfe, H&Z eq. 4.1 and 4.3

The left inequality is sufficient decrease for that parabola, in H&Z (2c₁ − 1) φ′(0) ≥ φ′(α). ν is the rounding of a
difference of J, and φ* the lowest J that the run has seen, not the last one, so that rounding cannot add up over
steps: J never rises by more than ν|φ*| in all. With ν = 0 this is the plain strong Wolfe search.

N&W: Nocedal and Wright, Numerical Optimization, 2nd ed. 2006, Algorithms 3.5 and 3.6.
H&Z: Hager and Zhang, A new conjugate gradient method with guaranteed descent and an efficient line search, SIAM J.
Optim. 16 (2005) 170–192.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

INSIDE = 0.1, 0.5  # a trial lies between these parts of its bracket, seen from the better end
GROW = 1.1, 4.0  # without a bracket, the next trial goes on by between these times the last stretch (Moré and Thuente)
RESOLUTION = 2.0**-52  # of float64


class Point(NamedTuple):
    """φ at one α."""

    alpha: float
    J: float
    slope: float

    @property
    def finite(self) -> bool:
        return math.isfinite(self.J) and math.isfinite(self.slope)


@dataclass(frozen=True)
class Search:
    """What a line search found.

    Attributes:
        alpha, J, slope: the accepted α, φ(α) and φ′(α); those of α = 0 if none was accepted.
        trials: evaluations of φ.
        nonfinite: how many of them were not finite.
        problem: why no α was accepted, in words; empty if one was.
    """

    alpha: float
    J: float
    slope: float
    trials: int
    nonfinite: int
    problem: str = ""


def wolfe(
    phi: Callable[[float], tuple[float, float]],
    J: float,
    slope: float,
    alpha: float,
    *,
    c1: float = 1e-4,
    c2: float = 0.9,
    max_trials: int = 20,
    noise: float = 0.0,
    lowest: float | None = None,
) -> Search:
    """Search for an α > 0 that meets the conditions above.

    If the trials run out, an α that decreases J enough without flattening the slope enough is accepted too: it is
    progress. The last trial need not be the accepted one then.

    Args:
        phi: α ↦ (φ(α), φ′(α)); may give nan or infinities, from which the search backs off.
        J, slope: φ(0) and φ′(0), finite.
        alpha: the first trial, above 0.
        c1, c2: 0 < c₁ < c₂ < 1.
        max_trials: how often φ may be evaluated, at least once.
        noise: ν, the relative rounding of a difference of J; with 0 an accepted J is never above φ(0).
        lowest: φ*, the lowest J seen so far; φ(0) by default.
    """
    origin = Point(0.0, J, slope)
    if not -math.inf < slope < 0:
        return Search(*origin, 0, 0, f"not a descent direction: the slope along it is {slope:.3g}")
    lowest = J if lowest is None else min(J, lowest)
    ceiling, margin = lowest + noise * abs(lowest), noise * abs(J)

    def decreases(p: Point) -> bool:
        enough = -c1 * p.alpha * slope
        promised = -p.alpha * (slope + p.slope) / 2
        return p.J <= J - enough or (enough <= promised <= margin and p.J <= ceiling)

    # N&W 3.5 and 3.6 in one loop: lo is the best point that decreases J enough, hi the other end of the bracket, once
    # there is one. Between them lies an α that is accepted.
    lo, hi = origin, None
    p, trial, nonfinite = origin, 0, 0
    for trial in range(1, max_trials + 1):
        p = Point(alpha, *phi(alpha))
        nonfinite += not p.finite
        if not p.finite or not decreases(p) or p.J > lo.J + margin:
            hi = p
        elif abs(p.slope) <= -c2 * slope:
            return Search(*p, trial, nonfinite)
        else:
            before, lo = lo, p
            if hi is None and p.slope < 0:
                alpha = _beyond(before, p)
                continue
            # the minimum lies where the slope at lo points down to
            if hi is None or p.slope * (hi.alpha - p.alpha) >= 0:
                hi = before
        if not lo.J < J and -alpha * slope <= RESOLUTION * abs(J):
            problem = f"the step α = {alpha:.3g} would change J = {J:.9g} by {alpha * slope:.2g}, below its precision"
            if nonfinite:
                problem += f"; J or ∇J was not finite in {nonfinite} of {trial} trials"
            return Search(*origin, trial, nonfinite, problem)
        alpha = _inside(lo, hi, margin)
        if alpha in (lo.alpha, hi.alpha):
            break  # no number lies between them
    if lo.J < J:
        return Search(*lo, trial, nonfinite)
    problem = f"{trial} trials down to α = {p.alpha:.3g} found no decrease of J = {J:.9g}"
    if nonfinite:
        problem += f"; J or ∇J was not finite in {nonfinite} of them"
    return Search(*origin, trial, nonfinite, problem)


def _beyond(before: Point, p: Point) -> float:
    """The next trial while J still falls: beyond p, where the cubic has its minimum, within GROW."""
    stretch = p.alpha - before.alpha
    least, most = (p.alpha + times * stretch for times in GROW)
    guess = _cubic(before, p)
    return min(max(guess, least), most) if guess > p.alpha else most


def _inside(lo: Point, hi: Point, margin: float) -> float:
    """The next trial between lo and hi: where the cubic has its minimum, within INSIDE."""
    stretch = hi.alpha - lo.alpha
    if not hi.finite:
        return lo.alpha + INSIDE[0] * stretch
    flat = abs(hi.J - lo.J) <= margin and lo.slope * hi.slope < 0
    guess = _secant(lo, hi) if flat else _cubic(lo, hi)
    part = (guess - lo.alpha) / stretch
    part = min(max(part, INSIDE[0]), INSIDE[1]) if math.isfinite(part) else INSIDE[1]
    return lo.alpha + part * stretch


def _secant(a: Point, b: Point) -> float:
    """Where the line through the two slopes is 0: for a bracket so flat that J is only rounding."""
    return (a.alpha * b.slope - b.alpha * a.slope) / (b.slope - a.slope)


def _cubic(a: Point, b: Point) -> float:
    """The minimum of the cubic through two values and two slopes, N&W eq. 3.59; nan if it has none."""
    d1 = a.slope + b.slope - 3 * (a.J - b.J) / (a.alpha - b.alpha)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return math.nan
    d2 = math.copysign(math.sqrt(square), b.alpha - a.alpha)
    below = b.slope - a.slope + 2 * d2
    return b.alpha - (b.alpha - a.alpha) * (b.slope + d2 - d1) / below if below else math.nan
