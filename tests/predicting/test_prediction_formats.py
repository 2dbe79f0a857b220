"""Every format of predictions holds the same numbers, read back by other people's readers; whole files or none."""

from __future__ import annotations

import csv
import io
import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import gpubp
from gpubp.backend.numpy import NumpyBackend
from gpubp.data.rows import Rows
from gpubp.data.scaling import Scaling
from gpubp.data.source import ArrayRows
from gpubp.data.targets import TargetSpec
from gpubp.errors import DataError, UsageError
from gpubp.inference import Model
from gpubp.predictions import print_predictions, write_predictions
from gpubp.predictions.answers import Answers, Part
from gpubp.predictions.formats import formats, named, of_file

X = np.random.default_rng(0).normal(size=(2500, 4)).astype(np.float32)
NONE = Scaling("none", None, None)
AWKWARD = ("", '"a", b', "carriage\rreturn", "line\nend", "tab\there", "κόσμος")
CASES = {
    "text": (TargetSpec("classes", AWKWARD, len(AWKWARD)), "softmax"),
    "labels 1 … 10": (TargetSpec("classes", tuple(range(1, 11)), 10), "softmax"),
    "large labels": (TargetSpec("classes", (-1, 0, 2**53), 3), "logistic"),
    "two classes": (TargetSpec("binary", ("no", "yes"), 1), "logistic"),
    "bool": (TargetSpec("binary", (False, True), 1), "logistic"),
    "several labels": (TargetSpec("multilabel", None, 3), "logistic"),
    "a number": (TargetSpec("real", None, 1), "squares"),
    "numbers": (TargetSpec("real", None, 3), "squares"),
}
NAMES = [one.name for one in formats()]


def backend() -> NumpyBackend:
    """Several threads and several chunks: rows must keep their order."""
    it = NumpyBackend(3)
    it.most_rows = 1024
    return it


def model_of(case: str) -> Model:
    targets, cost = CASES[case]
    network = gpubp.Network((4, 6, targets.outputs), activation="tanh", cost=cost)
    return Model(network, network.initial_Theta(1) * 5, NONE, targets)


def rows(x: np.ndarray = X) -> Rows:
    return Rows(ArrayRows(x), x[:0], NONE)


def read(path: Path, format: str, K: int) -> tuple[Any, Any]:
    """Predictions as lists and probabilities as float32 (or None), by h5py, NumPy, pyarrow, csv and json."""
    if format == "hdf5":
        with h5py.File(path) as file:
            p = file["prediction"]
            prediction = p.asstr()[:] if h5py.check_string_dtype(p.dtype) else p[:]  # pyright: ignore
            return prediction.tolist(), file["probability"][:] if "probability" in file else None  # pyright: ignore
    if format == "npy":
        found = np.load(path, allow_pickle=False)
        if found.dtype.names:
            return found["prediction"].tolist(), found["probability"]
        return found.tolist(), None
    names, table = _table(path, format)
    answers = [i for i, name in enumerate(names) if name.startswith("prediction")]
    shares = [i for i, name in enumerate(names) if name.startswith("p_")]
    assert names == [names[i] for i in answers + shares] and len(answers) in (1, K)
    prediction = [[row[i] for i in answers] for row in table]
    if len(answers) == 1:
        prediction = [row[0] for row in prediction]
    probability = np.array([[np.float32(row[i]) for i in shares] for row in table]) if shares else None
    return prediction, probability


def _table(path: Path, format: str) -> tuple[list[str], list[list[Any]]]:
    if format == "parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        assert not any(field.nullable for field in table.schema)
        return table.column_names, list(map(list, zip(*(c.to_pylist() for c in table.columns), strict=True)))
    if format == "jsonl":
        lines = [json.loads(line) for line in path.read_text("utf-8").removesuffix("\n").split("\n")]
        assert all(list(line) == list(lines[0]) for line in lines)
        return list(lines[0]), [list(line.values()) for line in lines]
    with open(path, newline="", encoding="utf-8") as file:
        names, *table = csv.reader(file, delimiter="\t" if format == "tsv" else ",", strict=True)
    return names, table


@pytest.mark.parametrize("format", NAMES)
@pytest.mark.parametrize("case", CASES)
def test_a_file_holds_what_the_model_says(case, format, tmp_path):
    model, path = model_of(case), tmp_path / f"out{named(format).suffixes[0]}"
    held = write_predictions(model, rows(), path, backend=backend())
    wanted = model.predict(X, backend="cpu")
    K = model.targets.outputs
    prediction, probability = read(path, format, K)
    if format in ("csv", "tsv"):  # cells of text: what they say
        kind = {"b": lambda cell: {"True": True, "False": False}[cell], "U": str, "f": float}.get(
            wanted.dtype.kind, int
        )
        prediction = [[kind(cell) for cell in row] if isinstance(row, list) else kind(row) for row in prediction]
    if wanted.dtype.kind == "f":
        # the passes differ in their blocks, so in the last bits of float32; a file of a format has those of the others
        np.testing.assert_allclose(prediction, wanted, rtol=1e-5)
        write_predictions(model, rows(), tmp_path / "same.h5", backend=backend())
        assert prediction == read(tmp_path / "same.h5", "hdf5", K)[0]
        assert probability is None
    else:
        assert prediction == wanted.tolist()
        np.testing.assert_allclose(probability, model.predict_proba(X, backend="cpu"), rtol=1e-4, atol=1e-7)
        write_predictions(model, rows(), tmp_path / "same.h5", backend=backend(), overwrite=True)
        assert probability.dtype == np.float32
        assert probability.tobytes() == read(tmp_path / "same.h5", "hdf5", K)[1].tobytes()
    (names,) = held.values()
    assert set(held) < {"datasets", "fields", "columns"} and names[0].startswith("prediction")


def test_columns_are_named_by_the_classes(tmp_path):
    def head(case: str, **how: Any) -> str:
        write_predictions(model_of(case), rows(), path := tmp_path / f"{case}.csv", backend=backend(), **how)
        return path.read_text().partition("\n")[0]

    assert head("two classes") == "prediction,p_no,p_yes"
    assert head("labels 1 … 10").endswith(",p_9,p_10")
    assert head("several labels") == "prediction_0,prediction_1,prediction_2,p_0,p_1,p_2"
    assert head("numbers") == "prediction_0,prediction_1,prediction_2" and head("a number") == "prediction"
    assert head("bool", probability=False, overwrite=True) == "prediction"
    write_predictions(model_of("labels 1 … 10"), rows(), tmp_path / "ten.h5", backend=backend())
    with h5py.File(tmp_path / "ten.h5") as file:
        assert file["probability"].attrs["classes"].tolist() == [str(label) for label in range(1, 11)]
    with h5py.File(tmp_path / "none.h5", "w"):
        pass
    held = write_predictions(
        model_of("text"), rows(), tmp_path / "none.h5", backend=backend(), probability=False, overwrite=True
    )
    with h5py.File(tmp_path / "none.h5") as file:
        assert held == {"datasets": list(file)} == {"datasets": ["prediction"]}


@pytest.mark.parametrize("format", NAMES)
def test_a_file_comes_whole_or_not_at_all(format, tmp_path):
    holed = X.copy()
    holed[2400, 2] = np.nan  # in the last chunk: two have been written by then
    path = tmp_path / f"out{named(format).suffixes[0]}"
    with pytest.raises(DataError, match="row 2400, column 2"):
        write_predictions(model_of("text"), rows(holed), path, backend=backend())
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"earlier")
    with pytest.raises(DataError, match="exists; add --overwrite"):
        write_predictions(model_of("text"), rows(), path, backend=backend())
    with pytest.raises(DataError, match="row 2400, column 2"):
        write_predictions(model_of("text"), rows(holed), path, backend=backend(), overwrite=True)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"earlier"
    write_predictions(model_of("text"), rows(), path, backend=backend(), overwrite=True)
    assert list(tmp_path.iterdir()) == [path] and len(read(path, format, 5)[0]) == len(X)


@pytest.mark.parametrize("format", NAMES)
def test_a_disk_that_takes_no_more_is_one_line(format, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(DataError) as caught:
            write_predictions(model_of("text"), rows(), tmp_path / "out", backend=backend(), format=format)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


class Sips(io.RawIOBase):
    """What a pipe is that an unbuffered stdout writes to: it takes what it has room for, and says how much."""

    def __init__(self) -> None:
        self.taken = b""

    def write(self, data: Any, /) -> int:
        self.taken += bytes(data[:1000])
        return min(len(data), 1000)


@pytest.mark.parametrize("format", [one.name for one in formats() if one.text])
def test_a_pipe_that_takes_a_part_gets_the_rest(format, tmp_path):
    write_predictions(model_of("text"), rows(), tmp_path / "whole", backend=backend(), format=format)
    print_predictions(model_of("text"), rows(), pipe := Sips(), backend=backend(), format=format)  # pyright: ignore
    assert pipe.taken == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("format", [one.name for one in formats() if one.text])
def test_a_row_is_in_the_pipe_as_soon_as_it_is_known(format):
    answers = Answers(CASES["bool"][0], 3)
    file = io.BufferedWriter(raw := io.BytesIO())  # pyright: ignore

    def parts() -> Iterator[Part]:
        for row in range(3):
            yield answers.part(np.array([[row / 2]]))
            assert raw.getvalue().count(b"\n") == row + 1 + (format != "jsonl")

    named(format).write(answers, parts(), file)
    assert raw.getvalue().count(b"\n") == 3 + (format != "jsonl")


def test_what_is_no_format_is_refused_before_the_work(tmp_path):
    with pytest.raises(UsageError, match=r"out\.xls; wanted a name that ends in one of \.h5, .*or say --format"):
        write_predictions(model_of("text"), rows(), tmp_path / "out.xls", backend=backend())
    with pytest.raises(UsageError, match=f"predictions as xls; wanted one of {', '.join(NAMES)}"):
        write_predictions(model_of("text"), rows(), tmp_path / "out.csv", backend=backend(), format="xls")
    assert of_file(Path("A.CSV")).name == "csv" and list(tmp_path.iterdir()) == []


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"wanted pyarrow; pip install 'gpubp\[formats\]'"):
        write_predictions(model_of("text"), rows(), tmp_path / "out.parquet", backend=backend())
    assert list(tmp_path.iterdir()) == []


def test_parquet_gathers_parts_to_groups(tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    from gpubp.predictions.formats import parquet

    monkeypatch.setattr(parquet, "MOST", 1500)
    write_predictions(model_of("numbers"), rows(), tmp_path / "out.parquet", backend=backend())
    file = pq.ParquetFile(tmp_path / "out.parquet")
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert len(groups) == 2 and sum(groups) == len(X) and groups[0] >= 1500  # of three parts
