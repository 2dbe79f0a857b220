"""Each δ beside the slope it claims to be: the finite difference of the cost in that z.

z_j^(l) of one unit is moved by ±h and everything to the right of it is computed again, by the formulas that the network
is trained with. C(h) − C(−h) over 2h goes to δ_j^(l) as h goes to 0; Ridders' extrapolation (C. J. F. Ridders,
"Accurate computation of F′(x) and F′(x)F″(x)", Advances in Engineering Software 4 (1982) 75–76) takes it there from a
few h, with an estimate of its own error. The steps h go from ½ down to 10⁻⁶: a large h suffers least from rounding,
and a small one stays on its side of the kinks of relu units. (`gpubp.tangent` does the same for one slope of a function
that is dear: in as few steps as will do, with rounding that it measures. Here all units of a layer move at once by all
steps, which is one pass.)

The two costs are subtracted output by output before they are added, so that a small change beside a large cost is seen.
What float64 can still not see is bounded (`_rounding`), from the sizes of the numbers that are rounded on the way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from .record import Explanation

Verdict = Literal["PASS", "FAIL", "KINK"]

TOLERANCE = 1e-7  # relative
STEPS = 0.5 / 3.0 ** np.arange(13)  # 0.5 … 9.4e-7
_MEMORY = 1 << 22  # numbers of one layer's moved rows that are there at a time
_UNIT = 2.0**-53  # what a single operation is rounded by, relative
_TINY = float(np.finfo(np.float64).tiny)  # what is smaller may be taken for 0
_BOUND = 4  # a difference within this many bounds of the rounding is rounding
_KINK = 1e-5  # slopes to both sides, relative: of what is smooth they agree to about 1e-8


@dataclass(frozen=True)
class UnitSlope:
    """One δ and its slope.

    Attributes:
        delta: δ_j^(l), by backpropagation.
        slope: the finite difference of C in z_j^(l).
        uncertainty: how far the slope may be off, by its own estimate.
        error: |slope − δ| / max(|slope|, |δ|); 0 where both are 0.
        verdict: "PASS", "FAIL", or "KINK": C has another slope to the left than to the right, and δ is one of both.
        rounding: whether it passes only because float64 cannot tell the difference from rounding.
        sides: at a kink the slopes to the left and to the right.
    """

    delta: float
    slope: float
    uncertainty: float
    error: float
    verdict: Verdict
    rounding: bool
    sides: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class LayerSlopes:
    """All units of layer l; see `UnitSlope`.

    Attributes:
        delta, slope, uncertainty, error: (s_l,).
        passed, rounding, kink: (s_l,) bool.
        left, right: (s_l,) the slopes to both sides, NaN where C is smooth.
    """

    layer: int
    delta: np.ndarray
    slope: np.ndarray
    uncertainty: np.ndarray
    error: np.ndarray
    passed: np.ndarray
    rounding: np.ndarray
    kink: np.ndarray
    left: np.ndarray
    right: np.ndarray

    @property
    def distance(self) -> float:
        """‖slope − δ‖ / (‖slope‖ + ‖δ‖), the measure of the course's exercise 4; at a kink with the nearer side."""
        return self.distance_of(self.delta)

    def distance_of(self, claimed: np.ndarray) -> float:
        """The same for other numbers (s_l,) that somebody takes for the δ's."""
        near = np.abs(self.left - claimed) < np.abs(self.right - claimed)
        slope = np.where(self.kink, np.where(near, self.left, self.right), self.slope)
        size = float(np.linalg.norm(slope) + np.linalg.norm(claimed))
        return float(np.linalg.norm(slope - claimed)) / size if size else 0.0

    def unit(self, j: int) -> UnitSlope:
        """Unit j, from 1."""
        i = j - 1
        verdict: Verdict = "FAIL" if not self.passed[i] else "KINK" if self.kink[i] else "PASS"
        return UnitSlope(
            float(self.delta[i]), float(self.slope[i]), float(self.uncertainty[i]), float(self.error[i]), verdict,
            bool(self.rounding[i]), (float(self.left[i]), float(self.right[i])) if self.kink[i] else None,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class SlopeCheck:
    """Every δ of an example beside its slope.

    Attributes:
        layers: by l; slots 2 … L.
    """

    layers: list[Any]

    @property
    def passed(self) -> bool:
        """Whether every unit did."""
        return all(bool(layer.passed.all()) for layer in self.layers[2:])

    @property
    def count(self) -> int:
        """How many units there are."""
        return sum(layer.delta.size for layer in self.layers[2:])

    @cached_property
    def units(self) -> dict[tuple[int, int], UnitSlope]:
        """By (layer, unit)."""
        return {(one.layer, j): one.unit(j) for one in self.layers[2:] for j in range(1, one.delta.size + 1)}

    def plain(self) -> dict[str, Any]:
        """For JSON: ``passed``, ``tolerance``, and for each layer ``error`` and its ``units``."""
        layers = []
        for one in self.layers[2:]:
            units = []
            for j in range(1, one.delta.size + 1):
                unit = one.unit(j)
                sides = {} if unit.sides is None else {"left": unit.sides[0], "right": unit.sides[1]}
                units.append({
                    "unit": j, "delta": unit.delta, "slope": unit.slope, "uncertainty": unit.uncertainty,
                    "error": unit.error, "verdict": unit.verdict, "rounding": unit.rounding, **sides,
                })  # fmt: skip
            layers.append({"layer": one.layer, "error": one.distance, "units": units})
        return {"passed": self.passed, "tolerance": TOLERANCE, "layers": layers}


def check(e: Explanation) -> SlopeCheck:
    """Each δ_j^(l), l = 2 … L, against the finite difference of C in z_j^(l), in float64.

    A unit passes where both agree to `TOLERANCE`, relative; or to what rounding alone can make of them, and then says
    so. Where C has a kink at this z (relu at 0), δ has to be the slope to one of its sides.
    """
    with np.errstate(all="ignore"):  # e^800 is infinite where the formula's limit is right; what is not finite fails
        noise, own = _rounding(e)
        return SlopeCheck([None, None, *(_layer(e, l, noise[l], own[l]) for l in range(2, e.L + 1))])


def _layer(e: Explanation, l: int, noise: np.ndarray, own: np.ndarray) -> LayerSlopes:
    """`noise`: how far a C may be off by rounding when a z of this layer moves; `own`: how far δ may."""
    found = [_slopes(moved, noise[moved.units]) for moved in _moved(e, l)]
    both, left, right = (Slope(*map(np.concatenate, zip(*side, strict=True))) for side in zip(*found, strict=True))
    delta = e.delta[l]

    def compared(slope: Slope) -> tuple[np.ndarray, np.ndarray]:
        apart = np.abs(slope.value - delta)
        error = np.where(apart > 0, apart / np.maximum(np.abs(slope.value), np.abs(delta)), 0.0)
        error[~np.isfinite(apart)] = np.inf
        return error, (error > TOLERANCE) & (apart <= _BOUND * (slope.bound + own))

    error, rounding = compared(both)
    passed = (error <= TOLERANCE) | rounding
    (left_error, left_near), (right_error, right_near) = compared(left), compared(right)
    # what is no slope of both sides may be the slope of one, if these differ
    jump = np.abs(right.value - left.value)
    kink = ~passed & (jump > _KINK * np.maximum(np.abs(left.value), np.abs(right.value)))
    kink &= jump > 2 * _BOUND * (left.bound + right.bound)
    kink &= (left_error <= TOLERANCE) | left_near | (right_error <= TOLERANCE) | right_near
    return LayerSlopes(
        l, delta, both.value, both.uncertainty, np.where(kink, np.minimum(left_error, right_error), error),
        passed | kink, rounding, kink, np.where(kink, left.value, np.nan), np.where(kink, right.value, np.nan),
    )  # fmt: skip


class Slope(NamedTuple):
    """Of some units: the slope, how far it may be off by its own estimate, and by rounding alone; each (units,)."""

    value: np.ndarray
    uncertainty: np.ndarray
    bound: np.ndarray


class _Moved(NamedTuple):
    """Some units of a layer, each moved by every step: differences of C and the steps as they became, (units, steps).

    `both` is C(h) − C(−h), `left` C(0) − C(−h), `right` C(h) − C(0).
    """

    units: slice
    both: np.ndarray
    left: np.ndarray
    right: np.ndarray
    to_left: np.ndarray
    to_right: np.ndarray


def _moved(e: Explanation, l: int) -> Iterator[_Moved]:
    """All units of layer l, as many at a time as memory allows."""
    z, n = e.z[l], STEPS.size
    sign = -1.0 if e.sign == "loglik" else 1.0
    base = _cells(e, l, z[None])
    most = max(1, _MEMORY // (2 * n * max(e.network.sizes[l - 1 :])))
    for start in range(0, z.size, most):
        units = slice(start, min(z.size, start + most))
        at = np.arange(units.stop - start)
        here = z[units, None]
        up, down = here + STEPS, here - STEPS
        rows = np.broadcast_to(z, (at.size, 2, n, z.size)).copy()
        rows[at, 0, :, at + start], rows[at, 1, :, at + start] = up, down
        cells = sign * _cells(e, l, rows.reshape(-1, z.size)).reshape(at.size, 2, n, -1)
        right, left = cells[:, 0], cells[:, 1]
        both, to_left, to_right = right - left, sign * base - left, right - sign * base
        yield _Moved(units, both.sum(-1), to_left.sum(-1), to_right.sum(-1), here - down, up - here)


def _cells(e: Explanation, l: int, z: np.ndarray) -> np.ndarray:
    """What each output adds to C, (rows, K), by rows of z^(l): all that lies to the right of it, computed again."""
    network, no_bias = e.network, np.zeros((1, 1))  # z has it already
    for m in range(l, network.L):
        z = network.g.g(np, z, no_bias) @ e.Theta[m][:, 1:].T + e.Theta[m][:, 0]
    score = network.J.score(np, z, no_bias)
    return np.asarray(network.J.cell(np, score, e.y[None], np.ones((1, 1))))


def _slopes(moved: _Moved, noise: np.ndarray) -> tuple[Slope, Slope, Slope]:
    """The slope, and the slopes to the left and to the right."""
    left, right = moved.to_left, moved.to_right
    return (
        _extrapolated(moved.both / (left + right), 2 * noise[:, None] / (left + right), order=2),
        _extrapolated(moved.left / left, 2 * noise[:, None] / left, order=1),
        _extrapolated(moved.right / right, 2 * noise[:, None] / right, order=1),
    )


def _extrapolated(quotients: np.ndarray, noise: np.ndarray, *, order: int) -> Slope:
    """Neville's table over the steps: its entry of the smallest error. Of a central difference the error is a series in
    h², `order` 2; of one to a side in h.

    All of the table is looked at: where relu units have kinks, the large steps say nothing and the small ones do.
    """
    units, n = quotients.shape
    best = Slope(quotients[:, 0].copy(), np.full(units, np.inf), noise[:, 0].copy())
    last: list[np.ndarray] = []
    for i in range(n):
        row = [quotients[:, i]]
        for j in range(1, i + 1):
            by = (STEPS[0] / STEPS[1]) ** (order * j)
            row.append((by * row[j - 1] - last[j - 1]) / (by - 1))
            error = np.maximum(np.abs(row[j] - row[j - 1]), np.abs(row[j] - last[j - 1])) + noise[:, i]
            better = error < best.uncertainty
            for kept, new in zip(best, (row[j], error, noise[:, i]), strict=True):
                kept[better] = new[better]
        last = row
    return best


def _rounding(e: Explanation) -> tuple[list[Any], list[Any]]:
    """How far rounding may take a C whose z^(l) moves from what it should be, and each δ^(l); slots 2 … L, (s_l,).

    To first order: every number that is computed to the right of z^(l) is rounded, and the slope of C in that number
    says what that does to C. A sum of n products is off by √n units of the last place of Σ|products| (N. J. Higham and
    T. Mary, "A New Approach to Probabilistic Rounding Error Analysis", SIAM J. Sci. Comput. 41 (2019) A2815–A2835).
    """
    network, L, y, h = e.network, e.L, np.abs(e.y), np.abs(e.a[e.L])
    cells = np.abs(_cells(e, L, e.z[L][None])[0])
    # an output's part of C: itself; of a difference of h and y what h lost; and of a score that is taken along a row
    # what its largest z lost
    lost = 2 * cells + np.sqrt(cells) * h
    reached = np.eye(y.size, dtype=bool)  # which parts move at all; the others have no rounding to tell of
    if network.J.score.shape == "rowwise":
        lost += y * (1 + np.abs(e.z[L]).max())
        reached[:] = True
    noise: list[Any] = [None] * (L + 1)
    own: list[Any] = [None] * (L + 1)
    noise[L] = _UNIT * (reached @ lost + np.abs(e.delta[L]) * np.abs(e.z[L]))
    own[L] = _UNIT * (2 * h + y) + _TINY
    deeper = 0.0  # what all that lies two layers to the right and more loses
    for l in range(L - 1, 1, -1):
        W = np.abs(e.Theta[l][:, 1:])
        delta, s, a = np.abs(e.delta[l + 1]), np.abs(e.s[l]), np.abs(e.a[l])
        sums = delta * (math.sqrt(a.size + 1) * (W @ a + np.abs(e.Theta[l][:, 0])) + np.abs(e.z[l + 1]))
        reached = (W > 0).T @ reached
        noise[l] = _UNIT * (reached @ lost + (W > 0).T @ sums + s * a + deeper)
        deeper += float(sums.sum() + s @ a)
        # g′ of a sigmoid is a·(1 − a), which loses as a comes near 1: a unit of the last place of 1, at most
        own[l] = np.abs(e.slope[l]) * (own[l + 1] @ W + _UNIT * math.sqrt(delta.size) * (delta @ W)) + _UNIT * s + _TINY
    return noise, own
