"""Going on with a run: `train --resume auto` by the line that began it, `resume` by its folder, and what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from running import ENVIRONMENT, write
from test_run import contents, wait_for_iteration

import gpubp as package
from gpubp.checkpoint import write as write_checkpoint
from gpubp.errors import CheckpointError, DataError, MismatchError, UsageError
from gpubp.job import CHANGES, Job, fixed
from gpubp.prepare import array_dataset
from gpubp.run import resume
from gpubp.run_folder import RunFolder, find_checkpoint

RNG = np.random.default_rng(7)
X = RNG.normal(size=(300, 4))
Y = (X[:, 0] * X[:, 1] > 0).astype(int)
AUTO: dict[str, Any] = {"hidden": (5,), "lambda_": 0.1, "resume": "auto"}


def files(run: Path) -> dict[str, tuple[int, bytes]]:
    """Everything in a folder, with the time of the last write."""
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.iterdir()}


def test_every_field_of_a_job_either_may_change_or_must_stay():
    assert {"hidden", "options", "seed", "precision", "kernel", "select"} <= set(fixed())
    assert {*fixed(), *CHANGES, "asked"} == set(Job.__dataclass_fields__) and not set(fixed()) & set(CHANGES)


def test_one_line_begins_a_run_goes_on_with_it_and_leaves_it_when_it_is_done(gpubp_command, digits, tmp_path):
    gpubp_command("train", digits, "--out", "whole", "--hidden", "9", "--iterations", 20)
    line = ["train", digits, "--out", "run", "--hidden", "9", "--resume", "auto", "--json", "--iterations"]
    first = gpubp_command(*line, 8)
    assert first.json["iterations"] == 8 and "going on" not in first.stderr
    again = gpubp_command(*line, 20)
    assert again.json["iterations"] == 20 and "going on from checkpoint-00000008.h5, iteration 8" in again.stderr
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    before = files(tmp_path / "run")
    done = gpubp_command(*line, 20)
    assert done.json == again.json and "nothing to do: the run in run has ended" in done.stderr
    less = gpubp_command(*line, 5)  # a line that asks for less does not extend it either
    assert less.json == again.json and files(tmp_path / "run") == before


def test_a_run_killed_by_signal_9_goes_on_by_the_line_that_began_it(gpubp_command, digits, tmp_path):
    run = tmp_path / "run"
    line = ["train", str(digits), "--out", "run", "--hidden", "9", "--optimizer", "gd", "--resume", "auto"]
    options = ["--checkpoint-every", "1it", "--iterations"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gpubp", *line, *options, "100000"],
        cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_for_iteration(run, 5, process)
    process.kill()
    process.communicate()
    end = find_checkpoint(run).checkpoint.iteration + 4
    (run / f".checkpoint-{end:08d}.h5.tmp.99").write_bytes(b"half of one")
    assert gpubp_command(*line, *options, end, "--json").json["iterations"] == end
    assert not list(run.glob(".*"))
    gpubp_command("train", digits, "--out", "whole", "--hidden", "9", "--optimizer", "gd", "--iterations", end)
    assert contents(run) == contents(tmp_path / "whole")


@pytest.mark.parametrize("held", [[], ["lock"], ["lock", "history.jsonl", ".checkpoint-00000000.h5.tmp.7"]])
def test_a_folder_that_holds_no_checkpoint_yet_begins_anew(tmp_path, held):
    run = tmp_path / "run"
    run.mkdir()
    for name in held:
        (run / name).write_text("gpubp process 7 on nowhere\n" if name == "lock" else "{}\n")
    assert package.train(X, Y, out=run, iterations=3, **AUTO).history[-1]["iteration"] == 3
    assert (run / "history.jsonl").read_text().count("\n") == 3 and not list(run.glob(".*"))


def test_what_is_no_run_is_never_taken_for_one(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"holds thesis.tex and no run"):
        package.train(X, Y, out=run, iterations=3, **AUTO)
    assert [path.name for path in run.iterdir()] == ["thesis.tex"]
    with pytest.raises(CheckpointError, match="is no folder"):
        package.train(X, Y, out=run / "thesis.tex", iterations=3, **AUTO)


def test_a_folder_whose_checkpoints_are_all_damaged_is_an_error_and_no_fresh_start(tmp_path):
    package.train(X, Y, out=tmp_path / "run", iterations=3, **AUTO)
    for path in (tmp_path / "run").glob("*.h5"):
        path.write_bytes(path.read_bytes()[:-100])
    before = files(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"no sound checkpoint in .*00000003.*00000000"):
        package.train(X, Y, out=tmp_path / "run", iterations=9, **AUTO)
    after = files(tmp_path / "run")
    assert {name for name in after if after[name] != before[name]} <= {"lock"}


def test_the_newest_sound_checkpoint_is_taken_and_the_damaged_one_named(gpubp_command, digits, tmp_path):
    line = ["train", digits, "--out", "run", "--hidden", "5", "--resume", "auto", "--checkpoint-every", "1it"]
    gpubp_command(*line, "--iterations", 6)
    newest = tmp_path / "run" / "checkpoint-00000006.h5"
    newest.write_bytes(newest.read_bytes()[:-1])
    done = gpubp_command(*line, "--iterations", 9, "--json")
    assert "checkpoint-00000006.h5 is damaged" in done.stderr and "iteration 5" in done.stderr
    assert done.json["iterations"] == 9


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "hidden": ({"hidden": (50,)}, "hidden was 5, is 50"),
    "no hidden": ({"hidden": ()}, "hidden was 5, is none"),
    "activation": ({"activation": "tanh"}, "activation was sigmoid, is tanh"),
    "cost": ({"cost": "logistic"}, "cost was auto, is logistic"),
    "lambda": ({"lambda_": 0.2}, r"lambda was 0\.1, is 0\.2"),
    "optimizer": ({"optimizer": "gd"}, "optimizer was klbfgs, is gd"),
    "a hyperparameter": ({"options": {"history": 7}}, r"history was \d+, is 7"),
    "seed": ({"seed": 1}, "seed was 0, is 1"),
    "precision": ({"precision": "fp64"}, "precision was fp32, is fp64"),
    "validation": ({"validation": 0.25}, r"validation was 0\.0, is 0\.25"),
    "scale": ({"scale": "none"}, "scale was auto, is none"),
    "select": ({"select": ("rows=0:200",)}, "select was none, is rows=0:200"),
    "missing": ({"missing": "mean"}, "missing was error, is mean"),
    "class weight": ({"class_weight": {"1": 2.0}}, r"class_weight was none, is 1=2\.0"),
    "backend": ({"backend": "cpu"}, "backend was auto, is cpu"),
    "kernel": ({"kernel": "numpy"}, "kernel was auto, is numpy"),
    "blas": ({"blas": "numpy"}, "blas was auto, is numpy"),
    "two": ({"seed": 1, "hidden": (6, 5)}, "hidden was 5, is 6,5; .*seed was 0, is 1"),
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("begun") / "run"
    package.train(X, Y, out=run, iterations=3, **AUTO)
    return run


@pytest.mark.parametrize("name", OTHERS)
def test_what_the_model_depends_on_is_refused_by_its_name(begun, name):
    changed, words = OTHERS[name]
    before = files(begun)
    with pytest.raises(MismatchError, match=words + ".*; take those, name a new folder.*--overwrite") as caught:
        package.train(X, Y, out=begun, iterations=3, **AUTO | changed)
    assert caught.value.exit_code == 3 and files(begun) == before
    names = [part.split()[0] for part in str(caught.value).split(": ", 1)[1].split("; ") if " was " in part]
    assert len(names) == len(changed)


def test_the_names_in_a_file_are_compared_too(gpubp_command, tmp_path):
    write(tmp_path / "d.h5", X=X, y=Y, X2=X, y2=Y, w=np.ones(300))
    line = ["train", "d.h5", "--out", "run", "--resume", "auto", "--iterations", 3]
    gpubp_command(*line, "--x", "X", "--y", "y")
    error = gpubp_command(*line, "--x", "X2", "--y", "y2", "--weights", "w", check=3).error
    assert all(words in error for words in ("x was X, is X2", "y was y, is y2", "weights was none, is w"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"select": ("rows=100:", "columns=0,2")},
        {"class_weight": "balanced"},
        {"optimizer": "lbfgs", "options": {"history": 4}},
        {"memory": "1KB", "validation": 0.2, "patience": 50},
    ],
    ids=str,
)
def test_what_auto_has_become_is_not_held_against_the_line_that_said_auto(tmp_path, options):
    asked = AUTO | options
    package.train(X, Y, out=tmp_path / "run", iterations=4, **asked)
    more = package.train(X, Y, out=tmp_path / "run", iterations=9, **asked)
    whole = package.train(X, Y, iterations=9, **{k: v for k, v in asked.items() if k != "resume"})
    assert more.Theta.tobytes() == whole.Theta.tobytes()


def test_auto_is_another_word_than_what_it_becomes(tmp_path):
    package.train(X, Y, out=tmp_path / "run", iterations=3, **AUTO, kernel="numpy", cost="logistic")
    with pytest.raises(MismatchError, match="cost was logistic, is auto; kernel was numpy, is auto"):
        package.train(X, Y, out=tmp_path / "run", iterations=5, **AUTO)


def test_a_resume_between_two_lines_changes_nothing_that_they_are_compared_by(tmp_path):
    package.train(X, Y, out=tmp_path / "run", iterations=3, **AUTO)
    resume(tmp_path / "run", dataset=array_dataset(X, Y), iterations=5)
    assert package.train(X, Y, out=tmp_path / "run", iterations=7, **AUTO).history[-1]["iteration"] == 7


def test_an_older_checkpoint_without_a_note_of_what_was_asked_goes_on(tmp_path):
    package.train(X, Y, out=tmp_path / "run", iterations=3, **AUTO)
    path, old, _ = find_checkpoint(tmp_path / "run")
    write_checkpoint(path, replace(old, job={k: v for k, v in old.job.items() if k != "asked"}))
    with pytest.raises(MismatchError, match="seed was 0, is 4"):
        package.train(X, Y, out=tmp_path / "run", iterations=6, **AUTO, seed=4)
    assert package.train(X, Y, out=tmp_path / "run", iterations=6, **AUTO).history[-1]["iteration"] == 6


def test_limits_memory_and_what_is_kept_are_taken_from_the_line(tmp_path):
    package.train(X, Y, out=tmp_path / "run", iterations=3, **AUTO)
    changed: dict[str, Any] = {"keep": 2, "checkpoint_every": "1it", "memory": "1MB", "threads": 1, "climb": False}
    package.train(X, Y, out=tmp_path / "run", iterations=9, evaluations=500, **AUTO | changed)
    job = find_checkpoint(tmp_path / "run").checkpoint.job
    assert {name: job[name] for name in changed} == changed | {"memory": 1_000_000} and job["evaluations"] == 500
    assert sorted(p.name for p in (tmp_path / "run").glob("*.h5")) == [
        "checkpoint-00000008.h5",
        "checkpoint-00000009.h5",
    ]
    tighter = package.train(X, Y, out=tmp_path / "run", iterations=12, **AUTO, options={"tolerance": 10.0})
    assert tighter.ending is not None and len(tighter.history) == 9  # under its tolerance there is nothing to do


def test_a_limit_that_an_interrupted_run_has_left_behind_is_refused(tmp_path):
    def fail(progress: Any, state: Any) -> None:
        if progress.iteration == 6:
            raise RuntimeError("killed")

    run = tmp_path / "run"
    with pytest.raises(RuntimeError):
        package.train(X, Y, out=run, iterations=90, checkpoint_every="1it", callbacks=[fail], **AUTO)
    with pytest.raises(UsageError, match="4 iterations where 6 are done"):
        package.train(X, Y, out=run, iterations=4, **AUTO)
    assert package.train(X, Y, out=run, iterations=9, **AUTO).history[-1]["iteration"] == 9


def test_other_data_and_other_conditions_are_refused_as_resume_does(tmp_path, monkeypatch, caplog):
    from gpubp import recording

    package.train(X, Y, out=tmp_path / "run", iterations=3, **AUTO)
    other = X.copy()
    other[17, 2] += 1
    with pytest.raises(MismatchError, match=r"not the data that .* was trained on; wanted the same rows"):
        package.train(other, Y, out=tmp_path / "run", iterations=5, **AUTO)
    with pytest.raises(MismatchError, match="not the data"):  # also where nothing is left to do
        package.train(other, Y, out=tmp_path / "run", iterations=3, **AUTO)
    monkeypatch.setattr(recording, "__version__", "99.0")
    with pytest.raises(MismatchError, match=r"gpubp was [\d.]+, is 99.0; add --inexact"):
        package.train(X, Y, out=tmp_path / "run", iterations=5, **AUTO)
    caplog.clear()
    assert package.train(X, Y, out=tmp_path / "run", iterations=5, inexact=True, **AUTO).history[-1]["iteration"] == 5
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 1 and "gpubp was" in warned[0] and "is 99.0" in warned[0]


def test_rows_of_another_shape_are_refused_in_one_line(tmp_path):
    package.train(X, Y, out=tmp_path / "run", iterations=3, **AUTO)
    for other in (X[:, :3], np.hstack([X, X])):
        with pytest.raises((MismatchError, DataError), match=r"whose network is 4-5-1 and not [38]-5-1"):
            package.train(other, Y, out=tmp_path / "run", iterations=5, **AUTO)


def test_a_moved_file_goes_on_and_a_changed_one_is_noticed(gpubp_command, tmp_path):
    write(tmp_path / "d.h5", X=X, y=Y)
    gpubp_command("train", "d.h5", "--out", "run", "--resume", "auto", "--iterations", 3)
    (tmp_path / "d.h5").rename(tmp_path / "moved.h5")
    before = files(tmp_path / "run")
    moved = gpubp_command("train", "moved.h5", "--out", "run", "--resume", "auto", "--iterations", 3)
    after = files(tmp_path / "run")
    assert "nothing to do" in moved.stderr and {n for n in after if after[n] != before[n]} <= {"lock"}
    gpubp_command("train", "moved.h5", "--out", "run", "--resume", "auto", "--iterations", 5)
    with h5py.File(tmp_path / "moved.h5", "r+") as file:
        file["y"][4] = 1 - file["y"][4]
    refused = gpubp_command("train", "moved.h5", "--out", "run", "--resume", "auto", "--iterations", 7, check=3)
    assert "not the data" in refused.error


def test_what_does_not_go_together_is_refused(gpubp_command, tmp_path):
    write(tmp_path / "d.h5", X=X, y=Y)
    line = ["train", "d.h5", "--out", "run", "--iterations", 3]
    both = gpubp_command(*line, "--resume", "auto", "--overwrite", check=2).error
    assert "--resume auto" in both and "--overwrite" in both
    assert "--resume auto" in gpubp_command(*line, "--inexact", check=2).error
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="without a run folder"):
        package.train(X, Y, resume="auto")
    with pytest.raises(UsageError, match="never or auto"):
        package.train(X, Y, out=tmp_path / "run", resume="always")
    with pytest.raises(UsageError, match="option asked"):
        package.train(X, Y, asked={})
    gpubp_command(*line)
    refused = gpubp_command(*line, check=3).error
    assert "gpubp resume run" in refused and "--resume auto" in refused and "--overwrite" in refused


def test_bad_data_leave_no_folder(gpubp_command, tmp_path):
    gpubp_command("train", "none.h5", "--out", "run", "--resume", "auto", check=3)
    assert not (tmp_path / "run").exists()


def test_a_failed_run_stays_failed(gpubp_command, tmp_path):
    path = write(tmp_path / "line.h5", X=X[:50], y=1e3 * RNG.normal(size=50))
    line = ["train", path, "--out", "run", "--hidden", "none", "--optimizer", "gd", "--set", "learning_rate=1e4"]
    line += ["--iterations", 5000, "--resume", "auto", "--json"]
    first = gpubp_command(*line, check=1)
    before = files(tmp_path / "run")
    assert gpubp_command(*line, check=1).json == first.json and first.json["ending"] == "failed"
    assert files(tmp_path / "run") == before
    assert gpubp_command("resume", "run", "--json", check=1).json["ending"] == "failed"  # tried again, as was asked


def test_of_two_lines_at_once_one_trains(digits, tmp_path):
    line = [sys.executable, "-m", "gpubp", "train", str(digits), "--out", "run", "--hidden", "9", "--resume", "auto"]
    line += ["--iterations", "100000", "--optimizer", "gd"]
    both = [
        subprocess.Popen(line, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    while all(one.poll() is None for one in both):
        pass
    loser, winner = sorted(both, key=lambda one: one.poll() is None)
    _, error = loser.communicate()
    assert loser.returncode == 3 and f"run is in use by process {winner.pid}" in error and "Traceback" not in error
    winner.terminate()
    winner.communicate(timeout=60)
    assert winner.returncode == 143


def test_a_run_that_came_into_being_while_the_data_were_read_is_gone_on_with(tmp_path, monkeypatch):
    """The folder was empty when the line looked, and another's run lies there when it has read the data."""
    from gpubp import sitting as module

    run, real = tmp_path / "run", module.prepare

    def slow(*arguments: Any, **options: Any) -> Any:
        ready = real(*arguments, **options)
        if not run.exists():
            monkeypatch.setattr(module, "prepare", real)
            package.train(X, Y, out=run, iterations=3, **AUTO)
        return ready

    monkeypatch.setattr(module, "prepare", slow)
    assert package.train(X, Y, out=run, iterations=6, **AUTO).history[-1]["iteration"] == 6
    whole = package.train(X, Y, iterations=6, **{k: v for k, v in AUTO.items() if k != "resume"})
    assert package.load(run).Theta.tobytes() == whole.Theta.tobytes()


ENDINGS: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {  # how a run ends, and what extends it
    "limit": ({"iterations": 6}, {"iterations": 9}),
    "seconds": ({"iterations": 500, "evaluations": 6}, {"evaluations": None}),
    "converged": ({"iterations": 500, "options": {"tolerance": 1e-2}}, {"tolerance": 1e-3}),
    "standstill": ({"iterations": 500, "decrease": 0.1}, {"decrease": None}),
    "target": ({"iterations": 500, "target": 0.65}, {"target": 0.6}),
    "early": ({"iterations": 500, "validation": 0.3, "patience": 2, "lambda_": 0.0}, {"patience": 6}),
    "stalled": ({"iterations": 500, "climb": False, "options": {"tolerance": 1e-12}}, {"climb": True}),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_run_that_has_ended_is_left_alone_or_extended_however_it_ended(tmp_path, name):
    asked, more = ENDINGS[name]
    path = write(tmp_path / "d.h5", X=X, y=Y)
    run, options = tmp_path / "run", {"hidden": (5,), "lambda_": 0.1, "backend": "cpu"} | asked
    model = package.train(path, out=run, **options)
    kind = {"seconds": "limit", "standstill": "converged"}.get(name, name)
    assert model.ending is not None and model.ending["kind"] == kind
    before = files(run)
    for again in (resume(run), package.train(path, out=run, **options, resume="auto")):
        assert again.ending == model.ending and again.Theta.tobytes() == model.Theta.tobytes()
        assert again.history == model.history
    assert files(run) == before
    extended = resume(run, **more or {})
    assert len(extended.history) > len(model.history)


def test_what_another_trainer_left_between_the_look_and_the_lock_is_gone_on_with(tmp_path, monkeypatch, caplog):
    run, further = tmp_path / "run", tmp_path / "further"
    package.train(X, Y, out=run, iterations=3, **AUTO)
    package.train(X, Y, out=further, iterations=6, **AUTO)
    real = RunFolder.__enter__

    def enter(self: RunFolder) -> RunFolder:
        shutil.copy(further / "checkpoint-00000006.h5", run)
        return real(self)

    monkeypatch.setattr(RunFolder, "__enter__", enter)
    with caplog.at_level("INFO", "gpubp"):
        model = resume(run, dataset=array_dataset(X, Y), iterations=9)
    assert "going on from checkpoint-00000006.h5" in caplog.text and len(model.history) == 9
    with pytest.raises(UsageError, match="5 iterations where 9 are done"):
        resume(run, dataset=array_dataset(X, Y), iterations=5)


def test_a_history_that_lost_lines_is_mended_though_the_run_has_ended(tmp_path):
    path = write(tmp_path / "d.h5", X=X, y=Y)
    run = tmp_path / "run"
    package.train(path, out=run, iterations=5, **AUTO)
    whole = (run / "history.jsonl").read_text()
    (run / "history.jsonl").write_text(whole[:200])
    package.train(path, out=run, iterations=5, **AUTO)
    assert (run / "history.jsonl").read_text() == whole


def test_resume_says_how_often_to_save_and_how_much_to_keep(gpubp_command, digits, tmp_path):
    gpubp_command("train", digits, "--out", "run", "--hidden", "5", "--iterations", 3)
    gpubp_command("resume", "run", "--iterations", 9, "--checkpoint-every", "2it", "--keep", 2)
    names = sorted(path.name for path in (tmp_path / "run").glob("*.h5"))
    assert names == ["checkpoint-00000008.h5", "checkpoint-00000009.h5"]
    gpubp_command("resume", "run", "--iterations", 12)  # and it stays so
    job = find_checkpoint(tmp_path / "run").checkpoint.job
    assert (job["checkpoint_every"], job["keep"]) == ("2it", 2)
    assert "checkpoint interval 'often'" in gpubp_command("resume", "run", "--checkpoint-every", "often", check=2).error
    gpubp_command("resume", "run", "--keep", 0, check=2)


def test_a_run_on_a_folder_that_cannot_be_written_to_still_tells_that_it_is_done(gpubp_command, digits, tmp_path):
    line = ["train", digits, "--out", "run", "--hidden", "5", "--iterations", 3, "--resume", "auto", "--json"]
    done = gpubp_command(*line)
    os.chmod(tmp_path / "run", 0o555)
    try:
        assert gpubp_command(*line).json == done.json
    finally:
        os.chmod(tmp_path / "run", 0o755)


def test_a_limit_that_gives_an_ended_run_another_end_is_heeded_by_resume_and_no_extension_to_a_line(tmp_path):
    path, run = write(tmp_path / "d.h5", X=X, y=Y), tmp_path / "run"
    package.train(path, out=run, iterations=5, **AUTO)
    before = files(run)
    line = package.train(path, out=run, iterations=5, target=5.0, **AUTO)
    assert line.ending is not None and line.ending["kind"] == "limit" and files(run) == before
    ended = resume(run, target=5.0)
    assert ended.ending is not None and ended.ending["kind"] == "target" and len(ended.history) == 5
    assert resume(run, target=5.0).ending == ended.ending
