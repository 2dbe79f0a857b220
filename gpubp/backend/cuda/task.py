"""What a fused kernel is made for: everything its text depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from ...errors import BackendError
from ...formula import Formula
from .. import kernels
from .shape import Layout

Precision = Literal["tf32", "tf32x3", "bf16"]


class Activation(Protocol):
    """What is needed of a `gpubp.activation.Activation`, which this floor does not know."""

    @property
    def g(self) -> Formula: ...
    @property
    def slope(self) -> Formula: ...
    @property
    def slope_from_a(self) -> bool: ...


class Cost(Protocol):
    """What is needed of a `gpubp.cost.Cost`."""

    @property
    def score(self) -> Formula: ...
    @property
    def cell(self) -> Formula: ...
    @property
    def h(self) -> Formula: ...
    @property
    def delta(self) -> Formula: ...


@dataclass(frozen=True)
class Task:
    """Everything the kernel's text depends on.

    Attributes:
        sizes: s_1 … s_L.
        g, J: the activation of the hidden layers; the cost.
        stored: the type of X in memory.
        conversion: how rows become the pass's: "cast", or "standardise" by mean and scale.
        labels, one_hot: the labels' type; whether they are one class number a row, or y itself, (m, K).
        weighted, held: whether rows have training weights w, validation weights v.
        precision: of the products; everything around them is float32, the costs' sums float64.
        offsets: of W^(l) and b^(l) in the flat vector, for l = 1 … L − 1.
        P: the length of the flat vector.
    """

    sizes: tuple[int, ...]
    g: Activation
    J: Cost
    stored: np.dtype
    conversion: Literal["cast", "standardise"]
    labels: np.dtype
    one_hot: bool
    weighted: bool
    held: bool
    precision: Precision
    offsets: tuple[tuple[int, int], ...]
    P: int

    @classmethod
    def of(
        cls,
        network: Any,
        precision: Precision,
        *,
        stored: np.dtype,
        labels: np.dtype,
        one_hot: bool,
        conversion: Literal["cast", "standardise"] = "cast",
        weighted: bool = False,
        held: bool = False,
    ) -> Task:
        """The task of a `Network`: its flat vector's layout is read off its views."""
        W, b = network.views(np.arange(network.P))
        offsets = tuple((int(W[l].flat[0]), int(b[l].flat[0])) for l in range(1, network.L))
        return cls(
            network.sizes, network.g, network.J, np.dtype(stored), conversion, np.dtype(labels), one_hot, weighted,
            held, precision, offsets, network.P,
        )  # fmt: skip

    @property
    def K(self) -> int:
        """The number of outputs."""
        return self.sizes[-1]

    @property
    def layout(self) -> Layout:
        """What decides how the work is cut."""
        columns = self.labels_per_row
        return Layout(
            self.sizes, 2 if self.precision == "bf16" else 1, self.precision == "tf32x3",
            self.sizes[0] * self.stored.itemsize, columns * self.labels.itemsize,
            (self.weighted or self.held) * 8, columns, not self.g.slope_from_a,
        )  # fmt: skip

    @property
    def labels_per_row(self) -> int:
        """How many labels a row has in memory."""
        return 1 if self.one_hot else self.K

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """What of the flat vector belongs to no layer."""
        used = sorted(
            pair
            for (W, b), inputs, outputs in zip(self.offsets, self.sizes, self.sizes[1:], strict=False)
            for pair in ((W, W + outputs * inputs), (b, b + outputs))
        )
        edges = [0, *(edge for pair in used for edge in pair), self.P]
        return [(u, v) for u, v in zip(edges[::2], edges[1::2], strict=True) if u < v]


def c_type(dtype: np.dtype) -> str:
    """The type in CUDA text of numbers in memory.

    Raises:
        BackendError: there is none.
    """
    found = kernels.c_type(dtype)
    if found is None:
        raise BackendError(f"numbers in {dtype.str}", wanted="a native number")
    return found
