"""Octave's text format, written here as Octave writes it."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from gpubp.data.formats import recognise
from gpubp.errors import DataError

RNG = np.random.default_rng(9)
CREATED = "# Created by Octave 9.2.0, Mon Jan 01 10:00:00 2024 UTC <me, and others@here>\n"


def matrix(name: str, values: np.ndarray, kind: str = "matrix") -> str:
    rows = "".join(" " + " ".join(map(repr, row)) + "\n" for row in values.tolist())
    return f"# name: {name}\n# type: {kind}\n# rows: {len(values)}\n# columns: {values.shape[1]}\n{rows}\n\n"


def by_columns(name: str, values: np.ndarray, kind: str) -> str:
    sides = " ".join(map(str, values.shape))
    cells = "".join(f"  {value}\n" for value in values.reshape(-1, order="F").tolist())
    return f"# name: {name}\n# type: {kind}\n# ndims: {values.ndim}\n {sides}\n{cells}\n\n"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_matrices(packed, ending, tmp_path, read_parts):
    X, y = RNG.normal(size=(40, 5)) * 10.0 ** RNG.integers(-200, 200, (40, 5)), RNG.integers(1, 11, (40, 1))
    text = (CREATED + matrix("X", X) + matrix("y", y)).replace("\n", ending).encode()
    (tmp_path / "data.txt").write_bytes(gzip.compress(text, mtime=0) if packed else text)
    (part,) = read_parts(tmp_path / "data.txt")
    assert np.array_equal(part.X, X) and part.X.dtype == np.float64
    assert part.y is not None and part.y.shape == (40,) and np.array_equal(part.y, y[:, 0])
    assert part.y.dtype.kind == "i"


def test_more_types_and_splits_over_several_blocks(tmp_path, read_parts, monkeypatch):
    monkeypatch.setattr("gpubp.data.formats._blocks.BLOCK", 300)
    X, cube = RNG.integers(0, 200, (30, 4)), RNG.integers(0, 200, (6, 2, 3))
    text = CREATED + by_columns("X", X, "int32 matrix") + matrix("y", np.arange(30).reshape(1, 30))
    text += "# name: note\n# type: string\n# elements: 1\n# length: 5\nhello\n\n\n"
    text += "# name: lambda\n# type: scalar\n0.5\n\n\n"
    text += by_columns("Xtest", cube, "uint8 matrix") + matrix("ytest", np.ones((6, 1)) * 0.5, "float matrix")
    (tmp_path / "d").write_text(text)
    train, test = read_parts(tmp_path / "d")
    assert np.array_equal(train.X, X) and np.array_equal(train.y, np.arange(30))
    assert np.array_equal(test.X, cube) and np.array_equal(test.y, np.full(6, 0.5))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# name: X\n# type: string\n# elements: 1\n# length: 2\nhi\n", "'X' is of the type 'string'; wanted a matrix"),
        ("# name: X\n# type: complex matrix\n# rows: 1\n# columns: 1\n (1,2)\n", "of the type 'complex matrix'"),
        ("# name: X\n# type: cell\n# rows: 1\n# columns: 1\n", "'X' is a cell; wanted matrices"),
        ("# name: s\n# type: scalar struct\n# ndims: 2\n 1 1\n", "'s' is a scalar struct"),
        ("# name: X\n# type: matrix\n# rows: 2\n# columns: 2\n 1 2\n\n\n", "'X' has 2 values; wanted the 4"),
        ("# name: X\n# type: matrix\n# rows: 1\n# columns: 2\n 1 2\n 3 4\n", "'X' has 4 values; wanted the 2"),
        ("# name: X\n# type: matrix\n# rows: 2\n# columns: 2\n 1 2\n 3\n", "line 6 has 1 columns; wanted 2"),
        ("# name: X\n# type: matrix\n# rows: 1\n# columns: 2\n 1 a\n", "line 5, column 1 is 'a'; wanted a number"),
        ("# name: X\n# type: matrix\n# rows: 1\n# columns: 2\n 1 NaN\n", "line 5, column 1 is 'NaN'; wanted a number"),
        ("# name: X\n# type: matrix\n# rows: 0\n# columns: 2\n", "'X' is empty, its shape is (0, 2)"),
        ("# name: X\n# type: matrix\n# rows: 3\n 1\n", "'X' does not say its rows and columns"),
        ("# name: X\n# type: matrix\n# rows: 99999999999999999\n# columns: 2\n 1 2\n", "'X' has 2 values"),
        ("# name: X\n# type: matrix\n# rows: 1\n# columns: 999999999999\n 1 2\n", "'X' is to have 999,999,999"),
        ("# name: q\n# type: scalar\n3\n", "has no X; it holds 'q'"),
    ],
)
def test_what_cannot_be_used(text, words, tmp_path, refuses, read_parts):
    (tmp_path / "d.txt").write_text(text)
    with refuses(DataError, "d.txt", words):
        read_parts(tmp_path / "d.txt", y="none")


def test_missing_values_on_request(tmp_path, read_parts):
    (tmp_path / "d.txt").write_text("# name: X\n# type: matrix\n# rows: 2\n# columns: 2\n 1 NaN\n NA 2\n")
    (part,) = read_parts(tmp_path / "d.txt", y="none", missing=True)
    assert np.array_equal(part.X, [[1, np.nan], [np.nan, 2]], equal_nan=True)


def test_a_comma_in_the_first_line_makes_no_csv(tmp_path):
    (tmp_path / "d").write_text(CREATED + matrix("X", np.eye(2)))
    found = recognise(tmp_path / "d")
    assert found is not None and found.title == "an Octave text file"
