"""What the pictures of a report show: the numbers of its material, each where it belongs."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp.report import report

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def digits(of_digits):
    return report(of_digits[0], limit=False)


@pytest.fixture(scope="module")
def numbers(of_numbers):
    return report(of_numbers[0], limit=False)


def test_the_confusion_matrix_has_the_truth_in_its_rows(digits):
    counts = digits.material.quality.answers.confusion
    assert (counts != counts.T).any()
    axes = digits.picture("confusion").axes[0]
    shown = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(shown, counts / counts.sum(axis=1, keepdims=True))
    said = {tuple(map(int, text.get_position())): float(text.get_text()) for text in axes.texts}
    assert said == {(a, t): counts[t, a] for t, a in zip(*counts.nonzero(), strict=True)}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("answer", "truth")


@pytest.mark.parametrize(
    ("name", "x", "y", "worth", "labels"),
    [
        ("roc", "fpr", "tpr", "auc", ("false positive rate", "true positive rate")),
        ("precision-recall", "recall", "precision", "ap", ("recall", "precision")),
    ],
)
def test_each_curve_is_that_of_the_output_it_is_named_after(digits, name, x, y, worth, labels):
    answers = digits.material.quality.answers
    axes = digits.picture(name).axes[0]
    assert all(
        said.startswith(wanted) for said, wanted in zip((axes.get_xlabel(), axes.get_ylabel()), labels, strict=True)
    )
    curves = {**answers.curves, "all together": answers.pooled}
    named = [line for line in axes.lines if ": " in line.get_label()]
    lowest = sorted(answers.curves, key=lambda one: getattr(answers.curves[one], worth))[:3]
    assert {line.get_label().partition(":")[0] for line in named} == {*lowest, "all together"}
    for line in named:
        of, _, value = line.get_label().partition(": ")
        np.testing.assert_array_equal(line.get_xdata(), getattr(curves[of], x))
        np.testing.assert_array_equal(line.get_ydata(), getattr(curves[of], y))
        assert value.split()[-1] == f"{getattr(curves[of], worth):.4f}"


def test_calibration_is_drawn_over_what_the_model_said(digits):
    found = digits.material.quality.answers.calibration
    upper, lower = digits.picture("calibration").axes
    held = found.weight > 0
    line = upper.lines[-1]
    np.testing.assert_array_equal(line.get_xdata(), found.confidence[held])
    np.testing.assert_array_equal(line.get_ydata(), found.share[held])
    assert [bar.get_height() for bar in lower.patches] == pytest.approx((found.weight / found.weight.sum()).tolist())


def test_residuals_are_prediction_less_truth_by_weight(numbers):
    found = numbers.material.quality.numbers
    object.__setattr__(found, "weight", np.arange(1.0, 1 + len(found.weight)))
    object.__setattr__(found, "predicted", found.predicted + np.array([0.3, 0.0]))  # on the whole too large
    panels = numbers.picture("residuals").axes
    for k, axes in enumerate(panels):
        counts, edges, _ = axes.patches[0].get_data()
        error = found.predicted[:, k] - found.truth[:, k]
        assert counts.sum() == pytest.approx(found.weight.sum())
        middle = (edges[1:] + edges[:-1]) / 2
        inside = np.clip(error, edges[0], edges[-1])
        assert middle @ counts / counts.sum() == pytest.approx(
            np.average(inside, weights=found.weight), abs=np.diff(edges)[0]
        )
        assert axes.lines[-1].get_xdata()[0] == found.bias[k]


def test_the_star_stands_at_the_iteration_of_the_theta_that_is_kept(numbers):
    history = numbers.material.run.history
    kept = 19
    numbers.material.run.model.reached["iteration"] = history[kept]["iteration"]  # as early stopping leaves it
    assert len(history) == 30 and numbers.material.at == kept
    axes = numbers.picture("cost").axes[0]
    star = next(line for line in axes.lines if line.get_marker() == "*")
    assert star.get_xdata()[0] == history[kept]["passes"] and star.get_ydata()[0] == numbers.material.training_cost
    shown = {line.get_label(): line for line in axes.lines}
    np.testing.assert_array_equal(shown["training: J, with the λ term"].get_ydata(), [row["J"] for row in history])
    np.testing.assert_array_equal(shown["validation, without it"].get_ydata(), [row["validation"] for row in history])
