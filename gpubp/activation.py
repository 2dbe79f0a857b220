"""The activations: g(z) and e·g′(z), each as mathematics and as CUDA text.

To add one, add one class with two formulas; its name is the class's name. Nothing else of the package is to be told but
PyTorch's name of it (`exporting/_linear.py`): the CLI lists it, the tests check g′ against a numerical derivative of g
and the text against the reference, and say which table of theirs wants an entry.

`g(z, b)` takes the weighted input without its bias, so that adding the bias costs no pass of its own. `slope`
multiplies an error e by g′; it takes the activation `a` where g′ can be written in a = g(z) (then a replaces z in
memory, as in Ng's a·(1 − a)), and `z, b` where it cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .errors import UsageError
from .formula import Formula, elementwise


@dataclass(frozen=True)
class Activation:
    """g and its slope.

    Attributes:
        name: as the user writes it.
        g: a = g(z + b).
        slope: d = e · g′(z + b), from `(e, a)` or from `(e, z, b)`.
        gain: the width of the initial weights: ε = gain · √(6 / (s_l + s_{l+1})).
    """

    name: str
    g: Formula
    slope: Formula
    gain: float = 1.0

    @property
    def slope_from_a(self) -> bool:
        """Whether g′ is a function of a alone, so that z need not be kept."""
        return self.slope.takes("a")


_ACTIVATIONS: dict[str, Activation] = {}


def names() -> tuple[str, ...]:
    """The activations there are, as the user writes them."""
    return tuple(_ACTIVATIONS)


def activation(name: str) -> Activation:
    """The activation of that name.

    Raises:
        UsageError: there is none; the message lists those there are.
    """
    try:
        return _ACTIVATIONS[name]
    except KeyError:
        raise UsageError(f"activation '{name}'", wanted=f"one of {', '.join(_ACTIVATIONS)}") from None


def _entry(described: Any) -> Any:
    name = described.__name__
    _ACTIVATIONS[name] = Activation(name, described.g, described.slope, getattr(described, "gain", 1.0))
    return described


@_entry
class sigmoid:
    """g(z) = 1 / (1 + e^−z),  g′ = a(1 − a): the logistic function of the course."""

    @elementwise("T z, T b", "T a", "a = T(1) / (T(1) + exp(-(z + b)))")
    def g(xp: Any, z: Any, b: Any) -> Any:
        return 1 / (1 + xp.exp(-(z + b)))

    @elementwise("T e, T a", "T d", "d = e * (a * (T(1) - a))")
    def slope(xp: Any, e: Any, a: Any) -> Any:
        return e * (a * (1 - a))


@_entry
class tanh:
    """g(z) = tanh z,  g′ = 1 − a²."""

    @elementwise("T z, T b", "T a", "a = tanh(z + b)")
    def g(xp: Any, z: Any, b: Any) -> Any:
        return xp.tanh(z + b)

    @elementwise("T e, T a", "T d", "d = e * (T(1) - a * a)")
    def slope(xp: Any, e: Any, a: Any) -> Any:
        return e * (1 - a * a)


@_entry
class relu:
    """g(z) = max(0, z),  g′ = 1 where z > 0, else 0 (at the kink: 0)."""

    gain = 2.0**0.5  # keeps the variance of a layer's input (He et al. 2015, eq. 10)

    @elementwise("T z, T b", "T a", "const T v = z + b; a = v < T(0) ? T(0) : v")
    def g(xp: Any, z: Any, b: Any) -> Any:
        return xp.maximum(z + b, 0)

    @elementwise("T e, T a", "T d", "d = a > T(0) ? e : T(0)")
    def slope(xp: Any, e: Any, a: Any) -> Any:
        return xp.where(a > 0, e, 0)


@_entry
class leaky_relu:
    """g(z) = z where z > 0, else z/100."""

    gain = 2.0**0.5

    @elementwise("T z, T b", "T a", "const T v = z + b; a = v < T(0) ? T(0.01) * v : v")
    def g(xp: Any, z: Any, b: Any) -> Any:
        v = z + b
        return xp.where(v < 0, 0.01 * v, v)

    @elementwise("T e, T a", "T d", "d = a > T(0) ? e : T(0.01) * e")
    def slope(xp: Any, e: Any, a: Any) -> Any:
        return xp.where(a > 0, e, 0.01 * e)


@_entry
class softplus:
    """g(z) = log(1 + e^z),  g′ = 1 − e^−a: a smooth relu, written so that neither end overflows."""

    @elementwise("T z, T b", "T a", "const T v = z + b; a = (v > T(0) ? v : T(0)) + log1p(exp(-fabs(v)))")
    def g(xp: Any, z: Any, b: Any) -> Any:
        v = z + b
        return xp.maximum(v, 0) + xp.log1p(xp.exp(-abs(v)))

    @elementwise("T e, T a", "T d", "d = e * -expm1(-a)")
    def slope(xp: Any, e: Any, a: Any) -> Any:
        return e * -xp.expm1(-a)


@_entry
class silu:
    """g(z) = z·σ(z),  g′ = σ(1 + z(1 − σ)) with σ = 1 / (1 + e^−z). Not monotone, so g′ needs z."""

    @elementwise("T z, T b", "T a", "const T v = z + b; a = v / (T(1) + exp(-v))")
    def g(xp: Any, z: Any, b: Any) -> Any:
        v = z + b
        return v / (1 + xp.exp(-v))

    @elementwise(
        "T e, T z, T b",
        "T d",
        "const T v = z + b; const T s = T(1) / (T(1) + exp(-v)); d = e * (s * (T(1) + v * (T(1) - s)))",
    )
    def slope(xp: Any, e: Any, z: Any, b: Any) -> Any:
        v = z + b
        s = 1 / (1 + xp.exp(-v))
        return e * (s * (1 + v * (1 - s)))


@_entry
class gelu:
    """g(z) = z/2·(1 + tanh t),  t = √(2/π)·(z + 0.044715 z³): the tanh form (Hendrycks and Gimpel 2016)."""

    @elementwise(
        "T z, T b",
        "T a",
        "const T v = z + b; const T t = tanh(T(0.7978845608028654) * (v + T(0.044715) * v * v * v));"
        " a = T(0.5) * v * (T(1) + t)",
    )
    def g(xp: Any, z: Any, b: Any) -> Any:
        v = z + b
        return 0.5 * v * (1 + xp.tanh(0.7978845608028654 * (v + 0.044715 * v * v * v)))

    @elementwise(
        "T e, T z, T b",
        "T d",
        "const T v = z + b; const T t = tanh(T(0.7978845608028654) * (v + T(0.044715) * v * v * v));"
        " const T u = T(0.7978845608028654) * (T(1) + T(0.134145) * v * v);"
        " d = e * (T(0.5) * (T(1) + t) + T(0.5) * v * (T(1) - t * t) * u)",
    )
    def slope(xp: Any, e: Any, z: Any, b: Any) -> Any:
        v = z + b
        t = xp.tanh(0.7978845608028654 * (v + 0.044715 * v * v * v))
        u = 0.7978845608028654 * (1 + 0.134145 * v * v)
        return e * (0.5 * (1 + t) + 0.5 * v * (1 - t * t) * u)


@_entry
class identity:
    """g(z) = z: a linear layer."""

    @elementwise("T z, T b", "T a", "a = z + b")
    def g(xp: Any, z: Any, b: Any) -> Any:
        return z + b

    @elementwise("T e, T a", "T d", "d = e")
    def slope(xp: Any, e: Any, a: Any) -> Any:
        return e
