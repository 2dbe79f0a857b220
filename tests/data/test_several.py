"""Several files as one data set: order, what must agree, and that messages name the file."""

from __future__ import annotations

import os

import numpy as np
import pytest

from gpubp.data.several import files, open_all, splits_of
from gpubp.data.source import ArrayRows, StackedRows
from gpubp.errors import DataError

RNG = np.random.default_rng(4)
X = RNG.normal(size=(30, 3)).astype("f4")
Y = np.arange(30) % 3


def rows_of(source):
    out = np.empty((source.m, source.features), source.dtype)
    source.read(0, source.m, out)
    return out


def test_files_come_in_the_order_given_and_patterns_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("part-10.h5", "part-2.h5", "a.h5", "odd[1].h5", "odd1.h5"):
        (tmp_path / name).touch()
    assert files("a.h5") == ("a.h5",) and files(tmp_path / "nothing.h5") == (str(tmp_path / "nothing.h5"),)
    assert files(["part-2.h5", "a.h5"]) == ("part-2.h5", "a.h5")
    assert files(["part-*.h5", "a.h5"]) == ("part-10.h5", "part-2.h5", "a.h5")
    assert files("odd[1].h5") == ("odd[1].h5",)  # a real file comes before the pattern
    (tmp_path / "odd[1].h5").unlink()
    assert files("odd[1].h5") == ("odd1.h5",)


def test_what_names_no_file_or_one_twice_is_refused(tmp_path, monkeypatch, refuses):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.h5").touch()
    os.symlink("a.h5", tmp_path / "b.h5")
    with refuses(DataError, "no file matches 'x-*.h5'"):
        files("x-*.h5")
    with refuses(DataError, "a.h5 is named twice; wanted each file once"):
        files(["a.h5", "a.h5"])
    with refuses(DataError, "b.h5 is named twice, also as a.h5"):
        files("*.h5")
    with refuses(DataError, "no data file is named"):
        files([])


def test_rows_labels_and_weights_follow_each_other(h5, tmp_path):
    w = np.linspace(0.5, 2, 30)
    for name, part, kind in (("a", slice(0, 7), ">f8"), ("b", slice(7, 20), "f4"), ("c", slice(20, 30), "f2")):
        h5({"X": X[part].astype(kind), "y": Y[part].astype("i2" if name == "a" else "u1"), "w": w[part]}, f"{name}.h5")
    with open_all(tmp_path / "*.h5") as data:
        assert data.source.dtype == np.float64 and (data.source.m, data.source.features) == (30, 3)
        assert np.array_equal(rows_of(data.source)[:20], X[:20])
        assert np.array_equal(rows_of(data.source)[20:], X[20:].astype("f2"))
        assert np.array_equal(data.target, Y) and np.array_equal(data.weights, w)
        assert data.path.endswith("a.h5 and 2 more")
        for row, words in ((0, "a.h5: 'y' row 0"), (7, "b.h5: 'y' row 0"), (29, "c.h5: 'y' row 9")):
            assert data.y_place.row(row).endswith(words)
        assert data.source.where(19).endswith("b.h5: 'X' row 12")


def test_text_labels_and_splits_inside_each_file(h5, tmp_path):
    text = np.array([b"ant", b"b", b"longest"])[Y]
    for name, part in (("a", slice(0, 10)), ("b", slice(10, 30))):
        h5({"train/X": X[part], "train/y": text[part], "test/X": X[:4], "test/y": text[:4]}, f"{name}.h5")
    with open_all([tmp_path / "a.h5", tmp_path / "b.h5"]) as data:
        assert data.split == "train" and data.target is not None
        assert data.target.tolist() == [t.decode() for t in text]
    with open_all([tmp_path / "b.h5", tmp_path / "a.h5"], split="test") as data:
        assert data.source.m == 8
    assert list(splits_of([tmp_path / "a.h5", tmp_path / "b.h5"])) == ["train", "test"]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"X": X[:, :2], "y": Y}, ["has 2 features; wanted 3, as"]),
        ({"X": X}, ["b.h5 has no y"]),
        ({"X": X, "y": Y, "w": np.ones(30)}, ["b.h5 has weights; wanted none, as", "--weights none"]),
        ({"X": X, "y": np.array([b"a", b"b", b"c"])[Y]}, ["b.h5 has text in y; wanted numbers, as"]),
        ({"X": X, "y": np.eye(3)[Y]}, ["b.h5 has a y of 30 × 3 float64; wanted columns as in"]),
        ({"train/X": X, "train/y": Y}, ["b.h5 has train rows; wanted no splits, as", "--x or --split"]),
        ({"X": X, "y": Y, "feature_names": np.array([b"p", b"r", b"q"])}, ["b.h5 calls column 1 'r'; wanted 'q', as"]),
        ({"X": X, "y": Y[:9]}, ["b.h5: X 'X' has 30 rows and y 'y' has 9"]),
    ],
)
def test_files_that_do_not_go_together_are_named(second, words, h5, refuses):
    a = h5({"X": X, "y": Y, "feature_names": np.array([b"p", b"q", b"r"])}, "a.h5")
    b = h5(second, "b.h5")
    with refuses(DataError, "b.h5", *words):
        open_all([a, b])


def test_names_may_be_in_one_file_alone(h5):
    names = np.array([b"p", b"q", b"r"])
    a, b = h5({"X": X, "y": Y}, "a.h5"), h5({"X": X, "y": Y, "feature_names": names}, "b.h5")
    with open_all([a, b]) as data:
        assert data.feature_names == ("p", "q", "r")


def test_a_thousand_sources_are_found_by_halving():
    class Counting(ArrayRows):
        asked = 0

        def where(self, row: int) -> str:
            return super().where(row)

        def read(self, start, stop, out):
            Counting.asked += 1
            super().read(start, stop, out)

    stack = StackedRows([Counting(np.full((3, 2), i, "f4"), f"s{i}") for i in range(1000)])
    assert stack.where(2999) == "s999 row 2" and stack.where(1500) == "s500 row 0"
    out = np.empty((4, 2), "f4")
    stack.read(1499, 1503, out)
    assert out[:, 0].tolist() == [499, 500, 500, 500] and Counting.asked == 2
    assert len(stack.describe()) < 200 and "997 more: 3000 rows in all" in stack.describe()
