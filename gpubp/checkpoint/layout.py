"""A checkpoint as an HDF5 file that is never in memory as a whole.

libhdf5 lays the file out and writes its own records; where an array is to lie it only leaves the room. The arrays then
go to the disk from where they are, in the order of the file, and what is written is what their digests are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .guard import header
from .record import STATE, ByRows
from .table import STEP, Digest, Extent, Sums, Table, blake2b, extent, joined, room_for

_PAGE = 4096


class Pages:
    """A file in memory that keeps only pages something was written to; the others read as zeros.

    What h5py asks of a file object.
    """

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._at = self.length = 0

    def seek(self, to: int, whence: int = 0) -> int:
        self._at = to + (0, self._at, self.length)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for page, start, stop, at in self._parts(self._at, len(view)):
            self._pages.setdefault(page, bytearray(_PAGE))[start:stop] = view[at : at + stop - start]
        self._at += len(view)
        self.length = max(self.length, self._at)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        found = self.read(len(view))
        view[: len(found)] = found
        return len(found)

    def read(self, size: int = -1) -> bytes:
        end = self.length if size < 0 else min(self._at + size, self.length)
        found = self.between(self._at, end)
        self._at += len(found)
        return found

    def truncate(self, size: int | None = None) -> int:
        self.length = self._at if size is None else size
        return self.length

    def flush(self) -> None:
        pass

    def between(self, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`."""
        nothing = bytes(_PAGE)
        parts = self._parts(start, max(0, end - start))
        return b"".join(self._pages.get(page, nothing)[first:last] for page, first, last, _ in parts)

    @staticmethod
    def _parts(offset: int, count: int) -> Iterator[tuple[int, int, int, int]]:
        """Of so many bytes: (page, its first byte, the one after its last, how many came before)."""
        done = 0
        while done < count:
            page, start = divmod(offset + done, _PAGE)
            stop = min(_PAGE, start + count - done)
            yield page, start, stop, done
            done += stop - start


@dataclass
class Known:
    """Digests of rows that did not change since they were last written.

    Attributes:
        rows: by leaf and row: which version of the row it was, and its digest.
    """

    rows: dict[tuple[str, int], tuple[Hashable, bytes]] = field(default_factory=dict)


class Layout:
    """The file of some leaves, laid out.

    Args:
        leaves: the flat table, dataset: array, number or text.
        attributes: of groups and datasets, "" for the file; by name.

    Attributes:
        length: of the file.
    """

    def __init__(self, leaves: Mapping[str, Any], attributes: Mapping[str, Mapping[str, Any]]) -> None:
        import h5py

        self._arrays: dict[str, np.ndarray | ByRows] = {}
        self._pages = Pages()
        begins = room_for(leaves)
        extents: dict[str, Extent] = {}
        # Bounds and times are fixed: neither a newer libhdf5 nor the clock changes the bytes.
        with h5py.File(self._pages, "w", userblock_size=begins, libver=("v110", "v110")) as hdf5:
            for path, leaf in sorted(leaves.items()):
                if isinstance(leaf, ByRows) or (isinstance(leaf, np.ndarray) and leaf.size and leaf.ndim):
                    room = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                    room.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                    room.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                    dataset = hdf5.create_dataset(path, leaf.shape, leaf.dtype, dcpl=room, track_times=False)
                    self._arrays[path] = leaf if isinstance(leaf, ByRows) else np.ascontiguousarray(leaf)
                else:
                    # A text of fixed length lies in its dataset, one of variable length in a heap.
                    text = isinstance(leaf, str)
                    data = np.array(leaf.encode(), h5py.string_dtype("utf-8", len(leaf.encode()))) if text else leaf
                    dataset = hdf5.create_dataset(path, data=data, track_times=False)
                if dataset.size:
                    at, bulk = dataset.id.get_offset(), path.startswith(STATE)
                    extents[path] = extent(at, dataset.shape, dataset.dtype.itemsize, bulk=bulk)
            for path, named in attributes.items():
                hdf5[path or "/"].attrs.update(named)
        self.length = self._pages.length
        self._table = Table(dict(sorted(extents.items(), key=lambda item: item[1].offset)), begins)

    def write(
        self,
        sink: Callable[[memoryview | bytes], object],
        known: Known | None = None,
        versions: Mapping[str, Sequence[Hashable]] | None = None,
        go_on: Callable[[], None] = lambda: None,
    ) -> bytes:
        """Give the bytes of the file to `sink`, zeros in place of the user block.

        Args:
            known: digests of rows written earlier; those of now are added.
            versions: of a leaf's rows: equal ones, equal rows.
            go_on: called now and then; what it raises ends the writing.

        Returns:
            The user block.
        """
        known = known or Known()
        sink(bytes(self._table.begins))
        rest: list[bytes] = []  # small: what HDF5 keeps for itself
        sums: dict[str, bytes] = {}
        for name, start, end in self._table.spans(self.length):
            if name is None or name not in self._arrays:
                data = self._pages.between(start, end)
                sink(data)
                if name is None:
                    rest.append(data)
                else:
                    sums[name] = blake2b([data])
                continue
            leaf = self._table.leaves[name]
            told = (versions or {}).get(name, ()) if leaf.block else ()
            pieces = []
            for row, piece in enumerate(_pieces(self._arrays[name], leaf.piece)):
                version = told[row] if row < len(told) else None
                pieces.append(_written(sink, piece, leaf.block, known, (name, row), version, go_on))
            sums[name] = joined(pieces)
        return header(self._table.encoded(Sums(sums, blake2b(rest))), self.length, self._table.begins)


def _pieces(array: np.ndarray | ByRows, size: int) -> Iterator[memoryview]:
    """The bytes of an array, so many at a time: those of a row, or all."""
    parts: Iterable[np.ndarray] = [array] if isinstance(array, np.ndarray) else map(array.row, range(array.shape[0]))
    if not isinstance(array, np.ndarray) and size != array.shape[1] * array.dtype.itemsize:
        parts = [np.stack(list(parts))]
    for part in parts:
        data = memoryview(part).cast("B")  # pyright: ignore[reportArgumentType]
        yield from (data[at : at + size] for at in range(0, len(data), size))


def _written(
    sink: Callable[[memoryview | bytes], object],
    data: memoryview,
    block: int,
    known: Known,
    which: tuple[str, int],
    version: Hashable,
    go_on: Callable[[], None],
) -> bytes:
    """The digest of one piece, which was given to `sink`."""
    had = known.rows.get(which)
    digest = had[1] if had is not None and had[0] == version else None
    look = Digest(block)
    for at in range(0, len(data), STEP):  # what a digest was just made of is written from the processor's cache
        go_on()
        step = data[at : at + STEP]
        if digest is None:
            look.update(step)
        sink(step)
    digest = digest or look.digest()
    if version is not None:
        known.rows[which] = version, digest
    return digest
