"""A file as training sees it; and every file that is refused, with its line."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from gpubp.data.dataset import check_weights, open_dataset, splits
from gpubp.data.hdf5 import survey
from gpubp.errors import DataError

RNG = np.random.default_rng(1)
X = RNG.normal(size=(12, 3)).astype("f4")
Y = np.arange(12) % 3 + 1


def opened(path, **options):
    with open_dataset(path, **options) as data:
        rows = np.empty((data.source.m, data.source.features), data.source.dtype)
        data.source.read(0, data.source.m, rows)
        return data, rows


def test_the_plain_case(h5):
    data, rows = opened(h5({"X": X, "y": Y}))
    assert np.array_equal(rows, X) and rows.dtype == np.float32
    assert data.target is not None and np.array_equal(data.target, Y) and data.target.dtype == Y.dtype
    assert (data.x_name, data.y_name, data.weights, data.split, data.feature_names) == ("X", "y", None, None, None)


def test_splits_weights_and_feature_names(h5):
    path = h5({"train/X": X, "train/y": Y, "train/w": np.arange(12), "test/X": X[:5], "test/y": Y[:5],
               "train/feature_names": np.array([b"a", b"b", b"c"])})  # fmt: skip
    assert splits(path) == ("train", "test")
    data, _ = opened(path)
    assert data.split == "train" and data.feature_names == ("a", "b", "c")
    assert data.weights is not None and data.weights.dtype == np.float64 and data.weights[11] == 11
    data, rows = opened(path, split="test")
    assert data.split == "test" and len(rows) == 5 and data.weights is None and data.feature_names is None
    data, _ = opened(path, weights="none")
    assert data.weights is None
    data, _ = opened(path, x="/test/X", y="test/y")
    assert data.split == "test"
    assert splits(path, x="/test/X") == ()


def test_feature_names_as_attributes(h5):
    path = h5({"X": X, "y": Y})
    with h5py.File(path, "a") as file:
        file.attrs["feature_names"] = ["p", "q", "r"]
    assert opened(path)[0].feature_names == ("p", "q", "r")
    with h5py.File(path, "a") as file:
        file["X"].attrs["feature_names"] = ["too", "few"]
    assert opened(path)[0].feature_names is None


@pytest.mark.parametrize(
    ("stored", "kind", "shape"),
    [
        (Y.astype(">i4"), "i", (12,)),
        (Y.reshape(12, 1), "i", (12,)),
        (Y > 1, "b", (12,)),
        (RNG.normal(size=(12, 2)).astype(">f8"), "f", (12, 2)),
        (np.array(["no", "ja", "é"] * 4, dtype=object), "U", (12,)),
        (np.array([b"no", b"maybe"] * 6), "U", (12,)),
        (np.array([b"no", b"maybe"] * 6).reshape(12, 1), "U", (12,)),
    ],
)
def test_y_comes_as_the_user_has_it(stored, kind, shape, tmp_path):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["X"] = X
        file.create_dataset("y", data=stored, dtype=h5py.string_dtype() if stored.dtype == object else None)
    target = opened(tmp_path / "d.h5")[0].target
    assert target is not None and (target.dtype.kind, target.shape) == (kind, shape) and target.dtype.isnative
    expected = stored.astype(str) if stored.dtype.kind == "S" else stored
    assert (target == expected.reshape(shape)).all()


def test_without_y(h5):
    path = h5({"X": X})
    assert opened(path, y_required=False)[0].target is None


def test_images_are_rows(h5):
    images = RNG.integers(0, 255, (12, 4, 5)).astype("u1")
    _, rows = opened(h5({"images": images, "labels": Y}))
    assert np.array_equal(rows, images.reshape(12, 20))


@pytest.mark.parametrize(
    ("datasets", "options", "words"),
    [
        ({"X": X}, {}, ["has no y; it holds 'X'", "--y NAME"]),
        ({"a/b": X}, {}, ["has no X; it holds 'a/b'", "--x NAME"]),
        ({"X": X, "y": Y[:9]}, {}, ["X 'X' has 12 rows and y 'y' has 9", "one y for every row"]),
        ({"X": X.T, "y": Y}, {}, ["X 'X' has 3 rows and y 'y' has 12", "transposed"]),
        ({"X": X, "y": Y.reshape(1, 12)}, {}, ["y 'y' has 1", "transposed"]),
        ({"X": X[:, 0], "y": Y}, {}, ["'X' has the shape (12,)", "(12, 1)"]),
        ({"X": X[:0], "y": Y[:0]}, {}, ["'X' is empty, its shape is (0, 3)"]),
        ({"X": X, "y": np.zeros((12, 0))}, {}, ["y 'y' is empty"]),
        ({"X": X, "y": np.zeros((12, 2, 2))}, {}, ["y 'y' has the shape (12, 2, 2)"]),
        ({"X": X, "y": np.float64(3)}, {}, ["y 'y' has the shape ()"]),
        ({"X": X.astype(complex), "y": Y}, {}, ["'X' holds complex numbers"]),
        ({"X": X, "y": Y.astype(complex)}, {}, ["y 'y' holds complex numbers"]),
        ({"X": X, "y": np.zeros(12, [("a", "f4")])}, {}, ["y 'y' holds a compound type"]),
        ({"X": X, "y": np.array([b"\xff\xfe"] * 12)}, {}, ["'y' holds text that is not UTF-8"]),
        ({"X": X, "y": Y, "w": np.ones((12, 2))}, {}, ["weights 'w' has the shape (12, 2)", "--weights none"]),
        ({"X": X, "y": Y, "w": np.ones(11)}, {}, ["weights 'w' has the shape (11,)"]),
        ({"X": X, "y": Y, "w": -np.eye(12)[3]}, {}, ["weights 'w' row 3 is -1.0", "not negative"]),
        ({"X": X, "y": Y, "w": np.where(Y == 2, np.nan, 1)}, {}, ["weights 'w' row 1 is nan"]),
        ({"X": X, "y": Y, "w": np.zeros(12)}, {}, ["weights 'w' are all zero"]),
        ({"X": X, "y": Y}, {"x": "nothing/here"}, ["no dataset 'nothing/here'"]),
        ({"X": X, "y": Y}, {"split": "test"}, ["has no test rows"]),
    ],
)
def test_datasets_that_cannot_be_used(datasets, options, words, h5, refuses):
    with refuses(DataError, "d.h5", *words):
        open_dataset(h5(datasets), **options)


def links(file: h5py.File, folder: Path) -> None:
    """A file full of ways out."""
    (folder / "secret.txt").write_bytes(b"secret" * 100)
    with h5py.File(folder / "other.h5", "w") as other:
        other["X"] = X
    file["y"] = Y
    file["real"] = X
    file["elink"] = h5py.ExternalLink("other.h5", "/X")
    file["egroup"] = h5py.ExternalLink("other.h5", "/")
    file["soft"] = h5py.SoftLink("/real")
    file["loop"] = h5py.SoftLink("/loop")
    file["group/self"] = h5py.SoftLink("/")
    file.create_dataset("outside", (12, 3), "u1", external=[(str(folder / "secret.txt"), 0, 36)])
    for name, source in (("virtual", "other.h5"), ("gone", "nowhere.h5")):
        layout = h5py.VirtualLayout((12, 3), "f4")
        layout[:] = h5py.VirtualSource(source, "X", (12, 3))
        file.create_virtual_dataset(name, layout)
    file.create_dataset("unwritten", (12, 3), "f4")
    file.create_dataset("huge", (1 << 40, 64), "f4")
    file.create_dataset("partly", (12, 3), "f4", chunks=(4, 3))[:4] = 1
    file["nothing"] = h5py.Empty("f4")
    file["around"] = file["/"]  # a hard link to the root: the file holds itself


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("elink", "'elink' is a link into another file ('other.h5')"),
        ("egroup", "'egroup' is a link into another file"),
        ("egroup/X", "'egroup' is a link into another file"),
        ("loop", "'loop' is a soft link"),
        ("group/self", "'group/self' is a soft link (to '/', which is a group)"),
        ("group/self/real", "'group/self' is a soft link (to '/'"),
        ("outside", "'outside' keeps its values in another file"),
        ("virtual", "'virtual' is a virtual dataset"),
        ("gone", "'gone' is a virtual dataset"),
        ("unwritten", "'unwritten' declares a shape, but its values were never written"),
        ("huge", "'huge' declares a shape, but its values were never written"),
        ("partly", "'partly' has only 1 of its 3 chunks"),
        ("nothing", "'nothing' is empty"),
        ("group", "no dataset 'group'"),
    ],
)
def test_what_leads_out_of_the_file_or_was_never_written_is_refused(name, words, tmp_path, refuses):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        links(file, tmp_path)
    with refuses(DataError, "d.h5", words):
        open_dataset(tmp_path / "d.h5", x=name)


def test_a_link_with_a_usual_name_is_not_passed_over(tmp_path, refuses):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["y"] = Y
        file["X"] = h5py.SoftLink("/elsewhere")
    with refuses(DataError, "'X' is a soft link (to '/elsewhere', which is not there)"):
        open_dataset(tmp_path / "d.h5")
    with h5py.File(tmp_path / "d.h5", "a") as file:
        file["data"] = X
    with refuses(DataError, "'X', 'data' could each be X"):
        open_dataset(tmp_path / "d.h5")


def test_no_other_file_is_opened(tmp_path):
    """The other file is a pipe here: whoever opened it would wait for ever."""
    with h5py.File(tmp_path / "d.h5", "w") as file:
        links(file, tmp_path)
        file["X"] = h5py.ExternalLink("other.h5", "/X")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "other.h5").unlink()
    os.symlink("fifo", tmp_path / "other.h5")
    with pytest.raises(DataError):
        open_dataset(tmp_path / "d.h5")


def test_a_filter_that_is_not_there_is_named(tmp_path, refuses):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["y"] = Y
        file.create_dataset("X", data=X, chunks=(12, 3), compression="lzf")
    raw = (tmp_path / "d.h5").read_bytes()
    assert raw.count((32000).to_bytes(2, "little") + b"\x08\x00") == 1  # the filter's number in the object header
    (tmp_path / "d.h5").write_bytes(
        raw.replace((32000).to_bytes(2, "little") + b"\x08\x00", (32199).to_bytes(2, "little") + b"\x08\x00")
    )
    with refuses(DataError, "'X' is compressed by filter 32199", "h5repack"):
        open_dataset(tmp_path / "d.h5")


def test_a_table_that_was_cut_off_is_refused(h5, refuses):
    path = h5({"y": Y, "X": np.ones((12, 100_000))})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with refuses(DataError, "d.h5 is damaged or no complete HDF5 file", "truncated"):
        open_dataset(path)


def test_declared_bytes_beyond_the_end_are_refused(h5, monkeypatch):
    """Newer releases of HDF5 see it as well; so the file is made to look shorter to us alone."""
    with h5py.File(h5({"y": Y, "X": np.ones((12, 1000))})) as file:
        shorter = os.stat_result([0] * 6 + [50_000] + [0] * 3)
        monkeypatch.setattr("gpubp.data.hdf5.survey.os.fstat", lambda handle: shorter)
        found = survey.describe(file["X"], "X", 50_000, survey.Budget(0))
        assert "declares 96,000 bytes, more than the file has" in found.trouble


def test_a_soft_link_within_the_file_is_followed(tmp_path):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["train/y"], file["raw/table"] = Y, X
        file["train/X"] = h5py.SoftLink("/raw/./table")
    assert np.array_equal(opened(tmp_path / "d.h5")[1], X)


def test_what_is_no_file(tmp_path, refuses):
    with refuses(DataError, "missing.h5: No such file"):
        open_dataset(tmp_path / "missing.h5")
    with refuses(DataError, "is a folder"):
        open_dataset(tmp_path)
    os.mkfifo(tmp_path / "pipe.h5")
    with refuses(DataError, "is a pipe"):
        open_dataset(tmp_path / "pipe.h5")
    with refuses(DataError, "is a device"):
        open_dataset("/dev/null")
    (tmp_path / "empty.h5").touch()
    with refuses(DataError, "is empty (0 bytes)"):
        open_dataset(tmp_path / "empty.h5")
    with refuses(DataError, "null"):
        open_dataset("a\0b.h5")
    with refuses(DataError, r"new\nline.h5"):
        open_dataset(tmp_path / "new\nline.h5")


def test_other_formats_get_the_convert_line(tmp_path, refuses):
    np.save(tmp_path / "a b.npy", X)
    np.savez(tmp_path / "z.npz", X=X)
    (tmp_path / "t.csv").write_text("1,2\n3,4\n")
    (tmp_path / "no-suffix").write_text("a,b\n3,4\n")
    (tmp_path / "x-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 6]), mtime=0))
    for name, title, target in [
        ("t.csv", "but a CSV file; wanted HDF5; make it so", "t.h5"),
        ("z.npz", "but an NPZ file; wanted HDF5; make it so", "z.h5"),
        ("no-suffix", ", perhaps a CSV file; wanted HDF5; if it is one", "no-suffix.h5"),
        ("x-images-idx3-ubyte.gz", "but an IDX file; wanted HDF5; make it so", "x-images-idx3-ubyte.h5"),
    ]:
        source = tmp_path / name
        line = f"gpubp convert {source} {tmp_path / target}"
        with refuses(DataError, f"{name} is not an HDF5 file{' ' * (title[0] == 'b')}{title}: {line}"):
            open_dataset(source)
    with refuses(DataError, f"gpubp convert '{tmp_path / 'a b.npy'}' '{tmp_path / 'a b.h5'}'"):
        open_dataset(tmp_path / "a b.npy")
    (tmp_path / "junk.bin").write_bytes(bytes(range(1, 200)))
    with refuses(DataError, "junk.bin is not an HDF5 file; wanted HDF5 with X and y"):
        open_dataset(tmp_path / "junk.bin")


def test_a_user_block_is_fine(tmp_path):
    with h5py.File(tmp_path / "d.h5", "w", userblock_size=1024) as file:
        file["X"], file["y"] = X, Y
    assert np.array_equal(opened(tmp_path / "d.h5")[1], X)


def test_a_file_that_is_being_written_is_refused(tmp_path, refuses):
    code = "import h5py,sys\nf=h5py.File(sys.argv[1],'w')\nf['X']=1\nf.flush()\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "d.h5")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdin and writer.stdout
        writer.stdout.readline()
        with refuses(DataError, "d.h5 is open in a program that writes to it", "wait"):
            open_dataset(tmp_path / "d.h5")
        writer.communicate(b"\n")


def test_y_larger_than_memory_is_refused(h5, monkeypatch, refuses):
    path = h5({"X": X, "y": Y})
    monkeypatch.setattr("gpubp.data.dataset.available_memory", lambda: 50)
    with refuses(DataError, "y 'y' takes 96 bytes", "the 50 that are free"):
        open_dataset(path)


def test_damaged_bytes_never_end_in_a_traceback(h5):
    """Bytes of the metadata changed: the file opens or is refused in one line. In a process, as HDF5 may crash."""
    path = h5({"X": X, "y": Y})
    code = """
import sys, random
from pathlib import Path
from gpubp.data.dataset import open_dataset
from gpubp.errors import DataError
path = Path(sys.argv[1]); whole = path.read_bytes(); draw = random.Random(3); refused = 0
for _ in range(150):
    raw = bytearray(whole)
    raw[draw.randrange(8, 1000)] = draw.randrange(256)
    path.write_bytes(raw)
    try:
        open_dataset(path).close()
    except DataError as error:
        refused += 1
        assert "\\n" not in str(error)
print(refused)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=Path.cwd())
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0 and int(done.stdout) > 20


def test_check_weights_takes_good_ones():
    check_weights(np.array([0.0, 2.0]), "w")
