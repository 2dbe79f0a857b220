"""Weights that follow from the class."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp.data.class_weights import checked, class_weights, parse, shown
from gpubp.data.digits import refuse_lost_features, refuse_lost_targets
from gpubp.data.scaling import choose_scaling
from gpubp.data.scan import scan
from gpubp.data.source import ArrayRows
from gpubp.data.targets import TargetSpec
from gpubp.errors import DataError, UsageError

THREE = TargetSpec("classes", (1, 2, 10), 3)
CODES = np.array([0, 0, 0, 0, 1, 1, 2], np.uint8)


def test_balanced_is_scikit_learns():
    assert class_weights("balanced", CODES, THREE, None).tolist() == [7 / 12, 7 / 6, 7 / 3]
    counted = np.array([1.0, 1, 0, 0, 1, 1, 2])  # two rows held out, one twice
    assert class_weights("balanced", CODES, THREE, counted).tolist() == [1, 1, 1]
    binary = TargetSpec("binary", (False, True), 1)
    assert class_weights("balanced", np.array([0, 1, 1, 1], np.uint8), binary, None).tolist() == [2, 2 / 3]


def test_weights_by_label():
    assert parse("balanced") == "balanced" and parse("10=2.5, 1=0") == {"10": 2.5, "1": 0.0}
    assert parse("a=b=3") == {"a=b": 3.0} and checked({10: 2, "x": np.float32(1)}) == {"10": 2.0, "x": 1.0}
    assert class_weights({"10": 2.5, "1": 0.0}, CODES, THREE, None).tolist() == [0, 1, 2.5]
    binary = TargetSpec("binary", (False, True), 1)
    assert class_weights(parse("true=3"), np.array([0, 1]), binary, None).tolist() == [1, 3]


@pytest.mark.parametrize("text", ["", "fair", "1=", "1=x", "=3", "1=-1", "1=nan", "1=inf", "1=2,1=3", "1=2,"])
def test_what_is_no_class_weight(text, refuses):
    with refuses(UsageError, "class weight"):
        parse(text)


def test_labels_and_targets_that_have_no_weight(refuses):
    with refuses(DataError, "a class weight for '3', which y has not", "3 classes, 1, 2, 10"):
        class_weights({"3": 1.0}, CODES, THREE, None)
    with refuses(DataError, "no training row is of the class 10"):
        class_weights("balanced", CODES[:6], THREE, None)
    for spec in (TargetSpec("real", None, 1), TargetSpec("multilabel", None, 3)):
        with refuses(UsageError, "--class-weight with", "wanted classes", "--weights"):
            class_weights("balanced", CODES, spec, None)


def lost(X, kind: str, precision: str = "fp32"):
    source = ArrayRows(X, "X")
    statistics, _ = scan(source, budget=0)
    refuse_lost_features(source, statistics, choose_scaling(kind, statistics, X.dtype), precision, ("a", "time"))


def test_weights_in_words():
    few = TargetSpec("classes", ("ant", "bee", "c"), 3)
    assert shown(np.array([0.71667, 1.0, 4.88]), few) == "ant 0.717, bee 1, c 4.88"
    assert shown(np.ones(9), TargetSpec("classes", tuple(range(9)), 9)) == "0 1, 1 1, 2 1, 3 1, 4 1, 5 1 …"


def test_features_that_float32_cannot_tell_apart(refuses):
    near = np.random.default_rng(0).normal(size=100)
    time = np.c_[near, 1.6e9 + 50 * np.arange(100.0)]
    with refuses(DataError, "column 1 ('time') goes from 1.6e+09 to 1.60000495e+09", "tell apart", "--precision fp64"):
        lost(time, "none")
    with refuses(DataError, "column 1 ('time')"):
        lost(time.astype("i8"), "none")
    for kind, precision in (("none", "fp64"), ("standard", "fp32"), ("auto", "fp32")):
        lost(time, kind, precision)
    lost(time.astype("f4"), "none")  # what is stored in float32 loses nothing
    lost(np.c_[near, np.full(100, 1.6e9)], "none")
    with refuses(DataError, "column 0 ('a') goes from 0 to 1e+39", "within float32's range", "--precision fp64"):
        lost(np.array([[0.0, 1e9], [1e39, 1e9 + 1]]), "none")
    lost(np.array([[0.0, 1.0], [1e39, 2.0]]), "none", "fp64")


def test_targets_beyond_float32(refuses):
    real = TargetSpec("real", None, 1)
    with refuses(DataError, "y goes to 1e+39", "--precision fp64"):
        refuse_lost_targets(np.array([[1e39], [0.0]]), real, "fp32", "y")
    refuse_lost_targets(np.array([[1e39], [0.0]]), real, "fp64", "y")
