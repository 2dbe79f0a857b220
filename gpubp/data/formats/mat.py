"""MATLAB's and Octave's .mat files of version 5 (``save -v6`` and ``-v7``): matrices of numbers under names.

Written down in MathWorks' "MAT-File Format": a header of 128 bytes, then one element for each variable, each with its
type and its length before it, compressed by zlib (``-v7``) or not. A matrix lies column by column in the narrowest type
that holds its values, whatever its class, and is mapped where it lies or from a scratch file. Read here and not by
SciPy, so that a large matrix need not fit the memory and a small file cannot claim one that does not.

Version 7.3 is an HDF5 file behind 512 bytes of its own, each matrix transposed: `is_version_7_3` tells.
"""

from __future__ import annotations

import math
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..names import quoted
from . import DAMAGED, Part, Request, reader, scratch_file
from ._named import as_rows, read_named

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_CLASSES = {1: "a cell array", 2: "a struct", 3: "an object", 4: "text", 5: "a sparse matrix", 16: "a function"}
_LETTERS = {1: "latin-1", 2: "latin-1", 4: "utf-16-{}", 16: "utf-8", 17: "utf-16-{}", 18: "utf-32-{}"}
_PIECE = 1 << 20
_TEXT = 1 << 28  # letters
_NAME = 4096  # no variable's name, and no list of dimensions, takes as many bytes


def is_version_5(head: bytes) -> bool:
    """Whether a file that begins so is a MAT file of version 5."""
    return len(head) >= 128 and head[124:128] in (b"\x00\x01IM", b"\x01\x00MI")


def is_version_7_3(path: Path) -> bool:
    """Whether this is a MAT file of version 7.3: HDF5, whose matrices are transposed."""
    with open(path, "rb") as file:
        return file.read(19) == b"MATLAB 7.3 MAT-file"


class _Stream:
    """Bytes of one element: of the file itself, or what zlib makes of them, and never more than are asked for."""

    def __init__(self, file: IO[bytes], size: int, compressed: bool) -> None:
        self.file, self.left = file, size
        self.inflate = zlib.decompressobj() if compressed else None

    def read(self, size: int) -> bytes:
        if self.inflate is None:
            self.left -= size
            return self.file.read(size) if self.left >= 0 else b""
        out = b""
        while len(out) < size and not self.inflate.eof:
            waiting = self.inflate.unconsumed_tail
            if not waiting:
                waiting = self.file.read(min(_PIECE, self.left))
                self.left -= len(waiting)
            more = self.inflate.decompress(waiting, size - len(out))
            if not waiting and not more:
                break
            out += more
        return out

    def exactly(self, size: int) -> bytes:
        found = self.read(size)
        if len(found) < size:
            raise EOFError("it ends within a variable")
        return found


@dataclass(frozen=True)
class _Variable:
    """One variable: what it is and where its element begins."""

    name: str
    trouble: str  # why it is no matrix of real numbers; empty if it is one
    shape: tuple[int, ...]
    at: int


class _File:
    """A file open for reading, in its byte order."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self.file = path, file
        head = file.read(128)
        if not is_version_5(head):
            raise DataError(
                f"{path} is no MAT file of version 5", wanted="save -v7 of MATLAB or Octave", do="save it again"
            )
        self.order = "<" if head[126:128] == b"IM" else ">"

    def tag(self, stream: _Stream) -> tuple[int, int, bytes | None]:
        """Type and length of the next element, and its bytes where they stand in the tag itself."""
        raw = stream.exactly(8)
        kind, size = struct.unpack(f"{self.order}II", raw)
        if kind >> 16:
            if kind >> 16 > 4:
                raise EOFError("a short element is longer than 4 bytes")
            return kind & 0xFFFF, kind >> 16, raw[4 : 4 + (kind >> 16)]
        return kind, size, None

    def element(self, stream: _Stream) -> bytes:
        """The bytes of a short element."""
        _, size, inline = self.tag(stream)
        if inline is not None:
            return inline
        if size > _NAME:
            raise EOFError(f"{size:,} bytes for a name or the dimensions")
        return stream.exactly(size + -size % 8)[:size]

    def begin(self, at: int) -> tuple[_Stream, int, int]:
        """The element at a byte as a stream after its outer tag, its type, and where the next begins."""
        self.file.seek(at)
        kind, size, _ = self.tag(_Stream(self.file, 8, False))
        stream, end = _Stream(self.file, size, kind == _COMPRESSED), at + 8 + size
        if kind == _COMPRESSED:
            kind, _, _ = self.tag(stream)
        return stream, kind, end

    def head(self, stream: _Stream, at: int) -> _Variable:
        """What stands before a matrix's values."""
        flags = struct.unpack(f"{self.order}I", self.element(stream)[:4])[0]
        sides = self.element(stream)
        shape = struct.unpack(f"{self.order}{len(sides) // 4}i", sides)
        name = self.element(stream).decode("utf-8", "replace")
        kind = flags & 0xFF
        trouble = _CLASSES.get(kind, "" if 6 <= kind <= 15 else f"of the unknown class {kind}")
        if flags & 0x0800:
            trouble = trouble or "complex"
        if len(shape) < 2 or min(shape) < 0:
            trouble = trouble or f"of the impossible shape {shape}"
        return _Variable(name, trouble, shape, at)

    def variables(self) -> dict[str, _Variable]:
        """All variables that have a name."""
        at, size, found = 128, os.fstat(self.file.fileno()).st_size, {}
        while at + 8 <= size:
            stream, kind, end = self.begin(at)
            if end > size:
                raise EOFError("it ends within a variable")
            if kind == _MATRIX:
                one = self.head(stream, at)
                found[one.name] = one
            at = end
        found.pop("", None)
        return found

    def text(self, one: _Variable) -> str | None:
        """The text of one row that a variable holds; None where it holds something else."""
        if one.trouble != _CLASSES[4] or len(one.shape) != 2 or one.shape[0] != 1 or one.shape[1] > _TEXT:
            return None
        stream, _, _ = self.begin(one.at)
        self.head(stream, one.at)
        kind, size, inline = self.tag(stream)
        if kind not in _LETTERS or size > 4 * one.shape[1]:
            return None
        letters = stream.exactly(size) if inline is None else inline
        return letters.decode(_LETTERS[kind].format("le" if self.order == "<" else "be"), "replace")

    def array(self, one: _Variable, request: Request) -> NDArray[Any]:
        """The values of a matrix, mapped."""
        what = f"{self.path}: {quoted(one.name)}"
        if one.trouble:
            raise DataError(f"{what} is {one.trouble}", wanted="a full matrix of real numbers", do="save it as one")
        stream, _, _ = self.begin(one.at)
        self.head(stream, one.at)
        kind, size, inline = self.tag(stream)
        if kind not in _NUMBERS:
            raise EOFError(f"{quoted(one.name)} holds values of the unknown type {kind}")
        dtype, count = np.dtype(self.order + _NUMBERS[kind]), math.prod(one.shape)
        if count == 0:
            raise DataError(f"{what} is empty, its shape is {one.shape}", wanted="at least one row and one column")
        if size != (wanted := count * dtype.itemsize):
            raise DataError(f"{what} has {size:,} bytes of values", wanted=f"the {wanted:,} of its shape")
        if inline is not None:
            return np.frombuffer(inline, dtype).reshape(one.shape, order="F")
        if stream.inflate is None:
            start = self.file.tell()
            if start + size > os.fstat(self.file.fileno()).st_size:
                raise EOFError("it ends within a variable")
            return np.memmap(self.file, dtype, "r", start, one.shape, order="F")
        free = shutil.disk_usage(request.scratch).free
        if size > free:
            raise DataError(f"{what} takes {size:,} bytes", wanted=f"the {free:,} that are free in {request.scratch}")
        with scratch_file(request) as out:
            while size:
                piece = stream.exactly(min(_PIECE, size))
                out.write(piece)
                size -= len(piece)
            out.flush()
            return np.memmap(out, dtype, "r", 0, one.shape, order="F")


@reader("a MAT file", takes=("x", "y", "weights", "labels"), recognises=is_version_5, suffixes=(".mat",))
def read(path: Path, request: Request) -> list[Part]:
    """The matrices under the usual names, or under those the user gave; one part for each split.

    Raises:
        DataError: the file is damaged or of another version, or what is asked for is no matrix of real numbers.
    """
    with matrices_of(path) as matrices:
        parts = read_named(matrices.names, lambda name, _: matrices.array(name, request), path, request)
        return [as_rows(part) for part in parts]


class Matrices:
    """The variables of a file that is open.

    Attributes:
        names: of all variables, whatever they are.
    """

    def __init__(self, path: Path, raw: IO[bytes]) -> None:
        self._file = _File(path, raw)
        self._variables = self._file.variables()
        self.names = list(self._variables)

    def size(self, name: str) -> int:
        """How many values its header speaks of."""
        return math.prod(self._variables[name].shape)

    def text(self, name: str) -> str | None:
        """The text of one row that a variable holds; None where it holds something else."""
        return self._file.text(self._variables[name])

    def array(self, name: str, request: Request) -> NDArray[Any]:
        """One of them.

        Raises:
            DataError: it is no full matrix of real numbers.
        """
        return self._file.array(self._variables[name], request)


@contextmanager
def matrices_of(path: Path) -> Iterator[Matrices]:
    """A MAT file of version 5, open.

    Raises:
        DataError: the file is damaged or of another version.
    """
    try:
        with open(path, "rb") as raw:
            yield Matrices(path, raw)
    except (*DAMAGED, struct.error) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise DataError(f"{path} cannot be read: {error}", wanted="a whole MAT file", do="save it again") from None
