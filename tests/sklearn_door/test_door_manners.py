"""What people do with an estimator: parameters, attributes, warm starts, pipelines, processes, pickles.

Many are the ideas of scikit-learn's `test_mlp.py`, tried anew.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from scipy import sparse

pytest.importorskip("sklearn")
from sklearn import neural_network as theirs
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gpubp.errors import BackendError
from gpubp.sklearn import MLPClassifier, MLPRegressor

RNG = np.random.default_rng(7)
X = RNG.normal(size=(150, 4))
Y = np.array(["ape", "bee", "cow"])[(X @ RNG.normal(size=(4, 3)) + 0.3 * RNG.normal(size=(150, 3))).argmax(axis=1)]
T = np.sin(X[:, 0]) + X[:, 1]
WEIGHTS = RNG.uniform(0.2, 3, 150)
SMALL = {"hidden_layer_sizes": (5,), "activation": "tanh", "random_state": 0, "alpha": 0.1}


def test_the_parameters_are_those_of_scikit_learn_with_its_defaults_and_a_few_more():
    more = {"class_weight", "solver_options", "backend", "precision", "scale", "memory", "threads"}
    for ours, other in ((MLPClassifier(), theirs.MLPClassifier()), (MLPRegressor(), theirs.MLPRegressor())):
        have, want = ours.get_params(), other.get_params()
        assert set(have) - set(want) == more - (set() if hasattr(ours, "predict_proba") else {"class_weight"})
        assert {name: have[name] for name in want if name != "solver"} == {
            name: value for name, value in want.items() if name != "solver"
        }


def test_the_attributes_are_those_of_scikit_learn():
    for ours, other in ((MLPClassifier(**SMALL), theirs.MLPClassifier), (MLPRegressor(**SMALL), theirs.MLPRegressor)):
        reference = other((5,), "tanh", max_iter=1) if other is theirs.MLPClassifier else other("squared_error", (5,))
        y = Y if other is theirs.MLPClassifier else T
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            reference.set_params(max_iter=2).fit(X, y)
        ours.fit(X, y)
        public = {name for name in vars(reference) if name.endswith("_") and not name.startswith("_")}
        assert public - set(vars(ours)) == set()
        for name in ("n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
            assert getattr(ours, name) == getattr(reference, name), name
        assert [W.shape for W in ours.coefs_] == [W.shape for W in reference.coefs_]
        assert [b.shape for b in ours.intercepts_] == [b.shape for b in reference.intercepts_]


def test_the_best_loss_and_the_rows_that_were_seen():
    """A row of weight 0 is none that was seen; under a larger α a warm start ends higher than the fit before."""
    kept = np.arange(150) % 3 > 0
    net = MLPClassifier(**SMALL, solver="adam", max_iter=12, warm_start=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        net.fit(X, Y, sample_weight=kept)
        evaluations, left = divmod(net.t_, int(kept.sum()))
        assert left == 0 and 12 <= evaluations <= 13
        net.set_params(alpha=1000).fit(X, Y)
    assert net.best_loss_ == min(net.loss_curve_) < net.loss_


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batch_size": 32}, "batch_size has no effect: every step sees all rows"),
        ({"momentum": 0.5, "shuffle": False}, "shuffle, momentum have no effect: every step sees all rows"),
        ({"beta_1": 0.5}, "beta_1 has no effect: solver is 'lbfgs'"),
        ({"n_iter_no_change": 3}, "n_iter_no_change has no effect: early_stopping is off"),
    ],
)
def test_what_has_no_effect_says_so(given, said):
    plain = MLPClassifier(**SMALL).fit(X, Y)
    with pytest.warns(UserWarning) as caught:
        ours = MLPClassifier(**SMALL, **given).fit(X, Y)
    assert [str(one.message) for one in caught] == [said]
    assert np.array_equal(ours.coefs_[0], plain.coefs_[0])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"solver": "sgd"}, "solver 'sgd'; wanted a solver for all rows at once; take 'lbfgs', or 'adam'"),
        ({"solver": "newton"}, "optimizer 'newton'; wanted one of adam, cg"),
        ({"solver_options": {"speed": 1}}, "option 'speed' of optimizer lbfgs"),
        ({"activation": "step"}, "activation 'step'"),
        ({"hidden_layer_sizes": (5, 0)}, "hidden_layer_sizes must be > 0"),
        ({"hidden_layer_sizes": 2.5}, "hidden_layer_sizes must be > 0"),
        ({"alpha": -1}, "alpha = -1; wanted a number, 0 or more"),
        ({"tol": "small"}, "tol = 'small'"),
        ({"max_iter": 0}, "max_iter = 0"),
        ({"scale": "log"}, "scaling 'log'"),
        ({"precision": "fp8"}, "fp8"),
        ({"early_stopping": True, "n_iter_no_change": 0}, "n_iter_no_change = 0"),
        ({"early_stopping": True, "validation_fraction": 0.001}, "The test_size|too small|greater or equal"),
        ({"early_stopping": True, "validation_fraction": 1.0}, "validation_fraction = 1.0; wanted a number between 0"),
        ({"class_weight": {"elk": 2.0}}, "a class weight for 'elk', which y has not"),
    ],
)
def test_what_cannot_be_meant_is_one_line(given, said):
    with pytest.raises(ValueError, match=said) as caught:
        MLPClassifier(**{**SMALL, **given}).fit(X, Y)
    assert "\n" not in str(caught.value)


def test_options_of_the_command_line_have_their_names_here():
    two = MLPClassifier(**{**SMALL, "class_weight": "balanced"})
    with pytest.raises(ValueError, match=r"^class_weight with 2 labels, .* give rows weights: sample_weight$"):
        two.fit(X, np.stack([Y == "ape", Y != "ape"], axis=1))


def test_other_refusals():
    with pytest.raises(ValueError, match="loss 'poisson'; wanted 'squared_error'"):
        MLPRegressor("poisson").fit(X, T)
    with pytest.raises(ValueError, match="the same classes"):
        MLPClassifier(**SMALL, warm_start=True).fit(X, Y).fit(X, np.where(Y == "ape", "elk", Y))
    with pytest.raises(ValueError, match="same layers"):
        MLPClassifier(**SMALL, warm_start=True).fit(X, Y).set_params(hidden_layer_sizes=(4,)).fit(X, Y)
    with pytest.raises(BackendError, match="no GPU"):
        MLPClassifier(backend="gpu").fit(X, Y)
    assert not hasattr(MLPClassifier(), "partial_fit") and not hasattr(MLPRegressor(solver="adam"), "partial_fit")


def test_several_classes_in_columns_are_refused():
    columns = np.stack([RNG.integers(0, 3, 150), RNG.integers(0, 3, 150)], axis=1)
    with pytest.raises(ValueError, match="several columns of classes in y"):
        MLPClassifier().fit(X, columns)


def test_a_limit_warns_with_its_numbers():
    with pytest.warns(ConvergenceWarning, match=r"limit of 3 iterations .* max\|∇J\| = .*; raise max_iter"):
        assert MLPClassifier(**SMALL, max_iter=3).fit(X, Y).n_iter_ == 3
    with pytest.warns(ConvergenceWarning, match="limit of 5 evaluations"):
        assert MLPRegressor(**SMALL, max_fun=5).fit(X, T).n_iter_ <= 5


def test_a_standstill_far_from_the_minimum_warns():
    with pytest.warns(ConvergenceWarning, match="stalled: .* found no decrease"):
        MLPRegressor(hidden_layer_sizes=(3, 3, 3), random_state=0).fit(X * 1e100, T * 1e150)


def test_a_loss_that_is_not_finite_is_an_error():
    with pytest.raises(ValueError, match="large values"):
        MLPRegressor(hidden_layer_sizes=(3,), random_state=0).fit(X, T * 1e200)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_fit_that_does_not_end_leaves_the_estimator_as_it_was(error, monkeypatch):
    def interrupted(*args: object, **more: object) -> None:
        raise error

    net = MLPClassifier(**SMALL).fit(X, Y)
    before = dict(vars(net))
    monkeypatch.setattr("gpubp.training.fit", interrupted)
    with pytest.raises(error):
        net.fit(X[:, :2], np.where(Y == "ape", "one", "two"))
    assert vars(net).keys() == before.keys() and all(vars(net)[name] is before[name] for name in before)
    assert set(net.predict(X)) <= set(Y)
    fresh = MLPClassifier(**SMALL)
    with pytest.raises(error):
        fresh.fit(X, Y)
    assert not [name for name in vars(fresh) if name.endswith("_")]


def test_tolerance_ends_a_fit():
    rough, fine = (MLPClassifier(**SMALL, tol=tol).fit(X, Y) for tol in (1e-1, 1e-6))
    assert rough.n_iter_ < fine.n_iter_ and rough.loss_ > fine.loss_
    assert "converged" in fine.ending_


def test_a_stronger_alpha_makes_smaller_weights():
    norms = [sum((W**2).sum() for W in MLPClassifier(**{**SMALL, "alpha": a}).fit(X, Y).coefs_) for a in (0.1, 1, 10)]
    assert norms[0] > norms[1] > norms[2]


def test_random_state_is_the_seed():
    one, same, other = (MLPClassifier(**{**SMALL, "random_state": s}).fit(X, Y) for s in (3, 3, 4))
    assert np.array_equal(one.coefs_[0], same.coefs_[0]) and not np.array_equal(one.coefs_[0], other.coefs_[0])
    drawn = [
        MLPClassifier(**{**SMALL, "random_state": np.random.RandomState(s)}).fit(X, Y).coefs_[0] for s in (5, 5, 6)
    ]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])


def test_a_warm_start_goes_on_where_the_fit_before_ended():
    ours = MLPClassifier(**SMALL, warm_start=True, max_iter=4)
    with pytest.warns(ConvergenceWarning):
        first = ours.fit(X, Y).loss_
    seen = ours.t_
    with pytest.warns(ConvergenceWarning):
        ours.fit(X, Y)
    assert ours.n_iter_ == 4 and len(ours.loss_curve_) == 8 and ours.t_ > seen
    assert ours.loss_curve_[4] < first and ours.loss_curve_ == sorted(ours.loss_curve_, reverse=True)
    with pytest.warns(ConvergenceWarning):
        cold = ours.set_params(warm_start=False).fit(X, Y)
    assert cold.loss_ == first and len(cold.loss_curve_) == 4


def test_a_warm_start_at_the_minimum_stays_there():
    ours = MLPClassifier(**SMALL, warm_start=True).fit(X, Y)
    coefs, loss = [W.copy() for W in ours.coefs_], ours.loss_
    ours.fit(X, Y)
    assert ours.n_iter_ == 0 and ours.loss_ == loss
    assert all(np.array_equal(a, b) for a, b in zip(coefs, ours.coefs_, strict=True))


def test_a_warm_start_keeps_the_scaling_that_its_coefs_are_for():
    ours = MLPClassifier(**SMALL, warm_start=True, scale="standard").fit(X, Y)
    before = ours.scaling_
    assert ours.fit(3 * X + 1, Y).scaling_ is before


@pytest.mark.parametrize("kind", ["classes", "labels", "numbers"])
def test_early_stopping_keeps_what_did_best_on_rows_held_out(kind):
    noisy = np.where(RNG.random(150) < 0.3, RNG.permutation(Y), Y)
    labels = np.stack([noisy == "ape", noisy != "bee"], axis=1).astype(int)  # a row counts where all are right
    y = {"classes": noisy, "labels": labels, "numbers": T + RNG.normal(size=150)}[kind]
    ours = (MLPRegressor if kind == "numbers" else MLPClassifier)(
        hidden_layer_sizes=(40,), activation="tanh", random_state=1, alpha=0, early_stopping=True, n_iter_no_change=5,
        validation_fraction=0.3,
    ).fit(X, y, WEIGHTS)  # fmt: skip
    assert ours.n_iter_ < 200 and "stopped early" in ours.ending_
    assert len(ours.validation_scores_) == ours.n_iter_ and ours.best_loss_ is None
    # the rows held out, as scikit-learn would choose them
    from sklearn.model_selection import train_test_split

    stratify = y if kind == "classes" else None
    _, held = train_test_split(np.arange(150), test_size=0.3, random_state=1, stratify=stratify)
    score = r2_score if kind == "numbers" else accuracy_score
    assert ours.best_validation_score_ == pytest.approx(
        score(y[held], ours.predict(X[held]), sample_weight=WEIGHTS[held])
    )
    assert ours.best_validation_score_ in [pytest.approx(one) for one in ours.validation_scores_]
    if kind == "numbers":  # where the score falls as the loss rises
        assert ours.best_validation_score_ == max(ours.validation_scores_) > ours.validation_scores_[-1]
        assert "by more than 1e-05" in ours.set_params(tol=1e-5).fit(X, y, WEIGHTS).ending_


def test_verbose_prints_the_loss_of_each_iteration(capsys):
    ours = MLPRegressor(**SMALL, verbose=True).fit(X, T)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"Iteration {k}, loss = {J:.8f}" for k, J in enumerate(ours.loss_curve_, 1)]


def test_labels_come_back_as_they_were():
    for y in (Y, Y == "ape", np.where(Y == "ape", -3, 10), np.where(Y == "ape", 0.0, 1.0), Y.astype(object)):
        found = MLPClassifier(**SMALL).fit(X, y)
        answers = found.predict(X)
        assert answers.dtype == found.classes_.dtype and set(answers.tolist()) <= set(np.asarray(y).tolist())
        assert found.score(X, y) > 0.9


def test_the_gradient_over_rows_that_lack_a_class():
    ours = MLPClassifier(**SMALL).fit(X, Y)
    shares = [(Y == "ape").mean(), (Y != "ape").mean()]
    whole = ours.set_params(alpha=0).loss_and_gradient(X, Y)
    parts = [ours.loss_and_gradient(X[chosen], Y[chosen]) for chosen in (Y == "ape", Y != "ape")]
    assert whole[0] == pytest.approx(sum(share * part[0] for share, part in zip(shares, parts, strict=True)))
    with pytest.raises(ValueError, match="the same classes"):
        ours.loss_and_gradient(X, np.where(Y == "ape", "elk", Y))
    with pytest.raises(ValueError, match="the same classes"):
        ours.set_params(warm_start=True).fit(X[Y != "ape"], Y[Y != "ape"])


def test_a_single_class_is_always_the_answer():
    found = MLPClassifier(**SMALL).fit(X, np.full(150, "ape"))
    assert set(found.predict(X)) == {"ape"} and found.predict_proba(X).tolist() == [[pytest.approx(1)]] * 150


def test_several_labels():
    labels = np.stack([X[:, 0] > 0, X[:, 1] > 0, X[:, 0] + X[:, 1] > 0], axis=1).astype(int)
    found = MLPClassifier(**SMALL, tol=1e-3, max_iter=500)
    p = found.fit(X, labels).predict_proba(X)
    assert p.shape == (150, 3) and np.array_equal(found.predict(X), p > 0.5) and found.score(X, labels) > 0.9
    assert np.array_equal(clone(found).fit(X, sparse.csr_array(labels)).predict_proba(X), p)


def test_probabilities_and_their_logarithms():
    found = MLPClassifier((), alpha=0, max_iter=50).fit(np.array([[-1e3], [1e3]]), [0, 1])
    p = found.predict_proba(np.array([[-1e6], [1e6]]))
    assert (p > 0).all() and (p < 1).all() and np.isfinite(found.predict_log_proba([[-1e6]])).all()
    found = MLPClassifier(**SMALL).fit(X, Y)
    np.testing.assert_allclose(found.predict_proba(X).sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(found.predict_log_proba(X)), found.predict_proba(X))


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_array, sparse.coo_array])
def test_sparse_rows_give_what_dense_rows_give(form):
    thin = np.where(np.abs(X) < 1, 0, X)
    dense, found = MLPClassifier(**SMALL).fit(thin, Y), MLPClassifier(**SMALL).fit(form(thin), Y)
    assert np.array_equal(dense.coefs_[0], found.coefs_[0])
    assert np.array_equal(dense.predict_proba(thin), found.predict_proba(form(thin)))


def test_sparse_rows_that_do_not_fit_are_made_dense_in_each_pass():
    wide = sparse.random_array((4000, 500), density=0.01, rng=np.random.default_rng(1), format="csr")
    y = np.asarray(wide.sum(axis=1)).ravel()
    found = [
        MLPRegressor(hidden_layer_sizes=(3,), random_state=0, memory=size, tol=0.05).fit(wide, y)
        for size in (None, 10**6)
    ]
    assert np.array_equal(found[0].coefs_[0], found[1].coefs_[0])


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [(np.float64, "fp64"), (np.float32, "fp32"), (np.uint8, "fp32"), (np.int64, "fp64"), (np.float16, "fp32")],
)
def test_the_precision_follows_the_type_of_the_rows(dtype, precision):
    rows = (10 * np.abs(X)).astype(dtype)
    found = MLPClassifier(**SMALL, max_iter=1, tol=10).fit(rows, Y)
    assert found.precision_ == precision and found.coefs_[0].dtype == np.float64
    assert MLPClassifier(**SMALL, tol=10, precision="fp32").fit(X, Y).precision_ == "fp32"


def test_scaling_is_part_of_the_estimator():
    far = X * [1, 100, 0.01, 1] + [0, 1000, 0, 5]
    convex = {"hidden_layer_sizes": (), "alpha": 1.0, "tol": 1e-9}
    inside = MLPClassifier(**convex, scale="standard").fit(far, Y)
    outside = make_pipeline(StandardScaler(), MLPClassifier(**convex)).fit(far, Y)
    np.testing.assert_allclose(inside.predict_proba(far), outside.predict_proba(far), atol=1e-6)


@pytest.mark.parametrize("solver", ["klbfgs", "adam", "cg", "scg", "irprop"])
def test_other_solvers(solver):
    rate = {"learning_rate_init": 0.05} if solver == "adam" else {}
    found = MLPClassifier(**SMALL, solver=solver, tol=1e-2, max_iter=500, **rate)
    assert found.fit(X, Y).score(X, Y) > 0.9


@pytest.mark.filterwarnings("ignore::UserWarning")  # scikit-learn's at max_iter, ours of batch_size
@pytest.mark.parametrize("home", ["sklearn.neural_network", "gpubp.sklearn"])
def test_one_changed_import(home):
    script = f"""
from {home} import MLPClassifier, MLPRegressor
classes = make_pipeline(StandardScaler(), MLPClassifier((10,), "logistic", solver="adam", learning_rate_init=0.05,
    batch_size=50, max_iter=300, n_iter_no_change=20, alpha=1e-3, random_state=0, early_stopping=False))
numbers = make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=[10, 5], max_iter=800, random_state=0,
    tol=1e-2, learning_rate_init=0.01, momentum=0.8))
"""
    names = {"make_pipeline": make_pipeline, "StandardScaler": StandardScaler}
    exec(script, names)
    assert names["classes"].fit(X, Y).score(X, Y) > 0.9 and names["numbers"].fit(X, T).score(X, T) > 0.9


def test_pipeline_grid_search_and_clone():
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(**SMALL))
    search = GridSearchCV(pipeline, {"mlpclassifier__alpha": [0.1, 100.0]}, cv=3).fit(X, Y)
    assert search.best_params_ == {"mlpclassifier__alpha": 0.1} and search.best_score_ > 0.85
    assert clone(search.best_estimator_).get_params()["mlpclassifier__alpha"] == 0.1


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_processes_and_threads_give_the_same_scores(backend):
    import joblib

    model = MLPClassifier(**SMALL).fit(X, Y)  # threads were at work in this process before it forks
    alone = cross_val_score(model, X, Y, cv=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads about, from Python 3.12 on
        with joblib.parallel_backend(backend, n_jobs=2):
            assert np.array_equal(cross_val_score(model, X, Y, cv=4), alone)


def test_a_worker_of_joblib_has_one_thread_unless_told_otherwise():
    from joblib import Parallel, delayed

    from gpubp.sklearn.arguments import job_of

    def threads(**given: int) -> int | None:
        net = MLPClassifier(**SMALL, **given)
        net._seed = 0
        return job_of(net, cost="softmax", dtype=X.dtype).threads

    assert threads() is None and threads(threads=3) == 3
    several = Parallel(n_jobs=2, backend="threading")
    assert several([delayed(threads)(), delayed(threads)(threads=3)]) == [1, 3]


def test_a_fitted_estimator_pickles_small_and_knows_all_it_needs():
    ours = MLPClassifier(**SMALL, scale="standard", class_weight="balanced").fit(X, Y)
    packed = pickle.dumps(ours)
    assert len(packed) < 8 * sum(W.size for W in ours.coefs_) + 8 * len(ours.loss_curve_) + 4000
    again = pickle.loads(packed)
    assert np.array_equal(again.predict_proba(X), ours.predict_proba(X)) and again.loss_curve_ == ours.loss_curve_


def test_what_is_written_into_coefs_is_what_predicts():
    ours = MLPRegressor(hidden_layer_sizes=(3,), tol=1e9).fit(X, T)
    ours.coefs_[1][...] = 0
    ours.intercepts_[1][...] = 5
    assert np.array_equal(ours.predict(X), np.full(150, 5.0))


def test_metadata_of_row_weights_is_routed():
    import sklearn

    with sklearn.config_context(enable_metadata_routing=True):
        model = MLPClassifier(**SMALL).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        weights = RNG.uniform(1, 2, 150)
        assert len(cross_val_score(model, X, Y, params={"sample_weight": weights}, cv=3)) == 3


def test_the_door_is_light_and_says_what_it_needs():
    code = "import sys, gpubp.sklearn; print({'h5py', 'numba', 'cupy', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"
    code = "import importlib.util as u; u.find_spec = lambda name: None\n"
    code += "try: import gpubp.sklearn\nexcept ImportError as e: print(e)"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said == "gpubp.sklearn without scikit-learn; install it with pip install 'gpubp[sklearn]'\n"


def test_the_examples_in_the_docstrings():
    import doctest

    from gpubp.sklearn import classifier, regressor

    for module in (classifier, regressor):
        found = doctest.testmod(module)
        assert found.attempted >= 3 and found.failed == 0
