"""A formula and its kernel, side by side.

A formula is written once as plain mathematics (the *reference*, a function of the array library `xp` and its
arguments) and, in the same place, once as CUDA text. The decorated function becomes a `Formula`: data, not code that
runs by itself. A backend gives it a body: NumPy runs the reference, CuPy builds a kernel from the text. Tests find
every formula by listing `Formula.all` and hold the two writings together.

Three shapes suffice for a network:

`elementwise`
    out[i, j] = f(in[i, j], …). Arguments of shape (rows, 1) or (1, columns) are broadcast.
`total`
    Σ_ij f(in[i, j], …), every cell in float64, summed in a fixed order.
`rowwise`
    a row of the output depends on the whole row of the input; the text may use `row_max` and `row_sum`.

The types in the CUDA text: `T` is the type of the pass (float or double), `S` is whatever type the argument's array
has (rows as they are stored), anything else is a C type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Shape = Literal["elementwise", "total", "rowwise"]


@dataclass(frozen=True)
class Argument:
    """One argument of a kernel: its C type (or `T`, `S`) and its name."""

    type: str
    name: str

    @classmethod
    def parse(cls, text: str) -> tuple[Argument, ...]:
        """Read a list like ``"T z, T b"``."""
        pairs = (part.rsplit(None, 1) for part in text.split(",") if part.strip())
        return tuple(cls(type.strip(), name) for type, name in pairs)


@dataclass(frozen=True, eq=False)
class Formula:
    """A function on arrays with two writings: `reference` and the CUDA text `cuda`.

    Attributes:
        name: unique, a C identifier; the qualified name of the decorated function.
        shape: how the function maps over a matrix (see the module's text).
        inputs, output: the arguments as the CUDA text names them.
        cuda: C++ statements that set the output's name (for `total`: a double of that name).
        reference: ``reference(xp, *inputs) -> array``; for `total` the array of cells in float64.
    """

    name: str
    shape: Shape
    inputs: tuple[Argument, ...]
    output: Argument
    cuda: str
    reference: Callable[..., Any]

    all: ClassVar[list[Formula]] = []

    def __post_init__(self) -> None:
        Formula.all.append(self)

    def __call__(self, xp: Any, *inputs: Any) -> Any:
        """The reference, evaluated on arrays of the library `xp`."""
        return self.reference(xp, *inputs)

    def takes(self, name: str) -> bool:
        """Whether the formula has an input of that name."""
        return any(argument.name == name for argument in self.inputs)


def _decorator(shape: Shape, inputs: str, output: str, cuda: str) -> Callable[[Callable[..., Any]], Formula]:
    def decorate(reference: Callable[..., Any]) -> Formula:
        name = reference.__qualname__.replace(".", "_")
        return Formula(name, shape, Argument.parse(inputs), Argument.parse(output)[0], cuda, reference)

    return decorate


def elementwise(inputs: str, output: str, cuda: str) -> Callable[[Callable[..., Any]], Formula]:
    """A formula of each element by itself. The output may be one of the inputs' arrays."""
    return _decorator("elementwise", inputs, output, cuda)


def total(inputs: str, cuda: str) -> Callable[[Callable[..., Any]], Formula]:
    """A float64 sum over all elements; the text sets ``cell``."""
    return _decorator("total", inputs, "double cell", cuda)


def rowwise(inputs: str, output: str, cuda: str) -> Callable[[Callable[..., Any]], Formula]:
    """A formula of whole rows.

    In the text an argument `z` is read as ``z(j)``, the output is set by ``each([&](int j) { a(j) = …; })``, and
    ``row_max`` and ``row_sum`` take such a function of j and return a double that every lane of the row knows.
    """
    return _decorator("rowwise", inputs, output, cuda)


# What every pass needs, whatever the network: rows as stored → rows of the pass; labels → Y; a sum.


@elementwise("S x", "T a", "a = T(x)")
def cast(xp: Any, x: Any) -> Any:
    """a = x, in the type of the pass."""
    return x


@elementwise("S x, double mu, double sigma", "T a", "a = T((double(x) - mu) / sigma)")
def standardise(xp: Any, x: Any, mu: Any, sigma: Any) -> Any:
    """a = (x − μ) / σ, computed in float64: with |μ| ≫ σ the difference must not be taken in float32."""
    return (x - mu) / sigma


@elementwise("S label, int k", "T y", "y = T(int(label) == k ? 1 : 0)")
def one_hot(xp: Any, label: Any, k: Any) -> Any:
    """y_k = 1 where the label is k, else 0. `label` is (rows, 1), `k` is (1, K)."""
    return label == k


@elementwise("T a, T b", "T c", "c = a + b")
def plus(xp: Any, a: Any, b: Any) -> Any:
    """c = a + b: two siblings of the sum tree become their parent."""
    return a + b


@elementwise("T a, T w", "T c", "c = w * (a * a)")
def weigh_square(xp: Any, a: Any, w: Any) -> Any:
    """c = w·a²."""
    return w * (a * a)


@elementwise("T e, T a", "T c", "c = e * a")
def times(xp: Any, e: Any, a: Any) -> Any:
    """c = e·a."""
    return e * a
