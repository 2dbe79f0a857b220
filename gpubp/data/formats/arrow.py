"""Parquet and Feather (Arrow's IPC format), by pyarrow, a batch of rows at a time.

Columns are chosen as those of a CSV file. A feature is a column of numbers or booleans, or of lists of them, all of
one length (pixels, say), which becomes as many features. Labels may be text, plain or as a dictionary. pandas' index is
left out unless it is named.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..names import quoted
from . import VALUES, Part, Request, read_labels, reader
from ._columns import Columns, choose_columns
from ._rows import Rows, Words, check_exact

_BATCH = 4 << 20  # bytes of features in a batch, about
_TAKES = ("x", "y", "weights", "labels")


@contextmanager
def _told(path: Path, kind: str) -> Iterator[Any]:
    """pyarrow; what it raises over a damaged file becomes a DataError."""
    try:
        import pyarrow
    except ImportError:
        raise DataError(f"{path} is {kind}", wanted="pyarrow to read it", do="pip install 'gpubp[formats]'") from None
    try:
        yield pyarrow
    except (pyarrow.ArrowException, OSError, MemoryError, EOFError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, OSError) and error.errno and not isinstance(error, pyarrow.ArrowException):
            raise  # the disk's trouble, not the file's
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} cannot be read: {reason}", wanted=f"a whole file, {kind}", do="get it again") from None


@reader("a Parquet file", takes=_TAKES, recognises=lambda head: head.startswith(b"PAR1"), suffixes=(".parquet", ".pq"))
def read_parquet(path: Path, request: Request) -> list[Part]:
    """Features and labels of one table.

    Raises:
        DataError: pyarrow is not there, a column cannot be what it has to be, or a value is missing.
    """
    with _told(path, "a Parquet file") as pa:
        import pyarrow.parquet as pq

        with pa.OSFile(str(path)) as source, pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20) as file:

            def batches(names: list[str], rows: int) -> Iterator[Any]:
                return file.iter_batches(rows, columns=names, use_threads=True)

            return _read(path, request, file.schema_arrow, file.metadata.num_rows, batches)


@reader(
    "a Feather file",
    takes=_TAKES,
    recognises=lambda head: head.startswith((b"ARROW1\0\0", b"FEA1")),
    suffixes=(".feather", ".arrow", ".ipc"),
)
def read_feather(path: Path, request: Request) -> list[Part]:
    """Features and labels of one table in Arrow's IPC file format, which is Feather's second version.

    Raises:
        DataError: as `read_parquet`.
    """
    with _told(path, "a Feather file") as pa:
        with open(path, "rb") as file:
            if file.read(4) == b"FEA1":
                raise DataError(f"{path} is Feather of version 1", wanted="version 2 (Arrow)", do="write it again")
        with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as file:

            def batches(names: list[str], rows: int) -> Iterator[Any]:
                for number in range(file.num_record_batches):
                    batch = file.get_batch(number).select(names)
                    batch.validate(full=True)  # offsets and codes are used unseen otherwise
                    yield from (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))

            return _read(path, request, file.schema, None, batches)


def _read(path: Path, request: Request, schema: Any, m: int | None, batches: Any) -> list[Part]:
    header = list(schema.names)
    if len(set(header)) < len(header):
        raise DataError(f"{path} has two columns of one name", wanted="a name for each", do="rename one")
    index = _index_of(schema, request)
    header = [name for name in header if name not in index]
    if not header:
        raise DataError(f"{path} has no columns", wanted="features and a label")
    columns = choose_columns(path, len(header), header, request)
    if not columns.features:
        raise DataError(f"{path} has one column", wanted="features and a label", do="say --y none if it is a feature")
    types = {name: _Type(path, name, schema.field(name).type) for name in header}
    chosen = _roles(columns, header)
    for role, names in chosen.items():
        for name in names:
            types[name].check(role)
    wide = sum(types[name].width or 1 for name in chosen["x"])
    size = 0 if m is None else m * sum((types[name].width or 1) * types[name].bytes for name in chosen["x"])
    if size > (free := shutil.disk_usage(request.scratch).free):
        raise DataError(f"{path} takes {size:,} bytes", wanted=f"the {free:,} that are free in {request.scratch}")
    names = list(dict.fromkeys(name for found in chosen.values() for name in found))
    with ExitStack() as stack:
        stores = {role: stack.enter_context(Rows(request, f"{path}: {role}", exact=True)) for role in chosen}
        words, row = Words(), 0
        for batch in batches(names, max(1, _BATCH // (8 * wide))):
            if not batch.num_rows:
                continue
            for role, found in chosen.items():
                cells = [types[name].cells(batch.column(name), role, row, request.missing) for name in found]
                array = cells[0] if role != "x" else _beside(cells, f"{path}: {role}")
                stores[role].add(words.coded(array) if array.dtype.kind == "U" else array)
            row += batch.num_rows
        if not row:
            raise DataError(f"{path} has no rows", wanted="a table with rows")
        arrays = {role: store.array() for role, store in stores.items()}
    y = arrays.get("y")
    if words and y is not None:
        y = words.decoded(y, request)
    if request.labels is not None:
        y = read_labels(request.labels, request)
    X = arrays["x"]
    assert X is not None
    return [Part(None, X, y, arrays.get("weights"), _feature_names(chosen["x"], types))]


def _roles(columns: Columns, header: list[str]) -> dict[str, list[str]]:
    every = {"x": columns.features, "y": (columns.label,), "weights": (columns.weight,)}
    return {role: names for role, found in every.items() if (names := [header[at] for at in found if at is not None])}


def _index_of(schema: Any, request: Request) -> set[str]:
    """The columns that are the index of a pandas table and not named by the user."""
    try:
        columns = (schema.pandas_metadata or {}).get("index_columns", [])
        named = f"{request.x},{request.y},{request.weights}"
        return {name for name in columns if isinstance(name, str) and name not in named}
    except (ValueError, AttributeError, TypeError):  # the note is no JSON, or of another shape
        return set()


def _feature_names(names: list[str], types: dict[str, _Type]) -> tuple[str, ...]:
    each = ((name, types[name].width) for name in names)
    return tuple(
        one for name, width in each for one in ([name] if width is None else [f"{name}[{i}]" for i in range(width)])
    )


def _beside(cells: list[NDArray[Any]], what: str) -> NDArray[Any]:
    """Columns, each (rows,) or (rows, width), as one array; of the type that holds all of them."""
    dtype = np.result_type(*{cell.dtype for cell in cells})
    if dtype.kind == "f" and all(cell.dtype.kind in "iu" for cell in cells):  # uint64 beside signed integers
        if not any((cell < 0).any() for cell in cells):
            dtype = np.dtype(np.uint64)
        elif all(int(cell.max()) < 1 << 63 for cell in cells):
            dtype = np.dtype(np.int64)
    out = np.empty((len(cells[0]), sum(1 if cell.ndim == 1 else cell.shape[1] for cell in cells)), dtype)
    at = 0
    for cell in cells:
        width = 1 if cell.ndim == 1 else cell.shape[1]
        check_exact(cell, dtype, what)
        out[:, at : at + width] = cell.reshape(-1, width)
        at += width
    return out


class _Type:
    """What a column of a schema can be: `width` features of `bytes` each (None: one, no list), or text."""

    def __init__(self, path: Path, name: str, stored: Any) -> None:
        import pyarrow.types as is_

        self.path, self.name, self.stored = path, name, stored
        plain = stored.storage_type if hasattr(stored, "storage_type") else stored
        plain = plain.value_type if is_.is_dictionary(plain) else plain
        self.lists = is_.is_list(plain) or is_.is_large_list(plain) or is_.is_fixed_size_list(plain)
        self.width = plain.list_size if is_.is_fixed_size_list(plain) else None
        value = plain.value_type if self.lists else plain
        self.numbers = is_.is_integer(value) or is_.is_floating(value) or is_.is_boolean(value)
        self.bytes = max(1, value.bit_width // 8) if self.numbers else 1
        self.text = not self.lists and (is_.is_string(value) or is_.is_large_string(value))

    def check(self, role: str) -> None:
        """Raise DataError if a column of this type cannot have this role."""
        if self.numbers and (role != "weights" or not self.lists):
            return
        if self.text and role == "y":
            return
        wanted = {"x": "numbers, or lists of numbers", "y": "numbers or text", "weights": "numbers"}[role]
        raise DataError(
            f"{self.path}: column {quoted(self.name)} is {quoted(str(self.stored))}",
            wanted=f"{wanted} for {'a feature' if role == 'x' else role}",
            do="name the features with --x a,b,3:10" if role == "x" else f"say --{role} NAME",
        )

    def cells(self, column: Any, role: str, row: int, missing: bool) -> NDArray[Any]:
        """A batch of this column; `row` is the number of its first row, for messages."""
        import pyarrow as pa

        column = column.storage if isinstance(column, pa.ExtensionArray) else column
        column = column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
        if self.lists:
            return self._lists(column, row, missing)
        if column.null_count and not (missing and role == "x"):
            raise self._lost(row + _first_null(column), role)
        if self.text:
            return np.array(column.to_pylist(), dtype=np.str_)
        return self._numbers(column, role, row, missing)

    def _numbers(self, column: Any, role: str, row: int, missing: bool, per_row: int = 1) -> NDArray[Any]:
        import pyarrow as pa

        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        if not column.null_count:
            found = column.to_numpy(zero_copy_only=False)
        else:
            lost = column.is_null().to_numpy(zero_copy_only=False)
            whole = column.fill_null(0).to_numpy(zero_copy_only=False)
            dtype = np.result_type(whole.dtype, np.float16)
            found = whole.astype(dtype)
            if not np.array_equal(found.astype(whole.dtype), whole) and whole.dtype.kind in "iu":
                raise DataError(
                    f"{self.path}: column {quoted(self.name)} has missing values and whole numbers beyond 2^53",
                    wanted="numbers that a float64 holds exactly",
                    do="leave it out with --x",
                )
            found[lost] = np.nan
        if found.dtype.kind == "f" and not (missing and role == "x") and (lost := np.isnan(found)).any():
            raise self._lost(row + int(np.argmax(lost)) // per_row, role)
        return found

    def _lists(self, column: Any, row: int, missing: bool) -> NDArray[Any]:
        import pyarrow as pa
        import pyarrow.compute as pc

        if column.null_count:
            raise self._lost(row + _first_null(column), "x")
        lengths = pc.call_function("list_value_length", [column]).to_numpy(zero_copy_only=False)
        if self.width is None:
            self.width = int(lengths[0])
        if (wrong := lengths != self.width).any() or not self.width:
            at = int(np.argmax(wrong))
            raise DataError(
                f"{self.path} row {row + at}, column {quoted(self.name)} is a list of {lengths[at]}",
                wanted=f"lists of one length, such as {self.width or 'the number of features'}",
            )
        values = column.flatten()
        assert isinstance(values, pa.Array)
        return self._numbers(values, "x", row, missing, self.width).reshape(-1, self.width)

    def _lost(self, row: int, role: str) -> DataError:
        keep = ", or say --missing keep" if role == "x" and not self.lists else ""
        return DataError(
            f"{self.path} row {row}, column {quoted(self.name)} has no value",
            wanted=VALUES[role],
            do=f"fill it in, remove the row{keep}",
        )


def _first_null(column: Any) -> int:
    return int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
