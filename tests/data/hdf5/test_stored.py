"""Descriptions that travel between processes: what an honest one says comes back; anything else is refused."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from gpubp.data.hdf5.stored import Filter, Piece, Stored, attributes_from_json, dtype_from_json, dtype_to_json

HONEST = Stored(
    "train/X", shape=(60, 4), dtype=np.dtype("<f4"), exact=True, layout="chunked", size=960, chunk_shape=(20, 4),
    filters=(Filter(1, "deflate", (9,)), Filter(32001, "blosc", (2, 2, 4, 320))), attributes={"a": [1, 2.5, "é"]},
)  # fmt: skip
RECORD = np.dtype([("a", "<f4"), ("b", ">i2", (2, 3)), ("c", [("d", "S3")])])
REFUSED = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)


def there_and_back(one: Stored) -> Stored:
    return Stored.from_json(json.loads(json.dumps(one.to_json())))


@pytest.mark.parametrize(
    "one",
    [
        HONEST,
        Stored("l", "is a link into another file ('\x1b')", "copy it"),
        Stored("v", "is virtual", "--allow", (9, 2), layout="virtual", pieces=(Piece(0, 9, "f", "d", 3),)),
        Stored("c", shape=(3,), dtype=RECORD, layout="compact"),
        Stored("t", shape=(3,), dtype=np.dtype("O"), text=True, layout="contiguous", size=48, offset=2048),
        Stored("s", shape=(3,), dtype=np.dtype("S7"), text=True, layout="contiguous", size=21, offset=0),
        Stored("n", shape=(), dtype=np.dtype("?"), layout="compact", unknown=32199),
    ],
    ids=lambda one: one.path,
)  # fmt: skip
def test_there_and_back(one):
    again = there_and_back(one)
    for name in Stored.__dataclass_fields__:
        assert getattr(again, name) == getattr(one, name), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("path", 3),
        ("path", None),
        ("trouble", ["x"]),
        ("shape", [60, -4]),
        ("shape", [60, 4.0]),
        ("shape", [60, True]),
        ("shape", [60, 1 << 62]),
        ("shape", [1 << 40, 1 << 30]),  # more bytes than there can be
        ("shape", [1] * 33),
        ("shape", "60"),
        ("shape", {"0": 1}),
        ("dtype", "f4,f4"),
        ("dtype", "O"),
        ("dtype", "<M8[s]"),
        ("dtype", "U9"),
        ("dtype", "V99999999999"),
        ("dtype", "object"),
        ("dtype", "float32"),
        ("dtype", ""),
        ("dtype", {"base": "O", "shape": [2]}),
        ("dtype", {"base": "f4", "shape": [1 << 40, 1 << 40]}),
        ("dtype", {"fields": [["a", "O", 0]], "itemsize": 8}),
        ("dtype", {"fields": [["a", "f4", 1 << 40]], "itemsize": 4}),
        ("dtype", {"fields": [["a", "f4", 8]], "itemsize": 4}),
        ("dtype", {"fields": [["a", "f4", -4]], "itemsize": 4}),
        ("dtype", {"fields": [["a", "f4", 0], ["a", "f4", 4]], "itemsize": 8}),
        ("dtype", {"fields": [], "itemsize": 8}),
        ("dtype", {"fields": [[3, "f4", 0]], "itemsize": 8}),
        ("dtype", {}),
        ("dtype", None),
        ("text", True),  # of numbers
        ("text", 1),
        ("exact", 1),
        ("layout", "elsewhere"),
        ("size", -1),
        ("size", True),
        ("size", 1.5),
        ("size", 1 << 63),
        ("offset", "0"),
        ("offset", -8),
        ("chunk_shape", [20]),
        ("chunk_shape", [20, 0]),
        ("chunk_shape", [20, -4]),
        ("chunk_shape", None),  # of chunks
        ("filters", [[1, "deflate"]]),
        ("filters", [[-1, "deflate", []]]),
        ("filters", [[1, 2, []]]),
        ("filters", [[1, "deflate", [1.5]]]),
        ("filters", [[1, "deflate", ["1"]]]),
        ("filters", None),
        ("filters", [[1, "deflate", [1 << 62]]]),
        ("pieces", [[0, 5, "f", "d", 1 << 62]]),
        ("pieces", [[5, 5, "f", "d", 0]]),
        ("pieces", [[0, 5, "f", "d", -1]]),
        ("pieces", [[0, 5, 1, "d", 0]]),
        ("attributes", []),
        ("attributes", {"a": {"b": 1}}),
        ("attributes", {"a": None}),
        ("unknown", -3),
        ("unknown", "32001"),
    ],
)
def test_what_no_honest_one_says(name, value):
    record = HONEST.to_json() | {name: value}
    with pytest.raises(REFUSED):
        Stored.from_json(record)


def test_what_is_nested_without_end():
    kind: Any = "f4"
    for _ in range(100):
        kind = {"base": kind, "shape": [1]}
    with pytest.raises(ValueError):
        dtype_from_json(kind)
    value: Any = 1
    for _ in range(100):
        value = [value]
    with pytest.raises(ValueError):
        attributes_from_json({"a": value})


def test_anything_at_all_is_taken_or_refused():
    """Records with parts replaced at random: nothing but the errors that are refusals."""
    draw = random.Random(5)
    odd = [
        None,
        -1,
        0,
        1 << 70,
        2.5,
        "",
        "x",
        [],
        {},
        [[]],
        True,
        "f8",
        [1, 2],
        {"fields": []},
        [["a", "f4", 0]],
        1e300,
    ]
    taken = refused = 0
    for _ in range(3000):
        record: Any = json.loads(json.dumps(HONEST.to_json()))
        for _ in range(draw.randrange(1, 4)):
            record[draw.choice([*record, "offset", "unknown", "trouble", "text"])] = draw.choice(odd)
        try:
            there_and_back(Stored.from_json(record))
            taken += 1
        except REFUSED:
            refused += 1
    assert taken > 20 and refused > 2000


@pytest.mark.parametrize("kind", ["<f8", ">i2", "|u1", "|b1", "|S9", "|V5", "<c16", "<f2"])
def test_types(kind):
    assert dtype_from_json(dtype_to_json(np.dtype(kind))) == np.dtype(kind)
