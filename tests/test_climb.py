"""A run that stalls goes on at the next finer precision, says so, and resumes to the same bits wherever it was cut."""

from __future__ import annotations

import json
import logging
import shutil
import weakref
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from running import write

import gpubp
from gpubp import prepare as room
from gpubp.backend.numpy import NumpyBackend
from gpubp.checkpoint import read
from gpubp.communicator import Solo
from gpubp.errors import MismatchError
from gpubp.job import Job
from gpubp.objective import Objective
from gpubp.optimizers import Ending, Function, make
from gpubp.optimizers.lbfgs import LBFGS
from gpubp.optimizers.pairs import PairsState
from gpubp.precision import LADDER, precision
from gpubp.prepare import array_dataset, prepare
from gpubp.run import resume, start
from gpubp.training import StopRequest, fit

STALLED = "stalled at fp32"


def plane(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Least squares with a condition number near 1: float32 leaves some 1e-8 of the gradient."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(400, 3)).astype(np.float32)
    return X, X @ np.array([1.0, 2.0, 3.0]) + 0.1 * rng.normal(size=400)


OPTIONS: dict[str, Any] = {
    "hidden": (), "lambda_": 0.0, "options": {"tolerance": 1e-12}, "iterations": 300, "backend": "cpu",
    "kernel": "numpy", "validation": 0.2,
}  # fmt: skip


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_a_stall_at_fp32_becomes_a_far_smaller_gradient_at_fp64(caplog):
    caplog.set_level(logging.INFO, "gpubp")
    X, y = plane()
    ended = gpubp.train(X, y, climb=False, **OPTIONS)
    assert ended.ending is not None and ended.ending["kind"] == "stalled" and not caplog.records
    assert {row["precision"] for row in ended.history} == {"fp32"} and ended.history[-1]["gradient"] > 1e-9

    model = gpubp.train(X, y, **OPTIONS)
    done = len(ended.history)
    assert model.ending is not None and model.ending["kind"] == "converged"
    assert model.ending["reason"].endswith(f"; climbed from fp32 to fp64 at iteration {done}")
    assert model.history[-1]["gradient"] <= 1e-12
    assert untimed(model.history[:done]) == untimed(ended.history)
    assert {row["precision"] for row in model.history[done:]} == {"fp64"}
    assert [row["iteration"] for row in model.history] == list(range(1, len(model.history) + 1))
    assert all(np.isfinite(row["validation"]) for row in model.history)
    (line,) = [record.getMessage() for record in caplog.records if STALLED in record.getMessage()]
    last = ended.history[-1]
    assert f"J = {last['J']:.9g}, max|∇J| = {last['gradient']:.3g}, wanted 1e-12 or less" in line
    assert line.endswith(f"going on at fp64 from iteration {done}")
    # the answer is that of a run in fp64
    exact = gpubp.train(X, y, precision="fp64", **OPTIONS)
    np.testing.assert_allclose(model.Theta, exact.Theta, atol=1e-11)


# how a run may stall: the words of its reason, and the patience
WAYS = {"failed search": ("stalled: straight against", 20), "standstill": ("stalled: for 2 iterations", 2)}


@pytest.fixture(scope="module", params=WAYS)
def whole(request, tmp_path_factory) -> tuple[Path, Any, int, dict[str, Any]]:
    """An undisturbed run with all its checkpoints, its data, the iteration at which it climbed, and its options."""
    folder, (words, patience) = tmp_path_factory.mktemp("whole") / "run", WAYS[request.param]
    options = OPTIONS | {"options": {"tolerance": 1e-12, "patience": patience}}
    for seed in range(200):  # which way it goes is a matter of the last bits, and so of the BLAS
        X, y = plane(seed)
        ended = gpubp.train(X, y, climb=False, **options)
        if ended.ending and ended.ending["reason"].startswith(words) and len(ended.history) > 2:
            break
    else:
        pytest.fail(f"no run {words}")
    model = gpubp.train(X, y, out=folder, checkpoint_every="1it", keep=1000, **options)
    climbed = [row["precision"] for row in model.history].index("fp64")
    assert len(ended.history) == climbed < len(model.history) - 1
    return folder, array_dataset(X, y), climbed, options


def both_the_same(run: Path, whole: Path) -> None:
    """All that is in the newest checkpoints, but for the clock."""
    a, b = (read(max(folder.glob("checkpoint-*.h5"))) for folder in (run, whole))
    assert [T.tobytes() for T in a.Theta] == [T.tobytes() for T in b.Theta]
    for name in b.state:
        assert np.asarray(a.state[name]).tobytes() == np.asarray(b.state[name]).tobytes(), name
    clock = b.history_columns.index("seconds")
    assert np.array_equal(np.delete(a.history, clock, 1), np.delete(b.history, clock, 1))
    assert (a.iteration, a.ending, a.conditions) == (b.iteration, b.ending, b.conditions)
    ours, theirs = ((folder / "history.jsonl").read_text().splitlines() for folder in (run, whole))
    assert untimed(list(map(json.loads, ours))) == untimed(list(map(json.loads, theirs)))


def test_a_run_killed_at_any_iteration_resumes_to_the_bits_of_the_undisturbed_one(whole, tmp_path):
    folder, data, climbed, _ = whole
    checkpoints = sorted(folder.glob("checkpoint-*.h5"))
    assert len(checkpoints) > climbed + 2
    for last, _ in enumerate(checkpoints[:-1]):
        run = tmp_path / f"killed{last}"
        run.mkdir()
        shutil.copy(checkpoints[last], run)
        assert read(checkpoints[last]).conditions["precision"] == ("fp64" if last > climbed else "fp32")
        resume(run, dataset=data)
        both_the_same(run, folder)


def test_a_run_stopped_at_any_iteration_resumes_to_the_bits_of_the_undisturbed_one(whole, tmp_path):
    folder, data, climbed, options = whole
    for at in (1, climbed - 1, climbed, climbed + 1):
        for by_signal in (False, True):
            run, stop = tmp_path / f"stopped{at}{by_signal}", StopRequest()

            def ask(progress, state, at=at, stop=stop, by_signal=by_signal) -> bool:
                stop.by = "SIGTERM" if by_signal and progress.iteration == at else None
                return not by_signal and progress.iteration == at

            model = start(Job(**options), run, dataset=data, callbacks=[ask], stop=stop)
            assert model.ending is not None and model.ending["kind"] == "stopped"
            assert len(model.history) == at
            resume(run, dataset=data)
            both_the_same(run, folder)


def test_at_the_limit_nothing_climbs_and_a_larger_limit_goes_on_as_if_there_had_been_none(whole, tmp_path):
    folder, data, climbed, options = whole
    run = tmp_path / "run"
    model = start(Job(**options | {"iterations": climbed}), run, dataset=data)
    assert {row["precision"] for row in model.history} == {"fp32"}
    assert model.ending is not None and "climbed" not in model.ending["reason"]
    assert model.ending["kind"] == ("limit" if options["options"]["patience"] == 20 else "stalled")
    resume(run, iterations=300, dataset=data)
    both_the_same(run, folder)


def test_a_run_without_climbing_can_be_told_to_climb_later(tmp_path, gpubp_command):
    X, y = plane()
    write(tmp_path / "d.h5", X=X, y=y)
    options = ["--hidden", "none", "--lambda", 0, "--set", "tolerance=1e-12", "--iterations", 300]
    done = gpubp_command("train", "d.h5", "--out", "run", "--no-climb", *options)
    assert "stalled" in done.stdout and "gpubp resume run --climb" in done.stdout and STALLED not in done.stderr
    again = gpubp_command("resume", "run", "--json")
    assert again.json["ending"] == "stalled" and again.json["precision"] == "fp32"
    more = gpubp_command("resume", "run", "--climb", "--json")
    assert more.json["ending"] == "converged" and more.json["precision"] == "fp64"
    assert more.stderr.count(STALLED) == 1
    assert gpubp_command("info", "run", "--json").json["precision"] == "fp64"
    lines = map(json.loads, (tmp_path / "run" / "history.jsonl").read_text().splitlines())
    assert {line["precision"] for line in lines} == {"fp32", "fp64"}


@pytest.mark.parametrize(
    ("job", "precision", "way"),
    [
        ({"iterations": 7}, "fp32", "gpubp resume r --iterations 14: at the next finer"),
        ({"passes": 9.0}, "fp32", "gpubp resume r --passes 19: at the next finer"),
        ({"climb": False}, "fp32", "gpubp resume r --climb: at the next finer"),
        ({}, "fp32", ""),  # no limit kept it from climbing: it did, and has stalled there before any iteration
        ({"iterations": 7}, "fp64", ""),
    ],
    ids=str,
)
def test_the_way_on_of_a_run_that_stalled_is_what_kept_it_from_climbing(job, precision, way):
    import click

    from gpubp.cli._train import outcome, outcome_text

    row = {"iteration": 7, "evaluations": 8, "passes": 9.5, "seconds": 1.0, "precision": precision}
    ending = {"kind": "stalled", "reason": "stalled"}
    model = SimpleNamespace(job=asdict(Job(**job)), history=[row], ending=ending, reached={})
    with click.Context(click.Command("train"), info_name="gpubp"):
        text = outcome_text(outcome(model, Path("r")))
    assert way in text and ("resume" in text) == bool(way)


def test_the_rows_are_never_kept_twice(monkeypatch):
    X, y = plane()
    ready = prepare(Job(**OPTIONS), array_dataset(X, y))
    old = ready.objective
    held = [weakref.ref(old._pass._feed), *map(weakref.ref, old._pass._owners)]
    made = []

    def construct(*arguments: Any, **options: Any) -> Objective:
        assert all(thing() is None for thing in held)
        made.append(Objective(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(room, "Objective", construct)
    assert ready.at("fp64") is ready.objective is made[0] and ready.objective.precision == "fp64"
    assert ready.objective.backend is old.backend
    ready.close()
    old.close()  # a second time does no harm


def test_a_precision_that_is_not_here_is_named_and_left_only_inexactly(tmp_path, monkeypatch):
    X, y = plane()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(NumpyBackend, "precisions", LADDER)
        gpubp.train(X, y, out=tmp_path / "run", **OPTIONS | {"precision": "tf32", "iterations": 2})
    with pytest.raises(MismatchError, match=r"the run is at tf32, which the CPU here does not have.*--inexact.*fp32"):
        resume(tmp_path / "run", iterations=4, dataset=array_dataset(X, y))
    model = resume(tmp_path / "run", iterations=4, dataset=array_dataset(X, y), inexact=True)
    assert [row["precision"] for row in model.history] == ["tf32", "tf32", "fp32", "fp32"]


class Rounded:
    """½ Σ c (Θ − 1)² + 3 as passes of a precision give it: with errors of its size that jump from one Θ to the next."""

    threads, validation_number, vectors = 1, None, None
    guard = nullcontext
    communicator = Solo()
    backend = SimpleNamespace(precisions=LADDER)
    scales = np.logspace(0, 1, 6)

    def __init__(self, name: str) -> None:
        self.precision = name

    def value_and_gradient(self, Theta: np.ndarray, out: np.ndarray) -> float:
        r, kind = Theta - 1, precision(self.precision)
        jump = np.modf(np.sum(Theta) * 2.0**40)[0]
        out[:] = self.scales * r + kind.error * np.sin(40 * jump + np.arange(6.0))
        return float((r @ (self.scales * r) / 2 + 3) * (1 + kind.noise / 3 * np.sin(100 * jump)))


def test_it_climbs_step_by_step_to_the_finest(caplog):
    caplog.set_level(logging.INFO, "gpubp")
    made: list[str] = []

    def climb(name: str) -> Objective:
        made.append(name)
        return cast(Objective, Rounded(name))

    first = cast(Objective, Rounded("bf16"))
    ending, state = fit(first, make("lbfgs", tolerance=1e-13), np.zeros(6), iterations=1000, climb=climb)
    assert ending.kind == "converged" and state is not None
    assert np.abs(state.Theta - 1).max() < 1e-12
    assert made == list(LADDER[1:][: len(made)]) and len(made) >= 3
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split()[2] for line in lines] == ["bf16", *made[:-1]] and len(lines) == len(made)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_step_that_stalls_without_an_iteration_and_is_stopped_counts_nothing(stopped):
    stop, seen = StopRequest(), []

    class Stuck(LBFGS):
        def advance(self, f: Function, state: PairsState) -> Ending | None:
            seen.append(f.noise)  # pyright: ignore[reportAttributeAccessIssue]
            f.value_and_gradient(state.Theta, np.zeros(6))
            state.evaluations += 1
            stop.by = "SIGTERM" if stopped else None
            return Ending("stalled", "stuck")

    made: list[str] = []

    def climb(name: str) -> Objective:
        made.append(name)
        return cast(Objective, Rounded(name))

    ending, state = fit(cast(Objective, Rounded("tf32x3")), Stuck(), np.zeros(6), iterations=9, climb=climb, stop=stop)
    assert state is not None
    assert seen == [precision(name).noise for name in ("tf32x3", *made)]
    if stopped:
        assert (ending.kind, state.evaluations, made) == ("stopped", 1, [])
    else:  # each step, and each new look at Θ
        assert (ending.reason, state.evaluations, made) == ("stuck", 1 + 3 + 2, ["fp32", "fp64"])


def test_what_showed_a_standstill_begins_anew_and_the_pairs_stay():
    fine, coarse = Rounded("fp64"), Rounded("fp32")
    optimizer = LBFGS(tolerance=0.0, patience=3)
    state = optimizer.init(coarse, np.zeros(6))
    for _ in range(4):
        assert optimizer.step(coarse, state) is None
    state.idle = 3
    ending = optimizer.step(coarse, state)
    assert ending is not None and "stalled: for 3 iterations" in ending.reason
    # what has stalled stays so, at no cost
    assert optimizer.step(coarse, state) == optimizer.step(coarse, optimizer.restore(coarse, state.saved())) == ending
    before, pairs, Theta = state.evaluations, state.pairs, state.Theta.copy()
    assert pairs
    optimizer.renew(fine, state)
    gradient = np.zeros(6)
    assert state.J == fine.value_and_gradient(Theta, gradient) and np.array_equal(state.gradient, gradient)
    assert np.array_equal(state.Theta, Theta) and state.pairs == pairs
    assert (state.idle, state.lowest, state.flattest) == (0, np.inf, np.inf)
    assert state.evaluations == before + 1

    def broken(Theta: np.ndarray, out: np.ndarray) -> float:
        out[:] = np.nan
        raise KeyboardInterrupt

    kept = {name: np.array(value) for name, value in state.saved().items()}
    with pytest.raises(KeyboardInterrupt):
        optimizer.renew(cast(Function, SimpleNamespace(value_and_gradient=broken)), state)
    assert all(np.array_equal(kept[name], value) for name, value in state.saved().items())


@pytest.mark.parametrize(
    ("says", "set_to", "risen"), [(1e-11, None, 1e-11), (1e-7, None, 1e-7), (None, None, 1e-7), (1e-11, 1e-6, 1e-6)]
)
def test_how_far_j_may_rise_is_what_the_function_says_of_its_rounding(says, set_to, risen):
    """J creeps up where the slopes promise a descent: it may by the rounding of the pass, or by what the user set."""

    def creeping(Theta: np.ndarray, out: np.ndarray) -> float:
        out[:] = -0.1 * risen * np.exp(-Theta)
        return float(1 + 0.2 * risen * Theta[0])

    f: Any = SimpleNamespace(value_and_gradient=creeping)
    if says is not None:
        f.noise = says
    optimizer = LBFGS(tolerance=0.0, noise=set_to)
    state = optimizer.init(f, np.zeros(1))
    for _ in range(100):
        if optimizer.step(f, state):
            break
    assert 0.3 * risen < state.J - 1 <= 1.001 * risen
