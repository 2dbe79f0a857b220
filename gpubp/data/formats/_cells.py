"""The cells of a block of lines as arrays of numbers or of text.

Each block is read in one of two ways: all cells at once where it is plain (see `_plain`), else line by line with
NumPy's `loadtxt`, which is the definition and names the line and the column of whatever is wrong. The quick way counts
only where the other's result would be the same; of anything else it says nothing, and the other way is gone.
"""

from __future__ import annotations

import csv
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..names import quoted
from . import VALUES
from ._blocks import Block, Line, lines
from ._columns import Columns
from ._digits import Beyond, is_beyond, marks, numbers, texts

MISSING = frozenset({"", "nan", "-nan", "na", "n/a", "<na>", "null", "?"})  # in any case of letters
_MISSING = sorted(MISSING)
# Bytes whose cells are read at once: in the cache, and long enough that two threads seldom wait for Python's lock.
_PIECE = 1 << 18
_TYPES = {"int": np.int64, "float": np.float64, "gaps": np.float64, "text": np.str_}


@dataclass(frozen=True)
class Layout:
    """How lines become cells.

    Attributes:
        path: the file.
        delimiter: between cells; None: blanks.
        header: the names of the columns.
        width: how many columns there are.
        columns: which of them are what.
        missing: whether features may be missing.
    """

    path: Path
    delimiter: str | None
    header: tuple[str, ...] | None
    width: int
    columns: Columns
    missing: bool = False

    def cut(self, line: str) -> list[str]:
        """The cells of a line, without blanks around them."""
        if self.delimiter is None:
            return line.split()
        try:
            fields = next(csv.reader([line], delimiter=self.delimiter, skipinitialspace=True))
        except csv.Error as error:
            raise DataError(f"{self.path}: a line is no row of a table ({error})", wanted="CSV") from None
        return [field.strip() for field in fields]

    def place(self, number: int, column: int) -> str:
        """Line and column, for a message."""
        named = f" ({quoted(self.header[column])})" if self.header else ""
        return f"{self.path} line {number}, column {column}{named}"

    @property
    def roles(self) -> dict[str, list[int]]:
        """The columns of x, y and weights; those that are not there are left out."""
        every = {"x": self.columns.features, "y": (self.columns.label,), "weights": (self.columns.weight,)}
        return {role: some for role, found in every.items() if (some := [at for at in found if at is not None])}


@dataclass(frozen=True)
class Kinds:
    """What the cells of x, y and weights are read as: "int", "float", or for y "text"."""

    x: str = "int"
    y: str = "int"
    weights: str = "int"

    def wider(self, role: str, kind: str) -> Kinds:
        return replace(self, **{role: kind})

    def of(self, role: str) -> str:
        return getattr(self, role)


@dataclass(frozen=True)
class Cells:
    """A block's x (rows, columns), y and weights (rows,), and the kinds they turned out to be."""

    kinds: Kinds
    x: NDArray[Any] | None = None
    y: NDArray[Any] | None = None
    weights: NDArray[Any] | None = None


class _Wider(Exception):
    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def read_cells(block: Block, layout: Layout, kinds: Kinds) -> Cells | None:
    """The cells of a block as these kinds or wider ones; None where no line holds anything.

    Raises:
        DataError: lines differ in their number of columns, a feature is no number, a value is missing; with its place.
    """
    if (quick := _read_plain(block, layout, kinds)) is not None:
        return quick
    rows = lines(layout.path, block)
    if not rows:
        return None
    _check_widths(layout, rows)
    arrays = {}
    for role, columns in layout.roles.items():
        while True:
            try:
                found = _parse(layout, rows, columns, role, kinds.of(role))
                break
            except _Wider as wider:
                kinds = kinds.wider(role, wider.kind)
        if kinds.of(role) == "gaps":
            kinds = kinds.wider(role, "float")
        arrays[role] = found if role == "x" else found.reshape(-1)
    return Cells(kinds, **arrays)


def _read_plain(block: Block, layout: Layout, kinds: Kinds) -> Cells | None:
    """All cells at once; None where the block has to be read line by line."""
    text = _plain(block.text, layout)
    if text is None:
        return None
    try:
        found = _all_at_once(text, layout, kinds) if layout.width > 1 else None  # of one column, a blank line is a cell
        if found is None and (b"\n\n" in text or text[:1] == b"\n" or layout.width == 1):
            found = _all_at_once(re.sub(rb"^\n+|(?<=\n)\n+", b"", text), layout, kinds)
    except Beyond:
        return None
    return found


def _all_at_once(text: bytes, layout: Layout, kinds: Kinds) -> Cells | None:
    separators = (layout.delimiter or " ").encode() + b"\n"
    gaps = MISSING if layout.missing else None
    pieces: dict[str, list[NDArray[Any]]] = {role: [] for role in layout.roles}
    signs, at = np.frombuffer(text, np.uint8), 0
    while at < len(text):
        end = text.rfind(b"\n", at, at + _PIECE) + 1 or text.find(b"\n", at) + 1
        found = marks(signs[at:end], separators)
        at = end
        if found.ends.size % layout.width or found.has_controls:
            return None
        borders = found.text[found.ends].reshape(-1, layout.width)
        if (borders[:, -1] != separators[1]).any() or (borders[:, :-1] != separators[0]).any():
            return None
        for role, columns in layout.roles.items():
            cut = slice(columns[0], columns[-1] + 1) if columns == list(range(columns[0], columns[-1] + 1)) else columns
            starts, ends = (at.reshape(borders.shape)[:, cut].reshape(-1) for at in (found.starts, found.ends))
            while True:
                kind = kinds.of(role)
                if kind == "text":
                    array = texts(found, starts, ends)
                    if array is not None and np.isin(np.char.lower(array), _MISSING).any():
                        return None
                else:
                    array = numbers(found, starts, ends, kind == "int", gaps if role == "x" else None)
                if array is not None:
                    break
                if kind == "text" or (kind == "float" and role != "y"):
                    return None
                kinds = kinds.wider(role, "float" if kind == "int" else "text")
            pieces[role].append(array)
        # labels become text in the middle of a block: those before were read as numbers
        if kinds.y == "text" and pieces.get("y") and pieces["y"][0].dtype.kind != "U":
            return _all_at_once(text, layout, kinds)
    if not text:
        return None
    arrays = {role: np.concatenate(found) for role, found in pieces.items()}
    if "x" in arrays:
        arrays["x"] = arrays["x"].reshape(-1, len(layout.columns.features))
    return Cells(kinds, **arrays)


def _plain(text: bytes, layout: Layout) -> bytes | None:
    """The text with one sign between cells, one between lines and no comments; None if it may be read in two ways."""
    if b"\0" in text or (b'"' in text and layout.delimiter is None):
        return None
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"#" in text:
        text = re.sub(rb"(?m)^#.*\n?", b"", text)
    if b'"' in text and (text := _without_quotes(text, layout.delimiter or "")) == b"":
        return None
    if layout.delimiter is None:
        if re.search(rb"[\x0b\x0c\x1c-\x1f]", text) or not text.isascii():
            return None
        text = text.replace(b"\t", b" ")
        while b"  " in text:
            text = text.replace(b"  ", b" ")
        text = text.replace(b"\n ", b"\n").replace(b" \n", b"\n").strip(b" ")
    if layout.missing and layout.delimiter == "\t" and re.search(rb"(?m)^[ \t]+$", text):
        return None  # a blank line is no row of missing values
    return text if not text or text.endswith(b"\n") else text + b"\n"


def _without_quotes(text: bytes, delimiter: str) -> bytes:
    """The text without quotation marks, if these stand only around whole cells that do not need them; else nothing."""
    signs = np.frombuffer(text, np.uint8)
    at = np.flatnonzero((signs == ord('"')) | (signs == ord(delimiter)) | (signs == ord("\n")))
    quotes = np.flatnonzero(signs[at] == ord('"'))
    opening, closing = quotes[::2], quotes[1::2]
    if len(quotes) % 2 or (closing != opening + 1).any() or (at[closing] == at[opening] + 1).any():
        return b""
    before, after = at[opening] - 1, at[closing] + 1
    apart = np.zeros(256, bool)
    apart[[ord(delimiter), ord("\n")]] = True
    if not apart[signs[before[before >= 0]]].all() or not apart[signs[after[after < len(signs)]]].all():
        return b""
    return text.replace(b'"', b"")


def is_number(cell: str) -> bool:
    """Whether NumPy reads this cell as a float."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell and cell.isascii()


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no value."""
    return cell.strip().lower() in MISSING


def _check_widths(layout: Layout, rows: list[Line]) -> None:
    """Raise DataError at the first line with more or fewer columns: NumPy overlooks columns it is not asked for."""
    for number, line in rows:
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


def _parse(layout: Layout, rows: list[Line], columns: list[int], role: str, kind: str) -> NDArray[Any]:
    delimiter = layout.delimiter
    texts = (line for _, line in rows)
    if kind == "gaps":
        cut = (layout.cut(line) for line in texts)
        full = ([cells[column] for column in columns] for cells in cut)
        texts = ("\t".join("nan" if is_missing(cell) else cell for cell in cells) for cells in full)
        delimiter = "\t"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found: NDArray[Any] = np.loadtxt(
                texts,
                dtype=_TYPES[kind],
                delimiter=delimiter,
                usecols=None if kind == "gaps" else columns,
                comments=None,
                quotechar='"',
                ndmin=2,
            )
    except DeprecationWarning:  # up to NumPy 2.3, "1.5" is the integer 1 and a warning
        raise _Wider("float") from None
    except ValueError as error:
        place = re.search(r"at row (\d+), column (\d+)", str(error))
        row = int(place[1]) if place else 0
        column = int(place[2]) - 1 if place else columns[0]
        column = columns[column] if kind == "gaps" else column
        raise _trouble(layout, rows[row], column, role, kind) from None
    if kind in ("float", "gaps"):
        for row, column in np.argwhere(np.isinf(found)):
            number, line = rows[row]
            if is_beyond(cell := layout.cut(line)[columns[column]]):
                raise DataError(
                    f"{layout.place(number, columns[column])} is {quoted(cell)}",
                    wanted="a number that float64 holds, up to 1.8e308",
                    do="correct it, or write inf",
                )
    if kind == "text":
        found = np.char.strip(found)
        lost = np.isin(np.char.lower(found), _MISSING)
    else:
        lost = np.isnan(found) if kind == "float" else np.zeros(1, bool)
    if lost.any():
        row, column = np.unravel_index(np.argmax(lost), found.shape)
        raise _trouble(layout, rows[row], columns[column], role, kind)
    return found


def _trouble(layout: Layout, row: Line, column: int, role: str, kind: str) -> Exception:
    """The error for a cell that could not be parsed: to read the block with a wider kind, or one for the user."""
    number, line = row
    cell = layout.cut(line)[column]
    place = layout.place(number, column)
    if is_missing(cell):
        if role == "x" and layout.missing:
            return _Wider("gaps")
        keep = ", or say --missing keep" if role == "x" else ""
        return DataError(
            f"{place} is {quoted(cell)}" if cell else f"{place} is empty",
            wanted=VALUES[role],
            do=f"fill it in, remove the line{keep}",
        )
    if kind == "int" and is_number(cell):
        return _Wider("float")
    if role == "y" and kind != "text":
        return _Wider("text")
    return DataError(
        f"{place} is {quoted(cell)}",
        wanted="a number",
        do="remove the column, write it as numbers, leave it out with --x, or say --y if it is the label"
        + (", --header if these are names" if number == 1 else ""),
    )
