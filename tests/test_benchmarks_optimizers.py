"""The match of optimizers counts and charges what it says. No time is asserted here."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from running import ENVIRONMENT, ROOT

from gpubp.optimizers.curvature import Factors


@pytest.fixture
def optimizing(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from optimizing import contenders, counting, match, tables, tasks

    return SimpleNamespace(contenders=contenders, counting=counting, match=match, tables=tables, tasks=tasks)


class Bowl:
    """J = ½ΣΘ², which can also tell how it curves."""

    def __init__(self) -> None:
        self.curvature = SimpleNamespace(
            product_passes=2.0, product=lambda Theta, v, out: None, factors=lambda Theta, draw: Factors([], [], 0.5)
        )

    def value_and_gradient(self, Theta, out):
        out[...] = Theta
        return float(Theta @ Theta) / 2


def test_a_quick_match_ends_with_a_record(tmp_path):
    pytest.importorskip("scipy", reason="the marks are SciPy's costs")
    record = tmp_path / "match.json"
    arguments = "--quick --threads 1 --optimizers scipy,scipy-equal,lbfgs,lbfgs:history=3,gd --out"
    done = subprocess.run(
        [sys.executable, "benchmarks/optimizers.py", *arguments.split(), str(record)],
        capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    text = record.read_text()
    assert str(tmp_path) not in text  # no path of this machine
    written = json.loads(text)
    assert [match["task"] for match in written["matches"]] == ["tiny", "tinydeep"]
    for match in written["matches"]:
        assert f"### {match['task']}: " in done.stdout and not match["absent"]
        (goals,) = match["goals"].values()
        assert goals == sorted(goals, reverse=True)
        found = {one["name"]: one for one in match["outcomes"]}
        assert set(found) == {"scipy", "scipy-equal", "lbfgs", "lbfgs:history=3", "gd"}
        assert found["scipy"]["evaluations"] == 100 and found["scipy"]["passes"][-1] <= 100
        assert found["lbfgs"]["ending"] == "goal" and found["lbfgs"]["J"] <= goals[-1]
        assert found["lbfgs"]["spent"] == found["lbfgs"]["evaluations"] == found["lbfgs"]["passes"][-1]
        assert found["lbfgs"]["passes"] != found["lbfgs:history=3"]["passes"]  # options arrive
        assert found["gd"]["ending"] == "budget" and found["gd"]["passes"][-1] is None
    ratio = written["summary"]["lbfgs"]["passes of scipy"]["100"]
    assert 0.5 < ratio["worst"] <= ratio["median"] < 3


def test_an_unknown_name_is_met_with_those_there_are():
    done = subprocess.run(
        [sys.executable, "benchmarks/optimizers.py", "--optimizers", "bfgs"],
        capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2 and "optimizer bfgs" in done.stderr and "lbfgs" in done.stderr


def test_questions_about_curvature_are_charged_to_the_step_that_asked(optimizing):
    f = optimizing.counting.Counted(Bowl(), budget=100, obedient=True)
    out = np.zeros(2)
    f.value_and_gradient(np.array([4.0, 0]), out)
    f.settle(0.0)
    f.value_and_gradient(np.array([3.0, 0]), out)  # of a step that asks for factors only now
    assert f.curvature.factors(None, 0) == Factors([], [], 0.5)
    f.curvature.product(None, None, None)
    assert not hasattr(f.curvature, "matrix") and f.curvature.product_passes == 2  # what the objective's has, no more
    f.value_and_gradient(np.array([3.5, 0]), out)  # no better
    f.settle(1.0)  # it charges itself less than it asked for
    f.value_and_gradient(np.array([1.0, 0]), out)
    f.settle(4.0)
    assert f.passes == [1, 4.5, 5.5, 8] and f.best == [8, 4.5, 4.5, 0.5]
    assert f.asked == 2.5 and f.J == 0.5 and f.Theta.tolist() == [1, 0]
    assert f.reached(5.0)[0] == 4.5 and f.reached(4.0)[0] == 8 and f.reached(0.1) is None


def test_a_peer_is_stopped_at_the_goal_and_at_the_end_of_its_budget(optimizing):
    Counted, Enough = optimizing.counting.Counted, optimizing.counting.Enough
    f = Counted(Bowl(), budget=3)
    J, gradient = f(np.array([2.0, 1.0]))
    assert J == 2.5 and gradient.tolist() == [2, 1] and not f.enough
    f(np.array([2.0, 1.0]))
    with pytest.raises(Enough):
        f(np.array([2.0, 1.0]))
    f = Counted(Bowl(), budget=3, goal=0.5)
    with pytest.raises(Enough):
        f(np.array([1.0, 0]))
    assert f.evaluations == 1 and f.reached(0.5)[0] == 1


def test_equal_memory_is_that_of_everything_an_optimizer_keeps(optimizing):
    P, contenders = 10_000, optimizing.contenders
    memory = contenders.memory_of("lbfgs", Bowl(), P)
    assert memory == pytest.approx(8 * (60 + 7) * P, rel=0.01)  # pairs; Θ, ∇J, the trial's, d, s, y
    assert contenders.equal_history(memory, P) == 31


def test_whoever_did_not_get_there_has_a_ratio_of_nothing(optimizing):
    Outcome, Match = optimizing.match.Outcome, optimizing.match.Match
    match = Match("tiny", (100,), "fp64", "scipy", goals={0: [1.0], 1: [1.0], 2: [1.0]})
    for seed, ours, theirs in ((0, 50.0, 100.0), (1, None, 100.0), (2, 20.0, None)):
        match.outcomes += [Outcome("lbfgs", seed, [ours], [ours]), Outcome("scipy", seed, [theirs], [theirs])]
        match.outcomes[-1].spent = 150.0
    passes = optimizing.tables.ratios([match], "lbfgs", "scipy", 0, optimizing.tables._passes)
    assert passes == {("tiny", 0): 2.0, ("tiny", 1): 0.0, ("tiny", 2): 7.5}
    assert optimizing.tables.content([match])["summary"]["lbfgs"]["passes of scipy"]["100"]["worst"] == 0


def test_held_out_scores_are_those_of_the_package(optimizing):
    """Accuracy and squared error, by gpubp's own inference."""
    from gpubp.data.scaling import Scaling
    from gpubp.data.targets import TargetSpec
    from gpubp.inference import Model

    for name, kind in (("tinydeep", "binary"), ("tiny", "real")):
        ready = optimizing.tasks.Ready(optimizing.tasks.TASKS[name], 0, threads=1)
        _, _, X, y = ready.task.rows(0)
        again = ready.task.rows(0)[2]
        other = ready.task.rows(1)[2]
        assert np.array_equal(X, again) and not np.array_equal(X, other)
        targets = TargetSpec(kind, (0, 1) if kind == "binary" else None, 1)
        model = Model(ready.network, ready.Theta, Scaling("none", None, None), targets)
        h = model.predict_proba(X, backend="cpu", precision="fp64")
        right = ((h[:, 0] - y[:, 0]) ** 2).mean() if kind == "real" else ((h[:, 1] > 0.5) == y[:, 0]).mean()
        assert ready.score(ready.Theta) == pytest.approx(right, rel=1e-12)
        ready.objective.close()


def test_the_benchmark_of_sweeps_runs(tmp_path):
    record = tmp_path / "record.json"
    options = ["--seeds", "1", "--fine", "3", "--iterations", "4", "--out", str(record)]
    done = subprocess.run(
        [sys.executable, "benchmarks/choosing.py", *options],
        capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (seed,) = json.loads(record.read_text())["seeds"]
    assert 0 < seed["warm"] < 1.2 * seed["cold"] and len(seed["accuracies"]["cold"]) == 8
    assert seed["best_test"] == max(seed["accuracies"]["fine"].values()) > 0.5


def test_the_benchmark_of_small_regressions_runs():
    pytest.importorskip("scipy", reason="SciPy is not installed: pip install scipy")
    done = subprocess.run(
        [sys.executable, "benchmarks/small_regression.py", "--seeds", "1", "--rows", "200"],
        capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    cells = [line.split("|")[3:6] for line in done.stdout.splitlines() if "| 200 |" in line]
    assert len(cells) == 2 and all(float(cell) > 0 for row in cells for cell in row)
    assert float(cells[0][1]) > 5  # 2-20-1, in looks
