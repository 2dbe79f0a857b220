"""Is the gradient right? Numerical slopes beside backpropagation's."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from .counter_hash import hash_uniform
from .objective import Objective

# A trained network's slopes are small beside J, so a plain central difference drowns in J's rounding, about 1e-16/h.
# The five-point formula has a truncation error of h⁴ J⁽⁵⁾/30 and can afford a larger h; which is best depends on the
# network.
STEPS = (1e-2, 3e-3, 1e-3, 3e-4)
TOLERANCE = 1e-7


@dataclass(frozen=True)
class LayerCheck:
    """One Θ^(l): how many elements were tried and how far apart both gradients are.

    `error` is ‖numerical − backprop‖ / (‖numerical‖ + ‖backprop‖), the measure of the course's exercise 4; `worst` is
    the element (row, column of Ng's Θ^(l)) with the largest difference, with both values.
    """

    layer: int
    elements: int
    error: float
    worst: dict[str, Any]

    @property
    def passed(self) -> bool:
        return self.error <= TOLERANCE


def gradient_check(objective: Objective, Theta: np.ndarray, *, elements: int = 20, seed: int = 0) -> list[LayerCheck]:
    """Finite differences of J against ∇J, on sampled elements of each Θ^(l), biases among them.

    Args:
        objective: in fp64; in a lower precision the differences drown in rounding.
        Theta: flat, (P,).
        elements: how many elements per layer (all of a smaller layer).
        seed: which ones.
    """
    network = objective.network
    gradient = np.zeros(network.P)
    objective.value_and_gradient(Theta, gradient)
    backprop = network.unpack(gradient)
    where = network.unpack(np.arange(network.P, dtype=np.float64))  # the flat index of each element of Ng's matrices
    checks = []
    for l, (D, flat) in enumerate(zip(backprop, where, strict=True), start=1):
        order = np.argsort(hash_uniform(seed, f"gradient check {l}", np.arange(D.size, dtype=np.uint64)), kind="stable")
        chosen = order[:elements]
        if not np.any(chosen % D.shape[1] == 0):
            chosen[-1] = int(chosen[-1]) // D.shape[1] * D.shape[1]  # at least one bias
        numerical = np.array([_slope(objective, Theta, int(flat.flat[i])) for i in chosen])
        analytic = D.ravel()[chosen]
        apart = np.abs(numerical - analytic)
        size = float(np.linalg.norm(numerical) + np.linalg.norm(analytic))
        i = int(apart.argmax())
        row, column = divmod(int(chosen[i]), D.shape[1])
        worst = {"row": row, "column": column, "numerical": float(numerical[i]), "backprop": float(analytic[i])}
        checks.append(LayerCheck(l, len(chosen), float(np.linalg.norm(apart)) / size if size else 0.0, worst))
    return checks


def _slope(objective: Objective, Theta: np.ndarray, i: int) -> float:
    """∂J/∂Θ_i by (8[J(h) − J(−h)] − [J(2h) − J(−2h)]) / 12h, for the h that the next smaller one changes least."""
    shifted = Theta.copy()

    def J(by: float) -> float:
        shifted[i] = Theta[i] + by
        return objective.value(shifted)

    slopes = [(8 * (J(h) - J(-h)) - (J(2 * h) - J(-2 * h))) / (12 * h) for h in STEPS]
    change = [abs(a - b) for a, b in pairwise(slopes)]
    return slopes[change.index(min(change))]
