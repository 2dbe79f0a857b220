"""NumPy's own files: .npy (one array) and .npz (named arrays in a zip archive). Nothing pickled is ever loaded.

An .npz holds X and y under the usual names (`X`, `y`, `x_train`, `y_test`, …), each split becoming a part; an .npy
holds X alone, its labels come from another file.
"""

from __future__ import annotations

import io
import tokenize
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.lib import format as npy
from numpy.typing import NDArray

from ...errors import DataError
from .. import names
from . import DAMAGED, Part, Request, Stream, opened, read_labels, reader, remaining
from ._named import read_named

_HEADER = 10_000  # bytes, NumPy's own limit, here asked before they are read


def read_array(path: Path, request: Request) -> NDArray[Any]:
    """The array of one .npy file: mapped, or by way of a scratch file where it is compressed by gzip.

    Raises:
        DataError: this is no NPY file, it holds Python objects, or it is cut short.
    """
    try:
        with opened(path) as file:
            return _array(file, str(path), request)
    except DAMAGED as error:
        raise DataError(f"{path} cannot be read: {error}", wanted="a whole NPY file", do="save it again") from None


@reader(
    "an NPY file",
    takes=("labels",),
    recognises=lambda head: head.startswith(b"\x93NUMPY"),
    suffixes=(".npy",),
    labels=read_array,
)
def read_npy(path: Path, request: Request) -> list[Part]:
    """X from the array; y from ``--labels``."""
    X = read_array(path, request)
    if request.labels is None and request.wants_y:
        raise DataError(f"{path} holds X alone", wanted="labels for its rows", do="say --labels FILE or --y none")
    return [Part(None, X, None if request.labels is None else read_labels(request.labels, request))]


@reader(
    "an NPZ file",
    takes=("x", "y", "weights", "labels"),
    recognises=lambda head: head.startswith(b"PK\x03\x04"),
    suffixes=(".npz",),
)
def read_npz(path: Path, request: Request) -> list[Part]:
    """The arrays under the usual names, or under those the user gave; one part for each split."""
    with archive_of(path) as members:
        return read_named(members.names, lambda name, _: members.array(name, request), path, request)


class Members:
    """The arrays of an .npz file that is open.

    Attributes:
        names: of the arrays.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path, self._archive = path, archive
        self._files = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
        self.names = list(self._files)

    def size(self, name: str) -> int:
        """Bytes that an array may take, its header among them: no more than these are ever unpacked."""
        return self._archive.getinfo(self._files[name]).file_size

    def array(self, name: str, request: Request) -> NDArray[Any]:
        """One of them, from a scratch file.

        Raises:
            DataError: it is no array of numbers or text, or is packed in a way that NumPy does not use.
        """
        what = f"{self._path}: {names.quoted(name)}"
        if self._archive.getinfo(self._files[name]).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{what} is packed in a way NumPy does not use", wanted="an archive of numpy.savez")
        with self._archive.open(self._files[name]) as file:
            return _array(file, what, request)


@contextmanager
def archive_of(path: Path) -> Iterator[Members]:
    """An .npz file, open.

    Raises:
        DataError: it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield Members(path, archive)
    except (*DAMAGED, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read: {error}", wanted="a whole NPZ file", do="save it again") from None


def _array(file: Stream, what: str, request: Request) -> NDArray[Any]:
    try:
        version = npy.read_magic(file)
        sizes = file.read(2 if version == (1, 0) else 4)
        length = int.from_bytes(sizes, "little")
        if length > _HEADER:
            raise ValueError(f"its header takes {length:,} bytes")
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = header(io.BytesIO(sizes + file.read(length)))
    except (ValueError, SyntaxError, tokenize.TokenError, TypeError, RecursionError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{what} is no NPY file: {reason}", wanted="an array saved by numpy.save") from None
    if dtype.hasobject:
        raise DataError(f"{what} holds Python objects", wanted="numbers or text", do="save it with a plain dtype")
    if any(side < 0 for side in shape):
        raise DataError(f"{what} has the impossible shape {shape}", wanted="an array saved by numpy.save")
    return remaining(file, dtype, shape, what, request, order="F" if fortran else "C")
