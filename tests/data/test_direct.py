"""Rows that lie in a file as they are used: which sources say so, that the bytes are right, that a change is seen."""

from __future__ import annotations

import os
import shutil

import h5py
import numpy as np
import pytest
from raw_rows import RawRows, later

from gpubp.data.direct import Direct
from gpubp.data.source import ArrayRows, StackedRows, extents
from gpubp.data.stamp import Stamp
from gpubp.errors import DataError

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("dtype", ["?", "u1", "i2", "<f2", "<f4", "<f8"])
def test_contiguous_native_rows_are_a_piece_of_the_file(dtype, h5, hdf_rows):
    X = RNG.integers(0, 2, (50, 7)).astype(dtype)
    path = h5({"before": RNG.normal(size=33), "X": X})
    source = hdf_rows(path)
    extent = source.extent()
    assert extent is not None
    assert path.read_bytes()[extent.offset :][: X.nbytes] == X.tobytes()
    out = np.empty((20, 7), source.dtype)
    Direct(source).read(13, 33, out)
    assert np.array_equal(out, X[13:33])


def test_all_other_rows_are_their_sources_to_read(tmp_path, hdf_rows):
    X = RNG.normal(size=(50, 7)).astype("f4")
    makers = {
        "chunks": {"chunks": (10, 7), "compression": "gzip"},
        "gzip": {"compression": "gzip"},
        "checksums": {"fletcher32": True},
        "the other byte order": {"dtype": ">f4"},
        "in the header": {"dcpl": h5py.h5p.create(h5py.h5p.DATASET_CREATE)},
    }
    makers["in the header"]["dcpl"].set_layout(h5py.h5d.COMPACT)
    for name, options in makers.items():
        path = tmp_path / f"{name}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("X", data=X, **options)
        source = hdf_rows(path)
        assert source.extent() is None, name
        out = np.empty_like(X)
        direct = Direct(source)
        direct.read(0, 50, out)
        assert np.array_equal(out, X) and not direct.covers(0) and direct.covers(50), name
    assert ArrayRows(X).extent() is None


def test_a_stack_is_the_pieces_of_its_parts(tmp_path):
    X = RNG.integers(0, 99, (90, 3)).astype("i2")
    a, b = RawRows(tmp_path / "a", X[:20]), RawRows(tmp_path / "b", X[60:])
    stack = StackedRows([a, StackedRows([ArrayRows(X[20:60]), b])])
    assert stack.extent() is None
    assert extents(stack) == [(0, 20, a.extent()), (20, 60, None), (60, 90, b.extent())]
    direct = Direct(stack)
    assert [direct.covers(row) for row in (0, 20, 59, 60, 89)] == [False, False, False, True, True]
    for start, stop in ((0, 90), (5, 15), (19, 21), (59, 61), (20, 60), (70, 90)):
        out = np.zeros((stop - start, 3), "i2")
        direct.read(start, stop, out)
        assert np.array_equal(out, X[start:stop])
    wide = StackedRows([a, ArrayRows(X.astype("i4"))])  # bytes in the file are not what `read` gives
    assert extents(wide)[0] == (0, 20, None)
    for source in (a, b):
        source.close()


def test_what_cannot_be_read_is_said_by_the_source(tmp_path):
    X = RNG.normal(size=(40, 3))
    source = RawRows(tmp_path / "a", X)
    os.truncate(source.path, source.HEADER + X[:30].nbytes + 5)
    direct, out = Direct(source), np.empty((10, 3))
    direct.read(20, 30, out)
    assert np.array_equal(out, X[20:30]) and source.asked == 0
    with pytest.raises(DataError, match="rows 25 to 34 are not there"):
        direct.read(25, 35, out)
    source.close()


def test_a_stamp_sees_every_change_and_nothing_else(tmp_path, monkeypatch, refuses):
    path = tmp_path / "d"
    path.write_bytes(b"0123456789")
    monkeypatch.chdir(tmp_path)
    with path.open("rb") as file:
        stamp = Stamp(file.fileno(), "d")
        monkeypatch.chdir("/")  # a relative name is the one it was
        file.read()
        path.chmod(0o600)
        path.rename(tmp_path / "e")
        stamp.check()
        shutil.copy2(tmp_path / "e", path)
        with refuses(DataError, "d was replaced by another file", "gpubp resume"):
            stamp.check()
        os.replace(tmp_path / "e", path)
        stamp.check()
        os.truncate(path, 9)
        with refuses(DataError, "d had 10 bytes when it was opened and has 9"):
            stamp.check()
        path.write_bytes(b"0123456789")
        later(path)
        with refuses(DataError, "d was written to after it was opened"):
            stamp.check()


def test_sources_that_are_files_are_checked(h5, hdf_rows, refuses):
    path = h5({"X": RNG.normal(size=(9, 2))})
    source = hdf_rows(path)
    stack = StackedRows([ArrayRows(RNG.normal(size=(5, 2))), source])
    for one in (source, stack):
        one.check()
    later(path)
    for one in (source, stack):
        with refuses(DataError, "written to after"):
            one.check()


def test_of_many_parts_only_those_that_are_wanted_are_looked_at(tmp_path):
    X = RNG.integers(0, 99, (600, 3)).astype("i2")
    sources = [RawRows(tmp_path / str(i), X[2 * i : 2 * i + 2]) for i in range(300)]
    direct = Direct(StackedRows(sources))
    for start, stop in ((0, 1), (1, 2), (0, 600), (299, 305), (598, 600), (7, 7)):
        out = np.empty((stop - start, 3), "i2")
        direct.read(start, stop, out)
        assert np.array_equal(out, X[start:stop])
    for source in sources:
        source.close()
