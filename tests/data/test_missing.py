"""Missing values: what is found, what replaces them, and that no reading of rows changes a bit of it."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp.data import missing
from gpubp.data.missing import look, rows_with_gaps
from gpubp.data.scaling import choose_scaling
from gpubp.data.scan import scan
from gpubp.data.source import ArrayRows
from gpubp.data.views import Filled, Gapless
from gpubp.errors import DataError

RNG = np.random.default_rng(8)


def holed(m: int = 200, d: int = 6, kind: str = "f4") -> np.ndarray:
    X = (RNG.normal(size=(m, d)) * 3 + 5).astype(kind)
    X[RNG.random((m, d)) < 0.1] = np.nan
    return X


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_means_are_those_of_the_values_that_are_there(kind):
    X = holed(kind=kind)
    gaps = look(ArrayRows(X))
    expected = np.nanmean(X.astype("f8"), axis=0)
    assert np.array_equal(gaps.means, gaps.means.astype(kind).astype("f8"))
    np.testing.assert_allclose(gaps.means, expected, rtol=8 * float(np.finfo(kind).eps))
    assert gaps.rows is not None and np.array_equal(gaps.rows, np.isnan(X).any(axis=1))
    assert np.array_equal(rows_with_gaps(ArrayRows(X)), gaps.rows)
    whole = np.where(np.isnan(X), gaps.means.astype(kind), X)
    out = np.empty_like(X)
    Filled(ArrayRows(X), gaps.means).read(0, len(X), out)
    assert np.array_equal(out, whole)


def test_means_count_training_rows_and_weights():
    X, w, training = holed(), RNG.integers(0, 4, 200).astype(float), RNG.random(200) < 0.7
    rows = np.repeat(np.arange(200), np.where(training, w, 0).astype(int))
    expected = np.nanmean(X[rows].astype("f8"), axis=0)
    np.testing.assert_allclose(look(ArrayRows(X), training=training, weights=w).means, expected, rtol=1e-6)
    assert (
        rows_with_gaps(ArrayRows(np.ones((3, 2)))) is None and rows_with_gaps(ArrayRows(np.ones((3, 2), "i4"))) is None
    )
    assert look(ArrayRows(np.ones((3, 2)))).rows is None


def test_equal_numbers_stay_constant():
    X = np.full((1000, 2), 0.1)
    X[::3, 0] = np.nan
    X[0, 0], X[1:, 1] = np.nan, np.nan
    assert look(ArrayRows(X)).means.tolist() == [0.1, 0.1]


def test_pieces_change_nothing(monkeypatch):
    X = holed(kind="f8")
    expected = look(ArrayRows(X))
    seen: list[int] = []
    monkeypatch.setattr(missing, "_PIECE", 100)
    found = look(ArrayRows(X), progress=seen.append)
    np.testing.assert_allclose(found.means, expected.means, rtol=1e-15)
    assert np.array_equal(found.rows, expected.rows) and seen[-1] == 200 and len(seen) == 100


def test_kept_and_streamed_rows_are_the_same_bits():
    X = holed(5000, 7)
    source = Filled(ArrayRows(X), look(ArrayRows(X)).means)
    (a, kept), (b, few) = scan(source, budget=1 << 30), scan(source, budget=1000)
    assert len(kept) == 5000 and len(few) < 100 and a.fingerprint == b.fingerprint
    out = np.empty_like(X)
    source.read(0, 5000, out)
    assert np.array_equal(out, kept) and np.array_equal(kept[: len(few)], few) and np.isfinite(kept).all()


def test_what_no_mean_can_help(refuses):
    X = holed()
    X[:, 3] = np.nan
    with refuses(DataError, "column 3 ('d') has no value in any training row", "--select columns"):
        look(ArrayRows(X), column_names=tuple("abcdef"))
    X = holed()
    X[17, 2] = np.nan
    X[17, 4] = -np.inf
    with refuses(DataError, "X row 17, column 4 is -inf", "finite numbers"):
        look(ArrayRows(X, "X"))
    with refuses(DataError, "the sum of column 0 is beyond float64"):
        look(ArrayRows(np.array([[1e308], [-1e308], [-1.7e308]])))


def test_a_gap_where_there_may_be_none(refuses):
    X = np.ones((10, 3))
    X[7, 1] = np.nan
    source = Gapless(ArrayRows(X, "X"))
    source.read(0, 7, np.empty((7, 3)))
    with refuses(DataError, "X row 7, column 1 is missing (NaN)", "--missing drop", "--missing mean"):
        source.read(4, 9, np.empty((5, 3)))


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_a_constant_column_has_no_deviation(kind):
    """0.1 in float32, a million times: Σx²/m − x̄² gives it a deviation of 4e-6."""
    X = np.full((1_000_000, 1), 0.1, kind)
    statistics, _ = scan(ArrayRows(X), budget=0)
    scaling = choose_scaling("standard", statistics, X.dtype)
    assert statistics.std[0] == 0 and scaling.scale is not None and scaling.scale[0] == 1
    assert not scaling.apply(X[:5]).any()
    weighted, _ = scan(ArrayRows(X[:1000]), weights=RNG.random(1000), budget=0)
    assert weighted.std[0] == 0
