"""The seal of a checkpoint: a block that every HDF5 reader skips (its user block), in front of the file it guards.

| bytes | |
|---|---|
| 0–9 | magic, ``\\x89gpubp\\r\\n\\x1a\\n`` |
| 10–11 | format version, little-endian |
| 12–19 | length of the whole file in bytes |
| 20–51 | BLAKE2b-256 of the table |
| 52–83 | BLAKE2b-256 of bytes 0–51 |
| 84–511 | zeros |
| 512– | the table of digests: the length of its text in 4 bytes, and the text; see `table` |
| | zeros to the end of the user block |

Format 1 has no table; bytes 20–51 are the digest of byte 512 to the end.

libhdf5 opens most damaged files without a word and crashes on some; here one flipped bit is noticed before libhdf5 sees
a byte, and the leaf that it is in is named: the file is read once into memory, checked there, and parsed from there.
"""

from __future__ import annotations

import io
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..errors import CheckpointError, MismatchError
from .table import HEADER_BLOCK, Fetch, Table, blake2b, decoded, encoded_in
from .whole import one_line

MAGIC = b"\x89gpubp\r\n\x1a\n"  # like PNG's: a transfer that mends line ends or drops the eighth bit is noticed
FORMAT = 2
# Every later format keeps these fields where they are, so that an older gpubp can say which version it met.
_HEADER = struct.Struct("<10sHQ32s32s")
_LONGEST_TABLE = 1 << 24  # bytes: 100,000 leaves


class _Header(NamedTuple):
    version: int
    length: int
    digest: bytes


def header(table: bytes, length: int, begins: int) -> bytes:
    """The user block, of `begins` bytes, of a file of `length` bytes with that table."""
    fields = _HEADER.pack(MAGIC, FORMAT, length, blake2b([table]), b"")[:-32]
    return ((fields + blake2b([fields])).ljust(HEADER_BLOCK, b"\0") + table).ljust(begins, b"\0")


def seal(image: memoryview) -> None:
    """Make the user block of a file right again, whose other bytes are final: with the leaves that its table has."""
    length = len(image)
    try:
        table, _ = decoded(encoded_in(image) or b"", length)
    except ValueError:
        table = Table({}, 1024)
    block = header(table.encoded(table.sums(lambda start, end: image[start:end], length)), length, table.begins)
    image[: table.begins] = block


def read_sealed(path: str | Path) -> bytes:
    """The bytes of a file that are as they were sealed.

    Raises:
        MismatchError: another format.
        CheckpointError: no checkpoint, or a damaged one; the message says what of it.
    """
    with _guarded(path) as (file, found):
        file.seek(0)
        try:
            image = file.read(found.length)
        except MemoryError:
            raise CheckpointError(f"{path}: its {found.length:,} bytes do not fit in memory") from None
        if len(image) != found.length:
            raise _damaged(path, "it was cut short while it was read")
        view = memoryview(image)
        _check(path, found, lambda start, end: view[start:end])
    return image


def verify(path: str | Path) -> None:
    """Check length and digests without parsing, in constant memory.

    Raises:
        MismatchError: another format.
        CheckpointError: no checkpoint, or a damaged one; the message says what of it.
    """
    with _guarded(path) as (file, found):
        fd = file.fileno()
        _check(path, found, lambda start, end: os.pread(fd, end - start, start))


def is_checkpoint(path: str | Path) -> bool:
    """Whether the file begins as a checkpoint does, sound or not."""
    try:
        with _regular(path) as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, CheckpointError):
        return False


@contextmanager
def _regular(path: str | Path) -> Iterator[io.BufferedReader]:
    """A regular file, opened without following a link and without waiting for anybody."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # blocking, a FIFO would wait for its writer
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise CheckpointError(f"{path} is no regular file", wanted="a checkpoint")
        with open(fd, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(fd)


@contextmanager
def _guarded(path: str | Path) -> Iterator[tuple[io.BufferedReader, _Header]]:
    """The file and its header, which is right, as is the length."""
    if os.path.islink(path):
        target = os.path.realpath(path)
        raise CheckpointError(f"{path} is a symbolic link", wanted="the file itself", do=f"take {target}")
    with one_line(f"cannot read {path}"), _regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        block = file.read(HEADER_BLOCK)
        if not block:
            raise _damaged(path, "it is empty")
        if not (block.startswith(MAGIC) or MAGIC.startswith(block)):
            raise CheckpointError(f"{path} is no checkpoint of gpubp", wanted="a file that begins with its magic bytes")
        if len(block) < HEADER_BLOCK:
            raise _damaged(path, f"it is cut short at {size} bytes")
        _, version, length, digest, fields = _HEADER.unpack_from(block)
        if blake2b([block[: _HEADER.size - 32]]) != fields or any(block[_HEADER.size :]):
            raise _damaged(path, "its header does not have the digest it was written with")
        if not 1 <= version <= FORMAT:
            do = "take a newer gpubp" if version > FORMAT else "take the gpubp that wrote it"
            raise MismatchError(f"{path} has checkpoint format {version}", wanted=f"format 1 to {FORMAT}", do=do)
        found = _Header(version, length, digest)
        if length != size:
            raise _damaged(path, f"it has {size:,} bytes and was written with {length:,}{_cut_off(file, found, size)}")
        yield file, found


def _check(path: str | Path, found: _Header, fetch: Fetch) -> None:
    """Compare every byte that `fetch` gives with the digests.

    Raises:
        CheckpointError: one differs.
    """
    if found.version == 1:
        table = Table({}, HEADER_BLOCK)
        if table.sums(fetch, found.length).rest != found.digest:
            raise _damaged(path, "its content does not have the digest it was written with")
        return
    encoded = encoded_in(fetch(0, min(found.length, _LONGEST_TABLE)))
    if encoded is None or blake2b([encoded]) != found.digest:
        raise _damaged(path, "its table of digests does not have the digest it was written with")
    try:
        table, wanted = decoded(encoded, found.length)
    except ValueError as error:
        raise CheckpointError(f"{path} is sound, but its table is nothing that gpubp wrote: {error}") from None
    if any(fetch(HEADER_BLOCK + len(encoded), table.begins)):
        raise _damaged(path, "there is something behind its table of digests, where nothing was written")
    sums = table.sums(fetch, found.length)
    if bad := [name for name, digest in wanted.leaves.items() if sums.leaves[name] != digest]:
        raise _damaged(path, f"{_named(bad)} {'does' if len(bad) == 1 else 'do'} not have the digest written with it")
    if sums.rest != wanted.rest:
        raise _damaged(path, "what HDF5 keeps beside the data does not have the digest it was written with")


def _cut_off(file: io.BufferedReader, found: _Header, size: int) -> str:
    """Which leaves a file that is too short has lost, as far as that is known."""
    file.seek(0)
    encoded = encoded_in(file.read(min(size, _LONGEST_TABLE)))
    if found.version == 1 or encoded is None or blake2b([encoded]) != found.digest:
        return ""
    try:
        table, _ = decoded(encoded, found.length)
    except ValueError:
        return ""
    lost = [name for name, leaf in table.leaves.items() if leaf.end > size]
    return f": {_named(lost)} {'is' if len(lost) == 1 else 'are'} cut off" if lost else ""


def _named(leaves: list[str]) -> str:
    """Θ first: it is what people ask for."""
    leaves = sorted(leaves, key=lambda name: not name.startswith("Theta/"))
    return ", ".join(leaves[:4]) + (f" and {len(leaves) - 4} more" if len(leaves) > 4 else "")


def _damaged(path: str | Path, how: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: {how}", do="take an earlier checkpoint")
