"""Data of every kind through training: the same Θ as from the plain copy; and every option through the whole way."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click.testing
import h5py
import numpy as np
import pytest
from running import write

import gpubp
from gpubp import run
from gpubp.backend import choose
from gpubp.checkpoint import read
from gpubp.checkpoint import write as write_checkpoint
from gpubp.cli import train
from gpubp.cli._main import cli
from gpubp.data import missing
from gpubp.errors import CheckpointError, DataError, GpubpError, UsageError
from gpubp.inference import evaluate
from gpubp.job import Job
from gpubp.model_rows import open_for, rows_for

RNG = np.random.default_rng(11)
Y = np.arange(120) % 3
X = (RNG.normal(size=(120, 4)) + 0.6 * Y[:, None]).astype("f4")
QUICK: dict[str, Any] = {"hidden": (4,), "iterations": 6, "backend": "cpu", "kernel": "numpy"}


def bits(model) -> bytes:
    return model.Theta.tobytes()


def trained(path, **options):
    return gpubp.train(path, **(QUICK | options))


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        (">f4", X.astype(">f4")),
        (">f8", X.astype(">f8")),
        ("f8", X.astype("f8")),
        ("f2", X.astype("f2")),
        (">f2", X.astype(">f2")),
        (">i2", (X * 100).astype(">i2")),
        ("i8", (X * 100).astype("i8")),
        (">u4", np.abs(X * 100).astype(">u4")),
        ("bool", X > 0),
    ],
)
def test_rows_of_any_type_train_as_their_float32_copy(name, stored, tmp_path):
    a = write(tmp_path / "a.h5", X=stored, y=Y)
    b = write(tmp_path / "b.h5", X=stored.astype("f4"), y=Y)
    found, wanted = trained(a), trained(b)
    if name in ("i8", ">u4", ">f8", "f8"):  # μ/σ is folded into the same float32 rows
        np.testing.assert_allclose(found.Theta, wanted.Theta, rtol=1e-5, atol=1e-6)
    else:
        assert bits(found) == bits(wanted)


def test_enumerations_are_their_numbers(tmp_path):
    codes = np.array([[1, 2, 3, 5][i % 4] for i in range(480)], "i1").reshape(120, 4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        kind = h5py.enum_dtype({"a": 1, "b": 2, "c": 3, "d": 5}, "i1")
        file.create_dataset("X", data=codes, dtype=kind)
        file.create_dataset("y", data=Y.astype("i1"), dtype=h5py.enum_dtype({"p": 0, "q": 1, "r": 2}, "i1"))
    found = trained(tmp_path / "a.h5")
    assert bits(found) == bits(trained(write(tmp_path / "b.h5", X=codes.astype("f4"), y=Y)))
    assert found.targets.classes == (0, 1, 2)


def test_classes_as_text(tmp_path):
    names = np.array(["ant", "bee", "é"])
    numbers = trained(write(tmp_path / "n.h5", X=X, y=Y))
    for text in (names[Y].astype(object), np.char.encode(names, "utf-8")[Y]):
        model = trained(write(tmp_path / "t.h5", X=X, y=text))
        assert bits(model) == bits(numbers) and model.targets.classes == ("ant", "bee", "é")
        assert set(model.predict(X)) <= set(names)


def test_several_files_train_as_one(tmp_path, monkeypatch):
    whole = trained(write(tmp_path / "whole.h5", X=X, y=Y))
    for i in range(3):
        write(tmp_path / f"part-{i}.h5", X=X[40 * i : 40 * i + 40], y=Y[40 * i : 40 * i + 40])
    paths = [tmp_path / f"part-{i}.h5" for i in range(3)]
    monkeypatch.chdir(tmp_path)
    assert bits(trained(paths)) == bits(trained("part-*.h5")) == bits(trained(paths, memory=500)) == bits(whole)
    model = trained("part-*.h5", out="run", iterations=3)
    assert gpubp.load("run").job["data"] == [str(path) for path in paths] and bits(model) != bits(whole)
    write(tmp_path / "part-9.h5", X=X, y=Y)  # a file that came later is not taken along
    monkeypatch.chdir("/")
    assert bits(run.resume(tmp_path / "run", iterations=6)) == bits(whole)
    paths[1].rename(tmp_path / "moved.h5")
    with pytest.raises(DataError, match=r"part-1\.h5, which .* was trained on, is not there; name the moved"):
        run.resume(tmp_path / "run", iterations=7)
    moved = [paths[0], tmp_path / "moved.h5", paths[2]]
    assert len(run.resume(tmp_path / "run", iterations=7, data=moved).history) == 7
    with pytest.raises(CheckpointError, match="not the data"):
        run.resume(tmp_path / "run", iterations=8, data=moved[::-1])


def test_val_groups_of_several_files_are_held_out(tmp_path):
    for i in range(2):
        part = slice(60 * i, 60 * i + 50)
        more = {"val__X": X[50:60], "val__y": Y[50:60]} if i else {}
        write(tmp_path / f"{i}.h5", train__X=X[part], train__y=Y[part], **more)
    model = trained([tmp_path / "0.h5", tmp_path / "1.h5"])
    assert model.history[-1]["validation"] is not None


def test_bad_labels_in_one_of_several_files_are_named(tmp_path):
    a = write(tmp_path / "a.h5", X=X, y=Y.astype("f4"))
    bad = Y.astype("f4")
    bad[7] = np.nan
    b = write(tmp_path / "b.h5", X=X, y=bad)
    with pytest.raises(DataError, match=r"b\.h5: 'y' row 7 is nan"):
        trained([a, b])
    wrong = X.copy()
    wrong[3, 2] = np.inf
    with pytest.raises(DataError, match=r"b\.h5: 'X' row 3, column 2 is inf"):
        trained([a, write(tmp_path / "b.h5", X=wrong, y=Y)])


def test_tables_train_as_their_columns(tmp_path):
    table = np.zeros(120, [("a", "f4"), ("v", "f4", (3,)), ("label", "S3"), ("w", "f8")])
    table["a"], table["v"], table["label"], table["w"] = X[:, 0], X[:, 1:], np.array([b"ant", b"b", b"c"])[Y], 1 + Y
    path = write(tmp_path / "t.h5", jets=table)
    plain = write(tmp_path / "p.h5", X=X, y=np.array([b"ant", b"b", b"c"])[Y], w=1.0 + Y)
    names = {"x": "jets[a,v]", "y": "jets[label]", "weights": "jets[w]"}
    model = trained(path, **names, out=tmp_path / "run", iterations=3)
    assert bits(trained(path, **names, memory=100)) == bits(trained(plain))
    assert bits(run.resume(tmp_path / "run", iterations=6)) == bits(trained(plain))
    assert model.job["x"] == "jets[a,v]"


def test_class_weights_multiply_row_weights(tmp_path):
    y = np.where(RNG.random(120) < 0.2, 1, 0)
    w = RNG.integers(1, 4, 120).astype("f8")
    balanced = w * (w.sum() / (2 * np.bincount(y, w)))[y]
    path = write(tmp_path / "d.h5", X=X, y=y, w=w)
    fixed: dict[str, Any] = {"scale": "none"}  # μ and σ follow the row weights alone
    model = trained(path, class_weight="balanced", out=tmp_path / "run", **fixed)
    np.testing.assert_allclose(model.Theta, gpubp.train(X, y, weights=balanced, **QUICK, **fixed).Theta, rtol=1e-6)
    assert gpubp.load(tmp_path / "run").job["class_weight"] == "balanced"
    by_label = trained(path, class_weight={1: 3}, out=tmp_path / "b", iterations=3, **fixed)
    assert by_label.job["class_weight"] == {"1": 3.0}
    expected = gpubp.train(X, y, weights=w * np.array([1.0, 3.0])[y], **QUICK, **fixed)
    np.testing.assert_allclose(run.resume(tmp_path / "b", iterations=6).Theta, expected.Theta, rtol=1e-6)


def test_class_weights_leave_validation_rows_out_of_the_count():
    held = gpubp.train(X, Y, class_weight="balanced", validation=0.3, **QUICK)
    plain = gpubp.train(X, Y, validation=0.3, **QUICK)
    assert held.history[-1]["validation"] != plain.history[-1]["validation"]
    with pytest.raises(UsageError, match="--class-weight with a real target"):
        gpubp.train(X, X[:, 0] * 1.1, class_weight="balanced", **QUICK)


def test_selected_columns_belong_to_the_model_and_rows_to_the_training(tmp_path):
    names = np.array([b"pt", b"eta", b"phi", b"m"])
    path = write(tmp_path / "d.h5", X=X, y=Y, feature_names=names)
    small = write(tmp_path / "s.h5", X=X[10:90][:, [3, 0, 1]], y=Y[10:90])
    selected = ["rows=10:90", "columns=-1,pt", "columns=1"]
    model = trained(path, select=selected, out=tmp_path / "run", iterations=3)
    assert (
        bits(trained(path, select=selected)) == bits(trained(small)) == bits(trained(path, select=selected, memory=99))
    )
    assert model.job["select"] == ("rows=10:90", "columns=3,pt,1")
    assert bits(run.resume(tmp_path / "run", iterations=6)) == bits(trained(small))
    swapped = [2, 1, 0, 3]
    other = write(tmp_path / "o.h5", X=X[:, swapped], y=Y, feature_names=names[swapped])
    for file in (path, other):  # a name is the same feature wherever it stands
        with open_for(model, file) as data:
            out = np.empty((120, 3), "f4")
            data.source.read(0, 120, out)
            assert np.array_equal(out, X[:, [3, 0, 1]]) and data.feature_names == ("m", "pt", "eta")
            assert evaluate(model, rows_for(model, data, labelled=True), backend=choose("cpu")[0])["rows"] == 120
    numbered = gpubp.train(X, Y, select="columns=3,0:2", **QUICK)
    assert (numbered.predict(X) == gpubp.train(X[:, [3, 0, 1]], Y, **QUICK).predict(X[:, [3, 0, 1]])).all()
    with pytest.raises(GpubpError, match="X has no column 3"):
        numbered.predict(X[:, :3])


def holes() -> np.ndarray:
    holed = X.copy()
    holed[RNG.random(X.shape) < 0.06] = np.nan
    return holed


def test_missing_values_are_filled_with_means_of_the_training(tmp_path):
    holed = holes()
    path = write(tmp_path / "d.h5", X=holed, y=Y)
    means = np.nanmean(holed.astype("f8"), axis=0).astype("f4")
    filled = np.where(np.isnan(holed), means, holed)
    wanted = gpubp.train(filled, Y, **QUICK)
    model = trained(path, missing="mean", out=tmp_path / "run", iterations=3)
    assert bits(trained(path, missing="mean")) == bits(wanted) == bits(trained(path, missing="mean", memory=200))
    resumed = run.resume(tmp_path / "run", iterations=6)
    assert bits(resumed) == bits(wanted) and np.array_equal(gpubp.load(tmp_path / "run").fill, means)
    assert np.array_equal(resumed.predict_proba(holed), wanted.predict_proba(filled))
    assert model.job["missing"] == "mean" and wanted.fill is None
    with pytest.raises(DataError, match=r"d\.h5: 'X' row \d+, column \d is nan"):
        trained(path)


def test_rows_with_missing_values_are_dropped(tmp_path):
    holed, weights = holes(), RNG.integers(1, 3, 120).astype("f8")
    whole = ~np.isnan(holed).any(axis=1)
    path = write(tmp_path / "d.h5", X=holed, y=Y, w=weights)
    # klbfgs looks at how many rows there are, dropped ones too, when it decides what is worth it
    options: dict[str, Any] = {"precision": "fp64", "optimizer": "lbfgs"}
    wanted = gpubp.train(holed[whole], Y[whole], weights=weights[whole], **options, **QUICK)
    model = trained(path, missing="drop", out=tmp_path / "run", **options)
    np.testing.assert_allclose(model.Theta, wanted.Theta, rtol=1e-7)
    np.testing.assert_allclose(model.scaling.mean, wanted.scaling.mean, rtol=1e-14)
    assert bits(trained(path, missing="drop")) == bits(trained(path, missing="drop", memory=200))
    with pytest.raises(DataError, match=r"row \d+, column \d is missing .*--missing mean"):
        model.predict(holed)
    assert model.predict(holed[whole]).shape == (whole.sum(),)


def test_a_checkpoint_without_these_fields_is_read_as_before(tmp_path):
    trained(write(tmp_path / "d.h5", X=X, y=Y), out=tmp_path / "run")
    path = max((tmp_path / "run").glob("*.h5"))
    old = read(path)
    new = {"allow", "select", "missing", "class_weight"}
    write_checkpoint(path, replace(old, job={k: v for k, v in old.job.items() if k not in new}))
    assert "fill" not in old.scaling and gpubp.load(path).fill is None
    assert len(run.resume(tmp_path / "run", iterations=8).history) == 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"missing": "zero"}, "missing = 'zero'; wanted one of error, mean, drop"),
        ({"class_weight": 3}, "class_weight = 3"),
        ({"class_weight": {"a": "x"}}, "the class weight 'x' for 'a'"),
        ({"select": 5}, "select = 5"),
        ({"select": ["columns"]}, "--select columns"),
        ({"data": [1]}, r"data = \[1\]"),
        ({"allow": 3}, "allow = 3"),
    ],
)
def test_options_that_cannot_be_meant(options, words):
    with pytest.raises(UsageError, match=words):
        Job(**options)


def test_a_job_survives_its_checkpoint():
    asked: dict[str, Any] = {"data": ["a.h5", Path("b.h5")], "select": "columns=1", "class_weight": {"a": 1}}
    job = Job(**asked, missing="mean", allow="/d")
    assert job.data == ("a.h5", "b.h5") and job.files == job.data and job.select == ("columns=1",)
    stored = {**asdict(job), "data": list(job.data), "select": list(job.select)}
    assert Job.from_dict(stored) == job
    assert Job(data=("a.h5",)).data == "a.h5" and Job().files == ()


def command(*words: object, fails: str = "") -> dict[str, Any]:
    """A command in this process: its JSON, or the error it ends with."""
    done = click.testing.CliRunner().invoke(cli, [*map(str, words), "--json"])
    if fails:
        assert isinstance(done.exception, GpubpError) and fails in str(done.exception), done.exception
        return {}
    assert done.exit_code == 0, (words, done.exception, done.output)
    return json.loads(done.stdout)


def parts_and_virtual(folder: Path, rows: np.ndarray) -> None:
    """`part-0.h5` and `part-1.h5`, and `v.h5` of both."""
    names = np.array([b"pt", b"eta", b"phi", b"m"])
    for i in range(2):
        part = slice(60 * i, 60 * i + 60)
        write(folder / f"part-{i}.h5", X=rows[part], y=Y[part], feature_names=names)
    with h5py.File(folder / "v.h5", "w") as file:
        for name, columns, kind in (("X", (4,), "f4"), ("y", (), "i8")):
            layout = h5py.VirtualLayout((120, *columns), kind)
            for i in range(2):
                layout[60 * i : 60 * i + 60] = h5py.VirtualSource(f"part-{i}.h5", name, (60, *columns))
            file.create_virtual_dataset(name, layout)
        file["feature_names"] = names


@pytest.fixture
def quiet():
    """The commands' own log handler is taken away again."""
    logger = logging.getLogger("gpubp")
    level, handlers = logger.level, list(logger.handlers)
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers


@pytest.mark.usefixtures("quiet")
def test_the_commands_have_all_of_it(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    holed = holes()
    parts_and_virtual(tmp_path, holed)
    options = ["--select", "columns=pt,-1", "--missing", "drop", "--class-weight", "0=2,2=0.5", "--hidden", 4,
               "--iterations", 4, "--kernel", "numpy"]  # fmt: skip
    dropped = int(np.isnan(holed[:, [0, 3]]).any(axis=1).sum())
    command("train", "part-*.h5", "--out", "run", *options)
    assert f"{dropped} with a missing value dropped" in caplog.text
    command("train", "part-0.h5", "part-1.h5", "--out", "b", *options)
    command("train", "v.h5", "--out", "v", "--allow", ".", *options)
    assert bits(gpubp.load("run")) == bits(gpubp.load("b")) == bits(gpubp.load("v"))
    for data in (["part-0.h5", "part-1.h5"], ["v.h5", "--allow", "."]):
        caplog.clear()
        result = command("evaluate", "run", *data)
        assert result["dropped"] == dropped and result["rows"] == 120 - dropped
        assert f"{dropped} more rows have a missing value" in caplog.text
    assert command("check", "run", "part-*.h5", "--rows", 50)["passed"]
    assert command("resume", "v", "--iterations", 5)["iterations"] == 5  # with the leave it was given
    command("evaluate", "v", "v.h5", fails="'X' is a virtual dataset")  # a checkpoint gives none
    command("predict", "run", "part-*.h5", "-o", "p.h5", fails="is missing (NaN); wanted whole rows")
    assert not (tmp_path / "p.h5").exists()
    command("predict", "run", "part-*.h5", "-o", "part-0.h5", fails="part-0.h5 is the data itself")
    command("train", "part-*.h5", "--out", "m", "--missing", "mean", "--iterations", 3, "--kernel", "numpy")
    assert command("predict", "m", "part-*.h5", "-o", "p.h5")["rows"] == 120
    os.rename("part-0.h5", "a.h5")
    os.rename("part-1.h5", "b.h5")
    assert command("resume", "run", "--data", "a.h5", "--data", "b.h5", "--iterations", 6)["iterations"] == 6
    assert command("info", "run")["trained on"].endswith("a.h5 and 1 more")
    wrong = ["--class-weight", "7=2", "--missing", "mean"]
    command("train", "a.h5", "--out", "w", *wrong, fails="a class weight for '7', which y has not")
    command("train", "a.h5", "--out", "w", "--select", "columns=9", fails="has no column 9")
    command("train", "x-*.h5", "--out", "w", fails="no file matches 'x-*.h5'")


def test_the_command_line_of_a_process(gpubp_command, tmp_path):
    parts_and_virtual(tmp_path, X)
    env = {"GPUBP_TRAIN_SELECT": "columns=pt,0", "GPUBP_TRAIN_MISSING": "mean"}
    words = ["train", "part-*.h5", "--out", "run", "--kernel", "numpy", "--iterations", 1]
    done = gpubp_command(*words, "--select", "columns=1:3", env=env)
    assert "2-100-3" in done.stderr and "120 rows" in done.stderr
    error = gpubp_command("train", "part-1.h5", "--out", "w", "--class-weight", "9=2", check=3).error
    assert "a class weight for '9'" in error


def test_the_command_line_offers_every_rule_for_missing_values():
    option = next(one for one in train.command.params if one.name == "missing")
    assert isinstance(option.type, click.Choice) and tuple(option.type.choices) == missing.KINDS
