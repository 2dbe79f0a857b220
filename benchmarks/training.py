"""Whole trainings: where their time goes, and how long they take beside scikit-learn's.

    python3 benchmarks/training.py [--part share|digits] [--json FILE]

**share.** Shape B with 60,000 rows in an HDF5 file, through `gpubp.train` into a run folder, with checkpoints, history
and a log line for each iteration. How much of the time passes inside evaluations of J and ∇J? Wanted: 90 % or more.

**digits.** The 5,000 training digits that come with the package, 784-25-10. scikit-learn's MLPClassifier (L-BFGS, 100
iterations, α = 1; given float32 and float64, the faster one counts) and gpubp with the same cost on the same rows
until its J is no more than the lower of the two losses. Wanted: half of scikit-learn's time, or less. Each seed draws
another initial Θ; medians and ratios are of runs in turn, each in a process of its own. "fit" leaves out imports (a
tiny fit comes before the one that is timed), "process" is everything from start to exit.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parent.parent
ALPHA, HIDDEN, ITERATIONS = 1.0, 25, 100
SKLEARN = ("scikit-learn float32", "scikit-learn float64")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=("share", "digits"), help="one of the two alone")
    parser.add_argument("--m", type=int, default=60_000, help="share: rows")
    parser.add_argument("--iterations", type=int, default=20, help="share: iterations")
    parser.add_argument("--checkpoint-every", default="60", help="share: seconds, or 5it")
    parser.add_argument("--seeds", type=int, default=5, help="digits: seeds 0, 1, …")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is run")
    parser.add_argument("--threads", type=int, help="all cores there are, unless said otherwise")
    parser.add_argument("--options", default="{}", help="further options of gpubp.train, as JSON")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured there")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.worker:
        job = json.loads(options.worker)
        print(json.dumps(WORK[job.pop("what")](**job)))
        return 0
    from report import conditions, write

    from gpubp.backend.cores import available_cores

    threads, more = options.threads or available_cores(), json.loads(options.options)
    found: dict[str, Any] = {"what": "whole trainings", **conditions(), "threads": threads}
    if options.part != "digits":
        found["share"] = share(options.m, options.iterations, options.checkpoint_every, options.rounds, threads, more)
    if options.part != "share":
        found["digits"] = digits(options.seeds, options.rounds, threads, more)
    write(options.json, found)
    return 0


def run(threads: int, **job: Any) -> tuple[dict[str, Any], float]:
    """What a worker found, and the seconds that its process took."""
    from runner import Pace, environment_for

    Pace().rest()
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--worker", json.dumps(job)],
        capture_output=True, text=True, env=environment_for(threads),
    )  # fmt: skip
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{job}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1]), seconds


def share(m: int, iterations: int, every: str, rounds: int, threads: int, more: dict[str, Any]) -> list[dict[str, Any]]:
    """Train from a file a few times, print and return where the time went."""
    import h5py
    from problems import SHAPES, make
    from report import table

    shape = SHAPES["B"].with_rows(m)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "b.h5")
        with h5py.File(path, "w") as file:
            problem = make(shape)
            file["X"], file["y"] = problem.X, problem.codes
        del problem
        job = {"path": str(path), "iterations": iterations, "every": every, "more": more}
        found = [run(threads, what="share", out=str(Path(folder, f"run{i}")), **job)[0] for i in range(rounds)]
    rows = [
        [f"{i + 1}", f"{each['seconds']:.2f}", f"{each['loop']:.2f}", f"{each['evaluations']}", f"{each['inside']:.2f}",
         f"{each['saving']:.2f}",
         f"{100 * each['inside'] / each['loop']:.1f} %", f"{100 * each['inside'] / each['seconds']:.1f} %"]
        for i, each in enumerate(found)
    ]  # fmt: skip
    print(f"### {shape}, from an HDF5 file, {iterations} iterations, {threads} threads\n")
    head = (
        "run",
        "train s",
        "from the first pass on",
        "passes",
        "in passes",
        "in checkpoints",
        "share",
        "share of all",
    )
    print("\n".join(table(head, rows)), end="\n\n", flush=True)
    return found


def train_with_timer(path: str, out: str, iterations: int, every: str, more: dict[str, Any]) -> dict[str, Any]:
    """One training with everything on; seconds in all, from the first pass on, inside passes, inside checkpoints."""
    import numpy as np

    import gpubp
    from gpubp.objective import Objective
    from gpubp.run_folder import RunFolder

    settings: dict[str, Any] = {"activation": "sigmoid", "cost": "logistic", "backend": "cpu", **more}
    X = np.random.default_rng(0).random((64, 4), dtype=np.float32)
    gpubp.train(X, np.arange(64) % 3, hidden=(5, 4), iterations=2, **settings)  # imports, and what compiles
    passes: list[tuple[float, float]] = []  # when each began, and the seconds it took
    saves: list[tuple[float, float]] = []

    def timed(method: Any, times: list[tuple[float, float]]) -> Any:
        def with_timer(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            result = method(*arguments, **named)
            times.append((began, time.perf_counter() - began))
            return result

        return with_timer

    logging.basicConfig(level=logging.INFO)
    log = logging.getLogger("training")

    def note(progress: Any, state: Any) -> None:
        log.info("iteration %d, J = %.6g, max|∇J| = %.3g", progress.iteration, progress.J, progress.gradient)

    settings |= {"hidden": (256, 128), "iterations": iterations, "checkpoint_every": every}
    with (
        patch.object(Objective, "value_and_gradient", timed(Objective.value_and_gradient, passes)),
        patch.object(RunFolder, "save", timed(RunFolder.save, saves)),
    ):
        began = time.perf_counter()
        gpubp.train(path, out=out, callbacks=[note], **settings)
        ended = time.perf_counter()
    return {
        "seconds": ended - began,
        "loop": ended - passes[0][0],
        "inside": sum(took for _, took in passes),
        "saving": sum(took for _, took in saves),
        "evaluations": len(passes),
        "passes": [took for _, took in passes],
        "saves": [took for _, took in saves],
    }


def digits(seeds: int, rounds: int, threads: int, more: dict[str, Any]) -> list[dict[str, Any]]:
    """Both trainers on the digits, for each seed; print and return what was found."""
    from report import table

    found = []
    for seed in range(seeds):
        # before anything is timed: how low gpubp has to come, and that both mean the same by it
        losses = [run(threads, what="sklearn", who=who, seed=seed, check=True)[0] for who in SKLEARN]
        for loss in losses:
            if not abs(loss["J"] / loss["loss"] - 1) < 1e-5:
                sys.exit(f"gpubp's J is {loss['J']} where scikit-learn's loss is {loss['loss']}: other problems")
        goal = min(loss["loss"] for loss in losses)
        jobs = {who: {"what": "sklearn", "who": who, "seed": seed} for who in SKLEARN}
        jobs["gpubp"] = {"what": "gpubp", "seed": seed, "goal": goal, "more": more}
        each: dict[str, Any] = {"seed": seed, "goal": goal, "fit": {}, "process": {}, "last": {}}
        for turn in range(rounds):
            for who in list(jobs) if turn % 2 == 0 else list(jobs)[::-1]:
                got, _ = run(threads, warm=True, **jobs[who])
                each["fit"].setdefault(who, []).append(got["seconds"])
                each["process"].setdefault(who, []).append(run(threads, warm=False, **jobs[who])[1])
                each["last"][who] = got
        if each["last"]["gpubp"]["loss"] > goal:
            sys.exit(f"seed {seed}: gpubp ended at J = {each['last']['gpubp']['loss']}, wanted {goal} or less")
        found.append(each)
    for kind in ("fit", "process"):
        rows = []
        for each in found:
            seconds = {who: median(times) for who, times in each[kind].items()}
            best = min(seconds[who] for who in SKLEARN)
            each[f"{kind}_ratio"] = seconds["gpubp"] / best
            rows.append(
                [f"{each['seed']}", *(f"{s:.3f}" for s in seconds.values()), f"{seconds['gpubp'] / best:.2f}",
                 f"{each['goal']:.6f}", f"{each['last']['gpubp']['loss']:.6f}",
                 f"{each['last']['gpubp']['evaluations']}"]
            )  # fmt: skip
        print(f"### digits 784-{HIDDEN}-10, seconds of the {kind}, {threads} threads\n")
        head = ("seed", *found[0][kind], "gpubp ÷ best", "goal", "gpubp's J", "passes")
        print("\n".join(table(head, rows)))
        print(f"\n- median ratio **{median(each[f'{kind}_ratio'] for each in found):.2f}**\n", flush=True)
    return found


def fit_sklearn(who: str, seed: int, warm: bool = False, check: bool = False) -> dict[str, Any]:
    """One fit of MLPClassifier; with `check` also what gpubp's J is where it ended.

    SciPy works in float64 and hands float64 parameters to each evaluation: with float32 rows, NumPy converts those.
    """
    library: Any = importlib.import_module("sklearn.neural_network")
    warnings.simplefilter("ignore")  # it says that 100 iterations are few
    X, y = _digits(who.rsplit(" ", 1)[-1])

    def model(iterations: int) -> Any:
        return library.MLPClassifier(
            (HIDDEN,), solver="lbfgs", activation="logistic", alpha=ALPHA, max_iter=iterations, random_state=seed
        )

    if warm:
        model(2).fit(X[:200], y[:200])
    began = time.perf_counter()
    fitted = model(ITERATIONS).fit(X, y)
    seconds = time.perf_counter() - began
    found = {"seconds": seconds, "loss": float(fitted.loss_), "iterations": int(fitted.n_iter_)}
    if check:
        import numpy as np

        import gpubp

        network = gpubp.Network((X.shape[1], HIDDEN, 10), "sigmoid", "softmax")
        parameters = zip(fitted.coefs_, fitted.intercepts_, strict=True)
        Theta = network.pack([np.column_stack([b, W.T]) for W, b in parameters])
        found["J"] = gpubp.cost_and_gradient(network, Theta, X, y, lambda_=ALPHA)[0]
    return found


def fit_gpubp(seed: int, goal: float, more: dict[str, Any], warm: bool) -> dict[str, Any]:
    """One training until J ≤ goal."""
    import gpubp

    X, y = _digits("float32")
    settings: dict[str, Any] = {"hidden": (HIDDEN,), "activation": "sigmoid", "cost": "softmax", "lambda_": ALPHA}
    settings |= {"scale": "none", "seed": seed, "backend": "cpu", **more}
    if warm:
        gpubp.train(X[:200], y[:200], iterations=2, **settings)
    began = time.perf_counter()
    model = gpubp.train(X, y, iterations=20 * ITERATIONS, callbacks=[lambda now, _: now.J <= goal], **settings)
    seconds = time.perf_counter() - began
    last = model.history[-1]
    return {"seconds": seconds, "loss": last["J"], "iterations": last["iteration"], "evaluations": last["evaluations"]}


def _digits(dtype: str) -> tuple[Any, Any]:
    """The training digits: (5,000, 784) of 0 to 1, and their classes."""
    import h5py

    from gpubp.data.demo import demo_file

    file: Any
    with h5py.File(demo_file()) as file:
        return file["train/X"][:].astype(dtype) / 255, file["train/y"][:]


WORK = {"share": train_with_timer, "sklearn": fit_sklearn, "gpubp": fit_gpubp}

if __name__ == "__main__":
    sys.exit(main())
