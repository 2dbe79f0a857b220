"""The full look at columns: every figure against NumPy's own, gaps and all."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp.data import columns
from gpubp.data.columns import look
from gpubp.data.source import ArrayRows
from gpubp.errors import DataError

RNG = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Many blocks and pieces from few rows."""
    monkeypatch.setattr(columns, "_BLOCK", 512)
    monkeypatch.setattr(columns, "_PIECE", 1 << 14)
    monkeypatch.setattr(columns, "_WIDE", 32)


def check(X, rtol=1e-12, **options):
    """`look`'s figures are those of the definition."""
    found = look(ArrayRows(X), **options)
    wide = X.astype(np.float64)
    finite = np.isfinite(wide)
    assert found.rows == len(X)
    np.testing.assert_array_equal(found.missing, np.isnan(wide).sum(0))
    np.testing.assert_array_equal(found.infinite, np.isinf(wide).sum(0))
    assert found.rows_missing == np.isnan(wide).any(1).sum()
    for k in range(X.shape[1]):
        values = wide[finite[:, k], k]
        if not values.size:
            assert np.isnan(found.mean[k]) and np.isnan(found.std[k]) and not found.constant[k] and not found.whole[k]
            continue
        exact = values.astype(np.longdouble)
        assert found.minimum[k] == values.min() and found.maximum[k] == values.max()
        np.testing.assert_allclose(
            found.mean[k], float(exact.mean()), rtol=rtol, atol=rtol * float(np.abs(exact).mean())
        )
        np.testing.assert_allclose(found.std[k], float(exact.std()), rtol=1e-9)
        assert found.whole[k] == bool((values == np.rint(values)).all())
        assert found.constant[k] == (values.min() == values.max())
    assert found.minimum.dtype == found.maximum.dtype == ArrayRows(X).dtype
    return found


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.uint8, np.int8, np.int16, np.int32, np.uint16]
)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (5000, 3), (2001, 28), (40, 700), (3, 5000)])
def test_plain_columns(dtype, shape):
    scale = 100 if np.dtype(dtype).kind in "iu" else 3
    X = (RNG.random(shape) * scale - (scale / 2 if np.dtype(dtype).kind in "if" else 0)).astype(dtype)
    check(X)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_gaps_in_every_place(dtype):
    X = RNG.normal(size=(3001, 13)).astype(dtype)
    X[RNG.random(X.shape) < 0.05] = np.nan
    X[:400, 1] = np.nan  # the first blocks have no value at all
    X[:, 2] = np.nan
    X[:, 3] = np.inf
    X[17, 4], X[18, 4] = np.inf, -np.inf
    X[:, 5] = 2.5
    X[9, 5] = np.nan
    X[:, 6] = RNG.integers(0, 4, len(X))
    X[RNG.random(len(X)) < 0.3, 6] = np.nan
    X[-1] = np.nan
    found = check(X)
    assert found.constant.tolist() == [k == 5 for k in range(13)] and found.std[5] == 0
    assert found.whole.tolist() == [k == 6 for k in range(13)]


def test_a_large_mean_and_a_constant_column_stay_exact():
    X = np.stack([1e9 + RNG.normal(size=4000), np.full(4000, 0.1), np.arange(4000) * 1e6], 1)
    found = check(X)
    assert found.std[1] == 0 and found.mean[1] == 0.1
    np.testing.assert_allclose(found.std[0], X[:, 0].std(), rtol=1e-7)
    constants = np.tile(RNG.normal(size=9), (4001, 1))  # whose means are not always what they are means of
    assert look(ArrayRows(constants)).std.tolist() == [0] * 9
    assert look(ArrayRows(constants)).mean.tolist() == constants[0].tolist()
    jump = np.r_[np.zeros(2000), 1e9 + RNG.normal(size=2000)][:, None]
    check(jump)
    far = np.full((3000, 1), 7.0)
    far[0] = 1e12  # the first row is far from all others
    check(far)


def test_values_that_begin_late_and_lie_far_from_zero():
    X = 1e9 + RNG.normal(size=(1000, 2))
    X[:300, 0] = np.nan
    assert check(X).missing.tolist() == [300, 0]


def test_whole_numbers_are_those_of_all_rows():
    X = np.tile(RNG.integers(-3, 9, (4000, 1)).astype(np.float32), (1, 4))
    X[3999, 1] += 0.5
    X[0, 2] += 0.25
    assert check(X).whole.tolist() == [True, False, False, True]
    assert check(X, threads=1).whole.tolist() == [True, False, False, True]


def test_whether_float32_is_enough():
    X = RNG.normal(size=(3000, 4)).astype(np.float32).astype(np.float64)
    X[5, 2] = np.nan
    X[6, 2] = np.inf
    assert check(X).narrow
    X[2999, 3] = 0.1
    assert not check(X).narrow
    assert not check(X.astype(np.float32)).narrow  # nothing to gain
    X[2999, 3] = 1e300
    with np.errstate(over="ignore"):
        assert not look(ArrayRows(X)).narrow


def test_bytes_are_summed_exactly():
    X = np.full((70_000, 3), 255, np.uint8)
    X[::2, 1] = 0
    found = look(ArrayRows(X))
    assert found.mean.tolist() == [255, 127.5, 255] and found.std.tolist() == [0, 127.5, 0]


def test_bytes_are_summed_exactly_in_blocks_as_large_as_they_get(monkeypatch):
    """255² times the lines of a block stay below 2²⁴, where float32 still counts by ones, for every width."""
    monkeypatch.undo()
    for d in (1, 28, 511, 512, 513, 784, 1023, 1024, 1025, 5000):
        fold, rows = columns._block_shape(d)
        assert 255**2 * (rows // fold) < 2**24, d
    X = np.full((600, 513), 255, np.uint8)
    X[0] = 254
    np.testing.assert_allclose(look(ArrayRows(X)).std, X[:, 0].std(), rtol=1e-12)


def test_large_integers_keep_their_ends():
    X = np.array([[2**62 + 1, -(2**62) - 1], [2**62 + 3, 5]], np.int64)
    found = look(ArrayRows(X))
    assert found.minimum.tolist() == X.min(0).tolist() and found.maximum.tolist() == X.max(0).tolist()


def test_the_number_of_threads_changes_no_bit():
    X = RNG.normal(size=(20_000, 7)).astype(np.float32)
    X[RNG.random(X.shape) < 0.01] = np.nan
    one, four = look(ArrayRows(X), threads=1), look(ArrayRows(X), threads=4)
    for name in ("minimum", "maximum", "mean", "std", "missing", "infinite", "whole"):
        assert getattr(one, name).tobytes() == getattr(four, name).tobytes(), name


def test_columns_that_may_be_equal():
    X = RNG.normal(size=(500, 6))
    X[:, 4] = X[:, 1]
    X[:, 5] = X[:, 2] = 3.0
    X[7, 3] = X[7, 0] = np.nan
    assert look(ArrayRows(X)).equals() == [[1, 4]]


def test_values_whose_squares_are_not_finite():
    X = np.array([[1e200, 1.0], [-1e200, 2.0], [3e200, 3.0]])
    found = look(ArrayRows(X))
    assert not np.isfinite(found.std[0]) and found.maximum[0] == 3e200 and found.std[1] == pytest.approx(np.sqrt(2 / 3))


def test_progress_and_an_error_on_the_way():
    X = RNG.normal(size=(30_000, 3))
    seen = []
    look(ArrayRows(X), progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen) and seen[-1] == (30_000, 30_000) and len(seen) > 3

    class Broken(ArrayRows):
        def read(self, start, stop, out):
            if start > 5000:
                raise DataError("the disk is gone")
            super().read(start, stop, out)

    with pytest.raises(DataError, match="the disk is gone"):
        look(Broken(X))
