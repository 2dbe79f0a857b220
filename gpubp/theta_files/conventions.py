"""Which arrays of a file are Θ, by their names. Three conventions are known:

- ``Theta1, Theta2, …``: Ng's matrices, (s_{l+1}, s_l + 1), the bias in column 0; in the highest group;
- ``coefs_0, intercepts_0, …``: attributes of scikit-learn's MLPs, (s_l, s_{l+1}) and (s_{l+1},);
- ``0.weight, 0.bias, 2.weight, …``: Linear layers of a PyTorch module, (s_{l+1}, s_l) and (s_{l+1},), whatever stands
  before ``weight``; layers in the order of the names' numbers, no bias is zeros.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..data.names import listed, quoted
from ..errors import DataError
from .stores import Store

_MOST = 1 << 28  # numbers in all: two gigabytes
_THETA = re.compile(r"(?:(.*)/)?theta_?(\d{1,4})", re.IGNORECASE)
_COEFS = re.compile(r"(coefs|intercepts)_?(\d{1,4})")
_LINEAR = re.compile(r"((?:.*\.)?)(weight|bias)")
_WANTED = "Theta1 (s_2, s_1 + 1), Theta2 (s_3, s_2 + 1), …, the bias in column 0"
_PAIRS = "coefs_0 (s_1, s_2), intercepts_0 (s_2,), coefs_1, …"


def matrices(path: Path, store: Store) -> list[np.ndarray]:
    """Ng's matrices, float64, copied into memory; they chain: Theta2 has a column more than Theta1 has rows.

    Raises:
        DataError: there are none, one is missing, too large, not of finite real numbers, or they do not chain.
    """
    if any(_THETA.fullmatch(name) for name in store.names):
        found = [_numbers(path, store, name, 2) for name in _bounded(path, store, _numbered(path, store))]
    elif any(_COEFS.fullmatch(name) for name in store.names):
        found = _pairs(path, store)
    elif any(_LINEAR.fullmatch(name) for name in store.names):
        found = _linear(path, store)
    else:
        names = sorted(store.names)
        there = f"it holds {listed(names)}" if names else "it is empty"
        raise DataError(f"{path} has no Theta1, Theta2, …; {there}", wanted=_WANTED)
    return _chained(path, found)


def _numbered(path: Path, store: Store) -> list[str]:
    """The names of Theta1, Theta2, … in their order."""
    rooms: dict[str, dict[int, str]] = {}
    for name in store.names:
        if match := _THETA.fullmatch(name):
            rooms.setdefault(match[1] or "", {}).setdefault(int(match[2]), name)
    depth = min(room.count("/") + bool(room) for room in rooms)
    highest = sorted(room for room in rooms if room.count("/") + bool(room) == depth)
    if len(highest) > 1:
        raise DataError(f"{path} has Theta1, … in {listed(highest)}", wanted="one group with them")
    numbered = rooms[highest[0]]
    for l in range(1, max(numbered) + 1):
        if l not in numbered:
            raise DataError(f"{path} has Theta{max(numbered)} and no Theta{l}", wanted=_WANTED)
    return [numbered[l] for l in sorted(numbered) if l]


def _pairs(path: Path, store: Store) -> list[np.ndarray]:
    """scikit-learn's coefs_ and intercepts_, one array each under a number from 0."""
    found: dict[str, dict[int, str]] = {"coefs": {}, "intercepts": {}}
    for name in store.names:
        if match := _COEFS.fullmatch(name):
            found[match[1]][int(match[2])] = name
    coefs, intercepts = found["coefs"], found["intercepts"]
    if sorted(coefs) != list(range(len(coefs))) or coefs.keys() != intercepts.keys():
        has = listed(sorted([*coefs.values(), *intercepts.values()]))
        raise DataError(f"{path} has {has}", wanted=_PAIRS)
    pairs = [(coefs[l], intercepts[l]) for l in sorted(coefs)]
    _bounded(path, store, [name for pair in pairs for name in pair])
    return [
        _joined(path, (W, b), _numbers(path, store, W, 2).T, _numbers(path, store, b, 1).reshape(-1)) for W, b in pairs
    ]


def _linear(path: Path, store: Store) -> list[np.ndarray]:
    """A PyTorch module's Linear layers. Whatever else a module has is refused: it would be left out of the network."""
    layers: dict[str, dict[str, str]] = {}
    for name in store.names:
        match = _LINEAR.fullmatch(name)
        if match is None:
            raise DataError(f"{path} holds {quoted(name)}", wanted="weights and biases of Linear layers alone")
        layers.setdefault(match[1], {})[match[2]] = name
    for prefix, layer in layers.items():
        if "weight" not in layer:
            raise DataError(f"{path} has {quoted(layer['bias'])} and no {quoted(prefix + 'weight')}", wanted="both")
    _bounded(path, store, [name for layer in layers.values() for name in layer.values()])
    found = []
    for prefix in sorted(layers, key=_natural):
        names = layers[prefix]
        W = _numbers(path, store, names["weight"], 2)
        b = _numbers(path, store, names["bias"], 1) if "bias" in names else np.zeros(len(W))
        found.append(_joined(path, tuple(names.values()), W, b))
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    """For sorting: numbers in a name by their value, so that 10 comes after 2."""
    parts = re.split(r"(\d{1,9})", name)
    return [(int(part) if part.isdecimal() else -1, part) for part in parts]


def _joined(path: Path, names: tuple[str, ...], W: np.ndarray, b: np.ndarray) -> np.ndarray:
    if len(b) != len(W):
        raise DataError(f"{path}: {listed(names)} of {len(W)} and {len(b)} units", wanted="as many biases as units")
    return np.concatenate([b[:, None], W], axis=1)


def _bounded(path: Path, store: Store, names: list[str]) -> list[str]:
    total = sum(store.size(name) for name in names)
    if total > _MOST:
        raise DataError(f"{path}: matrices of {total:,} numbers", wanted=f"{_MOST:,} at most")
    return names


def vector(path: Path, store: Store, name: str) -> np.ndarray:
    """One row, one column or a plain vector of numbers, as (n,) float64.

    Raises:
        DataError: something else.
    """
    _bounded(path, store, [name])
    return _numbers(path, store, name, 1)


def _numbers(path: Path, store: Store, name: str, dimensions: int) -> np.ndarray:
    """A matrix, or a vector, of which MATLAB makes a matrix of one row or one column."""
    found: Any = store.array(name)
    what = f"{path}: {quoted(name)}"
    if dimensions == 1 and found.ndim == 2 and 1 in found.shape:
        found = found.reshape(-1)
    if found.dtype.kind not in "buif" or found.ndim != dimensions or 0 in found.shape:
        wanted = f"a {'matrix' if dimensions == 2 else 'vector'} of real numbers"
        raise DataError(f"{what} is of shape {found.shape} and type {found.dtype}", wanted=wanted)
    numbers = np.array(found, np.float64)
    if not np.isfinite(numbers).all():
        raise DataError(f"{what} holds numbers that are not finite", wanted="finite ones")
    return numbers


def _chained(path: Path, Theta: list[np.ndarray]) -> list[np.ndarray]:
    for l, (left, right) in enumerate(pairwise(Theta), start=1):
        if right.shape[1] != left.shape[0] + 1:
            turned = all(b.shape[0] == a.shape[1] + 1 for a, b in pairwise(Theta))
            raise DataError(
                f"{path}: Theta{l + 1} of shape {right.shape} after Theta{l} of shape {left.shape}",
                wanted=f"{left.shape[0] + 1} columns, one more than Theta{l} has rows: the bias in column 0",
                do="transpose them all" if turned else "",
            )
    if Theta[0].shape[1] < 2:
        raise DataError(f"{path}: Theta1 of shape {Theta[0].shape}", wanted=_WANTED)
    return Theta
