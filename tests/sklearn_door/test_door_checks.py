"""scikit-learn's own checks of an estimator, all of them, none expected to fail."""

from __future__ import annotations

import pytest

pytest.importorskip("sklearn")
from sklearn.utils.estimator_checks import parametrize_with_checks

from gpubp.sklearn import MLPClassifier, MLPRegressor


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:n_iter_no_change has no effect")  # which one of them sets
@parametrize_with_checks([MLPClassifier(), MLPRegressor()])
def test_every_check_of_an_estimator_passes(estimator, check):
    check(estimator)
