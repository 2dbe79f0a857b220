"""Tables in text: CSV, TSV, and numbers between blanks, plain or compressed by gzip.

The file is read once, a few megabytes of lines at a time, as many at once as there are cores; features and labels go to
scratch files, so memory does not grow with the file. Columns begin as integers and are widened
when a number with a point turns up. Should the first text label come after labels that are numbers, the file is read
again: labels then all become text as the user wrote them. Lines that are blank or begin with ``#`` are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...errors import DataError
from ..in_order import in_order
from . import Part, Request, read_labels, reader
from ._blocks import WORKERS, Block, Line, below, blocks, lines
from ._cells import Cells, Kinds, Layout, is_missing, is_number, read_cells
from ._columns import Columns, choose_columns, position_of
from ._rows import Rows, Words

_TAKES = ("x", "y", "weights", "labels", "header")


class _Again(Exception):
    """Labels that were read as numbers have to be read as text."""


def read_column(path: Path, request: Request) -> NDArray[Any]:
    """The labels from a text file that holds nothing else, one on each line.

    Raises:
        DataError: there are more columns, or a label is missing.
    """
    alone = Request(request.scratch, y="0", header=request.header)
    layout, below_line = _layout(path, alone)
    if layout.width != 1:
        raise DataError(f"{path} has {layout.width} columns", wanted="one label on each line")
    _, y, _ = read_table(layout, alone, below(blocks(path), below_line))
    assert y is not None
    return y


def _first_line(head: bytes) -> bytes:
    """The first line of the table, if the bytes are text and hold it and its end."""
    if any(byte < 32 and byte not in b"\t\r\n\f" for byte in head):
        return b""
    whole = [line for line in head.replace(b"\r", b"\n").split(b"\n")[:-1] if line.strip() and line[:1] != b"#"]
    return whole[0] if whole else b""


def _has_tabs(head: bytes) -> bool:
    return b"\t" in _first_line(head)


def _has_commas(head: bytes) -> bool:
    return bool(re.search(rb"[,;]", _first_line(head))) and not _has_tabs(head)


def _read(path: Path, request: Request) -> list[Part]:
    """Features and labels of one table; labels from ``--labels`` leave every column a feature.

    Raises:
        DataError: the lines differ in their number of columns, a feature is no number, or a cell is empty.
    """
    layout, below_line = _layout(path, request)
    if not layout.columns.features:
        has = "one column" if layout.width == 1 else "no column left for features"
        raise DataError(f"{path} has {has}", wanted="features and a label", do="say --y none if it has no label")
    X, y, weights = read_table(layout, request, below(blocks(path), below_line))
    if request.labels is not None:
        y = read_labels(request.labels, request)
    names = None if layout.header is None else tuple(layout.header[column] for column in layout.columns.features)
    assert X is not None
    return [Part(None, X, y, weights, names)]


@reader("a CSV file", takes=_TAKES, recognises=_has_commas, suffixes=(".csv",), labels=read_column, guesses=True)
def read_csv(path: Path, request: Request) -> list[Part]:
    """A table with commas or semicolons between its cells."""
    return _read(path, request)


@reader("a TSV file", takes=_TAKES, recognises=_has_tabs, suffixes=(".tsv", ".tab"), labels=read_column, guesses=True)
def read_tsv(path: Path, request: Request) -> list[Part]:
    """A table with tabs between its cells."""
    return _read(path, request)


@reader(
    "a table in a text file",
    takes=_TAKES,
    recognises=lambda head: False,
    suffixes=(".txt", ".dat", ".data"),
    labels=read_column,
    guesses=True,
)
def read_text(path: Path, request: Request) -> list[Part]:
    """A table with blanks or any of the other signs between its cells."""
    return _read(path, request)


def _layout(path: Path, request: Request) -> tuple[Layout, int]:
    """How the file is cut, and the line below which the rows begin."""
    found = (line for block in blocks(path) for line in lines(path, block))
    top_line: list[Line] = list(islice(found, 2))
    if not top_line:
        raise DataError(f"{path} holds no line of data", wanted="a table")
    number, first = top_line[0]
    delimiter = next((sign for sign in "\t;," if sign in first), None)
    bare = Layout(path, delimiter, None, 0, Columns((), None, None))
    top, beneath = bare.cut(first), bare.cut(top_line[1][1]) if len(top_line) > 1 else []
    has_header = request.header
    if has_header is None:
        labelled = request.labels is None and request.wants_y
        has_header = _names_columns(top, beneath, (request.y or "-1") if labelled else None)
    header = tuple(top) if has_header else None
    if header and len(top_line) == 1:
        raise DataError(f"{path} holds no line of data below its header", wanted="a table")
    columns = choose_columns(path, len(top), header, request)
    return Layout(path, delimiter, header, len(top), columns, request.missing), number if header else 0


def _names_columns(top: list[str], beneath: list[str], label: str | None) -> bool:
    """Whether line one names the columns: all features there are names, or the label alone is one, above a number.

    A line that is part names and part numbers does not pass for a header: it is more likely a row with a bad cell.
    """
    at = None if label is None else position_of(label, len(top))
    if label is not None and at is None and label in top:
        return True
    features = [cell for column, cell in enumerate(top) if column != at and cell]
    if features and not any(map(is_number, features)) and not all(map(is_missing, features)):
        return True
    over = at is not None and at < len(beneath) and not is_number(top[at]) and is_number(beneath[at])
    return over and all(map(is_number, features))


def read_table(
    layout: Layout, request: Request, found: Iterator[Block]
) -> tuple[NDArray[Any] | None, NDArray[Any] | None, NDArray[Any] | None]:
    """X, y and weights from blocks of lines, each mapped from a scratch file; None for what the layout does not have.

    Raises:
        DataError: as `read_cells`; or no line holds anything.
    """
    kept = list(islice(found, 1))  # most often the first block says what the labels are
    kinds = Kinds()
    try:
        return _read_as(layout, request, kinds, _chain(kept, found))
    except _Again:
        _, below_line = _layout(layout.path, request)
        return _read_as(layout, request, Kinds(y="text"), below(blocks(layout.path), below_line))


def _chain(kept: list[Block], found: Iterator[Block]) -> Iterator[Block]:
    yield from kept
    yield from found


def _read_as(
    layout: Layout, request: Request, kinds: Kinds, found: Iterator[Block]
) -> tuple[NDArray[Any] | None, NDArray[Any] | None, NDArray[Any] | None]:
    with ExitStack() as stack:
        stores = {role: stack.enter_context(Rows(request, f"{layout.path}: {role}")) for role in layout.roles}
        words = Words()
        for cells in _in_order(layout, kinds, found):
            for role, store in stores.items():
                array = getattr(cells, role)
                if role == "y" and cells.kinds.y == "text":
                    if store.rows and not words:
                        raise _Again
                    array = words.coded(array)
                store.add(array)
        arrays = {role: store.array() for role, store in stores.items()}
        if not any(store.rows for store in stores.values()):
            raise DataError(f"{layout.path} holds no line of data", wanted="a table")
        y = arrays.get("y")
        if words and y is not None:
            y = words.decoded(y, request)
        return arrays.get("x"), y, arrays.get("weights")


def _in_order(layout: Layout, kinds: Kinds, found: Iterator[Block]) -> Iterator[Cells]:
    """The cells of all blocks; several are read at a time, since NumPy does most of it outside Python's lock."""

    def work(block: Block) -> tuple[Kinds, Cells | None]:
        asked = kinds
        return asked, read_cells(block, layout, asked)

    with in_order(work, found, threads=WORKERS, ahead=WORKERS) as results:
        for block, (asked, cells) in results:
            if asked != kinds:  # a wider kind turned up meanwhile: each block is read as if it had waited for that
                cells = read_cells(block, layout, kinds)
            if cells is not None:
                kinds = cells.kinds
                yield cells
