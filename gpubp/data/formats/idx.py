"""IDX, the format of MNIST: two zero bytes, a type, the number of dimensions, these, the values; all big-endian.

Described on the page of the MNIST database (LeCun, Cortes and Burges). Images and labels are two files; the labels are
looked for beside the images under the name that MNIST and its relatives use.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from . import DAMAGED, Part, Request, opened, read_labels, reader, remaining

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def is_idx(head: bytes) -> bool:
    """Whether these are the first bytes of an IDX file."""
    return len(head) >= 8 and head[:2] == b"\0\0" and head[2] in _TYPES and 1 <= head[3] <= 8


def read_array(path: Path, request: Request) -> NDArray[Any]:
    """The array of one IDX file, compressed by gzip or not.

    Raises:
        DataError: this is no IDX file, or it is cut short.
    """
    try:
        with opened(path) as file:
            start = file.read(4)
            if not is_idx(start + bytes(4)):
                begins = start.hex(" ")
                raise DataError(f"{path} is no IDX file, it begins with {begins}", wanted="00 00 type dimensions")
            sides = file.read(4 * start[3])
            if len(sides) < 4 * start[3]:
                raise DataError(f"{path} ends within its header", wanted="a whole file", do="get the file again")
            shape = struct.unpack(f">{start[3]}I", sides)
            return remaining(file, np.dtype(_TYPES[start[2]]), shape, str(path), request)
    except DAMAGED as error:
        raise DataError(f"{path} cannot be read: {error}", wanted="a whole file", do="get the file again") from None


@reader("an IDX file", takes=("labels",), recognises=is_idx, suffixes=(".idx", "-ubyte", ".ubyte"), labels=read_array)
def read(path: Path, request: Request) -> list[Part]:
    """Images with the labels beside them, or with those of ``--labels``."""
    X = read_array(path, request)
    if X.ndim == 1:
        raise DataError(f"{path} holds labels ({X.shape[0]} values)", wanted="the file with the images or features")
    if not request.wants_y:
        return [Part(None, X, None)]
    return [Part(None, X, read_labels(request.labels or _labels_beside(path), request))]


def _labels_beside(path: Path) -> Path:
    """``t10k-images-idx3-ubyte.gz`` → ``t10k-labels-idx1-ubyte``, with or without ``.gz``."""
    name = re.sub(r"images([-.]?)idx\d", r"labels\1idx1", path.name)
    plain = name.removesuffix(".gz")
    if name != path.name:
        for candidate in (path.with_name(name), path.with_name(plain), path.with_name(f"{plain}.gz")):
            if candidate.exists():
                return candidate
        raise DataError(f"{path} has no labels beside it ({name})", wanted="them", do="say --labels FILE or --y none")
    raise DataError(f"{path} does not say by its name which labels are its", do="say --labels FILE or --y none")
