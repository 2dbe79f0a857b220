"""The benchmarks run, and check answers before they take a time. No time is asserted here."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from running import ENVIRONMENT, ROOT

import gpubp


def test_a_short_race_ends_with_right_answers(tmp_path):
    record = tmp_path / "race.json"
    arguments = "--short --layers 12,8,3 --activation tanh --cost softmax --m 500 --threads 1 --json"
    done = subprocess.run(
        [sys.executable, "benchmarks/cpu.py", *arguments.split(), str(record)],
        capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gpubp numpy" in done.stdout
    text = record.read_text()
    assert str(tmp_path) not in text  # no path of this machine
    written = json.loads(text)
    (race,) = written["races"]
    errors = {result["name"]: result["gradient_error"] for result in race["results"] if result["kind"] != "limit"}
    assert {"gpubp numpy", "naive NumPy"} <= set(errors)
    assert all(error < 1e-5 for error in errors.values()), errors
    assert race["limit_s"] > 0 and written["machine"]["cores"] >= 1 and not race["failed"]


def test_readers_are_timed_once_their_rows_are_right(tmp_path):
    record = tmp_path / "io.json"
    done = subprocess.run(
        [sys.executable, "benchmarks/io.py", "--small", "--only", "preadv,gpubp,h5py", "--json", str(record)],
        capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    text = record.read_text()
    assert str(tmp_path) not in text
    written = json.loads(text)
    for race in written["races"]:
        assert not race["failed"] and all(min(one["turns"]) > 0 for one in race["results"].values())
        assert {"preadv, 2 threads", "gpubp, 4 MB", "h5py read_direct"} <= set(race["results"])
    reached = {(one["type"], one["layout"], one["over"]) for one in written["targets"]}
    assert {(kind, "contiguous", "preadv, 2 threads") for kind in ("float32", "uint8")} <= reached


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
@pytest.mark.parametrize("cost, K", [("logistic", 3), ("logistic", 1), ("softmax", 3)])
def test_the_oracle_agrees_with_gpubp_in_float64(monkeypatch, activation, cost, K):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import problems

    problem = problems.make(problems.Shape((6, 5, 4, K), activation, cost, 300))
    J, gradient = problems.reference(problem, rows=128)
    network = gpubp.Network((6, 5, 4, K), activation, cost)
    Theta = network.pack(problem.Theta)
    ours, flat = gpubp.cost_and_gradient(network, Theta, problem.X, problem.codes, lambda_=1)
    assert abs(J / ours - 1) < 1e-12
    assert np.abs(problems.flat(network.unpack(flat)) - gradient).max() < 1e-12


@pytest.mark.parametrize("error, refused", [(1e-5, False), (0.1, True), (math.nan, True), (None, False)])
def test_nobody_is_timed_with_a_wrong_gradient(monkeypatch, error, refused):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from race import refuse_wrong
    from runner import Dropped, Result

    result = Result("somebody", "peer", gradient_error=error)
    if refused:
        with pytest.raises(Dropped, match="wrong answer"):
            refuse_wrong(result)
    else:
        refuse_wrong(result)
