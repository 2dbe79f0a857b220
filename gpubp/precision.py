"""The precisions of a pass, from coarse to fine: `LADDER`.

A precision is two choices: the type that z, δ and Δ are kept in, and how factors of a matrix product are rounded before
they are multiplied (sums are never coarser than float32). Θ, J, ∇J and every decision of an optimizer are float64 in
all of them.

With a precision comes ν, the relative rounding of a difference of J: two costs that are closer than ν|J| may be in the
wrong order, and a line search then follows slopes. A rounded factor moves J from one Θ to the next by much less than it
moves J itself, so ν is smaller than the error of J.

Nothing here imports NumPy until a type is asked for, so that the command line can list the names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from .errors import UsageError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Precision:
    """How a pass computes.

    Attributes:
        name: as --precision takes it.
        about: what it is, in a few words.
        type: of z, δ and Δ.
        products: how matrix products are taken: "exact", in `type` itself; else the factors are rounded first, in
            "tf32x3" to the sum of two TF32 numbers each, of whose four products three are taken.
        bits: significant bits of a factor.
        error: of ∇J against float64 where it is not near 0, relative, roughly.
        noise: ν, the relative rounding of a difference of J.
    """

    name: str
    about: str
    type: Literal["float32", "float64"]
    products: Literal["exact", "tf32x3", "tf32", "bf16"]
    bits: int
    error: float
    noise: float

    @property
    def dtype(self) -> np.dtype:
        """The type of z, δ and Δ."""
        import numpy as np

        return np.dtype(self.type)


# ν was measured as the spread of J's error over random Θ near each other (NOTES.md), and is about three of its standard
# deviations; float64's is ten times what another order of the sum changes.
_ALL = (
    Precision("bf16", "factors rounded to bfloat16, 8 bits", "float32", "bf16", 8, error=4e-3, noise=1e-3),
    Precision("tf32", "factors rounded to TF32, 11 bits", "float32", "tf32", 11, error=1e-3, noise=1e-4),
    Precision("tf32x3", "three TF32 products for one, 22 bits", "float32", "tf32x3", 22, error=5e-7, noise=2e-7),
    Precision("fp32", "float32", "float32", "exact", 24, error=1e-7, noise=1e-7),
    Precision("fp64", "float64", "float64", "exact", 53, error=1e-15, noise=1e-14),
)
LADDER = tuple(one.name for one in _ALL)
# Those that need no hardware of their own: every backend has them, and answers of a trained model are given in them.
EXACT = tuple(one.name for one in _ALL if one.products == "exact")


def precision(name: str) -> Precision:
    """The precision of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in LADDER:
        raise UsageError(f"precision '{name}'", wanted=f"one of {', '.join(LADDER)}")
    return _ALL[LADDER.index(name)]


class Computer(Protocol):
    """What is asked of a backend here."""

    @property
    def kind(self) -> str: ...
    @property
    def precisions(self) -> tuple[str, ...]: ...


def on(backend: Computer, name: str) -> Precision:
    """The precision of that name, if the backend has it.

    Raises:
        UsageError: there is none of that name, or the backend lacks it.
    """
    found = precision(name)
    if name not in backend.precisions:
        raise UsageError(
            f"precision {name}, which the {backend.kind.upper()} does not have",
            wanted=f"one of {', '.join(one for one in LADDER if one in backend.precisions)}",
            do="take --backend gpu for it" if backend.kind == "cpu" else "",
        )
    return found


def finer(name: str, among: Sequence[str]) -> str | None:
    """The next finer precision of those, or None where there is none.

    Raises:
        UsageError: no precision is called that.
    """
    above = LADDER[LADDER.index(precision(name).name) + 1 :]
    return next((one for one in above if one in among), None)


def with_bits(bits: float) -> str | None:
    """The name of the precision whose factors have so many bits: how a table of numbers keeps it. None if unknown."""
    return next((one.name for one in _ALL if one.bits == bits), None)
