"""The sweep: what it promises of folds, warm starts, interruption and the folder."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import ENVIRONMENT, write

import gpubp
from gpubp.choosing.point import wake
from gpubp.choosing.sweep import Interrupted, holding_out, sweep
from gpubp.errors import CheckpointError, DataError, MismatchError, UsageError
from gpubp.job import Job
from gpubp.network import Network
from gpubp.run import start
from gpubp.training import StopRequest

JOB = Job(hidden=(4,), iterations=60, backend="cpu", kernel="numpy")
LAMBDAS = (0.1, 1.0, 10.0)
CPU: dict[str, Any] = {"backend": "cpu", "kernel": "numpy"}


def table(m: int = 240, seed: int = 0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, m)
    return rng.normal(size=(m, 5)) + rng.normal(size=(3, 5))[y], y


def file(path: Path, **more) -> Path:
    X, y = table()
    return write(path, X=X, y=y, **more)


def figures(found) -> str:
    """All that a sweep found, without its seconds."""

    def bare(value):
        if isinstance(value, dict):
            return {k: bare(v) for k, v in value.items() if k != "seconds"}
        return [bare(v) for v in value] if isinstance(value, list) else value

    return json.dumps(bare(found if isinstance(found, dict) else found.asdict()))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_warm_starts_reach_what_cold_ones_reach_in_fewer_passes():
    """Without hidden layers there is one minimum."""
    X, y = table()
    options = {"hidden": (), "precision": "fp64", "decrease": 1e-9, "iterations": 500, "optimizer": "lbfgs", **CPU}
    warm, cold = (
        gpubp.sweep(X, y, lambdas=[0.1, 0.3, 1, 3, 10], cost="softmax", warm=w, **options) for w in (True, False)
    )
    for a, b in zip(warm.candidates, cold.candidates, strict=True):
        assert a.cost == pytest.approx(b.cost, rel=1e-4) and a.validation == pytest.approx(b.validation, rel=1e-3)
    assert warm.chosen == cold.chosen and warm.passes < 0.9 * cold.passes
    starts = [one.points[0].start for one in warm.candidates]
    assert starts == ["λ = 0.3", "λ = 1", "λ = 3", "λ = 10", "fresh"]
    assert {one.points[0].start for one in cold.candidates} == {"fresh"}


def test_a_point_is_what_training_and_evaluating_give(tmp_path, gpubp_command):
    path = file(tmp_path / "d.h5")
    found = gpubp.sweep(path, lambdas=[1.0], hidden=(4,), validation=0.3, decrease=0, iterations=7, seed=2, **CPU)
    trained = gpubp.train(path, hidden=(4,), validation=0.3, iterations=7, seed=2, **CPU)
    one, last = found.best, trained.history[-1]
    assert one.points[0].J == pytest.approx(last["J"], rel=1e-12)
    assert one.validation == pytest.approx(last["validation"], rel=1e-6)
    held = gpubp.data.split.validation_mask(240, 0.3, 2)
    X, y = table()
    assert one.score == pytest.approx(np.mean(trained.predict(X[held]) == y[held]))
    h = trained.predict_proba(X)
    costs = -np.log(h[np.arange(240), y])
    assert one.cost == pytest.approx(costs[~held].mean(), rel=1e-5)
    assert one.validation_se == pytest.approx(np.std(costs[held]) / np.sqrt(held.sum()), rel=1e-4)
    share = np.bincount(y[~held]) / (~held).sum()
    assert one.constant == pytest.approx(-(share * np.log(share)).sum())


def test_the_rows_that_a_file_keeps_are_held_out_and_those_for_testing_are_not_looked_at(tmp_path):
    X, y = table()
    nan = np.full((30, 5), np.nan)  # looked at, they would be refused
    path = write(
        tmp_path / "d.h5", train__X=X[:150], train__y=y[:150], val__X=X[150:], val__y=y[150:], test__X=nan,
        test__y=y[:30],
    )  # fmt: skip
    found = gpubp.sweep(path, lambdas=[1], hidden=(4,), **CPU)
    assert "file keeps" in found.validation and found.best.points[0].rows == 150
    assert gpubp.sweep(path, lambdas=[1], hidden=(4,), cv=3, **CPU).best.points[0].rows < 120
    own = gpubp.sweep(path, lambdas=[1], hidden=(4,), validation=0.5, **CPU)
    assert own.best.points[0].rows < 100


@pytest.mark.parametrize("after", range(6))
@pytest.mark.parametrize("amid", [False, True], ids=["between", "amid"])
def test_interrupted_at_any_point_it_goes_on_to_the_same_figures(tmp_path, after, amid):
    from gpubp.prepare import array_dataset

    whole = sweep(JOB, LAMBDAS, dataset=array_dataset(*table()), folds=2)
    stop, done = StopRequest(), []

    def told(point, number, total):
        done.append(number)
        assert total == 6
        if number == after and not amid:
            stop.by = "SIGTERM"

    def each(progress, state):
        if len(done) == after and amid and progress.iteration == 3:
            stop.by = "SIGTERM"

    if not amid and after == 0:
        stop.by = "SIGTERM"
    out = tmp_path / "sweep"
    with pytest.raises(Interrupted):
        sweep(JOB, LAMBDAS, dataset=array_dataset(*table()), folds=2, out=out, stop=stop, told=told, callbacks=[each])
    assert not (out / "result.json").exists() and len(list(out.glob("point-*"))) == after
    trained = []
    found = sweep(
        JOB, LAMBDAS, dataset=array_dataset(*table()), folds=2, out=out,
        callbacks=[lambda progress, state: trained.append(progress.iteration == 1)],
    )  # fmt: skip
    assert sum(trained) == 6 - after  # what was finished is not trained again
    assert figures(found).replace(str(out), "") == figures(whole).replace("RUN", "-chosen").replace(str(out), "")
    assert figures(json.loads((out / "result.json").read_text())) == figures(found)


def test_a_damaged_point_is_made_again(tmp_path):
    out, (X, y) = tmp_path / "sweep", table()
    options = {"lambdas": LAMBDAS, "hidden": (4,), "out": out, **CPU}
    found = gpubp.sweep(X, y, **options)
    (out / ".point-4_fold0_1.0.npz.tmp.77").write_bytes(b"half")  # what kill -9 leaves
    for path, damage in zip(sorted(out.glob("point-*")), (b"", b"PK\x03\x04 half", None), strict=True):
        path.write_bytes(path.read_bytes()[:-40] if damage is None else damage)
    assert figures(gpubp.sweep(X, y, **options)) == figures(found)
    assert not list(out.glob(".*"))


def test_other_data_and_other_options_are_refused_by_name_and_nothing_is_touched(tmp_path):
    out, path = tmp_path / "sweep", file(tmp_path / "d.h5")
    options = {"lambdas": LAMBDAS, "hidden": (4,), "out": out, **CPU}
    gpubp.sweep(path, **options)
    before = everything(out)
    for change, words in (
        ({"seed": 3}, "--seed was 0, is 3"),
        ({"decrease": 0.1}, "--decrease was 0.001, is 0.1"),
        ({"hidden": (5,)}, "--hidden was"),
        ({"lambdas": (0.1, 1)}, "--lambda was 0.1,1.0,10.0, is 0.1,1.0"),
        ({"cv": 3}, "--cv was"),
        ({"validation": 0.3}, "--validation was 0.2, is 0.3"),
    ):
        with pytest.raises(MismatchError, match=words):
            gpubp.sweep(path, **options | change)
    X, y = table()
    X[7, 1] += 1
    other = write(tmp_path / "other.h5", X=X, y=y)
    with pytest.raises(MismatchError, match=r"other\.h5: not the data"):
        gpubp.sweep(other, **options)
    with pytest.raises(MismatchError, match="holds a sweep"):
        gpubp.learning_curve(path, out=out, hidden=(4,), **CPU)
    assert everything(out) == before
    moved = path.rename(tmp_path / "moved.h5")
    gpubp.sweep(moved, **options, threads=1)  # the same data elsewhere are the same data


def test_lambdas_may_be_added_to_a_finished_sweep(tmp_path):
    X, y = table()
    options = {"hidden": (4,), "out": tmp_path / "sweep", **CPU}
    first = gpubp.sweep(X, y, lambdas=LAMBDAS, **options)
    more = gpubp.sweep(X, y, lambdas=(0.01, *LAMBDAS, 100), **options)
    assert [figures(a.points[0].__dict__) for a in more.candidates[1:4]] == [
        figures(a.points[0].__dict__) for a in first.candidates
    ]
    assert more.candidates[0].points[0].start == "λ = 0.1" and more.candidates[4].points[0].start == "fresh"


def test_a_folder_with_a_run_or_something_else_is_refused(tmp_path):
    X, y = table()
    gpubp.train(X, y, hidden=(3,), iterations=1, out=tmp_path / "run")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    (tmp_path / "file").write_text("")
    for name in ("run", "notes", "file"):
        before = everything(tmp_path)
        with pytest.raises(CheckpointError, match=name):
            gpubp.sweep(X, y, lambdas=[1], out=tmp_path / name)
        assert everything(tmp_path) == before


def test_several_networks_each_begin_fresh_and_the_best_is_named(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (300, 2))
    y = (X[:, 0] * X[:, 1] > 0).astype(int)  # no line divides them
    found = gpubp.sweep(X, y, lambdas=[0.01, 0.1], networks=[(), (8,)], decrease=1e-5, **CPU)
    assert [one.hidden for one in found.candidates] == [(), (), (8,), (8,)]
    assert found.best.hidden == (8,) and (found.best.score or 0) > 0.9 and "hidden=(8,)" in found.next
    assert "a larger one may be better" in found.verdict.text
    assert [one.points[0].start for one in found.candidates[1::2]] == ["fresh", "fresh"]


def test_units_that_a_large_lambda_put_to_sleep_are_woken():
    network = Network((3, 4, 2))
    fresh = network.initial_Theta(0)
    assert wake(network, fresh, fresh) is None
    asleep = fresh.copy()
    views = network.views(asleep)
    views.W[1][2] *= 1e-6
    views.W[2][:, 2] *= 1e-6
    views.b[2][...] = 7
    woken = wake(network, asleep, fresh)
    assert woken is not None
    now, first = network.views(woken), network.views(fresh)
    np.testing.assert_array_equal(now.W[1], first.W[1])
    np.testing.assert_array_equal(now.W[2], first.W[2])
    assert (now.b[2] == 7).all()
    X, y = table()
    found = gpubp.sweep(X, y, lambdas=[0.1, 1e6], hidden=(4,), decrease=1e-6, **CPU)
    small = found.candidates[0]
    assert small.points[0].start == "λ = 1e+06, woken" and (small.score or 0) > 0.7


def test_an_initial_theta_is_where_training_begins_and_one_that_does_not_fit_is_refused():
    from gpubp.prepare import array_dataset

    job = replace(JOB, iterations=10)
    first = start(job, None, dataset=array_dataset(*table()))
    again = start(job, None, dataset=array_dataset(*table()), initial=first.Theta)
    assert again.history[0]["J"] < first.history[0]["J"] and again.history[0]["J"] <= first.history[-1]["J"]
    for wrong, words in ((first.Theta[:-1], "shape"), (first.Theta * np.nan, "finite"), (first.matrices[0], "shape")):
        with pytest.raises(UsageError, match=words):
            start(JOB, None, dataset=array_dataset(*table()), initial=wrong)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lambdas": []}, "no λ"),
        ({"lambdas": [-1]}, "lambda -1"),
        ({"lambdas": [float("nan")]}, "lambda nan"),
        ({"validation": 0}, "more than 0"),
        ({"validation": 0.2, "cv": 3}, "one of the two"),
        ({"cv": 1}, "1 folds"),
        ({"cv": 500}, "none"),
        ({"decrease": -1}, "decrease of -1"),
        ({"lambda_": 1}, "lambdas"),
        ({"networks": [(3,)], "hidden": (4,)}, "one of the two"),
        ({"hiden": 4}, "hiden"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(options, words):
    with pytest.raises(UsageError, match=words):
        gpubp.sweep(*table(), **options)


def test_data_that_give_no_finite_cost_are_one_line():
    X, y = table()
    options = {"optimizer": "gd", "options": {"learning_rate": 1e30}, "hidden": (), "scale": "none", **CPU}
    with pytest.raises(DataError, match="none of 2 trainings"):
        gpubp.sweep(X, 1e15 * (y - 1.0) * X[:, 0] ** 2, lambdas=[0, 1], precision="fp64", **options)


def test_the_command_prints_a_table_a_verdict_and_a_line_that_runs(gpubp_command, tmp_path):
    folder = tmp_path / "it's here"
    folder.mkdir()
    path = file(folder / "d 1.h5")
    options = [
        "--hidden", "4", "--lambda", "0.1,1", "--set", "history=7", "--class-weight", "0=2,1=1.5", "--select",
        "columns=-4:", "--no-climb", "--activation", "tanh", "--seed", 3, "--kernel", "numpy", "--cv", 2,
        "--iterations", 30,
    ]  # fmt: skip
    done = gpubp_command("sweep", path, "--out", folder / "s", *options)
    assert "→" in done.stdout and "validation" in done.stdout and "2-fold" in done.stdout
    line = done.stdout.splitlines()[-1].strip()
    words = shlex.split(line)
    assert words[:2] == ["gpubp", "train"] and str(path) in words
    ran = subprocess.run(
        [sys.executable, "-m", *words], capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    job = gpubp.load(folder / "s-chosen").job
    result = json.loads((folder / "s" / "result.json").read_text())
    best = result["candidates"][result["chosen"]]
    assert job["lambda_"] == best["lambda"] and job["options"] == {"history": 7} and not job["climb"]
    assert job["select"] == ("columns=1:5",) or list(job["select"]) == ["columns=1:5"]
    assert job["class_weight"] == {"0": 2.0, "1": 1.5} and job["seed"] == 3 and job["validation"] == 0
    again = gpubp_command("sweep", path, "--out", folder / "s", *options, "--json")
    assert figures(again.json) == figures(result)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGKILL", -9)])
def test_signals_end_the_command_with_their_codes_and_it_goes_on(gpubp_command, tmp_path, name, code):
    path = file(tmp_path / "d.h5")
    # the last one, λ = 0.001, takes long: the signal comes in its midst
    options = ["--hidden", "4", "--lambda", "0.001,100", "--decrease", "0", "--optimizer", "gd", "--kernel", "numpy"]
    command = [sys.executable, "-m", "gpubp", "sweep", path, "--out", "s", "--iterations", 300, *options]
    process = subprocess.Popen(
        list(map(str, command)), cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    for _ in range(4000):
        if list((tmp_path / "s").glob("point-*")):
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=20)
    assert process.returncode == code, err
    assert not out and b"Traceback" not in err
    assert name == "SIGKILL" or b"same command goes on" in err
    assert len(list((tmp_path / "s").glob("point-*"))) == 1
    whole = gpubp_command("sweep", path, "--out", "w", "--iterations", 300, *options, "--json").json
    found = gpubp_command("sweep", path, "--out", "s", "--iterations", 300, *options, "--json")
    assert "1 of 2" in found.stderr
    assert figures(found.json).replace("s-chosen", "w-chosen") == figures(whole)


@pytest.mark.slow
def test_mistakes_on_the_command_line_are_one_line_and_nothing_is_written(gpubp_command, tmp_path):
    path = file(tmp_path / "d.h5")
    before = everything(tmp_path)
    for options, code, words in (
        (["--lambda", "0.1,x"], 2, "0,0.1,1,10"),
        (["--lambda", "-1"], 2, "lambda"),
        (["--hidden", "4;x"], 2, "256,128"),
        (["--cv", "1"], 2, "--cv"),
        (["--cv", "3", "--validation", "0.2"], 2, "one of the two"),
        (["--decrease", "2"], 2, "decrease"),
        (["--plot", "a.gif"], 2, ".png"),
        (["--overwrite"], 2, "--overwrite"),
        (["--y", "nothing"], 3, "nothing"),
    ):
        done = gpubp_command("sweep", path, "--out", "s", *options, check=code)
        assert words in done.error and not done.stdout, options
        assert everything(tmp_path) == before, options
    bad = write(tmp_path / "bad.h5", X=np.ones((3, 2)), y=[0, 1, 2])
    assert gpubp_command("learning-curve", bad, check=None).returncode in (2, 3)


@pytest.mark.slow
def test_environment_and_configuration_reach_both_commands(gpubp_command, tmp_path):
    path = file(tmp_path / "d.h5")
    (tmp_path / "c.toml").write_text("[learning-curve]\npoints = 2\nhidden = '3'\n[sweep]\nlambda = '0.5'\n")
    found = gpubp_command("--config", "c.toml", "learning-curve", path, "--json").json
    assert len(found["parts"]) == 2 and found["parts"][0]["points"][0]["hidden"] == [3]
    env = {"GPUBP_LEARNING_CURVE_POINTS": "3", "GPUBP_SWEEP_HIDDEN": "2"}
    assert len(gpubp_command("learning-curve", path, "--hidden", 3, "--json", env=env).json["parts"]) == 3
    found = gpubp_command("--config", "c.toml", "sweep", path, "--json", env=env).json
    assert [(one["lambda"], one["hidden"]) for one in found["candidates"]] == [(0.5, [2])]
    assert (
        "GPUBP_LEARNING_CURVE_POINT"
        in gpubp_command("learning-curve", path, check=2, env={"GPUBP_LEARNING_CURVE_POINT": "3"}).error
    )


def test_the_line_to_go_on_with_says_what_differs_and_can_be_typed_as_it_stands():
    from gpubp.choosing.next_step import train_line

    job = Job(data=("-odd.h5", "b c*.h5"), hidden=(), lambda_=0.3, seed=4, climb=False, options={"history": 7})
    line = train_line(replace(job, select=("columns=-2:", "rows=0:9")), 0.001, "a sweep/")
    words = shlex.split(line)
    assert words[:6] == ["gpubp", "train", "./-odd.h5", "b c*.h5", "--out", "a sweep-chosen"]
    pairs = {
        ("--hidden", "none"),
        ("--lambda", "0.3"),
        ("--seed", "4"),
        ("--set", "history=7"),
        ("--iterations", "100"),
    }
    assert pairs <= set(pairwise(words)) and "--no-climb" in words and "--scale" not in words
    assert {("--select", "columns=-2:"), ("--select", "rows=0:9")} <= set(pairwise(words))
    assert eval(train_line(replace(job, data=""), 0.001, None).replace("gpubp.train(X, y,", "dict("))["seed"] == 4


@pytest.mark.parametrize("held", [{"validation": 0.3}, {"cv": 2}], ids=str)
def test_the_line_to_go_on_with_holds_rows_out_where_early_stopping_was_asked_for(held):
    X, y = table()
    found = gpubp.sweep(X, y, lambdas=[0, 1], hidden=(3,), iterations=5, patience=4, **held, **CPU)
    model = eval(found.next, {"gpubp": gpubp, "X": X, "y": y})
    assert model.job["patience"] == 4 and model.job["validation"] == held.get("validation", 0.5)


def test_many_folds_are_judged_by_the_rows_there_are():
    assert holding_out(Job(), 300, None, None)[1] == "300-fold cross-validation"
