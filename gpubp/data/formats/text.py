"""Tables in text: CSV, TSV, and numbers between blanks, plain or compressed by gzip.

The file is read once, a few megabytes of lines at a time, each chunk parsed by NumPy's C reader; features go to a
scratch file, so only the labels are ever in memory as a whole. Columns begin as integers. Should a number with a
point or a text label turn up late, the file is read again with the wider type: labels then all become text as the
user wrote them.

One column holds the labels: the one the user names (by header name, or by number from 0, negative from the end),
else the only one with a usual name for y, else the last. Lines that are blank or begin with ``#`` are skipped.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..names import listed, quoted, role_of
from . import DAMAGED, Part, Request, opened, reader, scratch_file

_CHUNK = 4 << 20  # characters parsed at a time
_SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".dat")
_KINDS = {"int": np.int64, "float": np.float64, "text": np.str_}

Line = tuple[int, str]  # its number in the file, from 1, and its text


class _Wider(Exception):
    """A column needs a wider kind than it was read with; the file has to be read again."""

    def __init__(self, what: str, kind: str) -> None:
        super().__init__(what, kind)
        self.what, self.kind = what, kind


@dataclass(frozen=True)
class _Layout:
    """How the lines of a file are cut: the delimiter (None: blanks), the columns, whether the first line names them."""

    path: Path
    delimiter: str | None
    header: tuple[str, ...] | None
    width: int
    label: int | None

    @property
    def features(self) -> list[int]:
        return [column for column in range(self.width) if column != self.label]

    def cut(self, line: str) -> list[str]:
        if self.delimiter is None:
            return line.split()
        try:
            fields = next(csv.reader([line], delimiter=self.delimiter, skipinitialspace=True))
        except csv.Error as error:
            raise DataError(f"{self.path}: a line is no row of a table ({error})", wanted="CSV") from None
        return [field.strip() for field in fields]

    def column(self, column: int) -> str:
        return f"column {column}" + (f" ({quoted(self.header[column])})" if self.header else "")


def read_column(path: Path, request: Request) -> NDArray[Any]:
    """The labels from a text file that holds nothing else, one on each line.

    Raises:
        DataError: there are more columns, or a label is missing.
    """
    layout = _layout(path, Request(request.scratch, y="0", header=request.header))
    if layout.width != 1:
        raise DataError(f"{path} has {layout.width} columns", wanted="one label on each line")
    _, y = _read_table(layout, request)
    assert y is not None
    return y


def _looks_like_text(head: bytes) -> bool:
    first, _, rest = head.partition(b"\n")
    return bool(rest) and all(byte > 31 or byte in b"\t\r\f" for byte in first) and bool(re.search(rb"[,;\t]", first))


@reader(
    "a CSV file", takes=("y", "labels", "header"), recognises=_looks_like_text, suffixes=_SUFFIXES, labels=read_column
)
def read(path: Path, request: Request) -> list[Part]:
    """Features and labels of one table; labels from ``--labels`` leave every column a feature.

    Raises:
        DataError: the lines differ in their number of columns, a feature is no number, or a cell is empty.
    """
    layout = _layout(path, request)
    if not layout.features:
        raise DataError(f"{path} has one column", wanted="features and a label", do="say --y none if it is a feature")
    X, y = _read_table(layout, request)
    if request.labels is not None:
        from . import read_labels

        y = read_labels(request.labels, request)
    names = None if layout.header is None else tuple(layout.header[column] for column in layout.features)
    assert X is not None
    return [Part(None, X, y, feature_names=names)]


def _layout(path: Path, request: Request) -> _Layout:
    first, second = (*(text for _, text in islice(_lines(path), 2)), "", "")[:2]
    if not first:
        raise DataError(f"{path} holds no line of data", wanted="a table")
    delimiter = next((sign for sign in "\t;," if sign in first), None)
    bare = _Layout(path, delimiter, None, 0, None)
    top, below = bare.cut(first), bare.cut(second)
    named = request.y
    labelled = request.labels is None and request.wants_y
    has_header = request.header
    if has_header is None:
        has_header = _names_columns(top, below, (named or "-1") if labelled else None)
    header = tuple(top) if has_header else None
    label = _label_column(path, named, header, len(top)) if labelled else None
    return _Layout(path, delimiter, header, len(top), label)


def _names_columns(top: list[str], below: list[str], label: str | None) -> bool:
    """Whether line one names the columns: all features there are names, or the label alone is one, above a number.

    A line that is part names and part numbers does not pass for a header: it is more likely a row with a bad cell.
    """
    at = None if label is None else _position(label, len(top))
    if label is not None and at is None and label in top:
        return True
    features = [field for column, field in enumerate(top) if column != at and field]
    if features and not any(map(_is_number, features)):
        return True
    over = at is not None and at < len(below) and not _is_number(top[at]) and _is_number(below[at])
    return over and all(map(_is_number, features))


def _label_column(path: Path, named: str | None, header: tuple[str, ...] | None, width: int) -> int:
    if named is None:
        usual = [column for column, name in enumerate(header or ()) if role_of(name) == "y"]
        return usual[0] if len(usual) == 1 else width - 1
    if header is not None and header.count(named) == 1:
        return header.index(named)
    position = _position(named, width)
    if position is None:
        held = f"its columns are {listed(header)}" if header else f"it has {width} columns without names"
        raise DataError(f"{path} has no column {quoted(named)}; {held}", do="say --y NAME, or a number from 0")
    return position


def _position(named: str, width: int) -> int | None:
    if not re.fullmatch(r"-?\d+", named, re.ASCII) or not -width <= int(named) < width:
        return None
    return int(named) % width


def _read_table(layout: _Layout, request: Request) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    kinds = {"x": "int", "y": "int"}
    while True:
        try:
            return _read_as(layout, kinds, request)
        except _Wider as found:
            kinds[found.what] = found.kind


def _read_as(
    layout: _Layout, kinds: dict[str, str], request: Request
) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    """X, mapped from a scratch file, and y; the columns parsed as these kinds."""
    lines = _lines(layout.path)
    if layout.header:
        next(lines)
    first = next(lines, None)
    if first is None:
        raise DataError(f"{layout.path} holds no line of data below its header", wanted="a table")
    at_a_time = max(1, _CHUNK // (len(first[1]) + 1))
    chunk = [first, *islice(lines, at_a_time)]
    rows, labels = 0, []
    with scratch_file(request) as scratch:
        while chunk:
            _check_widths(layout, chunk)
            if layout.features:
                scratch.write(_parse(layout, chunk, layout.features, "x", kinds["x"]).tobytes())
            if layout.label is not None:
                labels.append(_parse(layout, chunk, [layout.label], "y", kinds["y"]).reshape(-1))
            rows += len(chunk)
            chunk = list(islice(lines, at_a_time))
        scratch.flush()
        shape = (rows, len(layout.features))
        X = np.memmap(scratch, _KINDS[kinds["x"]], "r", shape=shape) if layout.features else None
    return X, np.concatenate(labels) if labels else None


def _lines(path: Path) -> Iterator[Line]:
    try:
        with opened(path) as file, io.TextIOWrapper(file, "utf-8-sig") as text:
            for number, line in enumerate(text, 1):
                if line.strip() and not line.startswith("#"):
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason})", wanted="text in UTF-8") from None
    except DAMAGED as error:
        raise DataError(f"{path} cannot be read: {error}", wanted="a whole file") from None


def _check_widths(layout: _Layout, chunk: list[Line]) -> None:
    """Raise DataError at the first line with more or fewer columns: NumPy overlooks columns it is not asked for."""
    for number, line in chunk:
        if "\0" in line or line.count('"') % 2:
            what = "a zero byte" if "\0" in line else "a quotation mark without its pair"
            raise DataError(f"{layout.path} line {number} holds {what}", wanted="each row on a line of its own")
        if layout.delimiter is not None and '"' not in line:
            width = line.count(layout.delimiter) + 1
        else:
            width = len(layout.cut(line))
        if width != layout.width:
            raise DataError(
                f"{layout.path} line {number} has {width} columns", wanted=f"{layout.width}, as in the first line"
            )


def _parse(layout: _Layout, chunk: list[Line], columns: list[int], what: str, kind: str) -> NDArray[Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found: NDArray[Any] = np.loadtxt(
                (line for _, line in chunk),
                dtype=_KINDS[kind],
                delimiter=layout.delimiter,
                usecols=columns,
                comments=None,
                quotechar='"',
                ndmin=2,
            )
    except DeprecationWarning:  # up to NumPy 2.3, "1.5" is the integer 1 and a warning
        raise _Wider(what, "float") from None
    except ValueError as error:
        place = re.search(r"at row (\d+), column (\d+)", str(error))
        row = int(place[1]) if place else 0
        column = int(place[2]) - 1 if place else columns[0]
        cells = layout.cut(chunk[row][1])
        raise _trouble(layout, chunk[row][0], column, cells[column], what, kind) from None
    if kind == "text":
        found = np.char.strip(found)
        if not np.char.str_len(found).all():
            row = int(np.argmin(np.char.str_len(found).reshape(-1)))
            raise _trouble(layout, chunk[row][0], columns[0], "", what, kind)
    return found


def _trouble(layout: _Layout, number: int, column: int, cell: str, what: str, kind: str) -> Exception:
    """The error for a cell that could not be parsed: to read the file with a wider kind, or one for the user."""
    if cell and kind == "int" and _is_number(cell):
        return _Wider(what, "float")
    if cell and what == "y" and kind != "text":
        return _Wider(what, "text")
    place = f"{layout.path} line {number}, {layout.column(column)}"
    if not cell:
        return DataError(f"{place} is empty", wanted="a value in every cell", do="fill it in or remove the line")
    return DataError(
        f"{place} is {quoted(cell)}",
        wanted="a number",
        do="remove the column, write it as numbers, or say --y if it is the label"
        + (", --header if these are names" if number == 1 else ""),
    )


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return "_" not in field
