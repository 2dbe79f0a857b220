"""The pass over every row: exact moments, the same bits whatever the budget, and nothing that is not finite."""

from __future__ import annotations

import math
import threading
import tracemalloc

import numpy as np
import pytest
from raw_rows import later

from gpubp.data import scan as scan_module
from gpubp.data.moments import block_shape
from gpubp.data.scaling import Scaling, choose_scaling
from gpubp.data.scan import scan
from gpubp.data.source import ArrayRows, StackedRows
from gpubp.errors import DataError, UsageError

RNG = np.random.default_rng(4)
BIG = 1 << 40


def statistics(X, **options):
    return scan(ArrayRows(np.asarray(X)), budget=BIG, **options)[0]


def exact(X, weights=None):
    """Mean and deviation in extended precision, two passes."""
    X = np.asarray(X).astype(np.longdouble)
    w = np.ones(len(X)) if weights is None else weights
    w = w.astype(np.longdouble)[:, None]
    mean = (w * X).sum(0) / w.sum()
    return mean.astype(float), np.sqrt((w * (X - mean) ** 2).sum(0) / w.sum()).astype(float)


def same(a, b):
    return (
        a.count == b.count
        and a.fingerprint == b.fingerprint
        and all(np.array_equal(getattr(a, f), getattr(b, f)) for f in ("mean", "std", "minimum", "maximum"))
    )


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i8", "f2", "f4", "f8"])
@pytest.mark.parametrize(("m", "d"), [(1, 3), (2, 1), (5000, 1), (3001, 28), (700, 784), (70, 5000)])
def test_moments_of_every_type_and_shape(dtype, m, d):
    X = (RNG.normal(size=(m, d)) * 20 + 60).clip(0, 120).astype(dtype)
    found = statistics(X)
    mean, std = exact(X)
    assert found.count == m
    np.testing.assert_allclose(found.mean, mean, rtol=1e-14)
    np.testing.assert_allclose(found.std, std, rtol=1e-13, atol=1e-13)
    assert np.array_equal(found.minimum, X.min(0)) and np.array_equal(found.maximum, X.max(0))


def test_a_large_mean_does_not_swallow_the_deviation():
    n = 200_000
    X = np.stack([1e9 + RNG.normal(size=n), -1e12 + RNG.normal(size=n), RNG.normal(size=n) * 1e-9 + 1], axis=1)
    found = statistics(X)
    mean, std = exact(X)
    np.testing.assert_allclose(found.std, std, rtol=1e-11)
    assert (abs(found.mean - mean) / std < [1e-6, 1e-3, 1e-6]).all()  # one rounding of a mean of 1e12 is 1e-4


def test_an_outlier_in_the_first_row_and_a_trend_do_no_harm():
    X = np.arange(300_000.0).reshape(-1, 2) + RNG.normal(size=(150_000, 2))
    X[0] = 1e7
    np.testing.assert_allclose(statistics(X).std, exact(X)[1], rtol=1e-12)


def test_constant_columns_have_deviation_exactly_zero():
    X = RNG.normal(size=(10_000, 5)).astype("f4")
    X[:, 1], X[:, 3] = 0.1, 1e30
    found = statistics(X)
    assert found.std[[1, 3]].tolist() == [0, 0] and (found.std[[0, 2, 4]] > 0.9).all()
    assert found.mean[1] == float(np.float32(0.1))


def test_only_training_rows_count():
    X = RNG.normal(size=(30_000, 4)).astype("f4")
    mask = RNG.random(30_000) < 0.8
    X[~mask] += 1000
    found = statistics(X, training=mask)
    mean, std = exact(X[mask])
    assert found.count == mask.sum()
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(found.std, std, rtol=1e-12)
    assert found.maximum.max() < 100
    assert found.fingerprint != statistics(X).fingerprint


def test_weight_two_is_the_row_twice_and_weight_zero_is_no_row():
    X = RNG.normal(size=(9000, 3)) + np.array([0, 50, -3])
    weights = RNG.integers(0, 4, 9000).astype(float)
    repeated = np.repeat(X, weights.astype(int), axis=0)
    found, wanted = statistics(X, weights=weights), statistics(repeated)
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-13)
    np.testing.assert_allclose(found.std, wanted.std, rtol=1e-13)
    assert np.array_equal(found.minimum, wanted.minimum) and found.count == (weights > 0).sum()
    np.testing.assert_allclose(found.std, exact(X, weights)[1], rtol=1e-13)


def test_without_a_training_row_there_is_nothing_to_do(refuses):
    with refuses(DataError, "X 3 × 2 float64: no row is left"):
        statistics(np.ones((3, 2)), weights=np.zeros(3))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_a_value_that_is_not_finite_is_named(bad, dtype, refuses, h5, hdf_rows):
    X = RNG.normal(size=(4000, 28)).astype(dtype)
    X[3456, 17] = bad
    with refuses(DataError, f"X row 3456, column 17 is {bad}", "finite"):
        statistics(X)
    names = tuple(f"f{i}" for i in range(28))
    path = h5({"X": X})
    with refuses(DataError, f"d.h5: 'X' row 3456, column 17 ('f17') is {bad}"):
        scan(hdf_rows(path), budget=0, feature_names=names)
    with refuses(DataError, "X row 3456"):  # in a row that does not count
        statistics(X, training=np.arange(4000) < 3000)
    second = StackedRows([ArrayRows(X[:1000], "train"), ArrayRows(X[1000:], "val")])
    with refuses(DataError, "val row 2456, column 17"):
        scan(second, budget=0)


def test_numbers_whose_squares_overflow_are_named(refuses):
    X = np.ones((10, 3))
    X[:, 1] = np.linspace(-1e300, 1e300, 10)
    with refuses(DataError, "column 1 goes from -1e+300 to 1e+300", "squares are finite"):
        statistics(X)


@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_the_budget_changes_nothing_but_what_is_kept(dtype, h5, hdf_rows, monkeypatch):
    monkeypatch.setattr(scan_module, "_PIECE", 100_000)
    X = (RNG.normal(size=(5003, 37)) * 30 + 100).astype(dtype)
    path = h5({"X": X})
    row = 37 * X.itemsize
    mask = RNG.random(5003) < 0.9
    whole, kept = scan(ArrayRows(X), training=mask, budget=BIG)
    assert kept is X or np.shares_memory(kept, X)
    for rows in (0, 1, 2999, 5002, 5003, 9999):
        source = hdf_rows(path)
        found, kept = scan(source, training=mask, budget=rows * row + row // 2)
        assert same(found, whole)
        assert kept.shape == (min(rows, 5003), 37) and kept.dtype == X.dtype and kept.flags.c_contiguous
        assert (rows == 0 or kept.ctypes.data % 64 == 0) and np.array_equal(kept, X[:rows])
    found, kept = scan(ArrayRows(np.asfortranarray(X)), training=mask, budget=1000 * row)
    assert same(found, whole) and np.array_equal(kept, X[:1000])


@pytest.mark.parametrize("dtype", ["u1", "f2", "f4", "f8"])
@pytest.mark.parametrize(("m", "d"), [(7001, 28), (900, 700), (40_000, 1)])
def test_threads_change_nothing(dtype, m, d, monkeypatch, h5, hdf_rows):
    monkeypatch.setattr(scan_module, "_PIECE", 300_000)
    X = (RNG.normal(size=(m, d)) * 30 + 100).astype(dtype)
    source = hdf_rows(h5({"X": X}))
    mask, weights = RNG.random(m) < 0.9, RNG.integers(1, 4, m) / 2
    mask[: m // 2] = True  # whole blocks in one half, some rows of each in the other
    for options in ({}, {"training": mask}, {"weights": weights}, {"training": mask, "weights": weights * mask}):
        wanted = scan(ArrayRows(X), budget=0, threads=1, **options)[0]
        for threads in (2, 3, 8):
            found, kept = scan(source, budget=X.nbytes // 2, threads=threads, **options)
            assert same(found, wanted) and np.array_equal(kept, X[: len(kept)])


def test_blocks_at_a_time_change_nothing(monkeypatch):
    X, weights = RNG.normal(size=(60_000, 9)), RNG.random(60_000)
    wanted = [statistics(X), statistics(X, weights=weights)]
    for group in (1, 3, 50):
        monkeypatch.setattr(scan_module, "_GROUP", group)
        assert same(statistics(X), wanted[0]) and same(statistics(X, weights=weights), wanted[1])


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", "u2", "i4", "u8", "i8", "f2", "f4", "f8"])
def test_compiled_sums_are_numpys_to_the_bit(dtype, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(scan_module, "_WORTH", 0)
    for d in (1, 2, 3, 5, 28, 511, 512, 513, 3000):
        _, rows = block_shape(d)
        X = (RNG.normal(size=(5 * rows + 7, d)) * 30 + 100).astype(dtype)
        X[:, d // 2] = X[0, d // 2]
        found = [statistics(X, compiled=compiled) for compiled in (False, True)]
        assert same(*found), d


def test_the_first_bad_row_is_named_whoever_finds_one(monkeypatch, refuses):
    monkeypatch.setattr(scan_module, "_PIECE", 1)
    X = RNG.normal(size=(300_000, 2)).astype("f4")
    X[250_000:, 1] = np.inf
    for threads in (1, 2, 5):
        X[70_001, 1] = np.nan
        with refuses(DataError, "X row 70001, column 1 is nan"):
            scan(ArrayRows(X), budget=0, threads=threads)
        X[70_001, 1] = -np.inf
        mask = np.arange(len(X)) > 80_000  # rows that do not count must be finite too
        with refuses(DataError, "X row 70001, column 1 is -inf"):
            scan(ArrayRows(X), budget=0, threads=threads, training=mask)
    assert not [thread for thread in threading.enumerate() if "scan" in thread.name]


def test_a_file_that_changes_meanwhile_is_noticed(h5, hdf_rows, refuses):
    path = h5({"X": np.ones((50, 2))})
    with refuses(DataError, "written to after it was opened"):
        scan(hdf_rows(path), budget=0, progress=lambda done: later(path))


def test_memory_does_not_grow_with_the_rows(h5, hdf_rows):
    def peak(m):
        path = h5({"X": np.zeros((m, 20), "f4")}, name=f"{m}.h5")
        source = hdf_rows(path)
        tracemalloc.start()
        scan(source, budget=0, threads=2)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    small, large = peak(300_000), peak(900_000)
    assert large < small + 500_000


def test_the_fingerprint_sees_every_change():
    X = RNG.normal(size=(20_000, 6)).astype("f4")
    seen = {statistics(X).fingerprint}
    changed = X.copy()
    changed[12_345, 4] = np.nextafter(changed[12_345, 4], 9, dtype="f4")
    swapped = X.copy()
    swapped[[0, 19_999]] = swapped[[19_999, 0]]
    for other in (changed, swapped, X[:-1], X[:, ::-1], X.astype("f8")):
        seen.add(statistics(np.ascontiguousarray(other)).fingerprint)
    seen.add(statistics(X, weights=np.linspace(0.5, 1, 20_000)).fingerprint)
    assert len(seen) == 7
    assert statistics(X.copy()).fingerprint in seen


def test_the_fingerprint_is_the_same_on_every_machine():
    """A figure of this very code (the means are exact): who changes it breaks every resume of an older run."""
    X = (np.arange(30_000, dtype=np.uint32) * np.uint32(2654435761) >> np.uint32(8)).astype("f4").reshape(-1, 3)
    found = statistics(X)
    assert found.mean.tolist() == [8389456.2955, 8388348.7771000005, 8387241.259]
    assert found.fingerprint == "c5870b76382e662c2f10123ce28b78e8"


def test_progress_counts_the_rows(monkeypatch):
    monkeypatch.setattr(scan_module, "_PIECE", 1)
    done = []
    scan(ArrayRows(np.ones((100_000, 2))), budget=0, progress=done.append)
    assert done == sorted(done) and done[-1] == 100_000 and len(done) > 3


def test_a_budget_beyond_all_memory_is_a_line(refuses, h5, hdf_rows, monkeypatch):
    path = h5({"X": np.ones((5, 2))})
    source = hdf_rows(path)

    def no_room(*_):
        raise MemoryError

    monkeypatch.setattr(scan_module, "_aligned", no_room)
    with refuses(UsageError, "no room for 5 rows", "--memory"):
        scan(source, budget=BIG)


def test_choosing_a_scaling(refuses):
    pixels = statistics(RNG.integers(0, 256, (50, 3)).astype("u1"))
    flags = statistics(RNG.integers(0, 2, (50, 3)).astype("u1"))
    u1, f4 = np.dtype("u1"), np.dtype("f4")
    assert choose_scaling("auto", pixels, u1).kind == "255"
    assert choose_scaling("auto", flags, u1).kind == "standard"
    assert choose_scaling("auto", pixels, f4).kind == "standard"
    assert choose_scaling("auto", pixels, np.dtype("i4")).kind == "standard"
    for kind in ("none", "standard", "255"):
        assert choose_scaling(kind, pixels, u1).kind == kind
    with refuses(UsageError, "scaling 'minmax'", "auto, none, standard, 255"):
        choose_scaling("minmax", pixels, u1)


def test_applying_a_scaling():
    X = RNG.normal(size=(500, 4)).astype("f4") * 3 + 7
    X[:, 2] = 5
    found = choose_scaling("standard", statistics(X), X.dtype)
    scaled = found.apply(X)
    assert scaled.dtype == np.float64
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(scaled.std(0), [1, 1, 0, 1], rtol=1e-12)
    assert (scaled[:, 2] == 0).all()
    bytes_ = np.arange(256, dtype="u1").reshape(-1, 1)
    by_255 = choose_scaling("255", statistics(bytes_), bytes_.dtype)
    assert np.array_equal(by_255.apply(bytes_), np.arange(256)[:, None] / 255)
    assert np.array_equal(Scaling("none", None, None).apply(X), X.astype(float))
    assert {choose_scaling(kind, statistics(X), X.dtype).describe() for kind in ("none", "standard", "255")} == {
        "Features are used as they are.",
        "Features are standardised with the mean and deviation of the training rows.",
        "Features are divided by 255.",
    }


def test_sums_over_many_rows_do_not_drift():
    X = np.full((3_000_000, 1), 0.1, "f4")
    X[1::2] = 0.3
    low, high = float(np.float32(0.1)), float(np.float32(0.3))
    found = statistics(X)
    assert math.isclose(found.mean[0], (low + high) / 2, rel_tol=1e-15)
    assert math.isclose(found.std[0], (high - low) / 2, rel_tol=1e-14)
