"""--select: rows and columns of any data set, and the views that give them."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp.data import views
from gpubp.data.dataset import Dataset
from gpubp.data.place import Place
from gpubp.data.select import Selection, select
from gpubp.data.source import ArrayRows
from gpubp.data.views import Columns, RowRange
from gpubp.errors import DataError, UsageError

X = np.arange(200, dtype="f4").reshape(40, 5)
NAMES = ("pt", "eta", "phi", "m", "7")


def rows_of(source, start=0, stop=None):
    out = np.empty(((source.m if stop is None else stop) - start, source.features), source.dtype)
    source.read(start, start + len(out), out)
    return out


def data(names: tuple[str, ...] | None = NAMES) -> Dataset:
    place = Place("f.h5: 'y'")
    return Dataset("f.h5", ArrayRows(X, "X"), np.arange(40), np.arange(40.0), "X", "y", "w", None, names, place, names)


@pytest.mark.parametrize("piece", [1 << 20, 64, 1])
@pytest.mark.parametrize("rows", [range(3, 17), range(0, 40, 3), range(5, 40, 34), range(1, 40, 7), range(39, 40)])
def test_ranges_of_rows(rows, piece, monkeypatch):
    monkeypatch.setattr(views, "_PIECE", piece)
    view = RowRange(ArrayRows(X, "X"), rows)
    assert np.array_equal(rows_of(view), X[rows.start : rows.stop : rows.step])
    assert view.where(len(rows) - 1) == f"X row {rows[-1]}" and view.m == len(rows)
    for start in range(0, len(rows), 3):
        assert np.array_equal(rows_of(view, start, len(rows)), X[list(rows)][start:])


def test_rows_far_apart_are_read_one_by_one():
    wide = np.arange(900.0).reshape(300, 3)
    assert np.array_equal(rows_of(RowRange(ArrayRows(wide), range(7, 300, 90))), wide[7:300:90])


@pytest.mark.parametrize("piece", [1 << 20, 64])
@pytest.mark.parametrize("columns", [[0], [4, 0, 2], [1, 2, 3], [3, 2]])
def test_columns_in_any_order(columns, piece, monkeypatch):
    monkeypatch.setattr(views, "_PIECE", piece)
    view = Columns(ArrayRows(X, "X"), columns)
    assert np.array_equal(rows_of(view), X[:, columns]) and np.array_equal(rows_of(view, 7, 31), X[7:31, columns])
    assert f"of which {len(columns)} columns" in view.describe()


@pytest.mark.parametrize(
    ("texts", "rows", "columns"),
    [
        (["rows=10:20"], range(10, 20), range(5)),
        (["rows=:20:4"], range(0, 20, 4), range(5)),
        (["rows=-10:"], range(30, 40), range(5)),
        (["columns=eta,0,-2"], range(40), [1, 0, 3]),
        (["columns=1:3", "rows=:3", "columns=pt"], range(3), [1, 2, 0]),
        (["columns=::2"], range(40), [0, 2, 4]),
        (["columns=7"], range(40), [4]),
        (["columns=-2:, pt"], range(40), [3, 4, 0]),
    ],
)
def test_selections(texts, rows, columns):
    found = select(data(), Selection.of(texts), rows=True)
    assert np.array_equal(rows_of(found.source), X[list(rows)][:, list(columns)])
    assert np.array_equal(found.target, list(rows)) and np.array_equal(found.weights, list(rows))
    assert found.feature_names == tuple(NAMES[column] for column in columns)
    assert found.y_place.row(len(rows) - 1) == f"f.h5: 'y' row {rows[-1]}"
    assert select(data(), Selection.of(texts), rows=False).source.m == 40
    again = Selection.of(Selection.of(texts).absolute(data()).texts())  # what a checkpoint keeps means the same
    assert np.array_equal(rows_of(select(data(), again, rows=True).source), rows_of(found.source))
    assert not any(part.strip().startswith("-") for part in again.columns)


def test_columns_without_names_are_called_by_their_old_numbers():
    found = select(data(None), Selection.of(["columns=3,1"]), rows=True)
    assert found.feature_names is None and found.column_names == ("3 before --select", "1 before --select")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("columns=mass", ["f.h5 has no feature 'mass'; it has 'pt', 'eta'"]),
        ("columns=5", ["f.h5 has no column 5", "-5 … 4"]),
        ("columns=3:6", ["columns 3:6 goes to 6", "columns from 0 to 5"]),
        ("columns=2:2", ["are none of 5"]),
        ("columns=pt,0", ["column 0 is chosen twice"]),
        ("columns=0:3,2", ["column 2 is chosen twice"]),
        ("rows=0:41", ["f.h5: --select rows goes to 41", "rows from 0 to 40, as there are 40"]),
        ("rows=5:5", ["leaves none of 40 rows"]),
        ("columns=0:2:0", ["has a step of 0"]),
    ],
)
def test_what_is_not_there(text, words, refuses):
    with refuses(DataError, *words):
        select(data(), Selection.of([text]), rows=True)


def test_a_name_of_two_columns(refuses):
    with refuses(DataError, "f.h5 has 2 columns of the name 'pt'", "say its number"):
        select(data(("pt", "eta", "pt", "m", "7")), Selection.of(["columns=eta,pt"]), rows=True)


def test_a_name_that_is_another_columns_number(refuses):
    with refuses(DataError, "1 is the name of column 0 and the number of another", "say 1:2 or 0"):
        select(data(("1", "0", "2", "3", "4")), Selection.of(["columns=1"]), rows=True)
    found = select(data(("0", "1", "2", "3", "4")), Selection.of(["columns=3,1"]), rows=True)
    assert found.feature_names == ("3", "1")
    with refuses(DataError, "has no feature 'pt'; its 5 columns have no names"):
        select(data(None), Selection.of(["columns=pt"]), rows=True)


@pytest.mark.parametrize(
    "text", ["rows", "rows=", "rows=5", "rows=1:2:0", "rows=a:b", "columns=", "columns=a,,b", "x=1"]
)
def test_what_is_no_selection(text, refuses):
    with refuses(UsageError, f"--select {text}"):
        Selection.of([text])
    with refuses(UsageError, "after another choice of rows"):
        Selection.of(["rows=:5", "rows=6:"])
