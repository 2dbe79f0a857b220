"""Filters are undone as HDF5 undoes them; a chunk that is damaged or made to do harm is refused, whatever it says."""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from gpubp.data.guard import open_file
from gpubp.data.hdf5 import codecs, file, ways
from gpubp.data.hdf5.codecs import Decoder, Unavailable, framed, plain
from gpubp.data.hdf5.rows import HdfRows
from gpubp.data.hdf5.stored import Filter
from gpubp.errors import DataError

RNG = np.random.default_rng(6)

OWN = {
    "gzip": {"compression": "gzip"},
    "gzip+shuffle": {"compression": "gzip", "shuffle": True},
    "gzip+shuffle+fletcher32": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "shuffle": {"shuffle": True},
    "fletcher32": {"fletcher32": True},
    "lzf": {"compression": "lzf"},
    "lzf+shuffle": {"compression": "lzf", "shuffle": True},
}
NEEDED = {"blosc": "numcodecs", "blosc2": "blosc2", "zstd": "numcodecs", "bitshuffle zstd": "numcodecs"}


def plugged(name: str) -> dict[str, Any]:
    """What h5py is told for a filter of hdf5plugin."""
    hdf5plugin = pytest.importorskip("hdf5plugin", reason="it writes these files")
    kind, *more = name.split()
    pytest.importorskip(NEEDED.get(name) or NEEDED.get(kind) or "numpy", reason="it decodes these files")
    made = {
        "blosc": lambda: hdf5plugin.Blosc(cname=more[0], shuffle=int(more[1])),
        "blosc2": lambda: hdf5plugin.Blosc2(cname=more[0], filters=int(more[1])),
        "zstd": hdf5plugin.Zstd,
        "lz4": lambda: hdf5plugin.LZ4(nbytes=int(more[0])),
        "bitshuffle": lambda: hdf5plugin.Bitshuffle(cname=more[0], nelems=int(more[1])),
    }[kind]()
    return dict(made)


PLUGGED = [
    *(f"blosc {codec} {shuffle}" for codec in ("lz4", "zstd", "blosclz", "zlib", "lz4hc") for shuffle in (0, 1, 2)),
    *(f"blosc2 {codec} {filters}" for codec in ("lz4", "zstd", "blosclz") for filters in (0, 1, 2)),
    "zstd", "lz4 0", "lz4 1024", "bitshuffle none 0", "bitshuffle lz4 0", "bitshuffle zstd 0", "bitshuffle lz4 64",
]  # fmt: skip


def how(name: str) -> dict[str, Any]:
    return OWN[name] if name in OWN else plugged(name)


def table(m: int, columns: int, dtype: str) -> np.ndarray:
    """Numbers that can be compressed, and some that cannot."""
    X = (RNG.normal(size=(m, columns)) * 30).astype(dtype)
    X[: m // 3] //= 7
    X[m // 3 : m // 2] = 0
    return X


def write(path: Path, X: np.ndarray, **more: Any) -> Path:
    with h5py.File(path, "w") as out:
        out.create_dataset("X", data=X, **more)
    return path


@pytest.mark.parametrize("name", [*OWN, *PLUGGED])
def test_rows_are_those_that_were_written(name, tmp_path):
    options = how(name)
    sets = {}
    with h5py.File(tmp_path / "d.h5", "w") as out:
        for dtype in ("f4", ">f8", "u1", "i2", "f2"):
            for chunk in ((100, 60), (97, 17), (503, 60)):
                key = f"{dtype} {chunk}"
                sets[key] = X = table(503, 60, dtype)
                out.create_dataset(key, data=X, chunks=chunk, **options)
    with open_file(tmp_path / "d.h5") as found:
        for key, X in sets.items():
            rows = HdfRows(found, found.dataset(key))
            assert isinstance(rows.way, ways.Direct), f"{key}: {getattr(rows.way, 'reason', '')}"
            for start, stop in ((0, 503), (150, 420), (499, 503)):
                out = np.empty((stop - start, 60), rows.dtype)
                rows.read(start, stop, out)
                assert np.array_equal(out, X[start:stop]), key


def test_filters_that_a_chunk_left_out_are_left_alone(tmp_path):
    """A chunk's filter mask: bit i is set where filter i was not applied."""
    X = table(60, 8, "f4")
    with h5py.File(tmp_path / "d.h5", "w") as out:
        values = out.create_dataset("X", X.shape, "f4", chunks=(10, 8), compression="gzip", shuffle=True)
        for i in range(6):
            part = X[10 * i : 10 * i + 10]
            shuffled = part.view("u1").reshape(-1, 4).T.tobytes()
            data = [zlib.compress(shuffled), zlib.compress(part.tobytes()), shuffled, part.tobytes()][i % 4]
            values.id.write_direct_chunk((10 * i, 0), data, i % 4)
    with open_file(tmp_path / "d.h5") as found:
        rows = HdfRows(found, found.dataset("X"))
        assert isinstance(rows.way, ways.Direct)
        out = np.empty_like(X)
        rows.read(0, 60, out)
    assert np.array_equal(out, X)


def raw_chunk(path: Path, name: str, X: np.ndarray) -> tuple[Decoder, np.ndarray]:
    """A decoder, and a chunk as it lies in the file."""
    write(path, X, chunks=X.shape, **how(name))
    with h5py.File(path) as found:
        values = found["X"]
        listed = values.id.get_create_plist()
        filters = [listed.get_filter(i) for i in range(listed.get_nfilters())]
        _, raw = values.id.read_direct_chunk((0, 0))
    decoder = Decoder([Filter(code, "", tuple(given)) for code, _, given, _ in filters], X.nbytes)
    return decoder, np.frombuffer(bytearray(raw), np.uint8)


FUZZED = ["gzip+shuffle", "lzf", "gzip+shuffle+fletcher32", "blosc lz4 1", "blosc blosclz 2", "blosc zstd 1",
          "blosc2 lz4 1", "blosc2 zstd 2", "zstd", "lz4 1024", "bitshuffle none 0", "bitshuffle lz4 64",
          "bitshuffle zstd 64"]  # fmt: skip


@pytest.mark.parametrize("name", FUZZED)
def test_a_damaged_chunk_does_no_harm(name, tmp_path):
    """Cut, lengthened and changed chunks: an error, or (without a checksum) other values; nothing beyond the chunk."""
    X = table(40, 30, "f4")
    decoder, raw = raw_chunk(tmp_path / "d.h5", name, X)
    room = np.full(X.nbytes + 128, 170, np.uint8)
    out = room[64:-64]
    decoder.decode(raw, 0, out)
    assert out.tobytes() == X.tobytes()
    wrong = [raw[:n].copy() for n in (0, 1, 3, 7, 11, 15, 31, raw.size // 2, raw.size - 1)]
    wrong.append(np.concatenate([raw[: raw.size // 2], raw]))
    for i in range(250):
        bad = raw.copy()
        where = int(RNG.integers(0, min(raw.size, 64) if i % 2 else raw.size))
        if i % 5 == 0:
            bad[where : where + 4] = np.frombuffer(struct.pack(">I", RNG.choice([0, 1, 2**31 - 1, 2**32 - 1])), "u1")[
                : raw.size - where
            ]
        else:
            bad[where] ^= np.uint8(1 << int(RNG.integers(0, 8)))
        wrong.append(bad)
    refused = 0
    for bad in wrong:
        try:
            decoder.decode(bad, 0, out)
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error)
        assert (room[:64] == 170).all() and (room[-64:] == 170).all()
    assert refused >= 10 or name == "bitshuffle none 0"
    decoder.decode(raw, 0, out)
    assert out.tobytes() == X.tobytes()


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("blosc lz4 1", 4, struct.pack("<I", 4801)),  # bytes in all
        ("blosc lz4 1", 12, struct.pack("<I", 1 << 20)),  # compressed bytes
        ("blosc lz4 1", 8, struct.pack("<I", 0)),  # bytes of a block
        ("blosc2 lz4 1", 16, struct.pack(">Q", 1 << 40)),
        ("blosc2 lz4 1", 39, struct.pack(">q", 1 << 40)),
        ("lz4 1024", 0, struct.pack(">Q", 1 << 40)),
        ("lz4 1024", 12, struct.pack(">I", 1 << 31)),
        ("bitshuffle lz4 64", 8, struct.pack(">I", 12)),
        ("zstd", 0, b"\0\0\0\0"),
    ],
)
def test_lengths_in_headers_are_looked_at_first(name, at, value, tmp_path):
    decoder, raw = raw_chunk(tmp_path / "d.h5", name, table(40, 30, "f4"))
    raw[at : at + len(value)] = np.frombuffer(value, np.uint8)
    with pytest.raises(ValueError):
        decoder.decode(raw, 0, np.empty(4800, np.uint8))


@pytest.mark.parametrize("blocks", [(10, 8, 7), (4, 8, 7), (3, 5, 2), (10, 3, 7)])
def test_blosc2_frames_with_several_axes(blocks):
    blosc2 = pytest.importorskip("blosc2", reason="it writes these chunks")
    for X in (table(10, 56, "f4").reshape(10, 8, 7), np.zeros((10, 8, 7), "f4")):
        frame = blosc2.asarray(X, chunks=X.shape, blocks=blocks).to_cframe()
        out = np.empty(X.nbytes, np.uint8)
        decoder = Decoder([Filter(32026, "blosc2", ())], X.nbytes)
        decoder.decode(np.frombuffer(bytearray(frame), np.uint8), 0, out)
        assert out.tobytes() == X.tobytes()


def test_deflate_without_isal(monkeypatch):
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    data = RNG.integers(0, 9, 5000, np.uint8)
    packed, out = np.frombuffer(bytearray(zlib.compress(data.data)), np.uint8), np.empty_like(data)
    decoder = Decoder([Filter(1, "deflate", (4,))], data.size)
    decoder.decode(packed, 0, out)
    assert np.array_equal(out, data)
    packed[-1] ^= 1
    with pytest.raises(ValueError):
        decoder.decode(packed, 0, out)


def test_a_bomb_is_not_unpacked():
    decoder = Decoder([Filter(1, "deflate", (9,))], 1000)
    bomb = np.frombuffer(bytearray(zlib.compress(bytes(50 << 20))), np.uint8)
    with pytest.raises(ValueError, match="more or less than a chunk"):
        decoder.decode(bomb, 0, np.empty(1000, np.uint8))


def test_a_damaged_chunk_is_named_with_its_rows(tmp_path, refuses):
    X = RNG.normal(size=(1000, 8))
    path = write(tmp_path / "d.h5", X, chunks=(100, 8), fletcher32=True)
    with h5py.File(path) as found:
        place = found["X"].id.get_chunk_info(4).byte_offset
    data = bytearray(path.read_bytes())
    data[place + 100] ^= 1
    path.write_bytes(data)
    with open_file(path) as found:
        rows = HdfRows(found, found.dataset("X"))
        rows.read(0, 400, np.empty((400, 8)))
        with refuses(DataError, "d.h5: 'X': rows 400 to 499 cannot be read", f"byte {place:,}", "checksum"):
            rows.read(450, 460, np.empty((10, 8)))


@pytest.mark.parametrize("item", [2, 3, 4, 8, 16])
def test_with_and_without_numba_the_same_bytes(item, monkeypatch):
    if plain.kernels() is None:
        pytest.skip("numba is not installed")
    data = RNG.integers(0, 256, 40_003, np.uint8)
    out, other = np.empty_like(data), np.empty_like(data)
    plain.Shuffle((item,)).decode(data, out)
    assert plain.kernels().fletcher(data) == plain.fletcher(data)
    for special in (np.zeros(9, "u1"), np.full(70_001, 255, "u1"), np.array([255, 255], "u1")):
        assert tuple(map(int, plain.kernels().fletcher(special))) == plain.fletcher(special)
    monkeypatch.setattr(plain, "kernels", lambda: None)
    plain.Shuffle((item,)).decode(data, other)
    assert np.array_equal(out, other)
    with pytest.raises(Unavailable, match=r"numba.*gpubp\[cpu\]"):
        plain.Lzf(())


def test_lz4_by_its_own_package(monkeypatch, tmp_path):
    pytest.importorskip("lz4.block", reason="it decodes these files where there is no numba")
    X = table(40, 30, "f4")
    _, raw = raw_chunk(tmp_path / "d.h5", "lz4 1024", X)
    monkeypatch.setattr(framed, "kernels", lambda: None)
    out = np.empty(X.nbytes, np.uint8)
    decoder = Decoder([Filter(32004, "lz4", ())], X.nbytes)
    decoder.decode(raw, 0, out)
    assert out.tobytes() == X.tobytes()
    with pytest.raises(ValueError):
        decoder.decode(raw[:-1], 0, out)


@pytest.fixture
def blosc_file(tmp_path: Path) -> Iterator[tuple[Path, np.ndarray]]:
    X = table(300, 20, "f4")
    yield write(tmp_path / "b.h5", X, chunks=(100, 20), **plugged("blosc lz4 1")), X


def test_a_filter_that_only_we_have_is_enough(blosc_file, monkeypatch):
    monkeypatch.setattr(file, "find_spec", lambda name: None)  # no hdf5plugin
    path, X = blosc_file
    with open_file(path) as found:
        stored = found.dataset("X")
        assert stored.unknown == 32001 and stored.samples == () and not found.entries["X"].trouble
        rows = HdfRows(found, stored)
        out = np.empty_like(X)
        rows.read(0, 300, out)
    assert np.array_equal(out, X)


def test_a_filter_that_nobody_has_is_refused(blosc_file, monkeypatch, refuses):
    monkeypatch.setattr(file, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "numcodecs.blosc", None)
    with open_file(blosc_file[0]) as found, refuses(DataError, "filter 32001", "pip install 'gpubp[codecs]'"):
        found.dataset("X")


def test_what_is_not_installed_is_named_and_hdf5_reads(blosc_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "numcodecs.blosc", None)
    monkeypatch.setattr(ways, "WARNED", 1000)
    path, X = blosc_file
    with open_file(path) as found:
        rows = HdfRows(found, found.dataset("X"))
        assert isinstance(rows.way, ways.ThroughHdf5)
        assert "numcodecs, which undoes Blosc, is not installed (pip install 'gpubp[codecs]')" in rows.way.slow
        out = np.empty_like(X)
        rows.read(0, 300, out)
    assert np.array_equal(out, X)


def test_pipelines_that_cannot_be_undone_say_why():
    with pytest.raises(Unavailable, match="several compressions"):
        Decoder([Filter(1, "deflate", (1,)), Filter(1, "deflate", (1,))], 8)
    assert codecs.missing([Filter(4, "szip", (1, 2))]) == "filter 4 (szip) is not known here"
    assert codecs.missing([Filter(2, "shuffle", ())])
    assert not codecs.missing([Filter(2, "shuffle", (4,)), Filter(1, "deflate", (4,)), Filter(3, "fletcher32", ())])
