"""Which row is for what: folds partition the rows, parts lie one within the other, scaling is that of training rows."""

from __future__ import annotations

from contextlib import closing
from itertools import pairwise

import numpy as np
import pytest

from gpubp.choosing import roles
from gpubp.data.source import ArrayRows
from gpubp.data.split import validation_mask
from gpubp.data.views import Picked
from gpubp.errors import UsageError
from gpubp.job import Job
from gpubp.prepare import array_dataset, prepare


def test_every_row_is_held_out_in_exactly_one_fold_and_is_trained_on_in_all_others():
    held = np.array([roles.fold(k, 5, 3)(1000) for k in range(5)])
    assert set(np.unique(held)) == {-1, 1}
    assert ((held == -1).sum(axis=0) == 1).all()
    sizes = (held == -1).sum(axis=1)
    assert sizes.min() > 150 and sizes.max() < 250


def test_rows_appended_to_a_file_leave_the_folds_of_earlier_rows():
    np.testing.assert_array_equal(roles.fold_of_rows(2000, 7, 1)[:900], roles.fold_of_rows(900, 7, 1))
    assert (roles.fold_of_rows(900, 7, 1) != roles.fold_of_rows(900, 7, 2)).any()


def test_folds_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="has none"):
        roles.fold_of_rows(4, 100, 0)
    with pytest.raises(UsageError, match="2 or more"):
        roles.fold_of_rows(4, 1, 0)


def test_parts_nest_hold_out_the_same_rows_and_end_with_all_rows():
    held = validation_mask(800, 0.25, 4)
    assert held is not None
    parts = [roles.part(n, 0.25, 4, 0)(800) for n in (10, 37, 200, int((~held).sum()))]
    for part in parts:
        np.testing.assert_array_equal(part < 0, held)
    for smaller, larger in pairwise(parts):
        assert ((smaller == 1) <= (larger == 1)).all()
    assert [(part == 1).sum() for part in parts[:3]] == [10, 37, 200]
    assert (parts[-1] != 0).all()
    other = roles.part(200, 0.25, 4, 1)(800)
    assert ((other < 0) == held).all() and ((other == 1) != (parts[2] == 1)).any()


def test_a_part_of_a_sorted_file_has_rows_from_everywhere():
    chosen = np.flatnonzero(roles.part(100, 0.2, 0, 0)(5000) == 1)
    assert chosen.min() < 500 and chosen.max() > 4500 and 2000 < chosen.mean() < 3000


def test_sizes_grow_by_about_the_same_factor():
    assert roles.sizes(1000, 4, 1) == (1, 10, 100, 1000)
    assert roles.sizes(12, 8, 10) == (10, 11, 12)  # whole numbers, each once
    with pytest.raises(UsageError, match="more than 10"):
        roles.sizes(10, 4, 10)


@pytest.mark.parametrize("share", [0.9, 0.2, 0.004])
def test_picked_rows_are_those_rows_however_they_are_asked_for(share, monkeypatch):
    monkeypatch.setattr("gpubp.data.views._PIECE", 500)
    X = np.arange(5000 * 3, dtype=np.float32).reshape(5000, 3)
    rows = np.flatnonzero(np.random.default_rng(0).random(5000) < share)
    view = Picked(ArrayRows(X), rows)
    whole = np.empty((len(rows), 3), np.float32)
    view.read(0, view.m, whole)
    np.testing.assert_array_equal(whole, X[rows])
    for start, stop in ((0, 1), (3, 9), (len(rows) - 4, len(rows))):
        out = np.empty((stop - start, 3), np.float32)
        view.read(start, stop, out)
        np.testing.assert_array_equal(out, X[rows[start:stop]])
    assert view.where(2) == ArrayRows(X).where(int(rows[2]))


@pytest.mark.parametrize("weighted", [False, True])
def test_scaling_and_sums_are_those_of_the_rows_trained_on(weighted):
    rng = np.random.default_rng(1)
    X, y = rng.normal(3, 2, (300, 4)), rng.integers(0, 2, 300)
    weights = rng.uniform(0.5, 2, 300) if weighted else None
    of = roles.part(40, 0.3, 2, 0)
    role = of(300)
    with closing(prepare(Job(hidden=(3,), precision="fp64"), array_dataset(X, y, weights), roles=of)) as part:
        assert part.rows.m == (role != 0).sum() and part.rows.validation is not None
        w = np.ones(300) if weights is None else weights
        mean = np.average(X[role == 1], axis=0, weights=w[role == 1])
        np.testing.assert_allclose(part.rows.scaling.mean, mean, rtol=1e-12)
        np.testing.assert_allclose(part.rows.weight_sum, w[role == 1].sum())
        np.testing.assert_allclose(part.rows.validation_sum, w[role == -1].sum())
