"""The side that asks does not believe what it is told: whatever a process that a file took over answers, the end is one
line. And the file that is read is the file that was looked at."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from gpubp.data import guard
from gpubp.data.dataset import open_dataset
from gpubp.data.guard import open_file
from gpubp.data.hdf5 import file as hdf_file
from gpubp.data.hdf5 import survey, warden
from gpubp.data.hdf5.process import Refusal
from gpubp.data.hdf5.stored import Stored
from gpubp.data.report import describe_file
from gpubp.errors import DataError, visible

X = np.arange(40, dtype="f4").reshape(10, 4)
TABLE = np.array([[2048, 80, 0], [2128, 80, 0]], np.int64)
ENTRY = Stored("X", shape=(10, 4), dtype=np.dtype("<f4"), exact=True, layout="chunked", size=160, chunk_shape=(5, 4))
LABELS = Stored("y", shape=(10,), dtype=np.dtype("O"), text=True, layout="contiguous", size=160, offset=64)


class Liar:
    """A process that answers what it likes."""

    answers: dict[str, Any] = {}  # noqa: RUF012  one for each kind of question

    def __init__(self, *_: Any, **__: Any) -> None:
        self.closed = False

    def ask(
        self, question: dict[str, Any], into: memoryview | None = None, most: int = 0, wait: float = 0
    ) -> tuple[dict[str, Any], bytes]:
        answer, data = self.answers[question["ask"]]
        if isinstance(answer, str):
            raise Refusal(answer)
        assert len(data) <= (most if into is None else len(into)), "receive() would not have let it through"
        return answer, data

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def told(tmp_path, monkeypatch):
    """`told(survey=…, locate=…, text=…)`: a file of 4 KB of which this is said."""
    monkeypatch.setattr(hdf_file, "Parser", Liar)
    count = iter(range(99))

    def tell(**answers: Any) -> Path:
        entries = {"entries": [ENTRY.to_json(), LABELS.to_json()], "attributes": {}}
        samples = X[0].tobytes() + X[9].tobytes()
        honest = {
            "survey": (entries, b""),
            "locate": ({"sizes": [48, 16, 16]}, TABLE.tobytes() + samples),
            "rows": ({}, X.tobytes()),
            "text": ({}, np.full(10, 1, np.uint32).tobytes() + b"abcabcabca"),
        }
        monkeypatch.setattr(Liar, "answers", honest | answers)
        path = tmp_path / f"told{next(count)}.h5"
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(4088))
        return path

    return tell


def surveyed(**changed: Any) -> tuple[dict[str, Any], bytes]:
    return {"entries": [ENTRY.to_json() | changed, LABELS.to_json()], "attributes": {}}, b""


def test_an_honest_answer_is_taken(told):
    with open_file(told()) as file:
        assert file.dataset("X").chunks is not None and file.dataset("X").samples[1] == X[9].tobytes()
        assert file.text(file.entries["y"], 0, 10) == [*"abcabcabca"]


@pytest.mark.parametrize(
    "answer",
    [
        ({}, b""),
        ({"entries": {}, "attributes": []}, b""),
        ({"entries": [3], "attributes": {}}, b""),
        ({"entries": [[]], "attributes": {}}, b""),
        ({"entries": None, "attributes": {}}, b""),
        ({"entries": [], "attributes": {"a": {}}}, b""),
        ({"entries": [], "attributes": None}, b""),
        surveyed(shape=[1 << 61, 1 << 61]),
        surveyed(shape=[-1, 4]),
        surveyed(layout="contiguous", offset=None, chunk_shape=None),
        surveyed(layout="contiguous", offset=4000, chunk_shape=None),
        surveyed(layout="contiguous", offset=1 << 60, chunk_shape=None),
        surveyed(layout="contiguous", offset=0, chunk_shape=None, shape=[1 << 30, 1 << 30]),
        surveyed(chunk_shape=[1 << 20, 1 << 20]),
        surveyed(shape=[1 << 40, 4]),
        surveyed(shape=[1 << 15, 4]),  # more chunks than bytes
        surveyed(layout="compact", chunk_shape=None, shape=[1 << 15, 4]),
        surveyed(layout="contiguous", chunk_shape=None, shape=[1 << 40, 4], exact=False, offset=0),
        surveyed(dtype={"base": {"base": "f4", "shape": [1 << 30]}, "shape": [1 << 30]}),
        surveyed(dtype="V2147483647", chunk_shape=[5, 4]),
    ],
)  # fmt: skip
def test_a_description_that_makes_no_sense(answer, told, refuses):
    with refuses(DataError, "is damaged: its description makes no sense"):
        open_file(told(survey=answer))


def located(table: Any, sizes: Any = (48, 16, 16), more: bytes = bytes(32)) -> tuple[dict[str, Any], bytes]:
    return {"sizes": list(sizes)}, np.array(table, np.int64).tobytes() + more


@pytest.mark.parametrize(
    "answer",
    [
        located([[2048, 80, 0], [-8, 80, 0]]),
        located([[2048, 80, 0], [1 << 62, 80, 0]]),
        located([[2048, 80, 0], [4090, 80, 0]]),
        located([[2048, 80, 0], [0, (1 << 63) - 1, 0]]),
        located([[2048, 80, 0], [2128, -1, 0]]),
        located([[2048, 80, 0], [2128, 0, 0]]),
        located([[2048, 80, 0], [0, 4096, 0]]),  # not encoded, and larger than it can be
        located([[2048, 80, 0], [2128, 79, 0]]),
        located([[2048, 80, 0]], (24, 16, 16)),
        located([[2048, 80, 0], [2128, 80, 0]], (48, -1, 33)),
        located([[2048, 80, 0], [2128, 80, 0]], (48, 16)),
        located([[2048, 80, 0], [2128, 80, 0]], (48, 1 << 40, 16)),
        located([[2048, 80, 0], [2128, 80, 0]], (47, 17, 16)),
        located([[2048, 80, 0], [2128, 80, 0]], ()),
        ({"sizes": None}, b""),
        ({}, b""),
        ({"sizes": [48.0, 16, 16]}, TABLE.tobytes() + bytes(32)),
        ("damage \x1b[2J", b""),
    ],
)
def test_places_that_make_no_sense(answer, told, refuses):
    with open_file(told(locate=answer)) as file, refuses(DataError, "told0.h5"):
        file.dataset("X")


def test_a_chunk_that_encoding_cannot_have_made_so_large(told, refuses):
    """Its bytes would be read into memory: of a large file, all of it."""
    entry = ENTRY.to_json() | {"filters": [[1, "deflate", [9]]]}
    path = told(survey=({"entries": [entry], "attributes": {}}, b""), locate=located([[8, 80, 0], [8, 1 << 20, 0]]))
    os.truncate(path, 1 << 21)
    with open_file(path) as file, refuses(DataError, "chunks of 80 bytes that take 1,048,576 in the file"):
        file.dataset("X")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"abc", np.full(10, 1, np.uint32).tobytes(), np.full(9, 1, np.uint32).tobytes() + b"abcabcabc",
        np.full(10, 1 << 31, np.uint32).tobytes() + b"a" * 10, np.full(10, 1, np.uint32).tobytes() + b"\xff" * 10,
    ],
)  # fmt: skip
def test_texts_that_make_no_sense(data, told, refuses):
    with open_file(told(text=({}, data))) as file, refuses(DataError, "makes no sense"):
        file.text(file.entries["y"], 0, 10)


def test_words_reach_a_terminal_as_text_alone(told):
    record = Stored("X\x1b[2J\nX", "is \x1b]0;bad\x07 and\nmore\u202e", "run \x9b this").to_json()
    path = told(survey=({"entries": [record], "attributes": {}}, b""))
    with open_file(path) as file, pytest.raises(DataError) as caught:
        file.dataset("X\x1b[2J\nX")
    assert str(caught.value).isprintable() and "\\x1b" in str(caught.value)
    assert visible("a\tb\x1b[2Jé λ\u200f\udcff\n") == "a b\\x1b[2Jé λ\\u200f\\udcff "


def test_words_of_a_real_file_are_printable(tmp_path):
    path = tmp_path / "odd.h5"
    with h5py.File(path, "w") as file:
        file["X\x1b[31m"] = h5py.ExternalLink("a\nb", "/X")
        file.attrs["no\x07te"] = "a\x1b[2J"
        file["y"] = [1, 2]
    with pytest.raises(DataError) as caught:
        open_dataset(path)
    assert str(caught.value).isprintable()
    assert describe_file(path)["attributes"] == {"no\x07te": "a\x1b[2J"}  # as it is; who prints it makes it visible


def test_a_ragged_feature_names_attribute_is_no_traceback(tmp_path):
    path = tmp_path / "d.h5"
    with h5py.File(path, "w") as file:
        file["X"], file["y"] = X, np.arange(10) % 2
        file.attrs["feature_names"] = np.zeros(4, [("q", "f4"), ("w", "i4", (2,))])
    with open_dataset(path) as data:
        assert data.feature_names is None


def test_attributes_that_are_numbers_json_does_not_have_or_too_many(tmp_path):
    path = tmp_path / "d.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["X"], file["y"] = X, np.arange(10) % 2
        file.attrs["missing"], file.attrs["z"] = np.nan, [1.0, -np.inf]
        file.attrs["long"] = np.arange(2000)
        file.attrs["text"] = "x" * 70_000
        for number in range(100):
            file["X"].attrs[f"a{number:03}"] = number
        file["X"].attrs["feature_names"] = ["p", "q", "r", "s"]
    with open_file(path) as file:
        assert file.attributes["missing"] == "nan" and file.attributes["z"] == [1.0, "-inf"]
        assert file.attributes["long"] == "(2,000 numbers)" and file.attributes["text"] == "(70,000 characters)"
        assert file.entries["X"].attributes["…"] == "and more that are not shown"
    with open_dataset(path) as data:
        assert data.feature_names == ("p", "q", "r", "s")


def test_what_was_not_looked_at_is_said(tmp_path, monkeypatch, refuses):
    path = tmp_path / "d.h5"
    with h5py.File(path, "w") as file:
        file["/".join("abcdefghij")] = X
        file["y"] = np.arange(10)
    with refuses(DataError, "has no X; it holds", "'a/b/c/d/e/f/g/h' lies 8 groups deep"):
        open_dataset(path)
    with refuses(DataError, "'a/b/c/d/e/f/g/h' lies 8 groups deep", "wanted at most 8; move it up"):
        open_dataset(path, x="a/b/c/d/e/f/g/h/i/j")
    monkeypatch.setattr(survey, "ENTRIES", 3)
    with h5py.File(path) as file:
        found, _ = survey.survey(file, 1)
    assert ["more than 3 names" in one.trouble for one in found].count(True) == 1


@pytest.mark.parametrize("become", ["fifo", "device", "folder", "link to a fifo"])
def test_a_name_that_becomes_something_else_after_it_was_looked_at(become, h5, tmp_path, monkeypatch, refuses):
    path = h5({"X": X})
    plain = os.stat

    def looked_at(name: Any, *rest: Any, **more: Any) -> os.stat_result:
        found = plain(name, *rest, **more)
        if os.fspath(name) == os.fspath(path):
            monkeypatch.undo()
            path.unlink()
            if become == "device":
                path.symlink_to("/dev/zero")
            elif become == "folder":
                path.mkdir()
            else:
                os.mkfifo(path if become == "fifo" else tmp_path / "pipe")
                if become != "fifo":
                    path.symlink_to(tmp_path / "pipe")
        return found

    monkeypatch.setattr(os, "stat", looked_at)
    with refuses(DataError, "d.h5 is a"):
        open_file(path)


def test_the_file_is_read_that_was_opened(h5, tmp_path):
    path = h5({"X": X, "y": np.arange(10) % 2})
    fd = guard.open_regular(path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["X"] = -X
    (tmp_path / "other.h5").replace(path)
    try:
        with hdf_file.HdfFile(path, fd) as file:
            assert "y" in file.entries  # the new one has none
            assert np.array_equal(np.frombuffer(file.read(file.dataset("X"), 0, 10), "f4").reshape(10, 4), X)
    except DataError as error:  # newer releases of HDF5 want to know its name
        assert "d.h5 was removed or replaced while it was in use" in str(error)


def test_without_proc_the_name_is_opened_and_must_be_the_same_file(h5, tmp_path, monkeypatch):
    path = h5({"X": X})
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["X"] = -X
    for name in ("cage.one_file_more", "cage.no_more_files"):
        monkeypatch.setattr(f"gpubp.data.hdf5.{name}", lambda: None)
    monkeypatch.setattr("gpubp.data.hdf5.cage.no_programs", lambda *, opening: True)
    monkeypatch.setattr(os.path, "exists", lambda name: False)
    with open(path, "rb") as held:
        with warden._open(held.fileno(), str(path)) as file:
            assert "X" in file
        with pytest.raises(OSError, match="replaced"):
            warden._open(held.fileno(), str(tmp_path / "other.h5"))


def test_a_file_that_changes_is_noticed(h5):
    path = h5({"X": X, "y": np.arange(10) % 2})
    with open_dataset(path) as data:
        data.source.check()
        with open(path, "ab") as file:
            file.write(b"more")
        with pytest.raises(DataError, match=r"had 2,.* bytes when it was opened and has 2,"):
            data.source.check()
        os.truncate(path, 2000)
        with pytest.raises(DataError, match="and has 2,000"):
            data.source.check()
        with pytest.raises(DataError, match="became shorter"):
            data.source.read(0, 10, np.empty((10, 4), "f4"))


def test_a_file_that_grows_without_end_is_read_as_it_was(h5):
    """Somebody appends to it all the time."""
    path = h5({"X": X, "y": np.arange(10) % 2})
    stop = threading.Event()

    def grow() -> None:
        with open(path, "ab") as file:
            while not stop.is_set():
                file.write(bytes(4096))

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        for _ in range(5):
            with open_dataset(path) as data:
                rows = np.empty((10, 4), "f4")
                data.source.read(0, 10, rows)
                assert np.array_equal(rows, X)
    finally:
        stop.set()
        writer.join()


def test_holes_do_not_count_as_written(tmp_path):
    path = tmp_path / "holes"
    with open(path, "wb") as file:
        file.write(b"x" * 8192)
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"y" * 4096)
    with open(path, "rb") as file:
        there = survey.written(file.fileno(), 0, 1 << 30)
        if there == 1 << 30:
            pytest.skip("this file system does not tell holes")
        assert 12288 <= there < 1 << 20
        assert survey.written(file.fileno(), 1 << 20, 1 << 28) == 0
        assert survey.written(file.fileno(), 0, 100) == 100
        assert survey.written(-1, 0, 100) == 100  # in doubt, all of it


def test_large_and_sound(tmp_path):
    """What the limits must leave room for: many datasets, wide rows, many chunks."""
    path = tmp_path / "large.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["X"], file["y"] = np.ones((4, 200_000), "f4"), np.arange(4) % 2
        for number in range(3000):
            file[f"k{number % 50}/d{number}"] = number
        values = file.create_dataset("many/X", (20_000, 8), "u1", chunks=(1, 8))
        for row in range(20_000):
            values.id.write_direct_chunk((row, 0), bytes(8))
    with open_dataset(path, x="X", y="y") as data:
        assert data.source.features == 200_000
    with open_file(path) as file:
        assert len(file.entries) == 3003
        chunks = file.dataset("many/X").chunks
        assert chunks is not None and len(chunks) == 20_000
