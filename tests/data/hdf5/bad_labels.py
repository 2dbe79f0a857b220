"""Sound X with bad labels or weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from catalogue import REAL, TRANSPOSED, WEIGHTS, X, Y, bad, h5


def _labelled(options: tuple[str, ...], **datasets: object) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with h5(path, x="X" not in datasets, y="y" not in datasets) as file:
            for name, values in datasets.items():
                if values is not None:
                    file[name] = values

    return make


for _name, _options, _datasets, _line in [
    ("no_labels", (), {"y": None}, "{path} has no y; it holds 'X'; wanted y, labels, targets or outputs; say --y NAME"),
    ("fewer_labels", (), {"y": Y[:50]}, "{path}: X 'X' has 60 rows and y 'y' has 50; wanted one y for every row of X"),
    ("transposed", (), {"X": np.ascontiguousarray(X.T)}, "{path}: X 'X' has 4 rows and y 'y' has 60" + TRANSPOSED),
    ("labels_in_a_row", (), {"y": Y.reshape(1, 60)}, "{path}: X 'X' has 60 rows and y 'y' has 1" + TRANSPOSED),
    (
        "labels_with_three_axes",
        (),
        {"y": np.zeros((60, 2, 2))},
        "{path}: y 'y' has the shape (60, 2, 2); wanted (rows,) or (rows, outputs)",
    ),
    (
        "label_not_a_number",
        (),
        {"y": np.where(np.arange(60) == 4, np.nan, Y)},
        "{path}: 'y' row 4 is nan; wanted a finite number",
    ),
    (
        "label_between",
        ("--cost", "softmax"),
        {"y": np.where(np.arange(60) == 4, 1.7, Y)},
        "{path}: 'y' row 4 is 1.7; wanted whole numbers as classes, or use --cost squares",
    ),
    ("one_class", (), {"y": np.zeros(60, "i4")}, "{path}: 'y' holds one class only, 0; wanted two or more"),
    (
        "as_many_classes_as_rows",
        (),
        {"y": np.arange(200), "X": np.zeros((200, 2), "f4") + np.arange(2)},
        (
            "{path}: 'y' holds 200 different labels in 200 rows; wanted at most 65,536 classes and no more than "
            "half as many as rows; name the label column, or say --cost squares if they are real targets"
        ),
    ),
    (
        "label_beyond_integers",
        ("--cost", "softmax"),
        {"y": np.where(np.arange(60) == 4, 1e300, Y)},
        "{path}: 'y' row 4 is 1e+300; wanted labels up to 2^53, or use --cost squares",
    ),
    ("complex_labels", (), {"y": Y + 1j}, "{path}: y 'y' holds complex numbers" + REAL),
    (
        "labels_not_utf8",
        (),
        {"y": np.where(Y == 1, b"\xff\xfe", b"ok")},
        "{path}: 'y' holds text that is not UTF-8 (invalid start byte); wanted text in UTF-8",
    ),
    (
        "labels_of_text_in_columns",
        (),
        {"y": np.full((60, 2), b"ok")},
        "{path}: 'y' is a matrix of text; wanted one label for each row",
    ),
    (
        "weight_negative",
        (),
        {"w": np.where(np.arange(60) == 8, -1.0, 1)},
        "{path}: weights 'w' row 8 is -1.0" + WEIGHTS,
    ),
    (
        "weight_not_a_number",
        (),
        {"w": np.where(np.arange(60) == 8, np.nan, 1)},
        "{path}: weights 'w' row 8 is nan" + WEIGHTS,
    ),
    (
        "weight_infinite",
        (),
        {"w": np.where(np.arange(60) == 8, np.inf, 1)},
        "{path}: weights 'w' row 8 is inf" + WEIGHTS,
    ),
    ("weights_zero", (), {"w": np.zeros(60)}, "{path}: weights 'w' are all zero; wanted at least one positive weight"),
    (
        "fewer_weights",
        (),
        {"w": np.ones(59)},
        (
            "{path}: weights 'w' has the shape (59,); wanted one weight for each of the 60 "
            "rows; say --weights NAME, or --weights none to train without"
        ),
    ),
    (
        "weights_of_text",
        (),
        {"w": np.full(60, b"1")},
        "{path}: weights 'w' holds text" + REAL,
    ),
]:
    _make = _labelled(_options, **_datasets)
    _make.__name__ = _name
    bad(_line, *_options)(_make)


@bad("{path}: 'y' holds texts of 52,429 bytes on average; wanted short class labels")
def a_label_without_end(path: Path) -> None:
    with h5(path, x=True, y=False) as file:
        labels = np.full(60, "a", object)
        labels[3] = "b" * (3 << 20)
        file.create_dataset("y", data=labels, dtype=h5py.string_dtype())


@bad("{path}: 'y' holds text that is not UTF-8 (invalid start byte); wanted text in UTF-8")
def labels_not_utf8_of_any_length(path: Path) -> None:
    with h5(path, x=True, y=False) as file:
        file.create_dataset("y", data=np.full(60, b"\xff\xfe", object), dtype=h5py.string_dtype())
