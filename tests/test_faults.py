"""Faults in the midst of a run, at the command line: no memory, numbers that are not finite, a clock that jumps.

Each ends in words or goes on; the last good Θ is on the disk, and `gpubp resume` reaches the bits of a run that had no
fault. Those of the folder are in `test_faults_folder`, of the data in `test_faults_data`, of a GPU in
`backend/test_faults_device`.
"""

from __future__ import annotations

import datetime
import json
import math
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import Theta_of, gpubp, newest
from running import write

from gpubp import optimizers
from gpubp.objective import Objective
from gpubp.optimizers.klbfgs import KLBFGSState
from gpubp.optimizers.kronecker import Kronecker
from gpubp.recording import Recorder
from gpubp.run_folder import find_checkpoint

each = pytest.mark.parametrize("name", optimizers.names())


@pytest.fixture
def train(tmp_path: Path) -> list[object]:
    """A training of 12 iterations with a checkpoint after each fourth; the folder is to be added."""
    rng = np.random.default_rng(5)
    y = rng.integers(0, 3, 300)
    X = rng.normal(size=(300, 7)) + 0.8 * rng.normal(size=(3, 7))[y]
    path = write(tmp_path / "d.h5", X=X.astype(np.float32), y=y.astype(np.uint8))
    return ["-q", "train", path, "--hidden", "5", "--iterations", "12", "--checkpoint-every", "4it", "--backend", "cpu",
            "--kernel", "numpy", "--precision", "fp64", "--lambda", "0.1", "--out"]  # fmt: skip


def at_call(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int, error: Exception) -> list[int]:
    """The method fails at that call, counted from 1, and no other; gives what counts the calls."""
    real, calls = getattr(owner, name), [0]

    def fails(*arguments: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == number:
            raise error
        return real(*arguments, **more)

    monkeypatch.setattr(owner, name, fails)
    return calls


# No memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "name", "number", "left"),
    [
        (Objective, "value_and_gradient", 9, None),  # in a pass: what the last iteration reached is saved
        (KLBFGSState, "take", 4, 8),  # in the midst of a commit, after 10 iterations: the checkpoint before is left
        (Kronecker, "set", 4, 8),
        (Recorder, "_record", 2, 4),  # a checkpoint that finds no room is tried once more
    ],
)
def test_without_memory_a_run_ends_in_words_and_goes_on(
    train, tmp_path, capsys, monkeypatch, owner, name, number, left
):
    gpubp(capsys, *train, tmp_path / "whole")
    run = tmp_path / "run"
    with monkeypatch.context() as fault:
        calls = at_call(fault, owner, name, number, MemoryError())
        ended = gpubp(capsys, *train, run, code=3)
    assert calls[0] >= number
    done = (run / "history.jsonl").read_text().count("\n")
    left = done if left is None else left
    assert newest(run) == left and ((done > 4 and done % 4) or left < done or name == "_record")
    kept = f"{run}/checkpoint-{left:08}.h5 is kept: gpubp resume {run} goes on from there"
    assert ended.line == (f"out of memory; keep fewer rows in it with --memory, or take a smaller network; {kept}")
    gpubp(capsys, "-q", "resume", run)
    assert Theta_of(run) == Theta_of(tmp_path / "whole")


# Numbers that are not finite -----------------------------------------------------------------------------------------


def spoiled(monkeypatch: pytest.MonkeyPatch, what: str, value: float, first: int) -> None:
    """From evaluation number `first` on, J, ∇J or the products with the curvature are not finite."""
    real, calls = Objective.value_and_gradient, [0]

    def evaluated(self: Objective, Theta: Any, out: Any) -> Any:
        calls[0] += 1
        J = real(self, Theta, out)
        if calls[0] >= first:
            if what != "J":
                out[len(out) // 2] = value
            if what != "gradient":
                return value
        return J

    monkeypatch.setattr(Objective, "value_and_gradient", evaluated)


@each
@pytest.mark.parametrize(("what", "value"), [("J", math.nan), ("J", math.inf), ("J", -math.inf), ("gradient", math.nan),
                                             ("gradient", math.inf), ("both", math.nan)])  # fmt: skip
@pytest.mark.parametrize("first", [1, 2, 6])
def test_numbers_that_are_not_finite_end_a_run_in_words_with_the_last_finite_theta(
    train, tmp_path, capsys, monkeypatch, name, what, value, first
):
    run = tmp_path / "run"
    with monkeypatch.context() as fault:
        spoiled(fault, what, value, first)
        ended = gpubp(capsys, *train, run, "--optimizer", name, "--no-climb", "--iterations", "30", code=None)
    checkpoint = find_checkpoint(run).checkpoint
    assert checkpoint.ending is not None and ended.line == ""
    # a line search whose first trial was finite cannot tell this from one that finds nothing better
    assert (checkpoint.ending["kind"], ended.code) in (("failed", 1), ("stalled", 0)), checkpoint.ending
    assert checkpoint.ending["kind"] == "failed" or ("not finite in" in checkpoint.ending["reason"] and first > 2)
    assert all(np.isfinite(layer).all() for layer in checkpoint.Theta)
    assert np.isfinite(checkpoint.state["Theta"]).all()
    if first > 1:
        assert np.isfinite(checkpoint.state["gradient"]).all() and math.isfinite(checkpoint.state["J"])
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert all(row["J"] is not None and row["gradient"] is not None for row in rows)
    assert len(rows) == checkpoint.iteration


@pytest.mark.parametrize("name", ["gn", "lm", "klbfgs"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_curvature_that_is_not_finite_never_reaches_theta(train, tmp_path, capsys, monkeypatch, name, value):
    from gpubp.curvature import Curvature

    calls = [0]
    real = {one: getattr(Curvature, one) for one in ("product", "factors", "matrix") if hasattr(Curvature, one)}

    def product(self: Any, Theta: Any, v: Any, out: Any) -> None:
        calls[0] += 1
        real["product"](self, Theta, v, out)
        out[0] = value

    def factors(self: Any, Theta: Any, draw: int) -> Any:
        calls[0] += 1
        found = real["factors"](self, Theta, draw)
        found.A[0].flat[0] = value
        return found

    def matrix(self: Any, *arguments: Any) -> Any:
        calls[0] += 1
        found = real["matrix"](self, *arguments)
        found.flat[0] = value
        return found

    for one, stand_in in (("product", product), ("factors", factors), ("matrix", matrix)):
        monkeypatch.setattr(Curvature, one, stand_in)
    run = tmp_path / "run"
    ended = gpubp(capsys, *train, run, "--optimizer", name, "--set", "rows_per_parameter=0" if name == "lm" else
                  "tolerance=1e-5", code=None)  # fmt: skip
    checkpoint = find_checkpoint(run).checkpoint
    assert calls[0] > 0 and ended.code in (0, 1) and checkpoint.ending is not None and checkpoint.ending["reason"]
    assert all(np.isfinite(layer).all() for layer in checkpoint.Theta)
    assert checkpoint.iteration > 0 or name == "lm"  # without curvature −∇J still leads down


def test_a_diverging_run_keeps_the_best_theta_and_goes_on_with_smaller_steps(train, tmp_path, capsys):
    run = tmp_path / "run"
    more = ("--optimizer", "gd", "--set", "learning_rate=1e9", "--activation", "relu", "--iterations", "40")
    gpubp(capsys, *train, run, *more, code=1)
    found = find_checkpoint(run).checkpoint
    assert found.ending is not None and found.ending["kind"] == "failed" and "learning_rate" in found.ending["reason"]
    assert all(np.isfinite(layer).all() for layer in found.Theta) and found.stopping["J"] <= found.history[0][2]
    gpubp(capsys, "-q", "resume", run, code=1)  # it says the same again, and loses nothing
    assert Theta_of(run) == b"".join(layer.tobytes() for layer in found.Theta)


@pytest.mark.parametrize("row", [0, 299])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_data_that_is_not_finite_is_refused_with_its_row_before_anything_is_written(tmp_path, capsys, row, value):
    X = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    X[row, 2] = value
    path = write(tmp_path / "d.h5", X=X, y=np.arange(300, dtype=np.uint8) % 2)
    ended = gpubp(capsys, "-q", "train", path, "--backend", "cpu", "--memory", "1KB", "--out", tmp_path / "run", code=3)
    assert f"row {row}, column 2 is {value}" in ended.line and not (tmp_path / "run").exists()


# The clock -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-40 * 365 * 86400.0, 40 * 365 * 86400.0], ids=["back", "forward"])
def test_a_wall_clock_that_jumps_by_years_changes_nothing(train, tmp_path, capsys, monkeypatch, jump):
    gpubp(capsys, *train, tmp_path / "whole")
    real, asked = time.time, [0]

    def jumping() -> float:
        asked[0] += 1
        return real() + jump * (asked[0] % 2)

    monkeypatch.setattr(time, "time", jumping)
    run = tmp_path / "run"
    more = ("--checkpoint-every", "3600", "--seconds", "3600")
    gpubp(capsys, *[one if one != "12" else "6" for one in train], run, *more)
    assert newest(run) == 6 and [p.name[-6:-3] for p in sorted(run.glob("*.h5"))] == ["000", "006"]  # none was due
    gpubp(capsys, "-q", "resume", run, "--iterations", "12")
    assert Theta_of(run) == Theta_of(tmp_path / "whole")
    seconds = [json.loads(line)["seconds"] for line in (run / "history.jsonl").read_text().splitlines()]
    assert len(seconds) == 12 and 0 < seconds[0] and seconds == sorted(seconds) and seconds[-1] < 600


def test_no_decision_asks_the_wall_clock():
    """Only what is written for people may: the moment in a converted file's note."""
    package = Path(__file__).parent.parent / "gpubp"
    asks = re.compile(r"\btime\.(time|time_ns|localtime|gmtime|ctime|clock_gettime)\(|datetime\.|\butime\(")
    found = {str(p.relative_to(package)) for p in package.rglob("*.py") if asks.search(p.read_text())}
    assert found == {"data/convert.py"} and datetime.UTC


def test_time_that_a_machine_slept_does_not_count():
    """`time.perf_counter` and `monotonic` are CLOCK_MONOTONIC, which stands still while a machine sleeps."""
    for name in ("perf_counter", "monotonic"):
        info = time.get_clock_info(name)
        assert info.monotonic and not info.adjustable and "CLOCK_MONOTONIC" in info.implementation


# What is promised ---------------------------------------------------------------------------------------------------


def test_each_row_of_the_page_on_faults_names_a_test_that_exists():
    root = Path(__file__).parent.parent
    lines = (root / "docs" / "faults.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|") and not line.startswith(("| fault", "|---"))]
    named = [re.search(r"\| `(test_\w+)` \|$", row) for row in rows]
    assert len(rows) >= 25 and all(named), [row for row, name in zip(rows, named, strict=True) if not name]
    there = {
        name for p in (root / "tests").rglob("test_*.py") for name in re.findall(r"\ndef (test_\w+)", p.read_text())
    }
    assert {name[1] for name in named if name} <= there
