"""Octave's own text format (``save FILE X y``): for each variable ``# name: X``, ``# type: matrix``, its sides, values.

Written down where it is made: Octave's source, libinterp/octave-value/ov-*.cc (save_ascii). A matrix is written row by
row, one with ``# ndims:`` as one value on each line, column by column. The file is looked through for names first; then
the chosen matrices are read as tables are, in blocks, to scratch files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...errors import DataError
from ..names import Role, quoted
from . import Part, Request, reader
from ._blocks import LONGEST, Block, below, blocks, lines_in
from ._cells import Layout
from ._columns import Columns
from ._named import as_rows, read_named
from .text import read_table

_SIGN = re.compile(rb"^[#%] (name|type): ([^\r\n]*)", re.MULTILINE)
_BEGINS = re.compile(rb"(?:[#%] Created by Octave[^\n]*\n)?[#%] name: [^\n]+\n[#%] type: ")
_MATRIX = re.compile(r"(?:(?:float|bool|u?int(?:8|16|32|64)) )?(?:matrix|scalar)|bool")
_NESTED = ("cell", "struct", "object", "map")


@dataclass(frozen=True)
class _Variable:
    """One variable: its type, and the byte and the line where it begins; `end`: the byte where the next does."""

    name: str
    type: str
    start: int
    line: int
    end: int | None


def is_octave(head: bytes) -> bool:
    """Whether a file that begins so is in Octave's text format."""
    return bool(_BEGINS.match(head))


@reader("an Octave text file", takes=("x", "y", "weights", "labels"), recognises=is_octave, suffixes=(".octave",))
def read(path: Path, request: Request) -> list[Part]:
    """The matrices under the usual names, or under those the user gave; one part for each split.

    Raises:
        DataError: what is asked for is no matrix of numbers, or it has fewer or more values than its sides say.
    """
    variables = {one.name: one for one in _variables(path)}

    def array(name: str, role: Role) -> NDArray[Any]:
        return _matrix(path, variables[name], role, request)

    return [as_rows(part) for part in read_named(variables, array, path, request)]


class Variables:
    """The variables of a file.

    Attributes:
        names: of all of them, whatever they are.
    """

    def __init__(self, path: Path, found: list[_Variable], request: Request) -> None:
        self._path, self._request = path, request
        self._variables = {one.name: one for one in found}
        self.names = list(self._variables)

    def size(self, name: str) -> int:
        """How many values its header speaks of."""
        one = self._variables[name]
        return math.prod(_head(self._path, one, None if one.end is None else one.end - one.start)[1])

    def array(self, name: str) -> NDArray[Any]:
        """One of them, a matrix.

        Raises:
            DataError: it is no matrix of real numbers, or has fewer or more than its sides say.
        """
        return _matrix(self._path, self._variables[name], "x", self._request)


def variables_of(path: Path, request: Request) -> Variables:
    """The variables of a file in Octave's text format.

    Raises:
        DataError: it holds what is no matrix and cannot be passed over.
    """
    return Variables(path, _variables(path), request)


def _variables(path: Path) -> list[_Variable]:
    found: list[tuple[str, str, int, int]] = []
    at = 0
    for block in blocks(path):
        for sign in _SIGN.finditer(block.text):
            value = sign[2].decode("utf-8", "replace").strip()
            if sign[1] == b"name":
                found.append((value, "", at + sign.start(), block.line + lines_in(block.text[: sign.start()])))
            elif found and not found[-1][1]:
                found[-1] = (found[-1][0], value, *found[-1][2:])
                if any(word in value for word in _NESTED):
                    raise DataError(
                        f"{path}: {quoted(found[-1][0])} is a {value}", wanted="matrices", do="save X and y alone"
                    )
        at += len(block.text)
    ends = [*(start for _, _, start, _ in found[1:]), None]
    return [_Variable(*one, end) for one, end in zip(found, ends, strict=True)]


def _matrix(path: Path, one: _Variable, role: Role, request: Request) -> NDArray[Any]:
    what = f"{path}: {quoted(one.name)}"
    if not _MATRIX.fullmatch(one.type):
        found = f"{what} is of the type {quoted(one.type)}"
        raise DataError(found, wanted="a matrix of real numbers", do="save it as one")
    size = None if one.end is None else one.end - one.start
    notes, shape, line = _head(path, one, size)
    by_columns = "ndims" in notes
    width = 1 if by_columns else shape[1]
    if width > LONGEST // 2:
        raise DataError(f"{what} is to have {width:,} columns", wanted=f"lines of at most {LONGEST:,} bytes")
    if not math.prod(shape):
        raise DataError(f"{what} is empty, its shape is {shape}", wanted="at least one row and one column")
    one_column = width == 1 and role != "x"
    columns = Columns((), 0, None) if one_column else Columns(tuple(range(width)), None, None)
    layout = Layout(path, None, None, width, columns, request.missing and role == "x")
    x, y, _ = read_table(layout, request, below(_upto(blocks(path, one.start, one.line), size), line))
    values = y if one_column else x
    assert values is not None
    if values.size != math.prod(shape):
        raise DataError(f"{what} has {values.size:,} values", wanted=f"the {math.prod(shape):,} of its shape {shape}")
    return values.reshape(shape, order="F" if by_columns else "C")


def _head(path: Path, one: _Variable, size: int | None) -> tuple[dict[str, int], tuple[int, ...], int]:
    """The numbers of the header's lines, the shape, and the last line before the values."""
    block = next(_upto(blocks(path, one.start, one.line), size), Block(b"", one.line))
    rows = block.text[:4096].replace(b"\r\n", b"\n").split(b"\n")
    notes: dict[str, int] = {}
    last = -1
    for row in rows:
        last += 1
        sign = re.match(rb"[#%] (\w+): *(\d{1,18})[ \r]*$", row)
        if sign:
            notes[sign[1].decode()] = int(sign[2])
        elif not row.startswith((b"#", b"%")):
            break
    shape: tuple[int, ...] = ()
    if "ndims" in notes:
        shape = tuple(int(side) for side in rows[last].split() if re.fullmatch(rb"\d{1,18}", side))
        last += 1
    elif "rows" in notes and "columns" in notes:
        shape = (notes["rows"], notes["columns"])
    elif one.type.endswith("scalar") or one.type == "bool":
        shape = (1, 1)
    if len(shape) < 2 or notes.get("ndims", len(shape)) != len(shape):
        raise DataError(f"{path}: {quoted(one.name)} does not say its rows and columns", wanted="Octave's text format")
    return notes, shape, one.line + last - 1


def _upto(found: Iterator[Block], size: int | None) -> Iterator[Block]:
    """The first bytes of these blocks, if `size` says how many."""
    for block in found:
        text = block.text if size is None else block.text[:size]
        if text:
            yield Block(text, block.line)
        if size is not None:
            size -= len(text)
            if size <= 0:
                return
