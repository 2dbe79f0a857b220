"""The costs. Each owns its output function, so that no wrong pair can be written.

The last layer is taken in four steps, each a formula:

`score(z, b)`   s, what the cost is computed from: z^(L) with its bias (for softmax: log h). J comes from s and never
                from log(h), which would lose everything once h rounds to 0 or 1.
`cell(s, y, w)` the cost of one output of one row, times the row's weight w; summed in float64.
`h(s)`          a^(L) = h_Θ(x).
`delta(h, y, w)` δ^(L) = w · ∂cost/∂z^(L). For the matching pairs it is a^(L) − y, the line of the course; the classic
                `sigmoid_squares` shows that this is a property of the pair and not of backpropagation.

Two more say how it curves, to those optimizers that ask: H is the (K, K) matrix of a row by which the Gauss–Newton
matrix of J is w·(∂z/∂Θ)ᵀ H (∂z/∂Θ), summed over rows. For a matching pair H = ∂²cost/∂z² = ∂h/∂z; for
`sigmoid_squares` it is what is left of it where h = y.

`curvature(h, v, w)`  w · H v.
`root(h, e, w)`       √w · B e with B Bᵀ = H: of random signs e, a δ whose mean product with itself is w · H.

And one goes back, for those who look at single rows of a trained model:

`inverse(h)`  the score whose output is h.

To add a cost, add one class with the first four and `takes`, what y it can be given; its name is the class's name.
Without `curvature` and `root` it can be trained by all optimizers but those that need them, and those say so; without
`inverse` nobody knows what a single row costs, and a report says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .errors import UsageError
from .formula import Formula, elementwise, rowwise, total

LEAST = 1e-12  # of an output under a logarithm


@dataclass(frozen=True)
class Cost:
    """The output function and the cost that belongs to it (see the module's text).

    Attributes:
        name: as the user writes it.
        formula: the cost of one row in plain notation.
        score, cell, h, delta: the four steps.
        takes: what y such a cost can be given: "labels", each output from 0 to 1 by itself; "distribution", the outputs
            of a row sum to one; "numbers", any. Integer and text classes become 0/1 outputs for the first two.
        curvature, root: how it curves, or None.
        inverse: ``inverse(xp, h) -> s``, plain mathematics, or None.
    """

    name: str
    formula: str
    score: Formula
    cell: Formula
    h: Formula
    delta: Formula
    takes: Literal["labels", "distribution", "numbers"]
    curvature: Formula | None = None
    root: Formula | None = None
    inverse: Callable[[Any, Any], Any] | None = None


_COSTS: dict[str, Cost] = {}


def names() -> tuple[str, ...]:
    """The costs there are, as the user writes them."""
    return tuple(_COSTS)


def cost(name: str) -> Cost:
    """The cost of that name.

    Raises:
        UsageError: there is none; the message lists those there are.
    """
    try:
        return _COSTS[name]
    except KeyError:
        raise UsageError(f"cost '{name}'", wanted=f"one of {', '.join(_COSTS)}") from None


def _entry(described: Any) -> Any:
    name = described.__name__
    _COSTS[name] = Cost(
        name, (described.__doc__ or "").split("\n")[0],
        described.score, described.cell, described.h, described.delta,
        described.takes, getattr(described, "curvature", None), getattr(described, "root", None),
        getattr(described, "inverse", None),
    )  # fmt: skip
    return described


@elementwise("T z, T b", "T s", "s = z + b")
def weighted_input(xp: Any, z: Any, b: Any) -> Any:
    """s = z^(L) with its bias."""
    return z + b


@elementwise("T h, T y, T w", "T d", "d = w * (h - y)")
def difference(xp: Any, h: Any, y: Any, w: Any) -> Any:
    """δ^(L) = a^(L) − y, times the row's weight."""
    return w * (h - y)


@elementwise("T s", "T h", "h = T(1) / (T(1) + exp(-s))")
def sigmoid_output(xp: Any, s: Any) -> Any:
    """h = 1 / (1 + e^−s)."""
    return 1 / (1 + xp.exp(-s))


@elementwise("T h, T v, T w", "T c", "c = w * ((h * (T(1) - h)) * v)")
def sigmoid_curvature(xp: Any, h: Any, v: Any, w: Any) -> Any:
    """w · h(1 − h) v: of sigmoid outputs, each by itself."""
    return w * ((h * (1 - h)) * v)


@elementwise("T h, T e, T w", "T d", "d = sqrt(w * (h * (T(1) - h))) * e")
def sigmoid_root(xp: Any, h: Any, e: Any, w: Any) -> Any:
    """√(w · h(1 − h)) e."""
    return xp.sqrt(w * (h * (1 - h))) * e


def logit(xp: Any, h: Any) -> Any:
    """s = log(h / (1 − h)), of a sigmoid output; where h has rounded to 0 or 1, ±27.6."""
    h = xp.clip(h, LEAST, 1 - LEAST)
    return xp.log(h) - xp.log1p(-h)


def logarithm(xp: Any, h: Any) -> Any:
    """s = log h, of a softmax output; where h has rounded to 0, −27.6."""
    return xp.log(xp.maximum(h, LEAST))


def unchanged(xp: Any, h: Any) -> Any:
    """s = h."""
    return h


# A row of weight 0 costs nothing even where its cost is not finite: validation rows have training weight 0.


@_entry
class logistic:
    """−Σ_k [y_k log h_k + (1 − y_k) log(1 − h_k)],  h = sigmoid(z)

    One output, K one-against-all outputs as in the course, or several labels per row. With s = z^(L) the cost of one
    output is max(s, 0) − y·s + log(1 + e^−|s|).
    """

    takes = "labels"
    score = weighted_input
    h = sigmoid_output
    delta = difference
    curvature = sigmoid_curvature
    root = sigmoid_root
    inverse = logit

    @total(
        "T s, T y, T w",
        "const double v = s; cell = w == T(0) ? 0.0 :"
        " double(w) * ((v > 0.0 ? v : 0.0) - double(y) * v + double(log1p(exp(-fabs(s)))))",
    )
    def cell(xp: Any, s: Any, y: Any, w: Any) -> Any:
        # the logarithm, at most log 2, loses no more in the type of the pass than s lost already; the rest is exact
        v, rest = s.astype("float64"), xp.log1p(xp.exp(-abs(s)))
        return xp.where(w == 0, 0.0, w * (xp.maximum(v, 0) - y * v + rest))


@_entry
class softmax:
    """−Σ_k y_k log h_k,  h = softmax(z)

    The score is log h itself: log h_k = z_k − log Σ_i e^{z_i}, taken with the largest z subtracted.
    """

    takes = "distribution"
    delta = difference
    inverse = logarithm

    @rowwise(
        "T z, T b",
        "T s",
        "const double top = row_max([&](int j) { return double(z(j)) + double(b(j)); });"
        " const double rest = log(row_sum([&](int j) { return double(exp(T(double(z(j)) + double(b(j)) - top))); }));"
        " each([&](int j) { s(j) = T(double(z(j)) + double(b(j)) - top - rest); })",
    )
    def score(xp: Any, z: Any, b: Any) -> Any:
        s = z.astype("float64") + b
        s = s - s.max(axis=1, keepdims=True)
        return s - xp.log(xp.exp(s.astype(z.dtype)).astype("float64").sum(axis=1, keepdims=True))

    @elementwise("T s", "T h", "h = exp(s)")
    def h(xp: Any, s: Any) -> Any:
        return xp.exp(s)

    @rowwise(
        "T h, T v, T w",
        "T c",
        "const double mean = row_sum([&](int j) { return double(h(j) * v(j)); });"
        " each([&](int j) { c(j) = w(j) * (h(j) * (v(j) - T(mean))); })",
    )
    def curvature(xp: Any, h: Any, v: Any, w: Any) -> Any:
        # H = diag(h) − h hᵀ
        return w * (h * (v - (h * v).sum(axis=1, keepdims=True)))

    @rowwise(
        "T h, T e, T w",
        "T d",
        "const T mean = T(row_sum([&](int j) { return double(sqrt(h(j)) * e(j)); })), by = sqrt(w(0));"
        " each([&](int j) { d(j) = by * (sqrt(h(j)) * e(j) - h(j) * mean); })",
    )
    def root(xp: Any, h: Any, e: Any, w: Any) -> Any:
        # B = diag(√h) − h √hᵀ, since Σ h = 1
        r = xp.sqrt(h) * e
        return xp.sqrt(w) * (r - h * r.sum(axis=1, keepdims=True))

    @total("T s, T y, T w", "cell = w == T(0) || y == T(0) ? 0.0 : -double(w) * double(y) * double(s)")
    def cell(xp: Any, s: Any, y: Any, w: Any) -> Any:
        return xp.where((w == 0) | (y == 0), 0.0, -(w * (y * s.astype("float64"))))


@_entry
class squares:
    """½ Σ_k (h_k − y_k)²,  h = z: regression"""

    score = weighted_input
    delta = difference
    takes = "numbers"
    inverse = unchanged

    @elementwise("T s", "T h", "h = s")
    def h(xp: Any, s: Any) -> Any:
        return s

    @elementwise("T h, T v, T w", "T c", "c = w * v")
    def curvature(xp: Any, h: Any, v: Any, w: Any) -> Any:
        return w * v

    @elementwise("T h, T e, T w", "T d", "d = sqrt(w) * e")
    def root(xp: Any, h: Any, e: Any, w: Any) -> Any:
        return xp.sqrt(w) * e

    @total("T s, T y, T w", "const double e = double(s) - double(y); cell = w == T(0) ? 0.0 : 0.5 * double(w) * e * e")
    def cell(xp: Any, s: Any, y: Any, w: Any) -> Any:
        e = s.astype("float64") - y
        return xp.where(w == 0, 0.0, 0.5 * w * e * e)


@_entry
class sigmoid_squares:
    """½ Σ_k (h_k − y_k)²,  h = sigmoid(z): the classic of the textbooks, where δ^(L) = (h − y)·h·(1 − h)"""

    takes = "labels"
    score = weighted_input
    h = sigmoid_output
    inverse = logit

    @elementwise("T h, T y, T w", "T d", "d = w * ((h - y) * (h * (T(1) - h)))")
    def delta(xp: Any, h: Any, y: Any, w: Any) -> Any:
        return w * ((h - y) * (h * (1 - h)))

    @elementwise("T h, T v, T w", "T c", "const T g = h * (T(1) - h); c = w * (g * (g * v))")
    def curvature(xp: Any, h: Any, v: Any, w: Any) -> Any:
        g = h * (1 - h)
        return w * (g * (g * v))

    @elementwise("T h, T e, T w", "T d", "d = sqrt(w) * ((h * (T(1) - h)) * e)")
    def root(xp: Any, h: Any, e: Any, w: Any) -> Any:
        return xp.sqrt(w) * ((h * (1 - h)) * e)

    @total(
        "T s, T y, T w",
        "const double e = 1.0 / (1.0 + exp(-double(s))) - double(y); cell = w == T(0) ? 0.0 : 0.5 * double(w) * e * e",
    )
    def cell(xp: Any, s: Any, y: Any, w: Any) -> Any:
        e = 1 / (1 + xp.exp(-s.astype("float64"))) - y
        return xp.where(w == 0, 0.0, 0.5 * w * e * e)
