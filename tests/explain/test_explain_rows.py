"""A row as a run's model sees it: scaling, classes, several labels, targets, missing values; and numbers typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import write

import gpubp
from gpubp.errors import DataError, UsageError
from gpubp.explain import rows
from gpubp.inference import Model
from gpubp.model_rows import open_for
from gpubp.network import Network

RNG = np.random.default_rng(12)
X = RNG.normal(size=(60, 4)) * [1, 20, 0.1, 3] + [0, 100, 0, -2]
GAPS = np.where(RNG.random(X.shape) < 0.1, np.nan, X)
NAMES = np.array(["ant", "bee", "cat"])[np.arange(60) % 3]

CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "text": (X, NAMES.astype("S3"), {"scale": "standard"}),
    "ten": (X, np.arange(60) % 10 + 1, {"cost": "logistic"}),
    "bytes": (RNG.integers(0, 256, (60, 4)).astype(np.uint8), np.arange(60) % 3, {"activation": "relu"}),
    "binary": (X, np.arange(60) % 2 + 1, {}),
    "labels": (X, RNG.integers(0, 2, (60, 3)), {}),
    "real": (X, X @ RNG.normal(size=(4, 2)), {"activation": "tanh"}),
    "gaps": (GAPS, np.arange(60) % 3, {"missing": "mean"}),
}
WHOLE = {"whole rows": (GAPS, np.arange(60) % 3, {"missing": "drop"})}


def trained(path: Path, name: str) -> tuple[Model, Path]:
    values, y, options = (CASES | WHOLE)[name]
    file = write(path / f"{name}.h5", X=values, y=y)
    return gpubp.train(file, hidden=(5, 4), iterations=3, backend="cpu", kernel="numpy", **options), file


@pytest.mark.parametrize("name", CASES)
def test_a_row_of_a_file_is_what_the_model_sees(name, tmp_path):
    model, file = trained(tmp_path, name)
    dataset = open_for(model, [file])
    values, y, _ = CASES[name]
    h = model.predict_proba(values, backend="cpu", precision="fp64")
    answers = model.predict(values, backend="cpu", precision="fp64")
    for row in (0, 7, 8, 59):
        e = rows.row_of(model, dataset, row)
        np.testing.assert_allclose(e.a[e.L], h[row, -model.network.K :], rtol=1e-12)
        filled = np.where(np.isnan(values[row]), model.fill, values[row]) if name == "gaps" else values[row]
        np.testing.assert_array_equal(e.x, filled.astype(float))
        np.testing.assert_allclose(e.a[1], model.scaling.apply(filled[None])[0], rtol=1e-15)
        gaps = ", ".join(f"x_{j + 1}" for j in range(4) if np.isnan(values[row, j]))
        filled_in = f"; {gaps} missing, filled as in the training" * bool(gaps)
        assert e.names.example == f"row {row} of {file}{filled_in}"
        if name == "real":
            np.testing.assert_array_equal(e.y, y[row])
            assert e.names.answer == ", ".join(f"{value:.6g}" for value in answers[row])
        elif name == "labels":
            np.testing.assert_array_equal(e.y, y[row])
            assert e.names.truth == ", ".join(map(str, y[row]))
        else:
            assert e.names.truth == (y[row].decode() if name == "text" else str(y[row]))
            assert e.names.answer == str(answers[row])
            assert model.targets.classes is not None
            k = model.targets.classes.index(NAMES[row] if name == "text" else y[row])
            assert e.y.tolist() == ([float(k)] if name == "binary" else np.eye(model.network.K)[k].tolist())


def test_the_classes_are_the_outputs_names(tmp_path):
    model, file = trained(tmp_path, "text")
    assert rows.row_of(model, open_for(model, [file]), 0).names.outputs == ("ant", "bee", "cat")


def test_the_mean_over_a_file_is_the_gradient_of_the_scaled_rows(tmp_path):
    model, file = trained(tmp_path, "ten")
    dataset = open_for(model, [file])
    found = [rows.row_of(model, dataset, row) for row in range(60)]
    J, gradient = gpubp.cost_and_gradient(
        model.network, model.Theta, model.scaling.apply(X), np.arange(60) % 10, kernel="numpy"
    )
    assert np.mean([e.C for e in found]) == pytest.approx(J, rel=1e-12)
    for l, D in enumerate(model.network.unpack(gradient), start=1):
        mean = np.mean([e.gradient[l] for e in found], axis=0)
        np.testing.assert_allclose(mean, D, rtol=0, atol=1e-12 * np.abs(D).max())


@pytest.mark.parametrize(("name", "y"), [("text", "bee"), ("ten", "10"), ("binary", "2"), ("labels", "0,1,1")])
def test_typed_numbers_are_the_row_that_has_them(name, y, tmp_path):
    model, file = trained(tmp_path, name)
    values, target, _ = CASES[name]
    texts = [",".join(map(str, one.tolist())) if np.ndim(one) else one.decode() if name == "text" else str(one)
             for one in target]  # fmt: skip
    row = texts.index(y)
    typed = rows.typed(model, rows.numbers(",".join(map(repr, values[row].tolist())), "--x"), y)
    read = rows.row_of(model, open_for(model, [file]), row)
    assert typed.C == read.C and typed.names.truth == read.names.truth
    np.testing.assert_array_equal(typed.delta[2], read.delta[2])


def test_what_is_typed_wrong_is_said(tmp_path):
    model, file = trained(tmp_path, "text")
    with pytest.raises(DataError, match=r"class 'dog'; wanted one of ant, bee, cat"):
        rows.typed(model, X[0], "dog")
    with pytest.raises(DataError, match=r"x of 3 numbers; wanted 4"):
        rows.typed(model, X[0, :3], "ant")
    with pytest.raises(UsageError, match=r"--x '1,b'; wanted numbers"):
        rows.numbers("1,b", "--x")
    with pytest.raises(UsageError, match=r"row 60; wanted one of the 60 rows, 0 … 59"):
        rows.row_of(model, open_for(model, [file]), 60)
    gaps, _ = trained(tmp_path, "gaps")
    e = rows.typed(gaps, np.array([np.nan, 1, 2, 3]), "1")
    assert gaps.fill is not None and e.x[0] == gaps.fill[0]
    assert e.names.example == "x as given, y = 1; x_1 missing, filled as in the training"
    whole, file = trained(tmp_path, "whole rows")
    row = int(np.isnan(GAPS).any(axis=1).argmax())
    words = rf"row {row} of .*: x_\d.* missing \(NaN\); wanted a whole row: the model was trained with --missing drop"
    with pytest.raises(DataError, match=words):
        rows.row_of(whole, open_for(whole, [file]), row)
    with pytest.raises(DataError, match=r"x as given: x_2, x_3 missing"):
        rows.typed(whole, np.array([0, np.nan, np.nan, 3]), "1")
    sound = int((~np.isnan(GAPS).any(axis=1)).argmax())
    assert "missing" not in rows.row_of(whole, open_for(whole, [file]), sound).names.example


def test_bare_matrices_take_y_as_outputs_or_as_one_of_them():
    network = Network((2, 3), cost="softmax")
    Theta = network.initial_Theta(1)
    one = rows.bare(network, Theta, np.ones(2), np.array([2.0]))
    assert one.y.tolist() == [0, 1, 0]
    assert rows.bare(network, Theta, np.ones(2), np.array([0.5, 0.5, 0.0])).y.tolist() == [0.5, 0.5, 0]
    for y, words in [([4.0], "y = 4 for 3 outputs"), ([0.0, 2.0, 0.0], "y from 0 to 2"), ([1.0, 1.0, 0.0], "sums to 2"),
                     ([1.0, 0.0], "y of 2 values")]:  # fmt: skip
        with pytest.raises(DataError, match=words):
            rows.bare(network, Theta, np.ones(2), np.array(y))
