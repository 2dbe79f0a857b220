"""The seal in front of a checkpoint: 512 bytes that every HDF5 reader skips (its user block) and that guard the rest.

| bytes | |
|---|---|
| 0–9 | magic, ``\\x89gpubp\\r\\n\\x1a\\n`` |
| 10–11 | format version, little-endian |
| 12–19 | length of the whole file in bytes |
| 20–51 | BLAKE2b-256 of the payload: byte 512 to the end |
| 52–83 | BLAKE2b-256 of bytes 0–51 |
| 84–511 | zeros |

libhdf5 opens most damaged files without a word and crashes on some; here one flipped bit is noticed before libhdf5 sees
a byte: the file is read once into memory, checked there, and parsed from there.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CheckpointError, MismatchError
from .whole import one_line

MAGIC = b"\x89gpubp\r\n\x1a\n"  # like PNG's: a transfer that mends line ends or drops the eighth bit is noticed
FORMAT = 1
USER_BLOCK = 512
# Every later format keeps these fields where they are, so that an older gpubp can say which version it met.
_HEADER = struct.Struct("<10sHQ32s32s")


def seal(image: memoryview) -> None:
    """Fill in the first 512 bytes of a file whose other bytes are final."""
    fields = _HEADER.pack(MAGIC, FORMAT, len(image), _blake2b(image[USER_BLOCK:]), b"")[:-32]
    image[:USER_BLOCK] = (fields + _blake2b(fields)).ljust(USER_BLOCK, b"\0")


def read_sealed(path: str | Path) -> bytes:
    """The bytes of a file that are as they were sealed.

    Raises:
        MismatchError: another format.
        CheckpointError: no checkpoint, or a damaged one; the message says what.
    """
    with _guarded(path) as (file, length, digest):
        file.seek(0)
        try:
            image = file.read(length)
        except MemoryError:
            raise CheckpointError(f"{path}: its {length:,} bytes do not fit in memory") from None
        _require_digest(path, _blake2b(memoryview(image)[USER_BLOCK:]), digest)
    return image


def verify(path: str | Path) -> None:
    """Check length and digests without parsing, in constant memory.

    Raises:
        MismatchError: another format.
        CheckpointError: no checkpoint, or a damaged one; the message says what.
    """
    with _guarded(path) as (file, _, digest):
        file.seek(USER_BLOCK)
        _require_digest(path, hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).digest(), digest)


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
def _guarded(path: str | Path) -> Iterator[tuple[io.BufferedReader, int, bytes]]:
    """The file, its length, and the digest its payload must have; the header and the length are right."""
    if os.path.islink(path):
        target = os.path.realpath(path)
        raise CheckpointError(f"{path} is a symbolic link", wanted="the file itself", do=f"take {target}")
    with one_line(f"cannot read {path}"), _regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        block = file.read(USER_BLOCK)
        if not block:
            raise _damaged(path, "it is empty")
        if not (block.startswith(MAGIC) or MAGIC.startswith(block)):
            raise CheckpointError(f"{path} is no checkpoint of gpubp", wanted="a file that begins with its magic bytes")
        if len(block) < USER_BLOCK:
            raise _damaged(path, f"it is cut short at {size} bytes")
        _, version, length, payload, fields = _HEADER.unpack_from(block)
        if _blake2b(block[: _HEADER.size - 32]) != fields or any(block[_HEADER.size :]):
            raise _damaged(path, "its header does not have the digest it was written with")
        if version != FORMAT:
            do = "take a newer gpubp" if version > FORMAT else "take the gpubp that wrote it"
            raise MismatchError(f"{path} has checkpoint format {version}", wanted=f"format {FORMAT}", do=do)
        if length != size:
            raise _damaged(path, f"it has {size:,} bytes and was written with {length:,}")
        yield file, length, payload


def _blake2b(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


def _require_digest(path: str | Path, found: bytes, wanted: bytes) -> None:
    if found != wanted:
        raise _damaged(path, "its content does not have the digest it was written with")


def _damaged(path: str | Path, how: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: {how}", do="take an earlier checkpoint")
