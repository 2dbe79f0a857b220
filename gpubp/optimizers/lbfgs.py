"""L-BFGS: a quasi-Newton method that remembers the last few steps instead of a matrix.

Nocedal and Wright, Numerical Optimization, 2nd ed. 2006 (N&W), Algorithms 7.4 (the direction) and 7.5 (the step):

    Θ_{k+1} = Θ_k + α d,   d = −H ∇J(Θ_k)

where H is the BFGS update (N&W eq. 6.17, 7.16) of γI by the last `history` pairs

    s = Θ_{k+1} − Θ_k,   y = ∇J(Θ_{k+1}) − ∇J(Θ_k),   ρ = 1/sᵀy,   γ = sᵀy/yᵀy of the newest pair (eq. 7.20)

and α meets the strong Wolfe conditions (`line_search`). After the first step α = 1 is nearly always accepted, so an
iteration costs one evaluation.

The pairs live in two rings, S and Y: pair number i is row i mod history.

H∇J is made of ∇J and the pairs, so the two-loop recursion can run on their coefficients alone, once the products of all
with all are known (W. Chen, Z. Wang, J. Zhou, Large-scale L-BFGS using MapReduce, NIPS 2014, with Sᵀg, Yᵀg and the
matrices SᵀY, YᵀY). Those with older pairs are kept, so a step goes over S and Y twice: once for their products with the
newest y and ∇J, and once for the sum. Each product is one sum and each element of the sum another, so threads may
share them without changing a bit. Written on vectors, the recursion has an order that allows no threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from .base import FILLED, SCRATCH, Ending, Function, Optimizer, dot, max_abs
from .line import Line, LineState
from .line_search import Search, wolfe

# A pair whose s and y are closer to a right angle than this carries rounding, not curvature: with condition number κ
# the cosine of a quadratic is 2√κ/(κ + 1) at least.
SMALLEST_COSINE = 1e-10


@dataclass(kw_only=True)
class LBFGSState(LineState):
    """Θ, the rings of pairs, and what shows a standstill.

    Attributes:
        S, Y: the pairs, (history, P) float64.
        rho: ρ of each pair, (history,) float64.
        gamma: γ of the newest pair.
        pairs: pairs stored since the last restart; the last `history` of them are in the rings.
        lowest: the lowest J of the run.
        flattest: the smallest max|∇J| of the run.
        idle: iterations since either of them fell.
        SY, YY: SᵀY and YᵀY, (history, history) scratch: of pairs i and j at [i mod history, j mod history]; SᵀY where i
            is not newer than j. They follow from S and Y, bit for bit.
        known: scratch: the pairs whose products are in them.
        product: (P,) scratch.
    """

    S: np.ndarray = field(metadata={FILLED: "pairs"})
    Y: np.ndarray = field(metadata={FILLED: "pairs"})
    rho: np.ndarray
    gamma: float = 1.0
    pairs: int = 0
    lowest: float = math.inf
    flattest: float = math.inf
    idle: int = 0
    SY: np.ndarray = field(metadata=SCRATCH)
    YY: np.ndarray = field(metadata=SCRATCH)
    known: int = field(default=0, metadata=SCRATCH)
    product: np.ndarray = field(metadata=SCRATCH)

    def times_H(self, g: np.ndarray, out: np.ndarray, threads: int) -> None:
        """out = H g: the two-loop recursion, N&W Algorithm 7.4, on coefficients. (P,) float64; there is a pair."""
        S, Y, history = self.S, self.Y, len(self.S)
        rows = [pair % history for pair in range(max(0, self.pairs - history), self.pairs)]  # the oldest first
        unknown = [pair % history for pair in range(max(self.known, self.pairs - len(rows)), self.pairs)]
        vectors = [g, *(Y[j] for j in unknown)]

        def products(row: np.ndarray) -> list[float]:
            return [np.dot(row, v) for v in vectors]

        done = np.array(shared(products, [*(S[i] for i in rows), *(Y[i] for i in rows)], len(g), threads))
        (Sg, Yg), *columns = done.T.reshape(len(vectors), 2, len(rows))
        for j, (Sy, Yy) in zip(unknown, columns, strict=True):
            older = rows[: (n := rows.index(j) + 1)]
            self.SY[older, j] = Sy[:n]
            self.YY[older, j] = self.YY[j, older] = Yy[:n]
        self.known = self.pairs
        p, q = np.zeros(history), np.zeros(history)
        with np.errstate(over="ignore", invalid="ignore"):
            p[rows], q[rows] = self._coefficients(rows, Sg, Yg)

        def combined(piece: slice) -> None:
            with np.errstate(over="ignore", invalid="ignore"):  # each thread has its own
                r = np.multiply(g[piece], self.gamma, out=out[piece])
                r += p @ S[:, piece]
                r += q @ Y[:, piece]

        shared(combined, [slice(at, at + PIECE) for at in range(0, len(g), PIECE)], len(g), threads)

    def _coefficients(self, rows: list[int], Sg: np.ndarray, Yg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """p and q of H g = γ g + Σ p_k s_k + Σ q_k y_k, the oldest pair first."""
        SY, YY, rho = self.SY[np.ix_(rows, rows)], self.YY[np.ix_(rows, rows)], self.rho[rows]
        a, p = np.zeros(len(rows)), np.zeros(len(rows))
        for k in range(len(rows) - 1, -1, -1):  # r = g − Σ a y of the newer pairs;  a = ρ sᵀr
            a[k] = rho[k] * (Sg[k] - np.dot(SY[k, k + 1 :], a[k + 1 :]))
        q = -self.gamma * a
        Yr = self.gamma * Yg + YY @ q
        for k in range(len(rows)):  # r = γ(g − Σ a y) + Σ (a − b) s of the older pairs;  b = ρ yᵀr
            p[k] = a[k] - rho[k] * (Yr[k] + np.dot(SY[:k, k], p[:k]))
        return p, q

    def remember(self) -> None:
        """Store the pair of the step from Θ to the trial in place of the oldest, if it carries curvature."""
        s = np.subtract(self.trial, self.Theta, out=self.direction)
        y = np.subtract(self.trial_gradient, self.gradient, out=self.product)
        sy, ss, yy = dot(s, y), dot(s, s), dot(y, y)
        if yy > 0 and sy > SMALLEST_COSINE * math.sqrt(ss) * math.sqrt(yy):
            row = self.pairs % len(self.S)
            self.S[row], self.Y[row], self.rho[row] = s, y, 1 / sy
            self.gamma = sy / yy
            self.pairs += 1


PIECE = 8192  # elements: of 2 × 30 pairs, 4 MB
LONG = 1 << 16  # elements from which threads are worth waking


def shared(work: Callable[[Any], Any], tasks: list[Any], P: int, threads: int) -> list[Any]:
    """``[work(task) for task in tasks]``, by threads where vectors of P elements are long."""
    threads = min(threads, len(tasks))
    if threads <= 1 or P < LONG:
        return [work(task) for task in tasks]
    groups = [tasks[i * len(tasks) // threads : (i + 1) * len(tasks) // threads] for i in range(threads)]
    done = _pool(threads).map(lambda group: [work(task) for task in group], groups)
    return [result for group in done for result in group]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "gpubp")


@dataclass(frozen=True, kw_only=True)
class LBFGS(Optimizer[LBFGSState]):
    """L-BFGS with a strong-Wolfe line search.

    Attributes:
        history: pairs remembered. A pair costs 16 bytes for each parameter.
        c1, c2: the constants of the line search, 0 < c₁ < c₂ < 1.
        max_trials: evaluations of one line search.
        noise: ν, the relative rounding of a difference of J. J never rises by more than ν|J| above its lowest; with 0
            it never rises at all. None: what the function says of itself, or 1e-7, which suits float32 passes.
        patience: iterations without a lower J or a smaller max|∇J| after which the run has stalled. It can only count
            where J no longer tells points apart.
    """

    history: int = 30
    c1: float = 1e-4
    c2: float = 0.9
    max_trials: int = 20
    noise: float | None = None
    patience: int = 20

    def check(self) -> None:
        self.require(self.history >= 1, "history", "1 or more")
        self.require(0 < self.c1 < 1, "c1", "a number between 0 and 1")
        self.require(self.c1 < self.c2 < 1, "c2", f"a number between c1 = {self.c1:g} and 1")
        self.require(self.max_trials >= 1, "max_trials", "1 or more")
        self.require(self.noise is None or 0 <= self.noise < 1, "noise", "0 or more, below 1")
        self.require(self.patience >= 1, "patience", "1 or more")

    def blank(self, P: int) -> LBFGSState:
        Theta, gradient, direction, trial, trial_gradient, product = (np.zeros(P) for _ in range(6))
        return LBFGSState(
            Theta=Theta,
            gradient=gradient,
            S=np.zeros((self.history, P)),
            Y=np.zeros((self.history, P)),
            rho=np.zeros(self.history),
            SY=np.zeros((self.history, self.history)),
            YY=np.zeros((self.history, self.history)),
            direction=direction,
            trial=trial,
            trial_gradient=trial_gradient,
            product=product,
        )

    def renew(self, f: Function, state: LBFGSState) -> None:
        super().renew(f, state)
        state.lowest, state.flattest, state.idle = math.inf, math.inf, 0

    def advance(self, f: Function, state: LBFGSState) -> Ending | None:
        if state.idle >= self.patience:
            return self._stalled(state)  # so it was saved
        line = Line(f, state)
        lowest, pairs = min(state.lowest, state.J), state.pairs
        threads = int(getattr(f, "threads", 1))
        search = self._search(line, state, lowest, pairs, threads)
        if search.problem and pairs:
            pairs = 0  # the pairs may be what misleads: once more without them
            search = self._search(line, state, lowest, pairs, threads)
        if not search.problem:
            line.settle(search.alpha)
        state.evaluations += line.evaluations
        if search.problem:
            return self._stuck(state, search)
        if pairs != state.pairs:
            state.pairs, state.known = pairs, 0
        state.remember()
        state.accept(search.J)
        return self._standstill(state, lowest)

    def _search(self, line: Line, state: LBFGSState, lowest: float, pairs: int, threads: int) -> Search:
        """Search along −H∇J with the newest `pairs` pairs, along −∇J without any."""
        alpha = 1.0
        if pairs:
            state.times_H(state.gradient, state.direction, threads)
            np.negative(state.direction, out=state.direction)
        else:
            np.negative(state.gradient, out=state.direction)
            with np.errstate(over="ignore"):
                alpha = min(1.0, 1 / float(np.abs(state.gradient).sum()))
        slope = dot(state.gradient, state.direction)
        noise = float(getattr(line.f, "noise", 1e-7)) if self.noise is None else self.noise
        return wolfe(
            line, state.J, slope, alpha,
            c1=self.c1, c2=self.c2, max_trials=self.max_trials, noise=noise, lowest=lowest,
        )  # fmt: skip

    def _stuck(self, state: LBFGSState, search: Search) -> Ending:
        steepest = max_abs(state.gradient)
        numbers = f"max|∇J| = {steepest:.3g}, wanted {self.tolerance:g} or less"
        overflown = not math.isfinite(dot(state.gradient, state.gradient))
        if overflown or 0 < search.trials == search.nonfinite:
            return Ending("failed", f"failed: {search.problem}; {numbers}")
        return Ending("stalled", f"stalled: straight against the gradient, {search.problem}; {numbers}")

    def _standstill(self, state: LBFGSState, lowest: float) -> Ending | None:
        steepest = max_abs(state.gradient)
        falls = state.J < lowest or steepest < state.flattest
        state.idle = 0 if falls else state.idle + 1
        state.lowest, state.flattest = min(lowest, state.J), min(state.flattest, steepest)
        return self._stalled(state) if state.idle >= self.patience else None

    def _stalled(self, state: LBFGSState) -> Ending:
        steepest = max_abs(state.gradient)
        return Ending(
            "stalled",
            f"stalled: for {state.idle} iterations neither J = {state.J:.9g} (lowest {state.lowest:.9g}) nor "
            f"max|∇J| = {steepest:.3g} (smallest {state.flattest:.3g}) has fallen, so rounding is all that is left "
            f"of their differences; wanted max|∇J| = {self.tolerance:g} or less",
        )
