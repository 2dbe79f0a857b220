"""A formula of elements and its kernel, side by side: what an optimizer does with each parameter by itself.

As `gpubp.formula` has it for passes: written once as plain mathematics on arrays, the *reference*, and in the same
place once as CUDA text. `Vectors.apply` gives it a body: NumPy runs the reference piece by piece, a GPU one kernel made
of the text. Tests find every formula in `Elementwise.all` and hold the two writings together.

In the text the arguments are doubles: those of `reads` are constants, those of `numbers` too, those of `writes` are to
be set. A vector that is written may be one of those that are read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, eq=False)
class Elementwise:
    """A function of the elements of vectors and of a few numbers.

    Attributes:
        name: unique, a C identifier; the name of the decorated function.
        reads, numbers, writes: the arguments as the CUDA text names them; no name may be in two of them.
        cuda: C++ statements that set every one of `writes`.
        reference: ``reference(*vectors, *numbers)``, the array of each of `writes`, in order.
    """

    name: str
    reads: tuple[str, ...]
    numbers: tuple[str, ...]
    writes: tuple[str, ...]
    cuda: str
    reference: Callable[..., tuple[Any, ...]]

    all: ClassVar[list[Elementwise]] = []

    def __post_init__(self) -> None:
        Elementwise.all.append(self)


def elementwise(
    reads: str, numbers: str, writes: str, cuda: str
) -> Callable[[Callable[..., tuple[Any, ...]]], Elementwise]:
    """Make a formula of its reference; the arguments are lists of names like ``"Theta, g"``."""

    def decorate(reference: Callable[..., tuple[Any, ...]]) -> Elementwise:
        return Elementwise(reference.__name__, _names(reads), _names(numbers), _names(writes), cuda, reference)

    return decorate


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(",") if name.strip())


@elementwise("g, d", "beta", "turned", "turned = fma(beta, d, -g);")
def conjugate(g: Any, d: Any, beta: float) -> tuple[Any, ...]:
    """−∇J + β d: the next of conjugate directions."""
    return (beta * d - g,)
