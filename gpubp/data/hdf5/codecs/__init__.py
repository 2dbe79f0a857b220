"""What HDF5's filters did to a chunk, undone here: without HDF5, without its lock, by many threads at once.

A chunk is untrusted: lengths in its headers are compared with what they must be before a C library sees a byte of it,
nothing is written beyond the chunk's own size, and what comes out must have that very size. Each codec is one entry of
`_make`, a function that makes it from the filter's client data or raises `Unavailable`.

A codec is imported when a file needs it. Where its package is absent, the file is read by way of HDF5.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..stored import Filter

Bytes = NDArray[np.uint8]

INSTALL = "pip install 'gpubp[codecs]'"
_KEPT = 64 << 20  # bytes; longer scratch memory is not kept


class Unavailable(Exception):
    """Why a filter cannot be undone here, in a few words."""


class Codec(Protocol):
    """The inverse of one filter.

    Attributes:
        adds: bytes that the filter adds to what it is given; None if that depends on the values.
    """

    adds: int | None

    def decode(self, data: Bytes, out: Bytes) -> None:
        """Fill `out` exactly.

        Args:
            data, out: contiguous, writable, not overlapping.

        Raises:
            ValueError: the data are damaged, or hold more or less than that.
        """
        ...


class Decoder:
    """All filters of a dataset undone.

    Args:
        filters: in the order in which they were applied.
        size: bytes of a chunk before them.

    Raises:
        Unavailable: a filter cannot be undone here.
    """

    def __init__(self, filters: Sequence[Filter], size: int) -> None:
        self._size = size
        self._codecs = [_make(one) for one in filters]
        if sum(codec.adds is None for codec in self._codecs) > 1:
            raise Unavailable("several compressions one upon the other")

    def decode(self, data: Bytes, mask: int, out: Bytes) -> None:
        """One chunk.

        Args:
            data: as it lies in the file.
            mask: bit i is set where filter i was left out for this chunk.
            out: (size,), filled.

        Raises:
            ValueError: the chunk is damaged.
        """
        used: list[tuple[Codec, int | None]] = []
        size: int | None = self._size
        for bit, codec in enumerate(self._codecs):
            if not mask >> bit & 1:
                used.append((codec, size))
                size = None if size is None or codec.adds is None else size + codec.adds
        for codec, size in reversed(used):
            if size is None:  # behind a compression: only the way back tells
                size = data.size - (codec.adds or 0)
                if size < 0:
                    raise ValueError("it is too short")
            target = out if codec is used[0][0] else scratch(f"step {len(used)} {id(codec)}", size)
            codec.decode(data, target)
            data = target
        if data is not out:
            if data.size != out.size:
                raise ValueError(f"it has {data.size:,} bytes, and a chunk has {out.size:,}")
            out[:] = data


def missing(filters: Sequence[Filter]) -> str:
    """Why these filters cannot be undone here; empty if they can."""
    try:
        Decoder(filters, 0)
    except Unavailable as reason:
        return str(reason)
    return ""


_mine = threading.local()


def scratch(name: str, size: int) -> Bytes:
    """Memory of this thread, used again for the same name."""
    kept: dict[str, Bytes] = _mine.__dict__
    found = kept.get(name)
    if found is None or found.size < size:
        found = np.empty(size, np.uint8)
        if size <= _KEPT:
            kept[name] = found
    return found[:size]


def need(package: str, what: str) -> Any:
    """An optional package.

    Raises:
        Unavailable: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError:
        raise Unavailable(f"{package.split('.')[0]}, which undoes {what}, is not installed ({INSTALL})") from None


def _make(one: Filter) -> Codec:
    from . import blosc, framed, plain

    makers: dict[int, Callable[[Sequence[int]], Codec]] = {
        1: plain.Deflate, 2: plain.Shuffle, 3: plain.Fletcher32, 32000: plain.Lzf,
        32001: blosc.Blosc, 32026: blosc.Blosc2,
        32004: framed.Lz4, 32008: framed.Bitshuffle, 32015: framed.Zstd,
    }  # fmt: skip
    if one.code not in makers:
        raise Unavailable(f"filter {one.code} ({one.name}) is not known here" if one.name else f"filter {one.code}")
    return makers[one.code](one.options)
