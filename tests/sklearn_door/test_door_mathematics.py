"""The same loss, the same gradient, the same minimum as scikit-learn's MLP."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn import neural_network as theirs
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.preprocessing import LabelBinarizer

from gpubp.sklearn import MLPClassifier, MLPRegressor

RNG = np.random.default_rng(11)
X = RNG.normal(size=(60, 5))
SCORES = X @ RNG.normal(size=(5, 3)) + 0.5 * RNG.normal(size=(60, 3))
TARGETS = {
    "two classes": SCORES[:, 0] > 0,
    "text": np.array(["cat", "dog", "emu"])[SCORES.argmax(axis=1)],
    "several labels": (SCORES > 0).astype(int),
    "real": SCORES[:, 0],
    "real, 3 columns": SCORES,
}
WEIGHTS = RNG.uniform(0.1, 3, 60)


def pair(what: str, **parameters):
    """scikit-learn's estimator and ours, for one kind of y."""
    kind = "MLPRegressor" if what.startswith("real") else "MLPClassifier"
    ours = {"MLPRegressor": MLPRegressor, "MLPClassifier": MLPClassifier}[kind]
    return getattr(theirs, kind)(solver="lbfgs", **parameters), ours(**parameters)


def by_scikit_learn(estimator, y, weights):
    """Its loss and gradient at its coefs_."""
    Y = y.reshape(len(y), -1) if estimator.__class__.__name__ == "MLPRegressor" else LabelBinarizer().fit_transform(y)
    layers = len(estimator.coefs_)
    grads = [np.empty_like(W) for W in estimator.coefs_], [np.empty_like(b) for b in estimator.intercepts_]
    return estimator._backprop(X, Y, weights, [X] + [None] * layers, [None] * layers, *grads)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weights"])
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("what", TARGETS)
def test_loss_and_gradient_are_those_of_scikit_learn(what, activation, weights):
    y = TARGETS[what]
    reference, ours = pair(what, hidden_layer_sizes=(7, 4), activation=activation, alpha=0.7, max_iter=3)
    with pytest.warns(ConvergenceWarning):
        reference.set_params(random_state=3).fit(X, y)
    with pytest.warns(ConvergenceWarning):
        ours.fit(X, y)
    ours.coefs_, ours.intercepts_ = reference.coefs_, reference.intercepts_
    loss, W, b = ours.loss_and_gradient(X, y, weights)
    expected, W_expected, b_expected = by_scikit_learn(reference, y, weights)
    for found, wanted in zip([*W, *b], [*W_expected, *b_expected], strict=True):
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)
    if what == "real, 3 columns":  # its loss takes the mean over columns, its gradient the sum
        total = 60.0 if weights is None else weights.sum()
        penalty = 0.7 / 2 * sum((one**2).sum() for one in reference.coefs_) / total
        expected = 3 * (expected - penalty) + penalty
    assert loss == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(outputs(ours), outputs(reference), rtol=0, atol=1e-12)


def outputs(estimator):
    return estimator.predict_proba(X) if hasattr(estimator, "predict_proba") else estimator.predict(X)


@pytest.mark.parametrize("what", TARGETS)
def test_the_loss_of_a_fit_is_the_loss_at_its_coefs(what):
    y = TARGETS[what]
    _, ours = pair(what, hidden_layer_sizes=(4,), activation="tanh", alpha=0.3, max_iter=500, random_state=0)
    ours.fit(X, y, WEIGHTS)
    loss, W, b = ours.loss_and_gradient(X, y, WEIGHTS)
    assert ours.loss_ == pytest.approx(loss, rel=1e-12) and ours.loss_ == min(ours.loss_curve_)
    assert max(float(np.abs(one).max()) for one in [*W, *b]) <= ours.tol
    assert ours.n_iter_ == len(ours.loss_curve_) > 5


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")  # where rounding is all that SciPy's line search finds
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weights"])
@pytest.mark.parametrize("what", TARGETS)
def test_a_convex_problem_ends_at_the_same_predictions(what, weights):
    y = TARGETS[what]
    reference, ours = pair(what, hidden_layer_sizes=(), alpha=1.0, tol=1e-10, max_iter=2000, random_state=0)
    if what == "real, 3 columns":  # of which scikit-learn's loss and gradient do not belong together: the closed form
        reference = Ridge(alpha=1.0).fit(X, y, sample_weight=weights)
    else:  # SciPy's L-BFGS-B also ends at a relative decrease of 2e-9, which scikit-learn leaves: begin again there
        reference.set_params(warm_start=True)
        for _ in range(20):
            reference.fit(X, y, sample_weight=weights)
    ours.fit(X, y, sample_weight=weights)
    np.testing.assert_allclose(outputs(ours), outputs(reference), rtol=0, atol=1e-6)
    assert np.array_equal(ours.predict(X), reference.predict(X)) or what.startswith("real")


def test_adam_takes_the_steps_of_scikit_learns_where_one_batch_is_all_rows():
    start = theirs.MLPClassifier((6,), "tanh", batch_size=60, max_iter=1, random_state=0, solver="adam")
    with pytest.warns(ConvergenceWarning):
        start.fit(X, TARGETS["text"])
    options = {"warm_start": True, "max_iter": 25, "solver": "adam", "learning_rate_init": 0.03, "beta_1": 0.8}
    options |= {"beta_2": 0.95, "epsilon": 1e-12, "alpha": 0.2, "tol": 0.0, "activation": "tanh"}
    reference = theirs.MLPClassifier((6,), batch_size=60, random_state=0, **options)
    ours = MLPClassifier((6,), **options)
    for one in (reference, ours):
        with pytest.warns(ConvergenceWarning):
            one.set_params(max_iter=1).fit(X, TARGETS["text"])
        one.coefs_ = [W.copy() for W in start.coefs_]
        one.intercepts_ = [b.copy() for b in start.intercepts_]
        with pytest.warns(ConvergenceWarning):
            one.set_params(max_iter=25).fit(X, TARGETS["text"])
    np.testing.assert_allclose(ours.loss_curve_[-25:-1], reference.loss_curve_[-24:], rtol=1e-6)


def test_a_row_of_weight_2_is_the_row_twice_and_a_weight_of_0_is_no_row():
    y, weights = TARGETS["text"], RNG.integers(0, 4, 60)
    parameters = {"hidden_layer_sizes": (6,), "activation": "tanh", "random_state": 0, "alpha": 0.5}
    weighted = MLPClassifier(**parameters).fit(X, y, sample_weight=weights)
    repeated = MLPClassifier(**parameters).fit(np.repeat(X, weights, axis=0), np.repeat(y, weights))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-7)


def test_class_weights_multiply_row_weights():
    y, parameters = TARGETS["text"], {"hidden_layer_sizes": (), "alpha": 1.0, "tol": 1e-10}
    by_class = MLPClassifier(class_weight={"dog": 3.0, "emu": 0.5}, **parameters).fit(X, y, WEIGHTS)
    by_row = MLPClassifier(**parameters).fit(X, y, WEIGHTS * np.select([y == "dog", y == "emu"], [3.0, 0.5], 1.0))
    np.testing.assert_allclose(by_class.predict_proba(X), by_row.predict_proba(X), atol=1e-7)
    counts = np.array([(y == label).sum() for label in ("cat", "dog", "emu")])
    balanced = MLPClassifier(class_weight="balanced", **parameters).fit(X, y)
    given = dict(zip(["cat", "dog", "emu"], 60 / (3 * counts), strict=True))  # scikit-learn's n / (K · bincount(y))
    alike = MLPClassifier(class_weight=given, **parameters).fit(X, y)
    np.testing.assert_allclose(balanced.predict_proba(X), alike.predict_proba(X), atol=1e-7)
