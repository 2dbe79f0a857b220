"""Is the gradient right? The slopes of J's tangents beside backpropagation's.

The slopes are differences of J itself (`gpubp.tangent`), of the plain float64 pass by NumPy: they know nothing of
backpropagation. Beside them stands the ∇J of the engine that is to be checked, at any precision.

- **Elements**: sampled ones of each Θ^(l), biases among them.
- **Directions**: the slope along v, random signs for all parameters of a layer, beside ∇J·v. It sees every element:
  where the gradient is off by e, the mean of (e·v)² over such v is ‖e‖².

A slope is known no better than J's rounding allows, and not at all where J has a kink (a relu at 0): what cannot be
judged is counted and said, and a layer of which nothing can be judged does not pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from .backend.numpy import NumpyBackend
from .counter_hash import hash_uniform
from .network import Network
from .objective import Objective
from .precision import precision
from .tangent import FIRST, Tangent, rounding, tangent

TOLERANCE = 1e-7  # of fp64: what differences in float64 can tell
FACTOR = 20  # of a coarser precision, times its `error`: healthy passes were off by 0.5 as a rule and by 6 at most
DIRECTIONS = 4  # of each layer, and of all together
_SPACING = 2.0**-33  # of Θ where rounding is measured
_HEALTHY = 10  # times what the plain float32 pass is off by here
Verdict = Literal["PASS", "FAIL", "UNDECIDED"]


def tolerance_of(name: str) -> float:
    """The relative error that an engine of that precision may have."""
    return TOLERANCE if name == "fp64" else FACTOR * precision(name).error


def reference(objective: Objective, precision: str = "fp64") -> Objective:
    """The plain pass by NumPy on the CPU, over the rows of another objective and with its λ."""
    backend = NumpyBackend(1)
    return Objective(objective.network, objective.rows, objective.lambda_, backend=backend, precision=precision)


@dataclass(frozen=True)
class Part:
    """What is known of the slopes of one Θ^(l), or of all together.

    Attributes:
        layer: l; 0 for all together.
        width: s_l + 1, the columns of Ng's Θ^(l).
        where: (n,) the places of its elements in the flat Θ, row after row.
        chosen: which of these were tried; of all together none.
        elements: the slope in each of those.
        signs: (directions, n) int8, the directions v.
        directions: the slope along each of them.
    """

    layer: int
    width: int
    where: np.ndarray
    chosen: np.ndarray
    elements: list[Tangent]
    signs: np.ndarray
    directions: list[Tangent]


@dataclass(frozen=True)
class Slopes:
    """The numerical gradient at a Θ.

    Attributes:
        noise: how much J is off by rounding, at most.
        parts: of each Θ^(l), and last of all together.
        sizes: ‖∇J^(l)‖ of the reference, for each part.
        rounded: how far the plain float32 pass is from it, relative, for each part: what rounding alone does here.
        evaluations: of J.
    """

    network: Network
    noise: float
    parts: list[Part]
    sizes: list[float]
    rounded: list[float]
    evaluations: int


@dataclass(frozen=True)
class LayerCheck:
    """One Θ^(l), or with l = 0 all together.

    Attributes:
        layer: l.
        elements: how many were tried; of them ``kinks`` lie where J has one, and ``unclear`` are those whose slope
            differences cannot tell well enough. The others were judged.
        error: ‖numerical − backprop‖ / (‖numerical‖ + ‖backprop‖) over those judged, the measure of the course's
            exercise 4; None where there are none.
        directional: likewise of the slopes along random signs for every element, by 2‖∇J^(l)‖; None where those cannot
            be told.
        uncertainty: how much of `error` may be the differences' own.
        dead: whether every element of backpropagation's gradient is 0. Errors are then relative to the whole gradient.
        worst: of the elements judged the one with the largest difference: row and column of Ng's Θ^(l) from 0, its
            name, and both values; None where there are none.
        verdict: "PASS", "FAIL", or "UNDECIDED" where nothing could be judged, or where the precision's own rounding is
            larger than the tolerance here.
        why: what is to be said of it, in words; "" if nothing.
    """

    layer: int
    elements: int
    kinks: int
    unclear: int
    error: float | None
    directional: float | None
    uncertainty: float | None
    dead: bool
    worst: dict[str, Any] | None
    verdict: Verdict
    why: str = ""

    @property
    def passed(self) -> bool:
        """Whether it was judged, and is right."""
        return self.verdict == "PASS"


@dataclass(frozen=True)
class GradientCheck:
    """A gradient beside the numerical one.

    Attributes:
        precision: of the pass that gave it.
        tolerance: the error that it may have.
        layers: each Θ^(l).
        whole: the directions through all of Θ.
    """

    precision: str
    tolerance: float
    layers: list[LayerCheck]
    whole: LayerCheck

    @property
    def verdict(self) -> Verdict:
        """The worst of the layers'; and "FAIL" where all of Θ together says so."""
        found = [layer.verdict for layer in self.layers]
        if "FAIL" in (*found, self.whole.verdict):
            return "FAIL"
        return "PASS" if all(one == "PASS" for one in found) else "UNDECIDED"

    def asdict(self) -> dict[str, Any]:
        """JSON-able."""
        layers = [{**asdict(layer), "passed": layer.passed} for layer in self.layers]
        whole = {"directional": self.whole.directional, "verdict": self.whole.verdict}
        return {
            "passed": self.verdict == "PASS", "verdict": self.verdict, "precision": self.precision,
            "tolerance": self.tolerance, "layers": layers, "whole": whole,
        }  # fmt: skip


def gradient_check(
    objective: Objective,
    Theta: np.ndarray,
    *,
    slopes: Slopes | None = None,
    elements: int = 20,
    seed: int = 0,
    tolerance: float | None = None,
) -> GradientCheck:
    """The ∇J of an objective, on whatever backend and at whatever precision, beside the numerical one.

    Args:
        Theta: flat, (P,).
        slopes: of the same rows, λ and Θ, where they are known; else they are taken here, with `elements` and `seed`.
        tolerance: the error that is allowed; that of the precision where absent.
    """
    if slopes is None:
        slopes = numerical_slopes(reference(objective), Theta, elements=elements, seed=seed)
    gradient = np.zeros(objective.network.P)
    objective.value_and_gradient(Theta, gradient)
    chosen = precision(objective.precision)
    limit = tolerance_of(chosen.name) if tolerance is None else tolerance
    # whoever says what is allowed does not ask what rounding makes of it
    coarser = chosen.error / precision("fp32").error if tolerance is None else 0.0
    found = [
        _judged(part, gradient, slopes, limit, _HEALTHY * coarser * rounded)
        for part, rounded in zip(slopes.parts, slopes.rounded, strict=True)
    ]
    return GradientCheck(chosen.name, limit, found[:-1], found[-1])


def numerical_slopes(objective: Objective, Theta: np.ndarray, *, elements: int = 20, seed: int = 0) -> Slopes:
    """The numerical gradient: of sampled elements of each Θ^(l), and along random signs.

    Args:
        objective: the reference, in fp64: see `reference`.
        Theta: flat, (P,).
        elements: how many of each layer, all of a smaller one; 0 for all.
        seed: which ones, and which signs.
    """
    network = objective.network
    gradient, rounded = np.zeros(network.P), np.zeros(network.P)
    J = objective.value_and_gradient(Theta, gradient)
    plain = reference(objective, "fp32")
    plain.value_and_gradient(Theta, rounded)
    plain.close()
    where = [w.astype(np.int64).ravel() for w in network.unpack(np.arange(network.P, dtype=np.float64))]
    where.append(np.concatenate(where))
    noise = rounding(_along(objective, Theta, where[-1], _signs(seed, 0, where[-1])), _SPACING / _root(len(where[-1])))

    def slope(places: np.ndarray, v: np.ndarray, wanted: float) -> Tangent:
        first = FIRST / _root(len(places))
        return tangent(_along(objective, Theta, places, v), J, noise, wanted=wanted, first=first)

    parts, sizes, off = [], [], []
    for l, places in enumerate(where, start=1):
        size = float(np.linalg.norm(gradient[places]))
        apart = float(np.linalg.norm(rounded[places] - gradient[places]))
        sizes.append(size)
        off.append(apart / (2 * size) if size else 0.0)
        enough = TOLERANCE / 20 * size  # of a direction; of an element what its share of the gradient is
        layer, width = (l, network.sizes[l - 1] + 1) if l < network.L else (0, 0)
        chosen = _sampled(places.size, width, elements, seed, l) if layer else np.zeros(0, np.int64)
        units = [slope(places[[i]], np.ones(1), enough / math.sqrt(places.size)) for i in chosen]
        signs = np.stack([_signs(seed, k, places) for k in range(DIRECTIONS)])
        parts.append(Part(layer, width, places, chosen, units, signs, [slope(places, v, enough) for v in signs]))
    evaluations = sum(one.evaluations for part in parts for one in (*part.elements, *part.directions))
    return Slopes(network, noise, parts, sizes, off, evaluations)


def _along(objective: Objective, Theta: np.ndarray, places: np.ndarray, v: np.ndarray) -> Callable[[float], float]:
    """J(Θ + by·v), v being 0 elsewhere than in these places."""
    shifted = Theta.copy()

    def J(by: float) -> float:
        shifted[places] = Theta[places] + by * v
        return float(objective.value(shifted))

    return J


def _signs(seed: int, k: int, places: np.ndarray) -> np.ndarray:
    """Random signs for these places of Θ, (n,) int8: whatever the part, a place has its own."""
    drawn = hash_uniform(seed, f"direction {k} of a check", places.astype(np.uint64))
    return np.where(drawn < 0.5, -1, 1).astype(np.int8)


def _root(count: int) -> float:
    """The square root, as a power of two near it: steps stay numbers that Θ + h seldom rounds."""
    return 2.0 ** round(math.log2(max(count, 1)) / 2)


def _sampled(size: int, width: int, count: int, seed: int, l: int) -> np.ndarray:
    """Which elements of Ng's Θ^(l) are tried, at least one bias among them; with a count of 0 all."""
    order = np.argsort(hash_uniform(seed, f"gradient check {l}", np.arange(size, dtype=np.uint64)), kind="stable")
    chosen = order[: count or size]
    if not np.any(chosen % width == 0):
        chosen[-1] = int(chosen[-1]) // width * width
    return chosen


def _judged(part: Part, gradient: np.ndarray, slopes: Slopes, limit: float, healthy: float) -> LayerCheck:
    """A gradient beside the slopes of one part.

    Args:
        gradient: flat, of the engine that is checked.
        limit: the relative error that is allowed.
        healthy: the one that rounding alone may make here.
    """
    own = gradient[part.where]
    dead = not own.any()
    size = slopes.sizes[-1] if dead else float(np.linalg.norm(own))
    tried = _Compared.of(part.elements, own[part.chosen], 2 * size if dead else 0.0)
    whole = _Compared.of(part.directions, part.signs @ own, 2 * size * math.sqrt(len(part.directions)))
    clear, whole_clear = tried.clear(limit), whole.clear(limit)
    error, uncertainty = tried.error(clear), tried.uncertainty(clear)
    directional = whole.error(whole_clear)
    errors = [one for one in (error, directional) if one is not None]
    worst = None
    if clear.size:
        i = clear[int(tried.apart[clear].argmax())]
        row, column = divmod(int(part.chosen[i]), part.width)
        worst = {
            "row": row, "column": column, "name": _name(part.layer, row + 1, column),
            "numerical": float(tried.numerical[i]), "backprop": float(tried.backprop[i]),
        }  # fmt: skip
    beyond = max(tried.beyond(), whole.beyond())
    said = []
    verdict: Verdict = "UNDECIDED"
    if beyond > max(limit, healthy) or (errors and max(errors) > max(limit, healthy)):
        verdict = "FAIL"
    elif errors and max(errors) <= limit:
        verdict = "PASS"
    elif errors:
        said.append(f"rounding at this precision alone makes {healthy / _HEALTHY:.1e} of error here")
    elif tried.kinks.all() and tried.kinks.size and tried.between():
        verdict = "PASS"
        said.append("judged by lying between the slopes to the left and to the right")
    kinks, unclear = int(tried.kinks.sum()), int((~tried.kinks).sum()) - clear.size
    if dead:
        said.append(
            "dead: backpropagation's gradient is 0 in every element, and errors are parts of the whole gradient"
        )
    if kinks:
        said.append(f"{kinks} of {tried.kinks.size} elements lie where J has a kink, and are not judged")
    if unclear:
        said.append(
            f"{unclear} of {tried.kinks.size} elements have slopes too small beside J's rounding, {slopes.noise:.1e}"
        )
    if directional is None:
        crossed = "meets a kink" if whole.kinks.all() else "is too flat beside J's rounding, or meets a kink"
        said.append(f"every direction {crossed}: elements that were not tried are not judged")
    return LayerCheck(
        part.layer, len(part.elements), kinks, unclear, error, directional, uncertainty, dead, worst, verdict,
        "; ".join(said),
    )  # fmt: skip


@dataclass(frozen=True)
class _Compared:
    """Slopes beside what backpropagation says, (n,) each; `scale` what errors are parts of, 0 for their own norms."""

    numerical: np.ndarray
    backprop: np.ndarray
    unsure: np.ndarray
    kinks: np.ndarray
    scale: float

    @classmethod
    def of(cls, tangents: Sequence[Tangent], backprop: np.ndarray, scale: float) -> _Compared:
        slope = np.array([one.slope for one in tangents], float)
        unsure = np.array([one.uncertainty for one in tangents], float)
        kinks = np.array([one.kink for one in tangents], bool)
        return cls(slope, backprop, unsure, kinks, scale)

    @property
    def apart(self) -> np.ndarray:
        return np.abs(self.numerical - self.backprop)

    def clear(self, limit: float) -> np.ndarray:
        """Which can be judged: as many as there can be whose uncertainty in all is half of the limit."""
        smooth = np.flatnonzero(~self.kinks & np.isfinite(self.numerical))
        order = smooth[np.argsort(self.unsure[smooth], kind="stable")]
        size = _norms(self.numerical[order]) + _norms(self.backprop[order])
        scale = np.full(len(order), self.scale) if self.scale else size
        good = np.flatnonzero((_norms(self.unsure[order]) <= limit / 2 * scale) & (scale > 0))
        return order[: good[-1] + 1] if good.size else order[:0]

    def error(self, which: np.ndarray) -> float | None:
        return float(np.linalg.norm(self.apart[which])) / self._scale(which) if which.size else None

    def uncertainty(self, which: np.ndarray) -> float | None:
        return float(np.linalg.norm(self.unsure[which])) / self._scale(which) if which.size else None

    def beyond(self) -> float:
        """The error that is there for sure, of all that are no kinks."""
        smooth = np.flatnonzero(~self.kinks & np.isfinite(self.numerical))
        sure = np.maximum(self.apart[smooth] - 3 * self.unsure[smooth], 0)
        scale = self._scale(smooth)
        return float(np.linalg.norm(sure)) / scale if scale else 0.0

    def between(self) -> bool:
        """Whether all lie between the slope to the left and that to the right."""
        return bool(np.all(self.apart <= self.unsure))  # at a kink that has half of the jump in it

    def _scale(self, which: np.ndarray) -> float:
        return self.scale or float(np.linalg.norm(self.numerical[which]) + np.linalg.norm(self.backprop[which]))


def _norms(v: np.ndarray) -> np.ndarray:
    """Of the first element, the first two, …"""
    return np.sqrt(np.cumsum(v * v))


def _name(layer: int, to: int, from_: int) -> str:
    """Ng's: Θ_12^(2), with a comma where an index has two digits; from 0, the bias unit."""
    return f"Θ_{to}{',' if max(to, from_) > 9 else ''}{from_}^({layer})"
