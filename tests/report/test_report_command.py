"""`gpubp report` and `gpubp plot`: which rows, which runs, what is refused in one line."""

from __future__ import annotations

import ast
import importlib
import json
import math
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from in_process import ran
from report_runs import PLAIN, done
from running import write

import gpubp
from gpubp.network import Network
from gpubp.report import file, pictures, report, runs, throughput

pytest.importorskip("matplotlib")
OLD = Path(__file__).parent.parent / "checkpoints"


def error(*arguments):
    result = ran(*arguments)
    assert result.returncode in (2, 3)
    return result.error


def test_without_data_it_is_judged_on_test_rows_and_else_on_those_held_out(of_digits, of_numbers):
    assert report(of_digits[0], limit=False).numbers["judged"] == {
        "on": "300 test rows of digits.h5", "kind": "test", "split": "test"
    }  # fmt: skip
    found = report(of_numbers[0], limit=False)
    held = found.material.judged.numbers
    mask = gpubp.data.split.validation_mask(600, 0.25, 0)
    assert (held == np.flatnonzero(mask)).all()
    assert {one["row"] for one in found.numbers["worst"]} <= set(held.tolist())


def test_without_test_rows_the_validation_rows_of_the_file_are_taken(tmp_path):
    X = np.random.default_rng(3).normal(size=(60, 3))
    y = X[:, 0] * X[:, 1]
    data = write(tmp_path / "d.h5", train__X=X[:40], train__y=y[:40], val__X=X[40:], val__y=y[40:])
    done("train", data, "--out", tmp_path / "run", "--hidden", "3", "--iterations", "2", *PLAIN)
    found = report(tmp_path / "run", limit=False).numbers
    assert found["judged"] == {"on": "20 rows of d.h5 that were held out for validation", "kind": "validation",
                               "split": "val"}  # fmt: skip
    (command,) = [one["command"] for one in found["verdict"]["next"] if "worst row" in one["do"]]
    assert command.split()[-4:-2] == ["--split", "val"]
    assert done(*command.split()[1:], "--json").json["truth"] == f"{found['worst'][0]['truth']:.6g}"


def test_a_run_that_still_fell_at_its_limit_is_to_go_on(of_digits):
    run, _ = of_digits
    history = runs.read_run(run).history
    assert history[-3]["J"] > 1.001 * history[-1]["J"]  # a tenth of 25 iterations
    assert {"do": "J was still falling when it ended: go on", "command": f"gpubp resume {run} --iterations 100"} in (
        report(run, limit=False).numbers["verdict"]["next"]
    )


def test_the_worst_row_of_the_report_is_that_row_of_the_file(of_numbers):
    run, data = of_numbers
    worst = report(run, limit=False).numbers["worst"][0]
    with gpubp.data.dataset.open_dataset(data) as dataset:
        assert worst["truth"] == dataset.target[worst["row"]].tolist()


def test_rows_of_the_training_are_said_aloud(of_numbers, tmp_path, undrawn):
    run, data = of_numbers
    whole = tmp_path / "whole"
    done("train", data, "--out", whole, "--hidden", "3", "--iterations", "2", *PLAIN)
    result = done("report", whole, "--no-limit", "--json")
    assert "judged on training rows" in result.stderr and result.json["judged"]["kind"] == "training"
    assert any("--validation 0.2" in one["command"] for one in result.json["verdict"]["next"])
    assert "how good it is on others they do not tell" in (whole / "report.html").read_text()
    assert report(run, data, limit=False).numbers["judged"]["kind"] == "training"


def test_data_that_are_gone_leave_a_report_without_quality(of_digits, tmp_path, undrawn):
    run, data = of_digits
    shutil.copytree(run, tmp_path / "run")
    lost = data.rename(data.with_suffix(".away"))
    try:
        result = done("report", tmp_path / "run", "--json")
        assert result.json["quality"] is None and str(data) in result.json["why_not_judged"]
        assert "without how good it is" in result.stderr
        page = (tmp_path / "run" / "report.html").read_text()
        assert "How good it is cannot be said here" in page and "picture-cost" in page
        assert "digits.h5" in error("report", tmp_path / "run", data)  # asked for, it is an error
    finally:
        lost.rename(data)


def test_arrays_have_no_rows_to_go_back_to(tmp_path):
    X = np.random.default_rng(0).normal(size=(80, 3))
    gpubp.train(X, X[:, 0], hidden=(2,), iterations=3, out=tmp_path / "run")
    told = report(tmp_path / "run").numbers
    assert told["quality"] is None and "arrays" in told["why_not_judged"]
    assert told["command"].startswith("gpubp.train(X, y") and told["throughput"]["rows_per_s"] is None
    data = write(tmp_path / "named.h5", X=X, y=X[:, 0])
    assert report(tmp_path / "run", data).numbers["quality"]["rows"] == 80


def test_a_run_in_flight_has_the_history_up_to_its_last_whole_line(of_numbers, tmp_path):
    run, _ = of_numbers
    live = tmp_path / "live"
    live.mkdir()
    shutil.copy(run / "checkpoint-00000000.h5", live)
    lines = (run / "history.jsonl").read_text().splitlines()
    (live / "history.jsonl").write_text("\n".join(lines[:12]) + "\n" + lines[12][:30])
    told = report(live, limit=False).numbers
    assert told["has_ended"] is False and told["training"]["iteration"] == 12
    assert told["training"]["seconds"] == json.loads(lines[11])["seconds"]
    assert "The newest checkpoint is of iteration 0." in told["verdict"]["sentences"][2]
    assert {"cost", "gradient"} <= set(told["pictures"])
    other = {**json.loads(lines[0]), "J": 1e9}
    shutil.copy(sorted(run.glob("checkpoint-*.h5"))[-1], live)  # one that has ended: nothing comes after it
    (live / "history.jsonl").write_text(json.dumps(other) + "\n")
    assert report(live, limit=False).numbers["training"]["iteration"] == 30


def test_lines_that_tell_another_story_are_left_alone(of_numbers):
    history = runs.read_run(of_numbers[0]).history
    file = of_numbers[0].parent / "story.jsonl"
    told = [{**row, "J": row["J"] + 1} for row in history]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*told, {**told[-1], "iteration": 31}]))
    assert runs._since(file, history) == []
    file.write_text("".join(json.dumps(row) + "\n" for row in [*history, {**history[-1], "iteration": 31, "J": None}]))
    (after,) = runs._since(file, history)
    assert after["iteration"] == 31 and math.isnan(after["J"])


def test_no_iteration_a_failed_run_and_a_class_that_is_absent(tmp_path, undrawn):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 3))
    y = rng.integers(0, 3, 120)
    data = write(tmp_path / "d.h5", train__X=X, train__y=y, test__X=X, test__y=np.minimum(y, 1))
    done("train", data, "--out", tmp_path / "none", "--iterations", "0", "--hidden", "2")
    told = done("-q", "report", tmp_path / "none", "--json", "--no-limit").json
    assert told["training"]["iteration"] is None and "cost" not in told["pictures"]
    assert told["quality"]["each"][2]["auc"] is None and "roc" in told["pictures"]
    assert "No iteration was finished" in (tmp_path / "none" / "report.html").read_text()
    huge = write(tmp_path / "huge.h5", X=1e30 * np.abs(X), y=1e30 * X[:, 0])
    ran("train", huge, "--out", tmp_path / "failed", "--optimizer", "gd", "--scale", "none", "--hidden", "2")
    told = report(tmp_path / "failed").numbers
    assert told["verdict"]["sentences"][1].startswith("It failed")


def test_a_thousand_classes(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(3000) % 1000
    X = rng.normal(size=(1000, 6))[y] + 0.1 * rng.normal(size=(3000, 6))
    data = write(tmp_path / "d.h5", X=X, y=y)
    done("train", data, "--out", tmp_path / "run", "--hidden", "4", "--iterations", "2", *PLAIN)
    found = report(tmp_path / "run", limit=False)
    told = found.numbers
    assert len(found.html()) < 3_000_000 and len(told["quality"]["each"]) == 1000
    assert told["quality"]["curves_are_exact"] is False and "confusion" not in told["pictures"]
    assert len(told["quality"]["most_confused"]) == 20 and "confusion" not in told["quality"]


@pytest.mark.parametrize("name", sorted(json.loads((OLD / "expected.json").read_text())))
def test_checkpoints_of_earlier_versions(name, tmp_path, undrawn):
    file = next(OLD / f"{name}{suffix}" for suffix in ("", ".h5") if (OLD / f"{name}{suffix}").is_file())
    shutil.copy(file, tmp_path / "old.h5")
    found = report(tmp_path / "old.h5", limit=False)
    assert found.numbers["training"]["iteration"] == 5 and ".h5" in found.numbers["why_not_judged"]
    assert {"cost", "gradient"} <= set(found.pictures)
    if name == "first-gd":
        done("-q", "report", tmp_path / "old.h5", "--no-limit")
        page = (tmp_path / "report.html").read_text()
        assert "How good it is cannot be said here" in page and "picture-gradient" in page


def test_a_rising_gap_asks_for_more_lambda(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(160, 20))
    y = (X[:, 0] + rng.normal(size=160) > 0).astype(int)
    data = write(tmp_path / "d.h5", train__X=X[:60], train__y=y[:60], test__X=X[60:], test__y=y[60:])
    done("train", data, "--out", tmp_path / "run", "--lambda", "0.01", "--activation", "tanh", "--iterations", "60")
    told = report(tmp_path / "run", limit=False).numbers
    assert told["verdict"]["kind"] == "high variance"
    (command,) = [one["command"] for one in told["verdict"]["next"] if "variance" in one["do"]]
    assert "gpubp sweep" in command and "--activation tanh" in command and "--lambda 0.01,0.03,0.1,0.3" in command
    words = ran(*command.split()[1:], "--iterations", "1").stderr
    assert "Error" not in words and "error" not in words
    # J without its λ term, against the cost of a forward pass on the training rows
    trained = done("-q", "evaluate", tmp_path / "run", data, "--split", "train", "--json").json
    assert told["training"]["cost"] == pytest.approx(trained["cost"], rel=1e-4)


def test_the_command_that_repeats_the_run_repeats_it(of_digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, _ = of_digits
    command = report(run, limit=False).numbers["command"].split()
    assert command[:2] == ["gpubp", "train"]
    command[command.index("--out") + 1] = "again"
    done(*command[1:])
    assert (gpubp.load("again").Theta == gpubp.load(run).Theta).all()


def test_one_line_for_what_cannot_be(of_digits, tmp_path, monkeypatch, undrawn):
    run, data = of_digits
    assert error("report", tmp_path / "nothing").startswith("cannot read")
    assert "ends in .html" in error("report", run, "-o", tmp_path / "x.txt")
    assert "there is no folder" in error("report", run, "-o", tmp_path / "none" / "x.html")
    mine = tmp_path / "mine.html"
    mine.write_text("my page")
    assert "--overwrite" in error("report", run, "-o", mine) and mine.read_text() == "my page"
    done("-q", "report", run, data, "-o", mine, "--overwrite", "--no-limit", "--image", "none")
    file.check(mine, overwrite=False)  # an earlier report may be replaced
    assert "784" in error("report", run, "--image", "3x3")
    assert "--picture NAME" in error("plot", run)
    assert "wanted one of cost, " in error("plot", run, "-o", tmp_path / "x.png", "--picture", "nothing")
    assert ".pdf" in error("plot", run, "-o", tmp_path / "x.jpg", "--picture", "cost")
    assert "no picture 'residuals' of this run" in error(
        "plot", run, "-o", tmp_path / "x.png", "--picture", "residuals"
    )
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for arguments in (["report", run], ["plot", run, "-o", tmp_path / "x.png", "--picture", "cost"]):
        assert error(*arguments).endswith("install it with pip install 'gpubp[plot]'")


HEADS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


def test_all_pictures_and_one_by_one(of_numbers, tmp_path):
    run, data = of_numbers
    told = done("-q", "plot", run, "--all", tmp_path / "all", "--json").json["pictures"]
    assert set(told) == set(report(run, limit=False).pictures)
    files = sorted((tmp_path / "all").iterdir())
    assert [file.name for file in files] == sorted(f"{name}.png" for name in told)
    assert all(file.read_bytes().startswith(HEADS["png"]) for file in files)
    one = tmp_path / "one.png"
    done("-q", "plot", run, data, "--picture", "gradient", "-o", one, "--no-limit")
    assert one.read_bytes() == (tmp_path / "all" / "gradient.png").read_bytes()


def test_text_of_an_svg_stays_text(of_digits, tmp_path):
    done("-q", "plot", of_digits[0], "--picture", "confusion", "-o", tmp_path / "one.svg", "--no-limit")
    text = (tmp_path / "one.svg").read_text()
    assert text.encode().startswith(HEADS["svg"]) and ">truth<" in text and ">answer<" in text


def test_a_picture_as_pdf(of_numbers, tmp_path):
    done("-q", "plot", of_numbers[0], "--picture", "residuals", "-o", tmp_path / "one.PDF", "--no-limit")
    assert (tmp_path / "one.PDF").read_bytes().startswith(HEADS["pdf"])


def test_help_names_the_pictures():
    told = " ".join(done("plot", "--help").stdout.split())
    assert all(name in told for name in pictures.names())


def test_hidden_units_are_rows_of_Theta_without_the_bias(of_digits):
    found = report(of_digits[0], limit=False)
    figure = found.picture("hidden")
    sheet = np.asarray(figure.axes[0].images[0].get_array())
    Theta = gpubp.load(of_digits[0]).matrices[0]
    first = Theta[0, 1:].reshape(28, 28)
    assert sheet[:28, :28] == pytest.approx(first / np.abs(first).max())
    sixth = Theta[5, 1:].reshape(28, 28)  # the second row of four columns: 30 pixels each
    assert sheet[30:58, 30:58] == pytest.approx(sixth / np.abs(sixth).max())


def test_a_history_with_steps_has_a_picture_of_them(of_numbers, monkeypatch):
    found = report(of_numbers[0], limit=False)
    assert ("step" in found.pictures) == any(row.get("step") for row in found.material.run.history)
    for i, row in enumerate(found.material.run.history):
        row["step"] = 1.0 / (i + 1)
    assert "step" in found.pictures
    line = found.picture("step").axes[0].lines[0]
    assert line.get_ydata()[[0, -1]] == pytest.approx([1, 1 / 30])


def test_the_speed_is_that_after_the_first_iteration():
    history = [{"passes": 1.0, "seconds": 9.0}, {"passes": 3.0, "seconds": 9.5}, {"passes": 6.0, "seconds": 10.0}]
    assert throughput.steady(history) == (5.0, 1.0)
    assert throughput.steady(history[:1]) == (0.0, 0.0)


def test_the_limit_is_taken_only_on_such_a_machine(of_digits):
    run = runs.read_run(of_digits[0])
    found = throughput.throughput(run, 400)
    passes, seconds = throughput.steady(run.history)
    assert found.rows_per_s == pytest.approx(400 * passes / seconds)
    assert found.gflops == pytest.approx(found.rows_per_s * 2 * (2 * 784 * 12 + 3 * 12 * 10) / 1e9)
    assert found.limit and found.of_limit == pytest.approx(found.gflops / found.limit["gflops"])
    for name, value in (("cpu", "a-cpu"), ("backend", "gpu"), ("lapack", "another"), ("simd", "none")):
        other = runs.Run(**{**vars(run), "conditions": {**run.conditions, name: value}})
        told = throughput.throughput(other, 400)
        if name == "cpu" and "cpu" not in run.conditions:
            continue
        assert told.limit is None and told.why_not and told.gflops == found.gflops, name
    assert throughput.throughput(run, 400, limit=False).limit is None


def test_the_products_that_are_timed_are_counted():
    found = throughput.products_alone(Network((8, 4, 2)), 64, np.dtype(np.float32), 1, [], seconds=0.01)
    assert found["gflops"] > 0 and found["rows"] == 64


@pytest.mark.parametrize("code", [0, 1, 130])
def test_follow_ends_the_command_with_its_own_code(of_numbers, monkeypatch, code):
    """1 for a run that failed, or whose trainer is gone; 130 for a Ctrl-C."""
    run, data = of_numbers
    called = []
    monkeypatch.setattr("gpubp.follow.follow", lambda path, *, as_json: called.append((path, as_json)) or code)
    assert ran("report", run, "--follow", "--json").returncode == code
    assert called == [(run, True)] and "--follow" in error("report", run, data, "--follow")


def test_tensorboard_is_written_beside_the_page(of_numbers, tmp_path, undrawn):
    run, data = of_numbers
    done("-q", "report", run, data, "--tensorboard", tmp_path / "tb", "-o", tmp_path / "r.html", "--no-limit")
    assert (tmp_path / "r.html").exists() and len(list((tmp_path / "tb").iterdir())) == 1


def test_the_map_of_the_room_has_every_module():
    room = Path(importlib.import_module("gpubp.report").__file__).parent
    text = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
    named = set(re.findall(r"`(\w+)`", text))
    assert {path.stem for path in room.glob("*.py")} - {"__init__"} <= named
