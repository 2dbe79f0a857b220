"""Checksums of a file's rows, kept in the file so that any HDF5 program can read them.

Beside each dataset `NAME` lies `NAME.crc32`: one uint32 for each block of whole rows, the CRC-32 (that of zlib and PNG)
of the block's values as they are in memory, little-endian, one row after the other. `block_rows`, an attribute of it,
says how many rows a block has; the last may have fewer. Compression changes no checksum. Two attributes of the file
seal them: `content`, the SHA-256 over the name, shape, type and checksums of every dataset, is the same for the same
rows however they are laid out; `digest` adds what was noted about their origin.

zlib computes 1.2 GB/s on one core, ISA-L (`isal`, taken where it is installed) 17 GB/s: the values are the same.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..names import CHECKSUMS

SUFFIX = CHECKSUMS
BLOCK = 1 << 20  # bytes of rows under one checksum
# What `digest` covers beside the content; an attribute that a user adds is the user's.
ON_FILE = ("converted_by", "created", "command", "source", "source_format", "source_bytes", "source_sha256",
           "history", "labels", "labels_bytes", "labels_sha256", "layout", "content")  # fmt: skip
ON_DATASET = ("source_name", "source_dtype")


@dataclass(frozen=True)
class Sealed:
    """What is known of one dataset: enough to compare it with another of the same rows.

    Attributes:
        path: of the dataset.
        shape, dtype: as stored; text is "S" with its bytes.
        block_rows: rows under one checksum.
        checksums: (blocks,) uint32.
        noted: of `ON_DATASET`, those there are.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    block_rows: int
    checksums: NDArray[np.uint32]
    noted: dict[str, Any]

    def differs(self, other: Sealed) -> int | None:
        """The first row of the first block that is another one there; None if there is none, or they do not compare."""
        mine, theirs = ((one.shape, one.dtype, one.block_rows, len(one.checksums)) for one in (self, other))
        wrong = np.flatnonzero(self.checksums != other.checksums) if mine == theirs else []
        return int(wrong[0]) * self.block_rows if len(wrong) else None


def rows_of_block(row_bytes: int) -> int:
    """Whole rows of about `BLOCK` bytes; at least one."""
    return max(1, BLOCK // max(1, row_bytes))


@cache
def crc32() -> Callable[[Any], int]:
    """The fastest CRC-32 there is; the interpreter's lock is not held meanwhile."""
    try:
        from isal.isal_zlib import crc32 as fast  # type: ignore[import-not-found]
    except ImportError:
        return zlib.crc32
    return fast


def checksums_of(rows: NDArray[Any], block_rows: int) -> list[int]:
    """The CRC-32 of each block of C-contiguous rows, of which the first begins a block."""
    compute, flat = crc32(), rows.reshape(-1).view(np.uint8)
    step = max(1, block_rows * (rows.nbytes // max(1, len(rows))))
    return [compute(flat[at : at + step]) for at in range(0, len(flat), step)]


def content_of(datasets: Iterable[Sealed]) -> str:
    """``sha256:…`` over names, shapes, types and checksums.

    The hash runs over, for each dataset in the order of names, one line of JSON, [path, shape, type as NumPy writes it
    in little-endian order, block_rows], and the checksums as little-endian uint32.
    """
    found = hashlib.sha256()
    for one in sorted(datasets, key=lambda one: one.path):
        kind = one.dtype.newbyteorder("<").str
        found.update(json.dumps([one.path, list(one.shape), kind, one.block_rows]).encode() + b"\n")
        found.update(one.checksums.astype("<u4").tobytes())
    return f"sha256:{found.hexdigest()}"


def digest_of(datasets: Iterable[Sealed], attributes: dict[str, Any]) -> str:
    """``sha256:…`` over what was noted: the attributes in `ON_FILE`, `content` among them, and each dataset's."""
    noted = {name: attributes[name] for name in ON_FILE if name in attributes}
    of_each = {one.path: one.noted for one in datasets}
    return f"sha256:{hashlib.sha256(json.dumps([noted, of_each], sort_keys=True).encode()).hexdigest()}"
