"""Fields of compound tables as rows: exact types, several records at a time, and lines to type."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from gpubp.data import tables
from gpubp.data.dataset import open_dataset, splits
from gpubp.errors import DataError

RNG = np.random.default_rng(7)
KIND = [("pt", "f4"), ("eta", ">f8"), ("n", "i2"), ("ok", "?"), ("v", "f4", (2, 2)), ("label", "i4"), ("name", "S6"),
        ("w", "f8"), ("half", "f2"), ("z", "c8")]  # fmt: skip


def jets(m: int = 50) -> np.ndarray:
    table = np.zeros(m, np.dtype(KIND, align=True))
    for name in ("pt", "eta", "v", "half"):
        table[name] = RNG.normal(size=table[name].shape)
    table["n"], table["ok"], table["label"] = np.arange(m) - 3, np.arange(m) % 2, np.arange(m) % 3
    table["name"] = np.char.encode(np.array(["ant", "bee", "é"])[table["label"]], "utf-8")
    table["w"] = 1 + np.arange(m)
    return table


@pytest.fixture(params=["contiguous", "chunked", "gzip"])
def stored(request, tmp_path: Path) -> tuple[Path, np.ndarray]:
    table = jets()
    more = {"contiguous": {}, "chunked": {"chunks": (7,)}, "gzip": {"chunks": (7,), "compression": "gzip"}}
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file.create_dataset("df/jets", data=table, **more[request.param])
    return tmp_path / "d.h5", table


def rows_of(source, start=0, stop=None):
    stop = source.m if stop is None else stop
    out = np.empty((stop - start, source.features), source.dtype)
    source.read(start, stop, out)
    return out


def test_fields_become_columns_of_the_smallest_common_type(stored, monkeypatch):
    path, table = stored
    for fields, kind in ((["pt", "half"], "f4"), (["n", "ok"], "i2"), (["pt", "eta"], "f8"), (["half"], "f2"),
                         (["n", "pt"], "f4"), (["label", "pt"], "f8"),
                         (["eta", "pt"], "f8"), (["ok"], "u1"), (["w", "half"], "f8")):  # fmt: skip
        with open_dataset(path, x=f"df/jets[{','.join(fields)}]", y="df/jets[label]", weights="df/jets[w]") as data:
            expected = np.stack([table[field].astype(kind) for field in fields], axis=1)
            assert data.source.dtype == np.dtype(kind) and data.feature_names == tuple(fields)
            assert np.array_equal(rows_of(data.source), expected)
            assert np.array_equal(data.target, table["label"]) and np.array_equal(data.weights, table["w"])
            monkeypatch.setattr(tables, "_PIECE", 3 * table.itemsize)
            assert np.array_equal(rows_of(data.source, 5, 47), expected[5:47])
            assert data.source.where(3).endswith(f"d.h5: 'df/jets[{','.join(fields)}]' row 3")


def test_a_field_of_several_numbers_is_several_columns(stored):
    path, table = stored
    with open_dataset(path, x="jets[v, pt]", y="jets[name]") as data:
        assert data.feature_names == ("v[0]", "v[1]", "v[2]", "v[3]", "pt")
        assert np.array_equal(rows_of(data.source), np.c_[table["v"].reshape(50, 4), table["pt"]])
        assert data.target is not None and data.target.tolist() == [["ant", "bee", "é"][i] for i in table["label"]]
        assert (data.x_name, data.y_name) == ("df/jets[v,pt]", "df/jets[name]")
    with open_dataset(path, x="jets[pt]", y="jets[pt,n]") as data:
        assert data.target is not None and data.target.shape == (50, 2)
    with open_dataset(path, x="jets[pt]", y="jets[ok]") as data:
        assert data.target is not None and data.target.dtype == np.bool_


def test_a_table_with_fields_that_are_no_plain_values(tmp_path):
    kind = np.dtype([("pt", "f4"), ("text", h5py.string_dtype()), ("n", "i2"), ("y", "i8")])
    table = np.zeros(20, kind)
    table["pt"], table["text"], table["n"], table["y"] = RNG.normal(size=20), "a word", np.arange(20), np.arange(20) % 2
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["jets"] = table
    with open_dataset(tmp_path / "d.h5", x="jets[n,pt]", y="jets[y]") as data:
        assert np.array_equal(rows_of(data.source, 3, 20), np.stack([table["n"], table["pt"]], 1)[3:].astype("f4"))
        assert np.array_equal(data.target, table["y"])


def test_tables_in_splits_and_names_that_really_have_brackets(tmp_path):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["train/jets"], file["test/jets"] = jets(20), jets(9)
        file["odd[1]"], file["y"] = np.ones((5, 2)), np.arange(5)
    path = tmp_path / "d.h5"
    names = {"x": "jets[pt,n]", "y": "jets[label]"}
    assert splits(path, x=names["x"]) == ("train", "test")
    with open_dataset(path, **names) as data:
        assert (data.split, data.source.m) == ("train", 20)
    with open_dataset(path, split="test", **names) as data:
        assert (data.split, data.source.m) == ("test", 9)
    with open_dataset(path, x="odd[1]", y="y") as data:
        assert data.source.features == 2


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({}, ["'df/jets' is a table of records with the numeric fields 'pt', 'eta', 'n', 'ok', 'v', 'label'",
              "say --x 'df/jets[pt,eta,n,ok,v,half]' --y 'df/jets[label]' --weights 'df/jets[w]'"]),
        ({"x": "df/jets"}, ["wanted fields for X and y", "--y 'df/jets[label]'"]),
        ({"x": "jets"}, ["wanted fields for X and y"]),
        ({"x": "jets", "y": "jets[label]"}, ["--x 'df/jets[pt,eta"]),
        ({"x": "jets[pt]"}, ["wanted a field for y", "say --x 'df/jets[pt]' --y 'df/jets[label]'"]),
        ({"x": "jets[pt,mass]", "y": "jets[label]"}, ["has no field 'mass'; it has 'pt', 'eta'"]),
        ({"x": "jets[pt,pt]", "y": "jets[label]"}, ["a field is named twice"]),
        ({"x": "jets[pt,name]", "y": "jets[label]"}, ["field 'name' holds text"]),
        ({"x": "jets[z]", "y": "jets[label]"}, ["field 'z' holds complex numbers"]),
        ({"x": "jets[pt]", "y": "jets[name,label]"}, ["field 'name' holds text"]),
        ({"x": "jets[pt]", "y": "jets[label]", "weights": "jets[v]"}, ["no single number in a row"]),
        ({"x": "jets[pt]", "y": "jets[label]", "weights": "jets[name]"}, ["no single number in a row"]),
        ({"x": "nets[pt]", "y": "jets[label]"}, ["has no dataset 'nets'"]),
    ],
)  # fmt: skip
def test_what_to_type_is_said(names, words, tmp_path, refuses):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["df/jets"] = jets()
    with refuses(DataError, "d.h5", *words):
        open_dataset(tmp_path / "d.h5", **names)


def test_a_plain_dataset_has_no_fields(h5, refuses):
    with refuses(DataError, "'X' has no fields"):
        open_dataset(h5({"X": np.ones((3, 2)), "y": np.arange(3)}), x="X[pt]")
    nested = np.zeros(4, [("p", [("x", "f4")]), ("y", "i4")])
    with refuses(DataError, "field 'p' holds a compound type"):
        open_dataset(h5({"t": nested}), x="t[p]", y="t[y]")
    grid = np.zeros((4, 2), [("a", "f4"), ("y", "i4")])
    with refuses(DataError, "has the shape (4, 2)", "one record for each row"):
        open_dataset(h5({"t": grid}), x="t[a]", y="t[y]")


def test_pandas_tables_are_read(tmp_path):
    """As `DataFrame.to_hdf(…, format="table")` lays them out: an index, and blocks of columns of one type."""
    table = np.zeros(10, [("index", "i8"), ("values_block_0", "f8", (3,)), ("values_block_1", "i8", (1,))])
    table["index"], table["values_block_0"] = np.arange(10), RNG.normal(size=(10, 3))
    table["values_block_1"] = np.arange(10)[:, None] % 2
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file.create_dataset("df/table", data=table, chunks=(4,), maxshape=(None,))
    with open_dataset(tmp_path / "d.h5", x="df/table[values_block_0]", y="df/table[values_block_1]") as data:
        assert np.array_equal(rows_of(data.source), table["values_block_0"])
        assert data.target is not None and data.target.shape == (10,)
