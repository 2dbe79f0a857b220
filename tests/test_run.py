"""Training into a run folder, interruption, resume: the same bits."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import h5py
import numpy as np
import pytest
from running import ENVIRONMENT, write

from gpubp.backend import blas
from gpubp.checkpoint import write as write_checkpoint
from gpubp.run_folder import find_checkpoint

# the peak of this program alone: getrusage would count what its parent had when it forked
TRAIN_AND_PRINT_PEAK = """
import re, sys
from gpubp.cli import main
try:
    main(sys.argv[1:])
finally:
    print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def contents(run) -> dict:
    """Everything in the newest checkpoint that a run's bits are made of."""
    _, checkpoint, rejected = find_checkpoint(run)
    assert not rejected
    state = {k: v.tobytes() if isinstance(v, np.ndarray) else v for k, v in checkpoint.state.items()}
    return {"iteration": checkpoint.iteration, "Theta": [T.tobytes() for T in checkpoint.Theta], **state}


def start(run, data, *options, cwd, env=None):
    command = [sys.executable, "-m", "gpubp", "train", data, "--out", run, "--hidden", "9", *map(str, options)]
    return subprocess.Popen(
        list(map(str, command)), cwd=cwd, env=ENVIRONMENT | (env or {}), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for_iteration(run, wanted: int, process) -> None:
    """Until the history shows that iteration, which has been saved by then or will be."""
    for _ in range(2000):
        history = run / "history.jsonl"
        if history.exists() and len(history.read_text().splitlines()) >= wanted:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    pytest.fail("the run did not get there")


@pytest.mark.parametrize(
    "options",
    [
        ["--precision", "fp32"],
        ["--precision", "fp64", "--validation", "0.2"],
        ["--optimizer", "gd", "--set", "learning_rate=0.5"],
    ],
    ids=" ".join,
)
def test_kill_9_and_resume_gives_the_bits_of_an_undisturbed_run(gpubp_command, digits, tmp_path, options):
    """train 20 = train, kill −9 at 10 or later, resume to 20."""
    gpubp_command("train", digits, "--out", "whole", "--hidden", "9", "--iterations", 20, *options)
    run = tmp_path / "broken"
    # a run that would go on for long, so that the kill comes in its midst
    process = start(run, digits, "--iterations", 100_000, "--checkpoint-every", "1it", *options, cwd=tmp_path)
    wait_for_iteration(run, 10, process)
    process.kill()
    process.communicate()
    reached = find_checkpoint(run)[1].iteration
    if reached > 20:  # faster than we could look: cut back to a checkpoint as `train 10` would have left it
        for path in run.glob("checkpoint-*.h5"):
            path.unlink()
        gpubp_command("train", digits, "--out", "ten", "--hidden", "9", "--iterations", 10, *options)
        run = tmp_path / "ten"
    resumed = gpubp_command("resume", run, "--iterations", 20, "--json")
    assert resumed.json["iterations"] == 20
    assert contents(run) == contents(tmp_path / "whole")
    histories = [(r / "history.jsonl").read_text().splitlines() for r in (run, tmp_path / "whole")]
    a, b = ([{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in h] for h in histories)
    assert a == b and len(a) == 20


def test_train_10_and_resume_to_20_equals_train_20(gpubp_command, digits, tmp_path):
    gpubp_command("train", digits, "--out", "whole", "--iterations", 20)
    gpubp_command("train", digits, "--out", "half", "--iterations", 10)
    gpubp_command("resume", "half", "--iterations", 20)
    assert contents(tmp_path / "half") == contents(tmp_path / "whole")


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 75)])
def test_signals_stop_with_a_checkpoint_that_goes_on(gpubp_command, digits, tmp_path, name, code):
    run = tmp_path / "run"
    process = start(run, digits, "--iterations", 100_000, "--optimizer", "gd", cwd=tmp_path)
    wait_for_iteration(run, 5, process)
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=20)
    assert process.returncode == code, err
    assert f"stopped by {name}" in out.decode() and f"go on   gpubp resume {run}" in out.decode()
    done = find_checkpoint(run)[1].iteration
    assert done >= 5
    more = done + 3
    gpubp_command("resume", run, "--iterations", more)
    gpubp_command("train", digits, "--out", "whole", "--hidden", "9", "--optimizer", "gd", "--iterations", more)
    assert contents(run) == contents(tmp_path / "whole")


def test_a_folder_with_a_checkpoint_is_never_overwritten(gpubp_command, digits, tmp_path):
    gpubp_command("train", digits, "--out", "run", "--iterations", 3)
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    refused = gpubp_command("train", digits, "--out", "run", check=3)
    assert "gpubp resume" in refused.error and "--overwrite" in refused.error
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before
    gpubp_command("train", digits, "--out", "run", "--iterations", 2, "--overwrite")
    assert find_checkpoint(tmp_path / "run")[1].iteration == 2
    assert len((tmp_path / "run" / "history.jsonl").read_text().splitlines()) == 2


def test_resume_refuses_other_data_and_other_conditions_by_name(gpubp_command, digits, tmp_path):
    gpubp_command("train", digits, "--out", "run", "--iterations", 3)
    with h5py.File(digits, "r+") as file:
        file["X"][17, 3] += 1
    assert "not the data" in gpubp_command("resume", "run", "--iterations", 5, check=3).error
    with h5py.File(digits, "r+") as file:
        file["X"][17, 3] -= 1
        file["y"][4] = 1 if file["y"][4] != 1 else 2
    assert "not the data" in gpubp_command("resume", "run", "--iterations", 5, check=3).error


def test_other_conditions_are_named_and_accepted_only_with_inexact(gpubp_command, digits, tmp_path, monkeypatch):
    from gpubp.backend.numpy import NumpyBackend
    from gpubp.errors import MismatchError
    from gpubp.run import resume

    gpubp_command("train", digits, "--out", "run", "--iterations", 3)
    monkeypatch.setattr(NumpyBackend, "leaves_and_block", lambda self, m, sizes: (4, 100))
    with pytest.raises(MismatchError, match=r"block_rows was 1024, is 100.*--inexact"):
        resume(tmp_path / "run", iterations=5)
    assert resume(tmp_path / "run", iterations=5, inexact=True).history[-1]["iteration"] == 5


def test_other_instructions_of_numpys_are_a_condition_and_what_was_never_noted_is_none(gpubp_command, digits, tmp_path):
    chosen = blas.conditions()["simd"].split()
    if chosen == ["baseline"]:
        pytest.skip("NumPy has no loops for more than every CPU has")
    gpubp_command("train", digits, "--out", "run", "--kernel", "numpy", "--iterations", 3)
    fewer = {"NPY_DISABLE_CPU_FEATURES": chosen[-1]}
    refused = gpubp_command("resume", "run", "--iterations", 5, check=3, env=fewer)
    left = " ".join(chosen[:-1]) or "baseline"
    assert f"simd was {' '.join(chosen)}, is {left}; " in refused.error and "--inexact" in refused.error
    path, checkpoint, _ = find_checkpoint(tmp_path / "run")
    earlier = {name: value for name, value in checkpoint.conditions.items() if name not in ("simd", "lapack")}
    write_checkpoint(path, replace(checkpoint, conditions=earlier))
    gpubp_command("resume", "run", "--iterations", 5, env=fewer)


def test_validation_rows_do_not_touch_theta_beyond_being_left_out(gpubp_command, tmp_path):
    """Rows held out by the hash equal a file without them, with the same rows as its val group."""
    from gpubp.data.split import validation_mask

    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(400, 5)), rng.integers(0, 2, 400)
    mask = validation_mask(400, 0.25, 3)
    assert mask is not None and 60 < mask.sum() < 140
    whole = write(tmp_path / "whole.h5", X=X, y=y)
    groups = write(
        tmp_path / "groups.h5", train__X=X[~mask], train__y=y[~mask], val__X=X[mask], val__y=y[mask]
    )  # fmt: skip
    options = ["--iterations", 8, "--precision", "fp64", "--seed", 3, "--json", "--hidden", 4]
    a = gpubp_command("train", whole, "--out", "a", "--validation", 0.25, *options).json
    b = gpubp_command("train", groups, "--out", "b", *options).json
    assert a["validation"] == pytest.approx(b["validation"], rel=1e-8)
    assert a["cost"] == pytest.approx(b["cost"], rel=1e-8)
    held_out = write(tmp_path / "held_out.h5", X=X[mask], y=y[mask])
    evaluated = gpubp_command("evaluate", "a", held_out, "--precision", "fp64", "--json").json
    assert evaluated["cost"] == pytest.approx(a["validation"], rel=1e-12)


# In MB. numba alone takes some 100 MB of any process.
@pytest.mark.parametrize(("kernel", "bound"), [("numpy", 110), ("auto", 260)])
def test_rows_kept_in_memory_or_read_again_give_the_same_bits_in_bounded_memory(gpubp_command, tmp_path, kernel, bound):
    """A file of 200 MB with a budget of 16 MB; the long form (2 GB, 256 MB) is benchmarks/memory.py."""
    rng = np.random.default_rng(0)
    path = tmp_path / "big.h5"
    with h5py.File(path, "w") as file:
        X = file.create_dataset("X", (500_000, 100), "f4")
        for i in range(0, 500_000, 50_000):
            X[i : i + 50_000] = rng.random((50_000, 100), dtype=np.float32)
        file["y"] = rng.integers(0, 2, 500_000)
    options = ["--hidden", 8, "--iterations", 2, "--kernel", kernel]
    command = ["train", path, "--out", "small", "--memory", "16MB", *options]
    # once before, so that no kernel is compiled: that takes memory of its own
    gpubp_command("train", path, "--out", "all", "--memory", "1GB", *options)
    done = subprocess.run(
        [sys.executable, "-c", TRAIN_AND_PRINT_PEAK, *map(str, command)],
        capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout.split()[-1]) / 1024
    assert peak < bound, f"{peak} MB"
    assert contents(tmp_path / "small") == contents(tmp_path / "all")


def test_the_number_of_threads_does_not_change_a_bit_of_a_run(digits, tmp_path, monkeypatch):
    import gpubp
    import gpubp.backend.cores as cores
    import gpubp.backend.numpy as numpy_backend

    results = []
    for threads in (1, 3):
        monkeypatch.setattr(numpy_backend, "available_cores", lambda threads=threads: threads)
        model = gpubp.train(digits, hidden=(7,), iterations=12)
        results.append(model.Theta.tobytes())
    assert results[0] == results[1]
    assert cores.available_cores() >= 1


def test_a_reported_end_is_a_sentence_with_its_numbers(gpubp_command, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    path = write(tmp_path / "line.h5", X=X, y=X @ [1.0, 2.0, 3.0] + 0.1 * rng.normal(size=200))
    limit = gpubp_command("train", path, "--out", "a", "--hidden", "none", "--iterations", 1, "--json").json
    assert limit["ending"] == "limit"
    assert "limit of 1 iteration and" in limit["reason"] and "not converged" in limit["reason"]
    done = gpubp_command("train", path, "--out", "b", "--hidden", "none", "--precision", "fp64", "--json").json
    assert done["ending"] == "converged" and "max|∇J| =" in done["reason"]


def test_a_cost_that_is_not_finite_ends_with_exit_1_and_keeps_the_last_finite_theta(gpubp_command, tmp_path):
    rng = np.random.default_rng(0)
    path = write(tmp_path / "line.h5", X=rng.normal(size=(50, 3)), y=1e3 * rng.normal(size=50))
    options = ["--hidden", "none", "--optimizer", "gd", "--set", "learning_rate=1e4", "--iterations", 5000]
    done = gpubp_command("train", path, "--out", "run", *options, "--json", check=1)
    assert done.json["ending"] == "failed"
    assert all(np.isfinite(T).all() for T in find_checkpoint(tmp_path / "run")[1].Theta)


def test_arrays_train_and_callbacks_can_end_the_run():
    import gpubp

    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 4))
    y = np.where(X[:, 0] > 0, "yes", "no")
    seen = []

    def three(progress, state) -> bool:
        seen.append(progress.iteration)
        return progress.iteration == 3

    model = gpubp.train(X, y, hidden=(5,), callbacks=[three])
    assert seen == [1, 2, 3] and model.ending is not None and model.ending["kind"] == "stopped"
    assert set(model.predict(X)) <= {"yes", "no"}
    probabilities = model.predict_proba(X)
    assert probabilities.shape == (100, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    model = gpubp.train(X, y, hidden=(5,), lambda_=0.01)
    assert np.mean(model.predict(X) == y) > 0.9
