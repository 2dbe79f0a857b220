"""The table of a checkpoint: where each dataset's bytes lie in the file, and a digest of them.

It is JSON text, in the user block behind the header:

    {"about": …, "begins": 4096, "leaves": {"Theta/Theta1": [5120, 824, 824, 0, "digest"], …}, "rest": "digest"}

`begins` is where the HDF5 file begins. A leaf is [first byte, bytes, bytes of a piece, bytes of a block, digest]: the
digest is that of the bytes where they are one piece, else that of the digests of the pieces one after the other. So the
rows of a long leaf can be looked at by several threads, and one that did not change need not be looked at again. `rest`
is the digest of all other bytes of the HDF5 file, its own records, in order. All are BLAKE2b-256 in hexadecimal digits.

A piece with blocks is a long row of what the optimizer remembers, most of a large file. Of it the CRC-32 of each block
is taken, and the digest is BLAKE2b of those, 4 bytes each: a sixth of the time. A change within 4 bytes is noticed for
certain, any other but for one in 2³² by chance for each block that it is in.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from ..backend.cores import available_cores

HEADER_BLOCK = 512  # where the table begins
_COUNT = 4  # bytes that say how long the text is
BLOCK = 1 << 16
_ALONE = 8 << 20  # bytes up to which one thread looks at all
STEP = 1 << 20  # bytes that are looked at in one go, some blocks
_ABOUT = (
    "digests of a checkpoint of gpubp, BLAKE2b-256; of each dataset: first byte, bytes, bytes of a piece, of a block, "
    "digest; docs/checkpoint-format.md"
)

Fetch = Callable[[int, int], "memoryview | bytes"]


class Extent(NamedTuple):
    """Where a leaf's bytes lie, how many of them make a piece, and of a piece a block; 0: it has none."""

    offset: int
    length: int
    piece: int
    block: int = 0

    @property
    def end(self) -> int:
        return self.offset + self.length


def extent(offset: int, shape: tuple[int, ...], itemsize: int, *, bulk: bool) -> Extent:
    """Of a leaf of that shape. The long rows of one that is `bulk` are pieces of blocks."""
    length = itemsize
    for n in shape:
        length *= n
    row = length // shape[0] if len(shape) > 1 and shape[0] else 0
    return Extent(offset, length, row, BLOCK) if bulk and row >= BLOCK else Extent(offset, length, length)


class Sums(NamedTuple):
    """The digests of a table: of its leaves, and of all other bytes."""

    leaves: dict[str, bytes]
    rest: bytes


def blake2b(data: Iterable[bytes | memoryview]) -> bytes:
    """BLAKE2b-256 of the data one after the other."""
    found = hashlib.blake2b(digest_size=32)
    for one in data:
        found.update(one)
    return found.digest()


class Digest:
    """The digest of one piece, whose bytes come one after the other: but for the last ones in multiples of `block`."""

    def __init__(self, block: int) -> None:
        self._block = block
        self._made = hashlib.blake2b(digest_size=32)

    def update(self, data: bytes | memoryview) -> None:
        """More bytes."""
        if self._block:
            steps = (data[at : at + self._block] for at in range(0, len(data), self._block))
            data = b"".join(zlib.crc32(step).to_bytes(4, "little") for step in steps)
        self._made.update(data)

    def digest(self) -> bytes:
        """Of what came so far."""
        return self._made.digest()


def joined(pieces: list[bytes]) -> bytes:
    """A leaf's digest from those of its pieces."""
    return pieces[0] if len(pieces) == 1 else blake2b(pieces)


@dataclass(frozen=True)
class Table:
    """Which bytes of a file are which leaf's.

    Attributes:
        leaves: in the order of their bytes.
        begins: where the HDF5 file begins.
    """

    leaves: dict[str, Extent]
    begins: int

    def spans(self, length: int) -> Iterator[tuple[str | None, int, int]]:
        """Every byte of the HDF5 file in order, as (leaf or None, start, end)."""
        at = self.begins
        for name, leaf in self.leaves.items():
            if leaf.offset > at:
                yield None, at, leaf.offset
            yield name, leaf.offset, leaf.end
            at = leaf.end
        if length > at:
            yield None, at, length

    def sums(self, fetch: Fetch, length: int) -> Sums:
        """The digests of the file that `fetch(start, end)` gives, by as many threads as pay: all of them call it."""

        def piece(start: int, end: int, block: int) -> bytes:
            found = Digest(block)
            for at in range(start, end, STEP):
                found.update(fetch(at, min(at + STEP, end)))
            return found.digest()

        def rest() -> bytes:
            gaps = [(start, end) for name, start, end in self.spans(length) if name is None]
            steps = ((at, min(at + STEP, end)) for start, end in gaps for at in range(start, end, STEP))
            return blake2b(fetch(*step) for step in steps)

        threads = 1 if length <= _ALONE else available_cores()
        with ThreadPoolExecutor(threads) as team:
            work = {
                name: [
                    team.submit(piece, at, at + leaf.piece, leaf.block)
                    for at in range(leaf.offset, leaf.end, leaf.piece)
                ]
                for name, leaf in self.leaves.items()
            }
            other = team.submit(rest)
            return Sums({name: joined([one.result() for one in found]) for name, found in work.items()}, other.result())

    def encoded(self, sums: Sums) -> bytes:
        """The table with these digests."""
        leaves = {name: [*leaf, sums.leaves[name].hex()] for name, leaf in self.leaves.items()}
        text = json.dumps({"about": _ABOUT, "begins": self.begins, "leaves": leaves, "rest": sums.rest.hex()}).encode()
        return len(text).to_bytes(_COUNT, "little") + text


def encoded_in(block: memoryview | bytes) -> bytes | None:
    """The table out of the first bytes of a file, as `Table.encoded` gave it, if there can be one."""
    count = int.from_bytes(block[HEADER_BLOCK : HEADER_BLOCK + _COUNT], "little")
    found = bytes(block[HEADER_BLOCK : HEADER_BLOCK + _COUNT + count])
    return found if len(found) == _COUNT + count > _COUNT else None


def decoded(table: bytes, length: int) -> tuple[Table, Sums]:
    """The table that `Table.encoded` gave, for a file of so many bytes.

    Raises:
        ValueError: it is none.
    """
    found = json.loads(table[_COUNT:])
    try:
        begins, leaves, rest = found["begins"], found["leaves"], bytes.fromhex(found["rest"])
        extents = {str(name): Extent(*map(int, entry[:4])) for name, entry in leaves.items()}
        sums = {str(name): bytes.fromhex(entry[4]) for name, entry in leaves.items()}
    except (TypeError, KeyError, IndexError) as error:
        raise ValueError(f"a table without {error}") from None
    if type(begins) is not int or begins < HEADER_BLOCK + len(table) or begins > length:
        raise ValueError(f"a file that begins at {begins}")
    at = begins
    for leaf in extents.values():
        known = leaf.offset >= at and leaf.length >= 1 and leaf.end <= length and leaf.block in (0, BLOCK)
        if not known or leaf.piece < 1 or leaf.length % leaf.piece:
            raise ValueError(f"a leaf at {leaf}")
        at = leaf.end
    return Table(extents, begins), Sums(sums, rest)


def room_for(names: Mapping[str, object]) -> int:
    """Bytes of a user block that holds the header and a table of these leaves, wherever they come to lie."""
    far = Table({name: Extent(1 << 60, 1 << 60, 1 << 60, BLOCK) for name in names}, 1 << 60)
    encoded = far.encoded(Sums(dict.fromkeys(names, bytes(32)), bytes(32)))
    return max(1024, 1 << (HEADER_BLOCK + len(encoded) - 1).bit_length())
