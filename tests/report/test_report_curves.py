"""ROC, precision and recall, calibration: against the definitions, written out row by row and pair by pair."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp.report.calibration import BINS, Bins
from gpubp.report.curves import Groups, Scores, curve


def area_by_pairs(score, positive, w):
    """The probability that a positive row scores above a negative one, a tie counted half (Hanley and McNeil 1982)."""
    won = whole = 0.0
    for s, ws in zip(score[positive], w[positive], strict=True):
        for t, wt in zip(score[~positive], w[~positive], strict=True):
            won += ws * wt * (1.0 if s > t else 0.5 if s == t else 0.0)
            whole += ws * wt
    return won / whole


def average_precision(score, positive, w):
    """Σ (R_n − R_{n−1}) P_n over the distinct thresholds, from the highest to the lowest."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(score), reverse=True):
        said = score >= threshold
        right = w[said & positive].sum()
        recall = right / w[positive].sum()
        total += (recall - before) * right / w[said].sum()
        before = recall
    return total


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("levels", [3, 1000])
def test_areas_are_those_of_the_definitions_with_ties_and_weights(seed, levels):
    rng = np.random.default_rng(seed)
    positive = rng.random(60) < 0.3
    score = np.round((rng.random(60) + 0.4 * positive) * levels) / levels
    w = rng.integers(0, 4, 60).astype(float)
    found = curve(Groups.of(score, positive, w))
    assert found.auc == pytest.approx(area_by_pairs(score, positive, w), abs=1e-13)
    counted = w > 0
    expected = average_precision(score[counted], positive[counted], w[counted])
    assert found.ap == pytest.approx(expected, abs=1e-13)


def test_the_area_is_the_statistic_of_mann_and_whitney():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    positive = rng.random(500) < 0.4
    score = np.round(rng.normal(size=500) + positive, 1)
    u = stats.mannwhitneyu(score[positive], score[~positive]).statistic
    found = curve(Groups.of(score, positive, np.ones(500)))
    assert found.auc == pytest.approx(u / (positive.sum() * (~positive).sum()), abs=1e-13)


def test_the_example_of_scikit_learn():
    # scikit-learn 1.5, documentation of roc_auc_score and average_precision_score
    found = curve(Groups.of(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]), np.ones(4)))
    assert found.auc == pytest.approx(0.75) and found.ap == pytest.approx(0.8333333333333333)


def test_curves_begin_and_end_where_they_must():
    rng = np.random.default_rng(2)
    positive = rng.random(5000) < 0.5
    found = curve(Groups.of(rng.random(5000), positive, np.ones(5000)))
    assert (found.fpr[0], found.tpr[0], found.fpr[-1], found.tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(found.fpr) >= 0).all() and (np.diff(found.tpr) >= 0).all() and len(found.fpr) < 700
    assert found.recall[-1] == 1 and found.precision[-1] == pytest.approx(positive.mean())
    thin = np.trapezoid(found.tpr, found.fpr)
    assert thin == pytest.approx(found.auc, abs=0.01)


@pytest.mark.parametrize("kind", ["none", "all"])
def test_without_rows_of_both_kinds_there_is_no_area(kind):
    positive = np.full(5, kind == "all")
    found = curve(Groups.of(np.linspace(0, 1, 5), positive, np.ones(5)))
    assert found.auc is None and (found.ap is None) == (kind == "none")


def chunks(scores, h, true, w, size=37):
    for at in range(0, len(h), size):
        scores.add(at, h[at : at + size], true[at : at + size], w[at : at + size])
    return scores


@pytest.mark.parametrize("coded", [False, True])
def test_histograms_are_within_what_they_say_and_take_no_memory_per_row(coded):
    rng = np.random.default_rng(3)
    m, K = 3000, 4
    code = rng.integers(0, K, m)
    z = rng.normal(size=(m, K)) + 2 * np.eye(K)[code]
    h = 1 / (1 + np.exp(-3 * z))
    w = rng.integers(0, 3, m).astype(float)
    true = code if coded else np.eye(K, dtype=bool)[code]
    exact = chunks(Scores(m, K), h, true, w)
    binned = chunks(Scores(m, K, most=8000), h, true, w)
    assert exact.exact and not binned.exact and not hasattr(binned, "_score")
    for one, other in [(exact.of(k), binned.of(k)) for k in range(K)] + [(exact.pooled(), binned.pooled())]:
        assert 0 < other.unsure < 0.01 and abs(one.auc - other.auc) <= other.unsure + 1e-12
        assert other.auc != one.auc  # histograms they are
        assert other.ap == pytest.approx(one.ap, abs=0.01)
        assert (other.positive, other.negative) == pytest.approx((one.positive, one.negative))


def test_scores_that_round_to_0_and_1_fall_into_the_last_bins():
    scores = Scores(4, 1, most=0)
    scores.add(0, np.array([[0.0], [1.0], [1e-30], [1 - 1e-16]]), np.array([[0], [1], [0], [1]]) == 1, np.ones(4))
    assert scores.of(0).auc == 1


def calibration_error(confidence, right, w):
    """Guo et al. 2017, equations 2 and 3, bin after bin."""
    total = 0.0
    for b in range(BINS):
        inside = (confidence > b / BINS) & (confidence <= (b + 1) / BINS)
        if b == 0:
            inside |= confidence == 0
        if w[inside].sum():
            accuracy, mean = (
                np.average(right[inside], weights=w[inside]),
                np.average(confidence[inside], weights=w[inside]),
            )
            total += w[inside].sum() / w.sum() * abs(accuracy - mean)
    return total


@pytest.mark.parametrize("seed", range(4))
def test_the_calibration_error_is_that_of_the_paper(seed):
    rng = np.random.default_rng(seed)
    confidence = np.concatenate([rng.random(400), [0, 1, 1, 0]])
    right = rng.random(404) < confidence**2
    w = rng.integers(1, 4, 404).astype(float)
    bins = Bins("")
    for part in np.array_split(np.arange(404), 7):
        bins.add(confidence[part], right[part], w[part])
    found = bins.result()
    assert found.ece == pytest.approx(calibration_error(confidence, right, w), abs=1e-13)
    assert found.weight.sum() == w.sum()


def test_two_answers_by_hand():
    bins = Bins("")
    bins.add(np.array([0.9, 0.9]), np.array([True, False]), np.ones(2))  # sure at 0.9, right half of the time
    assert bins.result().ece == pytest.approx(0.4)
    assert Bins("").result().ece is None
    bins = Bins("")  # the paper's bins are closed above: (b/15, (b+1)/15]
    bins.add(np.array([0.0, 0.2, 0.2000001, 0.4, 1.0]), np.ones(5, bool), np.ones(5))
    assert np.flatnonzero(bins.result().weight).tolist() == [0, 2, 3, 5, 14]
