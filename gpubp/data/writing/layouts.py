"""How the datasets of a file that we write lie in it: in one piece, or in compressed chunks.

- contiguous: one piece; read at the speed of the disk. The default.
- compress: chunks of whole rows, about 1 MiB each, by Blosc (LZ4 with shuffle): smaller, and read faster than any other
  compressed layout.
- archive: the same chunks by shuffle, deflate ("gzip") and Fletcher's checksum, which are part of HDF5 itself: what
  every HDF5 program since version 1.8 (2008) reads and checks without a plug-in. The chunks are those of the checksums,
  so a damaged one costs 1 MiB of rows.

Chunks are encoded here, by several threads, since HDF5 and h5py do one at a time.
"""

from __future__ import annotations

import importlib
import struct
import zlib
from typing import Any, Protocol

import numpy as np
from h5py import h5p, h5z  # type: ignore[attr-defined]  (they are there)
from numpy.typing import NDArray

from ...errors import DataError

_BLOSC = 32001  # as registered with the HDF Group
_BLOSC_LEVEL = 5


class Layout(Protocol):
    """A layout.

    Attributes:
        name: as noted in the file.
        chunked: whether rows are written as encoded chunks.
    """

    @property
    def name(self) -> str: ...
    @property
    def chunked(self) -> bool: ...

    def filters(self, plist: h5p.PropDCID, dtype: np.dtype[Any], chunk_bytes: int) -> None:
        """Say in a dataset's properties how its chunks are encoded."""
        ...

    def encode(self, chunk: NDArray[Any]) -> bytes:
        """A whole chunk, C-contiguous, as it lies in the file. From any thread, without the interpreter's lock."""
        ...


class Contiguous:
    """Rows in one piece."""

    name, chunked = "contiguous", False

    def filters(self, plist: h5p.PropDCID, dtype: np.dtype[Any], chunk_bytes: int) -> None:
        pass

    def encode(self, chunk: NDArray[Any]) -> bytes:
        return chunk.tobytes()


class Compress:
    """Blosc: LZ4 with shuffle.

    Raises:
        DataError: numcodecs is not installed.
    """

    name, chunked = "compress", True

    def __init__(self) -> None:
        try:
            self._blosc: Any = importlib.import_module("numcodecs.blosc")
        except ImportError:
            raise DataError(
                "--compress needs numcodecs, which is not installed", do="pip install 'gpubp[codecs]'"
            ) from None

    def filters(self, plist: h5p.PropDCID, dtype: np.dtype[Any], chunk_bytes: int) -> None:
        lz4, shuffle, revision, version = 1, 1, 2, 2
        options = (revision, version, dtype.itemsize, chunk_bytes, _BLOSC_LEVEL, shuffle, lz4)
        plist.set_filter(_BLOSC, h5z.FLAG_OPTIONAL, options)  # optional: HDF5 itself need not have it to make the file

    def encode(self, chunk: NDArray[Any]) -> bytes:
        plain = chunk.view(np.uint8) if chunk.dtype.kind == "b" else chunk
        if chunk.dtype.kind == "S":
            return self._blosc.compress(chunk.tobytes(), b"lz4", _BLOSC_LEVEL, 1)
        return self._blosc.compress(plain, b"lz4", _BLOSC_LEVEL, 1)


class Archive:
    """Shuffle, deflate, Fletcher's checksum."""

    name, chunked = "archive", True

    def filters(self, plist: h5p.PropDCID, dtype: np.dtype[Any], chunk_bytes: int) -> None:
        if dtype.itemsize > 1:
            plist.set_shuffle()
        plist.set_deflate(9)
        plist.set_fletcher32()  # last, so that it is checked before anything is unpacked

    def encode(self, chunk: NDArray[Any]) -> bytes:
        size = chunk.dtype.itemsize
        plain = chunk.reshape(-1).view(np.uint8)
        if size > 1:
            plain = np.ascontiguousarray(plain.reshape(-1, size).T)
        packed = deflated(plain)
        return packed + struct.pack("<I", fletcher32(packed))


def deflated(plain: NDArray[np.uint8]) -> bytes:
    """The shortest zlib stream of several, which any inflate reads.

    Numbers that look like noise have no repetitions, and what zlib takes for some makes them longer: Huffman's code
    alone, or with runs, is then up to 10 % shorter than level 9 and forty times as fast. So level 9 is tried only where
    level 6 comes within a percent of these.
    """
    best = min((_deflate(plain, 1, zlib.Z_HUFFMAN_ONLY), _deflate(plain, 9, zlib.Z_RLE)), key=len)
    tried = _deflate(plain, 6, zlib.Z_DEFAULT_STRATEGY)
    if len(tried) > 1.01 * len(best):
        return best
    return min(best, tried, _deflate(plain, 9, zlib.Z_DEFAULT_STRATEGY), key=len)


def _deflate(plain: NDArray[np.uint8], level: int, strategy: int) -> bytes:
    stream = zlib.compressobj(level, zlib.DEFLATED, zlib.MAX_WBITS, 9, strategy)
    return stream.compress(plain.data) + stream.flush()


def fletcher32(data: bytes) -> int:
    """Fletcher's checksum as HDF5 computes it: over big-endian words of two bytes, a last odd one filled up."""
    words = np.frombuffer(data if len(data) % 2 == 0 else data + b"\0", ">u2").astype(np.uint64)
    first = second = 0
    for start in range(0, len(words), 1 << 20):  # no sum of products passes 2^64
        part = words[start : start + (1 << 20)]
        total = int(part.sum())
        second += first * len(part) + int((part * np.arange(len(part), 0, -1, dtype=np.uint64)).sum())
        first += total
    return _folded(second) << 16 | _folded(first)


def _folded(total: int) -> int:
    """Modulo 65535, where only 0 itself gives 0: so the carries end that HDF5 adds back in."""
    return total % 65535 or (65535 if total else 0)


LAYOUTS: dict[str, type[Layout]] = {"contiguous": Contiguous, "compress": Compress, "archive": Archive}
