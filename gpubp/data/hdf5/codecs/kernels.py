"""Loops over bytes that NumPy has no function for, compiled by numba, without Python's lock.

They work on untrusted bytes: every index is looked at before it is used, and what does not fit gives −1. All arrays are
uint8, contiguous and writable (numba compiles a second time for others). Importing this module imports numba.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_U = np.uint64


@njit(nogil=True, cache=True)
def unshuffle(data, out, item):  # type: ignore[no-untyped-def]
    """(item, n) bytes → (n, item)."""
    n = out.size // item
    if item == 4:
        for i in range(n):
            out[4 * i] = data[i]
            out[4 * i + 1] = data[n + i]
            out[4 * i + 2] = data[2 * n + i]
            out[4 * i + 3] = data[3 * n + i]
    elif item == 2:
        for i in range(n):
            out[2 * i] = data[i]
            out[2 * i + 1] = data[n + i]
    else:
        # planes far apart share sets of the cache: some values at a time
        for low in range(0, n, 64):
            high = min(n, low + 64)
            for byte in range(item):
                for i in range(low, high):
                    out[i * item + byte] = data[byte * n + i]


@njit(nogil=True, cache=True)
def fletcher(data):  # type: ignore[no-untyped-def]
    """(sum 1, sum 2) of HDF5's checksum: modulo 65535, where 0 stands for zeros alone."""
    one, two = _U(0), _U(0)
    words = data.size // 2
    for low in range(0, words, 360):
        for i in range(low, min(words, low + 360)):
            one += (_U(data[2 * i]) << _U(8)) | _U(data[2 * i + 1])
            two += one
        one = (one & _U(0xFFFF)) + (one >> _U(16))
        two = (two & _U(0xFFFF)) + (two >> _U(16))
    if data.size % 2:
        one += _U(data[data.size - 1]) << _U(8)
        two += one
    for _ in range(3):
        one = (one & _U(0xFFFF)) + (one >> _U(16))
        two = (two & _U(0xFFFF)) + (two >> _U(16))
    return one, two


@njit(nogil=True, cache=True)
def unlzf(data, out):  # type: ignore[no-untyped-def]
    """LibLZF's format; how many bytes came out, or −1."""
    i, o, end, stop = 0, 0, data.size, out.size
    while i < end:
        token = np.int64(data[i])
        i += 1
        if token < 32:
            n = token + 1
            if i + n > end or o + n > stop:
                return -1
            for k in range(n):
                out[o + k] = data[i + k]
            i += n
            o += n
            continue
        n, back = token >> 5, (token & 31) << 8
        if n == 7:
            if i >= end:
                return -1
            n += np.int64(data[i])
            i += 1
        if i >= end:
            return -1
        back += np.int64(data[i]) + 1
        i += 1
        n += 2
        if back > o or o + n > stop:
            return -1
        for k in range(n):
            out[o + k] = out[o + k - back]
        o += n
    return o


@njit(nogil=True, cache=True)
def longer(data, i, end):  # type: ignore[no-untyped-def]
    """A length of 15 or more, that goes on from data[i] until a byte is not 255; and where it ended, −1 for nowhere."""
    n, more = 15, 255
    while more == 255:
        if i >= end:
            return n, -1
        more = np.int64(data[i])
        i += 1
        n += more
    return n, i


@njit(nogil=True, cache=True)
def unlz4(data, i, end, out, first, stop):  # type: ignore[no-untyped-def]
    """One LZ4 block, data[i:end], into out[first:stop]; where it ended in `out`, or −1."""
    o = first
    while i < end:
        token = np.int64(data[i])
        i += 1
        n = token >> 4
        if n == 15:
            n, i = longer(data, i, end)
            if i < 0:
                return -1
        if i + n > end or o + n > stop:
            return -1
        for k in range(n):
            out[o + k] = data[i + k]
        i += n
        o += n
        if i == end:
            return o
        if i + 2 > end:
            return -1
        back = np.int64(data[i]) | np.int64(data[i + 1]) << 8
        i += 2
        n = token & 15
        if n == 15:
            n, i = longer(data, i, end)
            if i < 0:
                return -1
        n += 4
        if back == 0 or back > o - first or o + n > stop:
            return -1
        for k in range(n):
            out[o + k] = out[o + k - back]
        o += n
    return -1


@njit(nogil=True, cache=True)
def unlz4_blocks(data, i, size, bitshuffled, out, stop):  # type: ignore[no-untyped-def]
    """Blocks of `size` bytes, a 32-bit big-endian length before each, into out[:stop]; the place in `data`, or −1.

    A length equal to the block's own means that it is not compressed, unless it comes from bitshuffle.
    """
    o = 0
    while o < stop:
        block = min(size, stop - o)
        if i + 4 > data.size:
            return -1
        length = np.int64(0)
        for k in range(4):
            length = length << 8 | np.int64(data[i + k])
        i += 4
        if i + length > data.size:
            return -1
        if length == block and not bitshuffled:
            for k in range(block):
                out[o + k] = data[i + k]
        elif unlz4(data, i, i + length, out, o, o + block) != o + block:
            return -1
        i += length
        o += block
    return i


@njit(nogil=True, cache=True)
def unbitshuffle(data, out, item, block):  # type: ignore[no-untyped-def]
    """Blocks of `block` values (a multiple of 8), the last one shorter; their bits from planes back to values.

    Bit b of byte j of value i lies in byte ((8j + b)·n + i) / 8 of a block of n values, bit i mod 8. The 8 × 8 bits
    are transposed as in Warren, "Hacker's Delight", 7-3.
    """
    count = out.size // item
    count -= count % 8
    for first in range(0, count, block):
        n = min(block, count - first)
        base, groups = first * item, n // 8
        for j in range(item):
            for g in range(groups):
                at = base + 8 * j * groups + g
                x = _U(data[at])
                for b in range(1, 8):
                    x |= _U(data[at + b * groups]) << _U(8 * b)
                t = (x ^ (x >> _U(7))) & _U(0x00AA00AA00AA00AA)
                x = x ^ t ^ (t << _U(7))
                t = (x ^ (x >> _U(14))) & _U(0x0000CCCC0000CCCC)
                x = x ^ t ^ (t << _U(14))
                t = (x ^ (x >> _U(28))) & _U(0x00000000F0F0F0F0)
                x = x ^ t ^ (t << _U(28))
                to = base + 8 * g * item + j
                for i in range(8):
                    out[to + i * item] = np.uint8(x >> _U(8 * i) & _U(255))
