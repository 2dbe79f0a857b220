"""Scaled conjugate gradients: no line search, but a model of how J curves along the direction, damped like
Levenberg–Marquardt's.

M. F. Møller, A scaled conjugate gradient algorithm for fast supervised learning, Neural Networks 6 (1993) 525–533; the
numbers in the code are those of the algorithm in its section 4, r = −∇J(Θ). An iteration here is one accepted step: one
evaluation for the curvature along p, a difference of gradients, and one for each trial, nearly always one. J never
rises.

The difference is taken over a distance σ. Møller has it at 1e-4 or less; a pass in float32 leaves an error of about
1e-6 in ∇J, which is divided by σ, while a larger σ sees the curvature change. σ = ∛ν, ν being the rounding of J that
the function states, is 5e-3 in float32, and between 1e-3 and 1e-1 it hardly matters there. Where J cannot tell the two
Θ apart, the model is judged by the slopes (trapezoid rule), as the line search does.

On networks it needs about as many evaluations as conjugate gradients with a line search, and nothing is to be tuned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from .base import SCRATCH, Ending, Function, Optimizer, State
from .elementwise import conjugate
from .vectors import HOST, Vectors

SIGMA = 1e-4  # Møller's upper bound
FIRST = 1e-6  # λ₁, his as well
LEAST = 1e-30  # of λ: with it at 0, J would have no minimum along a direction where it does not curve
NOT_FINITE = -8.0  # the comparison where J is not finite: a step of a tenth comes next


@dataclass(kw_only=True)
class SCGState(State):
    """Θ and where to go from there.

    Attributes:
        p: the direction, (P,).
        square: pᵀp, or 0 where it is not known.
        damping: λ.
        since: steps since p was −∇J.
        flattest, idle: the smallest max|∇J| of the run, and iterations since it or J fell.
        trial, trial_gradient: Θ and ∇J of the last point tried, (P,) scratch.
    """

    p: Any
    square: float = 0.0
    damping: float = FIRST
    since: int = 0
    flattest: float = math.inf
    idle: int = 0
    trial: Any = field(metadata=SCRATCH)
    trial_gradient: Any = field(metadata=SCRATCH)


class Trial(NamedTuple):
    """What is read of a point tried: J, max|∇J|, and the products of its ∇J with itself, with Θ's, and with p."""

    J: float
    steepest: float
    new: float
    across: float
    along: float

    @property
    def finite(self) -> bool:
        return math.isfinite(self.J) and math.isfinite(self.steepest)


@dataclass(frozen=True, kw_only=True)
class SCG(Optimizer[SCGState]):
    """Scaled conjugate gradients.

    Attributes:
        sigma: σ, above 0; None: the cube root of the rounding that the function states, or 1e-4.
        max_trials: trials of one step.
        patience: iterations without a lower J or a smaller max|∇J| after which the run has stalled.
    """

    sigma: float | None = None
    max_trials: int = 20
    patience: int = 20

    def check(self) -> None:
        self.require(self.sigma is None or self.sigma > 0, "sigma", "above 0")
        self.require(self.max_trials >= 1, "max_trials", "1 or more")
        self.require(self.patience >= 1, "patience", "1 or more")

    def blank(self, P: int, vectors: Vectors = HOST) -> SCGState:
        names = "Theta", "gradient", "p", "trial", "trial_gradient"
        return SCGState(**{name: vectors.zeros(P) for name in names})

    def init(self, f: Function, Theta: np.ndarray) -> SCGState:
        state = super().init(f, Theta)
        state.vectors.combine(-1.0, 1.0, state.gradient, (), state.p)  # 1.
        return state

    def renew(self, f: Function, state: SCGState) -> None:
        super().renew(f, state)
        state.vectors.combine(-1.0, 1.0, state.gradient, (), state.p)
        state.square, state.since, state.flattest, state.idle = 0.0, 0, math.inf, 0

    def advance(self, f: Function, state: SCGState) -> Ending | None:
        if state.idle >= self.patience:
            return self._standstill(state)  # so it was saved
        vectors, noise = state.vectors, getattr(f, "noise", None)
        curvature, square, mu, looked = self._curvature(f, state, noise)  # 2.
        damping, problem, trial, nonfinite = state.damping, "", 0, 0
        if not 0 < square < math.inf:
            problem = f"the square of ∇J is {square:.3g} in float64"
        elif not mu > 0:
            problem = f"not a descent direction: the slope along it is {-mu:.3g}"
        while not problem:
            delta = curvature + damping * square  # 3.
            if not delta > 0:  # 4.
                delta = damping * square - delta
                damping = (delta - curvature) / square
            if not delta > 0:
                problem = f"J does not curve along it: {curvature:.3g}, and {damping:.3g} of damping is too little"
                break
            alpha = mu / delta  # 5.
            trial += 1
            t = self._try(f, state, alpha)
            nonfinite += not t.finite
            compared = self._compared(state.J, t, alpha, mu, 1e-7 if noise is None else float(noise))  # 6.
            if compared >= 0.75:
                damping = max(damping / 4, LEAST)  # 7.
            if compared < 0.25:
                damping += delta * (1 - compared) / square  # 8.
            if compared >= 0:
                with state.commit():
                    self._accept(state, t, trial + looked, mu, square, damping)
                return self._standstill(state) if state.idle >= self.patience else None
            if trial == self.max_trials:
                problem = f"{trial} trials down to α = {alpha:.3g} found no decrease of J = {state.J:.9g}"
            elif alpha * mu <= 2.0**-52 * abs(state.J):
                problem = f"a step of α = {alpha:.3g} would change J = {state.J:.9g} by less than its precision"
        steepest = state.steepest
        state.evaluations += trial + looked
        state.measured = steepest, state.evaluations
        if nonfinite:
            problem += f"; J or ∇J was not finite in {nonfinite} of {trial} trials"
        if state.since == 0:
            kind = "failed" if 0 < trial == nonfinite or square == math.inf else "stalled"
            return self._ended(state, kind, f"straight against the gradient, {problem}")
        with state.commit():
            vectors.combine(-1.0, 1.0, state.gradient, (), state.p)  # what led here may mislead: once more without it
            state.since, state.square, state.damping = 0, 0.0, FIRST
        return None

    def _curvature(self, f: Function, state: SCGState, noise: float | None) -> tuple[float, float, float, int]:
        """pᵀ∇²J p by a difference of gradients, pᵀp, −pᵀ∇J, and the evaluations it took: one, or none where pᵀp is no
        number to divide by."""
        vectors, p = state.vectors, state.p
        square = state.square or vectors.read(vectors.dot(p, p))[0]
        if not 0 < square < math.inf:
            return 0.0, square, 0.0, 0
        sigma = self.sigma or (math.cbrt(noise) if noise else SIGMA)
        step = sigma / math.sqrt(square)
        vectors.move(state.Theta, step, p, out=state.trial)
        f.value_and_gradient(state.trial, state.trial_gradient)
        vectors.subtract(state.trial_gradient, state.gradient, out=state.trial_gradient)
        change, square, slope = vectors.read(*vectors.dots((p, state.trial_gradient), (p, p), (p, state.gradient)))
        return (change / step if math.isfinite(change) else 0.0), square, -slope, 1

    def _try(self, f: Function, state: SCGState, alpha: float) -> Trial:
        vectors, g = state.vectors, state.trial_gradient
        vectors.move(state.Theta, alpha, state.p, out=state.trial)
        J = f.value_and_gradient(state.trial, g)
        return Trial(*vectors.read(J, vectors.max_abs(g), *vectors.dots((g, g), (g, state.gradient), (g, state.p))))

    @staticmethod
    def _compared(J: float, t: Trial, alpha: float, mu: float, noise: float) -> float:
        """Δ: how much of what the model promised, αμ/2, came true: 2δ(J − J₊)/μ²; below 0 where J has risen."""
        if not (t.finite and alpha * mu > 0):
            return NOT_FINITE
        fall = J - t.J
        if fall >= 0 and alpha * mu <= noise * abs(J):
            fall = max(0.0, alpha * (mu - t.along) / 2)
        return 2 * fall / (alpha * mu)

    def _accept(self, state: SCGState, t: Trial, evaluations: int, mu: float, square: float, damping: float) -> None:
        P = len(state.p)
        beta = 0.0 if state.since + 1 >= P else (t.new - t.across) / mu  # 7.
        slope = beta * t.along - t.new
        if not slope < 0:
            beta = 0.0
        falls = t.J < state.J or t.steepest < state.flattest
        state.vectors.apply(conjugate, (state.trial_gradient, state.p), (beta,), (state.p,))
        state.square = max(0.0, t.new - 2 * beta * t.along + beta * beta * square)
        state.since = state.since + 1 if beta else 0
        state.damping = damping
        state.idle, state.flattest = 0 if falls else state.idle + 1, min(state.flattest, t.steepest)
        state.Theta, state.trial = state.trial, state.Theta
        state.gradient, state.trial_gradient = state.trial_gradient, state.gradient
        state.J = t.J
        state.iteration += 1
        state.evaluations += evaluations
        state.measured = t.steepest, state.evaluations

    def _standstill(self, state: SCGState) -> Ending:
        return self._ended(
            state,
            "stalled",
            f"for {state.idle} iterations neither J = {state.J:.9g} nor max|∇J| = {state.steepest:.3g} (smallest "
            f"{state.flattest:.3g}) has fallen, so rounding is all that is left of their differences",
        )

    def _ended(self, state: SCGState, kind: Literal["stalled", "failed"], problem: str) -> Ending:
        return Ending(kind, f"{kind}: {problem}; max|∇J| = {state.steepest:.3g}, wanted {self.tolerance:g} or less")
