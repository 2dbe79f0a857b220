"""Θ out of files of every kind, and files that are none, lie about themselves or hold something else."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import gpubp
from gpubp.errors import DataError
from gpubp.explain import rows
from gpubp.network import Network
from gpubp.theta_files import conventions, read, stores

RNG = np.random.default_rng(1)
SIZES = (16, 5, 3)
THETA = [RNG.normal(size=(5, 17)), RNG.normal(size=(3, 6))]
NAMED = {"Theta1": THETA[0], "Theta2": THETA[1]}


def npz(path: Path) -> None:
    with open(path, "wb") as file:  # by its name NumPy would give it another
        np.savez_compressed(file, **NAMED, rest=np.ones(3))


def version_5(path: Path, packed: bool = False) -> None:
    savemat = pytest.importorskip("scipy.io", reason="SciPy writes the files these tests read").savemat
    savemat(path, {**NAMED, "note": "hello"}, do_compression=packed)


def version_7_3(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, Theta in NAMED.items():
            file.create_dataset(name, data=Theta.T, compression="gzip").attrs["MATLAB_class"] = np.bytes_("double")
        file["#refs#/Theta1"] = np.zeros((2, 2))
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: today".ljust(124) + b"\x00\x02IM")


def hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["model/Theta/theta_1"], file["model/Theta/theta_2"], file["X"] = *THETA, np.ones((2, 2))


def lists(path: Path) -> None:
    path.write_text(json.dumps({"Theta": [Theta.tolist() for Theta in THETA], "about": "x"}))


def named(path: Path) -> None:
    path.write_text(json.dumps({name: Theta.tolist() for name, Theta in NAMED.items()}))


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.npz": npz, "b.mat": version_5, "c.mat": lambda path: version_5(path, True), "d.mat": version_7_3,
    "e.h5": hdf5, "f.hdf5": hdf5, "g.json": lists, "h.json": named, "named.wrongly": npz,
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_explanation(name, tmp_path):
    WRITERS[name](tmp_path / name)
    found = read(tmp_path / name).Theta
    assert [one.shape for one in found] == [(5, 17), (3, 6)]
    network = Network(SIZES, "sigmoid", "logistic")
    x, y = np.linspace(-1, 1, 16), np.array([2.0])
    e, exact = (rows.bare(network, network.pack(Theta), x, y) for Theta in (found, THETA))
    assert e.C == exact.C
    np.testing.assert_array_equal(e.delta[2], exact.delta[2])
    assert all(one.dtype == np.float64 and one.flags.writeable for one in found)


def test_a_checkpoint_is_such_a_file(tmp_path):
    model = gpubp.train(RNG.normal(size=(30, 4)), np.arange(30) % 3, hidden=(5,), iterations=2, out=tmp_path / "run",
                        backend="cpu", kernel="numpy")  # fmt: skip
    newest = sorted((tmp_path / "run").glob("checkpoint-*.h5"))[-1]
    for one, other in zip(read(newest).Theta, model.matrices, strict=True):
        np.testing.assert_array_equal(one, other)


def test_numbers_of_every_type_are_taken(tmp_path):
    np.savez(tmp_path / "i.npz", Theta1=np.arange(6, dtype=np.int8).reshape(2, 3))
    np.savez(tmp_path / "f.npz", Theta1=np.asfortranarray(THETA[0].astype(np.float32)))
    assert read(tmp_path / "i.npz").Theta[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    np.testing.assert_array_equal(read(tmp_path / "f.npz").Theta[0], THETA[0].astype(np.float32))


def wrong(path: Path, **arrays: object) -> Path:
    np.savez(path / "wrong.npz", **arrays)  # type: ignore[arg-type]
    return path / "wrong.npz"


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"W": THETA[0]}, r"has no Theta1, Theta2, …; it holds 'W'"),
        ({"Theta2": THETA[1]}, "has Theta2 and no Theta1"),
        ({"Theta1": THETA[0], "Theta3": THETA[1]}, "has Theta3 and no Theta2"),
        ({"Theta1": THETA[0], "Theta2": np.ones((3, 5))}, r"Theta2 of shape \(3, 5\) after Theta1 .*wanted 6 columns"),
        ({"Theta1": THETA[0].T, "Theta2": THETA[1].T}, "transpose them all"),
        ({"Theta1": np.ones(4)}, r"'Theta1' is of shape \(4,\)"),
        ({"Theta1": np.ones((4, 1))}, r"Theta1 of shape \(4, 1\)"),
        ({"Theta1": np.ones((0, 3))}, "'Theta1' is empty"),
        ({"Theta1": np.full((2, 3), np.nan)}, "'Theta1' holds numbers that are not finite"),
        ({"Theta1": np.array([["1", "2"]])}, "'Theta1' is of shape .* type <U1"),
        ({"Theta1": np.ones((2, 3), complex)}, "type complex128"),
        ({"Theta1": np.array([[1, None]], object)}, "holds Python objects"),
        ({"a/Theta1": THETA[0], "b/Theta1": THETA[0]}, "in 'a', 'b'; wanted one group"),
    ],
)
def test_matrices_that_are_none(arrays, words, tmp_path):
    with pytest.raises(DataError, match=words):
        read(wrong(tmp_path, **arrays))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"), (b"hello", "no file of matrices"), (b"{", "is no JSON"), (b'{"Theta": 3}', "no Theta1"),
        (b"{}", "it is empty"), (b'{"Theta": [[[1, 2], [3]]]}', "rows of different lengths"),
        (b'{"Theta": [[["a", "b"]]]}', "type <U1"), (b'{"Theta": [[[1, NaN]]]}', "not finite"),
        (b'{"Theta1": {"a": 1}}', r"of shape \(\)"), (b'{"Theta1": [[1, 1e999]]}', "not finite"),
        (b'{"Theta1": ' + b"[" * 100_000, "is no JSON"), (b"PK\x03\x04 and no archive", "cannot be read"),
        (b"\x89HDF\r\n\x1a\n and no more", "damaged|cannot"), (b'{"Theta1": [[1' + b"0" * 400 + b", 2]]}", "Theta1"),
    ],
)  # fmt: skip
def test_files_that_hold_something_else(content, words, tmp_path):
    path = tmp_path / "file.x"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        read(path)
    with pytest.raises(DataError, match="No such file"):
        read(tmp_path / "nothing.npz")
    with pytest.raises(DataError, match="is a folder"):
        read(tmp_path)


def test_what_claims_to_be_large_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(conventions, "_MOST", 60)
    for name in ("a.npz", "b.mat", "d.mat", "e.h5"):
        WRITERS[name](tmp_path / name)
        with pytest.raises(DataError, match="wanted 60 at most"):
            read(tmp_path / name)
    monkeypatch.setattr(stores, "_JSON", 100)
    lists(tmp_path / "g.json")
    with pytest.raises(DataError, match="more than 100 bytes"):
        read(tmp_path / "g.json")


def test_an_archive_that_is_cut_short_or_packed_otherwise(tmp_path):
    npz(tmp_path / "a.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-300])
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "cut.npz")
    np.save(tmp_path / "t.npy", THETA[0])
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.write(tmp_path / "t.npy", "Theta1.npy")
    with pytest.raises(DataError, match="a way NumPy does not use"):
        read(tmp_path / "b.npz")


def test_values_that_lie_elsewhere_are_not_followed(tmp_path):
    hdf5(tmp_path / "secret.h5")
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["Theta1"] = h5py.ExternalLink("secret.h5", "model/Theta/theta_1")
    with pytest.raises(DataError, match="Theta1"):
        read(tmp_path / "link.h5")
