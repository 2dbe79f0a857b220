"""Names people use, splits, and what is ambiguous."""

from __future__ import annotations

import pytest

from gpubp.data.names import Names, choose, own, role_of, split_of, splits
from gpubp.errors import DataError


@pytest.mark.parametrize(
    ("path", "role", "split"),
    [
        ("X", "x", None), ("x", "x", None), ("data", "x", None), ("Features", "x", None), ("inputs", "x", None),
        ("images", "x", None), ("y", "y", None), ("Y", "y", None), ("label", "y", None), ("labels", "y", None),
        ("targets", "y", None), ("outputs", "y", None), ("w", "weights", None), ("sample_weight", "weights", None),
        ("weights", "weights", None), ("train/X", "x", "train"), ("training/images", "x", "train"),
        ("X_train", "x", "train"), ("x_test", "x", "test"), ("train_X", "x", "train"), ("Xtrain", "x", "train"),
        ("testX", "x", "test"), ("train-images", "x", "train"), ("y.valid", "y", "val"), ("validation/y", "y", "val"),
        ("VAL/Y", "y", "val"), ("fold1/train/X", "x", "train"), ("train/X_test", "x", "test"),
        ("xyz", None, None), ("my_X", None, None), ("testimonials", None, None), ("yes", None, None),
        ("test", None, None), ("X_train_2", None, None), ("w_val", "weights", "val"),
    ],
)  # fmt: skip
def test_role_and_split_of_a_name(path, role, split):
    assert role_of(path) == role
    assert split_of(path) == split


@pytest.mark.parametrize(
    ("paths", "there"),
    [
        (["X", "y"], ()),
        (["train/X", "train/y", "test/X", "test/y"], ("train", "test")),
        (["X", "y", "X_test", "y_test"], ("train", "test")),
        (["x_test", "x_val", "x_train"], ("train", "val", "test")),
        (["test_X"], ("test",)),
        (["z"], ()),
    ],
)
def test_which_splits_there_are(paths, there):
    assert splits(paths) == there


def test_the_plain_case():
    assert choose(["X", "y", "w", "other"], "f") == Names("X", "y", "w", None)
    assert choose(["images", "labels"], "f") == Names("images", "labels", None, None)


@pytest.mark.parametrize(
    ("paths", "split", "found"),
    [
        (["train/X", "train/y", "test/X", "test/y"], None, Names("train/X", "train/y", None, "train")),
        (["train/X", "train/y", "test/X", "test/y"], "test", Names("test/X", "test/y", None, "test")),
        (["X", "y", "X_test", "y_test"], None, Names("X", "y", None, "train")),
        (["X", "y", "X_test", "y_test"], "train", Names("X", "y", None, "train")),
        (["X", "y", "X_test", "y_test"], "test", Names("X_test", "y_test", None, "test")),
        (["X_valid", "y_valid", "X", "y"], "val", Names("X_valid", "y_valid", None, "val")),
        (["test/X", "test/y"], None, Names("test/X", "test/y", None, "test")),
    ],
)
def test_splits_are_kept_apart(paths, split, found):
    assert choose(paths, "f", split=split) == found


def test_a_forced_name_may_come_with_a_split_and_a_whole_path_is_taken_as_it_is():
    paths = ["train/pix", "test/pix", "train/num", "test/num", "X", "y"]
    assert choose(paths, "f", x="pix", y="num") == Names("train/pix", "train/num", None, "train")
    assert choose(paths, "f", x="pix", y="num", split="test") == Names("test/pix", "test/num", None, "test")
    assert choose(paths, "f", x="test/pix", y="test/num", split="train") == Names("test/pix", "test/num", None, "test")
    assert choose(["pix_train", "y_train", "pix_test", "y_test"], "f", x="pix", split="test").y == "y_test"
    assert choose(["pix_train", "y_train", "pix_test", "y_test"], "f", x="pix_test").y == "y_test"


def test_y_is_first_looked_for_in_the_group_of_x():
    paths = ["a/X", "a/y", "b/X", "b/y"]
    assert choose(paths, "f", x="b/X") == Names("b/X", "b/y", None, None)


def test_weights_can_be_declined():
    assert choose(["X", "y", "w"], "f", weights="none").weights is None
    assert choose(["X", "y", "w"], "f", y="none", y_required=False).y is None
    with pytest.raises(DataError):
        choose(["X", "y", "w"], "f", y="none")
    assert choose(["X", "y", "w", "v"], "f", weights="v").weights == "v"


def test_without_y():
    assert choose(["X"], "f", y_required=False).y is None
    assert choose(["train/X", "train/y", "test/X"], "f", split="test", y_required=False).y is None


@pytest.mark.parametrize(
    ("paths", "options", "words"),
    [
        (["X", "data", "y"], {}, ["f: 'X', 'data' could each be X", "--x NAME"]),
        (["X", "y", "label"], {}, ["'label', 'y' could each be y", "--y NAME"]),
        (["X", "y", "w", "weight"], {}, ["could each be sample weights", "--weights NAME or --weights none"]),
        (["X", "train/X", "y"], {}, ["'X', 'train/X' could each be X"]),
        (["a/X", "b/X", "y"], {}, ["'a/X', 'b/X' could each be X"]),
        (["p", "q"], {}, ["f has no X; it holds 'p', 'q'", "features", "--x NAME"]),
        ([], {}, ["f has no X; it holds nothing"]),
        (["X"], {}, ["f has no y; it holds 'X'", "labels", "--y NAME"]),
        (["train/X", "test/X", "test/y"], {}, ["f has no y of the train rows", "--y NAME"]),
        (["X", "y"], {"split": "test"}, ["f has no test rows; it holds 'X', 'y'", "test/X"]),
        (["X_train", "y_train"], {"split": "val"}, ["f has no val rows; it holds train rows"]),
        (["X_val", "X_test"], {}, ["f has val and test rows but no train rows", "--x NAME"]),
        (["X", "y"], {"x": "Z"}, ["f has no dataset 'Z'; it holds 'X', 'y'", "--x NAME"]),
        (["X", "y"], {"y": "Z", "y_required": False}, ["f has no dataset 'Z'", "--y NAME"]),
        (["X", "y"], {"weights": "Z"}, ["f has no dataset 'Z'", "--weights NAME"]),
        ([f"d{i}" for i in range(30)], {}, ["and 22 more"]),
        (["evil\nname\x1b[31m"], {}, [r"evil\nname\x1b[31m"]),
        (["n" * 5000], {}, ["n" * 77 + "…"]),
    ],
)
def test_what_cannot_be_decided_is_said(paths, options, words, refuses):
    with refuses(DataError, *words):
        choose(paths, "f", **options)


def test_checksums_are_not_offered(refuses):
    assert own(["y", "X", "X.crc32", "z.crc32"]) == ["X", "y", "z.crc32"]
    with refuses(DataError, "f.h5 has no dataset 'v'; it holds 'X', 'y'; say another --y NAME"):
        choose(["X", "X.crc32", "y", "y.crc32"], "f.h5", y="v")
