"""The table of what y is taken for, and labels that come back as the user wrote them."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from gpubp.data import targets
from gpubp.data.targets import TargetSpec, decode, encode, interpret
from gpubp.errors import DataError, UsageError

RNG = np.random.default_rng(2)
INTS = np.array([10, 1, 3, 1, 10, 3])
TWO = np.array([7, -2, 7, 7])
TEXT = np.array(["cat", "ant", "dog", "cat"])
PAIR = np.array(["no", "yes", "no"])
BOOL = np.array([True, False, True])
FLAGS = np.array([[0, 1, 1], [1, 1, 1], [0, 0, 0]])
ONE_HOT = np.eye(3)[[2, 0, 1, 1]]
REALS = np.array([0.5, -3.0, 2.25])
MATRIX = RNG.normal(size=(5, 2))
SHARES = np.array([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]])


def spec(kind, classes, outputs):
    return TargetSpec(kind, classes, outputs)


TABLE = [
    (INTS, "auto", "softmax", spec("classes", (1, 3, 10), 3)),
    (INTS.astype("u1"), "auto", "softmax", spec("classes", (1, 3, 10), 3)),
    (INTS.reshape(-1, 1), "auto", "softmax", spec("classes", (1, 3, 10), 3)),
    (INTS, "logistic", "logistic", spec("classes", (1, 3, 10), 3)),
    (INTS, "sigmoid_squares", "sigmoid_squares", spec("classes", (1, 3, 10), 3)),
    (INTS, "squares", "squares", spec("real", None, 1)),
    (INTS.astype(float), "auto", "squares", spec("real", None, 1)),
    (INTS.astype(float), "softmax", "softmax", spec("classes", (1, 3, 10), 3)),
    (INTS.astype(float), "logistic", "logistic", spec("classes", (1, 3, 10), 3)),
    (INTS.astype(float), "sigmoid_squares", "sigmoid_squares", spec("classes", (1, 3, 10), 3)),
    (TWO, "auto", "logistic", spec("binary", (-2, 7), 1)),
    (TWO, "softmax", "softmax", spec("classes", (-2, 7), 2)),
    (TWO, "sigmoid_squares", "sigmoid_squares", spec("binary", (-2, 7), 1)),
    (TEXT, "auto", "softmax", spec("classes", ("ant", "cat", "dog"), 3)),
    (TEXT, "logistic", "logistic", spec("classes", ("ant", "cat", "dog"), 3)),
    (PAIR, "auto", "logistic", spec("binary", ("no", "yes"), 1)),
    (BOOL, "auto", "logistic", spec("binary", (False, True), 1)),
    (BOOL, "softmax", "softmax", spec("classes", (False, True), 2)),
    (BOOL, "squares", "squares", spec("real", None, 1)),
    (np.array([0.0, 1.0, 0.0], "f4"), "auto", "logistic", spec("binary", (0, 1), 1)),
    (np.array([0.0, 1.0, 0.0], "f2"), "sigmoid_squares", "sigmoid_squares", spec("binary", (0, 1), 1)),
    (FLAGS, "auto", "logistic", spec("multilabel", None, 3)),
    (FLAGS > 0, "auto", "logistic", spec("multilabel", None, 3)),
    (FLAGS.astype(float), "sigmoid_squares", "sigmoid_squares", spec("multilabel", None, 3)),
    (FLAGS, "squares", "squares", spec("real", None, 3)),
    (ONE_HOT, "auto", "logistic", spec("multilabel", None, 3)),
    (ONE_HOT, "softmax", "softmax", spec("classes", (0, 1, 2), 3)),
    (REALS, "auto", "squares", spec("real", None, 1)),
    (MATRIX, "auto", "squares", spec("real", None, 2)),
    (MATRIX, "squares", "squares", spec("real", None, 2)),
    (np.array([[3, 4], [5, 6]]), "auto", "squares", spec("real", None, 2)),
    (SHARES, "auto", "squares", spec("real", None, 2)),
    (SHARES, "softmax", "softmax", spec("real", None, 2)),
    (SHARES, "logistic", "logistic", spec("real", None, 2)),
    (np.array([[0.01, 0.99]]), "sigmoid_squares", "sigmoid_squares", spec("real", None, 2)),
    (np.array([0.01, 0.99]), "sigmoid_squares", "sigmoid_squares", spec("real", None, 1)),
]


@pytest.mark.parametrize(("y", "asked", "cost", "wanted"), TABLE)
def test_what_y_is_taken_for(y, asked, cost, wanted, monkeypatch):
    assert interpret(y, asked) == (cost, wanted)
    stored = json.loads(json.dumps(asdict(wanted)))
    assert TargetSpec.from_dict(stored) == wanted
    monkeypatch.setattr(targets, "_CHUNK", 2)
    assert interpret(y, asked) == (cost, wanted)
    codes = encode(y, wanted)
    monkeypatch.undo()
    assert np.array_equal(encode(y, wanted), codes)
    back = decode(codes, wanted)
    flat = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    if wanted.kind in ("classes", "binary"):
        assert codes.shape == (len(y),) and codes.dtype == np.uint8
        assert np.array_equal(back, flat.argmax(1) if flat.ndim == 2 else flat)
        assert back.dtype.kind == ("U" if y.dtype.kind == "U" else "b" if y.dtype == bool else "i")
    else:
        assert codes.shape == (len(y), wanted.outputs) and np.array_equal(codes.reshape(flat.shape), flat)


def test_binary_codes_are_one_for_the_greater_label():
    assert encode(TWO, interpret(TWO)[1]).tolist() == [1, 0, 1, 1]
    assert encode(PAIR, interpret(PAIR)[1]).tolist() == [0, 1, 0]


def test_types_of_encoded_targets():
    assert encode(FLAGS, spec("multilabel", None, 3)).dtype == np.uint8
    for stored, kept in (("f2", "f4"), ("f4", "f4"), ("f8", "f8"), ("i4", "f8"), ("u1", "f8"), ("?", "f8")):
        assert encode(FLAGS.astype(stored), spec("real", None, 3)).dtype == kept
    many = np.arange(300).repeat(2)
    assert encode(many, interpret(many)[1]).dtype == np.uint16
    huge = TargetSpec("classes", tuple(range(70_000)), 70_000)
    assert encode(np.array([69_999]), huge).dtype == np.uint32


def test_labels_beyond_int64_stay_exact():
    y = np.array([2**63 + 1, 2**63 + 3, 2**63 + 1], np.uint64)
    found = interpret(y)[1]
    assert found.classes == (2**63 + 1, 2**63 + 3)
    assert decode(encode(y, found), found).tolist() == y.tolist()


def test_other_data_are_read_with_the_spec_of_the_training_data():
    _, found = interpret(INTS)
    assert encode(np.array([3, 3, 1]), found).tolist() == [1, 1, 0]
    assert encode(np.array([3.0, 10.0]), found).tolist() == [1, 2]
    assert encode(np.eye(3)[[1, 2]], found).tolist() == [1, 2]
    assert encode(np.array([0, 1]), spec("binary", (False, True), 1)).tolist() == [0, 1]
    assert encode(np.array(["dog"]), interpret(TEXT)[1]).tolist() == [2]


@pytest.mark.parametrize(
    ("y", "found", "words"),
    [
        (np.array([1, 3, 4]), spec("classes", (1, 3, 10), 3), ["f: 'y' row 2 is 4", "one of 1, 3, 10"]),
        (np.array([1, 11]), spec("classes", (1, 3, 10), 3), ["row 1 is 11"]),
        (np.array([-1]), spec("classes", (0, 1, 2), 3), ["row 0 is -1"]),
        (np.array([1.0, 2.5]), spec("classes", (1, 2, 3), 3), ["row 1 is 2.5"]),
        (np.array(["cat", "cow"]), spec("classes", ("ant", "cat", "dog"), 3), ["row 1 is 'cow'", "'cat', 'dog'"]),
        (np.array(["1"]), spec("classes", (1, 2, 3), 3), ["holds text", "the classes 1, 2, 3"]),
        (np.array([1]), spec("classes", ("a", "b", "c"), 3), ["holds numbers", "the classes 'a', 'b', 'c'"]),
        (np.array([0, 2]), spec("classes", tuple(range(1, 1001)), 1000), ["row 0 is 0", "1, 2, 3 … 1000"]),
        (np.array([[0, 1], [1, 1]]), spec("classes", (4, 5), 2), ["row 1 sums to 2"]),
        (np.eye(4), spec("classes", (4, 5), 2), ["has 4 columns", "2 columns"]),
        (np.eye(4), spec("multilabel", None, 3), ["has 4 columns", "3, as the model has"]),
        (np.array([[0, 1], [0, 3]]), spec("multilabel", None, 2), ["row 1, column 1 is 3", "0 or 1"]),
        (np.array(["a"]), spec("real", None, 1), ["holds text", "a real target"]),
        (np.array([1.0, np.nan]), spec("real", None, 1), ["row 1 is nan", "finite"]),
        (np.array([[1.0, 2.0], [np.inf, 0.0]]), spec("real", None, 2), ["row 1, column 0 is inf"]),
        (np.array([1.0, np.nan]), spec("classes", (0, 1, 2), 3), ["row 1 is nan"]),
    ],
)
def test_y_that_does_not_fit_the_model_is_refused(y, found, words, refuses):
    with refuses(DataError, "f: 'y'", *words):
        encode(y, found, where="f: 'y'")


@pytest.mark.parametrize(
    ("y", "cost", "error", "words"),
    [
        (np.ones(5, int), "auto", DataError, ["one class only, 1"]),
        (np.array(["a", "a"]), "auto", DataError, ["one class only, 'a'"]),
        (np.zeros(5), "auto", DataError, ["one class only, 0"]),
        (np.array([1.0, np.nan, 2.0]), "auto", DataError, ["row 1 is nan"]),
        (np.array([[1.0, 2.0], [3.0, -np.inf]]), "squares", DataError, ["row 1, column 1 is -inf"]),
        (np.array([1.0, 2.0, 2.5]), "softmax", DataError, ["row 2 is 2.5", "whole numbers", "--cost squares"]),
        (np.array([0.3, 1.7]), "logistic", DataError, ["row 0 is 0.3", "--cost squares"]),
        (np.array([1.0, 1e300, 3.0]), "softmax", DataError, ["row 1 is 1e+300", "up to 2^53"]),
        (np.array(["a", "b"]), "squares", UsageError, ["'squares' with text"]),
        (np.arange(200), "auto", DataError, ["200 different labels in 200 rows", "--cost squares"]),
        (np.arange(200).astype(str), "auto", DataError, ["200 different labels", "label column"]),
        (np.arange(70_000), "softmax", DataError, ["more than 65,536 different labels", "--cost squares"]),
        (np.array([[0, 1], [1, 1]]), "softmax", DataError, ["row 1 sums to 2", "--cost logistic"]),
        (np.array([[0.5, 0.4]]), "softmax", DataError, ["row 0 sums to 0.9"]),
        (np.array([[0.5, 1.5]]), "softmax", DataError, ["row 0, column 1 is 1.5", "--cost squares"]),
        (np.array([[0.5, -0.5]]), "logistic", DataError, ["row 0, column 1 is -0.5", "--cost squares"]),
        (np.array([["a", "b"]]), "auto", DataError, ["matrix of text"]),
        (np.zeros((2, 2, 2)), "auto", DataError, ["shape (2, 2, 2)"]),
        (np.zeros(0), "auto", DataError, ["shape (0,)"]),
        (np.array([object()]), "auto", DataError, ["type object"]),
        (np.array([1j]), "auto", DataError, ["type complex128"]),
    ],
)
def test_y_that_cannot_be_targets_is_refused(y, cost, error, words, refuses):
    with refuses(error, "d.h5: 'y'", *words):
        interpret(y, cost, where="d.h5: 'y'")


def test_few_rows_may_have_many_classes():
    assert interpret(np.arange(99))[1].outputs == 99
    assert interpret(np.arange(99).repeat(2))[1].outputs == 99


def test_shares_stored_in_low_precision_still_sum_to_one():
    shares = RNG.dirichlet(np.ones(10), 500)
    for dtype in ("f2", "f4", "f8"):
        assert interpret(shares.astype(dtype), "softmax")[1] == spec("real", None, 10)


@pytest.mark.parametrize(
    "stored",
    [
        {}, {"kind": "classes", "classes": None, "outputs": 3}, {"kind": "real", "classes": None, "outputs": 0},
        {"kind": "binary", "classes": [1], "outputs": 1}, {"kind": "classes", "classes": [1, 2], "outputs": 3},
        {"kind": "odd", "classes": None, "outputs": 1}, {"kind": "real", "classes": [1], "outputs": 1},
        {"kind": "real", "classes": None, "outputs": "x"},
    ],
)  # fmt: skip
def test_what_is_no_stored_spec_is_refused(stored, refuses):
    with refuses(DataError):
        TargetSpec.from_dict(stored)


def test_specs_say_what_they_are():
    assert spec("classes", tuple(range(1, 11)), 10).describe() == "10 classes, 1, 2, 3 … 10"
    assert spec("binary", ("no", "yes"), 1).describe() == "2 classes, 'no', 'yes'"
    assert spec("multilabel", None, 4).describe() == "4 labels, each yes or no"
    assert spec("real", None, 1).describe() == "a real target"
