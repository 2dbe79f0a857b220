"""The GPU's benchmark runs through on the CPU, survives what goes wrong, and renders. No time is asserted here."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from running import ENVIRONMENT, ROOT


def run(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--smoke", "--out", str(out), *arguments],
        capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, timeout=300,
    )  # fmt: skip


def written(out: Path) -> dict:
    return json.loads((out / "gpu-smoke.json").read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Every stage that needs no other framework, and the contenders that misbehave."""
    out = tmp_path_factory.mktemp("smoke")
    tool = out / "compute-sanitizer"  # stands in for the real one: runs the program after its own options
    tool.write_text('#!/bin/sh\nshift 6\n"$@" && echo "========= ERROR SUMMARY: 0 errors"\n')
    tool.chmod(0o755)
    stages = "ceilings,fused,layered,duties,checks,faulty"
    only = "copy,launch,products of B,A tf32,D tf32,C fp32,G bf16,streaming C bf16,checks tests,memcheck,faulty"
    return out, run(out, "--stages", stages, "--only", only, "--sanitizer", str(tool))


@pytest.fixture
def on_gpu(monkeypatch):
    """The package's modules by name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return lambda name: importlib.import_module(f"on_gpu.{name}")


def test_right_answers_are_timed_and_told(done):
    out, process = done
    record = written(out)
    rows = {key: row for key, row in record["rows"].items() if row["side"] == "ours"}
    assert all(row["status"] == "ok" for row in rows.values()), rows
    timed = [row for row in rows.values() if "median_s" in row]
    assert {row["shape"] for row in timed} == {"A", "C", "D", "G"} and {row["stored"] for row in timed} >= {"uint8"}
    assert all(row["gradient_error"] < 1e-4 and row["same_bits"] and len(row["turns"]) >= 3 for row in timed)
    assert rows["ours 50 iterations A tf32 float32"]["evaluations"] >= 5
    assert rows["ours streaming C bf16 uint8"]["same_bits"]
    assert "says anything about a GPU" in process.stdout and "| smoke |" in re.sub(" +", " ", process.stdout)
    assert "met" not in process.stdout.split("###")[0]


def test_checks_are_run_and_counted(done):
    rows = written(done[0])["rows"]
    assert rows["checks tests"]["counts"]["passed"] > 0 and not rows["checks tests"]["failures"]
    assert rows["checks memcheck"]["errors"] == 0


def test_misfortunes_cost_their_row_and_no_other(done):
    out, process = done
    found = {row["what"]: row for row in written(out)["rows"].values() if row["side"] == "faulty"}
    assert {what: row["status"] for what, row in found.items()} == {
        "raises": "failed",
        "crashes": "crashed",
        "hangs": "timeout",
        "fills the memory": "memory",
        "answers wrongly": "wrong",
        "works": "ok",
    }
    assert "exit code 7" in found["crashes"]["why"]
    assert process.returncode == 1  # somebody failed


def test_no_path_of_this_machine_is_written(done):
    for file in ("gpu-smoke.json", "gpu-smoke.md"):
        text = (done[0] / file).read_text()
        assert str(ROOT) not in text and str(done[0]) not in text and sys.prefix not in text


def test_a_resumed_run_does_what_is_missing(done, tmp_path):
    earlier = (done[0] / "gpu-smoke.json").read_text()
    (tmp_path / "gpu-smoke.json").write_text(earlier)
    process = run(tmp_path, "--resume", "--stages", "fused,faulty", "--only", "A tf32,works,raises")
    record = written(tmp_path)
    again = {key for key, row in record["rows"].items() if row["run"] == 1}
    assert again == {"faulty raises A fp32 float32"}, process.stderr
    assert record["rows"].keys() == json.loads(earlier)["rows"].keys()


def test_nothing_is_begun_that_does_not_fit_the_budget(tmp_path):
    process = run(tmp_path, "--stages", "fused,jax", "--budget", "0.1")
    record = written(tmp_path)
    assert not record["rows"] and "ours gpubp fused A tf32 float32" in record["runs"][0]["left_out"]
    assert process.returncode == 0 and "left out" in process.stdout


@pytest.mark.parametrize(
    "framework, stages, only",
    [
        ("torch", "ceilings,fused,torch,race", "product,fused A tf32,torch by hand,torch eager,torch chunks A,race A"),
        ("jax", "jax", "jit A tf32,scan D tf32,jit C bf16,scan G"),
    ],
)
def test_the_peers_give_right_gradients(tmp_path, framework, stages, only):
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    process = run(tmp_path, "--stages", stages, "--only", only)
    assert process.returncode == 0, process.stdout + process.stderr
    rows = written(tmp_path)["rows"].values()
    peers = [row for row in rows if row["side"] == framework]
    assert len(peers) >= 4 and {row["status"] for row in peers} == {"ok"}
    assert all(row["gradient_error"] < (5e-2 if row["precision"] == "bf16" else 1e-5) for row in peers)
    if framework == "torch":
        (race,) = [row for row in rows if row["side"] == "race"]
        assert race["lead"] > 0 and len(race["ours"]["turns"]) == 3 == len(race["peer"]["turns"])


def test_rows_do_not_depend_on_how_they_are_made(on_gpu, monkeypatch):
    inputs, plan, card = on_gpu("inputs"), on_gpu("plan"), on_gpu("card").Card(smoke=True)
    shape = plan.SMOKE["G"]
    whole = inputs.make(card, shape, "uint8")
    monkeypatch.setattr(inputs, "PIECE", 100)
    pieces = inputs.make(card, shape, "uint8")
    assert np.array_equal(whole.X, pieces.X) and np.array_equal(whole.codes, pieces.codes)
    assert np.array_equal(whole.X[: whole.period], whole.X[whole.period : 2 * whole.period])
    assert 30 < whole.X.std() < 45 and 0.4 < whole.codes.mean() < 0.6
    J, gradient = inputs.oracle(card, whole)
    every = inputs.oracle(card, replace(whole, period=shape.m))  # all rows instead of one period's
    assert abs(J / every[0] - 1) < 1e-13 and np.abs(gradient - every[1]).max() < 1e-12


def test_the_work_of_the_shapes(on_gpu):
    plan = on_gpu("plan")
    work = {name: plan.flops(plan.FULL[name]) / 1e9 for name in "ABCD"}
    assert work == pytest.approx({"A": 0.21, "B": 60.5, "C": 31_700, "D": 653}, rel=0.03)
    for stage in plan.STAGES:
        tasks = plan.tasks(stage, False, {})
        assert len({task.key for task in tasks}) == len(tasks)
        assert all(task.rows < plan.FULL[task.shape].m for task in tasks if task.rows)


def test_a_wrong_gradient_is_refused(on_gpu):
    measure, card = on_gpu("measure"), on_gpu("card")
    true = np.ones(4)
    ready = measure.Ready(lambda: 1.0, float, lambda: true * 1.5, card.WallClock(float))
    with pytest.raises(measure.Wrong, match="relative error"):
        measure.measured(ready, (1.0, true), "bf16", measure.SMOKE)
    with pytest.raises(measure.Wrong):
        measure.measured(ready._replace(gradient=lambda: true * np.nan), (1.0, true), "bf16", measure.SMOKE)


def row(side: str, what: str, shape: str, precision: str, seconds: float, **more) -> dict:
    return {
        "side": side, "what": what, "shape": shape, "precision": precision, "stored": "float32", "rows": 0, "run": 0,
        "stage": "", "status": "ok", "median_s": seconds, "min_s": seconds, "spread": 0.01, "call_s": seconds,
        "gradient_error": 1e-8, "J_error": 1e-9, "same_bits": True, **more,
    }  # fmt: skip


def test_tables_say_what_is_met_missed_and_unmeasured(on_gpu, tmp_path):
    rows = {
        "limits copy": row("limits", "copy", "", "", 2e-3, bytes_per_s=4e12),
        "limits product tf32": row("limits", "product", "", "tf32", 3e-3, flops_per_s=4e14),
        "a": row("ours", "gpubp fused", "A", "tf32", 12e-6, waits=1),
        "b": row("torch", "graph by hand", "A", "tf32", 30e-6),
        "c": row("ours", "gpubp layered", "C", "tf32", 0.1),
        "d": row("ours", "gpubp layered", "D", "tf32", 7e-3, waits=2),
        "race A tf32 float32": {
            "side": "race", "what": "", "shape": "A", "precision": "tf32", "stored": "float32", "run": 0,
            "stage": "race", "status": "ok", "rival": ["a", "b"], "lead": 2.25,
        },
    }  # fmt: skip
    file = tmp_path / "gpu-x.json"
    file.write_text(json.dumps({"card": "Card X", "runs": [{"left_out": {"jax jit": "no time"}}], "rows": rows}))
    text = re.sub(" +", " ", on_gpu("render").markdown([str(file)]))
    assert "## Card X" in text and "| 12 µs (gpubp fused, tf32, X as float32) | met |" in text
    assert "| D, tf32: 6 ms or less | 7 ms (gpubp layered, tf32, X as float32) | **missed** |" in text
    assert "| 2.25 × torch graph by hand, in turns | met |" in text
    assert "| B, tf32: 0.35 ms or less | | unmeasured |" in text
    assert "| C, tf32: 85% of the matrix-product rate or more | 79.3% of 400 TFLOP/s (100 ms) | **missed** |" in text
    assert "| waits for the device in an evaluation: 1 | at most 2 | **missed** |" in text
    assert "- jax jit: left out, no time" in text
    assert "| 79.3% |" in text  # the floor over the time of C
