"""svmlight's text becomes the dense rows that scikit-learn would make of it."""

from __future__ import annotations

import gzip
import re

import numpy as np
import pytest

from gpubp.data.formats import recognise, svmlight
from gpubp.errors import DataError

RNG = np.random.default_rng(10)


def written(X: np.ndarray, y: list[str], first: int) -> str:
    """All entries that are not zero, and the last column's in any case."""
    lines = []
    for row, label in zip(X.tolist(), y, strict=True):
        pairs = [f"{i + first}:{v!r}" for i, v in enumerate(row) if v or i == len(row) - 1]
        lines.append(" ".join([label, *pairs]))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("kind", ["whole", "float32", "float64"])
@pytest.mark.parametrize("packed", [False, True])
def test_dense_rows(first, kind, packed, tmp_path, read_parts):
    X = RNG.normal(size=(300, 6)) * 10.0 ** RNG.integers(-30, 30, (300, 6)) * (RNG.random((300, 6)) < 0.5)
    whole, single = np.rint(RNG.normal(size=X.shape) * 1000), X.astype(np.float32).astype(float)
    X = {"whole": whole, "float32": single, "float64": X}[kind]
    X[0, 0] = 3
    y = RNG.choice(["+1", "-1"], 300)
    text = written(X, y.tolist(), first).encode()
    (tmp_path / "d.svm").write_bytes(gzip.compress(text, mtime=0) if packed else text)
    (part,) = read_parts(tmp_path / "d.svm")
    assert np.array_equal(part.X, X)
    assert part.X.dtype == {"whole": np.int16, "float32": np.float32, "float64": np.float64}[kind]
    assert part.y is not None and np.array_equal(part.y, y.astype(int)) and part.y.dtype.kind == "i"


def test_comments_blanks_and_rows_without_features(tmp_path, read_parts):
    text = b"# made, by me\r\n\r\n  1.5\t2:0.25   3:1e-2 # why: 7\r\n-2 \r\n0 1:+3 3:-.5\r\n\n 7 3:2."
    (tmp_path / "d").write_bytes(text)
    (part,) = read_parts(tmp_path / "d")
    assert part.X.tolist() == [[0, 0.25, 0.01], [0, 0, 0], [3, 0, -0.5], [0, 0, 2]]
    assert part.y is not None and part.y.tolist() == [1.5, -2, 0, 7]
    (part,) = read_parts(tmp_path / "d", y="none")
    assert part.y is None


def test_the_quick_way_agrees_with_line_by_line(tmp_path, read_parts, monkeypatch):
    monkeypatch.setattr("gpubp.data.formats._blocks.BLOCK", 2000)
    monkeypatch.setattr(svmlight, "_PIECE", 700)
    monkeypatch.setattr(svmlight, "_DENSE", 900)
    X = np.where(RNG.random((400, 9)) < 0.4, RNG.normal(size=(400, 9)), 0)
    (tmp_path / "d.svm").write_text(written(X, [str(i % 3) for i in range(400)], 1))
    (quick,) = read_parts(tmp_path / "d.svm")
    monkeypatch.setattr(svmlight, "_quickly", lambda text: None)
    (slow,) = read_parts(tmp_path / "d.svm")
    assert np.array_equal(quick.X, X) and np.array_equal(slow.X, X) and np.array_equal(quick.y, slow.y)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1 qid:3 1:2", "line 2 holds 'qid:3': groups for ranking"),
        ("1,2 1:2", "line 2 has several labels ('1,2')"),
        ("1 2:1 2:3", "line 2: index 2 comes after 2; wanted ascending"),
        ("1 3:1 2:3", "line 2: index 2 comes after 3"),
        ("1 2:x", "line 2: the value of feature 2 is 'x'"),
        ("1 2:nan", "line 2: the value of feature 2 is 'nan'"),
        ("1 2:1e999", "line 2: the value of feature 2 is '1e999'; wanted a number that float64 holds"),
        ("1 2:", "line 2: the value of feature 2 is ''"),
        ("1 :2", "line 2 holds ':2'; wanted index:value"),
        ("1 -1:2", "line 2 holds '-1:2'"),
        ("1 1.5:2", "line 2 holds '1.5:2'"),
        ("1 1:2:3", "the value of feature 1 is '2:3'"),
        ("1 2", "line 2 holds '2'; wanted index:value"),
        ("1:2 3 4:5", "line 2: the label is '1:2'"),
        ("a 1:2", "line 2: the label is 'a'"),
        ("1_0 1:2", "line 2: the label is '1_0'"),
        ("1 1:2 3", "line 2 holds '3'"),
        ("1 99999999999999:1", "as a dense array of int16"),
        ("1 9999999999:1", "and no row of more than"),
        ("1 99999999999999999999:1", "line 2 holds '99999999999999999999:1'"),
    ],
)
def test_what_cannot_be_used(line, words, tmp_path, refuses, read_parts):
    (tmp_path / "d.svm").write_text(f"1 1:2\n{line}\n1 1:1\n")
    with refuses(DataError, "d.svm", words):
        read_parts(tmp_path / "d.svm")


@pytest.mark.parametrize(
    ("head", "is_one"),
    [
        ("1 1:2 3:4\n", True), ("# a, b\n\n+1 1:.5 # x\n", True), ("-1.5e3 qid:4 2:1\n", True), ("1,2 1:3\n", True),
        ("1 " + "".join(f"{i}:0.5 " for i in range(200))[:500], True), ("1,2,3\n", False), ("1 2 3\n", False),
        ("1 12:30 5\n", False), ("a b:c\n", False), ("\0\0\x08\x01", False),
    ],
)  # fmt: skip
def test_how_it_is_recognised(head, is_one):
    assert svmlight.is_svmlight(head.encode()) == is_one


def test_it_comes_before_a_guess(tmp_path):
    (tmp_path / "d.txt").write_text("# made by me, and others\n1 1:2\n")
    found = recognise(tmp_path / "d.txt")
    assert found is not None and re.search("svmlight", found.title)
