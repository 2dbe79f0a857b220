"""Every format comes out bit for bit in value, in the smallest exact type."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from gpubp.data.convert import convert
from gpubp.data.dataset import open_dataset
from gpubp.data.formats import Request
from gpubp.data.writing.narrow import smallest_exact
from gpubp.errors import DataError, UsageError

RNG = np.random.default_rng(6)
packed = partial(gzip.compress, mtime=0)  # the time in it would be in the names of the tests
CODES = {"u1": 8, "i1": 9, ">i2": 11, ">i4": 12, ">f4": 13, ">f8": 14}


def idx_bytes(array: np.ndarray, dtype: str) -> bytes:
    head = bytes([0, 0, CODES[dtype], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(dtype).tobytes()


def read(path, **options) -> tuple[Any, Any]:
    with open_dataset(path, y_required=False, **options) as data:
        X = np.empty((data.source.m, data.source.features), data.source.dtype)
        data.source.read(0, data.source.m, X)
        return X, data.target


def only(folder: Path, *names: str) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


@pytest.mark.parametrize("dtype", list(CODES))
@pytest.mark.parametrize("packed", [False, True])
def test_idx_with_the_labels_beside_it(dtype, packed, tmp_path):
    images = RNG.integers(0, 120, (30, 4, 5)).astype(dtype)
    labels = RNG.integers(0, 10, 30)
    end = ".gz" if packed else ""
    wrap = gzip.compress if packed else bytes
    (tmp_path / f"t-images-idx3-ubyte{end}").write_bytes(wrap(idx_bytes(images, dtype)))
    (tmp_path / "t-labels-idx1-ubyte").write_bytes(idx_bytes(labels, "u1"))
    found = convert(tmp_path / f"t-images-idx3-ubyte{end}", tmp_path / "d.h5", version="1")
    X, y = read(tmp_path / "d.h5")
    assert np.array_equal(X, images.reshape(30, 20)) and np.array_equal(y, labels)
    assert X.dtype == ("u1" if dtype == "u1" else "f4" if "f" in dtype else "i1")
    assert found["parts"] == [
        {"split": None, "rows": 30, "features": 20, "x_dtype": str(X.dtype), "y_shape": [30], "y_dtype": "uint8"}
    ]
    assert json.loads(json.dumps(found)) == found


def test_idx_labels_elsewhere_or_none(tmp_path, refuses):
    images = RNG.integers(0, 255, (6, 3)).astype("u1")
    path = tmp_path / "pictures.idx"
    path.write_bytes(idx_bytes(images, "u1"))
    with refuses(DataError, "pictures.idx does not say by its name", "--labels FILE"):
        convert(path, tmp_path / "d.h5", version="1")
    (tmp_path / "labels.txt").write_text("a\nb\na\nb\na\nb\n")
    convert(path, tmp_path / "d.h5", labels=tmp_path / "labels.txt", version="1")
    assert read(tmp_path / "d.h5")[1].tolist() == list("ababab")
    convert(path, tmp_path / "e.h5", y="none", version="1")
    assert read(tmp_path / "e.h5")[1] is None
    (tmp_path / "labels").write_bytes(idx_bytes(np.arange(5), "u1"))
    with refuses(DataError, "X has 6 rows and y has the shape (5,)"):
        convert(path, tmp_path / "f.h5", labels=tmp_path / "labels", version="1")
    with refuses(DataError, "holds labels (5 values)"):
        convert(tmp_path / "labels", tmp_path / "f.h5", version="1")


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (bytes([0, 0, 8, 2, 0, 0, 0, 3]), "ends within its header"),
        (bytes([0, 0, 8, 2]) + struct.pack(">II", 3, 2) + bytes(5), "has 5 bytes of values; wanted the 6"),
        (bytes([0, 0, 8, 2]) + struct.pack(">II", 3, 2) + bytes(7), "has more bytes of values; wanted the 6"),
        (packed(bytes([0, 0, 8, 2]) + struct.pack(">II", 3, 2) + bytes(7)), "has more bytes of values"),
        (packed(bytes([0, 0, 8, 2]) + struct.pack(">II", 3, 2) + bytes(5)), "has 5 bytes of values"),
        (packed(bytes([0, 0, 8, 2]) + struct.pack(">II", 1 << 31, 1 << 31) + bytes(5)), "that are free in"),
        (packed(bytes([0, 0, 8, 2]) + struct.pack(">II", 300, 200) + RNG.bytes(60000))[:-900], "cannot be read"),
        (bytes([0, 0, 8, 2]) + struct.pack(">II", 0, 2), "is empty, its shape is (0, 2)"),
        (b"nonsense", "begins with 6e 6f 6e 73"),
    ],
)
def test_idx_that_is_damaged(contents, words, tmp_path, refuses):
    (tmp_path / "t-images-idx2-ubyte").write_bytes(contents)
    with refuses(DataError, "t-images-idx2-ubyte", words):
        convert(tmp_path / "t-images-idx2-ubyte", tmp_path / "d.h5", y="none", version="1")
    only(tmp_path, "t-images-idx2-ubyte")


@pytest.mark.parametrize(
    ("stored", "kept"),
    [
        (np.array([[0, 127]], "i8"), "i1"), (np.array([[0, 255]], "i8"), "u1"), (np.array([[-1, 255]], "i4"), "i2"),
        (np.array([[0, 65535]], "u4"), "u2"), (np.array([[-(2**40), 0]]), "i8"), (np.array([[2**64 - 1]], "u8"), "u8"),
        (np.array([[3]], "u1"), "u1"), (np.array([[True]]), "?"), (np.array([[0.5, np.nan, np.inf]]), "f4"),
        (np.array([[0.1]]), "f8"), (np.array([[1e300]]), "f8"), (np.array([[0.1]], "f4"), "f4"),
        (np.array([[0.5]], "f2"), "f2"), (np.array([[1e-46]]), "f8"), (np.array([[1.0]], ">f8"), "f4"),
    ],
)  # fmt: skip
def test_the_smallest_exact_type(stored, kept):
    found = smallest_exact(stored)
    assert found == np.dtype(kept) and found.isnative
    assert np.array_equal(stored.astype(found), stored, equal_nan=stored.dtype.kind == "f")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["u1", "i8", "f2", "f4", "f8", ">f8", "?"])
def test_npy(dtype, order, tmp_path, monkeypatch):
    monkeypatch.setattr("gpubp.data.writing.tables._PIECE", 1000)
    monkeypatch.setattr("gpubp.data.writing.checksums.BLOCK", 300)
    X = np.asarray((RNG.random((97, 5)) * 2 * np.pi).astype(dtype), order=order)
    y = RNG.normal(size=(97, 2))
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    seen = []
    convert(
        tmp_path / "X.npy", tmp_path / "d.h5", labels=tmp_path / "y.npy", version="1",
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    found, target = read(tmp_path / "d.h5")
    assert np.array_equal(found, X) and np.array_equal(target, y)
    assert seen[-1] == (97, 97) and seen == sorted(seen)


def test_npy_that_cannot_be_used(tmp_path, refuses):
    np.save(tmp_path / "X.npy", np.ones((4, 2)))
    with refuses(DataError, "X.npy holds X alone", "--labels FILE"):
        convert(tmp_path / "X.npy", tmp_path / "d.h5", version="1")
    np.save(tmp_path / "o.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    with refuses(DataError, "o.npy holds Python objects"):
        convert(tmp_path / "o.npy", tmp_path / "d.h5", y="none", version="1")
    np.save(tmp_path / "v.npy", np.ones(4))
    with refuses(DataError, "v.npy: X has the shape (4,)"):
        convert(tmp_path / "v.npy", tmp_path / "d.h5", y="none", version="1")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "X.npy").read_bytes()[:-8])
    with refuses(DataError, "cut.npy has 56 bytes of values; wanted the 64"):
        convert(tmp_path / "cut.npy", tmp_path / "d.h5", y="none", version="1")
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': import}")
    with refuses(DataError, "bad.npy is no NPY file"):
        convert(tmp_path / "bad.npy", tmp_path / "d.h5", y="none", version="1")
    np.save(tmp_path / "c.npy", np.ones((4, 2), complex))
    with refuses(DataError, "complex numbers"):
        convert(tmp_path / "c.npy", tmp_path / "d.h5", y="none", version="1")
    assert not (tmp_path / "d.h5").exists()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_with_splits(save, tmp_path):
    data = {f"{name}_{split}": RNG.integers(0, 3, shape)
            for split, m in (("train", 20), ("test", 7)) for name, shape in (("x", (m, 2, 3)), ("y", m))}  # fmt: skip
    save(tmp_path / "d.npz", **data)
    found = convert(tmp_path / "d.npz", tmp_path / "d.h5", version="1")
    assert [part["split"] for part in found["parts"]] == ["train", "test"]
    for split in ("train", "test"):
        X, y = read(tmp_path / "d.h5", split=split)
        assert np.array_equal(X, data[f"x_{split}"].reshape(-1, 6)) and np.array_equal(y, data[f"y_{split}"])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("a.npy", {"weights": "w"}, "--weights for an NPY file; wanted --labels"),
        ("a.npy", {"x": "a"}, "--x for an NPY file"),
        ("a.npy", {"header": False}, "--no-header for an NPY file; wanted --labels"),
        ("a.npy", {"y": "b"}, "--y for an NPY file"),
    ],
)
def test_what_a_format_does_not_heed_is_refused(name, options, words, tmp_path, refuses):
    np.save(tmp_path / "a.npy", np.ones((3, 2)))
    with refuses(UsageError, words):
        convert(tmp_path / name, tmp_path / "d.h5", version="1", **options)
    assert not (tmp_path / "d.h5").exists()


def test_a_format_that_heeds_no_option_says_a_whole_sentence(tmp_path, refuses):
    for options, words in (({"x": "a"}, "--x"), ({"header": False}, "--no-header"), ({"allow": "d"}, "--allow")):
        with refuses(UsageError, f"{words} for a rowz file; wanted no such option"):
            Request(tmp_path, **options).refuse_but((), "a rowz file")
    Request(tmp_path, y="none", missing=True).refuse_but((), "a rowz file")


def test_a_nan_of_an_array_is_passed_on_and_that_of_a_text_refused(tmp_path, refuses):
    """An array means it, and training refuses it; in a text a cell may have been forgotten."""
    X = np.array([[1.0, np.nan], [3.0, 4.0]])
    np.save(tmp_path / "a.npy", X)
    (tmp_path / "a.csv").write_text("1,nan\n3,4\n")
    convert(tmp_path / "a.npy", tmp_path / "a.h5", y="none", version="1")
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["X"], X)  # pyright: ignore
    with refuses(DataError, "a.csv line 1, column 1 is 'nan'; wanted a number in every cell"):
        convert(tmp_path / "a.csv", tmp_path / "b.h5", y="none", version="1")


def test_npz_names(tmp_path, refuses):
    np.savez(tmp_path / "d.npz", a=np.ones((3, 2)), b=np.arange(3), w=np.ones(3), c=RNG.random((2, 3)).T)
    with refuses(DataError, "d.npz has no X; it holds 'a', 'b', 'c', 'w'"):
        convert(tmp_path / "d.npz", tmp_path / "d.h5", version="1")
    convert(tmp_path / "d.npz", tmp_path / "d.h5", x="c", y="b", version="1")
    with np.load(tmp_path / "d.npz") as stored:
        assert np.array_equal(read(tmp_path / "d.h5")[0], stored["c"])
    with h5py.File(tmp_path / "d.h5") as file:
        assert sorted(name for name in file if not name.endswith(".crc32")) == ["X", "weights", "y"]
    (tmp_path / "z.npz").write_bytes(b"PK\x03\x04" + bytes(100))
    with refuses(DataError, "z.npz cannot be read"):
        convert(tmp_path / "z.npz", tmp_path / "e.h5", version="1")
    with zipfile.ZipFile(tmp_path / "p.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (3, 2)})
        archive.writestr("X.npy", head.getvalue() + bytes(50_000_000))
    with refuses(DataError, "p.npz: 'X' has more bytes of values; wanted the 48"):
        convert(tmp_path / "p.npz", tmp_path / "e.h5", y="none", version="1")


def csv(tmp_path, text, name="t.csv", **options):
    (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    convert(tmp_path / name, tmp_path / "t.h5", overwrite=True, version="1", **options)
    return read(tmp_path / "t.h5")


def names_of(tmp_path):
    with open_dataset(tmp_path / "t.h5", y_required=False) as data:
        return data.feature_names


@pytest.mark.parametrize(
    ("text", "options", "X", "y", "names"),
    [
        ("a,b,c\n1,2,0\n3,4,1\n", {}, [[1, 2], [3, 4]], [0, 1], ("a", "b")),
        ("1,2,0\n3,4,1", {}, [[1, 2], [3, 4]], [0, 1], None),
        ("1,2,cat\n3,4,dog\n", {}, [[1, 2], [3, 4]], ["cat", "dog"], None),
        (",a,label\n0,1,7\n1,2,8\n", {}, [[0, 1], [1, 2]], [7, 8], ("", "a")),
        ("2019,b,c\n1,2,7\n3,4,8\n", {"header": True}, [[1, 2], [3, 4]], [7, 8], ("2019", "b")),
        ("0,1,label\n1,2,7\n3,4,8\n", {}, [[1, 2], [3, 4]], [7, 8], ("0", "1")),
        ("label,p,q\n5,1,2\n6,3,4\n", {}, [[1, 2], [3, 4]], [5, 6], ("p", "q")),
        ("p,kind,q\n1,x,2\n3,y,4\n", {"y": "kind"}, [[1, 2], [3, 4]], ["x", "y"], ("p", "q")),
        ("p,kind,q\n1,x,2\n3,y,4\n", {"y": "1"}, [[1, 2], [3, 4]], ["x", "y"], ("p", "q")),
        ("9,1,2\n8,3,4\n", {"y": "0"}, [[1, 2], [3, 4]], [9, 8], None),
        ("9,1,2\n8,3,4\n", {"y": "-3"}, [[1, 2], [3, 4]], [9, 8], None),
        ("1,2\n3,4\n", {"y": "none"}, [[1, 2], [3, 4]], None, None),
        ("1,2\n3,4\n5,6\n", {"header": True}, [[3], [5]], [4, 6], ("1",)),
        ("# a comment\n\n1.5;2;0\n\n-3e2;4;1\n", {}, [[1.5, 2], [-300, 4]], [0, 1], None),
        ("1\t2\t0.5\r\n3\t4\t-1.5\r\n", {}, [[1, 2], [3, 4]], [0.5, -1.5], None),
        ("  1 2   7\n 3  4 8\n", {}, [[1, 2], [3, 4]], [7, 8], None),
        ('"x, 1",b,c\n1,"2",0\n"3",4,"1"\n', {}, [[1, 2], [3, 4]], [0, 1], ("x, 1", "b")),
        ('1,2,"a, b"\n3,4, c \n', {}, [[1, 2], [3, 4]], ["a, b", "c"], None),
        ("\ufeffa,b\n1,2\n3,4\n", {}, [[1], [3]], [2, 4], ("a",)),
        ("1,2,é\n3,4,ü\n", {}, [[1, 2], [3, 4]], ["é", "ü"], None),
        ("1,2,1\n3,4,2.5\n", {}, [[1, 2], [3, 4]], [1.0, 2.5], None),
        ("1,2,01\n3,4,x\n", {}, [[1, 2], [3, 4]], ["01", "x"], None),
        ("1,-inf,1\n3,inf,2\n", {}, [[1, -np.inf], [3, np.inf]], [1, 2], None),
        ("9007199254740993,1\n1,2\n", {}, [[9007199254740993], [1]], [1, 2], None),
        ("1e20,1\n1,2\n", {}, [[1e20], [1]], [1, 2], None),
    ],
)
def test_csv(text, options, X, y, names, tmp_path):
    found, target = csv(tmp_path, text, **options)
    assert np.array_equal(found, np.array(X), equal_nan=True)
    assert target is None if y is None else target.tolist() == y
    assert names_of(tmp_path) == names
    only(tmp_path, "t.csv", "t.h5")


@pytest.mark.parametrize("name", ["t.csv.gz", "t.txt", "t.tsv", "noname"])
def test_csv_under_other_names(name, tmp_path):
    text = b"1\t2\n3\t4\n"
    X, y = csv(tmp_path, gzip.compress(text, mtime=0) if name.endswith("gz") else text, name)
    assert X.tolist() == [[1], [3]] and y.tolist() == [2, 4]


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("a,b,c\n1,2,0\n3,4\n", {}, "t.csv line 3 has 2 columns; wanted 3"),
        ("1,2,0\n3,4,5,6\n", {}, "line 2 has 4 columns; wanted 3"),
        ('1,2,0\n3,"4,\n5",6\n', {}, "line 2 holds a quotation mark without its pair"),
        ('1,2,"x\n3,4,y"\n', {}, "line 1 holds a quotation mark without its pair"),
        ("a,b,c\n1,2,0\nx,4,1\n", {}, "line 3, column 0 ('a') is 'x'; wanted a number"),
        ("a,b,c\n1,2,0\n\n3,,1\n", {}, "line 4, column 1 ('b') is empty"),
        ("1,2,0\n3,4,\n", {}, "line 2, column 2 is empty"),
        ("1,2,a\n3,4,\n", {}, "line 2, column 2 is empty"),
        ("1,2,0\n1_0,4,1\n", {}, "line 2, column 0 is '1_0'"),
        ("1,2,0\n3,4,1\n", {"y": "kind"}, "no column 'kind'; it has 3 columns without names"),
        ("a,b,c\n3,4,1\n", {"y": "kind"}, "no column 'kind'; its columns are 'a', 'b', 'c'"),
        ("1,2,0\n3,4,1\n", {"y": "3"}, "no column '3'"),
        ("1,,0\n3,4,1\n", {}, "line 1, column 1 is empty"),
        ("1,N/A,0\n3,4,1\n", {}, "line 1, column 1 is 'N/A'; wanted a number in every cell; fill it in"),
        ("a,2,c\n3,4,1\n", {}, "--header if these are names"),
        ("a,b,c\n", {}, "no line of data below its header"),
        ("# nothing\n\n", {}, "holds no line of data"),
        ("1\n2\n", {}, "t.csv has one column"),
        (b"1,2\n3,\xff\n", {}, "is not UTF-8"),
        (packed(b"1,2\n" * 9000)[:-20], {}, "cannot be read"),
        ("1,2\n3,4\x00\n", {}, "t.csv line 2 holds a zero byte"),
        ("a,b\n1,2\n1e400,4\n", {}, "line 3, column 0 ('a') is '1e400'; wanted a number that float64 holds"),
        ("1,2\n3,-1e999\n", {}, "line 2, column 1 is '-1e999'"),
        ("1,2\n,5\n9e999,4\n", {"missing": True}, "line 3, column 0 is '9e999'"),
    ],
)
def test_csv_that_cannot_be_used(text, options, words, tmp_path, refuses):
    with refuses(DataError, "t.csv", words):
        csv(tmp_path, text, **options)
    only(tmp_path, "t.csv")


def test_csv_larger_than_a_chunk_and_wider_late(tmp_path, monkeypatch):
    """A point, then a text label, turn up after many chunks of whole numbers."""
    monkeypatch.setattr("gpubp.data.formats._blocks.BLOCK", 500)
    X = RNG.integers(-50, 50, (3000, 4)).astype(float)
    X[2500, 2] = 0.25
    labels = [str(i % 3) for i in range(3000)]
    labels[2900] = "other"
    text = "".join(",".join([*(f"{v:g}" for v in row), label]) + "\n" for row, label in zip(X, labels, strict=True))
    found, target = csv(tmp_path, text)
    assert np.array_equal(found, X) and found.dtype == np.float32
    assert target.tolist() == labels
    with pytest.raises(DataError, match="line 2001, column 3 is 'oops'"):
        csv(tmp_path, text.replace("\n", "\noops,", 0).replace(",".join([f"{v:g}" for v in X[2000]]), "1,1,1,oops", 1))


def test_random_floats_survive_text_bit_for_bit(tmp_path):
    X = RNG.normal(size=(200, 7)) * 10.0 ** RNG.integers(-300, 300, (200, 7))
    text = "".join(",".join(map(repr, row)) + "\n" for row in X.tolist())
    found, _ = csv(tmp_path, text, y="none")
    assert found.dtype == np.float64 and np.array_equal(found, X)


def test_labels_of_a_table_from_a_file_of_their_own(tmp_path, refuses):
    np.save(tmp_path / "l.npy", np.array([4, 5]))
    X, y = csv(tmp_path, "1,2\n3,4\n", labels=tmp_path / "l.npy")
    assert X.tolist() == [[1, 2], [3, 4]] and y.tolist() == [4, 5]
    (tmp_path / "two.csv").write_text("1,2\n3,4\n")
    with refuses(DataError, "two.csv has 2 columns", "one label on each line"):
        csv(tmp_path, "1,2\n3,4\n", labels=tmp_path / "two.csv")
    (tmp_path / "l.bin").write_bytes(bytes(range(1, 100)))
    with refuses(DataError, "l.bin is no file of labels"):
        csv(tmp_path, "1,2\n3,4\n", labels=tmp_path / "l.bin")
    with refuses(DataError, "gone.npy: No such file"):
        csv(tmp_path, "1,2\n3,4\n", labels=tmp_path / "gone.npy")
