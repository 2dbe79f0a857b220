"""The formats that `gpubp convert` reads: one file here for each, and this folder is the list.

A format is one function with the decorator `reader`. It is told the path and what the user asked for, and gives
back parts: X and y of the whole file, or of each split. Arrays may be mapped from the file or from a scratch file,
so that a part can be larger than memory. What becomes of a part (the smallest exact type, the HDF5 file) is not the
reader's business. Files here whose names begin with ``_`` are what several readers share, no formats.
"""

from __future__ import annotations

import gzip
import importlib
import io
import math
import os
import pkgutil
import shutil
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, UsageError
from ..guard import regular_file

DAMAGED = (OSError, EOFError, zlib.error)  # what reading a file raises that is damaged, or whose gzip stream is
VALUES = {"x": "a number in every cell", "y": "a label in every row", "weights": "a weight in every row"}
_HEAD = 512  # bytes by which a file is recognised
_PIECE = 4 << 20


@dataclass(frozen=True, eq=False)
class Part:
    """The rows of one split, as they are in the source.

    Attributes:
        split: "train", "val", "test", or None where all rows are one set.
        X: (m, …) numbers.
        y: (m,) or (m, K) numbers, or (m,) text; None without labels.
        weights: (m,) or None.
        feature_names: one per column, or None.
    """

    split: str | None
    X: NDArray[Any]
    y: NDArray[Any] | None
    weights: NDArray[Any] | None = None
    feature_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Request:
    """What the user said about the source.

    Attributes:
        x, y, weights: names of arrays or columns in place of the usual ones; ``y="none"``: there are no labels. Of a
            table, x may be several: ``"a,b,3:10"``.
        labels: a file with the labels, for formats that keep them apart.
        header: whether a text file begins with column names; None finds out.
        missing: whether a feature without a value becomes NaN; otherwise it is an error, in formats whose cells can be
            empty. A label or a weight without a value is always one.
        allow: the folder that the sources of HDF5's virtual datasets may lie in; None refuses those.
        scratch: a folder with room for a file as large as the result.
    """

    scratch: Path
    x: str | None = None
    y: str | None = None
    weights: str | None = None
    labels: Path | None = None
    header: bool | None = None
    missing: bool = False
    allow: str | None = None

    def refuse_but(self, takes: tuple[str, ...], title: str) -> None:
        """Raise a UsageError where something was said that this format's reader does not heed."""
        said = {"x": self.x, "y": self.y if self.wants_y else None, "weights": self.weights,
                "labels": self.labels, "header": self.header, "allow": self.allow}  # fmt: skip
        for name, value in said.items():
            if value is not None and name not in takes:
                option = f"--{'no-' if value is False else ''}{name}"
                wanted = " or ".join(f"--{one}" for one in takes)
                raise UsageError(f"{option} for {title}", wanted=wanted or "no such option")

    @property
    def wants_y(self) -> bool:
        """Whether labels are to be looked for."""
        return (self.y or "").lower() != "none"


Stream = IO[bytes] | io.BufferedIOBase
Read = Callable[[Path, Request], list[Part]]
ReadLabels = Callable[[Path, Request], NDArray[Any]]


@dataclass(frozen=True)
class Format:
    """A format: what a person calls it, how it is recognised, what its reader heeds, how it is read (see `reader`)."""

    title: str
    takes: tuple[str, ...]
    recognises: Callable[[bytes], bool]
    suffixes: tuple[str, ...]
    labels: ReadLabels | None
    read: Read
    guesses: bool = False

    def is_named(self, path: Path) -> bool:
        """Whether the file is named as one of this format."""
        name = path.name.lower().removesuffix(".gz")
        return bool(self.suffixes) and name.endswith(self.suffixes)


_formats: list[Format] = []


def reader(
    title: str,
    *,
    takes: tuple[str, ...],
    recognises: Callable[[bytes], bool],
    suffixes: tuple[str, ...],
    labels: ReadLabels | None = None,
    guesses: bool = False,
) -> Callable[[Read], Read]:
    """Make a function the reader of a format.

    A NaN that the file holds as a number is passed on, and training refuses it by row and column unless it is told what
    to do (``--missing``); a cell of a table or a text that is empty or says NaN the reader refuses, unless `missing`.

    Args:
        title: with its article, such as "a CSV file".
        takes: the fields of a `Request` that the reader heeds, of x, y, weights, labels, header, allow. The others are
            refused before it is called; ``y="none"`` never is, and `missing` means nothing where no cell can be empty.
        recognises: whether a file that begins with these bytes is one, for certain, unless `guesses`.
        suffixes: how its names end, where the bytes do not tell; ``.gz`` after them is taken off before.
        labels: reads a file of this format that holds labels alone, where there can be such.
        guesses: the bytes only make it likely: they are asked last, after the names.
    """

    def enter(read: Read) -> Read:
        for other in _formats:
            if both := set(suffixes) & set(other.suffixes):
                raise ValueError(f"{', '.join(sorted(both))} for {title} and for {other.title}")
        _formats.append(Format(title, takes, recognises, suffixes, labels, read, guesses))
        return read

    return enter


@cache
def formats() -> tuple[Format, ...]:
    """All formats there are, in the order of their files' names."""
    for module in sorted(found.name for found in pkgutil.iter_modules(__path__) if found.name[0] != "_"):
        importlib.import_module(f"{__name__}.{module}")
    return tuple(_formats)


def recognise(path: Path) -> Format | None:
    """The format of a file: by its first bytes, by its name, or else by what is likely; None if none."""
    try:
        with opened(path) as file:
            head = file.read(_HEAD)
    except DAMAGED:
        head = b""
    by_content = (one for one in formats() if not one.guesses and one.recognises(head))
    by_name = (one for one in formats() if one.is_named(path))
    by_guess = (one for one in formats() if one.guesses and one.recognises(head))
    return next(by_content, None) or next(by_name, None) or next(by_guess, None)


def read_labels(path: Path, request: Request) -> NDArray[Any]:
    """The labels from a file of their own, in any format that can hold an array alone.

    Raises:
        DataError: the file is in no such format.
    """
    found = recognise(regular_file(path))
    if found is None or found.labels is None:
        titles = ", ".join(one.title for one in formats() if one.labels)
        raise DataError(f"{path} is no file of labels", wanted=titles)
    return found.labels(path, request)


def opened(path: Path) -> gzip.GzipFile | io.BufferedReader:
    """The file's bytes, without the compression of gzip if it has one."""
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else open(path, "rb")


def scratch_file(request: Request) -> IO[bytes]:
    """A file that has no name, so that nothing is left of it whatever happens."""
    return tempfile.TemporaryFile(dir=request.scratch)


def remaining(
    file: Stream, dtype: np.dtype[Any], shape: tuple[int, ...], what: str, request: Request, *, order: str = "C"
) -> NDArray[Any]:
    """The rest of a file as one array, in the page cache and not in the memory of the process.

    A plain file is mapped where it lies, a compressed one is unpacked into a scratch file first.

    Raises:
        DataError: the rest is shorter or longer than the shape says, or the disk has no room for it.
    """
    size = dtype.itemsize * math.prod(shape)
    if size == 0:
        raise DataError(f"{what} is empty, its shape is {shape}", wanted="at least one row and one column")
    if isinstance(file, io.BufferedReader):
        return _mapped(file, file.tell(), dtype, shape, order, what)
    free = shutil.disk_usage(request.scratch).free
    if size > free:
        raise DataError(f"{what} takes {size:,} bytes", wanted=f"the {free:,} that are free in {request.scratch}")
    with scratch_file(request) as out:
        left = size + 1  # one byte more shows that there is more; a stream that never ends is not unpacked
        while left and (piece := file.read(min(left, _PIECE))):
            out.write(piece)
            left -= len(piece)
        return _mapped(out, 0, dtype, shape, order, what)


def _mapped(
    file: IO[bytes] | io.BufferedReader,
    offset: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    order: str,
    what: str,
) -> NDArray[Any]:
    """A file's bytes from `offset` to its end as an array, if they are as many as the shape asks for."""
    file.flush()
    size, there = dtype.itemsize * math.prod(shape), os.fstat(file.fileno()).st_size - offset
    if there != size:
        holds = f"{there:,}" if there < size else "more"
        raise DataError(
            f"{what} has {holds} bytes of values",
            wanted=f"the {size:,} that its header speaks of",
            do="get the file again",
        )
    return np.memmap(file, dtype, "r", offset, shape, order="F" if order == "F" else "C")
