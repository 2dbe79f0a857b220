"""Fields of compound tables as rows: ``jets[pt,eta]`` is a row of two numbers for each record of `jets`.

PyTables, pandas ("table" format) and most files of high-energy physics keep one record for each example. A field may
itself be an array of numbers (pandas' ``values_block_0``): it gives as many columns. Records are read several at a time
into one buffer, by the fastest way there is for their bytes, and the fields are copied out of it.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .hdf5.file import HdfFile
from .hdf5.stored import Stored
from .hdf5.ways import Way, choose
from .names import field_options, listed, quoted, role_of
from .source import row_dtype, shape_text

_PIECE = 1 << 20  # bytes of records read at a time


@dataclass(frozen=True)
class Named:
    """A dataset as the user names it, and the fields of it that are meant; none for all of a plain dataset."""

    path: str | None
    fields: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str | None, paths: Collection[str]) -> Named:
        """Read ``path[field,field]``; a dataset that is really called so comes first."""
        found = None if name is None or name in paths else re.fullmatch(r"(.+?)\[([^\[\]]+(?:\[[^\]]*\])*)\]", name)
        if found is None:
            return cls(name)
        return cls(found[1].strip("/"), tuple(part.strip() for part in found[2].split(",")))

    def __str__(self) -> str:
        return f"{self.path}[{','.join(self.fields)}]" if self.fields else self.path or ""


class Records:
    """The records of a compound dataset, with the fields that are wanted.

    Args:
        file: open.
        stored: from `file.dataset`.
        fields: names, each once.

    Raises:
        DataError: it is no table of records, or has no such field.
    """

    def __init__(self, file: HdfFile, stored: Stored, fields: tuple[str, ...]) -> None:
        self.name = f"{file.shown}: {quoted(stored.path)}"
        names = stored.dtype.names
        if stored.odd or names is None:
            raise DataError(f"{self.name} has no fields", wanted="a compound dataset", do=f"say {stored.path} alone")
        for field in fields:
            if field not in names:
                raise DataError(f"{self.name} has no field {quoted(field)}; it has {listed(names)}")
        if len(set(fields)) < len(fields):
            raise DataError(f"{self.name}: a field is named twice in {listed(fields)}", wanted="each once")
        if len(stored.shape) != 1:
            raise DataError(f"{self.name} has the shape {stored.shape}", wanted="one record for each row, (rows,)")
        if stored.shape[0] == 0:
            raise DataError(f"{self.name} is empty", wanted="at least one record")
        self._file, self._stored, self._fields = file, stored, list(fields)
        self.m = stored.shape[0]
        self.dtype, self._way = stored.dtype, None
        if stored.exact:
            self._way: Way | None = choose(file, stored, self.name)
        else:  # some fields are no plain values: HDF5 gives records of those alone that are asked for
            self.dtype = np.dtype([(name, stored.dtype[name]) for name in fields])
        self.step = max(1, _PIECE // self.dtype.itemsize)

    @property
    def slow(self) -> str:
        """See `gpubp.data.source.RowSource`."""
        return "" if self._way is None else self._way.slow

    def kind(self, field: str) -> tuple[np.dtype[Any], int]:
        """The type of a field's values as they are stored, and how many there are in a record."""
        dtype = self.dtype[field]
        return dtype.base, math.prod(dtype.shape)

    def offset(self, field: str) -> int:
        """Where a field begins in a record."""
        places: Any = self.dtype.fields
        return int(places[field][1])

    def buffer(self, rows: int) -> NDArray[Any]:
        """Room for so many records, at most a piece."""
        return np.empty(min(rows, self.step), self.dtype)

    def read(self, start: int, stop: int, buffer: NDArray[Any]) -> NDArray[Any]:
        """Records start … stop − 1, in the buffer where that can be.

        Raises:
            DataError: they cannot be read.
        """
        try:
            if self._way is None:
                found = self._file.read(self._stored, start, stop, fields=self._fields)
                return np.frombuffer(found, self.dtype, stop - start)
            into = buffer[: stop - start]
            self._way.read(start, stop, into.view(np.uint8).data)
            return into
        except (OSError, EOFError, ValueError) as error:
            raise DataError(
                f"{self.name}: rows {start} to {stop - 1} cannot be read: {' '.join(str(error).split())}",
                wanted="a file that stays whole and in place",
                do="check the disk and the file",
            ) from None


@dataclass(frozen=True)
class _Place:
    """`count` numbers of a type at `offset` in a record: the columns from `first`."""

    dtype: np.dtype[Any]
    offset: int
    first: int
    count: int


class FieldRows:
    """m records × the numbers in their fields. See `gpubp.data.source.RowSource`.

    Args:
        file, stored, fields: see `Records`; the source that is closed first closes the file.

    Attributes:
        dtype: the smallest type that holds the values of all the fields.
        feature_names: of the columns, ``field`` or ``field[0]``, ``field[1]`` …

    Raises:
        DataError: a field that does not exist or holds no numbers.
    """

    def __init__(self, file: HdfFile, stored: Stored, fields: tuple[str, ...]) -> None:
        self._file, self._records = file, Records(file, stored, fields)
        self._name = f"{file.shown}: {quoted(str(Named(stored.path, fields)))}"
        self._places: list[_Place] = []
        names: list[str] = []
        kinds: list[np.dtype[Any]] = []
        for field in fields:
            base, count = self._records.kind(field)
            kinds.append(row_dtype(base, f"{self._name}: field {quoted(field)}"))
            self._note(_Place(base, self._records.offset(field), len(names), count))
            names += [field] if self._records.dtype[field].shape == () else [f"{field}[{i}]" for i in range(count)]
        self.m, self.features, self.feature_names = self._records.m, len(names), tuple(names)
        self.dtype = np.result_type(*kinds)
        if not names:
            raise DataError(f"{self._name} has no columns", wanted="at least one number in a record")

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        buffer, step = self._records.buffer(stop - start), self._records.step
        for low in range(start, stop, step):
            high = min(low + step, stop)
            records, to = self._records.read(low, high, buffer), out[low - start : high - start]
            for place in self._places:
                shape, strides = (high - low, place.count), (records.itemsize, place.dtype.itemsize)
                values = np.ndarray(shape, place.dtype, records, place.offset, strides)
                np.copyto(to[:, place.first : place.first + place.count], values)

    @property
    def slow(self) -> str:
        return self._records.slow

    def _note(self, place: _Place) -> None:
        """One more place; fields that lie side by side in a record, as their columns do, are copied at once."""
        last = self._places[-1] if self._places else None
        if last and last.dtype == place.dtype and last.offset + last.count * last.dtype.itemsize == place.offset:
            self._places[-1] = replace(last, count=last.count + place.count)
        else:
            self._places.append(place)

    def where(self, row: int) -> str:
        return f"{self._name} row {row}"

    def describe(self) -> str:
        return f"{self._name} {shape_text((self.m, self.features), self.dtype)}"

    def extent(self) -> None:
        """Nowhere do these rows lie as they are read."""

    def check(self) -> None:
        self._file.check()

    def close(self) -> None:
        self._file.close()


def read_fields(file: HdfFile, stored: Stored, fields: tuple[str, ...], what: str) -> NDArray[Any]:
    """Fields of all records in memory: (m,) or (m, columns) numbers, bool staying bool, or (m,) text.

    Raises:
        DataError: as `FieldRows`; text beside other fields, or not in UTF-8.
    """
    records = Records(file, stored, fields)
    base, count = records.kind(fields[0])
    if len(fields) == 1 and base.kind in "SU":
        if count != 1:
            raise DataError(f"{what} is a matrix of text", wanted="one label for each row")
        return _text(records, fields[0], what)
    if len(fields) == 1 and base.kind == "b":
        out = np.empty((records.m, count), np.bool_)
        rows = FieldRows(file, stored, fields)
        rows.read(0, records.m, out.view(np.uint8))
    else:
        rows = FieldRows(file, stored, fields)
        out = np.empty((records.m, rows.features), rows.dtype)
        rows.read(0, records.m, out)
    return out[:, 0] if out.shape[1] == 1 else out


def _text(records: Records, field: str, what: str) -> NDArray[np.str_]:
    parts = []
    buffer = records.buffer(records.m)
    for low in range(0, records.m, records.step):
        values = records.read(low, min(low + records.step, records.m), buffer)[field]
        try:
            parts.append(np.char.decode(values.reshape(-1), "utf-8") if values.dtype.kind == "S" else values.copy())
        except UnicodeDecodeError as error:
            raise DataError(f"{what} holds text that is not UTF-8 ({error.reason})", wanted="text in UTF-8") from None
    return np.concatenate(parts)


def offered(entries: Mapping[str, Stored], x: Named) -> Stored | None:
    """The compound dataset that the user, who named no fields, may have meant for X; None where X is another."""
    tables = [entry for _, entry in sorted(entries.items()) if entry.dtype.names and not entry.trouble]
    if x.path is not None:
        leaf = x.path.rpartition("/")[2]
        named = [entry for entry in tables if x.path in (entry.path, entry.path.rpartition("/")[2])]
        return (named or [entry for entry in tables if leaf == entry.path.rpartition("/")[2]] or [None])[0]
    plain = any(role_of(path) == "x" and not entry.dtype.names for path, entry in entries.items())
    return tables[0] if tables and not plain else None


def name_the_fields(shown: str, table: Stored, x: tuple[str, ...] = ()) -> DataError:
    """That a table has fields, which, and what to type.

    Args:
        x: the fields that were named for X.
    """
    numeric = [name for name in table.dtype.names or () if table.dtype[name].base.kind in "buif"]
    if not numeric:
        return DataError(
            f"{shown}: {quoted(table.path)} is a table of records without a numeric field", wanted="numbers for X"
        )
    options = field_options(table.path, table.dtype.names or (), x or numeric)
    if " --y " not in options:
        options += f" --y {shlex.quote(f'{table.path}[FIELD]')}"
    return DataError(
        f"{shown}: {quoted(table.path)} is a table of records with the numeric fields {listed(numeric)}",
        wanted="fields for X and y" if not x else "a field for y",
        do=f"say {options}",
    )
