"""Levenberg–Marquardt, for few parameters: damped Gauss–Newton steps from the matrix itself.

    Θ_{k+1} = Θ_k + d,   (B + μ I) d = −∇J(Θ_k)

K. Levenberg, A method for the solution of certain non-linear problems in least squares, Quart. Appl. Math. 2 (1944)
164–168; D. Marquardt, An algorithm for least-squares estimation of nonlinear parameters, SIAM J. 11 (1963) 431–441.
B is the Gauss–Newton matrix of J, so costs other than squares will do (`optimizers.curvature`).

μ follows H. B. Nielsen, Damping parameter in Marquardt's method, IMM-REP-1999-05, eq. 2.21: with the reduction ratio
r = (J(Θ) − J(Θ + d)) / promised, promised = d·(μ d − ∇J)/2,

    r > 0:  μ ← μ · max(1/3, 1 − (2r − 1)³),  ν ← 2        else:  μ ← μ ν,  ν ← 2ν, and another trial with the same B.

Marquardt's μ·diag B was slower on networks of tanh units, and as slow as that where its diagonal is the largest seen
(Moré, The Levenberg-Marquardt algorithm, 1978): a unit that hardly acts yet takes steps that are too long.

B costs about p²/6n passes for n weights and p parameters, tens of them: most of what an iteration costs. Where there
are many rows for each parameter a sample of them, another one each time, tells almost as well how J curves; J and ∇J,
which say where the minimum is and whether a step is taken, are always those of all rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UsageError
from .base import Ending, Function, Optimizer
from .line import Line
from .line_search import RESOLUTION
from .standstill import StandingState
from .vectors import HOST, Vectors

PART = 64  # rows of a triangular matrix that are solved at once
MOST_PARAMETERS = 4096  # the matrix of more is no longer small beside the data: 128 MB, several times
LEAST = 1e-15  # of μ, against the largest diagonal element of B


@dataclass(kw_only=True)
class LMState(StandingState):
    """Θ and the damping.

    Attributes:
        damping: μ; 0 before the first step.
        growth: ν.
    """

    damping: float = 0.0
    growth: float = 2.0


@dataclass(frozen=True, kw_only=True)
class LevenbergMarquardt(Optimizer[LMState]):
    """Levenberg–Marquardt with Nielsen's damping.

    Attributes:
        damping: μ of the first step, in largest diagonal elements of B.
        rows_per_parameter: rows of the sample that B is made of, for each parameter; 0: always all rows.
        max_trials: evaluations of one iteration, before it has failed.
        noise: ν, the relative rounding of a difference of J. J never rises by more than ν|J| above its lowest; with 0
            it never rises at all. None: what the function says of itself, or 1e-7, which suits float32 passes.
        patience: iterations without a lower J or a smaller max|∇J| after which the run has stalled.
    """

    damping: float = 1e-2
    rows_per_parameter: int = 8
    max_trials: int = 20
    noise: float | None = None
    patience: int = 20

    def check(self) -> None:
        self.require(self.damping > 0, "damping", "above 0")
        self.require(self.rows_per_parameter >= 0, "rows_per_parameter", "0 or more")
        self.require(self.max_trials >= 1, "max_trials", "1 or more")
        self.require(self.noise is None or 0 <= self.noise < 1, "noise", "0 or more, below 1")
        self.require(self.patience >= 1, "patience", "1 or more")

    def blank(self, P: int, vectors: Vectors = HOST) -> LMState:
        Theta, gradient, direction, trial, trial_gradient = (vectors.zeros(P) for _ in range(5))
        return LMState(Theta=Theta, gradient=gradient, direction=direction, trial=trial, trial_gradient=trial_gradient)

    def equip(self, f: Function, state: LMState) -> None:
        curvature = getattr(f, "curvature", None)
        if curvature is None:
            raise UsageError(
                "a function that does not tell how it curves", wanted="one with `curvature` for lm",
                do="take lbfgs, which needs J and ∇J alone",
            )  # fmt: skip
        self.refuse(parameters(curvature.layers))

    def refuse(self, parameters: int) -> None:
        if parameters > MOST_PARAMETERS:
            raise UsageError(
                f"lm for {parameters:,} parameters, of which it makes a matrix", wanted=f"{MOST_PARAMETERS:,} or fewer",
                do="take klbfgs or gn, which need no matrix",
            )  # fmt: skip

    def renew(self, f: Function, state: LMState) -> None:
        super().renew(f, state)
        state.begin_anew()

    def advance(self, f: Function, state: LMState) -> Ending | None:
        if ending := state.standstill(self.patience, self.tolerance):
            return ending  # so it was saved
        vectors = state.vectors
        B, passes = self._matrix(f, state)
        places = where(getattr(f, "curvature").layers, state.Theta.shape[0])  # noqa: B009
        g = vectors.to_host(state.gradient)[places]
        largest = float(B.diagonal().max())
        if not (math.isfinite(largest) and np.isfinite(B.sum())):
            state.extra += passes
            return Ending("failed", f"failed: the Gauss–Newton matrix is not finite where J = {state.J:.6g} is")
        noise = float(getattr(f, "noise", 1e-7)) if self.noise is None else self.noise
        lowest, margin = min(state.lowest, state.J), noise * abs(state.J)
        least = LEAST * largest or LEAST
        mu, growth = max(state.damping or self.damping * largest, least), state.growth
        line, whole, problem, nonfinite = Line(f, state), np.zeros(state.Theta.shape[0]), "", 0
        steepest_before = state.steepest
        for _ in range(self.max_trials):
            d, mu = damped(B, g, mu)
            whole[places] = d
            vectors.put(whole, state.direction)
            promised = float(d @ (mu * d - g)) / 2
            J, _ = line(1.0)
            steepest = line.settle(1.0)[0]
            nonfinite += not (math.isfinite(J) and math.isfinite(steepest))
            falls = J < state.J
            # near the minimum J rounds more than it falls: there the slopes tell
            flattens = promised <= margin and J <= lowest + noise * abs(lowest) and steepest < steepest_before
            if math.isfinite(J) and math.isfinite(steepest) and (falls or flattens):
                ratio = (state.J - J) / promised if promised > margin else 1.0
                with state.commit():
                    state.damping = max(mu * max(1 / 3, 1 - (2 * min(ratio, 1.0) - 1) ** 3), least)
                    state.growth = 2.0
                    state.extra += passes
                    state.accept(J, steepest, line.evaluations)
                    state.arrived(lowest)
                return state.standstill(self.patience, self.tolerance)
            if promised <= RESOLUTION * abs(state.J):
                problem = f"a step that promises {promised:.2g} changes J = {state.J:.9g} below its precision"
                break
            mu, growth = mu * growth, growth * 2
        state.measured = steepest_before, state.evaluations + line.evaluations
        state.evaluations += line.evaluations
        state.extra += passes
        return self._stuck(state, problem, mu, line.evaluations, nonfinite)

    def _matrix(self, f: Any, state: LMState) -> tuple[np.ndarray, float]:
        curvature = f.curvature
        sampled = getattr(curvature, "sampled_matrix", None)
        if sampled is None or not self.rows_per_parameter:
            return curvature.matrix(state.Theta), curvature.matrix_passes
        rows = self.rows_per_parameter * parameters(curvature.layers)
        return sampled(state.Theta, rows, state.iteration)

    def _stuck(self, state: LMState, problem: str, mu: float, trials: int, nonfinite: int) -> Ending:
        numbers = f"max|∇J| = {state.steepest:.3g}, wanted {self.tolerance:g} or less"
        if not problem:
            problem = f"{trials} trials up to the damping {mu:.3g} found no decrease of J = {state.J:.9g}"
        if nonfinite:
            problem += f"; J or ∇J was not finite in {nonfinite} of the {trials} trials"
        if trials == nonfinite:
            return Ending("failed", f"failed: {problem}; {numbers}")
        return Ending("stalled", f"stalled: {problem}; {numbers}")


def parameters(layers: Sequence[Any]) -> int:
    """How many there are, gaps not counted."""
    return sum(one.outputs * (one.inputs + 1) for one in layers)


def where(layers: Sequence[Any], P: int) -> np.ndarray:
    """The places in a flat vector of the parameters of `Curvature.matrix`, in its order."""
    flat = np.arange(P)
    return np.concatenate([flat[part] for one in layers for part in (one.weights, one.biases)])


def damped(B: np.ndarray, g: np.ndarray, mu: float) -> tuple[np.ndarray, float]:
    """d with (B + μ I) d = −g, by Cholesky; and μ, raised as far as rounding of a B that is hardly definite needs."""
    shifted = B.copy()
    while True:
        shifted.reshape(-1)[:: len(B) + 1] = B.diagonal() + mu
        try:
            return solve(np.linalg.cholesky(shifted), -g), mu
        except np.linalg.LinAlgError:
            mu *= 10


def solve(L: np.ndarray, b: np.ndarray) -> np.ndarray:
    """x with L Lᵀ x = b, L lower triangular: by parts, since NumPy itself has no triangular solve."""
    x = b.copy()
    parts = [slice(at, at + PART) for at in range(0, len(b), PART)]
    for part in parts:
        x[part] = np.linalg.solve(L[part, part], x[part] - L[part, : part.start] @ x[: part.start])
    for part in reversed(parts):
        x[part] = np.linalg.solve(L[part, part].T, x[part] - L[part.stop :, part].T @ x[part.stop :])
    return x
