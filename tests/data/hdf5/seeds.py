"""Sound HDF5 files of every kind of layout, and where in them what lies: what mutants are made of."""

from __future__ import annotations

import importlib.util
import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import h5py
import numpy as np

M, D = 40, 6
X = np.random.default_rng(1).normal(size=(M, D))
WHOLE = np.arange(M * D).reshape(M, D).astype("i4")
Y = (np.arange(M) % 3).astype("i4")
CHUNKS = (10, 3)
SIGNATURES = b"OHDR OCHK FRHP FHDB FHIB BTHD BTLF BTIN FAHD FADB EAHD EAIB EASB EADB FSHD FSSE SMTB SMLI".split()
OLD = b"TREE HEAP SNOD GCOL".split()


@dataclass(frozen=True)
class Seed:
    """A sound file.

    Attributes:
        raw: its bytes.
        structure: places of bytes that are no values; where nothing but zeros is for long, HDF5 does not look.
        values: places of bytes of values, compressed or not.
        sums: (start, place of the checksum) of every block that has one.
        places: where blocks begin, for pointers to wrong ones.
    """

    raw: bytes
    structure: np.ndarray
    values: np.ndarray
    sums: tuple[tuple[int, int], ...]
    places: tuple[int, ...]


def _table(values: np.ndarray = X, **how: object) -> Callable[[h5py.File], None]:
    def fill(file: h5py.File) -> None:
        file.create_dataset("X", data=values, **how)
        file["y"] = Y

    return fill


def _by_bits(file: h5py.File) -> None:
    """The nbit filter, which keeps of each number the bits that count."""
    kind = h5py.h5t.STD_I32LE.copy()
    kind.set_precision(17)
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk(CHUNKS)
    plist.set_filter(h5py.h5z.FILTER_NBIT, 0, ())
    values = h5py.h5d.create(file.id, b"X", kind, h5py.h5s.create_simple((M, D)), plist)
    values.write(h5py.h5s.ALL, h5py.h5s.ALL, WHOLE)
    file["y"] = Y


def _compact(file: h5py.File) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    values = h5py.h5d.create(file.id, b"X", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((M, D)), plist)
    values.write(h5py.h5s.ALL, h5py.h5s.ALL, X)
    file["y"] = Y


def _allocated_early(file: h5py.File) -> None:
    """Chunks one after the other without any index."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk(CHUNKS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    values = h5py.h5d.create(file.id, b"X", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((M, D)), plist)
    values.write(h5py.h5s.ALL, h5py.h5s.ALL, X)
    file["y"] = Y


def _virtual(file: h5py.File) -> None:
    file["part"] = X
    layout = h5py.VirtualLayout((M, D), "f8")
    layout[:] = h5py.VirtualSource(".", "part", (M, D))
    file.create_virtual_dataset("X", layout)
    file["y"] = Y


def _records(file: h5py.File) -> None:
    file["X"] = np.zeros(M, [("a", "f4"), ("b", "i4", (2,)), ("c", "S3"), ("d", [("e", "u1"), ("f", ">f8")])])
    file["y"] = Y


def _texts(file: h5py.File) -> None:
    _table(chunks=CHUNKS, compression="gzip")(file)
    del file["y"]
    file.create_dataset("y", data=np.array(["no", "yes é"] * (M // 2), object), dtype=h5py.string_dtype())
    file["feature_names"] = np.array([b"a", b"bb", b"c", b"d", b"e", b"f"])


def _much(file: h5py.File) -> None:
    """A group of every kind of thing, and attributes of every kind."""
    _table(chunks=CHUNKS)(file)
    file["train/X"], file["train/y"], file["train/w"] = X, Y, np.ones(M)
    file["g/e"] = np.zeros(3, h5py.enum_dtype({"A": 0, "B": 1}))
    file.create_dataset("g/v", (2,), h5py.vlen_dtype("f8"))[0] = [1.0, 2.0]
    file.create_dataset("g/r", (2,), h5py.ref_dtype)[0] = file["y"].ref
    file["g/soft"], file["g/far"] = h5py.SoftLink("/X"), h5py.ExternalLink("other.h5", "/X")
    file["g/up"], file["g/type"], file["g/empty"] = file["/"], np.dtype("f4"), h5py.Empty("f4")
    for number in range(20):
        file.attrs[f"a{number}"] = np.arange(number)
    file["X"].attrs["names"] = np.array(["a", "bb"], object)
    file["X"].attrs["record"] = np.zeros(2, [("q", "f4"), ("w", "i4", (2,))])
    for number in range(12):
        file[f"many/n{number}"] = number


_KINDS: dict[str, tuple[Callable[[h5py.File], None], dict[str, object]]] = {
    "contiguous": (_table(), {}),
    "userblock": (_table(), {"userblock_size": 512}),
    "compact": (_compact, {}),
    "chunked": (_table(chunks=CHUNKS), {}),
    "one_chunk": (_table(chunks=(M, D)), {}),
    "growing": (_table(chunks=CHUNKS, maxshape=(None, D)), {}),
    "growing_both_ways": (_table(chunks=CHUNKS, maxshape=(None, None), compression="gzip"), {}),
    "no_index": (_allocated_early, {}),
    "gzip": (_table(chunks=CHUNKS, compression="gzip", shuffle=True), {}),
    "lzf": (_table(chunks=CHUNKS, compression="lzf", fletcher32=True), {}),
    "whole_numbers": (_table(WHOLE, chunks=CHUNKS, scaleoffset=0), {}),
    "rounded": (_table(chunks=CHUNKS, scaleoffset=3), {}),
    "bits": (_by_bits, {}),
    "virtual": (_virtual, {}),
    "records": (_records, {}),
    "texts": (_texts, {}),
    "much": (_much, {}),
}
if importlib.util.find_spec("hdf5plugin") is not None:
    import hdf5plugin

    for _name, _how in {
        "blosc": hdf5plugin.Blosc("lz4"),
        "blosc_zstd": hdf5plugin.Blosc("zstd", 5, hdf5plugin.Blosc.BITSHUFFLE),
        "blosc2": hdf5plugin.Blosc2("blosclz"),
        "zstd": hdf5plugin.Zstd(),
        "lz4": hdf5plugin.LZ4(),
        "bitshuffle": hdf5plugin.Bitshuffle(),
    }.items():
        _KINDS[_name] = _table(np.round(X, 1), chunks=(M, D), **_how), {}
NAMES = tuple(f"{kind}-{version}" for kind in _KINDS for version in ("earliest", "latest"))


@cache
def seed(name: str) -> Seed:
    """The sound file of that name."""
    kind, _, version = name.partition("-")
    fill, options = _KINDS[kind]
    held = io.BytesIO()
    with h5py.File(held, "w", libver=(version, "latest"), **options) as file:
        fill(file)
    raw = held.getvalue()
    is_value = np.zeros(len(raw), np.bool_)
    with h5py.File(held, "r") as file:
        base = file.userblock_size
        file.visititems(lambda _, values: _mark(values, is_value, base) if isinstance(values, h5py.Dataset) else None)
    used = np.convolve(np.frombuffer(raw, np.uint8) != 0, np.ones(17), "same") > 0
    places = {place for one in (*SIGNATURES, *OLD) for place in _all(raw, one)}
    return Seed(raw, np.flatnonzero(~is_value & used), np.flatnonzero(is_value), _sums(raw), tuple(sorted(places)))


def _mark(values: h5py.Dataset, is_value: np.ndarray, base: int) -> None:
    layout = values.id.get_create_plist().get_layout()
    if layout == h5py.h5d.CONTIGUOUS and values.id.get_offset() is not None:
        is_value[values.id.get_offset() :][: values.id.get_storage_size()] = True
    elif layout == h5py.h5d.CHUNKED:
        for number in range(values.id.get_num_chunks()):
            info = values.id.get_chunk_info(number)
            is_value[base + info.byte_offset :][: info.size] = True


def _all(raw: bytes, what: bytes) -> list[int]:
    found, at = [], raw.find(what)
    while at >= 0:
        found.append(at)
        at = raw.find(what, at + 1)
    return found


def _sums(raw: bytes) -> tuple[tuple[int, int], ...]:
    """Every block that ends in its checksum, found by trying all lengths."""
    base = raw.index(b"\x89HDF")
    starts = [base] if raw[base + 8] >= 2 else []
    starts += [place for one in SIGNATURES for place in _all(raw, one)]
    found = []
    for start in starts:
        longest = min(3000, len(raw) - start - 4)
        lengths = np.arange(8, longest)
        stored = np.lib.stride_tricks.sliding_window_view(np.frombuffer(raw[start:], np.uint8), 4)[8:longest]
        agree = np.flatnonzero(_lookup3(raw[start : start + longest], lengths) == stored.copy().view("<u4")[:, 0])
        if len(agree):
            found.append((start, start + int(lengths[agree[0]])))
    return tuple(found)


def checksum(block: bytes) -> bytes:
    """The checksum that HDF5 puts behind a block: Jenkins' lookup3."""
    return struct.pack("<I", int(_lookup3(block, np.array([len(block)]))[0]))


def _lookup3(raw: bytes, lengths: np.ndarray) -> np.ndarray:
    """Jenkins' lookup3 (hashlittle with initval 0; burtleburtle.net/bob/c/lookup3.c) of the first bytes, for each of
    the lengths."""
    words = np.frombuffer(raw + bytes(24), np.uint8)
    left = lengths.astype(np.int64)
    a = (left + 0xDEADBEEF).astype(np.uint32)
    b, c = a.copy(), a.copy()

    def turned(x: np.ndarray, k: int) -> np.ndarray:
        return (x << np.uint32(k)) | (x >> np.uint32(32 - k))

    for at in range(0, int(left.max()), 12):
        more = left - at > 12
        x, y, z = (int(v) for v in words[at : at + 12].copy().view("<u4"))
        a1, b1, c1 = a + np.uint32(x), b + np.uint32(y), c + np.uint32(z)
        for k in (4, 6, 8, 16, 19, 4):  # mix
            a1 = (a1 - c1) ^ turned(c1, k)
            c1 = c1 + b1
            a1, b1, c1 = b1, c1, a1
        a, b, c = np.where(more, a1, a), np.where(more, b1, b), np.where(more, c1, c)
    last = np.maximum(0, (left - 1) // 12 * 12)
    places = last[:, None] + np.arange(12)
    tail = np.where(places < left[:, None], words[places], 0).astype(np.uint8).view("<u4")
    x, y, z = tail[:, 0], tail[:, 1], tail[:, 2]
    a2, b2, c2 = a + x, b + y, c + z
    for k in (14, 11, 25, 16, 4, 14, 24):  # final
        c2 = (c2 ^ b2) - turned(b2, k)
        a2, b2, c2 = b2, c2, a2
    return b2
