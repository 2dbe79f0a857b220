"""Prediction and evaluation against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import gpubp
from gpubp.backend.numpy import NumpyBackend
from gpubp.data.rows import Rows
from gpubp.data.scaling import Scaling
from gpubp.data.source import ArrayRows
from gpubp.data.targets import TargetSpec
from gpubp.errors import DataError
from gpubp.inference import Model, evaluate, outputs

NONE = Scaling("none", None, None)
X = np.random.default_rng(0).normal(size=(5000, 4))  # three blocks of the CPU backend


def model(targets: TargetSpec, cost: str) -> Model:
    network = gpubp.Network((4, 6, targets.outputs), activation="tanh", cost=cost)
    return Model(network, network.initial_Theta(1) * 3, NONE, targets)


def plain_outputs(it: Model) -> np.ndarray:
    T1, T2 = it.matrices
    z = np.tanh(X @ T1[:, 1:].T + T1[:, 0]) @ T2[:, 1:].T + T2[:, 0]
    if it.network.cost == "softmax":
        return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return z if it.network.cost == "squares" else 1 / (1 + np.exp(-z))


def rows(labels: np.ndarray, weights: np.ndarray | None = None) -> Rows:
    return Rows(ArrayRows(X), X[:0], NONE, labels, weights)


CLASSES = TargetSpec("classes", ("a", "b", "c"), 3)


@pytest.mark.parametrize("threads", [1, 3])
def test_outputs_come_in_order_whoever_computes_them(threads):
    it = model(CLASSES, "softmax")
    backend = NumpyBackend(threads)
    backend.most_rows = 2048
    chunks = list(outputs(it, rows(np.zeros(5000, np.uint8)), backend=backend, precision="fp64"))
    assert [c.start for c in chunks] == [0, *[c.stop for c in chunks[:-1]]] and len(chunks) == 3
    np.testing.assert_allclose(np.concatenate([c.h for c in chunks]), plain_outputs(it), rtol=1e-12)


def test_a_classifier_evaluated():
    it, labels = model(CLASSES, "softmax"), (np.arange(5000) % 3).astype(np.uint8)
    h = plain_outputs(it)
    weights = np.linspace(0, 2, 5000)
    found = evaluate(it, rows(labels, weights), backend=NumpyBackend(), precision="fp64")
    assert found["cost"] == pytest.approx(-(weights @ np.log(h[np.arange(5000), labels])) / weights.sum(), rel=1e-12)
    assert found["accuracy"] == pytest.approx(weights @ (h.argmax(axis=1) == labels) / weights.sum(), rel=1e-12)
    unweighted = evaluate(it, rows(labels), backend=NumpyBackend(), precision="fp64")
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (labels, h.argmax(axis=1)), 1)
    assert unweighted["confusion"] == expected.tolist()
    assert it.predict(X, backend="cpu").tolist() == np.array(["a", "b", "c"])[h.argmax(axis=1)].tolist()


def test_two_classes_labels_and_regression():
    two = model(TargetSpec("binary", (1, 2), 1), "logistic")
    h = plain_outputs(two)[:, 0]
    assert two.predict(X, backend="cpu").tolist() == np.where(h >= 0.5, 2, 1).tolist()
    np.testing.assert_allclose(two.predict_proba(X, backend="cpu")[:, 1], h, rtol=1e-4)
    many = model(TargetSpec("multilabel", None, 3), "logistic")
    y = (np.random.default_rng(3).random((5000, 3)) < 0.5).astype(np.uint8)
    found = evaluate(many, rows(y), backend=NumpyBackend(), precision="fp64")
    hits = (plain_outputs(many) >= 0.5) == y
    assert found["accuracy"] == pytest.approx(hits.mean()) and found["exact"] == pytest.approx(hits.all(axis=1).mean())
    real = model(TargetSpec("real", None, 2), "squares")
    h = plain_outputs(real)
    y = h + np.random.default_rng(4).normal(size=h.shape)
    found = evaluate(real, rows(y), backend=NumpyBackend(), precision="fp64")
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((h - y) ** 2)), rel=1e-12)
    r2 = 1 - ((h - y) ** 2).sum(axis=0) / ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    assert found["r2"] == pytest.approx(r2.mean(), rel=1e-12)
    assert found["cost"] == pytest.approx(0.5 * np.sum((h - y) ** 2) / 5000, rel=1e-12)


def test_rows_that_do_not_fit_are_refused():
    it = model(CLASSES, "softmax")
    with pytest.raises(DataError, match="rows of 3 features; wanted 4"):
        it.predict(X[:, :3], backend="cpu")
    holed = X.copy()
    holed[4321, 2] = np.nan
    with pytest.raises(DataError, match="row 4321, column 2"):
        it.predict(holed, backend="cpu")
