"""HDF5 of other layouts, types and names, and MATLAB's, becomes ours with every value as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from gpubp.data import relayout
from gpubp.data.convert import convert
from gpubp.data.dataset import open_dataset
from gpubp.data.verify import verify
from gpubp.data.writing import checksums, tables
from gpubp.errors import DataError, UsageError

RNG = np.random.default_rng(9)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(checksums, "BLOCK", 900)
    monkeypatch.setattr(tables, "_PIECE", 4000)
    monkeypatch.setattr(tables, "_ACROSS", 6000)
    monkeypatch.setattr(relayout, "_PIECE", 3000)


def read(path: Path, **options: Any) -> tuple[Any, Any, Any]:
    with open_dataset(path, y_required=False, **options) as data:
        X = np.empty((data.source.m, data.source.features), data.source.dtype)
        data.source.read(0, data.source.m, X)
        return X, data.target, data.weights


STORED: list[dict[str, Any]] = [
    {},
    {"chunks": True},
    {"chunks": (1, 5)},
    {"chunks": (64, 2), "compression": "gzip", "shuffle": True, "fletcher32": True},
    {"chunks": (300, 5), "compression": "lzf"},
]


@pytest.mark.parametrize("stored", STORED, ids=str)
@pytest.mark.parametrize("dtype", [">f8", "<f2", ">i4", "u1", "?"])
def test_layouts_and_types(stored, dtype, tmp_path):
    X = (RNG.normal(size=(301, 5)) * 50).astype(dtype) if dtype != "u1" else RNG.integers(0, 255, (301, 5)).astype("u1")
    y = RNG.integers(-3, 900, 301)
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.create_dataset("data", data=X, **stored)
        file.create_dataset("labels", data=y.astype(">i8")[:, None])
        file["sample_weight"] = np.arange(301, dtype="f4")
        file["feature_names"] = [f"f{i}" for i in range(5)]
        file.attrs["licence"], file.attrs["class_names"] = "free", ["a", "é"]
    found = convert(tmp_path / "s.h5", tmp_path / "d.h5", version="1")
    assert found["format"] == "an HDF5 file" and found["parts"][0]["y_dtype"] == "int16"
    got, target, weights = read(tmp_path / "d.h5")
    assert np.array_equal(got, X) and np.array_equal(target, y) and weights.tolist() == list(range(301))
    with h5py.File(tmp_path / "d.h5") as file:
        kept = file["X"]
        assert isinstance(kept, h5py.Dataset)
        assert kept.chunks is None and kept.dtype.isnative
        assert dict(kept.attrs) == {"source_name": "data", "source_dtype": np.dtype(dtype).str}
        named: Any = file["class_names"]
        assert named.asstr()[:].tolist() == ["a", "é"] and file.attrs["licence"] == "free"
        columns: Any = file["feature_names"]
        assert columns.asstr()[:].tolist() == [f"f{i}" for i in range(5)]
    assert verify(tmp_path / "d.h5")["sound"]


def test_splits_of_keras_and_images(tmp_path):
    images = RNG.integers(0, 255, (40, 6, 4)).astype("u1")
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["x_train"], file["y_train"] = images, np.array(["cat", "dog"] * 20, dtype=h5py.string_dtype())
        file["x_test"], file["y_test"] = images[:7], np.array(["cat"] * 7, dtype="S3")
        file["valid/inputs"] = images[:3]
    found = convert(tmp_path / "k.h5", tmp_path / "d.h5", layout="archive", version="1")
    assert [one["split"] for one in found["parts"]] == ["train", "val", "test"]
    for split, rows in (("train", 40), ("val", 3), ("test", 7)):
        X, y, _ = read(tmp_path / "d.h5", split=split)
        assert np.array_equal(X, images[:rows].reshape(rows, 24))
        assert y is None if split == "val" else y.tolist() == (["cat", "dog"] * 20 if rows == 40 else ["cat"] * 7)
    with h5py.File(tmp_path / "d.h5") as file:
        names = [name for group in file.values() for name in group if not name.endswith(".crc32")]
        assert sorted(file) == ["test", "train", "val"] and sorted(names) == ["X", "X", "X", "y", "y"]


def test_names_that_are_chosen_and_what_is_missing(tmp_path, refuses):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["a"], file["b"], file["c"] = np.ones((4, 2)), np.arange(4), np.arange(4) + 1.0
        file["X"] = np.zeros((4, 3))
    with refuses(DataError, "s.h5 has no y"):
        convert(tmp_path / "s.h5", tmp_path / "d.h5", version="1")
    convert(tmp_path / "s.h5", tmp_path / "d.h5", x="a", y="b", weights="c", version="1")
    X, y, weights = read(tmp_path / "d.h5")
    assert X.tolist() == [[1, 1]] * 4 and y.tolist() == [0, 1, 2, 3] and weights.tolist() == [1, 2, 3, 4]
    with refuses(UsageError, "--no-header for an HDF5 file"):
        convert(tmp_path / "s.h5", tmp_path / "e.h5", header=False, version="1")
    with h5py.File(tmp_path / "l.h5", "w") as file:
        file["X"] = h5py.ExternalLink(str(tmp_path / "s.h5"), "/X")
    with refuses(DataError, "l.h5", "is a link into another file"):
        convert(tmp_path / "l.h5", tmp_path / "e.h5", y="none", version="1")
    assert not (tmp_path / "e.h5").exists()


def test_a_file_that_is_laid_out_so_already(tmp_path, refuses):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["X"], file["y"] = RNG.normal(size=(30, 4)), np.arange(30)
    convert(tmp_path / "s.h5", tmp_path / "d.h5", version="1")
    with refuses(UsageError, "d.h5 is laid out so already", "--force"):
        convert(tmp_path / "d.h5", tmp_path / "e.h5", version="1")
    assert not (tmp_path / "e.h5").exists()
    first = convert(tmp_path / "d.h5", tmp_path / "e.h5", force=True, version="1")
    second = convert(tmp_path / "d.h5", tmp_path / "f.h5", layout="archive", version="1")
    assert first["content"] == second["content"] == verify(tmp_path / "d.h5")["content"]
    convert(tmp_path / "f.h5", tmp_path / "g.h5", version="1")
    with h5py.File(tmp_path / "g.h5") as file:
        assert str(file.attrs["history"]).count('"source"') == 2


def matlab(path: Path, values: dict[str, Any], **stored: Any) -> Path:
    """As MATLAB's save -v7.3 writes it: everything transposed, a user block, the class as an attribute."""
    classes = {"f8": "double", "f4": "single", "b1": "logical"}
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in values.items():
            flipped = np.asarray(array).transpose()
            plain = flipped.astype("u1") if flipped.dtype == bool else flipped
            made = file.create_dataset(name, data=np.ascontiguousarray(plain), **stored)
            kind = flipped.dtype.str[1:]
            named = "double" if flipped.dtype.names else flipped.dtype.name
            made.attrs["MATLAB_class"] = np.bytes_(classes.get(kind, named))
        refs = file.create_group("#refs#")
        refs["X"] = np.zeros((2, 2))
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: today".ljust(124) + b"\x00\x02IM")
    return path


@pytest.mark.parametrize("stored", [{}, {"chunks": (1, 50)}, {"chunks": True, "compression": "gzip"}], ids=str)
@pytest.mark.parametrize("dtype", ["f8", "f4", "u1", "i2", "?"])
def test_matlab(stored, dtype, tmp_path):
    X = (RNG.normal(size=(310, 7)) * 40).astype(dtype) if dtype != "u1" else RNG.integers(0, 255, (310, 7)).astype("u1")
    y = RNG.integers(1, 11, (310, 1)).astype("f8")
    path = matlab(tmp_path / "m.mat", {"X": X, "y": y, "w": np.ones((310, 1))}, **stored)
    found = convert(path, tmp_path / "d.h5", version="1")
    assert found["format"] == "a MAT v7.3 file"
    got, target, weights = read(tmp_path / "d.h5")
    assert np.array_equal(got, X) and np.array_equal(target, y[:, 0]) and weights.tolist() == [1] * 310
    assert sorted(one.name for one in tmp_path.iterdir()) == ["d.h5", "m.mat"]
    with h5py.File(tmp_path / "d.h5") as file:
        assert file["X"].attrs["source_name"] == "X"


def test_matlab_splits_images_and_columns(tmp_path):
    images, onehot = RNG.integers(0, 255, (30, 4, 5)).astype("u1"), np.eye(3)[RNG.integers(0, 3, 30)]
    path = matlab(tmp_path / "m.mat", {"Xtrain": images, "ytrain": onehot, "Xtest": images[:4], "ytest": onehot[:4]})
    convert(path, tmp_path / "d.h5", version="1")
    for split, rows in (("train", 30), ("test", 4)):
        X, y, _ = read(tmp_path / "d.h5", split=split)
        assert np.array_equal(X, images[:rows].reshape(rows, 20)) and np.array_equal(y, onehot[:rows])
    path = matlab(tmp_path / "r.mat", {"a": images[:, 0], "b": np.arange(30.0)[None, :]})  # a row vector of labels
    convert(path, tmp_path / "r.h5", x="a", y="b", version="1")
    X, y, _ = read(tmp_path / "r.h5")
    assert np.array_equal(X, images[:, 0]) and y.tolist() == list(range(30))


def test_matlab_that_cannot_be_used(tmp_path, refuses):
    def trial(*words: str, kind: type[Exception] = DataError, **options: Any) -> None:
        with refuses(kind, "m.mat", *words):
            convert(tmp_path / "m.mat", tmp_path / "d.h5", version="1", **({"y": "none"} | options))
        assert [one.name for one in tmp_path.iterdir()] == ["m.mat"]

    matlab(tmp_path / "m.mat", {"X": np.ones((7, 310)), "y": np.ones((310, 1))})
    trial("X 'X' is 7 × 310 in MATLAB and y 'y' 310 × 1", "save it with one example a row: X = X.'", y="y")
    matlab(tmp_path / "m.mat", {"X": np.ones((3, 2), "u2")})
    with h5py.File(tmp_path / "m.mat", "r+") as file:
        file["X"].attrs["MATLAB_class"] = np.bytes_("char")
    trial("'X' is of MATLAB's class 'char'; wanted a full array of numbers")
    with h5py.File(tmp_path / "m.mat", "r+") as file:
        file["X"].attrs["MATLAB_class"] = np.bytes_("double")
        file["X"].attrs["MATLAB_empty"] = 1
    trial("'X' is empty")
    matlab(tmp_path / "m.mat", {"X/data": np.ones(5), "X/ir": np.arange(5), "X/jc": np.arange(4)})
    trial("'X' is a sparse matrix", "full(X)")
    matlab(tmp_path / "m.mat", {})
    with h5py.File(tmp_path / "m.mat", "r+") as file:
        cells = file.create_dataset("X", (2, 1), h5py.ref_dtype)
        cells[:] = file["#refs#/X"].ref
        cells.attrs["MATLAB_class"] = np.bytes_("cell")
    trial("'X' is of MATLAB's class 'cell'")
    matlab(tmp_path / "m.mat", {"z": np.ones((3, 2))})
    trial("m.mat has no X; it holds 'z'")
    matlab(tmp_path / "m.mat", {"X": np.zeros((3, 2), [("real", "f8"), ("imag", "f8")])})
    trial("'X' holds complex numbers")
