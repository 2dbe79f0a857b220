"""Every source gives the rows as they are stored, from any thread, and says where a row that cannot be read lies."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

from gpubp.data.source import ArrayRows, RowSource, StackedRows
from gpubp.errors import DataError

RNG = np.random.default_rng(0)


def rows_of(source: RowSource, start=0, stop=None) -> np.ndarray:
    stop = source.m if stop is None else stop
    out = np.empty((stop - start, source.features), source.dtype)
    source.read(start, stop, out)
    return out


TYPES = ["?", "u1", "i1", "<u2", ">u2", "<i4", ">i4", "<i8", ">i8", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8"]


@pytest.mark.parametrize("dtype", TYPES)
def test_the_file_gives_what_h5py_reads(dtype, h5, hdf_rows):
    X = RNG.integers(0, 2, (50, 7)) if dtype in "?u1" else RNG.integers(-99, 99, (50, 7)) / 2
    X = X.astype(dtype)
    with_source = hdf_rows(h5({"X": X}))
    assert with_source.dtype == (np.uint8 if dtype == "?" else np.dtype(dtype).newbyteorder("="))
    assert with_source.dtype.isnative and (with_source.m, with_source.features) == (50, 7)
    assert np.array_equal(rows_of(with_source), X)
    assert np.array_equal(rows_of(with_source, 13, 29), X[13:29])
    in_memory = ArrayRows(X)
    assert in_memory.dtype == with_source.dtype and np.array_equal(rows_of(in_memory, 13, 29), X[13:29])
    with_source.close()
    with_source.close()


def test_enumerations_and_chunks_and_images(tmp_path, hdf_rows):
    X = RNG.integers(0, 3, (40, 4, 5)).astype("i4")
    with h5py.File(tmp_path / "d.h5", "w") as file:
        kind = h5py.enum_dtype({"A": 0, "B": 1, "C": 2}, basetype=">i4")
        file.create_dataset("X", data=X, dtype=kind, chunks=(7, 4, 3), compression="gzip")
    source = hdf_rows(tmp_path / "d.h5")
    assert source.dtype == np.dtype(np.int32) and source.dtype.metadata is None
    assert np.array_equal(rows_of(source, 5, 23), X.reshape(40, 20)[5:23])
    source.close()


def test_an_array_is_not_copied_where_it_need_not_be():
    X = RNG.normal(size=(6, 3))
    assert ArrayRows(X).array is X or np.shares_memory(ArrayRows(X).array, X)
    flags = X > 0
    assert np.shares_memory(ArrayRows(flags).array, flags) and ArrayRows(flags).dtype == np.uint8
    fortran = np.asfortranarray(X)
    assert np.array_equal(rows_of(ArrayRows(fortran), 1, 5), X[1:5])
    assert ArrayRows(X.reshape(6, 3, 1)).features == 3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((3, 2), complex), "complex numbers"),
        (np.zeros((3, 2), "S4"), "holds text"),
        (np.zeros((3, 2), "V4"), "raw bytes"),
        (np.zeros(3, [("a", "f4"), ("b", "i4")]).reshape(3, 1), "compound type with the fields 'a', 'b'"),
        (np.zeros((3, 2), np.longdouble), "at most 8 bytes"),
        (np.zeros(5), "store one column as (5, 1)"),
        (np.float64(1), "wanted a table"),
        (np.zeros((0, 4)), "empty, its shape is (0, 4)"),
        (np.zeros((4, 0)), "empty, its shape is (4, 0)"),
    ],
)
def test_what_is_no_table_of_numbers_is_refused(values, words, h5, refuses, hdf_rows):
    with refuses(DataError, "X", words):
        ArrayRows(np.asarray(values))
    with refuses(DataError, "d.h5: 'X'", words):
        hdf_rows(h5({"X": values}))


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        (h5py.ref_dtype, "references"),
        (h5py.vlen_dtype("f4"), "different lengths"),
        (h5py.string_dtype(), "holds text"),
    ],
)
def test_hdf5_types_of_objects_are_refused(dtype, words, tmp_path, refuses, hdf_rows):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        values = file.create_dataset("X", (3, 2), dtype)
        if words == "holds text":  # what was never written is refused for that
            values[...] = "a"
    with refuses(DataError, "d.h5: 'X'", words):
        hdf_rows(tmp_path / "d.h5")


def test_many_threads_read_at_once(h5, hdf_rows):
    X = RNG.normal(size=(2000, 11)).astype(">f8")
    source = hdf_rows(h5({"X": X}))
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda i: rows_of(source, i, i + 100), range(0, 2000, 100)))
    assert np.array_equal(np.concatenate(parts), X)
    source.close()


def test_a_file_cut_short_while_it_is_read_is_noticed(h5, refuses, hdf_rows):
    path = h5({"X": np.ones((1000, 1000))})
    source = hdf_rows(path)
    os.truncate(path, 4_000_000)
    with refuses(DataError, "d.h5: 'X': rows 900 to 999 cannot be read", "shorter"):
        rows_of(source, 900, 1000)
    source.close()


def test_damaged_chunks_are_named(tmp_path, refuses, hdf_rows):
    path = tmp_path / "d.h5"
    with h5py.File(path, "w") as file:
        X = file.create_dataset("X", data=RNG.normal(size=(1000, 8)), chunks=(100, 8), compression="gzip")
        offset = X.id.get_chunk_info(3).byte_offset
    damaged = bytearray(path.read_bytes())
    damaged[offset + 20 : offset + 200] = bytes(180)
    path.write_bytes(damaged)
    source = hdf_rows(path)
    assert np.isfinite(rows_of(source, 0, 300)).all()
    with refuses(DataError, "rows 300 to 399 cannot be read", "check the disk"):
        rows_of(source, 300, 400)
    source.close()


def test_reading_after_close_is_an_error_of_one_line(h5, refuses, hdf_rows):
    source = hdf_rows(h5({"X": np.ones((3, 2))}))
    source.close()
    with refuses(DataError, "cannot be read"):
        rows_of(source)


def test_stacked_rows_follow_each_other_in_their_common_type(h5, monkeypatch, hdf_rows):
    a, b, c = RNG.integers(0, 255, (7, 3)).astype("u1"), RNG.normal(size=(5, 3)).astype("f4"), np.ones((2, 3), ">f4")
    stacked = StackedRows([hdf_rows(h5({"X": a})), ArrayRows(b, "b"), ArrayRows(c, "c")])
    whole = np.concatenate([a, b, c]).astype("f4")
    assert (stacked.m, stacked.features, stacked.dtype) == (14, 3, np.float32)
    for piece in (1 << 20, 4):
        monkeypatch.setattr("gpubp.data.source._PIECE", piece)
        for start in range(14):
            for stop in range(start + 1, 15):
                assert np.array_equal(rows_of(stacked, start, stop), whole[start:stop])
    assert "d.h5: 'X' row 6" in stacked.where(6) and stacked.where(7) == "b row 0" and stacked.where(13) == "c row 1"
    assert "then b 5 × 3 float32" in stacked.describe()
    stacked.close()


def test_stacked_rows_must_agree_in_columns(refuses):
    with refuses(DataError, "a 2 × 3 float64 and b 2 × 4 float64", "same number of columns"):
        StackedRows([ArrayRows(np.ones((2, 3)), "a"), ArrayRows(np.ones((2, 4)), "b")])
