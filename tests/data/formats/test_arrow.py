"""Parquet and Feather come out as they went in; what has no value or no number is named by column and row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpubp.data.formats import Part, Request, recognise
from gpubp.errors import DataError, UsageError

pa = pytest.importorskip("pyarrow", reason="reading Parquet and Feather takes pyarrow")
RNG = np.random.default_rng(11)


@pytest.fixture(params=["t.parquet", "t.feather", "noname.parquet.x"])
def stored(request, tmp_path):
    """`stored({"a": …}, x=…)`: the part that a file with these columns is read as."""

    def store(columns: Any, rows: int = 40, **options: Any) -> Part:
        import pyarrow.feather
        import pyarrow.parquet

        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        path = tmp_path / request.param
        if "feather" in request.param:
            pyarrow.feather.write_feather(table, path, chunksize=rows, compression="lz4")
        else:
            pyarrow.parquet.write_table(table, path, row_group_size=rows)
        return read(path, **options)

    return store


def read(path: Path, **options: Any) -> Part:
    found = recognise(path)
    assert found is not None
    asked = Request(path.parent, **options)
    asked.refuse_but(found.takes, found.title)
    (part,) = found.read(path, asked)
    return part


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]
)
def test_numbers_of_every_type(dtype, stored):
    values = (RNG.random((100, 3)) * 120).astype(dtype)
    if dtype in ("int64", "uint64"):
        values[7, 1] = np.iinfo(dtype).max
    part = stored({"a": values[:, 0], "b": values[:, 1], "label": np.arange(100) % 3, "c": values[:, 2]})
    assert (part.X.dtype.kind == "f") == (values.dtype.kind == "f")
    assert np.array_equal(part.X, values) and part.feature_names == ("a", "b", "c")
    assert part.y is not None and part.y.tolist() == (np.arange(100) % 3).tolist()


def test_the_last_column_is_the_label_and_columns_can_be_named(stored):
    columns = {"a": [1, 2], "b": [0.5, 1.5], "w": [3.0, 4.0], "k": ["x", "y"]}
    part = stored(columns)
    assert part.X.tolist() == [[1, 0.5, 3], [2, 1.5, 4]] and list(part.y) == ["x", "y"] and part.weights is None
    part = stored(columns, x="b,0", y="k", weights="w")
    assert part.X.tolist() == [[0.5, 1], [1.5, 2]] and part.feature_names == ("b", "a")
    assert part.weights.tolist() == [3, 4]
    part = stored(columns, x="0:2", y="none")
    assert part.X.tolist() == [[1, 0.5], [2, 1.5]] and part.y is None


@pytest.mark.parametrize("kind", ["plain", "dictionary", "large"])
def test_text_labels(kind, stored):
    words = np.array(["é", "long label", "z"])[RNG.integers(0, 3, 90)]
    y = pa.array(words.tolist())
    y = {"plain": y, "dictionary": y.dictionary_encode(), "large": y.cast(pa.large_string())}[kind]
    part = stored(pa.table({"a": np.arange(90), "y": y}), rows=20)
    assert part.y.tolist() == words.tolist()


@pytest.mark.parametrize("kind", ["fixed", "list", "large"])
def test_lists_are_features(kind, stored):
    pixels = RNG.integers(0, 256, (50, 6)).astype(np.uint8)
    flat = pa.array(pixels.reshape(-1))
    offsets = np.arange(0, 301, 6)
    image = {
        "fixed": lambda: pa.FixedSizeListArray.from_arrays(flat, 6),
        "list": lambda: pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat),
        "large": lambda: pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat),
    }[kind]()
    part = stored(pa.table({"image": image, "label": np.arange(50) % 10}), rows=20)
    assert np.array_equal(part.X, pixels) and part.X.dtype == np.uint8
    assert part.feature_names == tuple(f"image[{i}]" for i in range(6))
    assert np.array_equal(part.y, np.arange(50) % 10)


def test_lists_of_different_lengths_are_refused(stored, refuses):
    with refuses(DataError, "row 41, column 'image' is a list of 1; wanted lists of one length, such as 2"):
        stored({"image": [[1, 2]] * 41 + [[1]], "label": [0] * 42}, rows=10)


@pytest.mark.parametrize(("values", "row"), [([1, 2, None], 2), ([0.5, float("nan"), 1.5], 1)])
def test_missing_values(values, row, stored, refuses):
    columns = {"a": [5, 6, 7], "b": values, "y": [0, 1, 1]}
    with refuses(DataError, f"row {row}, column 'b' has no value; wanted a number in every cell", "--missing keep"):
        stored(columns)
    wanted = [[a, np.nan if b is None else b] for a, b in zip(columns["a"], values, strict=True)]
    assert np.array_equal(stored(columns, missing=True).X, wanted, equal_nan=True)
    with refuses(DataError, f"row {row}, column 'b' has no value; wanted a label in every row"):
        stored(columns, y="b", missing=True)
    with refuses(DataError, f"row {row}, column 'b' has no value; wanted a weight in every row"):
        stored(columns, weights="b", missing=True)


def test_missing_values_after_batches_without(stored):
    values = [*range(60), None, *range(20)]
    part = stored({"a": values, "y": [0] * 81}, rows=7, missing=True)
    assert np.array_equal(part.X[:, 0], [np.nan if v is None else v for v in values], equal_nan=True)


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        (lambda: pa.array([1, 2], pa.timestamp("ms")), "timestamp[ms]"),
        (lambda: pa.array([1, 2], pa.date32()), "date32"),
        (lambda: pa.array([{"k": 1}, {"k": 2}]), "struct<k: int64>"),
        (lambda: pa.array([[[1]], [[2]]]), "list<"),
        (lambda: pa.array([b"x", b"y"]), "binary"),
        (lambda: pa.array(["x", "y"]), "string"),
        (lambda: pa.array([None, None], pa.null()), "null"),
        (lambda: pa.array([1, 2], pa.decimal128(5, 2)), "decimal128(5, 2)"),
    ],
)
def test_what_is_no_number_is_refused(column, shown, stored, refuses):
    table = pa.table({"a": [1, 2], "when": column(), "y": [0, 1]})
    with refuses(DataError, "column 'when' is '", shown, "wanted numbers, or lists of numbers for a feature", "--x"):
        stored(table)
    assert stored(table, x="a").X.tolist() == [[1], [2]]


def test_whole_numbers_too_large_for_the_floats_beside_them(stored, refuses):
    with refuses(DataError, "holds the whole number 9007199254740993 beside columns of float64", "--x"):
        stored({"id": [9007199254740993, 1], "b": [0.5, 1], "y": [0, 1]})
    with refuses(DataError, "beside columns of float64"):
        stored({"id": np.array([2**64 - 1, 1], np.uint64), "b": [-1, 1], "y": [0, 1]})
    assert stored({"id": [2**63 - 1, 1], "b": [-1, 1], "y": [0, 1]}).X.tolist() == [[2**63 - 1, -1], [1, 1]]


def test_booleans_and_the_index_of_pandas(stored):
    import json

    table = pa.table({"a": [True, False], "__index_level_0__": [7, 9], "y": [0, 1]})
    note = {"index_columns": ["__index_level_0__"], "column_indexes": [], "columns": []}
    part = stored(table.replace_schema_metadata({"pandas": json.dumps(note)}))
    assert part.X.tolist() == [[1], [0]] and part.feature_names == ("a",)


def test_files_that_cannot_be_used(tmp_path, refuses, stored):
    for name, head in (("d.parquet", b"PAR1"), ("d.feather", b"ARROW1\0\0"), ("d.arrow", b"ARROW1\0\0")):
        (tmp_path / name).write_bytes(head + RNG.bytes(3000))
        with refuses(DataError, f"{name} cannot be read", "wanted a whole file"):
            read(tmp_path / name)
    (tmp_path / "old.feather").write_bytes(b"FEA1" + bytes(100))
    with refuses(DataError, "Feather of version 1"):
        read(tmp_path / "old.feather")
    with refuses(DataError, "has no rows"):
        stored({"a": pa.array([], pa.int64()), "y": pa.array([], pa.int64())})
    with refuses(DataError, "no column 'q'; its columns are 'a', 'y'"):
        stored({"a": [1], "y": [2]}, y="q")
    with refuses(UsageError, "--header for a"):
        stored({"a": [1], "y": [2]}, header=True)


def test_without_pyarrow_it_is_one_line(tmp_path, refuses, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "d.parquet").write_bytes(b"PAR1" + bytes(100))
    with refuses(DataError, "d.parquet is a Parquet file; wanted pyarrow to read it; pip install 'gpubp[formats]'"):
        read(tmp_path / "d.parquet")
