"""Which units of wide layers are shown, so that a network of any width fits a page; the others are summed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .record import Explanation, Sum, Term

TOP = 8

Choice = Callable[[Sum], tuple[list[Term], list[Term]]]  # the terms of a sum that are written out, and the others


@dataclass(frozen=True)
class Fold:
    """What is shown of each layer.

    Attributes:
        shown: the units of each layer that are shown, ascending, from 1; slots 1 … L.
        sizes: how many there are in all; slots 1 … L.
    """

    shown: list[Any]
    sizes: list[Any]

    def hidden(self, layer: int) -> int:
        """How many units of a layer are not shown."""
        return self.sizes[layer] - len(self.shown[layer])

    def split(self, total: Sum) -> tuple[list[Term], list[Term]]:
        """The terms of a sum that come from shown units, the bias among them, and the others."""
        other = total.layer - 1 if total.kind == "z" else total.layer + 1
        shown = {0, *self.shown[other]} if total.kind == "z" else set(self.shown[other])
        ours: list[Term] = []
        rest: list[Term] = []
        for term in total.terms:
            unit = term.edge.from_ if total.kind == "z" else term.edge.to
            (ours if unit in shown else rest).append(term)
        return ours, rest


def fold(e: Explanation, top: int = TOP, keep: Iterable[tuple[int, int]] = ()) -> Fold:
    """The `top` units of each layer by |δ|, and of the inputs by what they bring to the shown units of layer 2.

    Outputs that are wanted (y > 0 of a classifier) or given (the largest) are always shown, and all where they are few.

    Args:
        top: how many of a layer; 0 for all.
        keep: (layer, unit) that are shown whatever they are.
    """
    sizes = e.network.sizes
    shown: list[Any] = [None] * (e.L + 1)
    for l in range(e.L, 0, -1):
        size = sizes[l - 1]
        room = top + top // 2 if l == e.L else top  # outputs have names: "… 2 more" of ten hides more than it spares
        if not top or size <= room:
            shown[l] = tuple(range(1, size + 1))
            continue
        if l > 1:
            worth = np.abs(e.delta[l])
        else:
            rows = [j - 1 for j in shown[2]]
            worth = np.abs(e.Theta[1][rows, 1:] * e.a[1]).sum(axis=0)
        must = {unit for layer, unit in keep if layer == l}
        if l == e.L and e.network.J.takes != "numbers":
            must |= {int(e.y.argmax()) + 1, int(e.a[l].argmax()) + 1}
        order = [int(i) + 1 for i in np.argsort(-worth, kind="stable")]
        most = [j for j in order if j not in must][: max(0, top - len(must))]
        shown[l] = tuple(sorted({*must, *most}))
    return Fold(shown, [None, *sizes])


def largest(top: int = TOP) -> Choice:
    """The `top` terms of a sum by size, the largest first; all of them in their order where there is one more at most,
    or `top` is 0."""

    def choice(total: Sum) -> tuple[list[Term], list[Term]]:
        terms = total.terms
        if not top or len(terms) <= top + 1:  # one more term is as short as the words that there is one
            return list(terms), []
        order = np.argsort([-abs(term.product) for term in terms], kind="stable")
        kept = set(order[:top].tolist())
        return [terms[i] for i in order[:top]], [term for i, term in enumerate(terms) if i not in kept]

    return choice


def added(terms: Iterable[Term]) -> float:
    """The sum of their products, rounded once."""
    return math.fsum(term.product for term in terms)
