"""What ends a run: each ending with its sentence; the same bits wherever the run was cut; the right Θ kept."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import click.testing
import numpy as np
import pytest
from running import write
from test_climb import Rounded, both_the_same, plane
from test_run import start as start_process
from test_run import wait_for_iteration
from test_training import BOWL, TriesTwo

import gpubp
from gpubp import optimizers, training
from gpubp.checkpoint import read
from gpubp.checkpoint import write as write_checkpoint
from gpubp.cli._main import cli
from gpubp.errors import CheckpointError, UsageError
from gpubp.job import Job
from gpubp.objective import Objective
from gpubp.optimizers import Ending, Function, Optimizer, State
from gpubp.optimizers.vectors import HOST, Vectors
from gpubp.prepare import array_dataset
from gpubp.run import resume, start
from gpubp.run_folder import find_checkpoint
from gpubp.stopping import NAMES, Stopping, Watch
from gpubp.training import StopRequest, fit


@dataclass(kw_only=True)
class SwingingState(State):
    velocity: Any
    best_Theta: Any
    best_J: float = math.inf
    step: Any = field(metadata={"scratch": True})

    @property
    def best(self) -> tuple[Any, float]:
        return (self.best_Theta, self.best_J) if self.best_J < self.J else (self.Theta, self.J)


@dataclass(frozen=True, kw_only=True)
class Swinging(Optimizer[SwingingState]):
    """Momentum that overshoots: J falls and rises. It charges half a pass more for each step."""

    rate: float = 1.0
    momentum: float = 0.95

    def blank(self, P: int, vectors: Vectors = HOST) -> SwingingState:
        Theta, gradient, velocity, best, step = (vectors.zeros(P) for _ in range(5))
        return SwingingState(Theta=Theta, gradient=gradient, velocity=velocity, best_Theta=best, step=step)

    def advance(self, f: Function, state: SwingingState) -> Ending | None:
        velocity = self.momentum * state.velocity - self.rate * state.gradient
        Theta, gradient = state.Theta + velocity, np.zeros_like(velocity)
        J = float(f.value_and_gradient(Theta, gradient))
        if state.J < state.best_J:
            state.best_Theta[:], state.best_J = state.Theta, state.J
        state.Theta, state.gradient, state.velocity, state.J = Theta, gradient, velocity, J
        state.iteration, state.evaluations, state.extra = state.iteration + 1, state.evaluations + 1, state.extra + 0.5
        return None


@pytest.fixture(autouse=True)
def swinging(monkeypatch):
    monkeypatch.setitem(optimizers._classes(), "swinging", Swinging)
    monkeypatch.setattr("os.fsync", lambda fd: None)  # of hundreds of checkpoints: quicker, and no power cut is meant


def command(*arguments: Any) -> Any:
    """`gpubp …` in this process: what it prints."""
    done = click.testing.CliRunner().invoke(cli, list(map(str, arguments)))
    assert done.exit_code == 0 and done.exception is None, (done.output, done.exception)
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


def data(seed: int = 3, m: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Classes that overlap, and few rows: a network soon learns them by heart."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, m)
    return (rng.normal(size=(m, 5)) + 0.7 * rng.normal(size=(3, 5))[y]).astype(np.float32), y


DATA = array_dataset(*data())
OPTIONS: dict[str, Any] = {
    "hidden": (8,), "lambda_": 0.0, "validation": 0.4, "backend": "cpu", "kernel": "numpy", "iterations": 150,
}  # fmt: skip
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "lbfgs": {},
    "gd": {"optimizer": "gd", "options": {"learning_rate": 8.0}},
    "swinging": {"optimizer": "swinging"},
}
for chosen in OPTIMIZERS.values():
    chosen.setdefault("optimizer", "lbfgs")

# what ends a run, with the kind of its ending and the beginning of its sentence
LIMITS: dict[str, tuple[dict[str, Any], str, str]] = {
    "decrease": ({"decrease": 0.1}, "converged", "converged: over the last 5 iterations J stayed between "),
    "evaluations": ({"evaluations": 14}, "limit", "stopped at the limit of 14 evaluations (14 used) after "),
    "passes": ({"passes": 17.25}, "limit", "stopped at the limit of 17.25 passes (1"),
    "seconds": ({"seconds": 11.5}, "limit", "stopped at the limit of 11.5 s (12 s used) after 12 iterations and has "),
    "target": ({"target": 0.7}, "target", "reached the target: J = 0."),
    "patience": ({"patience": 6}, "early", "stopped early: for 6 iterations the validation cost has not fallen below "),
    "min_delta": ({"patience": 6, "min_delta": 0.02}, "early", "stopped early: for 6 iterations the validation cost "),
    "both": ({"patience": 6, "evaluations": 12}, "", "stopped "),
}


@pytest.fixture
def clock(monkeypatch):
    """Each look at the clock is a second later."""
    ticks = count()
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))


def one_by_one(folder: Path, **options: Any) -> Any:
    return start(Job(**{**OPTIONS, "checkpoint_every": "1it", "keep": 1000, **options}), folder, dataset=DATA)


def same(run: Path, whole: Path) -> None:
    both_the_same(run, whole)
    a, b = (read(max(folder.glob("checkpoint-*.h5"))).stopping for folder in (run, whole))
    assert {k: np.float64(v).tobytes() for k, v in a.items()} == {k: np.float64(v).tobytes() for k, v in b.items()}


# The endings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "precision"), [("lbfgs", "fp32"), ("lbfgs", "fp64"), ("gd", "fp64"), ("swinging", "fp32")]
)
@pytest.mark.parametrize("limit", LIMITS)
def test_it_ends_in_words_and_resumes_from_any_checkpoint_to_the_same_bits(limit, name, precision, tmp_path, clock):
    asked, kind, words = LIMITS[limit]
    options = {**OPTIMIZERS[name], **asked, "precision": precision}
    model = one_by_one(tmp_path / "whole", **options)
    ending, done = model.ending, len(model.history)
    assert ending is not None and ending["kind"] in (kind or ("limit", "early")), ending
    assert ending["reason"].startswith(words), ending
    assert 6 <= done < 150
    checkpoints = sorted((tmp_path / "whole").glob("checkpoint-*.h5"))
    assert len(checkpoints) == done + 1
    for at in sorted({0, done // 2, done - 1}):
        run = tmp_path / f"killed{at}"
        run.mkdir()
        shutil.copy(checkpoints[at], run)
        again = resume(run, dataset=DATA)
        same(run, tmp_path / "whole")
        assert again.Theta.tobytes() == model.Theta.tobytes() and again.reached == model.reached
    run = tmp_path / "stopped"
    stop = StopRequest()

    def ask(progress, state) -> None:
        stop.by = "SIGTERM" if progress.iteration == done - 2 else None

    stopped = start(Job(**OPTIONS, **options), run, dataset=DATA, callbacks=[ask], stop=stop)
    assert stopped.ending is not None and stopped.ending["kind"] == "stopped" and len(stopped.history) == done - 2
    resume(run, dataset=DATA)
    same(run, tmp_path / "whole")


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"evaluations": 9}, {"evaluations": 19}),
        ({"passes": 9.0}, {"passes": 20.0}),
        ({"seconds": 6.0}, {"seconds": None, "evaluations": 15}),
        ({"target": 1.25}, {"target": 0.7}),
        ({"decrease": 0.2}, {"decrease": 0.1}),
        ({"patience": 3}, {"patience": 8}),
        ({"patience": 20, "iterations": 7}, {"iterations": 16}),
        ({"options": {"tolerance": 0.3}}, {"tolerance": 0.1}),
    ],
    ids=str,
)
def test_a_run_that_has_ended_goes_on_as_if_it_had_not(name, first, then, tmp_path, clock):
    options = {**OPTIONS, **OPTIMIZERS[name]}
    if own := first.get("options"):
        first, tolerance = {}, {**options.get("options", {}), **own}
        begun = {**options, "options": tolerance}
        larger = {**options, "options": {**tolerance, "tolerance": then["tolerance"]}}
    else:
        begun, larger = {**options, **first}, {**options, **first, **then}
    model = start(Job(**begun), tmp_path / "run", dataset=DATA)
    assert model.ending is not None and model.ending["kind"] != "stalled"
    more = resume(tmp_path / "run", dataset=DATA, **then)
    assert len(more.history) > len(model.history)
    start(Job(**larger), tmp_path / "whole", dataset=DATA)
    same(tmp_path / "run", tmp_path / "whole")
    assert resume(tmp_path / "run", dataset=DATA).ending == more.ending  # nothing is left to be done
    same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("asked", [{"patience": 12}, {"decrease": 1e-8}, {"evaluations": 0}, {"evaluations": 1}])
def test_it_ends_before_at_and_after_a_climb_to_the_same_bits(asked, tmp_path):
    X, y = plane()
    rows = array_dataset(X, y)
    common: dict[str, Any] = {
        "hidden": (), "lambda_": 0.0, "options": {"tolerance": 1e-12}, "validation": 0.2, "backend": "cpu",
        "kernel": "numpy", "checkpoint_every": "1it", "keep": 1000,
    }  # fmt: skip
    undisturbed = start(Job(**common), tmp_path / "undisturbed", dataset=rows)
    climbed = [row["precision"] for row in undisturbed.history].index("fp64")
    if "evaluations" in asked:  # those of the last iteration before, and what the climb takes
        asked = {"evaluations": undisturbed.history[climbed - 1]["evaluations"] + asked["evaluations"]}
    model = start(Job(**common, **asked), tmp_path / "whole", dataset=rows)
    assert model.ending is not None and model.ending["kind"] in ("early", "converged", "limit")
    checkpoints = sorted((tmp_path / "whole").glob("checkpoint-*.h5"))
    for at in sorted({2, climbed - 1, climbed, climbed + 1, len(checkpoints) - 2}):
        if at >= len(checkpoints):
            continue
        run = tmp_path / f"killed{at}"
        run.mkdir()
        shutil.copy(checkpoints[at], run)
        resume(run, dataset=rows)
        same(run, tmp_path / "whole")
    if "evaluations" in asked:
        resume(tmp_path / "whole", dataset=rows, evaluations=None)
        same(tmp_path / "whole", tmp_path / "undisturbed")


def test_the_window_begins_anew_with_a_climb():
    watch = Watch(Stopping(decrease=1.0))
    state = TriesTwo().init(BOWL, np.array([4.0]))
    watch.begin(state, "fp32", None)
    for _ in range(6):
        assert watch.ending(state, TriesTwo(), 99, 0.0) is None
        watch.note(state, None)
    assert watch.ending(state, TriesTwo(), 99, 0.0) is not None
    watch.climbed()
    assert watch.ending(state, TriesTwo(), 99, 0.0) is None
    # a run that was stopped between the climb and the next iteration, and resumed
    rows = [{"iteration": i, "J": 1.0, "precision": "fp32" if i < 6 else "fp64"} for i in range(9)]
    for history, precision, costs in ((rows[:6], "fp64", 0), (rows[:6], "fp32", 6), (rows, "fp64", 3)):
        watch = Watch(Stopping(decrease=1.0), history)
        watch.begin(state, precision, None)
        assert len(watch.costs) == costs


def test_one_lucky_small_step_and_a_swing_back_do_not_end_a_run():
    watch, state = Watch(Stopping(decrease=0.01)), TriesTwo().init(BOWL, np.array([4.0]))
    watch.begin(state, "fp64", None)
    costs = [5.0, 4.0, 4.0, 3.0, 2.0, 1.0, 5.0, 1.0, 1.009, 1.0, 1.005, 1.0, 1.0]
    ended = []
    for J in costs:
        state.J = J
        watch.note(state, None)
        ended.append(watch.ending(state, TriesTwo(), 99, 0.0) is not None)
    assert ended == [False] * 12 + [True]  # 4 = 4 is lucky, and 5 comes back after five iterations


def test_a_small_gradient_comes_first_and_an_ending_of_the_optimizer_is_its_own():
    watch = Watch(Stopping(target=1.0, evaluations=1))
    ending, state = fit(BOWL, TriesTwo(tolerance=8.0), np.array([8.0]), iterations=9, watch=watch)
    assert ending.kind == "converged" and "max|∇J| = 8 is within 8" in ending.reason
    assert state is not None and state.evaluations == 1
    ending, state = fit(BOWL, TriesTwo(), np.array([8.0]), iterations=9, watch=Watch(Stopping(target=32.0)))
    assert (ending.kind, ending.reason) == ("target", "reached the target: J = 32 after 0 iterations, wanted 32")


def test_budgets_are_named_together_with_what_was_used():
    watch = Watch(Stopping(evaluations=4, passes=4.5))
    ending, state = fit(BOWL, TriesTwo(), np.array([64.0]), iterations=2, watch=watch)
    assert ending.reason == (
        "stopped at the limit of 2 iterations and 4 evaluations (5 used) and 4.5 passes (5 used) and has not "
        "converged: max|∇J| = 16, wanted 1e-05 or less"
    )
    assert state is not None and state.iteration == 2  # a step is not cut


def test_passes_are_all_that_is_charged():
    ending, state = fit(BOWL, Swinging(rate=0.1), np.array([64.0]), iterations=9, watch=Watch(Stopping(passes=4.0)))
    assert state is not None and (state.iteration, state.evaluations) == (2, 3)
    assert "limit of 4 passes (4 used) after 2 iterations" in ending.reason


@pytest.mark.parametrize(("asked", "kind"), [({"target": 8.0}, "target"), ({"evaluations": 3}, "stalled")])
def test_a_step_that_stalls_where_the_run_would_end(asked, kind):
    class Stalling(TriesTwo):
        def advance(self, f: Function, state: State) -> Ending | None:
            super().advance(f, state)
            return Ending("stalled", "stalled: no more")

    ending, _ = fit(BOWL, Stalling(), np.array([8.0]), iterations=9, watch=Watch(Stopping(**asked)))
    assert ending.kind == kind


def test_each_precision_has_a_window_of_its_own():
    watch, seen = Watch(Stopping(decrease=1e-300)), []

    def look(progress, state) -> None:
        seen.append((progress.precision, len(watch.costs)))

    first, lbfgs = cast(Objective, Rounded("tf32x3")), optimizers.make("lbfgs", tolerance=1e-13)
    fit(
        first, lbfgs, np.zeros(6), iterations=1000, callbacks=[look], watch=watch,
        climb=lambda name: cast(Objective, Rounded(name)),
    )  # fmt: skip
    firsts = {name: size for name, size in reversed(seen)}
    assert len(firsts) >= 2 and set(firsts.values()) == {1} and max(size for _, size in seen) == 6


# Early stopping ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_theta_kept_is_that_of_the_lowest_validation_cost_to_the_bit(name, tmp_path):
    seen: dict[int, bytes] = {}

    def look(progress, state) -> None:
        seen[progress.iteration] = state.Theta.tobytes()

    X, y = data()
    run = tmp_path / "run"
    model = gpubp.train(X, y, out=run, callbacks=[look], **{**OPTIONS, **OPTIMIZERS[name], "patience": 9})
    validation = [row["validation"] for row in model.history]
    best = int(np.argmin(validation))
    assert best < len(validation) - 1 and model.ending is not None and model.ending["kind"] == "early"
    assert f"Θ is that of iteration {best + 1}, validation cost {validation[best]:.6g}" in model.ending["reason"]
    assert f"(now {validation[-1]:.6g}, patience 9)" in model.ending["reason"]
    assert model.Theta.tobytes() == gpubp.load(run).Theta.tobytes() == seen[best + 1]
    assert np.asarray(find_checkpoint(run)[1].state["Theta"]).tobytes() == seen[len(validation)]
    kept = {name: model.history[best][name] for name in ("iteration", "J", "gradient", "validation")}
    assert model.reached == gpubp.load(run).reached == kept


def test_the_theta_kept_is_that_of_the_lowest_cost_also_where_the_patience_asks_for_more():
    watch = Watch(Stopping(patience=2, min_delta=0.5))
    state = TriesTwo().init(BOWL, np.array([4.0]))
    watch.begin(state, "fp64", 10.0)
    idle = []
    for at, validation in enumerate([9.8, 9.4, math.nan, 9.1, None, 9.3], 1):
        state.Theta[0], state.iteration = at, at
        watch.note(state, validation)
        idle.append(watch.idle)
    assert idle == [1, 0, 1, 2, 3, 4] and (watch.mark, watch.validation, watch.iteration) == (9.4, 9.1, 4)
    assert watch.Theta_on_host(state).tolist() == [4.0]
    ending = watch.ending(state, TriesTwo(), 99, 0.0)
    assert ending is not None and "fallen by more than 0.5 below 9.4 (now 9.3, patience 2)" in ending.reason


def test_early_stopping_that_begins_later_keeps_the_theta_it_begins_with(tmp_path):
    model = start(Job(**{**OPTIONS, "iterations": 60}), tmp_path / "run", dataset=DATA)
    assert not find_checkpoint(tmp_path / "run")[1].stopping
    more = resume(tmp_path / "run", dataset=DATA, iterations=150, patience=4)
    lowest = min(model.history[-1:] + more.history[60:], key=lambda row: row["validation"])
    assert more.reached["iteration"] == lowest["iteration"] >= 60
    if lowest["iteration"] == 60:
        assert more.Theta.tobytes() == model.Theta.tobytes()
    without = resume(tmp_path / "run", dataset=DATA, patience=None, iterations=len(more.history) + 2)
    assert without.reached["iteration"] == len(more.history) + 2
    assert not find_checkpoint(tmp_path / "run")[1].stopping


def test_patience_without_rows_that_are_held_out_is_one_line_before_anything_is_written(gpubp_command, tmp_path):
    X, y = data()
    path = write(tmp_path / "d.h5", X=X, y=y)
    refused = gpubp_command("train", path, "--out", "run", "--patience", 3, check=2).error
    assert refused.startswith("patience 3 without rows for validation") and "--validation 0.2" in refused
    assert not (tmp_path / "run").exists()
    gpubp.train(path, out=tmp_path / "run", iterations=2)
    with pytest.raises(UsageError, match=r"--validation 0\.2"):
        resume(tmp_path / "run", patience=3)
    groups = write(tmp_path / "g.h5", train__X=X[40:], train__y=y[40:], val__X=X[:40], val__y=y[:40])
    options = ["--lambda", 0, "--patience", 5, "--hidden", 20, "--kernel", "numpy"]
    result = command("train", groups, "--out", tmp_path / "g", "--json", *options)
    assert result["ending"] == "early" and result["best_iteration"] == result["iterations"] - 5
    assert result["go_on"] == "--patience 10"


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_kill_9_and_sigterm_under_early_stopping(how, gpubp_command, tmp_path):
    X, y = data()
    path = write(tmp_path / "d.h5", X=X, y=y)
    options = ["--optimizer", "gd", "--set", "learning_rate=4", "--lambda", 0, "--validation", 0.4]
    options += ["--patience", 10**6, "--min-delta", 0.01, "--kernel", "numpy"]
    run = tmp_path / "run"
    process = start_process(run, path, "--iterations", 10**6, "--checkpoint-every", "1it", *options, cwd=tmp_path)
    wait_for_iteration(run, 25, process)
    getattr(process, how)()
    process.communicate()
    at = find_checkpoint(run)[1]
    assert at.stopping["iteration"] < at.iteration and at.stopping["idle"] > 0  # it had something to remember
    more = at.iteration + 5
    gpubp_command("resume", run, "--iterations", more)
    gpubp_command("train", path, "--out", "whole", "--hidden", 9, "--iterations", more, *options)
    same(run, tmp_path / "whole")


# An optimizer whose J may rise ---------------------------------------------------------------------------------------


def test_a_run_returns_and_reports_the_best_theta_of_an_optimizer_whose_cost_may_rise(tmp_path):
    from gpubp.cli._train import outcome
    from gpubp.describe import describe

    X, y = data()
    seen: dict[int, bytes] = {}

    def look(progress, state) -> None:
        seen[progress.iteration] = state.Theta.tobytes()

    run = tmp_path / "run"
    wild = {**OPTIONS, "optimizer": "swinging", "options": {"rate": 8.0}, "iterations": 25}
    model = gpubp.train(X, y, out=run, callbacks=[look], **wild)
    costs = [row["J"] for row in model.history]
    best = int(np.argmin(costs))
    assert costs[-1] > costs[best]
    assert model.Theta.tobytes() == gpubp.load(run).Theta.tobytes() == seen[best + 1]
    assert gpubp.load(run).reached == model.reached and model.reached["J"] == costs[best]
    result = outcome(model, run)
    assert (result["cost"], result["best_iteration"], result["iterations"]) == (costs[best], best + 1, 25)
    assert result["passes"] == 1 + 25 * 1.5 and result["evaluations"] == 26
    told = describe(run)
    assert (told["cost J"], told["Θ of iteration"], told["passes"]) == (costs[best], best + 1, 38.5)
    more = resume(run, dataset=DATA, iterations=30)
    assert more.reached["J"] == min(row["J"] for row in more.history)
    gpubp.train(X, y, out=tmp_path / "whole", **{**wild, "iterations": 30})
    same(run, tmp_path / "whole")


def test_where_nothing_was_better_than_the_initial_theta_that_is_returned(tmp_path):
    X, y = data()
    wild = {**OPTIONS, "optimizer": "swinging", "options": {"rate": 1e4}, "iterations": 4}
    model = gpubp.train(X, y, out=tmp_path / "run", **wild)
    loaded = gpubp.load(tmp_path / "run")
    assert model.Theta.tobytes() == loaded.Theta.tobytes() == model.network.initial_Theta(0).tobytes()
    assert model.reached == loaded.reached and model.reached["iteration"] == 0
    assert model.reached["J"] < min(row["J"] for row in model.history)
    assert resume(tmp_path / "run", dataset=DATA, iterations=6).reached == model.reached


# What was asked for --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"evaluations": 0}, "evaluations = 0; wanted 1 or more"),
        ({"patience": 0}, "patience = 0; wanted 1 or more"),
        ({"seconds": -1.0}, "seconds = -1.0; wanted a finite number above 0"),
        ({"passes": math.inf}, "passes = inf; wanted a finite"),
        ({"decrease": 0.0}, "decrease = 0.0; wanted a finite number above 0"),
        ({"target": math.nan}, "target = nan; wanted a finite number"),
        ({"min_delta": 0.1}, "min_delta = 0.1 without a patience"),
        ({"patience": 3, "min_delta": -0.1}, "min_delta = -0.1; wanted a finite number, 0 or more"),
        ({"patience": 2.5}, "patience = 2.5; wanted int"),
        ({"seconds": "60"}, "seconds = '60'; wanted float"),
    ],
)
def test_what_cannot_be_meant_is_refused(asked, words):
    with pytest.raises(UsageError) as refused:
        Job(**asked)
    assert str(refused.value).startswith(words)


def test_limits_of_resume_that_are_unknown_or_left_behind_are_refused(tmp_path):
    start(Job(**OPTIONS, evaluations=9), tmp_path / "run", dataset=DATA)
    with pytest.raises(UsageError, match=r"limit epochs; wanted one of tolerance, decrease"):
        resume(tmp_path / "run", dataset=DATA, epochs=3)
    left: list[dict[str, Any]] = [{"evaluations": 8}, {"passes": 8.5}, {"seconds": 1e-9}]
    for asked in left:
        with pytest.raises(UsageError, match=r"where .* are done; wanted a limit beyond them"):
            resume(tmp_path / "run", dataset=DATA, **asked)
    again = resume(tmp_path / "run", dataset=DATA)
    assert again.ending is not None and "9 evaluations (9 used)" in again.ending["reason"]
    assert resume(tmp_path / "run", dataset=DATA, patience=5, min_delta=0.1, evaluations=10).job["min_delta"] == 0.1
    assert resume(tmp_path / "run", dataset=DATA, patience=None, evaluations=12).job["min_delta"] == 0


def test_the_command_line_takes_them_and_says_how_to_go_on(gpubp_command, tmp_path):
    X, y = data()
    path, r = write(tmp_path / "d.h5", X=X, y=y), tmp_path / "r"
    both = gpubp_command("train", path, "--out", "r", "--tolerance", 1, "--set", "tolerance=1", check=2).error
    assert both.startswith("--tolerance and --set tolerance=…")
    options = ["--hidden", 5, "--validation", 0.3, "--kernel", "numpy", "--tolerance", "1e-7", "--patience", 90]
    options += ["--evaluations", 8, "--seconds", 1000, "--decrease", "1e-9", "--min-delta", "none", "--target", -1]
    done = command("train", path, "--out", r, *options)
    assert "limit of 8 evaluations (8 used)" in done and "wanted 1e-07 or less" in done
    assert f"resume {r} --evaluations 16" in done
    wanted = "100 iterations; relative decrease ≤ 1e-09 over 5 iterations; 8 evaluations; 1000 s; J ≤ -1; "
    assert f"{wanted}90 iterations without a lower validation cost" in command("info", r)
    changes = ["--tolerance", 1e-6, "--patience", "none", "--evaluations", 16]
    more = command("resume", r, *changes, "--json")
    assert more["evaluations"] == 16 and more["go_on"] == "--evaluations 32" and "wanted 1e-06" in more["reason"]
    lifted = command("resume", r, "--evaluations", "none", "--target", 0.9, "--json")
    assert lifted["ending"] == "target" and lifted["cost"] <= 0.9 and lifted["go_on"] == "--target none"
    bad = gpubp_command("resume", "r", "--seconds", "soon", check=2).error
    assert "--seconds" in bad and "soon" in bad
    assert "finite" in gpubp_command("resume", "r", "--target", "inf", check=2).error


def test_checkpoints_of_before_go_on(tmp_path):
    options = {**OPTIONS, "iterations": 12, "optimizer": "lbfgs"}
    start(Job(**options), tmp_path / "whole", dataset=DATA)
    start(Job(**{**options, "iterations": 6}), tmp_path / "run", dataset=DATA)
    path, checkpoint, _ = find_checkpoint(tmp_path / "run")
    with_stopping = replace(checkpoint, stopping={"iteration": 2, "J": 0.5, "validation": math.nan})
    write_checkpoint(tmp_path / "c.h5", with_stopping)
    assert read(tmp_path / "c.h5").stopping["iteration"] == 2
    for wrong in ({"J": np.zeros(2)}, {"J": "low"}, [1]):
        with pytest.raises(CheckpointError, match="stopping"):
            replace(checkpoint, stopping=wrong)
    passes = checkpoint.history_columns.index("passes")
    older = replace(
        checkpoint,
        history=np.ascontiguousarray(np.delete(checkpoint.history, passes, 1)),
        history_columns=tuple(name for name in checkpoint.history_columns if name != "passes"),
        job={name: value for name, value in checkpoint.job.items() if name not in NAMES},
        state={name: value for name, value in checkpoint.state.items() if name != "extra"},
    )
    write_checkpoint(path, older)
    assert [row["passes"] for row in gpubp.load(path).history] == [
        row["evaluations"] for row in gpubp.load(path).history
    ]
    resume(tmp_path / "run", dataset=DATA, iterations=12)
    same(tmp_path / "run", tmp_path / "whole")


def test_the_history_has_passes(tmp_path):
    model = start(Job(**{**OPTIONS, **OPTIMIZERS["swinging"], "iterations": 4}), tmp_path / "run", dataset=DATA)
    lines = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [line["passes"] for line in lines] == [2.5, 4.0, 5.5, 7.0]
    assert [row["passes"] for row in gpubp.load(tmp_path / "run").history] == [row["passes"] for row in model.history]


def test_the_display_shows_passes_where_they_are_more_and_the_lowest_validation_cost():
    from gpubp.cli._progress import Display

    display = Display()
    display._lowest = 0.25
    display._last = training.Progress(3, 4, 1.0, 0.1, 0.5, 1.0, "fp32", 6.5)
    assert "validation 0.5 (best 0.25)" in display._text() and "evaluations 4  passes 6" in display._text()
    display._last = training.Progress(3, 4, 1.0, 0.1, 0.25, 1.0, "fp32", 4.0)
    assert "best" not in display._text() and "passes" not in display._text()


def test_other_endings_name_the_theta_that_early_stopping_has_kept(tmp_path, caplog):
    """Of a run that the limit ends while the patience lasts; and what is lost when that is lifted is said."""
    model = start(Job(**{**OPTIONS, "iterations": 40, "patience": 60}), tmp_path / "run", dataset=DATA)
    assert model.ending is not None and model.ending["kind"] != "early"
    kept = find_checkpoint(tmp_path / "run")[1].stopping
    assert kept["iteration"] < model.history[-1]["iteration"]
    words = f"Θ is that of iteration {kept['iteration']}, validation cost {kept['validation']:.6g}"
    assert words in model.ending["reason"]
    resume(tmp_path / "run", dataset=DATA, iterations=45, patience=None)
    assert f"early stopping is lifted: the Θ of iteration {kept['iteration']}" in caplog.text
