"""Random numbers as a function of what they are for, not of when they are asked for.

A stream of random numbers has a position, and the position would have to be kept equal on every thread, every rank and
after every resume. Here the number for (seed, purpose, counter) is computed on its own: the draw for row 7 is the same
whoever asks for it, in whatever order, and however the rows were cut into blocks.

The hash is SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure 15)
entered at the counter-th state of a sequence whose start is a BLAKE2b digest of (seed, purpose):

    z = key + (counter + 1) · 9E3779B97F4A7C15                        (mod 2⁶⁴)
    z = (z ⊕ z≫30) · BF58476D1CE4E5B9;   z = (z ⊕ z≫27) · 94D049BB133111EB;   hash = z ⊕ z≫31
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def hash_bits(seed: int, purpose: str, counters: ArrayLike) -> NDArray[np.uint64]:
    """64 random bits for each counter.

    Args:
        seed: any integer.
        purpose: what the draw is for; draws for different purposes are independent.
        counters: non-negative integers (row numbers, positions in Θ), any shape.

    Returns:
        uint64 array of the shape of `counters`.
    """
    digest = hashlib.blake2b(f"{int(seed)}:{purpose}".encode(), digest_size=8).digest()
    key = np.array(int.from_bytes(digest, "little"), np.uint64)
    z = np.array(counters, dtype=np.uint64, ndmin=1)  # an array even of one: scalars would warn when they wrap
    z += np.uint64(1)
    z *= _GOLDEN
    z += key
    z ^= z >> np.uint64(30)
    z *= _FIRST
    z ^= z >> np.uint64(27)
    z *= _SECOND
    z ^= z >> np.uint64(31)
    return z.reshape(np.shape(counters))


def hash_uniform(seed: int, purpose: str, counters: ArrayLike) -> NDArray[np.float64]:
    """A uniform number in [0, 1) for each counter: the upper 53 bits of `hash_bits`, exact in float64.

    Args and shape as for `hash_bits`.
    """
    return (hash_bits(seed, purpose, counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53
