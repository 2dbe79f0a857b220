"""What `gpubp info` says about a data file: every figure against NumPy's own, and the words for a person."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest

from gpubp.cli._info import duration, figure, file_text, size
from gpubp.data import report, speed
from gpubp.data.advice import train_command
from gpubp.data.demo import demo_file
from gpubp.data.guard import open_file
from gpubp.data.hdf5.rows import HdfRows
from gpubp.data.hdf5.stored import Stored
from gpubp.data.report import describe_file
from gpubp.errors import DataError

RNG = np.random.default_rng(4)
X = RNG.random((12, 3)).astype(np.float32)
Y = np.array([1, 2, 3] * 4)


def advised(found: dict, kind: str | None = None) -> str:
    """All that is advised, as one text."""
    chosen = [one for one in found["advice"] if kind in (None, one["kind"])]
    return "\n".join(f"{one['kind']}: {one['what']} | {one['do']} | {one['command'] or ''}" for one in chosen)


def plain_json(found: dict) -> dict:
    """The record after a way through strict JSON."""
    return json.loads(json.dumps(found, allow_nan=False))


def test_describe_file_is_json_and_says_what_training_would_find(h5, tmp_path):
    path = h5({"train/X": X, "train/y": Y, "val/X": X[:4], "val/y": Y[:4], "test/X": X, "test/y": Y[:3],
               "names": np.array(["a"], "S1")})  # fmt: skip
    with h5py.File(path, "a") as file:
        file.attrs["title"] = "a title"
        file.attrs["numbers"] = np.arange(3)
        file["link"] = h5py.SoftLink("/nowhere")
    found = plain_json(describe_file(path))
    assert found["bytes"] == path.stat().st_size and found["attributes"] == {"title": "a title", "numbers": [0, 1, 2]}
    records = {record["name"]: record for record in found["datasets"]}
    assert records["train/X"] == {
        "name": "train/X", "role": "x", "split": "train", "trouble": None, "shape": [12, 3], "dtype": "float32",
        "layout": "contiguous", "chunks": None, "compression": None, "filters": [], "fields": None, "stored": 144,
        "declared": 144,
    }  # fmt: skip
    assert "soft link" in records["link"]["trouble"] and records["names"]["dtype"] == "text"
    train, val, test = found["parts"]
    assert (train["split"], train["rows"], train["features"]) == ("train", 12, 3)
    assert train["target"]["classes"] == [1, 2, 3] and train["target"]["counts"] == [4, 4, 4]
    assert train["target"]["cost"] == "softmax" and val["rows"] == 4
    assert "X 'test/X' has 12 rows and y 'test/y' has 3" in test["trouble"]
    assert "error: " in advised(found) and "'test/y' has 3" in advised(found, "error")
    only = describe_file(path, split="val")
    assert [part["split"] for part in only["parts"]] == ["val"]


def test_describe_file_of_text_and_real_targets(h5):
    path = h5({"X": X, "y": np.array([b"cat", b"dog"] * 6)})
    target = describe_file(path)["parts"][0]["target"]
    assert target["classes"] == ["cat", "dog"] and target["counts"] == [6, 6] and target["kind"] == "binary"
    y = RNG.normal(size=(12, 2))
    target = describe_file(h5({"X": X, "y": y}))["parts"][0]["target"]
    assert target["says"] == "2 real targets" and len(target["range"]) == 2
    for k, one in enumerate(target["range"]):
        assert one == pytest.approx({"min": y[:, k].min(), "max": y[:, k].max(), "mean": y[:, k].mean(),
                                     "std": y[:, k].std()})  # fmt: skip
    many = (RNG.random((12, 3)) < 0.4).astype(np.uint8)
    many[:, 2] = 1
    found = describe_file(h5({"X": X, "y": many}))
    assert found["parts"][0]["target"]["shares"] == pytest.approx(many.mean(0).tolist())
    assert "same in all rows: 2" in advised(found)
    assert describe_file(h5({"X": X}))["parts"][0]["y"] is None


def test_y_that_cannot_be_used_leaves_x_to_be_looked_at(h5):
    found = describe_file(h5({"X": X, "y": np.where(Y == 2, np.nan, Y)}))
    part = found["parts"][0]
    assert "row 1 is nan" in part["target"]["trouble"] and len(part["columns"]) == 3
    assert "row 1 is nan" in advised(found, "error")
    assert "train with" not in file_text(found)


def test_balance_counts_every_class(h5):
    y = RNG.permutation(np.r_[np.zeros(900), np.ones(60), np.full(40, 7)]).astype(np.int16)
    found = describe_file(h5({"X": RNG.random((1000, 2)), "y": y}))
    balance = found["parts"][0]["target"]["balance"]
    assert balance["largest"] == {"class": 0, "rows": 900, "share": 0.9}
    assert balance["smallest"] == {"class": 7, "rows": 40, "share": 0.04} and balance["ratio"] == 22.5
    assert "class 0 has 22 times the rows of class 7 (900 and 40) | --class-weight balanced" in advised(found, "advice")
    many = describe_file(h5({"X": RNG.random((1000, 2)), "y": np.arange(1000) % 250}))
    target = many["parts"][0]["target"]
    assert target["balance"]["ratio"] == 1 and "counts" not in target
    assert "250 different whole numbers" in advised(many, "note")


def test_columns_and_what_is_wrong_with_them(h5):
    m = 3000
    table = RNG.normal(size=(m, 9)).astype(np.float32)
    table[:, 1] *= 1e5
    table[:, 2] = -3.5
    table[::50, 3] = np.nan
    table[::75, 4] = np.nan
    table[11, 5] = np.inf
    table[::3, 6] = -999
    table[:, 7] = table[:, 0]
    table[:, 8] = 5e6 + table[:, 0]
    labels = (RNG.random(m) < 0.5).astype(np.int32)
    names = [f"n{k}" for k in range(9)]
    found = plain_json(describe_file(h5({"X": table, "y": labels, "feature_names": np.array(names, "S")})))
    part = found["parts"][0]
    wide = np.where(np.isfinite(table), table, np.nan).astype(np.float64)
    for k, one in enumerate(part["columns"]):
        assert (one["column"], one["name"]) == (k, names[k])
        want = {"min": np.nanmin(wide[:, k]), "max": np.nanmax(wide[:, k]), "mean": np.nanmean(wide[:, k])}
        assert {name: one[name] for name in want} == pytest.approx(want)
        assert one["std"] == pytest.approx(np.nanstd(wide[:, k]), rel=1e-7, abs=1e-12)
        assert one["missing"] == np.isnan(table[:, k]).sum() and one["infinite"] == np.isinf(table[:, k]).sum()
    values = part["values"]
    assert values["missing"] == np.isnan(table).sum() and values["infinite"] == 1
    assert values["rows_missing"] == np.isnan(table).any(axis=1).sum()
    assert values["constant"] == [2] and values["may_be_equal"] == [[0, 7]]
    assert values["min"] == np.nanmin(wide) and values["max"] == np.nanmax(wide)
    assert values["mean"] == pytest.approx(np.nanmean(wide))
    said = advised(found, "error")
    assert f"{values['missing']} values are missing (NaN)" in said and "--missing mean" in said
    assert "columns 3 'n3' and 4 'n4'" in said and "1 value is infinite, in column 5 'n5'" in said
    said = advised(found, "advice")
    assert "column 6 'n6': the end at -999" in said and "float32 has few digits left" in said and "8 'n8'" in said
    said = advised(found, "note")
    assert "constant column 2 'n2': harmless" in said and "columns 0 'n0' and 7 'n7' have the same figures" in said
    assert "--scale none would not" in said
    text = file_text(found)
    for words in ("60 missing", "1 infinite", "constant", "-999 a mark?", "as column 0?", "n8"):
        assert words in text, words


def test_few_rows_with_gaps_can_be_dropped(h5):
    table = RNG.random((1000, 3))
    table[3, 1] = np.nan
    said = advised(describe_file(h5({"X": table, "y": np.arange(1000) % 2})), "error")
    assert said == "error: 1 value is missing (NaN), in 1 row (0.1 %) and column 1 | --missing drop | "


def test_a_clean_file_has_nothing_to_fix(h5):
    table, y = RNG.random((400, 3)).astype(np.float32), np.arange(400) % 2
    found = describe_file(h5({"train/X": table, "train/y": y, "val/X": table, "val/y": y}))
    assert found["advice"] == []
    assert "train with\n  gpubp train" in file_text(found)


@pytest.mark.parametrize(
    "stored, smaller",
    [
        (np.array([[0.5, 0.25]] * 9), "float32"),
        (np.array([[0.1, 0.2]] * 9), None),
        (np.array([[0.5, 0.2]] * 9, np.float32), None),
        (np.array([[-1, 127]] * 9, np.int64), "int8"),
        (np.array([[0, 200]] * 9, np.int32), "uint8"),
        (np.array([[-1, 200]] * 9, np.int32), "int16"),
        (np.array([[-(2**40), 0]] * 9, np.int64), None),
        (np.array([[0, 255]] * 9, np.uint8), None),
        (np.array([[0, 100]] * 9, np.uint16), "int8"),
    ],
)
def test_a_smaller_type_that_loses_nothing(h5, stored, smaller):
    found = describe_file(h5({"X": stored, "y": np.arange(9) % 2}))
    assert found["parts"][0]["values"]["smallest"] == smaller
    assert ("gpubp convert" in advised(found)) == (smaller is not None)
    if smaller:
        assert np.array_equal(stored.astype(smaller).astype(stored.dtype), stored)


def test_y_among_the_columns_and_weights_of_zero(h5):
    y = RNG.integers(0, 3, 500)
    table = RNG.normal(size=(500, 3))
    table[:, 2] = y
    weights = np.where(np.arange(500) % 5 == 0, 0.0, RNG.random(500))
    found = describe_file(h5({"X": table, "y": y, "w": weights}))
    assert "column 2 has the figures of y: is it y itself?" in advised(found)
    weighing = found["parts"][0]["weighing"]
    assert weighing["zeros"] == 100 and weighing["sum"] == pytest.approx(weights.sum())
    assert "100 rows (20 %) have the weight 0" in advised(found, "note")


def test_transposed_and_foreign_rows(h5):
    found = describe_file(h5({"X": RNG.random((3, 40)), "y": np.arange(40) % 2}))
    assert "transposed" in advised(found, "error")
    assert "transposed" in advised(describe_file(h5({"X": RNG.random((20, 3000))})), "advice")
    found = describe_file(h5({"train/X": X, "train/y": Y, "test/X": X, "test/y": Y + 1}))
    assert "the test rows have classes that no training row has: 4" in advised(found, "error")
    found = describe_file(h5({"train/X": X, "train/y": Y, "test/X": X[:, :2], "test/y": Y}))
    assert "the test rows have 2 features and the training rows 3" in advised(found, "error")


def test_tables_with_fields_are_named(h5):
    table = np.zeros(20, [("pt", "f4"), ("n", "i2"), ("name", "S8")])
    found = describe_file(h5({"jets": table, "y": np.arange(20) % 2}))
    assert next(one for one in found["datasets"] if one["name"] == "jets")["fields"] == {
        "pt": "float32", "n": "int16", "name": "|S8",
    }  # fmt: skip
    assert "--x 'jets[pt,n]'" in advised(found)
    table = np.zeros(20, [("pt", "f4"), ("label", "i2"), ("w", "f4")])
    table["label"], table["w"], table["pt"] = np.arange(20) % 2, 1, np.arange(20)
    path = h5({"jets": table})
    options = "--x 'jets[pt]' --y 'jets[label]' --weights 'jets[w]'"
    (line,) = [one["command"] for one in describe_file(path)["advice"] if one["command"]]
    assert line == f"gpubp info {path} {options}"
    chosen = {"x": "jets[pt]", "y": "jets[label]", "weights": "jets[w]"}
    found = describe_file(path, **chosen)
    assert found["asked"] == chosen and train_command(found) == f"gpubp train {path} --out run {options}"


def test_the_lines_to_type_keep_what_was_asked(h5):
    path = h5({"a/X": X.astype("f8"), "b/X": X, "y": Y})
    found = describe_file(path, x="a/X", y="y", split=None)
    assert f"gpubp convert {path} {str(path)[:-3]}-new.h5 --x a/X --y y" in advised(found)
    assert str(train_command(found)).startswith(f"gpubp train {path} --out run --x a/X --y y")


def test_no_other_file_is_opened(tmp_path):
    """The other file is a pipe here: whoever opened it would wait for ever."""
    os.mkfifo(tmp_path / "other.h5")
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["X"] = h5py.ExternalLink("other.h5", "/X")
        file["y"] = Y
    found = describe_file(tmp_path / "d.h5")
    assert "'X' is a link into another file" in advised(found, "error")
    assert "refused: X is a link into another file" in file_text(found)


def test_checksums_are_told_and_not_listed(h5):
    path = h5({"X": X, "y": Y, "X.crc32": np.zeros(3, np.uint32), "other.crc32": np.zeros(3, np.uint32)})
    found = describe_file(path)
    assert found["checksums"] == ["X"]
    assert [one["name"] for one in found["datasets"]] == ["X", "other.crc32", "y"]
    assert "checksums: yes, of X" in file_text(found)


def test_the_whole_of_the_example_data():
    found = plain_json(describe_file(demo_file()))
    with h5py.File(demo_file()) as file:
        train = np.asarray(file["train/X"])
    part = found["parts"][0]
    assert [one["mean"] for one in part["columns"]] == pytest.approx(train.mean(0, dtype=np.float64).tolist())
    assert [one["std"] for one in part["columns"]] == pytest.approx(train.std(0, dtype=np.float64).tolist())
    text = file_text(found)
    assert "130 constant columns" in text and "gzip 9" in text and "column  " not in text


def test_how_much_is_read(h5, monkeypatch):
    path = h5({"X": X, "y": Y})
    assert not {"values", "columns", "reading", "skipped"} & set(describe_file(path, rows="none")["parts"][0])
    monkeypatch.setattr(report, "LOOKED", 0.0)
    part = describe_file(path)["parts"][0]
    assert part["skipped"]["seconds"] > 0 and "columns" not in part
    assert "--full" in file_text(describe_file(path))
    seen = []
    part = describe_file(path, rows="all", progress=lambda done, total: seen.append((done, total)))["parts"][0]
    assert len(part["columns"]) == 3 and seen == [(12, 12)]


def test_reading_is_measured_and_held_against_the_budget(h5, monkeypatch):
    table = RNG.random((50_000, 10)).astype(np.float32)
    path = h5({"X": table, "y": np.arange(50_000) % 2})
    reading = describe_file(path)["parts"][0]["reading"]
    assert reading["bytes"] == table.nbytes and reading["kept"]
    assert reading["seconds"] == pytest.approx(reading["bytes"] / reading["rate"])
    assert reading["rate"] > 1e6 and reading["raw"] > 1e6 and 0 < reading["measured"]["bytes"] <= table.nbytes
    monkeypatch.setattr(report, "default_budget", lambda: 500_000)
    found = describe_file(path)
    assert not found["parts"][0]["reading"]["kept"]
    assert "1.5 MB are read in every pass" in " ".join(file_text(found).split())


def test_a_slow_layout_is_named_with_the_line_that_mends_it(tmp_path, monkeypatch):
    path = tmp_path / "it's.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("X", data=RNG.random((20_000, 20)), chunks=(500, 1), compression="gzip")
        file["y"] = np.arange(20_000) % 2
    monkeypatch.setattr(report, "default_budget", lambda: 100_000)
    found = describe_file(path)
    record = next(one for one in found["datasets"] if one["name"] == "X")
    assert record["chunks"] == [500, 1] and record["filters"][0]["options"] == [4] and record["stored"] > 10_000
    (one,) = (one for one in found["advice"] if "slower" in one["what"])
    assert one["kind"] == "advice"
    assert shlex.split(one["command"]) == ["gpubp", "convert", str(path), str(tmp_path / "it's-new.h5")]
    assert "gzip 4" in file_text(found)


@pytest.mark.parametrize("chunks", [None, (7, 3), (50, 2), (1000, 3)])
def test_plain_reads_cover_the_bytes_of_the_rows(tmp_path, chunks):
    """Where the file keeps the rows: put together, those bytes hold every value."""
    table = np.arange(3000, dtype=np.int32).reshape(1000, 3)
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file.create_dataset("X", data=table, chunks=chunks)
    raw = (tmp_path / "d.h5").read_bytes()
    with open_file(tmp_path / "d.h5") as file:
        stored = file.dataset("X")
        for start, stop in ((0, 1), (0, 1000), (6, 8), (499, 700), (999, 1000)):
            ranges = speed._ranges(stored, start, stop)
            found = np.concatenate([np.frombuffer(raw[at : at + size], np.int32) for at, size in ranges])
            assert set(table[start:stop].ravel().tolist()) <= set(found.tolist())
            if chunks is None:
                np.testing.assert_array_equal(found, table[start:stop].ravel())


def test_measuring_reads_what_it_says(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "_PIECE", 4000)
    monkeypatch.setattr(speed, "_PROBE", 1000)
    monkeypatch.setattr(speed, "_SECONDS", 60.0)
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["X"] = RNG.random((10_000, 5))
    with open_file(tmp_path / "d.h5") as file:
        source = HdfRows(file, file.dataset("X"))
        asked = []
        monkeypatch.setattr(source, "read", lambda start, stop, out: asked.append((start, stop)))
        found = speed.measure(file, file.dataset("X"), source)
        assert found.bytes == sum(stop - start for start, stop in asked[2:]) * 40
        assert asked[-1][0] > 9_000 and found.share == 1 and found.cached in (None, 1.0)
        elsewhere = speed.measure(file, Stored("nowhere"), source)
        assert elsewhere.raw is None and elsewhere.cached is None and elsewhere.rate > 0


def test_no_text_from_a_file_reaches_the_terminal_as_it_is(tmp_path, gpubp_command):
    evil = "\x1b]0;owned\x07\u202e\x9b31m"
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["X"] = RNG.random((200, 2))
        file["y"] = np.array([f"a{evil}".encode(), b"b\r\n"] * 100)
        file[f"n{evil}"] = X
        file["feature_names"] = np.array([f"f{evil}".encode(), b"g\nh"])
        file[f"e{evil}"] = h5py.ExternalLink(f"/etc/{evil}", f"/{evil}")
        file.attrs[f"t{evil}"] = f"v{evil}\r\n"
        file.create_dataset(f"z{evil}", data=np.zeros(3, [(f"f{evil}", "i4")]))
    done = gpubp_command("info", "d.h5")
    assert all(character == "\n" or character.isprintable() for character in done.stdout)
    assert "\\x1b]0;owned" in done.stdout and "g\\nh" in done.stdout
    assert json.loads(gpubp_command("info", "d.h5", "--json").stdout)["attributes"]


def test_the_command_line(gpubp_command, tmp_path, h5):
    path = h5({"X": X, "y": Y, "other": X[:, :2]})
    assert "columns" in gpubp_command("info", path, "--json").json["parts"][0]
    assert "reading" not in gpubp_command("info", path, "--json", "--quick").json["parts"][0]
    assert gpubp_command("info", path, "--json", "--x", "other").json["parts"][0]["features"] == 2
    assert "12 rows of 3 features" in gpubp_command("info", path, "--full").stdout
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    assert "gpubp convert" in gpubp_command("info", "t.csv", check=3).error
    os.mkfifo(tmp_path / "pipe")
    assert "a pipe" in gpubp_command("info", "pipe", check=3).error
    with pytest.raises(DataError):
        describe_file(tmp_path / "t.csv")


def test_figures_for_a_person():
    assert [size(n) for n in (0, 999, 1000, 999_700, 1_630_000, 44.8e6, 2.45e9, 3e13)] == [
        "0 bytes", "999 bytes", "1 kB", "1 MB", "1.63 MB", "44.8 MB", "2.45 GB", "30 TB",
    ]  # fmt: skip
    assert [duration(s) for s in (1e-6, 0.0146, 0.9, 2.345, 89, 100, 9000)] == [
        "less than a millisecond", "14.6 ms", "900 ms", "2.35 s", "89 s", "2 min", "2.5 h",
    ]  # fmt: skip
    assert [figure(v) for v in (None, 0, 0.0, 3.0, 1234567, -0.00123456, 1e-7, 123456.78, 2.5e12, 1e300)] == [
        "-", "0", "0", "3", "1,234,567", "-0.001235", "1.000e-07", "123,457", "2.500e+12", "1.000e+300",
    ]  # fmt: skip


def test_a_file_without_anything_in_it(tmp_path):
    h5py.File(tmp_path / "d.h5", "w").close()
    found = describe_file(tmp_path / "d.h5")
    assert "holds nothing" in advised(found, "error") and "datasets: none" in file_text(found)


def test_one_row_and_one_wide_row(h5):
    for table in (RNG.random((1, 1)), RNG.random((2, 70_000))):
        path: Path = h5({"X": table})
        found = describe_file(path)
        assert [one["max"] for one in found["parts"][0]["columns"]] == table.max(0).tolist()
        assert file_text(found)


def test_numbers_near_the_largest_are_no_warning(tmp_path):
    """Their mean and the ratio of their spreads are no numbers any more."""
    X = np.array([[1e308, 1e-300, 1.7e308], [-1.7e308, 3e-300, 1.7e308], [1e300, 2e-300, 1e308]])
    path = tmp_path / "large.h5"
    with h5py.File(path, "w") as file:
        file["X"], file["y"] = X, [0, 1, 0]
    part = describe_file(path)["parts"][0]
    assert part["values"]["max"] == 1.7e308
    json.dumps(part, allow_nan=False)
