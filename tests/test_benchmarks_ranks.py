"""benchmarks/ranks.py runs, with right answers and the same bits on its ranks. No time is asserted here."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from running import ENVIRONMENT, ROOT

import gpubp

LAUNCHER = Path(sys.executable).with_name("mpiexec")
ranks_needed = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or not (LAUNCHER.exists() or shutil.which("mpiexec")),
    reason="no mpi4py or no mpiexec",
)


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def ran(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/ranks.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, timeout=120)


@ranks_needed
def test_a_short_look_has_right_answers_and_the_same_bits(tmp_path):
    record = tmp_path / "ranks.json"
    done = ran("--short", "--stages", "tree,crowded,exchange,many,agreement", "--out", record)
    assert done.returncode == 0, done.stdout + done.stderr
    text = record.read_text()
    assert str(tmp_path) not in text  # no path of this machine
    assert not {part for part in (str(ROOT), sys.prefix) if part in text}
    stages = json.loads(text)["stages"]
    (tree,), (crowded,) = stages["tree"], stages["crowded"]
    assert set(tree["contenders"]) == {"2 ranks, tree", "2 ranks, allreduce"}
    answers = [
        answer for race in (tree, crowded) for one in race["contenders"].values() for answer in one["answers"].values()
    ]
    assert all(one["gradient_error"] < 1e-5 and one["J_error"] < 1e-5 for one in answers), answers
    assert crowded["same_bits"] and len({one["answers"]["tree"]["bits"] for one in crowded["contenders"].values()}) == 1
    (exchange,), (agreement,), (many,) = stages["exchange"], stages["agreement"], stages["many"]
    assert all(set(one) == {"whole", "slices", "allreduce"} for one in exchange["by_size"].values())
    assert all(set(one) == {"compare", "agree"} for one in agreement["by_size"].values())
    assert {one["ranks"] for one in many["exchanges"]} == {2, 64}


@ranks_needed
def test_the_plain_way_is_a_sum_over_all_ranks(benchmarks, tmp_path):
    """Beside the tree stands the sum that an expert would write: leave a rank out and it must be noticed."""
    from on_ranks.team import Team, mpiexec
    from problems import SHAPES, make, reference

    shape = SHAPES["D"].with_rows(4000)
    J, gradient = reference(make(shape))
    team = Team("two", 2, launcher=mpiexec(None))
    try:
        asked = {"name": "D", "layers": list(shape.layers), "activation": "tanh", "cost": "logistic", "m": 4000}
        notes = team.ask("build", shape=asked, threads=1, how=["tree", "allreduce"])
        assert notes["rows"] == 2000
        path = tmp_path / "gradient.npy"
        np.save(path, gradient)
        found = team.ask("check", J=J, gradient=str(path))
        wrong = team.ask("check", J=2 * J, gradient=str(path))
    finally:
        team.close()
    assert all(one["gradient_error"] < 1e-5 for one in found.values())
    assert wrong["tree"]["J_error"] > 0.4


def test_a_rank_that_fails_ends_its_team(benchmarks):
    from on_ranks.team import Team
    from runner import Dropped

    team = Team("one", 1)
    try:
        with pytest.raises(Dropped, match="KeyError"):
            team.ask("build", shape={}, threads=1, how=["tree"])
    finally:
        team.close()


def test_wrong_answers_are_not_timed(benchmarks):
    from on_ranks.team import refuse_wrong
    from runner import Dropped

    refuse_wrong("a", {"tree": {"gradient_error": 1e-6, "J_error": 1e-6}})
    for gradient, J in ((0.1, 0.0), (0.0, 0.1), (float("nan"), 0.0)):
        with pytest.raises(Dropped, match="wrong answer"):
            refuse_wrong("a", {"tree": {"gradient_error": gradient, "J_error": J}})


def test_without_a_launcher_it_says_so(tmp_path):
    done = ran("--short", "--mpiexec", tmp_path / "nothing")
    assert done.returncode == 0 and done.stdout.startswith("skipped: mpiexec"), done.stdout + done.stderr


def test_pytorchs_lines_give_the_same_answer(benchmarks):
    torch = pytest.importorskip("torch")
    from on_ranks.peer import evaluation
    from problems import SHAPES, make

    problem = make(SHAPES["D"].with_rows(300))
    evaluate, flat, _ = evaluation(torch, problem, 0, 300, 128)
    shape = problem.shape
    network = gpubp.Network(shape.layers, shape.activation, shape.cost)
    J, _ = gpubp.cost_and_gradient(network, network.pack(problem.Theta), problem.X, problem.codes, lambda_=1)
    assert abs(evaluate() / J - 1) < 1e-5 and flat.isfinite().all()
