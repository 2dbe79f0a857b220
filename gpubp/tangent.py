"""The slope of a function of one number, by differences of its values, and how sure of it one can be.

A central difference with step h is off by h²f‴/6 and more, and by the rounding of f divided by h. So steps from large
to small are extrapolated to h = 0, and of all that this gives the one is taken whose error is the smallest by both: how
much the extrapolation still changes it, and what rounding can have made of it (C. J. F. Ridders, Accurate computation
of F′(x) and F′(x)F″(x), Advances in Engineering Software 4, 1982).

How f rounds is measured and not guessed: `rounding`, by differences of high order, which of a smooth function leave
nothing else (J. J. Moré and S. M. Wild, Estimating computational noise, SIAM Journal on Scientific Computing 33, 2011).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

FIRST, RATIO, LEVELS = 2.0**-5, 4.0, 9  # steps from 0.03 to 5e-7; powers of two, which Θ + h seldom rounds
_ORDER, _POINTS = 4, 12  # of the differences that show rounding
_SIGMAS = 4  # standard deviations of the rounding that an uncertainty has room for


@dataclass(frozen=True)
class Tangent:
    """What differences tell of f at 0.

    Attributes:
        slope: f′(0); at a kink the mean of both one-sided slopes.
        uncertainty: how far from it the true one may be: at a kink half of the jump, and more.
        jump: the slope to the right less that to the left: 0 but for rounding where f is smooth.
        kink: whether it is not 0, as far as the shortest steps can tell.
        evaluations: of f.
    """

    slope: float
    uncertainty: float
    jump: float
    kink: bool
    evaluations: int


class _Guess(NamedTuple):
    value: float
    error: float


_NOTHING = _Guess(math.nan, math.inf)


def tangent(
    f: Callable[[float], float], f0: float, noise: float, *, wanted: float = 0.0, first: float = FIRST
) -> Tangent:
    """f′(0), with as few evaluations as an uncertainty of `wanted` takes, and all there are if that is not reached.

    Both one-sided slopes are looked at: as far as they are apart, f′(0) is not known. From afar a kink that is near
    looks like one at 0, so the shorter steps have to see that there is none before a slope is believed.

    Args:
        f: of a shift; it may be infinite or NaN where that is large.
        f0: f(0).
        noise: how much a value of f is off by rounding, at most: see `rounding`.
        first: the largest step, a power of two.
    """
    central, bend = _Extrapolation(2), _Extrapolation(1)
    slope = jump = _NOTHING
    evaluations = 0
    for level in range(LEVELS):
        h = first / RATIO**level
        above, below = f(h), f(-h)
        evaluations += 2
        slopes = central.add((above - below) / (2 * h), noise / h)
        jumps = bend.add(((above - f0) - (f0 - below)) / h, 4 * noise / h)
        for one, apart in zip(slopes, jumps, strict=True):
            if (error := one.error + abs(apart.value) / 2) < slope.error:  # not so where either is not a number
                slope = _Guess(one.value, error)
            if apart.error < jump.error:
                jump = apart
        if slope.error <= wanted:
            break
    kink = abs(jump.value) > 3 * jump.error and slope.error > max(abs(jump.value) / 4, wanted)
    return Tangent(slope.value, slope.error, jump.value, kink, evaluations)


class _Extrapolation:
    """Values for shorter and shorter steps h, extrapolated to a step of 0 (Neville's scheme).

    Args:
        power: of h, the lowest that the values are off by; the others follow two by two.
    """

    def __init__(self, power: int) -> None:
        self._factors = [RATIO ** (power + 2 * k) for k in range(LEVELS)]
        self._last: list[_Guess] = []

    def add(self, value: float, rounding: float) -> list[_Guess]:
        """The value for the next step, and how much of it may be rounding: what can be made of it and those before."""
        row, guesses = [_Guess(value, rounding)], []
        for before, factor in zip(self._last, self._factors, strict=False):
            newest = row[-1]
            better = _Guess(
                newest.value + (newest.value - before.value) / (factor - 1),
                (factor * newest.error + before.error) / (factor - 1),
            )
            row.append(better)
            apart = max(abs(better.value - newest.value), abs(better.value - before.value))
            guesses.append(_Guess(better.value, apart + better.error))
        self._last = row
        return guesses


def rounding(f: Callable[[float], float], spacing: float) -> float:
    """How much a value of f is off by rounding, at most, near 0.

    Differences of order k of values at equal distances have the variance σ²(2k)!/(k!)² where the values have σ² of
    rounding each and f is smooth. It is at least half a unit in the last place of f.

    Args:
        spacing: the distance, small enough that f is straight over a few of them.
    """
    values = np.array([f(i * spacing) for i in range(_POINTS)])
    differences = np.diff(values, _ORDER)
    scale = math.factorial(_ORDER) ** 2 / math.factorial(2 * _ORDER)
    sigma = math.sqrt(scale * float(np.mean(differences**2)))
    return max(_SIGMAS * sigma, 2.0**-53 * abs(float(values[0])))
