"""The learning curve, and the pictures."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from running import write

import gpubp
from gpubp.choosing import plot
from gpubp.choosing.learning_curve import learning_curve
from gpubp.choosing.sweep import Interrupted
from gpubp.errors import DataError, UsageError
from gpubp.job import Job
from gpubp.prepare import array_dataset
from gpubp.training import StopRequest

JOB = Job(hidden=(4,), iterations=40, backend="cpu", kernel="numpy")


def table(m: int = 300):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, m)
    return rng.normal(size=(m, 5)) + rng.normal(size=(3, 5))[y], y


def bare(found) -> str:
    def without(value):
        if isinstance(value, dict):
            return {k: without(v) for k, v in value.items() if k not in ("seconds", "next")}
        return [without(v) for v in value] if isinstance(value, list) else value

    return json.dumps(without(found.asdict()))


def test_the_largest_part_is_training_on_all_rows_and_a_small_one_on_those_rows_alone():
    X, y = table()
    found = learning_curve(JOB, 3, dataset=array_dataset(X, y), validation=0.3, decrease=0)
    held = gpubp.data.split.validation_mask(300, 0.3, 0)
    assert [part.rows for part in found.parts] == [10, found.parts[1].rows, int((~held).sum())]
    options = {"hidden": (4,), "iterations": 40, "backend": "cpu", "kernel": "numpy"}
    whole = gpubp.train(X, y, validation=0.3, **options)
    assert found.parts[-1].points[0].J == pytest.approx(whole.history[-1]["J"], rel=1e-12)
    role = gpubp.choosing.roles.part(found.parts[1].rows, 0.3, 0, 0)(300)
    alone = gpubp.train(X[role == 1], y[role == 1], **options)
    # fp32 sums other rows in between, so not to the bit
    assert found.parts[1].points[0].J == pytest.approx(alone.history[-1]["J"], rel=1e-3)
    assert found.parts[1].score == pytest.approx(np.mean(alone.predict(X[held]) == y[held]), abs=0.03)


def test_a_file_that_keeps_validation_rows_has_them_for_every_part(tmp_path):
    X, y = table()
    path = write(
        tmp_path / "d.h5", train__X=X[:200], train__y=y[:200], val__X=X[200:], val__y=y[200:],
        val__weights=np.full(100, 2.0), train__weights=np.linspace(1, 2, 200),
    )  # fmt: skip
    found = gpubp.learning_curve(path, points=3, hidden=(4,), backend="cpu", kernel="numpy")
    assert found.parts[-1].rows == 200 and "file keeps" in found.validation
    mixed = write(tmp_path / "m.h5", train__X=X[:200], train__y=y[:200], val__X=X[200:], val__y=y[200:])
    assert gpubp.learning_curve(mixed, points=2, hidden=(), backend="cpu").parts[0].rows == 10


@pytest.mark.parametrize("after", range(4))
def test_interrupted_it_goes_on_to_the_same_figures(tmp_path, after):
    whole = learning_curve(JOB, 2, dataset=array_dataset(*table()), repeats=2, warm=True)
    stop, done = StopRequest(), []

    def each(progress, state):
        if len(done) == after and progress.iteration == 2:
            stop.by = "SIGINT"

    options = {"repeats": 2, "warm": True, "out": tmp_path / "lc"}
    with pytest.raises(Interrupted):
        learning_curve(
            JOB,
            2,
            dataset=array_dataset(*table()),
            stop=stop,
            callbacks=[each],
            told=lambda *a: done.append(a),
            **options,
        )
    trained = []
    again = learning_curve(
        JOB, 2, dataset=array_dataset(*table()), callbacks=[lambda p, s: trained.append(p.iteration == 1)], **options
    )
    assert bare(again) == bare(whole) and sum(trained) == 4 - after
    assert again.parts[1].points[1].start == "10 rows" and again.parts[0].points[1].start == "fresh"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"points": 1}, "1 points"),
        ({"repeats": 0}, "0 repeats"),
        ({"least": 0}, "0 rows"),
        ({"least": 10_000}, "more than 10000"),
        ({"validation": 0}, "more than 0"),
        ({"decrease": 1}, "decrease of 1"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(options, words, tmp_path):
    with pytest.raises(UsageError, match=words):
        gpubp.learning_curve(*table(), out=tmp_path / "lc", **options)


def test_the_command_prints_a_table_and_a_verdict(gpubp_command, tmp_path):
    X, y = table()
    path = write(tmp_path / "d.h5", X=X, y=y)
    options = ["--hidden", "3", "--points", 3, "--kernel", "numpy", "--out", "lc"]
    done = gpubp_command("learning-curve", path, *options)
    assert "training" in done.stdout and "next:\n  gpubp train" in done.stdout and "lc-chosen" in done.stdout
    result = json.loads((tmp_path / "lc" / "result.json").read_text())
    assert result["parts"][0]["rows"] == 10 and result["verdict"]["kind"] in done.stdout
    assert gpubp_command("learning-curve", path, *options, "--json").json == result


def test_pictures_of_every_kind(tmp_path):
    pytest.importorskip("matplotlib", reason="Matplotlib draws the curves")
    X, y = table()
    options = {"hidden": (3,), "backend": "cpu", "kernel": "numpy"}
    curve = gpubp.learning_curve(X, y, points=3, **options)
    found = gpubp.sweep(X, y, lambdas=[0, 0.1, 1], **options)
    networks = gpubp.sweep(X, y, lambdas=[1], networks=[(), (3,), (4, 4)], backend="cpu", kernel="numpy")
    begins = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
    for name, one in (("a", curve), ("b", found), ("c", networks)):
        for kind, head in begins.items():
            plot.draw(one, tmp_path / f"{name}{kind}")
            assert (tmp_path / f"{name}{kind}").read_bytes().startswith(head)
    ElementTree.parse(tmp_path / "b.svg")
    assert "<!-- chosen: λ = " in (tmp_path / "b.svg").read_text()


def test_a_picture_that_cannot_be_is_refused_before_the_work(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"\.png, \.svg, \.pdf"):
        plot.check(tmp_path / "a.gif")
    with pytest.raises(DataError, match="no folder"):
        plot.check(tmp_path / "none" / "a.png")
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"pip install 'gpubp\[plot\]'"):
        plot.check(tmp_path / "a.png")
