"""MATLAB's and Octave's .mat, version 5 (``load FILE``): the same variables as in the NumPy archive.

mean, scale and fill are rows. classes is a column of numbers, or a cell array of texts: of names, or of whole numbers
where a double does not hold one of them. Written down in MathWorks' "MAT-File Format": after a header of 128 bytes one
element for each variable, uncompressed; a variable has at most 2 GB.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from ..inference import Model
from ..theta_files.description import KEY, describe, vectors
from ._again import answers

__all__ = ["PRECISION", "SUFFIX", "TITLE", "answers", "pack"]

TITLE = "MATLAB and Octave: the same"
SUFFIX = ".mat"
PRECISION = "fp64"

_INT8, _INT32, _UINT32, _SINGLE, _DOUBLE, _MATRIX, _UTF8 = 1, 5, 6, 7, 9, 14, 16  # data types
_CELL, _CHAR, _CLASS = 1, 4, {4: 7, 8: 6}  # classes of arrays; of numbers by their bytes
_MOST = (1 << 31) - 1


def pack(model: Model, dtype: np.dtype[Any]) -> bytes:
    """The bytes of the file; equal models give equal bytes.

    Raises:
        DataError: a matrix has 2 GB or more.
    """
    head = b"MATLAB 5.0 MAT-file, written by gpubp".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    parts = [_numbers(f"Theta{l}", T.astype(dtype)) for l, T in enumerate(model.matrices, start=1)]
    parts += [_numbers(name, value[None]) for name, value in vectors(model).items()]
    parts += [_text("activation", model.network.activation), _text("cost", model.network.cost)]
    classes = model.targets.classes
    if classes is not None and any(isinstance(one, str) or float(one) != one for one in classes):
        parts.append(_cells("classes", [str(one) for one in classes]))
    elif classes is not None:
        parts.append(_numbers("classes", np.array(classes, np.float64)[:, None]))
    parts.append(_text(KEY, describe(model, with_vectors=False)))
    return b"".join([head, *parts])


def _element(kind: int, data: bytes) -> bytes:
    """A data element: its type and length, its bytes, and zeros up to a multiple of 8."""
    if len(data) > _MOST:
        raise DataError(
            f"a variable of {len(data):,} bytes", wanted="less than 2 GB in a .mat file", do="take --to npz"
        )
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def _array(name: str, kind: int, shape: Sequence[int], content: bytes) -> bytes:
    flags = _element(_UINT32, struct.pack("<II", kind, 0))
    sides = _element(_INT32, struct.pack(f"<{len(shape)}i", *shape))
    return _element(_MATRIX, flags + sides + _element(_INT8, name.encode("ascii")) + content)


def _numbers(name: str, matrix: np.ndarray) -> bytes:
    kind = _SINGLE if matrix.dtype.itemsize == 4 else _DOUBLE
    content = _element(kind, matrix.astype(matrix.dtype.newbyteorder("<")).tobytes(order="F"))
    return _array(name, _CLASS[matrix.dtype.itemsize], matrix.shape, content)


def _text(name: str, text: str) -> bytes:
    return _array(name, _CHAR, (1 if text else 0, len(text)), _element(_UTF8, text.encode()))


def _cells(name: str, texts: list[str]) -> bytes:
    return _array(name, _CELL, (len(texts), 1), b"".join(_text("", one) for one in texts))
