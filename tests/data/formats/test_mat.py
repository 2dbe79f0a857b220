"""MAT files as SciPy, an independent writer, makes them; damaged ones; and what only claims to be large."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from gpubp.data.formats import recognise
from gpubp.data.formats.mat import is_version_7_3
from gpubp.errors import DataError

RNG = np.random.default_rng(8)


@pytest.fixture
def savemat():
    return pytest.importorskip("scipy.io", reason="SciPy writes the files these tests read").savemat


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_matrices_of_every_type(dtype, packed, savemat, tmp_path, read_parts):
    X = (RNG.random((30, 7)) * 120).astype(dtype)
    X[3, 2] = np.finfo(dtype).max if dtype[0] == "f" else np.iinfo(dtype).max
    for y in (np.arange(30.0).reshape(30, 1), np.arange(30.0).reshape(1, 30)):
        savemat(tmp_path / "d.mat", {"X": X, "y": y}, do_compression=packed)
        (part,) = read_parts(tmp_path / "d.mat")
        assert np.array_equal(part.X, X) and part.X.dtype.kind == X.dtype.kind
        assert part.y is not None and part.y.shape == (30,) and np.array_equal(part.y, np.arange(30))
        assert isinstance(part.X, np.memmap)


def test_splits_and_names(savemat, tmp_path, read_parts):
    data = {f"{name}{split}": RNG.normal(size=(m, k)) for split, m in (("", 9), ("val", 5), ("test", 4))
            for name, k in (("X", 3), ("y", 1))}  # fmt: skip
    savemat(tmp_path / "d.mat", {**data, "note": "text", "s": {"a": 1}})
    parts = read_parts(tmp_path / "d.mat")
    assert [part.split for part in parts] == ["train", "val", "test"]
    for part, split in zip(parts, ("", "val", "test"), strict=True):
        assert np.array_equal(part.X, data[f"X{split}"]) and np.array_equal(part.y, data[f"y{split}"][:, 0])
    (part,) = read_parts(tmp_path / "d.mat", x="Xval", y="none")
    assert np.array_equal(part.X, data["Xval"]) and part.y is None


def test_one_hot_labels_and_pictures_with_the_rows_last(savemat, tmp_path, read_parts):
    X, y = RNG.integers(0, 255, (4, 5, 3, 20)).astype("u1"), np.eye(20)[:, :3]
    savemat(tmp_path / "d.mat", {"X": X, "y": y}, do_compression=True)
    (part,) = read_parts(tmp_path / "d.mat")
    assert np.array_equal(part.X, np.moveaxis(X, -1, 0)) and np.array_equal(part.y, y)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": 1}, "'X' is a struct"),
        (np.array([[1, "a"]], object), "'X' is a cell array"),
        ("hello", "'X' is text"),
        (np.ones((2, 2)) * 1j, "'X' is complex"),
        (np.zeros((0, 3)), "'X' is empty, its shape is (0, 3)"),
    ],
)
def test_what_is_no_matrix_is_refused(value, words, savemat, tmp_path, refuses, read_parts):
    savemat(tmp_path / "d.mat", {"X": value, "y": np.ones(2)})
    with refuses(DataError, words, "wanted "):
        read_parts(tmp_path / "d.mat")


def test_sparse_is_refused(savemat, tmp_path, refuses, read_parts):
    import scipy.sparse

    savemat(tmp_path / "d.mat", {"X": scipy.sparse.eye_array(4).tocsc(), "y": np.ones(4)})
    with refuses(DataError, "'X' is a sparse matrix; wanted a full matrix"):
        read_parts(tmp_path / "d.mat")


def element(kind: int, body: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}II", kind, len(body)) + body + bytes(-len(body) % 8)


def mat(variables: dict[str, tuple[tuple[int, ...], int, bytes]], order: str = "<", packed: bool = False) -> bytes:
    """A file written here from the description of the format: name → shape, type of the values, their bytes."""
    out = b"MATLAB 5.0 MAT-file, by hand".ljust(124) + struct.pack(f"{order}HH", 0x0100, 0x4D49)
    for name, (shape, kind, values) in variables.items():
        body = element(6, struct.pack(f"{order}II", 6, 0), order)
        body += element(5, struct.pack(f"{order}{len(shape)}i", *shape), order)
        body += element(1, name.encode(), order) + element(kind, values, order)
        whole = struct.pack(f"{order}II", 14, len(body)) + body
        out += struct.pack(f"{order}II", 15, len(z := zlib.compress(whole))) + z if packed else whole
    return out


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
def test_both_byte_orders(order, packed, tmp_path, read_parts):
    X = RNG.integers(-500, 500, (6, 4)).astype(f"{order}i2")
    y = RNG.normal(size=(6, 1)).astype(f"{order}f8")
    contents = mat({"X": ((6, 4), 3, X.tobytes("F")), "y": ((6, 1), 9, y.tobytes("F"))}, order, packed)
    (tmp_path / "d.mat").write_bytes(contents)
    (part,) = read_parts(tmp_path / "d.mat")
    assert np.array_equal(part.X, X) and np.array_equal(part.y, y[:, 0])


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (mat({"X": ((6, 4), 9, bytes(192))})[:200], "ends within a variable"),
        (mat({"X": ((6, 4), 9, bytes(192))}, packed=True)[:-9], "ends within a variable"),
        (mat({"X": ((6, 4), 9, bytes(184))}), "has 184 bytes of values; wanted the 192"),
        (mat({"X": ((2**31 - 1, 2**31 - 1), 9, bytes(80))}, packed=True), "has 80 bytes of values"),
        (mat({"X": ((2, 1), 14, bytes(16))}), "values of the unknown type 14"),
        (mat({"X": ((-6, -4), 9, bytes(192))}), "of the impossible shape (-6, -4)"),
        (mat({"X" * 5000: ((6, 4), 9, bytes(192))}), "bytes for a name or the dimensions"),
        (mat({})[:128] + struct.pack("<II", 15, 40) + RNG.bytes(40), "cannot be read"),
        (mat({})[:128] + struct.pack("<II", 14, 4), "ends within a variable"),
        (b"MATLAB 4?".ljust(300), "is no MAT file of version 5"),
        (mat({}), "has no X; it holds nothing"),
    ],
)
def test_files_that_are_damaged(contents, words, tmp_path, refuses, read_parts):
    (tmp_path / "d.mat").write_bytes(contents)
    with refuses(DataError, "d.mat", words):
        read_parts(tmp_path / "d.mat", y="none")


def test_a_small_file_that_claims_a_huge_matrix(tmp_path, refuses, read_parts):
    """Its lengths agree with each other, and 4 GB would come out of zlib if it were asked on."""
    body = element(6, struct.pack("<II", 6, 0)) + element(5, struct.pack("<2i", 1 << 14, 1 << 14)) + element(1, b"X")
    whole = struct.pack("<II", 14, 1 << 31) + body + struct.pack("<II", 9, 1 << 31) + bytes(1 << 20)
    packed = zlib.compress(whole)
    (tmp_path / "d.mat").write_bytes(mat({}) + struct.pack("<II", 15, len(packed)) + packed)
    with refuses(DataError, "d.mat cannot be read: it ends within a variable"):
        read_parts(tmp_path / "d.mat", y="none")


def test_any_byte_changed_gives_a_line_or_a_matrix(tmp_path, savemat, read_parts):
    savemat(tmp_path / "d.mat", {"X": RNG.normal(size=(5, 3)), "y": np.arange(5)})
    sound = bytearray((tmp_path / "d.mat").read_bytes())
    for at in range(120, len(sound)):
        for value in (0, 0xFF, sound[at] ^ 0x80):
            broken = bytearray(sound)
            broken[at] = value
            (tmp_path / "d.mat").write_bytes(broken)
            try:
                read_parts(tmp_path / "d.mat")
            except DataError as error:
                assert "\n" not in str(error)


def test_version_7_3_is_told_apart(tmp_path):
    (tmp_path / "new.mat").write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    (tmp_path / "old.mat").write_bytes(mat({"X": ((1, 1), 9, bytes(8))}))
    assert is_version_7_3(tmp_path / "new.mat") and not is_version_7_3(tmp_path / "old.mat")
    found = recognise(tmp_path / "old.mat")
    assert found is not None and found.title == "a MAT file"
