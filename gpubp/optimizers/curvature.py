"""What an optimizer may ask of how J curves: products with its Gauss–Newton matrix, that matrix, Kronecker factors.

    B(Θ) = 1/Σw Σ_t w_t (∂z_t/∂Θ)ᵀ H_t (∂z_t/∂Θ)  +  λ/Σw on the weights, 0 on the biases

z_t is what the last layer computes from row t and H_t how that row's cost curves in it (`gpubp.cost`). B is positive
semidefinite, and near a good fit it is the Hessian (Schraudolph, Fast curvature matrix-vector products, Neural
Computation 14 (2002) 1723–1738).

A function that can tell has an attribute `curvature`, of this protocol; one that has none, as a test function, is met
by optimizers that need it with a sentence, and by those that can do without as a plain function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Layer:
    """Where the parameters of one layer lie in a flat vector.

    Attributes:
        weights: of W^(l), row after row.
        biases: of b^(l).
        outputs, inputs: W's shape (s_{l+1}, s_l).
        full: whether the factor A of its inputs, and G of its outputs, is a full matrix or its diagonal.
    """

    weights: slice
    biases: slice
    outputs: int
    inputs: int
    full: tuple[bool, bool] = (True, True)


@dataclass(frozen=True)
class Factors:
    """Kronecker factors of B without λ: of layer l about A ⊗ G (Martens and Grosse 2015, eq. 1).

    Each is a full matrix, float64, or where the layer is too wide for that its diagonal alone, a vector.

    Attributes:
        A: of each layer the second moments of (1, a^(l)), the bias's 1 first: (s_l + 1, s_l + 1) or (s_l + 1,).
        G: those of δ^(l+1) for random signs: (s_{l+1}, s_{l+1}) or (s_{l+1},).
        passes: what they cost, in passes for J and ∇J.
    """

    A: Sequence[np.ndarray]
    G: Sequence[np.ndarray]
    passes: float


class Curvature(Protocol):
    """How J curves at a Θ. Vectors are (P,) float64 and live where the function's do.

    Attributes:
        layers: where the layers' parameters lie; between them a vector has gaps, where B is 0.
        factored: whether it has `factors`.
        decay: λ/Σw.
        operations: arithmetic operations of a pass for J and ∇J.
        product_passes, matrix_passes: what `product` and `matrix` cost, in passes for J and ∇J, by arithmetic.
    """

    layers: Sequence[Layer]
    factored: bool
    decay: float
    operations: float
    product_passes: float
    matrix_passes: float

    def product(self, Theta: Any, v: Any, out: Any) -> None:
        """out ← B(Θ) v, over all rows: exact."""
        ...

    def matrix(self, Theta: Any) -> np.ndarray:
        """B(Θ) over all rows, in NumPy's memory: (p, p) float64, p the number of parameters without gaps.

        Parameters are in the order of `layers`: weights, then biases of each.
        """
        ...

    def factors(self, Theta: Any, draw: int) -> Factors:
        """The Kronecker factors at Θ.

        Args:
            draw: whose random signs; equal draws at equal Θ give equal bits.
        """
        ...
