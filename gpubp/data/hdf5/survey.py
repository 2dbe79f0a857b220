"""What an HDF5 file holds, and where: the part that runs h5py over it, in the process of `warden`.

Nothing is followed out of the file: each component of a path is looked at as a link before it is entered, and a
dataset is refused from its description alone if its values lie elsewhere, were never written, or are more than any
file of that size can hold. No value is read before that.
"""

from __future__ import annotations

import errno
import math
import os
import posixpath
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import h5py
import numpy as np
from h5py import h5o  # type: ignore[attr-defined]  (it is there)

from ..names import quoted
from .attributes import LONGEST_NAME, UNREADABLE, Budget, attributes, words
from .stored import MOST, MOST_CHUNK, MOST_CHUNKS, SAMPLE, SUSPICIOUS_BYTES, SUSPICIOUS_RATIO, Filter, Piece, Stored

DEPTH, ENTRIES = 8, 15_000  # groups and names that are looked at: a file can hold itself
EXTENTS = 1000  # pieces of a file with holes that are looked at
AGAIN = "make or copy the file again"
COPY = "copy the values into one file, for instance with h5repack or h5py"


def survey(
    file: h5py.File, real: int, looked_at: Callable[[int], object] = lambda names: None
) -> tuple[list[Stored], dict[str, Any]]:
    """Every dataset in the file and every link that leads out of it, sorted by path; and the file's attributes.

    What was not looked at, because there is too much or it lies too deep, is an entry that says so.

    Args:
        file: open.
        real: bytes that it takes on the disk, from `written`.
        looked_at: called with numbers of names now and then.
    """
    walk = Walk(file, real)
    level: list[tuple[h5py.Group, str]] = [(file, "")]
    seen, looked = {address(file)}, 0
    for _ in range(DEPTH):  # level by level, so that what can be reached twice has its shortest name
        below: list[tuple[h5py.Group, str]] = []
        for group, above in level:
            for name in map(str, group):
                if looked == ENTRIES:
                    trouble = f"stands for the rest: there are more than {ENTRIES:,} names, too many to look at"
                    walk.found.append(Stored(f"{above}…", trouble, f"wanted fewer; {COPY}"))
                    return walk.result()
                looked += 1
                if looked % 100 == 0:
                    looked_at(100)
                inner = walk.look(group, name, f"{above}{name}")
                if inner is not None and (place := address(inner)) not in seen:
                    seen.add(place)  # a group can be inside itself
                    below.append((inner, f"{above}{name}/"))
        level = below
    for group, above in level:
        if len(group):
            trouble = f"lies {DEPTH} groups deep, and what is in it is not looked at"
            remedy = f"wanted at most {DEPTH}; move it up, with h5py or h5copy"
            walk.found.append(Stored(above.rstrip("/"), trouble, remedy))
    return walk.result()


def address(group: h5py.Group | h5py.Dataset) -> tuple[int, int]:
    """Where a group or dataset lies: the same by whatever name it was reached."""
    info = h5o.get_info(group.id)
    return info.fileno, info.addr


class Walk:
    """What was found on a walk through a file. A dataset that has many names is described once."""

    def __init__(self, file: h5py.File, real: int) -> None:
        self.found: list[Stored] = []
        self._file, self._real, self._budget = file, real, Budget()
        self._described: dict[tuple[int, int], Stored] = {}
        self._soft: dict[str, str | Stored] = {}

    def look(self, group: h5py.Group, name: str, path: str) -> h5py.Group | None:
        """Add what a name stands for to `found`; or give back the group that it is."""
        if len(path) > LONGEST_NAME:
            trouble = f"has a name of {len(path):,} characters"
            remedy = f"wanted at most {LONGEST_NAME:,}; rename it with h5py"
            self.found.append(Stored(f"{path[:LONGEST_NAME]}…", trouble, remedy))
            return None
        try:
            found = self._what(group, name, path)
        except UNREADABLE as error:
            found = Stored(path, f"cannot be read: {words(error)}", AGAIN)
        if isinstance(found, Stored):
            self.found.append(found)
            return None
        return found

    def result(self) -> tuple[list[Stored], dict[str, Any]]:
        """As `survey`."""
        return sorted(self.found, key=lambda entry: entry.path), attributes(self._file, self._budget)

    def _what(self, group: h5py.Group, name: str, path: str) -> Stored | h5py.Group | None:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            return Stored(path, f"is a link into another file ({quoted(str(link.filename))})", COPY)
        if isinstance(link, h5py.SoftLink):
            target = posixpath.join("/", posixpath.dirname(path), str(link.path))  # HDF5 knows no ".."
            if target not in self._soft:
                self._soft[target] = self._follow(target)
            found = self._soft[target]
            if isinstance(found, str):
                return Stored(path, f"is a soft link (to {quoted(str(link.path))}, {found})", COPY)
            return replace(found, path=path)
        inner: Any = group[name]
        if isinstance(inner, h5py.Dataset):
            return self._describe(inner, path)
        return inner if isinstance(inner, h5py.Group) else None

    def _follow(self, target: str) -> str | Stored:
        """The dataset at the end of a soft link; or why it is not taken."""
        trouble = unresolved(self._file, target)
        if trouble:
            return trouble
        inner = self._file[target]
        return self._describe(inner, target) if isinstance(inner, h5py.Dataset) else "which is a group"

    def _describe(self, values: h5py.Dataset, path: str) -> Stored:
        place = address(values)
        if place not in self._described:
            self._described[place] = describe(values, path, self._real, self._budget)
        return replace(self._described[place], path=path)


def unresolved(file: h5py.File, path: str) -> str:
    """Why a path does not lead, by plain links alone, to something in this file; empty if it does."""
    at: Any = file
    for name in path.split("/"):
        if name in ("", "."):
            continue
        link = at.get(name, getlink=True) if isinstance(at, h5py.Group) else None
        if link is None:
            return "which is not there"
        if not isinstance(link, h5py.HardLink):
            return "which is a link itself"
        at = at[name]
    return ""


def describe(values: h5py.Dataset, path: str, real: int, budget: Budget) -> Stored:
    """A dataset from its description; no value is read."""
    stored = values.id.get_create_plist()
    layout = {h5py.h5d.COMPACT: "compact", h5py.h5d.CONTIGUOUS: "contiguous", h5py.h5d.CHUNKED: "chunked"}.get(
        stored.get_layout(), "virtual"
    )
    if stored.get_external_count():
        layout = "external"
    dtype, odd, text, exact = kind_of(values)
    filters = tuple(
        Filter(code, name.decode(errors="replace"), tuple(given))
        for code, _, given, name in (stored.get_filter(position) for position in range(stored.get_nfilters()))
    )
    virtual = layout == "virtual"
    found = Stored(
        path,
        shape=tuple(values.shape or ()),
        dtype=dtype,
        odd=odd,
        text=text,
        exact=exact,
        layout=layout,
        size=0 if virtual else int(values.id.get_storage_size()),
        offset=values.id.get_offset() if layout == "contiguous" else None,
        chunk_shape=tuple(values.chunks) if layout == "chunked" and values.chunks else None,
        filters=filters,
        attributes=attributes(values, budget),
        unknown=next((one.code for one in filters if not h5py.h5z.filter_avail(one.code)), 0),
        pieces=pieces(values) if virtual and values.shape else (),
    )
    trouble, remedy = ("", "") if odd else storage_trouble(values, found, real)
    return replace(found, trouble=trouble, remedy=remedy)


def kind_of(values: h5py.Dataset) -> tuple[np.dtype[Any], str, bool, bool]:
    """(dtype, odd, text, exact) of `Stored`."""
    kind = values.id.get_type()
    try:
        dtype = values.dtype
    except TypeError as error:
        return np.dtype("V1"), f"a type that NumPy does not have ({words(error)})", False, False
    if h5py.check_string_dtype(dtype) is not None:
        return (np.dtype("O") if dtype.kind == "O" else np.dtype(f"S{dtype.itemsize}")), "", True, dtype.kind != "O"
    if h5py.check_ref_dtype(dtype) is not None:
        return np.dtype("V1"), "references to other datasets", False, False
    if h5py.check_vlen_dtype(dtype) is not None:
        return np.dtype("V1"), "rows of different lengths", False, False
    if dtype.hasobject:
        plain = {name for name in dtype.names or () if not dtype[name].hasobject}
        if not plain:
            return np.dtype("V1"), "Python objects or rows of different lengths", False, False
        # HDF5 reads the fields that are asked for; their places in its own record mean nothing to us
        return np.dtype([(name, dtype[name]) for name in dtype.names or () if name in plain]), "", False, False
    exact = bool(h5py.h5t.py_create(dtype, logical=True).equal(kind)) and kind.get_size() == dtype.itemsize
    return dtype, "", False, exact


def pieces(values: h5py.Dataset) -> tuple[Piece, ...]:
    """Where the rows of a virtual dataset come from, if sources give whole rows and lie below each other; else ()."""
    found = []
    for source in values.virtual_sources():
        low, high = source.vspace.get_select_bounds()
        from_low = (0,) * len(low)
        from_high = tuple(b - a for a, b in zip(low, high, strict=True))
        if source.src_space.get_select_type() != h5py.h5s.SEL_ALL:
            from_low, from_high = source.src_space.get_select_bounds()
        whole = source.vspace.get_select_npoints() == math.prod(b - a + 1 for a, b in zip(low, high, strict=True))
        rest = (0,) * (len(low) - 1), tuple(n - 1 for n in values.shape[1:])
        if not whole or (low[1:], high[1:]) != rest or (from_low[1:], from_high[1:]) != rest:
            return ()
        if from_high[0] - from_low[0] != high[0] - low[0] or "%b" in source.file_name:
            return ()
        found.append(Piece(low[0], high[0] + 1, source.file_name, source.dset_name.strip("/"), from_low[0]))
    found.sort(key=lambda piece: piece.start)
    edges = [0, *(piece.stop for piece in found)]
    if [piece.start for piece in found] != edges[:-1] or edges[-1] != values.shape[0]:
        return ()
    return tuple(found)


def storage_trouble(values: h5py.Dataset, found: Stored, real: int) -> tuple[str, str]:
    """Why the values cannot all be read from the file itself, and what helps; two empty texts if they can."""
    file_size = os.fstat(values.file.id.get_vfd_handle()).st_size
    if values.shape is None:
        return "is empty (it has no shape)", "wanted rows × columns; store values in it"
    if found.layout == "external":
        return "keeps its values in another file (external storage)", COPY
    if found.layout == "virtual":
        return "is a virtual dataset, put together from other files", "name the folder they may lie in with --allow DIR"
    if 0 in values.shape:
        return "", ""  # an empty table: the reader says so with the shape
    declared = math.prod(values.shape) * values.id.get_type().get_size()
    if declared >= MOST:
        return f"declares {declared:,} bytes, more than there can be", AGAIN
    if found.layout == "contiguous":
        if found.offset is None:
            return "declares a shape, but its values were never written", AGAIN
        if found.offset + declared > file_size:
            return f"declares {declared:,} bytes, more than the file has: the file was cut short", AGAIN
        if declared > SUSPICIOUS_BYTES:
            there = written(values.file.id.get_vfd_handle(), found.offset, found.offset + declared)
            if declared > SUSPICIOUS_RATIO * there:
                return f"declares {declared:,} bytes, of which {there:,} were ever written", AGAIN
    elif found.layout == "chunked":
        chunk = math.prod(found.chunk_shape or ()) * values.id.get_type().get_size()
        if chunk > MOST_CHUNK:
            repack = f"wanted at most {MOST_CHUNK:,}; store it in chunks of about 1 MiB, for instance with h5repack"
            return f"has chunks of {chunk:,} bytes, and to read a row is to read a chunk", repack
        chunks, stored = math.prod(found.grid()), values.id.get_num_chunks()
        if stored < chunks:
            return f"has only {stored:,} of its {chunks:,} chunks: the rest was never written", AGAIN
        if chunks > MOST_CHUNKS:
            repack = f"wanted at most {MOST_CHUNKS:,}; store it in chunks of about 1 MiB, for instance with h5repack"
            return f"has {chunks:,} chunks", repack
        if found.size > file_size:
            return f"has chunks of {found.size:,} bytes in all, more than the file has", AGAIN
        if declared > max(SUSPICIOUS_BYTES, SUSPICIOUS_RATIO * min(found.size, real)):
            ratio = declared // max(1, min(found.size, real))
            unpack = f"wanted at most {SUSPICIOUS_RATIO:,}; if that is true, unpack it with h5repack -f NONE"
            return f"declares {declared:,} bytes in a file of {file_size:,}, {ratio:,} times as many", unpack
    lacking = found.lacking()
    unpack = "wanted filters that are; pip install 'gpubp[codecs]', or h5repack -f NONE where it is"
    return lacking, unpack if lacking else ""


def written(fd: int, start: int, stop: int) -> int:
    """Bytes of a part of a file that are there: holes, which read as zeros, take no place. All of it, if in doubt."""
    there = 0
    for _ in range(EXTENTS):
        try:
            first = os.lseek(fd, start, os.SEEK_DATA)
            if first >= stop:
                return there
            start = min(stop, os.lseek(fd, first, os.SEEK_HOLE))
        except OSError as error:
            return there if error.errno == errno.ENXIO else stop
        there += start - first
        if start >= stop:
            return there
    return stop


def locate(values: h5py.Dataset) -> tuple[np.ndarray | None, list[bytes]]:
    """The table of chunks, and the first and the last row as HDF5 reads them."""
    chunks = None
    if values.chunks and values.shape:
        sides = values.chunks
        grid = [-(-long // short) for long, short in zip(values.shape, sides, strict=True)]
        chunks = np.zeros((math.prod(grid), 3), np.int64)
        chunks[:, 1] = -1
        strides = [math.prod(grid[axis + 1 :]) for axis in range(len(grid))]

        def note(info: Any) -> None:
            at = sum(o // c * s for o, c, s in zip(info.chunk_offset, sides, strides, strict=True))
            chunks[at] = info.byte_offset, info.size, info.filter_mask

        if hasattr(values.id, "chunk_iter"):
            values.id.chunk_iter(note)
        else:  # HDF5 before 1.12.3
            for index in range(values.id.get_num_chunks()):
                note(values.id.get_chunk_info(index))
        chunks[:, 0] += _before(values, chunks[0])
    samples = []
    row = math.prod(values.shape[1:]) * values.id.get_type().get_size() if values.shape else 0
    stored = values.id.get_create_plist()
    known = all(h5py.h5z.filter_avail(stored.get_filter(i)[0]) for i in range(stored.get_nfilters()))
    if values.shape and values.shape[0] and 0 < row <= SAMPLE and known and not values.dtype.hasobject:
        samples = [read(values, at, at + 1) for at in (0, values.shape[0] - 1)]
    return chunks, samples


def _before(values: h5py.Dataset, chunk: np.ndarray) -> int:
    """What is to be added to the places of chunks: where a file begins with a block of the user's, HDF5 counts from
    behind it in some versions."""
    before = values.file.userblock_size
    if before:
        offset, size, _ = chunk.tolist()
        _, raw = values.id.read_direct_chunk((0,) * len(values.shape))
        handle = values.file.id.get_vfd_handle()
        if os.pread(handle, size, offset) != raw and os.pread(handle, size, offset + before) == raw:
            return before
    return 0


def read(values: h5py.Dataset, start: int, stop: int, fields: list[str] | None = None) -> bytes:
    """Rows as they are stored: HDF5 has nothing to convert, which it does forty times slower than it reads."""
    if fields is not None:
        return np.ascontiguousarray(values.fields(fields)[start:stop]).tobytes()
    rows = np.empty((stop - start, *values.shape[1:]), values.dtype)
    values.read_direct(rows, np.s_[start:stop])
    return rows.tobytes()


def text(values: h5py.Dataset, start: int, stop: int, most: int) -> tuple[bytes, bytes]:
    """Rows of text: how many bytes each takes (uint32), and the bytes of all.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
        ValueError: there are more than `most` bytes.
    """
    rows = values.asstr()[start:stop] if values.dtype.kind == "O" else np.char.decode(values[start:stop], "utf-8")
    texts = [one.encode() for one in np.asarray(rows).reshape(-1).tolist()]
    total = sum(map(len, texts))
    if total > most:
        raise ValueError(f"texts of {total // len(texts):,} bytes on average")
    return np.array(list(map(len, texts)), np.uint32).tobytes(), b"".join(texts)
