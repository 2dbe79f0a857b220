"""svmlight's and LIBSVM's text: on each line a label and then index:value for the features that are not zero.

Indices begin at 1 in most files and at 0 in some. As in scikit-learn's ``zero_based="auto"``, they begin at 0 only if
the file holds an index of 0; a file from 0 whose first feature is zero in every row is thus read as if from 1, which
costs that empty column and nothing else. They ascend along a line, as the format asks. What stands after ``#`` is a
comment. The text is read once, into a scratch file of indices and values; then the dense rows are written, in whole
numbers if all values are whole, else in float32 where that is exact.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..in_order import in_order
from ..names import quoted
from . import Part, Request, read_labels, reader, scratch_file
from ._blocks import WORKERS, Block, blocks, lines
from ._digits import Beyond, is_beyond, marks, numbers
from ._rows import Rows

_PIECE = 1 << 17
_DENSE = 8 << 20  # bytes of dense rows made at a time
_PAIR = rb"[ \t]+\d+:[^\s:#]+"
_LABEL = rb"[ \t]*[-+]?[\d.]+(?:[eE][-+]?\d+)?(?:,[-+\d.eE]+)*(?:[ \t]+qid:\d+)?"
_LINE = re.compile(rb"%b(?:%b)+[ \t]*(?:#.*)?$" % (_LABEL, _PAIR))
_WIDEST = 1 << 28  # bytes of one dense row


@dataclass(frozen=True)
class _Sparse:
    """The rows of a piece: labels and counts (rows,), indices and values (entries,), one after the other."""

    labels: NDArray[np.float64]
    counts: NDArray[np.int64]
    indices: NDArray[np.int64]
    values: NDArray[np.float64]


def is_svmlight(head: bytes) -> bool:
    """Whether the first line with anything on it, of those that are there to their ends, is a row of this format."""
    whole, _, rest = head.replace(b"\r", b"\n").rpartition(b"\n")
    for line in whole.split(b"\n") if whole else [rest.rpartition(b" ")[0]]:  # a long line: what comes before the cut
        if line.strip() and not line.lstrip().startswith(b"#"):
            return bool(_LINE.match(line))
    return False


@reader("an svmlight file", takes=("labels",), recognises=is_svmlight, suffixes=(".svm", ".svmlight", ".libsvm"))
def read(path: Path, request: Request) -> list[Part]:
    """Dense rows and their labels.

    Raises:
        DataError: a line is not of this format, its indices do not ascend, or the dense rows do not fit the disk.
    """
    with ExitStack() as stack:
        y = stack.enter_context(Rows(request, f"{path}: y"))
        entries = stack.enter_context(scratch_file(request))
        first, last, m = 1 << 62, -1, 0
        dtype = np.dtype(np.int16)
        for part in _rows(path):
            if part.indices.size:
                first, last = min(first, int(part.indices.min())), max(last, int(part.indices.max()))
            dtype = _holds(dtype, part.values)
            m += len(part.counts)
            y.add(_whole_if_exact(part.labels))
            _save(entries, part)
        if m == 0:
            raise DataError(f"{path} holds no row", wanted="lines such as 1 3:0.5 7:2")
        if last < 0:
            raise DataError(f"{path} holds no feature", wanted="lines such as 1 3:0.5 7:2")
        from_one = first > 0
        d = last + (not from_one)
        size, free = m * d * dtype.itemsize, shutil.disk_usage(request.scratch).free
        if size > free or d * dtype.itemsize > _WIDEST:
            raise DataError(
                f"{path} has {m:,} rows of {d:,} features, {size:,} bytes as a dense array of {dtype}",
                wanted=f"the {free:,} that are free in {request.scratch}, and no row of more than {_WIDEST:,}",
                do="leave out the features with the highest indices",
            )
        entries.seek(0)
        with scratch_file(request) as out:
            _write_dense(entries, out, d, from_one, dtype)
            out.flush()
            X = np.memmap(out, dtype, "r", shape=(m, d))
        labels = y.array() if request.wants_y else None
    if request.labels is not None:
        labels = read_labels(request.labels, request)
    return [Part(None, X, labels)]


def _rows(path: Path) -> Iterator[_Sparse]:
    with in_order(partial(_pieces, path), blocks(path), threads=WORKERS, ahead=WORKERS) as results:
        for _, pieces in results:
            yield from pieces


def _pieces(path: Path, block: Block) -> list[_Sparse]:
    text = block.text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in block.text else block.text
    at, number, pieces = 0, block.line, []
    while at < len(text):
        end = text.rfind(b"\n", at, at + _PIECE) + 1 or text.find(b"\n", at) + 1 or len(text)
        piece = text[at:end]
        found = _quickly(piece)
        pieces.append(found if found is not None else _line_by_line(path, Block(piece, number)))
        at, number = end, number + piece.count(b"\n")
    return pieces


def _quickly(text: bytes) -> _Sparse | None:
    """All rows of a piece at once; None where it has to be read line by line."""
    if b"#" in text:
        text = re.sub(rb"[ \t]*#[^\n]*", b"", text)
    text = re.sub(rb"[ \t]{2,}|\t", b" ", text) if b"  " in text or b"\t" in text else text
    text = text.replace(b" \n", b"\n").strip(b" \n") + b"\n"
    text = re.sub(rb"\n[ \n]+", b"\n", text) if b"\n\n" in text or b"\n " in text else text
    text = text.replace(b"\n+", b"\n").removeprefix(b"+") if b"+" in text else text
    if text == b"\n":
        none = np.zeros(0)
        return _Sparse(none, none.astype(np.int64), none.astype(np.int64), none)
    found = marks(np.frombuffer(text, np.uint8), b" :\n")
    signs = found.text[found.ends]
    line_ends, index_cells = np.flatnonzero(signs == ord("\n")), np.flatnonzero(signs == ord(":"))
    line_starts = np.concatenate([[0], line_ends[:-1] + 1])
    counts = np.diff(np.searchsorted(index_cells, line_ends), prepend=0)
    # a line has a label and twice as many cells as colons; no two colons stand side by side, none after the label:
    # then every second cell is an index
    if (line_ends - line_starts != 2 * counts).any() or (signs[line_starts] == ord(":")).any():
        return None
    if (np.diff(index_cells) < 2).any():
        return None
    parts = []
    for some, whole in ((line_starts, False), (index_cells, True), (index_cells + 1, False)):
        try:
            array = numbers(found, found.starts[some], found.ends[some], whole, None)
        except Beyond:
            return None
        if array is None:
            return None
        parts.append(array)
    labels, indices, values = parts
    rising = np.ones(len(indices), bool)
    rising[1:] = indices[1:] > indices[:-1]
    rising[(np.cumsum(counts) - counts)[counts > 0]] = True
    if not rising.all() or (len(indices) and indices.min() < 0):
        return None
    return _Sparse(labels, counts, indices.astype(np.int64), values)


def _line_by_line(path: Path, block: Block) -> _Sparse:
    labels, counts, indices, values = [], [], [], []
    for number, line in lines(path, block):
        cells = line.partition("#")[0].split()
        if not cells:
            continue
        what = f"{path} line {number}"
        if "," in cells[0]:
            raise DataError(f"{what} has several labels ({quoted(cells[0])})", wanted="one label on each line")
        labels.append(_number(what, cells[0], "label"))
        counts.append(len(cells) - 1)
        before = -1
        for cell in cells[1:]:
            index, colon, value = cell.partition(":")
            if index == "qid":
                raise DataError(
                    f"{what} holds {quoted(cell)}: groups for ranking, which this training does not know",
                    wanted="label index:value …",
                    do="remove them: sed -i 's/ qid:[0-9]*//' on a copy",
                )
            if not colon or not re.fullmatch(r"\d{1,18}", index, re.ASCII):
                raise DataError(f"{what} holds {quoted(cell)}", wanted="index:value, such as 3:0.5")
            if int(index) <= before:
                raise DataError(f"{what}: index {index} comes after {before}", wanted="ascending indices, each once")
            before = int(index)
            indices.append(before)
            values.append(_number(what, value, f"value of feature {index}"))
    sizes, places = np.array(counts, np.int64), np.array(indices, np.int64)
    return _Sparse(np.array(labels, float), sizes, places, np.array(values, float))


def _number(what: str, cell: str, name: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = np.nan
    if value != value or "_" in cell or is_beyond(cell):
        raise DataError(f"{what}: the {name} is {quoted(cell)}", wanted="a number that float64 holds")
    return value


def _whole_if_exact(values: NDArray[np.float64]) -> NDArray[Any]:
    with np.errstate(invalid="ignore"):
        whole = (np.abs(values) < 2**53) & (values == np.trunc(values))
    return values.astype(np.int64) if whole.all() else values


def _holds(dtype: np.dtype[Any], values: NDArray[np.float64]) -> np.dtype[Any]:
    """The type, or else the narrowest wider one, that holds these values too: whole numbers, float32, float64."""
    if dtype.kind == "i":
        whole = _whole_if_exact(values)
        if whole.dtype.kind == "i":
            low, high = int(whole.min(initial=0)), int(whole.max(initial=0))
            ladder = (np.int16, np.int32, np.int64)
            wanted = next(one for one in ladder if np.iinfo(one).min <= low and high <= np.iinfo(one).max)
            return np.result_type(dtype, wanted)
        dtype = np.dtype(np.float32 if dtype.itemsize == 2 else np.float64)  # int32 may not fit a float32
    if dtype == np.float32:
        with np.errstate(over="ignore"):
            if not np.array_equal(values.astype(np.float32), values):
                return np.dtype(np.float64)
    return dtype


def _save(out: IO[bytes], part: _Sparse) -> None:
    out.write(np.array([len(part.counts), len(part.indices)], np.int64).data)
    for array in (part.counts, part.indices, part.values):
        if array.size:
            out.write(np.ascontiguousarray(array).data)


def _write_dense(entries: IO[bytes], out: IO[bytes], d: int, from_one: bool, dtype: np.dtype[Any]) -> None:
    step = max(1, _DENSE // (d * dtype.itemsize))
    while head := entries.read(16):
        rows, size = np.frombuffer(head, np.int64)
        counts, indices = (np.frombuffer(entries.read(8 * n), np.int64) for n in (rows, size))
        values = np.frombuffer(entries.read(8 * size), np.float64)
        ends = np.concatenate([[0], np.cumsum(counts)])
        for start in range(0, rows, step):
            stop = min(start + step, int(rows))
            some = slice(ends[start], ends[stop])
            dense = np.zeros((stop - start, d), dtype)
            where = np.repeat(np.arange(stop - start), counts[start:stop])
            dense[where, indices[some] - from_one] = values[some]
            out.write(dense.data)
