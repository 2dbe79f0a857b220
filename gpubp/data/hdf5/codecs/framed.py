"""Zstandard (filter 32015), LZ4 in HDF5's framing (32004), and bitshuffle alone or with either of them (32008)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from . import Bytes, Unavailable, need, scratch
from .plain import compiled, kernels

_HEAD = struct.Struct(">QI")  # bytes in all, bytes of a block


class Zstd:
    """A chunk is one Zstandard frame."""

    adds: int | None = None

    def __init__(self, options: Sequence[int]) -> None:
        self._zstd: Any = need("numcodecs.zstd", "Zstandard")

    def decode(self, data: Bytes, out: Bytes) -> None:
        size = zstd_size(data)
        if size is not None and size != out.size:
            raise ValueError(f"it holds {size:,} bytes, and a chunk has {out.size:,}")
        try:
            self._zstd.decompress(data, out)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"Zstandard: {error}") from None


def zstd_size(data: Bytes) -> int | None:
    """What a Zstandard frame says about its content (RFC 8878, 3.1.1.1); None if it does not say.

    Raises:
        ValueError: it is none.
    """
    head = data[:18].tobytes()
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        raise ValueError("it is no Zstandard frame")
    descriptor = head[4]
    single, kind = descriptor >> 5 & 1, descriptor >> 6
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    width = (1 if single else 0, 2, 4, 8)[kind]
    if not width:
        return None
    field = head[at : at + width]
    if len(field) < width:
        raise ValueError("it is too short for Zstandard")
    return int.from_bytes(field, "little") + (256 if width == 2 else 0)


class Lz4:
    """Blocks with their lengths before them."""

    adds: int | None = None

    def __init__(self, options: Sequence[int]) -> None:
        self._kernels = kernels()
        self._lz4: Any = need("lz4.block", "LZ4") if self._kernels is None else None

    def decode(self, data: Bytes, out: Bytes) -> None:
        size = _block_size(data, out)
        if self._kernels is not None:
            if self._kernels.unlz4_blocks(data, _HEAD.size, size, False, out, out.size) < 0:
                raise ValueError("its LZ4 blocks are damaged")
            return
        for low, high, block in _blocks(data, out.size, size):
            if block.size == high - low:
                out[low:high] = block
                continue
            try:
                values = self._lz4.decompress(block, uncompressed_size=high - low)
            except self._lz4.LZ4BlockError as error:
                raise ValueError(f"LZ4: {error}") from None
            _put(values, out[low:high])


class Bitshuffle:
    """The bits of some thousand bytes of values in planes, those then compressed, block by block: see `kernels`."""

    adds: int | None = None

    def __init__(self, options: Sequence[int]) -> None:
        # its version in two numbers, bytes of a value, values of a block or 0, and how blocks are compressed
        _, _, self._item, block, self._how, *_ = [*options, 0, 0, 0, 0, 0]
        if self._item < 1 or self._how not in (0, 2, 3) or block % 8:
            raise Unavailable("bitshuffle of an unknown kind")
        self._block = block or max(8192 // self._item // 8 * 8, 128)
        self._kernels = compiled("bitshuffle")
        self._zstd: Any = need("numcodecs.zstd", "Zstandard") if self._how == 3 else None

    def decode(self, data: Bytes, out: Bytes) -> None:
        item, planes, block = self._item, data, self._block
        if out.size % item:
            raise ValueError("its values do not fill it")
        tail = out.size // item % 8 * item  # the last values, fewer than 8, are as they were
        whole = out.size - tail
        end = whole
        if self._how:
            size = _block_size(data, out)
            if size % (8 * item):
                raise ValueError("its blocks have a size that bitshuffle has not")
            block, planes = size // item, scratch("planes", whole)
            if self._how == 2:
                end = self._kernels.unlz4_blocks(data, _HEAD.size, size, True, planes, whole)
                if end < 0:
                    raise ValueError("its LZ4 blocks are damaged")
            else:
                end = self._unzstd(data, planes, size)
        if data.size - end != tail:
            raise ValueError("it holds more or less than a chunk")
        self._kernels.unbitshuffle(planes, out, item, block)
        out[whole:] = data[end:]

    def _unzstd(self, data: Bytes, planes: Bytes, size: int) -> int:
        end = _HEAD.size
        for low, high, block in _blocks(data, planes.size, size):
            if zstd_size(block) not in (None, high - low):
                raise ValueError("its Zstandard blocks are damaged")
            try:
                self._zstd.decompress(block, planes[low:high])
            except (RuntimeError, ValueError) as error:
                raise ValueError(f"Zstandard: {error}") from None
            end += 4 + block.size
        return end


def _block_size(data: Bytes, out: Bytes) -> int:
    if data.size < _HEAD.size:
        raise ValueError("it is too short")
    total, size = _HEAD.unpack_from(data.data)
    if total != out.size or not size:
        raise ValueError(f"it says that it holds {total:,} bytes, and a chunk has {out.size:,}")
    return size


def _blocks(data: Bytes, total: int, size: int) -> Any:
    """(low, high, block) of each block: its place in the result, and its bytes."""
    at = _HEAD.size
    for low in range(0, total, size):
        if at + 4 > data.size:
            raise ValueError("it is too short")
        length = int.from_bytes(data[at : at + 4].tobytes(), "big")
        if not 0 < length <= data.size - at - 4:
            raise ValueError("it is too short")
        yield low, min(low + size, total), data[at + 4 : at + 4 + length]
        at += 4 + length


def _put(values: bytes, out: Bytes) -> None:
    if len(values) != out.size:
        raise ValueError("a block holds more or less than it must")
    out.data[:] = values
