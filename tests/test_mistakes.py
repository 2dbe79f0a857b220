"""What once went wrong, or could: each fault with the test that shows it."""

from __future__ import annotations

import subprocess
import sys
import warnings

import h5py
import numpy as np
import pytest
from running import ENVIRONMENT, write

import gpubp
from gpubp.errors import DataError, GpubpError, UsageError
from gpubp.run_folder import find_checkpoint

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 3))
NETWORK = gpubp.Network((3, 4, 2), activation="tanh", cost="softmax")
Y = (X[:, 0] > 0).astype(int)


@pytest.mark.parametrize("unit", [1e-46, 1e-30, 1.0, 1e39, 1e200])
def test_row_weights_of_any_size_fit_a_float32_pass(unit):
    weights = np.linspace(0.5, 2, 200)
    Theta = NETWORK.initial_Theta(1)
    reference = gpubp.cost_and_gradient(NETWORK, Theta, X, Y, weights=weights)
    J, gradient = gpubp.cost_and_gradient(NETWORK, Theta, X, Y, weights=weights * unit, precision="fp32")
    assert J == pytest.approx(reference[0], rel=1e-6)
    np.testing.assert_allclose(gradient, reference[1], atol=1e-5)


def test_targets_that_float32_cannot_tell_apart_are_refused_there_and_right_in_fp64():
    y = 1.7e9 + 10 * X[:, 0]
    with pytest.raises(DataError, match="--precision fp64"):
        gpubp.train(X, y, hidden=())
    options = {"hidden": (), "lambda_": 0.0, "optimizer": "lbfgs", "precision": "fp64", "iterations": 300}
    model = gpubp.train(X, y, options={"tolerance": 1e-3}, **options)
    assert np.abs(model.predict(X, precision="fp64") - y).max() < 1


@pytest.mark.parametrize("size", [1e-42, 1e-20, 1e20, 1e40])
def test_rows_of_any_size_train(size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = gpubp.train(X * size, Y, hidden=(4,), iterations=20)
    assert model.ending is not None and model.ending["kind"] != "failed"
    assert np.mean(model.predict(X * size) == Y) > 0.8


def test_a_regression_with_one_target_answers_one_number_a_row():
    y = X @ [1.0, 2.0, 3.0]
    model = gpubp.train(X, y, hidden=(), lambda_=0.0)
    assert model.predict(X).shape == (200,)
    assert np.abs(model.predict(X) - y).max() < 0.01


def test_a_run_that_is_replaced_is_gone_once_the_new_one_begins(tmp_path):
    gpubp.train(X, Y, out=tmp_path / "run", hidden=(5,), iterations=4)

    def fail(progress, state):
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        gpubp.train(X, Y, out=tmp_path / "run", hidden=(7,), overwrite=True, callbacks=[fail])
    found = find_checkpoint(tmp_path / "run").checkpoint
    assert found.network["sizes"] == [3, 7, 1] and found.iteration == 0


def test_resume_keeps_the_hyperparameters_of_the_run(tmp_path):
    from gpubp.prepare import array_dataset
    from gpubp.run import resume

    gpubp.train(X, Y, out=tmp_path / "run", iterations=3, options={"history": 5, "tolerance": 1e-9})
    resume(tmp_path / "run", dataset=array_dataset(X, Y), iterations=6)
    settings = find_checkpoint(tmp_path / "run").checkpoint.optimizer
    assert settings["history"] == 5 and settings["tolerance"] == 1e-9


def test_resume_refuses_another_gpubp_and_a_limit_that_is_passed(tmp_path, monkeypatch):
    from gpubp import recording, run
    from gpubp.prepare import array_dataset

    gpubp.train(X, Y, out=tmp_path / "run", iterations=5)
    with pytest.raises(UsageError, match="4 iterations where 5 are done"):
        run.resume(tmp_path / "run", dataset=array_dataset(X, Y), iterations=4)
    monkeypatch.setattr(recording, "__version__", "99.0")
    with pytest.raises(GpubpError, match=r"gpubp was .*, is 99.0"):
        run.resume(tmp_path / "run", dataset=array_dataset(X, Y), iterations=6)


def test_swapped_rows_are_other_data(tmp_path):
    from gpubp.errors import MismatchError
    from gpubp.prepare import array_dataset
    from gpubp.run import resume

    y = np.zeros(5000, int)
    y[::2] = 1
    rows = RNG.integers(0, 9, (5000, 3))
    gpubp.train(rows, y, out=tmp_path / "run", iterations=2)
    rows[[1000, 2002]] = rows[[2002, 1000]]
    with pytest.raises(MismatchError, match="not the data"):
        resume(tmp_path / "run", dataset=array_dataset(rows, y), iterations=3)


def test_validation_rows_that_all_weigh_nothing_are_refused(tmp_path):
    weights = np.ones(200)
    from gpubp.data.split import validation_mask

    mask = validation_mask(200, 0.2, 0)
    weights[mask] = 0
    with pytest.raises(DataError, match="validation rows are all zero"):
        gpubp.train(X, Y, weights=weights, validation=0.2)


def test_predictions_do_not_replace_the_data(gpubp_command, tmp_path):
    path = write(tmp_path / "d.h5", X=X, y=Y)
    gpubp_command("train", path, "--out", "run", "--iterations", 1)
    before = path.read_bytes()
    assert "is the data itself" in gpubp_command("predict", "run", path, "-o", "d.h5", "--overwrite", check=2).error
    assert path.read_bytes() == before
    for out in ("nodir/p.h5", "d.h5/p.h5"):
        assert "folder" in gpubp_command("predict", "run", path, "-o", out, check=3).error


def test_a_run_can_be_resumed_from_another_folder(gpubp_command, tmp_path):
    write(tmp_path / "d.h5", X=X, y=Y)
    gpubp_command("train", "d.h5", "--out", "run", "--iterations", 1)
    (tmp_path / "elsewhere").mkdir()
    from running import gpubp as command

    assert command("resume", tmp_path / "run", "--iterations", 2, "--json", cwd=tmp_path / "elsewhere").json
    (tmp_path / "d.h5").rename(tmp_path / "moved.h5")
    assert "--data" in gpubp_command("resume", "run", "--iterations", 3, check=3).error
    assert gpubp_command("resume", "run", "--iterations", 3, "--data", "moved.h5", "--json").json["iterations"] == 3


def test_which_rows_were_evaluated_is_said(gpubp_command, tmp_path):
    halves = {"train__X": X[:100], "train__y": Y[:100], "val__X": X[100:], "val__y": Y[100:]}
    path = write(tmp_path / "d.h5", **halves)
    gpubp_command("train", path, "--out", "run", "--iterations", 1)
    done = gpubp_command("evaluate", "run", path)
    assert "100 (train)" in done.stdout and "warning: these are the rows for training" in done.stderr
    assert "100 (val)" in gpubp_command("evaluate", "run", path, "--split", "val").stdout


def test_variables_and_toml_keys_are_named_as_the_options_are(gpubp_command, tmp_path):
    write(tmp_path / "d.h5", X=X, y=Y)
    (tmp_path / "c.toml").write_text("[train]\nhidden = [6, 5]\nset = ['history=7']\n")
    env = {"GPUBP_TRAIN_JSON": "1", "GPUBP_TRAIN_LAMBDA": "0.5", "GPUBP_TRAIN_CHECKPOINT_EVERY": "1it"}
    done = gpubp_command("--config", "c.toml", "train", "d.h5", "--out", "run", "--iterations", 2, env=env)
    found = find_checkpoint(tmp_path / "run").checkpoint
    assert done.json["iterations"] == 2 and found.lambda_ == 0.5
    assert found.network["sizes"] == [3, 6, 5, 1] and found.optimizer["history"] == 7
    (tmp_path / "c.toml").write_text("[train]\niterations = {a = 1}\n")
    assert "is a dict" in gpubp_command("--config", "c.toml", "train", "d.h5", "--out", "b", check=2).error


BAD_CALLS = {
    "hidden": lambda: gpubp.train(X, Y, hidden="5"),
    "iterations": lambda: gpubp.train(X, Y, iterations=2.5),
    "none": lambda: gpubp.train(X, Y, iterations=None),
    "options": lambda: gpubp.train(X, Y, options=None),
    "split": lambda: gpubp.train(X, Y, split="train"),
    "file with array": lambda: gpubp.train("f.h5", y=Y),
    "ragged": lambda: gpubp.train([[1, 2], [3]], [0, 1]),
    "weights shape": lambda: gpubp.train(X, Y, weights=np.ones((200, 1))),
    "weights text": lambda: gpubp.train(X, Y, weights="w"),
    "weights negative": lambda: gpubp.train(X, Y, weights=-np.ones(200)),
    "scalar y": lambda: gpubp.cost_and_gradient(NETWORK, np.zeros(NETWORK.P), X, 0),
    "matrices": lambda: gpubp.cost_and_gradient(NETWORK, [np.zeros((4, 4)), np.zeros((2, 5))], X, Y),
    "leaves": lambda: gpubp.cost_and_gradient(NETWORK, np.zeros(NETWORK.P), X, Y, leaves=3),
    "blocks": lambda: gpubp.cost_and_gradient(NETWORK, np.zeros(NETWORK.P), X, Y, block_rows=-1),
    "y beyond 1": lambda: gpubp.cost_and_gradient(NETWORK, np.zeros(NETWORK.P), X, np.full((200, 2), 5.0)),
    "sizes text": lambda: gpubp.Network("784"),
    "sizes number": lambda: gpubp.Network(784),
    "sizes fraction": lambda: gpubp.Network((3, 2.7, 1)),
    "sizes huge": lambda: gpubp.Network((3, 9999999999999999999, 2)),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_the_python_door_says_what_is_wrong(name):
    with pytest.raises(GpubpError) as caught:
        BAD_CALLS[name]()
    assert "\n" not in str(caught.value) and "wanted" in str(caught.value)


def test_the_python_door_takes_what_is_meant():
    model = gpubp.train(X, Y, hidden=5, memory="1MB", checkpoint_every=30, iterations=np.int64(2))
    assert model.network.sizes == (3, 5, 1) and model.job["memory"] == 1_000_000
    with pytest.raises(UsageError, match="precision 'fp16'"):
        model.predict(X, precision="fp16")


def test_a_checkpoint_with_other_columns_in_its_history_is_read(tmp_path):
    from dataclasses import replace

    from gpubp.checkpoint import write as write_checkpoint

    gpubp.train(X, Y, out=tmp_path / "run", iterations=2)
    path, checkpoint, _ = find_checkpoint(tmp_path / "run")
    wider = np.hstack([checkpoint.history, np.ones((2, 1))])
    write_checkpoint(path, replace(checkpoint, history=wider, history_columns=(*checkpoint.history_columns, "more")))
    assert gpubp.load(path).history[1]["iteration"] == 2


def test_a_file_is_let_go_when_the_job_is_refused(tmp_path):
    path = write(tmp_path / "d.h5", X=X, y=Y)
    with pytest.raises(UsageError, match="lambda"):
        gpubp.train(path, lambda_=-1.0)
    with h5py.File(path, "r+") as file:  # refused by HDF5 while somebody reads it
        file["X"][0, 0] = 1


def test_predictions_replace_no_checkpoint_and_no_device(gpubp_command, tmp_path):
    path = write(tmp_path / "d.h5", X=X, y=Y)
    gpubp_command("train", path, "--out", "run", "--iterations", 1)
    model = next((tmp_path / "run").glob("*.h5"))
    before = model.read_bytes()
    assert "a checkpoint" in gpubp_command("predict", "run", path, "-o", model, "--overwrite", check=3).error
    assert model.read_bytes() == before
    (tmp_path / "folder").mkdir()
    assert "no ordinary file" in gpubp_command("predict", "run", path, "-o", "folder", "--overwrite", check=3).error


def test_features_beyond_float32_are_an_error_and_no_answer(gpubp_command, tmp_path):
    write(tmp_path / "d.h5", X=X, y=Y)
    write(tmp_path / "huge.h5", X=X * 1e300, y=Y)
    gpubp_command("train", "d.h5", "--out", "run", "--hidden", "none", "--activation", "identity", "--iterations", 3)
    refused = gpubp_command("evaluate", "run", "huge.h5", check=3)
    assert "row 0" in refused.error and "RuntimeWarning" not in refused.stderr


def test_check_refuses_rows_that_are_not_finite(gpubp_command, tmp_path):
    write(tmp_path / "d.h5", X=X, y=Y)
    holed = X.copy()
    holed[5, 1] = np.nan
    write(tmp_path / "holed.h5", X=holed, y=Y)
    gpubp_command("train", "d.h5", "--out", "run", "--iterations", 1)
    assert "row 5, column 1" in gpubp_command("check", "run", "holed.h5", check=3).error


def shell(command: str, cwd, **env: str) -> subprocess.CompletedProcess[str]:
    words = f"{sys.executable} -m gpubp {command}"
    return subprocess.run(
        words, shell=True, capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT | env, errors="replace", timeout=60
    )


def test_streams_that_cannot_take_what_we_say(tmp_path):
    write(tmp_path / "d.h5", X=X, y=Y)
    for i, stderr in enumerate(("2>&-", "2>/dev/full")):
        done = shell(f"train d.h5 --out run{i} --iterations 3 {stderr}", tmp_path)
        assert done.returncode == 0 and find_checkpoint(tmp_path / f"run{i}").checkpoint.iteration == 3
    full = shell("info d.h5 >/dev/full", tmp_path)
    assert full.returncode == 3 and full.stderr.startswith("gpubp: error:") and "Traceback" not in full.stderr
    latin = shell("info run0", tmp_path, PYTHONIOENCODING="latin-1")
    assert latin.returncode == 0 and "Traceback" not in latin.stderr


@pytest.mark.parametrize(
    "line",
    ["seed = 1979-05-27", "keep = inf", "seed = 1e400", "json = 2", "overwrite = [1]", "seed = true", "out = ['a']"],
)
def test_toml_values_of_another_kind_are_refused(gpubp_command, tmp_path, line):
    write(tmp_path / "d.h5", X=X, y=Y)
    (tmp_path / "c.toml").write_text(f"[train]\n{line}\n")
    gpubp_command("--config", "c.toml", "train", "d.h5", "--out", "run", check=2).error  # noqa: B018
    assert not (tmp_path / "run").exists() and not (tmp_path / "a").exists()


def test_a_variable_that_is_no_option_is_refused(gpubp_command, tmp_path):
    error = gpubp_command("train", "d.h5", "--out", "run", check=2, env={"GPUBP_TRAIN_HIDEN": "5"}).error
    assert "GPUBP_TRAIN_HIDEN" in error and "GPUBP_TRAIN_HIDDEN" in error


def test_the_progress_text_fits_the_room_it_is_given():
    from gpubp.cli._progress import Display
    from gpubp.training import Progress

    display = Display()
    display._last = Progress(5, 6, 0.123456, 1.23e-4, 0.5, 2.0)
    for room in (20, 40, 60, 100):
        assert len(display._text(room)) <= room
    assert "validation" in display._text(100) and display._text(1).startswith("J ")


def test_text_labels_as_pandas_has_them():
    labels = np.array(["no", "yes"], dtype=object)[Y]
    assert set(gpubp.train(X, labels, iterations=2).predict(X)) <= {"no", "yes"}


def test_a_slope_that_overflows_is_a_failure_and_not_a_stall(gpubp_command, tmp_path):
    write(tmp_path / "d.h5", X=X, y=Y)
    options = ["--lambda", "1e300", "--optimizer", "lbfgs"]  # klbfgs knows of λ and arrives
    done = gpubp_command("train", "d.h5", "--out", "run", *options, "--json", check=1)
    assert done.json["ending"] == "failed"


def test_a_stall_in_fp32_names_the_way_on(gpubp_command, tmp_path):
    write(tmp_path / "d.h5", X=X, y=X @ [1.0, 2.0, 3.0])
    options = ["--hidden", "4", "--activation", "tanh", "--set", "tolerance=1e-12", "--iterations", 5000]
    done = gpubp_command("train", "d.h5", "--out", "run", "--no-climb", *options)
    assert "stalled" in done.stdout and "resume run --climb" in done.stdout
