"""L-BFGS that begins with a Kronecker-factored inverse instead of a multiple of the identity.

    Θ_{k+1} = Θ_k + α d,   d = −H ∇J(Θ_k)

where H is the BFGS update of γP by the last `history` pairs (`lbfgs`, whose two-loop recursion and line search these
are; Nocedal and Wright 2006, Algorithm 7.4 with H⁰_k = γP), P the damped inverse of the Gauss–Newton matrix in
Kronecker factors (`kronecker`; Martens and Grosse 2015), and γ = sᵀy/yᵀPy of the newest pair. What L-BFGS has to learn
of the curvature in hundreds of steps, P tells it at once; what P leaves out, the pairs correct, so far fewer suffice.

The factors come from a sample of the rows, so a new P costs a fraction of a pass and some decompositions. It is found
at the beginning, anew after 2, 5, 10 and 20 iterations, and then every `refresh`, less often where that would cost more
than `share` of all work. Pairs are kept: with a new P only their P y are new.

A function that has no factors (`curvature`) is met with plain L-BFGS.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .base import FILLED, SCRATCH, Function
from .curvature import Curvature, Factors, Layer
from .kronecker import Kronecker, level
from .line_search import Search
from .pairs import PairsState, QuasiNewton
from .vectors import HOST, Vectors

EARLY = 2, 5, 10, 20  # iterations after which P is found anew, before `refresh` takes over


@dataclass(kw_only=True)
class KLBFGSState(PairsState):
    """L-BFGS's, and what P is made of.

    Attributes:
        PY: P y of each pair, (history, P).
        Pg: P ∇J(Θ), (P,).
        factors: A^(1), G^(1), A^(2), …, (F,) float64, of the last refresh.
        shares: what is added to the diagonal of each A, (layers,) float64; see `Kronecker.shares`.
        damping: that of P.
        draws: how often factors were found.
        due: the iteration after which they are found anew.
        trial_Pg, P_change: P of ∇J and of the change of ∇J at the last point tried, (P,) scratch. The second is also
            where P of any other vector goes.
        kronecker, curvature, ready: scratch: P, where its factors come from, and whether it is that of `factors`.
    """

    PY: Any = field(metadata={FILLED: "pairs"})
    Pg: Any
    factors: np.ndarray = field(default_factory=lambda: np.zeros(0))
    shares: np.ndarray = field(default_factory=lambda: np.zeros(0))
    damping: float = 0.0
    draws: int = 0
    due: int = 0
    trial_Pg: Any = field(metadata=SCRATCH)
    P_change: Any = field(metadata=SCRATCH)
    kronecker: Kronecker | None = field(default=None, metadata=SCRATCH)
    curvature: Curvature | None = field(default=None, metadata=SCRATCH)
    ready: bool = field(default=False, metadata=SCRATCH)

    @property
    def Z(self) -> Any:
        return self.PY if self.kronecker else self.Y

    def times_P(self, g: Any) -> Any:
        if self.kronecker is None:
            return g
        if g is self.gradient:
            return self.Pg
        self.P.apply(g, self.P_change)
        return self.P_change

    def foresee_P(self) -> tuple[Any, Any]:
        if self.kronecker is None:
            return super().foresee_P()
        self.P.apply(self.trial_gradient, self.trial_Pg)
        self.vectors.subtract(self.trial_Pg, self.Pg, out=self.P_change)
        return self.P_change, self.trial_Pg

    def store(self, j: int) -> None:
        super().store(j)
        if self.kronecker:
            self.vectors.copy(self.P_change, self.PY[j])

    def versions(self) -> dict[str, Sequence[Hashable]]:
        found = super().versions()
        return {**found, "PY": [(self.draws, store) for store in found["Y"]]}  # `take` makes all of them anew

    def accept(self, J: float, steepest: float, evaluations: int) -> None:
        self.Pg, self.trial_Pg = self.trial_Pg, self.Pg
        super().accept(J, steepest, evaluations)

    @property
    def P(self) -> Kronecker:
        """P, made of the factors if it is not there yet, as after a restore."""
        assert self.kronecker is not None
        if not self.ready:
            assert self.curvature is not None
            A, G = self._split()
            self.kronecker.set(A, G, level(A, G, self.damping, self.curvature.decay), self.shares)
            self.ready = True
        return self.kronecker

    def take(self, factors: Factors, g: Any, Pg: Any) -> float:
        """P is from now on that of these factors, and so is all that was made of the old one.

        Args:
            g, Pg: a gradient, and where P of it goes.

        Returns:
            What it cost, in passes.
        """
        assert self.kronecker is not None and self.curvature is not None
        kept = self.kronecker
        same = self.draws > 0 and np.array_equal(self._split()[0][0], factors.A[0])
        parts = [part.ravel() for pair in zip(factors.A, factors.G, strict=True) for part in pair]
        np.concatenate(parts, out=self.factors)
        A, G = self._split()
        if not np.isfinite(self.factors).all():  # units so far gone tell nothing
            same = False
            for factor in (*A, *G):
                factor[...] = np.eye(len(factor)) if factor.ndim == 2 else 1.0
        mu = level(A, G, self.damping, self.curvature.decay)
        shares = kept.shares(A, G, mu, self.shares, same)
        stays = same and bool(shares[0] == self.shares[0])
        self.shares[...] = shares
        operations = kept.set(A, G, mu, shares, kept=stays)
        self.ready = True
        self.draws += 1
        rows = self.rows(self.pairs)
        for j in rows:
            self.vectors.copy(self.Y[j], self.change)
            kept.apply(self.change, self.P_change)
            self.vectors.copy(self.P_change, self.PY[j])
        kept.apply(g, Pg)
        if rows:
            (zy,) = self.vectors.read(self.vectors.dot(self.PY[rows[-1]], self.Y[rows[-1]]))
            if zy > 0:
                self.gamma = 1 / (float(self.rho[rows[-1]]) * zy)
        self.known, self.fresh = 0, False
        operations += kept.operations * (len(rows) + 1)
        return factors.passes + operations / self.curvature.operations

    def _split(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The factors A and G of each layer."""
        assert self.curvature is not None
        found: list[np.ndarray] = []
        at = 0
        for shape in _shapes(self.curvature.layers):
            size = int(np.prod(shape))
            found.append(self.factors[at : at + size].reshape(shape))
            at += size
        return found[::2], found[1::2]


@dataclass(frozen=True, kw_only=True)
class KLBFGS(QuasiNewton[KLBFGSState]):
    """L-BFGS on a Kronecker-factored inverse.

    Attributes:
        history: pairs remembered. A pair costs 24 bytes for each parameter.
        damping: of P, as a part of the factors' mean eigenvalue.
        refresh: iterations after which P is found anew.
        share: the most that finding P may cost, as a part of all work since it was found last.
    """

    history: int = 8
    damping: float = 0.3
    refresh: int = 20
    share: float = 0.25

    def check(self) -> None:
        super().check()
        self.require(self.damping > 0, "damping", "above 0")
        self.require(self.refresh >= 1, "refresh", "1 or more")
        self.require(self.share > 0, "share", "above 0")

    def within(self, P: int, memory: int) -> tuple[KLBFGS, str]:
        return self._shortened(P, memory, 24)

    def remark(self, f: Any) -> str:
        curvature = _factored(f)
        if curvature is None:
            return "plain L-BFGS, for the cost does not tell how it curves"
        wide = [
            f"{size:,} {what} of layer {number}"
            for number, layer in enumerate(curvature.layers, start=1)
            for size, what, full in zip((layer.inputs, layer.outputs), ("inputs", "outputs"), layer.full, strict=True)
            if not full
        ]
        return f"of the {', the '.join(wide)} only the diagonal of the curvature's factor" if wide else ""

    def blank(self, P: int, vectors: Vectors = HOST) -> KLBFGSState:
        return KLBFGSState(
            **self._buffers(P, vectors),
            PY=vectors.matrix(self.history, P),
            Pg=vectors.zeros(P),
            damping=self.damping,
            trial_Pg=vectors.zeros(P),
            P_change=vectors.zeros(P),
        )

    def equip(self, f: Function, state: KLBFGSState) -> None:
        curvature = _factored(f)
        if curvature is None:
            return
        layers = curvature.layers
        state.factors = np.zeros(sum(int(np.prod(shape)) for shape in _shapes(layers)))
        state.shares = np.zeros(len(layers))
        state.curvature = curvature
        state.kronecker = Kronecker(layers, state.vectors)

    def begin(self, f: Function, state: KLBFGSState) -> None:
        if state.curvature is not None:
            state.extra += state.take(state.curvature.factors(state.Theta, 0), state.gradient, state.Pg)
            state.due = EARLY[0]

    def renew(self, f: Function, state: KLBFGSState) -> None:
        super().renew(f, state)
        state.curvature = _factored(f)
        if state.curvature is not None and state.kronecker is not None:
            state.kronecker = Kronecker(state.curvature.layers, state.vectors)
            state.ready = False
            state.P.apply(state.gradient, state.Pg)

    def aim(self, f: Function, state: KLBFGSState) -> tuple[float, float] | None:
        if state.kronecker is None or state.pairs:
            return super().aim(f, state)
        state.vectors.combine(-1.0, 1.0, state.Pg, (), state.direction)
        (slope,) = state.vectors.read(state.vectors.dot(state.gradient, state.direction))
        return slope, 1.0

    def consider(self, f: Function, state: KLBFGSState, search: Search) -> Factors | None:
        curvature = _factored(f)  # and not the state's: after a climb that is one which no request to stop interrupts
        if curvature is None or state.kronecker is None or state.iteration + 1 < state.due:
            return None
        return curvature.factors(state.trial, state.draws)

    def learn(self, state: KLBFGSState, search: Search, foreseen: Sequence[Any], considered: Factors | None) -> None:
        super().learn(state, search, foreseen, considered)
        if state.kronecker is None or state.curvature is None:
            return
        applied = search.trials if state.vectors.early else 1  # of every trial, where numbers are asked for early
        state.extra += applied * state.kronecker.operations / state.curvature.operations
        if considered is not None:
            cost = state.take(considered, state.trial_gradient, state.trial_Pg)
            state.extra += cost
            done = state.iteration + 1
            later = [at for at in EARLY if at > done]
            wait = max(later[0] - done if later else self.refresh, int(cost / self.share))
            state.due = done + wait


def _factored(f: Any) -> Curvature | None:
    curvature = getattr(f, "curvature", None)
    return curvature if curvature is not None and curvature.factored else None


def _shapes(layers: Sequence[Layer]) -> list[tuple[int, ...]]:
    """Of A^(1), G^(1), A^(2), …"""
    return [
        (size, size) if full else (size,)
        for layer in layers
        for size, full in zip((layer.inputs + 1, layer.outputs), layer.full, strict=True)
    ]
