"""An explanation as plain values: what --json prints, and what the page carries with it."""

from __future__ import annotations

from typing import Any

from .fold import Fold, added
from .notation import weight
from .record import Explanation, Sum, Term


def plain(e: Explanation, fold: Fold) -> dict[str, Any]:
    """Every unit; of the edges and sums those of shown units, the other terms of a sum added up.

    ``units``: layer, unit, name, a and, where there are such, z, s, slope, delta, literal (the recursion without
    g′). ``edges``: layer, to, from (0: the bias unit), Theta, forward = Θ·a, backward = Θ·δ (none of a bias), gradient
    = ∂C/∂Θ. ``sums``: layer, unit, kind ("z" or "s"), total, ``terms`` and ``rest``, how many more there are and their
    sum.
    """
    network, names = e.network, e.names
    return {
        "network": {"sizes": list(network.sizes), "activation": network.activation, "cost": network.cost},
        "from": names.network,
        "example": names.example,
        "sign": e.sign,
        "C": e.C,
        "truth": names.truth,
        "answer": names.answer,
        "x": e.x.tolist(),
        "y": e.y.tolist(),
        "shown": {str(l): list(fold.shown[l]) for l in range(1, e.L + 1)},
        "units": [unit for l in range(1, e.L + 1) for unit in _units(e, l)],
        "edges": [_edge(e, l, to, i) for l in range(1, e.L) for to in fold.shown[l + 1] for i in (0, *fold.shown[l])],
        "sums": [_sum(one, fold) for one in sums(e, fold)],
    }


def sums(e: Explanation, fold: Fold) -> list[Sum]:
    """Both sums of every shown unit, layer after layer."""
    found = []
    for l in range(2, e.L + 1):
        for j in fold.shown[l]:
            found.append(e.forward_sum(l, j))
            if l < e.L:
                found.append(e.backward_sum(l, j))
    return found


def name_of(e: Explanation, layer: int, unit: int) -> str:
    """What a unit stands for: a feature, or an output; "" inside."""
    names = {1: e.names.features, e.L: e.names.outputs}.get(layer)
    return str(names[unit - 1]) if names else ""


def _units(e: Explanation, l: int) -> list[dict[str, Any]]:
    columns = {"a": e.a[l]}
    if l > 1:
        columns["z"] = e.z[l]
        columns |= {"s": e.s[l], "slope": e.slope[l]} if l < e.L else {}
        columns |= {"delta": e.delta[l], "literal": e.literal()[l]}
    values = {name: column.tolist() for name, column in columns.items()}
    return [
        {"layer": l, "unit": j, "name": name_of(e, l, j), **{name: column[j - 1] for name, column in values.items()}}
        for j in range(1, e.network.sizes[l - 1] + 1)
    ]


def _edge(e: Explanation, l: int, to: int, i: int) -> dict[str, Any]:
    Theta = float(e.Theta[l][to - 1, i])
    a = 1.0 if i == 0 else float(e.a[l][i - 1])
    found = {"layer": l, "to": to, "from": i, "Theta": Theta, "forward": Theta * a}
    if i and l > 1:
        found["backward"] = Theta * float(e.delta[l + 1][to - 1])
    return {**found, "gradient": float(e.gradient[l][to - 1, i])}


def _sum(one: Sum, fold: Fold) -> dict[str, Any]:
    ours, rest = fold.split(one)
    return {
        "layer": one.layer,
        "unit": one.unit,
        "kind": one.kind,
        "total": one.total,
        "terms": [_term(term) for term in ours],
        "rest": {"terms": len(rest), "total": added(rest)},
    }


def _term(term: Term) -> dict[str, Any]:
    edge = term.edge
    return {
        "edge": weight(edge), "layer": edge.layer, "to": edge.to, "from": edge.from_,
        "Theta": term.weight, "factor": term.factor, "product": term.product,
    }  # fmt: skip
