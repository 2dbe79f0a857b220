"""Blosc (filter 32001, by numcodecs) and Blosc2 (filter 32026, by blosc2)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import Bytes, need, scratch

_HEAD = struct.Struct("<4B3I")  # version, its codec's version, flags, typesize, nbytes, blocksize, cbytes


class Blosc:
    """A chunk is one Blosc buffer."""

    adds: int | None = None

    def __init__(self, options: Sequence[int]) -> None:
        self._blosc: Any = need("numcodecs.blosc", "Blosc")
        if self._blosc.use_threads is None:
            # In the main thread it would start threads of its own and hold a lock: we have threads.
            self._blosc.use_threads = False

    def decode(self, data: Bytes, out: Bytes) -> None:
        if data.size < _HEAD.size:
            raise ValueError("it is too short for Blosc")
        *_, size, nbytes, block, length = _HEAD.unpack_from(data.data)
        if (nbytes, length) != (out.size, data.size) or not size or not 0 < block <= nbytes:
            raise ValueError("its Blosc header says something else")
        try:
            self._blosc.decompress(data, out)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"Blosc: {error}") from None


class Blosc2:
    """A chunk is a frame with one Blosc2 chunk in it (README_CFRAME_FORMAT and README_CHUNK_FORMAT of C-Blosc2).

    The frame is read here, and only the chunk is given to the library: its reader of frames would look for codecs that
    are no part of it by starting programs. In a frame made for several axes the chunk's blocks are put in order here.
    """

    adds: int | None = None

    def __init__(self, options: Sequence[int]) -> None:
        self._blosc2: Any = need("blosc2", "Blosc2")
        self._blosc2.set_releasegil(True)

    def decode(self, data: Bytes, out: Bytes) -> None:
        head, chunk = self._frame(data, out.size)
        if chunk is None:
            out[:] = 0
            return
        blocks = _blocks(head)
        if blocks is None:
            self._chunk(chunk, out)
            return
        item, shape, block = blocks
        whole = [-(-long // short) * short for long, short in zip(shape, block, strict=True)]
        if item * int(np.prod(shape, dtype=np.float64)) != out.size or np.prod(whole, dtype=np.float64) > 1 << 31:
            raise ValueError("its shape is not the chunk's")
        if whole[1:] == list(block[1:]) == list(shape[1:]) and whole == list(shape):
            self._chunk(chunk, out)
            return
        padded = scratch("padded", item * int(np.prod(whole)))
        self._chunk(chunk, padded)
        axes = len(shape)
        grid = [long // short for long, short in zip(whole, block, strict=True)]
        mixed = [axis for pair in zip(range(axes), range(axes, 2 * axes), strict=True) for axis in pair]
        values = padded.reshape(*grid, *block, item).transpose(*mixed, 2 * axes).reshape(*whole, item)
        out.reshape(*shape, item)[...] = values[tuple(slice(0, long) for long in shape)]

    def _frame(self, data: Bytes, size: int) -> tuple[bytes, Bytes | None]:
        """The frame's header, and its one chunk; None for a chunk of zeros."""
        start = data[:96].tobytes()
        if len(start) < 96 or start[2:10] != b"b2frame\0" or start[10] != 0xD2 or start[15] != 0xCF:
            raise ValueError("it is no Blosc2 frame")
        (head,), (frame,) = struct.unpack_from(">i", start, 11), struct.unpack_from(">Q", start, 16)
        (length,) = struct.unpack_from(">q", start, 39)
        if frame != data.size or not 87 <= head <= data.size or not 0 <= length <= data.size - head:
            raise ValueError("its Blosc2 header says something else")
        header = data[:head].tobytes()
        if length:
            return header, data[head : head + length]
        # No values at all: what stands for them is the offset of the chunk, in a Blosc2 chunk of its own.
        offset = np.zeros(8, np.uint8)
        rest = data[head:]
        if rest.size < 16:
            raise ValueError("its Blosc2 header says something else")
        self._chunk(rest[: _HEAD.unpack_from(rest.data)[6]], offset)
        if int(offset[7]) != 0x81:
            raise ValueError("a Blosc2 frame without values")
        return header, None

    def _chunk(self, data: Bytes, out: Bytes) -> None:
        if data.size < 32:
            raise ValueError("it is too short for Blosc2")
        _, _, flags, size, nbytes, block, length = _HEAD.unpack_from(data.data)
        if (nbytes, length) != (out.size, data.size) or not size or not 0 < block <= nbytes:
            raise ValueError("its Blosc2 header says something else")
        extended = flags & 5 == 5
        if flags >> 5 not in (0, 1, 3, 4) or (extended and int(data[16:22].max()) > 4):
            raise ValueError("a codec or a filter that is no part of Blosc2")
        try:
            self._blosc2.decompress2(data, out, nthreads=1)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"Blosc2: {error}") from None


def _blocks(head: bytes) -> tuple[int, tuple[int, ...], tuple[int, ...]] | None:
    """Bytes of a value, the chunk's shape and its blocks', of a frame with axes (README_B2ND_METALAYER); else None."""
    at = head.find(b"\xa4b2nd\xd2", 87)
    if at < 0:
        return None
    try:
        (place,) = struct.unpack_from(">i", head, at + 6)
        (size,) = struct.unpack_from(">i", head, place + 1)  # after 0xc6
        content = head[place + 5 : place + 5 + size]
        axes = content[2]
        at = 4 + 9 * axes  # after the array, the version, the number of axes, and the shape with its own array mark
        shapes = []
        for _ in range(2):
            if content[at] != 0x90 + axes:
                raise ValueError
            shapes.append(tuple(struct.unpack_from(">i", content, at + 2 + 5 * axis)[0] for axis in range(axes)))
            at += 1 + 5 * axes
        (item,) = struct.unpack_from(">i", head, 48)
    except (struct.error, IndexError, ValueError):
        raise ValueError("its description of the axes is damaged") from None
    shape, block = shapes
    if axes > 8 or item < 1 or min(*shape, *block) < 1:
        raise ValueError("its description of the axes is damaged")
    return item, shape, block
