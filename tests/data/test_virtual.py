"""Virtual datasets: taken as whole rows of files under a folder that the user allows, and not otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from gpubp.data.convert import convert
from gpubp.data.dataset import open_dataset
from gpubp.errors import DataError

RNG = np.random.default_rng(6)
X = RNG.normal(size=(20, 3)).astype("f4")
Y = np.arange(20) % 3


def virtual(path: Path, **datasets) -> Path:
    """`name=(shape, dtype, [(rows, file, dataset, source shape, source rows), …])`"""
    with h5py.File(path, "w") as file:
        for name, (shape, dtype, sources) in datasets.items():
            layout = h5py.VirtualLayout(shape, dtype)
            for rows, other, dataset, size, taken in sources:
                layout[rows] = h5py.VirtualSource(other, dataset, size)[taken]
            file.create_virtual_dataset(name, layout)
    return path


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data/a.h5` with rows 0 … 11, `data/b.h5` with the rest; `outside.h5` beside the folder."""
    tmp_path = tmp_path_factory.mktemp("v")  # short: messages cut long paths
    (tmp_path / "data").mkdir()
    for name, part in (("data/a.h5", slice(0, 12)), ("data/b.h5", slice(12, 20)), ("outside.h5", slice(0, 20))):
        with h5py.File(tmp_path / name, "w") as file:
            file["X"], file["y"], file["w"] = X[part], Y[part], np.arange(20.0)[part]
            file["t"] = np.array([b"ant", b"bee", b"c"])[Y[part]]
    return tmp_path


def both(name: str, columns: tuple[int, ...]):
    a, b = (12, *columns), (8, *columns)
    return [(np.s_[0:12], "a.h5", name, a, np.s_[:]), (np.s_[12:17], "b.h5", name, b, np.s_[3:8])]


def opened(path, **options):
    with open_dataset(path, **options) as data:
        rows = np.empty((data.source.m, data.source.features), data.source.dtype)
        data.source.read(0, data.source.m, rows)
        place = data.source.where(data.source.m - 1)
        data.source.check()
        return data, rows, place


def test_rows_labels_and_weights_come_from_the_sources(folder, monkeypatch):
    path = virtual(folder / "data" / "v.h5", X=((17, 3), "f4", both("X", (3,))), y=((17,), "i8", both("y", ())),
                   w=((17,), "f8", both("w", ())), t=((17,), "S3", both("t", ())))  # fmt: skip
    expected = np.r_[0:12, 15:20]
    with h5py.File(path) as file:
        assert np.array_equal(file["X"][:], X[expected])  # what HDF5 makes of it
    monkeypatch.chdir("/")  # sources lie beside the file, wherever we are
    data, rows, place = opened(path, allow=folder / "data")
    assert np.array_equal(rows, X[expected]) and rows.dtype == np.float32
    assert np.array_equal(data.target, Y[expected]) and np.array_equal(data.weights, expected)
    assert place.endswith("b.h5: 'X' row 7")
    data, _, _ = opened(path, allow=folder / "data", y="t")
    assert data.target is not None and data.target.tolist() == [["ant", "bee", "c"][y] for y in Y[expected]]


def test_a_wider_type_is_kept(folder):
    path = virtual(folder / "data" / "v.h5", X=((17, 3), "f8", both("X", (3,))), y=((17,), "i8", both("y", ())))
    assert opened(path, allow=folder)[1].dtype == np.float64


def test_rows_of_the_file_itself(folder):
    path = virtual(folder / "v.h5", V=((5, 3), "f4", [(np.s_[:], ".", "X", (20, 3), np.s_[2:7])]))
    with h5py.File(path, "a") as file:
        file["X"], file["y"] = X, Y[:5]
    _, rows, _ = opened(path, x="V", allow=folder / "data")
    assert np.array_equal(rows, X[2:7])


SOURCE = [(np.s_[:], "../outside.h5", "X", (20, 3), np.s_[:])]


def one(source, shape=(20, 3), dtype="f4", size=(20, 3), taken=np.s_[:], name="X"):
    return {"X": (shape, dtype, [(np.s_[:], source, name, size, taken)])}


@pytest.mark.parametrize(
    ("datasets", "words"),
    [
        (one("../outside.h5"), ["'X' is a virtual dataset and takes rows from", "outside.h5", "--allow DIR"]),
        (one("{}/outside.h5"), ["takes rows from", "outside.h5"]),
        (one("link.h5"), ["takes rows from", "outside.h5"]),
        (one("linked/outside.h5"), ["takes rows from", "outside.h5"]),
        (one("gone.h5"), ["its source", "gone.h5' is not there"]),
        (one("a.h5"), ["takes rows 0 to 19 of the shape (3,) from", "has the shape (12, 3)"]),
        (one("a.h5", (12, 2), size=(12, 2)), ["takes rows 0 to 11 of the shape (2,)"]),
        (one("a.h5", (12, 2), size=(12, 3), taken=np.s_[:, :2]), ["takes rows 0 to 11 of the shape (2,)"]),
        (one("a.h5", (12, 2), size=(12, 3), taken=np.s_[:, 1:]), ["more than whole rows put below each other"]),
        (one("a.h5", (6, 3), size=(12, 3), taken=np.s_[::2]), ["more than whole rows put below each other"]),
        (one("a.h5", (12, 3), "i4", (12, 3)), ["is of the type int32 and", "of float32"]),
        (one("a.h5", (12, 3), size=(12, 3), name="Z"), ["a.h5 has no dataset 'Z'"]),
        (one("fifo.h5", (12, 3), size=(12, 3)), ["is a pipe"]),
        (one("v2.h5", (12, 3), size=(12, 3)), ["which is virtual itself"]),
        (one("links.h5", (12, 3), size=(12, 3)), ["links.h5: 'X' is a link into another file"]),
    ],
)
def test_what_virtual_datasets_may_not(datasets, words, folder, refuses):
    inside = folder / "data"
    os.symlink("../outside.h5", inside / "link.h5")
    os.symlink("..", inside / "linked")
    os.mkfifo(inside / "fifo.h5")
    virtual(inside / "v2.h5", **one("a.h5", (12, 3), size=(12, 3)))
    with h5py.File(inside / "links.h5", "w") as file:
        file["X"] = h5py.ExternalLink("a.h5", "/X")
    shape, dtype, sources = datasets["X"]
    sources = [(rows, source.format(folder), *rest) for rows, source, *rest in sources]
    path = virtual(inside / "v.h5", X=(shape, dtype, sources))
    with h5py.File(path, "a") as file:
        file["y"] = np.arange(shape[0])
    with refuses(DataError, *words):
        open_dataset(path, allow=inside)


def test_without_leave_nothing_is_followed(folder, refuses):
    path = virtual(folder / "data" / "v.h5", X=((17, 3), "f4", both("X", (3,))), y=((17,), "i8", both("y", ())))
    with refuses(DataError, "'X' is a virtual dataset, put together from other files", "--allow DIR"):
        open_dataset(path)
    with refuses(DataError, "nowhere, which --allow names, is no folder"):
        open_dataset(path, allow=folder / "nowhere")


def test_other_links_stay_refused(folder, refuses):
    with h5py.File(folder / "data" / "d.h5", "w") as file:
        file["X"], file["y"] = h5py.ExternalLink("a.h5", "/X"), Y
    with refuses(DataError, "'X' is a link into another file"):
        open_dataset(folder / "data" / "d.h5", allow=folder)


def test_files_of_an_x_without_its_y_are_closed(folder):
    labels = [(np.s_[0:12], "a.h5", "y", (12,), np.s_[:]), (np.s_[12:16], "b.h5", "y", (8,), np.s_[0:4])]
    path = virtual(folder / "data" / "v.h5", X=((17, 3), "f4", both("X", (3,))), y=((16,), "i8", labels))
    there, errors = [], []
    for _ in range(4):  # the first starts the processes that parse; errors are kept, and with them all that they hold
        with pytest.raises(DataError, match="has 17 rows and y 'y' has 16") as error:
            open_dataset(path, allow=folder)
        errors.append(error)
        there.append(len(os.listdir("/proc/self/fd")))
    assert there[-1] == there[0]


def test_converted_it_is_one_file(folder, refuses):
    path = virtual(folder / "data" / "v.h5", X=((17, 3), "f4", both("X", (3,))), y=((17,), "i8", both("y", ())))
    with refuses(DataError, "'X' is a virtual dataset", "--allow DIR"):
        convert(path, folder / "one.h5")
    convert(path, folder / "one.h5", allow=str(folder / "data"))
    taken = np.r_[0:12, 15:20]
    data, rows, _ = opened(folder / "one.h5")
    assert np.array_equal(rows, X[taken]) and np.array_equal(data.target, Y[taken])


def test_all_files_are_closed(folder):
    path = virtual(folder / "data" / "v.h5", X=((17, 3), "f4", both("X", (3,))), y=((17,), "i8", both("y", ())))
    before = len(os.listdir("/proc/self/fd"))
    opened(path, allow=folder)
    opened(path, allow=folder)
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # the control sockets of the process that parses
