"""X as a file or a dataset of h5py's: the rows stay on the disk, and nothing else is another than with arrays."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from running import write

pytest.importorskip("sklearn")
from sklearn.metrics import accuracy_score

from gpubp.sklearn import MLPClassifier, MLPRegressor

RNG = np.random.default_rng(3)
X = RNG.normal(size=(400, 6)).astype(np.float32)
Y = np.array(["no", "yes", "perhaps"])[(X @ RNG.normal(size=(6, 3))).argmax(axis=1)]
W = RNG.uniform(0.5, 2, 400)
SMALL = {"hidden_layer_sizes": (5,), "activation": "tanh", "random_state": 0, "alpha": 0.1}


@pytest.fixture
def data(tmp_path):
    return write(tmp_path / "data.h5", X=X, y=Y.astype("S"), counts=W, other=X[:, 0], few=X[:10])


def same(a, b) -> bool:
    return all(
        np.array_equal(one, two) for one, two in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True)
    )


@pytest.mark.parametrize("memory", [None, 2000])
@pytest.mark.parametrize("form", [str, Path, lambda p: [p], lambda p: str(p.parent / "d*.h5")])
def test_a_file_trains_as_its_arrays_do(data, form, memory):
    stored = MLPClassifier(**SMALL, memory=memory).fit(form(data))
    arrays = MLPClassifier(**SMALL).fit(X, Y)
    assert same(stored, arrays) and stored.classes_.tolist() == ["no", "perhaps", "yes"]
    assert stored.loss_curve_ == arrays.loss_curve_
    assert np.array_equal(stored.predict(form(data)), arrays.predict(X))
    assert np.array_equal(stored.predict_proba(data), arrays.predict_proba(X))
    assert stored.score(data) == accuracy_score(Y, arrays.predict(X)) == stored.score(data, Y)


def test_names_arrays_and_datasets_as_y_and_weights(data):
    weighted = MLPClassifier(**SMALL).fit(X, Y, W)
    with h5py.File(data) as file:
        for y, w in (("y", "counts"), (Y, W), (file["y"], file["counts"]), (None, W.tolist())):
            assert same(MLPClassifier(**SMALL).fit(file["X"], y, w), weighted)
            assert same(MLPClassifier(**SMALL).fit(data, y, w), weighted)
        assert (
            weighted.score(file["X"], file["y"], file["counts"])
            == weighted.score(X, Y, W)
            == weighted.score(data, "y", "counts")
        )
        assert np.array_equal(weighted.predict(file["few"]), weighted.predict(X[:10]))
    assert not same(MLPClassifier(**SMALL).fit(data), weighted)
    numbers = MLPRegressor(**SMALL, tol=0.01).fit(data, "other")
    assert same(numbers, MLPRegressor(**SMALL, tol=0.01).fit(X, X[:, 0])) and numbers.score(data, "other") > 0.9


def test_weights_of_a_usual_name_are_found_and_no_prediction_needs_them(tmp_path):
    data = write(tmp_path / "weighted.h5", X=X, y=Y.astype("S"), w=W, few=X[:10])
    found = MLPClassifier(**SMALL).fit(data)
    assert same(found, MLPClassifier(**SMALL).fit(X, Y, W)) and found.score(data) == found.score(X, Y, W)
    with h5py.File(data) as file:
        assert np.array_equal(found.predict(file["few"]), found.predict(X[:10]))


def test_a_dataset_that_is_being_written_is_refused(data):
    with h5py.File(data, "r+") as file, pytest.raises(ValueError, match="open in a program that writes to it"):
        MLPClassifier().fit(file["X"], file["y"])


def test_early_stopping_and_standardising_on_a_file(data):
    more = {"early_stopping": True, "scale": "standard", "n_iter_no_change": 3, "validation_fraction": 0.2}
    stored = MLPClassifier(**SMALL, **more, memory=2000).fit(data)
    arrays = MLPClassifier(**SMALL, **more).fit(X, Y)
    assert same(stored, arrays) and stored.validation_scores_ == arrays.validation_scores_


def test_test_rows_are_for_scores_and_names_are_checked(tmp_path):
    path = tmp_path / "split.h5"
    with h5py.File(path, "w") as file:
        for split, part in (("train", slice(0, 300)), ("test", slice(300, None))):
            file[f"{split}/X"], file[f"{split}/y"] = X[part], Y[part].astype("S")
    found = MLPClassifier(**SMALL).fit(path)
    assert same(found, MLPClassifier(**SMALL).fit(X[:300], Y[:300]))
    assert np.array_equal(found.predict(path), found.predict(X[300:])) and found.score(path) == found.score(
        X[300:], Y[300:]
    )


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda d: MLPClassifier().fit("nowhere.h5"), "nowhere.h5"),
        (lambda d: MLPClassifier().fit(d, Y[:-1]), r"y of shape \(399,\) beside 400 rows"),
        (lambda d: MLPClassifier().fit(d, "absent"), "absent"),
        (lambda d: MLPClassifier().fit(d, Y, W[:-1]), r"weights of shape \(399,\)"),
        (lambda d: MLPClassifier(**SMALL, tol=1).fit(X[:, :5], Y).predict(d), "X has 6 features, but MLPClassifier is"),
        (lambda d: MLPRegressor().fit(d, "y"), "Unknown label|wanted numbers"),
        (lambda d: MLPClassifier().fit(d, "other"), "Unknown label type"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(data, call, said):
    with pytest.raises(ValueError, match=said):
        call(data)
