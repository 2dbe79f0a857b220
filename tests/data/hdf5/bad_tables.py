"""Bad datasets in sound files: what they are stored with, their types and shapes."""

from __future__ import annotations

import importlib.util
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from catalogue import AGAIN, DAMAGED, ELSEWHERE, FINITE, GAP, LACKING, NAME_X, REAL, UNPACK, X, bad, h5, patched

# --------------------------------------------------------------------------------- what was never written, and too much


@bad("{path}: 'X' declares a shape, but its values were never written" + AGAIN)
def never_written(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60, 4), "f4")


@bad("{path}: 'X' has only 0 of its 6 chunks: the rest was never written" + AGAIN)
def never_written_chunks(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60, 4), "f4", chunks=(10, 4))


@bad("{path}: 'X' has only 2 of its 6 chunks: the rest was never written" + AGAIN)
def partly_written(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60, 4), "f4", chunks=(10, 4), fillvalue=7)[:20] = X[:20]


@bad("{path}: 'y' declares a shape, but its values were never written" + AGAIN)
def labels_never_written(path: Path) -> None:
    with h5(path, x=True, y=False) as file:
        file.create_dataset("y", (60,), "i4")


@bad("{path}: 'X' declares 9,223,372,036,854,775,808 bytes, more than there can be" + AGAIN)
def rows_without_end(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (1 << 40, 1 << 20), "f8", chunks=(1, 64))


@bad("{path}: 'X' has only 0 of its 1,055,531,162,664,960 chunks: the rest was never written" + AGAIN)
def columns_without_end(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60, 1 << 50), "u1", chunks=(1, 64))


@bad("{path}: 'X' cannot be read: …" + AGAIN)
def more_than_the_file_has(path: Path) -> None:
    with h5(path) as file:
        file["X"] = X
    with h5py.File(path) as file:
        offset = file["X"].id.get_offset()
    raw = path.read_bytes()
    layout = raw.index(offset.to_bytes(8, "little") + X.nbytes.to_bytes(8, "little"))
    space = raw.index(b"".join(n.to_bytes(8, "little") for n in X.shape))
    rows = 1 << 32
    patched(path, space, rows.to_bytes(8, "little"))
    if raw.count(X.shape[0].to_bytes(8, "little") + X.shape[1].to_bytes(8, "little")) > 1:
        patched(path, space + 16, rows.to_bytes(8, "little"))
    patched(path, layout + 8, (rows * 16).to_bytes(8, "little"))


@bad("{path}: 'X' declares 1,030,792,151,040 bytes, of which 1,808 were ever written" + AGAIN)
def holes(path: Path) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5(path) as file:
        h5py.h5d.create(file.id, b"X", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((60, 1 << 32)), plist)


@bad("{path}: 'X' declares 1,073,741,824 bytes in a file of 13,342, 129,055 times as many" + UNPACK)
def gzip_bomb(path: Path) -> None:
    """A chunk of zeros, repeated: deflate's best is 1/1032, twice makes one in a million."""
    chunk = np.zeros((1 << 16, 64), "f4")
    raw = zlib_twice(chunk.tobytes())
    with h5(path) as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(chunk.shape)
        plist.set_deflate(9)
        plist.set_deflate(9)
        space = h5py.h5s.create_simple((1 << 22, 64))
        values = h5py.h5d.create(file.id, b"X", h5py.h5t.IEEE_F32LE, space, plist)
        for row in range(0, 1 << 22, 1 << 16):
            values.write_direct_chunk((row, 0), raw)


def zlib_twice(raw: bytes) -> bytes:
    return zlib.compress(zlib.compress(raw, 9), 9)


@bad(
    "{path}: 'X' declares 1,073,741,824 bytes in a file of 8,872, 279,620 times as many" + UNPACK,
    skip="" if importlib.util.find_spec("hdf5plugin") else "hdf5plugin is not installed",
)
def blosc_bomb(path: Path) -> None:
    import hdf5plugin

    with h5(path) as file:
        values = file.create_dataset("X", (1 << 24, 64), "u1", chunks=(1 << 20, 64), **hdf5plugin.Blosc2("zstd", 9))
        values[: 1 << 20] = 0
        _, raw = values.id.read_direct_chunk((0, 0))
        for row in range(1 << 20, 1 << 24, 1 << 20):
            values.id.write_direct_chunk((row, 0), raw)


@bad(
    "{path}: 'X' has chunks of 1,073,741,824 bytes, and to read a row is to read a chunk; wanted at most "
    "268,435,456; store it in chunks of about 1 MiB, for instance with h5repack"
)
def huge_chunk(path: Path) -> None:
    with h5(path) as file:
        values = file.create_dataset("X", (1 << 15, 1 << 15), "u1", chunks=(1 << 15, 1 << 15), compression="gzip")
        values.id.write_direct_chunk((0, 0), zlib_twice(bytes(100)))


@bad(DAMAGED)
def chunk_that_grows(path: Path) -> None:
    """One chunk says 60 rows of 4 numbers; it unpacks to 1 GB."""
    with h5(path) as file:
        values = file.create_dataset("X", (60, 4), "f4", chunks=(60, 4), compression="gzip")
        packer = zlib.compressobj(9)
        raw = b"".join(packer.compress(bytes(1 << 24)) for _ in range(64)) + packer.flush()
        values.id.write_direct_chunk((0, 0), raw)


@bad("{path} has no X; it holds nothing" + NAME_X)
def group_in_itself(path: Path) -> None:
    with h5(path, y=False) as file:
        file.create_group("g")["up"] = file["/"]
        file["g/again"] = file["g"]


@bad(
    "{path} has no X; it holds '…'; '…' stands for the rest: there are more than 15,000 names, too many to look at"
    + NAME_X
)
def many_groups(path: Path) -> None:
    with h5(path, libver="latest") as file:
        for number in range(20_000):
            file.create_group(f"g{number}")


@bad("{path} has no X; it holds 's0', … and 14993 more; '…' stands for the rest: there are more than 15,000 names…")
def many_names(path: Path) -> None:
    with h5(path, libver="latest") as file:
        for number in range(26_000):
            file[f"s{number}"] = h5py.SoftLink("/y")


@bad("{path}: 'X' declares a shape, but its values were never written" + AGAIN)
def many_attributes(path: Path) -> None:
    with h5(path, libver="latest") as file:
        file.create_dataset("X", (60, 4), "f4")
        for number in range(100_000):
            file["X"].attrs[f"a{number}"] = number


@bad(
    (
        "{path} has no X; it holds 'g/g/g/g/g/g/g/g'; 'g/g/g/g/g/g/g/g' lies 8 "
        "groups deep, and what is in it is not looked at"
    )
    + NAME_X
)
def very_deep(path: Path) -> None:
    with h5(path, y=False) as file:
        file["/".join(["g"] * 500) + "/X"] = X


@bad(
    "{path} has no X; it holds 'XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX…'"
    + NAME_X
)
def long_name(path: Path) -> None:
    with h5(path, y=False, libver="latest") as file:
        file["X" * 60_000] = X


@bad("{path} has no X; it holds '\\x1b]0;owned\\x07\\x1b[2J\\ngpubp: all is well\\u202e'" + NAME_X)
def names_that_a_terminal_obeys(path: Path) -> None:
    with h5(path, y=False) as file:
        file["\x1b]0;owned\x07\x1b[2J\ngpubp: all is well\u202e"] = X


@bad("{path}: 'X\\x1b[31m' is a link into another file ('other\\x1b[2J.h5')" + ELSEWHERE, "--x", "X\x1b[31m")
def trouble_in_a_name_that_a_terminal_obeys(path: Path) -> None:
    with h5(path) as file:
        file["X\x1b[31m"] = h5py.ExternalLink("other\x1b[2J.h5", "/X")


# --------------------------------------------------------------------------------------------------- filters and chunks


@bad("{path}: 'X' is compressed by filter 32199 (lzf), which is not installed here" + LACKING)
def unknown_filter(path: Path) -> None:
    _filtered(path, optional=False)


@bad("{path}: 'X' is compressed by filter 32199 (lzf), which is not installed here" + LACKING)
def unknown_optional_filter(path: Path) -> None:
    _filtered(path, optional=True)


def _filtered(path: Path, *, optional: bool) -> None:
    with h5(path) as file:
        file.create_dataset("X", data=X, chunks=(60, 4), compression="lzf")
    raw = path.read_bytes()
    place = raw.index((32000).to_bytes(2, "little") + b"\x08\x00")
    patched(path, place, (32199).to_bytes(2, "little"))
    if not optional:
        patched(path, place + 4, b"\x00\x00")


@bad(
    "{path}: 'X': rows 20 to 39 cannot be read: the chunk at byte … of the file is damaged (…); wanted a sound "
    "file; check the disk, or make or copy the file again"
)
def damaged_gzip(path: Path) -> None:
    _damaged(path, compression="gzip")


@bad(
    "{path}: 'X': rows 20 to 39 cannot be read: the chunk at byte … of the file is damaged (…); wanted a sound "
    "file; check the disk, or make or copy the file again"
)
def damaged_checksum(path: Path) -> None:
    _damaged(path, fletcher32=True)


def _damaged(path: Path, **options: object) -> None:
    with h5(path) as file:
        values = file.create_dataset("X", data=X, chunks=(20, 4), **options)
        info = values.id.get_chunk_info(1)
    patched(path, info.byte_offset + 2, b"\x5a\xa5" * ((info.size - 6) // 2))


@bad(DAMAGED)
def chunks_outside_of_the_file(path: Path) -> None:
    with h5(path) as file:
        values = file.create_dataset("X", data=X, chunks=(20, 4))
        offset = values.id.get_chunk_info(2).byte_offset
    patched(path, path.read_bytes().index(offset.to_bytes(8, "little")), (1 << 33).to_bytes(8, "little"))


# ---------------------------------------------------------------------------------------------------- shapes and types


def _holding(values: object) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with h5(path) as file:
            file["X"] = values

    return make


for _name, (_values, _line) in {
    "one_value": (3.0, "{path}: 'X' has the shape (); wanted a table, rows × features"),
    "nothing": (h5py.Empty("f4"), "{path}: 'X' is empty (it has no shape); wanted rows × columns; store values in it"),
    "one_axis": (
        X[:, 0],
        "{path}: 'X' has the shape (60,); wanted a table, rows × features; store one column as (60, 1)",
    ),
    "no_rows": (X[:0], "{path}: 'X' is empty, its shape is (0, 4); wanted at least one row and one column"),
    "no_columns": (X[:, :0], "{path}: 'X' is empty, its shape is (60, 0); wanted at least one row and one column"),
    "complex_numbers": (X + 1j, "{path}: 'X' holds complex numbers" + REAL),
    "text_for_x": (np.full((60, 4), b"1.5"), "{path}: 'X' holds text" + REAL),
    "opaque": (np.zeros((60, 4), "V6"), "{path}: 'X' holds raw bytes" + REAL),
    "compound": (
        np.zeros(60, [("a", "S3"), ("b", "S4")]),
        "{path}: 'X' is a table of records without a numeric field; wanted numbers for X",
    ),
    "compound_with_a_name_for_the_shell": (
        np.zeros(60, [("a'; rm -rf ~; '", "f4")]),
        "{path}: 'X' is a table of records with the numeric fields 'a'; rm -rf ~; ''; wanted fields for X and y; "
        """say --x 'X[a'"'"'; rm -rf ~; '"'"']' --y 'X[FIELD]'""",
    ),
    "not_a_number": (np.where(X == X[7, 2], np.nan, X), "{path}: 'X' row 7, column 2 is nan" + GAP),
    "infinite": (np.where(X == X[9, 1], -np.inf, X), "{path}: 'X' row 9, column 1 is -inf" + FINITE),
    "too_large_a_spread": (
        np.where(X == X[5, 3], 1e300, X.astype("f8")),
        (
            "{path}: 'X' 60 × 4 float64: column 3 goes from -1.7676 to 1e+300; wanted numbers "
            "whose squares are finite; scale the column down in the file"
        ),
    ),
}.items():
    _make = _holding(_values)
    _make.__name__ = _name
    bad(_line)(_make)


@bad("{path}: 'X' holds rows of different lengths" + REAL)
def rows_of_different_lengths(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60,), h5py.vlen_dtype("f4"))[0] = [1.0, 2.0]


@bad("{path}: 'X' holds text" + REAL)
def texts_of_different_lengths(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", data=np.full((60, 4), "1.5", object), dtype=h5py.string_dtype())


@bad("{path}: 'X' holds references to other datasets" + REAL)
def references(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60, 4), h5py.ref_dtype)[:] = file["y"].ref


@bad("{path}: 'X' holds references to other datasets" + REAL)
def region_references(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60,), h5py.regionref_dtype)[:] = file["y"].regionref[2:9]


@bad("{path}: 'X' holds the type float128" + REAL)
def long_doubles(path: Path) -> None:
    with h5(path) as file:
        file["X"] = X.astype(np.longdouble)


@bad("{path} has no X; it holds 'X/a', 'X/b', 'y'" + NAME_X)
def a_group_for_x(path: Path) -> None:
    with h5(path) as file:
        file["X/a"], file["X/b"] = X, X


@bad("{path}: 'X', 'data' could each be X; wanted one; say --x NAME")
def two_for_x(path: Path) -> None:
    with h5(path, x=True) as file:
        file["data"] = X
