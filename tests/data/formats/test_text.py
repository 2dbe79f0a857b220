"""Tables in text: the quick way gives what line by line gives, or nothing; columns; missing cells; odd files."""

from __future__ import annotations

import gzip
import tracemalloc
from typing import Any

import numpy as np
import pytest

from gpubp.data.formats import Request, _cells, _digits, recognise, text
from gpubp.data.formats._blocks import Block, blocks
from gpubp.errors import DataError

RNG = np.random.default_rng(12)


@pytest.fixture
def table(tmp_path, read_parts):
    """`table(text, x=…)`: the one part of a table with this text."""

    def read(contents: str | bytes, name: str = "t.csv", **options: Any):
        (tmp_path / name).write_bytes(contents.encode() if isinstance(contents, str) else contents)
        (part,) = read_parts(tmp_path / name, **options)
        return part

    return read


def same(a: Any, b: Any) -> bool:
    return a is b or (a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())


# Cells of every sort, plain ones more often. What is not listed as a number is one to nobody.
PLAIN = ["0", "1", "-1", "7", "255", "-32768", "65535", "0.5", "-0.25", "3.14159", "12.000", "1e5", "-0", "-0.0", "007"]
ODD = [
    '', ' 5', '5 ', '+5', '5.', '.5', '-.5', '-', '.', '-.', '--5', '5-', '1.2.3', '1e400', '1e-400', '0x1F', '1_0',
    'nan', 'NaN', '-nan', 'nan(x)', 'inf', '-Infinity', 'NA', '?', 'x', 'é', '"5"', '"5"6', '5"', '""', '" 5"',
    '"a,b"', '#', '1d5', '9223372036854775807', '9223372036854775808', '-9223372036854775808',
    '123456789012345678901', '0.1234567890123456789', '9007199254740993', '9007199254740992.5',
    '1.7976931348623157e308', '5e-324', '4.35', '2.675', '\t5', '5\x0b', '٣', '\x1c5', '12345678901234567.8',
    "0." + "0" * 25 + "1", "1" * 400, 'label', 'b c', '\xa0x', '1,5', '\\N', 'None',
]  # fmt: skip


@pytest.mark.parametrize("delimiter", [",", ";", "\t", None])
@pytest.mark.parametrize("missing", [False, True])
def test_the_quick_way_agrees_with_line_by_line_or_says_nothing(delimiter, missing, tmp_path, monkeypatch):
    """A thousand small tables with odd cells in them, each read both ways: bits, kinds and errors are the same."""
    sign, quick_ones, odd_ones = delimiter or " ", 0, 0
    layout_of = _cells.Columns
    read_plain = _cells._read_plain
    for trial in range(300):
        width = int(RNG.integers(1, 5))
        pool = PLAIN if trial % 3 else ["3", "44", "-5", "600"]
        rows = [[str(RNG.choice(pool)) for _ in range(width)] for _ in range(int(RNG.integers(1, 6)))]
        for _ in range(int(RNG.integers(0, 3)) if trial % 2 else 0):
            rows[RNG.integers(len(rows))][RNG.integers(width)] = str(RNG.choice(ODD))
        ends = str(RNG.choice(["\n", "\r\n", "\n\n", "\n# a, comment\n"]))
        body = (ends.join(sign.join(row) for row in rows) + str(RNG.choice(["", "\n", "\r"]))).encode()
        label = int(RNG.integers(width)) if RNG.random() < 0.7 else None
        features = tuple(c for c in RNG.permutation(width).tolist() if c != label)
        layout = _cells.Layout(tmp_path, delimiter, None, width, layout_of(features, label, None), missing)
        found, wanted = None, None
        try:
            found = read_plain(Block(body, 1), layout, _cells.Kinds())
        except DataError:
            pytest.fail("the quick way tells no errors")
        monkeypatch.setattr(_cells, "_read_plain", lambda *_: None)
        try:
            wanted = _cells.read_cells(Block(body, 1), layout, _cells.Kinds())
        except DataError as error:
            assert "\n" not in str(error)
            assert found is None, (body, layout, found, error)
            odd_ones += 1
        monkeypatch.undo()
        if found is not None:
            quick_ones += 1
            assert wanted is not None and found.kinds == wanted.kinds, (body, layout, found, wanted)
            for role in ("x", "y"):
                a, b = getattr(found, role), getattr(wanted, role)
                if a is not None and a.dtype.kind == "i":
                    a = a.astype(np.int64)
                assert same(a, b) or (a.dtype.kind == "U" and np.array_equal(a, b)), (body, layout, a, b)
    assert quick_ones > 60 and odd_ones > 20


def cells_of(texts: list[str], whole: bool = False) -> Any:
    found = _digits.marks(np.frombuffer(("\n".join(texts) + "\n").encode(), np.uint8), b"\n")
    return _digits.numbers(found, found.starts, found.ends, whole, None)


def test_every_decimal_is_rounded_as_float_rounds_it():
    """Up to 19 digits with a point anywhere, and those that lie in the middle between two floats or next to it."""
    texts = []
    for digits in range(1, 20):
        mantissas = RNG.integers(0, 10**digits, 3000, dtype=np.uint64, endpoint=False).tolist() if digits < 19 else []
        for m, places in zip(mantissas, RNG.integers(0, 25, 3000).tolist(), strict=False):
            padded = str(m).rjust(places + 1, "0")
            texts.append(padded[: len(padded) - places] + "." + padded[len(padded) - places :])
    for power in range(40):
        for odd in RNG.integers(2**53, 2**54, 20).tolist():  # odd multiples of half a unit in the last place
            value = (odd | 1) * 2**power
            texts += [str(value + one) for one in (-1, 0, 1) if value < 10**18]
            texts += [f"{value + one}"[:-3] + "." + f"{value + one}"[-3:] for one in (-1, 0, 1)]
    texts += [repr(value) for value in RNG.normal(size=5000).tolist()]
    texts += ["-" + one for one in texts[::7] if one[0] != "-"]
    wanted = np.array([float(one) for one in texts])
    found = cells_of(texts)
    assert found is not None and same(found, wanted), np.array(texts)[found != wanted][:5]


def test_without_long_doubles_too(monkeypatch):
    monkeypatch.setattr(_digits, "_LONG", False)
    texts = [repr(value) for value in RNG.normal(size=2000).tolist()]
    assert same(cells_of(texts), np.array([float(one) for one in texts]))


@pytest.mark.parametrize("digits", [1, 4, 5, 9, 10, 18, 19])
def test_whole_numbers_of_every_length(digits):
    values = RNG.integers(10 ** (digits - 1) - 1, 10**digits - 1 if digits < 19 else 2**63 - 1, 500).tolist()
    values += [-value for value in values]
    found = cells_of([str(value) for value in values], whole=True)
    assert found.dtype.kind == "i" and found.tolist() == values


def test_columns_by_name_number_and_range(table, refuses):
    contents = "id,a,b,w,c,kind\nk1,1,2,0.5,3,x\nk2,4,5,1.5,6,y\n"
    with refuses(DataError, "line 2, column 0 ('id') is 'k1'; wanted a number", "leave it out with --x"):
        table(contents)
    part = table(contents, x="a,b,4", weights="w")
    assert part.X.tolist() == [[1, 2, 3], [4, 5, 6]] and part.feature_names == ("a", "b", "c")
    assert list(part.y) == ["x", "y"] and part.weights.tolist() == [0.5, 1.5]
    part = table(contents, x="4,1:3", y="none")
    assert part.X.tolist() == [[3, 1, 2], [6, 4, 5]] and part.y is None and part.weights is None
    assert table(contents, x="-2", y="0").y.tolist() == ["k1", "k2"]
    for options, words in (
        ({"x": "a,kind"}, "column 'kind' would be both x and y"),
        ({"x": "a,w", "weights": "w"}, "column 'w' would be both x and weights"),
        ({"x": "a", "y": "w", "weights": "w"}, "column 'w' would be both y and weights"),
        ({"x": "a,1"}, "a column is twice in --x 'a,1'"),
        ({"x": "3:3"}, "no column is in --x '3:3'"),
        ({"x": "a,q"}, "has no column 'q'; its columns are 'id', 'a'"),
        ({"x": "a", "weights": "kind", "y": "none"}, "line 2, column 5 ('kind') is 'x'; wanted a number"),
    ):
        with refuses(DataError, words):
            table(contents, **options)


def test_a_weight_is_no_label_and_a_name_may_hold_a_comma(table):
    part = table("a,b,w\n1,2,3\n4,5,6\n", weights="w")
    assert part.X.tolist() == [[1], [4]] and part.y.tolist() == [2, 5] and part.weights.tolist() == [3, 6]
    assert table('"a,b",c\n1,2\n', x="a,b").feature_names == ("a,b",)


@pytest.mark.parametrize("word", ["", "nan", "NaN", "NA", "N/A", "null", "?", "-nan", '"nan"', " NA "])
@pytest.mark.parametrize("whole", [True, False])
def test_missing_cells(word, whole, table, refuses):
    other = "1" if whole else "1.5"
    contents = f"a,b,y\n{other},2,0\n3,{word},1\n5,6,0\n"
    with refuses(DataError, "line 3, column 1 ('b') is", "wanted a number in every cell", "or say --missing keep"):
        table(contents)
    part = table(contents, missing=True)
    assert np.array_equal(part.X, [[float(other), 2], [3, np.nan], [5, 6]], equal_nan=True)
    with refuses(DataError, "line 3, column 1 ('b') is", "wanted a label in every row"):
        table(contents, y="b", missing=True)
    with refuses(DataError, "line 3, column 1 ('b') is", "wanted a weight in every row"):
        table(contents, weights="b", missing=True)


def test_a_missing_label_among_text(table, refuses):
    with refuses(DataError, "line 2, column 1 is 'NA'; wanted a label in every row"):
        table("1,cat\n2,NA\n3,dog\n")


def test_what_is_no_missing_value_is_refused_all_the_same(table, refuses):
    for word in ("nan(x)", "+nan", "n.a.", "-"):
        with refuses(DataError, f"line 2, column 0 is '{word}'; wanted a number; remove"):
            table(f"1,2\n{word},3\n", missing=True)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("packed", [False, True])
def test_lines_are_counted_over_blocks(ending, packed, table, refuses, monkeypatch):
    monkeypatch.setattr("gpubp.data.formats._blocks.BLOCK", 64)
    lines = ["# notes", "", "a,b,y", *(f"{i},{-i},{i % 3}" for i in range(500))]
    contents = ending.join(lines).encode()
    part = table(gzip.compress(contents, mtime=0) if packed else contents)
    assert np.array_equal(part.X, [[i, -i] for i in range(500)]) and part.X.dtype == np.int16
    lines[401] = "4,x,1"
    lines[7] += "  "
    bad = ending.join(lines).encode()
    with refuses(DataError, "line 402, column 1 ('b') is 'x'"):
        table(gzip.compress(bad, mtime=0) if packed else bad)


def test_types_widen_as_values_come(table, monkeypatch):
    monkeypatch.setattr("gpubp.data.formats._rows._PIECE", 100)
    monkeypatch.setattr("gpubp.data.formats._blocks.BLOCK", 64)
    values = [*range(-50, 50), 40000, 1, 2**31, 3, 2**53 + 1, *range(50)]
    part = table("".join(f"{v},{v}\n" for v in values), y="none")
    assert part.X.dtype == np.int64 and part.X[:, 0].tolist() == values
    part = table("".join(f"{v},{v}\n" for v in [*values, 0.5, *values]), y="none")
    assert part.X.dtype == np.float64 and part.X[:, 0].tolist() == [float(v) for v in [*values, 0.5, *values]]
    labels = [*map(str, range(100)), "01", "x"]
    part = table("".join(f"1,{v}\n" for v in labels))
    assert part.y.tolist() == labels


@pytest.mark.parametrize(
    ("name", "contents", "title"),
    [
        ("a.csv", "1,2\n", "a CSV file"), ("a", "1;2\n3;4\n", "a CSV file"), ("a.tsv", "1\t2\n", "a TSV file"),
        ("a", "# x, y\n1\t2\n", "a TSV file"), ("a.txt", "1 2\n", "a table in a text file"),
        ("a.csv.gz", gzip.compress(b"1,2\n", mtime=0), "a CSV file"), ("a.dat", "1 2:3\n", "an svmlight file"),
    ],
)  # fmt: skip
def test_each_is_called_what_it_is(name, contents, title, tmp_path):
    (tmp_path / name).write_bytes(contents.encode() if isinstance(contents, str) else contents)
    found = recognise(tmp_path / name)
    assert found is not None and found.title == title


def test_many_text_labels_pass_in_little_memory(table, tmp_path):
    rows = 40_000
    labels = [f"kind {i % 5}" for i in range(rows)]
    part = table("".join(f"{i % 100},{label}\n" for i, label in enumerate(labels)))
    assert part.y.tolist() == labels and isinstance(part.y, np.memmap)


def test_a_line_without_end_and_an_endless_stream_are_given_up(tmp_path, refuses, read_parts, monkeypatch):
    monkeypatch.setattr("gpubp.data.formats._blocks.LONGEST", 5 << 20)
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(b"1,2\n" + b"1," * (20 << 20), mtime=0))
    tracemalloc.start()
    with refuses(DataError, "bomb.csv.gz line 2 is longer than 5,242,880 bytes"):
        read_parts(tmp_path / "bomb.csv.gz")
    assert tracemalloc.get_traced_memory()[1] < 40 << 20
    tracemalloc.stop()


def test_blocks_are_whole_lines(tmp_path, monkeypatch):
    for size in (1, 2, 3, 5, 8):
        monkeypatch.setattr("gpubp.data.formats._blocks.BLOCK", size)
        contents = b"\xef\xbb\xbfab\r\nc\rdd\n\n\re\r\n"
        (tmp_path / "t").write_bytes(contents)
        found = list(blocks(tmp_path / "t"))
        if size >= 3:
            assert b"".join(block.text for block in found) == contents[3:]
        assert all(block.text[-1:] in b"\r\n" for block in found)


def test_a_thread_pool_changes_nothing(table, monkeypatch):
    contents = "".join(f"{i}.5,{i},{i % 7}\n" for i in range(3000))
    monkeypatch.setattr("gpubp.data.formats._blocks.BLOCK", 500)
    for workers in (1, 4):
        monkeypatch.setattr(text, "WORKERS", workers)
        part = table(contents)
        assert np.array_equal(part.X, [[i + 0.5, i] for i in range(3000)])
        assert np.array_equal(part.y, [i % 7 for i in range(3000)])


def test_a_request_knows_what_missing_means_by_default(tmp_path):
    assert Request(tmp_path).missing is False
