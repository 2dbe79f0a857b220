"""Θ^(1), Θ^(2), … out of a file: Theta1, Theta2, … as NumPy, MATLAB, Octave, HDF5 (a checkpoint of ours, too) or JSON
have them.

The file may come from anywhere: it is read by the guarded readers of the data room, what it says of its own size is
compared with a bound before anything is unpacked, and nothing pickled is loaded.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..data.formats import Request, opened
from ..data.formats.mat import is_version_5, is_version_7_3, matrices_of
from ..data.formats.numpy_files import archive_of
from ..data.guard import is_hdf5, open_file, regular_file
from ..data.names import listed, quoted
from ..errors import DataError

_MOST = 1 << 27  # numbers in all: a gigabyte
_JSON = 1 << 28  # bytes
_NAME = re.compile(r"(?:(.*)/)?theta_?(\d{1,4})", re.IGNORECASE)
_WANTED = "Theta1 (s_2, s_1 + 1), Theta2 (s_3, s_2 + 1), …, the bias in column 0"


def read(path: str | Path) -> list[np.ndarray]:
    """Ng's matrices, float64, the bias in column 0; they chain: Theta2 has a column more than Theta1 has rows.

    A .npz, a .mat of any version, an HDF5 file with Theta1, Theta2, … in some group (those that lie highest), or JSON:
    ``{"Theta": [[[…], …], …]}`` or ``{"Theta1": [[…], …], …}``.

    Raises:
        DataError: the file is damaged or none of these; there are no such matrices, one is missing, too large, not of
            finite real numbers, or they do not chain: the message names it.
    """
    path = regular_file(path)
    try:
        with opened(path) as file:
            head = file.read(512)
    except (OSError, EOFError):
        head = b""
    if is_hdf5(path):
        found = _hdf5(path)
    elif head.startswith(b"PK\x03\x04"):
        with archive_of(path) as archive, _scratch() as folder:
            request = Request(Path(folder))
            found = _taken(
                path, archive.names, lambda name: archive.size(name) // 4, lambda n: archive.array(n, request)
            )
    elif is_version_5(head):
        with matrices_of(path) as matrices, _scratch() as folder:
            request = Request(Path(folder))
            found = _taken(path, matrices.names, matrices.size, lambda name: matrices.array(name, request))
    elif head.lstrip()[:1] == b"{":
        found = _json(path)
    else:
        raise DataError(f"{path} is no file of matrices", wanted=".npz, .mat, HDF5 or JSON with Theta1, Theta2, …")
    return _chained(path, found)


def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="gpubp-")


def _taken(
    path: Path, names: Sequence[str], size: Callable[[str], int], array: Callable[[str], Any]
) -> list[np.ndarray]:
    """Theta1, Theta2, … of the names, copied into memory."""
    rooms: dict[str, dict[int, str]] = {}
    for name in names:
        if match := _NAME.fullmatch(name):
            rooms.setdefault(match[1] or "", {}).setdefault(int(match[2]), name)
    if not rooms:
        there = f"it holds {listed(sorted(names))}" if names else "it is empty"
        raise DataError(f"{path} has no Theta1, Theta2, …; {there}", wanted=_WANTED)
    depth = min(room.count("/") + bool(room) for room in rooms)
    highest = sorted(room for room in rooms if room.count("/") + bool(room) == depth)
    if len(highest) > 1:
        raise DataError(f"{path} has Theta1, … in {listed(highest)}", wanted="one group with them")
    numbered = rooms[highest[0]]
    for l in range(1, max(numbered) + 1):
        if l not in numbered:
            raise DataError(f"{path} has Theta{max(numbered)} and no Theta{l}", wanted=_WANTED)
    chosen = [numbered[l] for l in sorted(numbered) if l]
    total = sum(size(name) for name in chosen)
    if total > _MOST:
        raise DataError(f"{path}: matrices of {total:,} numbers", wanted=f"{_MOST:,} at most")
    return [_numbers(array(name), f"{path}: {quoted(name)}") for name in chosen]


def _hdf5(path: Path) -> list[np.ndarray]:
    """Out of HDF5, by the process that looks at it; MATLAB 7.3 has its matrices transposed."""
    transposed = is_version_7_3(path)
    with open_file(path) as file:

        def size(name: str) -> int:
            stored = file.dataset(name)
            return int(np.prod(stored.shape, dtype=object))

        def array(name: str) -> np.ndarray:
            stored = file.dataset(name)
            if stored.odd or stored.text or stored.dtype.kind not in "buif" or not stored.shape:
                raise DataError(f"{path}: {quoted(name)} holds no real numbers", wanted=_WANTED)
            try:
                data = file.read(stored, 0, stored.shape[0])
            except OSError as error:
                raise DataError(f"{path}: {quoted(name)} cannot be read: {error}", wanted="a sound file") from None
            found = np.frombuffer(data, stored.dtype).reshape(stored.shape)
            return found.T if transposed else found

        return _taken(path, list(file.entries), size, array)


def _json(path: Path) -> list[np.ndarray]:
    wanted = '{"Theta": [matrix, …]} or {"Theta1": matrix, …}, a matrix as a list of its rows'
    try:
        with opened(path) as file:
            text = file.read(_JSON + 1)
        if len(text) > _JSON:
            raise DataError(f"{path} has more than {_JSON:,} bytes of JSON", wanted="fewer, or another format")
        found = json.loads(text)
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}", wanted=wanted) from None
    if not isinstance(found, dict):
        raise DataError(f"{path} holds a {type(found).__name__}", wanted=wanted)
    if isinstance(found.get("Theta"), list):
        found = {f"Theta{l}": matrix for l, matrix in enumerate(found["Theta"], start=1)}

    def array(name: str) -> np.ndarray:
        try:
            return np.array(found[name])
        except (ValueError, OverflowError):
            raise DataError(f"{path}: {quoted(name)} has rows of different lengths", wanted=wanted) from None

    return _taken(path, list(found), lambda name: 0, array)


def _numbers(found: Any, what: str) -> np.ndarray:
    if found.dtype.kind not in "buif" or found.ndim != 2 or 0 in found.shape:
        raise DataError(f"{what} is of shape {found.shape} and type {found.dtype}", wanted="a matrix of real numbers")
    Theta = np.array(found, np.float64)
    if not np.isfinite(Theta).all():
        raise DataError(f"{what} holds numbers that are not finite", wanted="finite ones")
    return Theta


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
