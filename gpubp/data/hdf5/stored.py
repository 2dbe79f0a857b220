"""A dataset as the file keeps it: type, shape, and where its bytes lie. Plain records that travel between processes.

They come from a process that has just parsed an untrusted file, so they are not believed either: `from_json` takes
nothing but what the fields allow, and `HdfFile` compares them with the file.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

LAYOUTS = ("contiguous", "chunked", "compact", "virtual", "external", "none")


@dataclass(frozen=True)
class Filter:
    """One step of a chunk's encoding: HDF5's registered number, its name, and its client data."""

    code: int
    name: str
    options: tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """Rows of a virtual dataset that are rows of another: [start, stop) here are [first, …) of `dataset` in `file`."""

    start: int
    stop: int
    file: str
    dataset: str
    first: int


@dataclass(frozen=True, eq=False)
class Stored:
    """One name in a file that stands for values.

    Attributes:
        path: groups separated by ``/``, without a leading one.
        trouble: why it cannot be taken, as the predicate of a sentence; empty for a dataset that can be.
        remedy: what makes it usable, where something does; it may begin with "wanted …;".
        shape: as declared; () for a single value and where there is none.
        dtype: of the values as stored, byte order included; compound types have fields. Text is ``object`` or "S".
        odd: what the values are where NumPy has no plain type for them ("references to other datasets"), else empty.
        text: whether they are text.
        exact: whether the bytes in the file, once decoded, are values of `dtype`; if not, only HDF5 converts them.
        layout: one of `LAYOUTS`.
        size: bytes that the values take in the file.
        offset: contiguous layout: where in the file the first value lies; None if nothing was written.
        chunk_shape: of a chunk, in the chunked layout.
        filters: what a chunk went through when it was written, in that order.
        chunks: (n, 3) int64 offset, size and filter mask of every chunk in the order of rows; None until located.
        attributes: text and numbers attached to it.
        samples: bytes of the first and the last row as HDF5 reads them, for comparison; empty until located.
        unknown: number of a filter that HDF5 does not have here, 0 if it has all of them.
        pieces: virtual layout: where rows come from, if whole rows are put below each other.
    """

    path: str
    trouble: str = ""
    remedy: str = ""
    shape: tuple[int, ...] = ()
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype("V1"))
    odd: str = ""
    text: bool = False
    exact: bool = False
    layout: str = "none"
    size: int = 0
    offset: int | None = None
    chunk_shape: tuple[int, ...] | None = None
    filters: tuple[Filter, ...] = ()
    chunks: NDArray[np.int64] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    samples: tuple[bytes, ...] = ()
    unknown: int = 0
    pieces: tuple[Piece, ...] = ()

    @property
    def declared(self) -> int:
        """Bytes that the values take in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in memory."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def grid(self) -> tuple[int, ...]:
        """How many chunks there are along each axis."""
        return tuple(-(-long // short) for long, short in zip(self.shape, self.chunk_shape or (), strict=True))

    def as_table(self) -> Stored:
        """The same values as rows × columns: one value a row where there was one axis."""
        if len(self.shape) == 1:
            chunk = None if self.chunk_shape is None else (*self.chunk_shape, 1)
            return replace(self, shape=(*self.shape, 1), chunk_shape=chunk)
        return self

    def to_json(self) -> dict[str, Any]:
        """What `from_json` understands: where it is not as new. `chunks` and `samples` travel as bytes beside it."""
        record = {name: value for name in _PLAIN if (value := getattr(self, name)) != getattr(_NEW, name)}
        record["dtype"] = dtype_to_json(self.dtype)
        record["filters"] = [[one.code, one.name, list(one.options)] for one in self.filters]
        record["pieces"] = [[one.start, one.stop, one.file, one.dataset, one.first] for one in self.pieces]
        return record

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Stored:
        """The record of another process.

        Raises:
            ValueError: it holds what no honest one would.
        """
        record = {**_NEW_RECORD, **record}
        plain = {name: record[name] for name in _PLAIN}
        for name, kind in _PLAIN.items():
            value = plain[name]
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise ValueError(f"{name} = {value!r:.60}")
            if isinstance(value, int) and not 0 <= value < MOST:
                raise ValueError(f"{name} = {value!r:.60}")
        plain["shape"] = sizes(record["shape"])
        if record["chunk_shape"] is not None:
            plain["chunk_shape"] = sizes(record["chunk_shape"])
            if len(plain["chunk_shape"]) != len(plain["shape"]) or 0 in plain["chunk_shape"]:
                raise ValueError("chunk_shape")
        if plain["layout"] not in LAYOUTS or (plain["layout"] == "chunked") > (plain["chunk_shape"] is not None):
            raise ValueError("layout")
        filters = tuple(Filter(number(code), word(name), tuple(map(number, given)))
                        for code, name, given in record["filters"])  # fmt: skip
        pieces = tuple(Piece(number(a), number(b), word(f), word(d), number(c)) for a, b, f, d, c in record["pieces"])
        if any(piece.start >= piece.stop for piece in pieces):
            raise ValueError("pieces")
        plain["attributes"] = attributes_from_json(record["attributes"])
        one = cls(**plain, dtype=dtype_from_json(record["dtype"]), filters=filters, pieces=pieces)
        if one.dtype.hasobject and not (one.text and one.dtype == np.dtype("O")):
            raise ValueError("objects that are no text")
        if one.text and one.dtype.kind not in "OS":
            raise ValueError("text that is none")
        if not one.trouble and one.layout != "virtual" and one.declared >= MOST:
            raise ValueError(f"{one.declared} bytes")
        return one

    def lacking(self) -> str:
        """The trouble with a filter that HDF5 does not have here; empty if it has all."""
        for one in self.filters:
            if self.unknown and one.code == self.unknown:
                name = f"filter {one.code} ({one.name})" if one.name else f"filter {one.code}"
                return f"is compressed by {name}, which is not installed here"
        return ""

    def located(self, chunks: NDArray[np.int64] | None, samples: tuple[bytes, ...]) -> Stored:
        """The same with what `survey.locate` adds."""
        return replace(self, chunks=chunks, samples=samples)


_PLAIN: dict[str, Any] = {
    "path": str,
    "trouble": str,
    "remedy": str,
    "shape": list | tuple,
    "odd": str,
    "text": bool,
    "exact": bool,
    "layout": str,
    "size": int,
    "offset": int | None,
    "chunk_shape": list | tuple | None,
    "attributes": dict,
    "unknown": int,
}


_NEW = Stored("")
_NEW_RECORD = {name: getattr(_NEW, name) for name in _PLAIN}
MOST_CHUNK = 1 << 28  # bytes of a chunk: to read a row of it is to read all of it
MOST_CHUNKS = 20_000_000
# Real data have been seen to shrink to 1/1000, never further: deflate itself ends at 1/1032.
SUSPICIOUS_BYTES, SUSPICIOUS_RATIO = 1 << 28, 1100
MOST_COMPACT = 1 << 16  # bytes of values that lie in a dataset's description: HDF5 allows no more
SAMPLE = 1 << 24  # bytes of a row that is compared with what HDF5 reads
MOST = 1 << 62  # bytes, rows, places: more than there can be
_NESTED = 16  # types in types, lists in lists


def sizes(values: Any) -> tuple[int, ...]:
    """A shape from JSON: whole numbers that are not negative, and fewer than NumPy has axes for."""
    if not isinstance(values, list | tuple) or len(values) > 32:
        raise ValueError("a shape")
    return tuple(map(number, values))


def number(value: Any) -> int:
    """A whole number from JSON that can be a size or a place."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MOST:
        raise ValueError(f"{value!r:.60} as a number")
    return value


def word(value: Any) -> str:
    """Text from JSON."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.60} as a name")
    return value


def attributes_from_json(record: Any) -> dict[str, Any]:
    """Attributes: texts, numbers, and lists of them.

    Raises:
        ValueError: they hold something else.
    """
    if not isinstance(record, dict) or not all(_plain_value(value, _NESTED) for value in record.values()):
        raise ValueError("attributes")
    return record


def _plain_value(value: Any, deep: int) -> bool:
    if isinstance(value, list):
        return deep > 0 and all(_plain_value(one, deep - 1) for one in value)
    return isinstance(value, str | int | float)


def dtype_to_json(dtype: np.dtype[Any]) -> Any:
    """A type as text, or as its fields."""
    if dtype.subdtype is not None:
        return {"base": dtype_to_json(dtype.subdtype[0]), "shape": list(dtype.shape)}
    if dtype.names is not None and dtype.fields is not None:
        places: Any = dtype.fields
        fields = [[name, dtype_to_json(places[name][0]), int(places[name][1])] for name in dtype.names]
        return {"fields": fields, "itemsize": dtype.itemsize}
    return dtype.str


def dtype_from_json(record: Any, deep: int = _NESTED) -> np.dtype[Any]:
    """The type; plain values, fields and arrays of them alone.

    Raises:
        ValueError, TypeError, KeyError: it is no such type.
    """
    if deep == 0:
        raise ValueError("a type of types of types")
    if isinstance(record, str):
        if not re.fullmatch(r"[<>|=]?(?:[biufcSV][1-9]\d{0,8}|O|b1)", record):
            raise ValueError(f"type {record!r:.60}")
        return np.dtype(record)
    if not isinstance(record, dict):
        raise ValueError("a type")
    if "base" in record:
        return np.dtype((dtype_from_json(record["base"], deep - 1), sizes(record["shape"])))
    names, formats, offsets = zip(*record["fields"], strict=True)
    spec = {"names": list(map(word, names)), "formats": [dtype_from_json(one, deep - 1) for one in formats]}
    return np.dtype(spec | {"offsets": list(sizes(offsets)), "itemsize": number(record["itemsize"])})  # type: ignore[call-overload]
