"""What a report says of a model's quality, beside `gpubp evaluate` and beside the outputs taken row by row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from running import write

import gpubp
from gpubp import cost as costs
from gpubp.backend import for_forward
from gpubp.inference import evaluate
from gpubp.model_rows import rows_for
from gpubp.prepare import array_dataset
from gpubp.report import report, sections
from gpubp.report.measures import measure
from gpubp.report.numbers import NumberCollector
from gpubp.report.plain import _quality

rng = np.random.default_rng(7)
X = rng.normal(size=(400, 6)).astype(np.float32)
SCORE = X[:, 0] * X[:, 1] + X[:, 2]
CASES = {
    "classes": (np.digitize(SCORE, [-1, 0.5]) + 1, {}),
    "one against all": (np.digitize(SCORE, [-1, 0.5]), {"cost": "logistic"}),
    "binary": (np.where(SCORE > 0, "yes", "no"), {}),
    "binary of squares": (SCORE > 0, {"cost": "sigmoid_squares"}),
    "labels": (np.stack([SCORE > 0, X[:, 3] > 1], axis=1).astype(np.uint8), {}),
    "real": (SCORE, {}),
    "several reals": (np.stack([SCORE, X[:, 4] ** 2], axis=1), {}),
}


def case(name, weighted):
    y, options = CASES[name]
    w = rng.integers(0, 4, len(y)).astype(float) if weighted else None
    model = gpubp.train(X, y, hidden=(5,), iterations=12, **options)
    rows = rows_for(model, array_dataset(X, y, w), labelled=True)
    return model, rows


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_figures_are_those_of_evaluate(name, weighted):
    model, rows = case(name, weighted)
    backend = for_forward("cpu")
    expected = evaluate(model, rows, backend=backend)
    found = measure(model, rows, backend=backend)
    plain = _quality(found, model.targets.classes)
    assert plain["weighted"] == weighted
    shared = {key for key in expected if key in plain}
    assert shared >= {"rows", "cost"} | ({"rmse", "r2"} if "real" in name else {"accuracy"})
    for key in shared:
        if isinstance(expected[key], float):
            assert plain[key] == pytest.approx(expected[key], rel=1e-12), key
        else:
            assert plain[key] == pytest.approx(expected[key]) if key.endswith("output") else plain[key] == expected[key]
    if name == "labels":
        shares = [(one["right"] + (rows.weight_sum - one["rows"] - one["answered"] + one["right"])) / rows.weight_sum
                  for one in plain["each"]]  # fmt: skip
        assert shares == pytest.approx(expected["accuracy_per_label"])


@pytest.mark.parametrize("name", CASES)
def test_the_worst_rows_are_those_of_the_largest_cost(name):
    model, rows = case(name, weighted=True)
    found = measure(model, rows, backend=for_forward("cpu"), worst=5)
    h = model.predict_proba(X, precision="fp64")
    y = np.asarray(rows.labels).reshape(len(X), -1)
    if model.targets.kind in ("classes", "binary"):
        y = np.eye(h.shape[1])[y[:, 0].astype(int)]
    if "squares" in name or model.targets.kind == "real":
        cost = ((h - y) ** 2).sum(axis=1) / (4 if name == "binary of squares" else 2)
    elif model.network.cost == "softmax" or model.targets.kind == "binary":
        cost = -np.log((h * y).sum(axis=1))
    else:
        cost = -(y * np.log(h) + (1 - y) * np.log(1 - h)).sum(axis=1)
    cost[rows.weights == 0] = -np.inf
    assert [one.row for one in found.worst] == np.argsort(-cost, kind="stable")[:5].tolist()
    assert [one.cost for one in found.worst] == pytest.approx(np.sort(cost)[::-1][:5], rel=1e-9)
    assert all((one.x == X[one.row]).all() for one in found.worst)
    first = found.worst[0]
    if first.of_truth is not None:
        assert first.of_truth == pytest.approx(float((h * y).sum(axis=1)[first.row]))
        assert first.probability == pytest.approx(float(h[first.row].max()))


@pytest.mark.parametrize("name", ["classes", "binary", "labels"])
def test_calibration_is_that_of_the_probabilities_themselves(name):
    model, rows = case(name, weighted=True)
    found = measure(model, rows, backend=for_forward("cpu"), precision="fp64").answers
    h, y, w = model.predict_proba(X, precision="fp64"), np.asarray(rows.labels), np.asarray(rows.weights)
    if name == "classes":  # the answer's, and whether it is right
        p, true = h.max(axis=1), h.argmax(axis=1) == y
    elif name == "binary":  # the second class's, and whether it is that one
        p, true = h[:, 1], y.ravel() == 1
    else:  # each label's
        p, true, w = h.ravel(), y.ravel() == 1, np.repeat(w, 2)
    bins = [(p > b / 15) & (p <= (b + 1) / 15) for b in range(15)]
    assert found.calibration.weight == pytest.approx([w[one].sum() for one in bins])
    share = [np.average(true[one], weights=w[one]) if w[one].sum() else np.nan for one in bins]
    assert found.calibration.share == pytest.approx(share, nan_ok=True)
    off = [abs((w[one] * (true[one] - p[one])).sum()) for one in bins]
    assert found.calibration.ece == pytest.approx(sum(off) / w.sum(), rel=1e-9)


def test_a_cost_whose_rows_are_not_known_is_said_to_be_so(monkeypatch, tmp_path, undrawn):
    """As a new one is that does not say which score an output has."""
    model = gpubp.train(X, SCORE, hidden=(3,), iterations=2, kernel="numpy", out=tmp_path / "run")
    data = write(tmp_path / "d.h5", X=X, y=SCORE)
    monkeypatch.setitem(costs._COSTS, "squares", replace(costs.cost("squares"), inverse=None))
    found = report(tmp_path / "run", data, limit=False)
    assert "nan" not in " ".join(found.material.said.sentences) and model.network.cost == "squares"
    assert found.material.said.kind == "unknown" and found.numbers["worst"] == []
    assert "±" not in sections.quality(found.material, found.numbers).partition("Calibration")[0]
    assert "what a single row costs is not known of squares" in sections.worst(found.material, found.numbers)


def test_the_standard_error_is_that_of_a_mean_over_rows():
    model, rows = case("classes", weighted=False)
    found = measure(model, rows, backend=for_forward("cpu"), precision="fp64")
    h = model.predict_proba(X, precision="fp64")
    cost = -np.log(h[np.arange(len(X)), np.asarray(rows.labels)])
    assert found.cost_se == pytest.approx(cost.std() / np.sqrt(len(X)), rel=1e-9)
    w = rng.integers(0, 4, len(X)).astype(float)
    weighted = measure(
        model, rows_for(model, array_dataset(X, CASES["classes"][0], w), labelled=True), backend=for_forward("cpu"),
        precision="fp64",
    )  # fmt: skip
    assert weighted.cost == pytest.approx(np.average(cost, weights=w))
    around = cost - weighted.cost  # the variance of Σw c / Σw, rows being independent
    assert weighted.cost_se == pytest.approx(np.sqrt((w**2 * around**2).sum()) / w.sum(), rel=1e-9)
    shares = np.bincount(rows.labels) / len(X)
    assert found.constant == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-9)  # the entropy of y


def test_a_class_without_a_row_has_no_figures():
    model, _ = case("classes", weighted=False)
    y = np.where(CASES["classes"][0] == 3, 2, CASES["classes"][0])
    found = measure(model, rows_for(model, array_dataset(X, y), labelled=True), backend=for_forward("cpu"))
    assert found.answers is not None
    third = found.answers.each[2]
    assert (third.rows, third.recall, third.auc, third.ap) == (0, None, None, None)
    assert found.answers.mean_auc is not None and set(found.answers.curves) == {"1", "2"}


def test_many_residuals_are_a_sample_by_a_fixed_rule_and_errors_count_all_rows():
    y = rng.normal(size=(1000, 2))
    h = y + 0.1 * rng.normal(size=y.shape)
    w = rng.integers(0, 3, 1000).astype(float)
    collected = []
    for size in (1000, 37):
        collect = NumberCollector(y, w, most=300)
        for at in range(0, 1000, size):
            collect.add(at, h[at : at + size], y[at : at + size], w[at : at + size])
        collected.append(collect.result())
    one, other = collected
    chosen = np.arange(0, 1000, 7)
    chosen = chosen[w[chosen] > 0]
    assert one.every == 7 and (one.predicted == h[chosen]).all() and (one.truth == y[chosen]).all()
    assert (other.predicted == one.predicted).all()
    assert one.rmse_each == pytest.approx(np.sqrt(np.average((h - y) ** 2, axis=0, weights=w)))
    assert one.bias == pytest.approx(np.average(h - y, axis=0, weights=w))
    error = np.sort(np.repeat(np.abs(h[chosen] - y[chosen]).ravel(), np.repeat(w[chosen], 2).astype(int)))
    assert one.within == pytest.approx([error[int(np.ceil(q * len(error))) - 1] for q in (0.5, 0.9, 0.99)])
