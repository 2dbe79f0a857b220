"""docs/course.md says nothing that is not so: its Python is run, its commands too, on files like the course's."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from in_process import ran

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "course.md"
TEXT = PAGE.read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) for line in block.splitlines()]
IN_TEXT = re.findall(r"`(gpubp [^`…]*)`", re.sub(r"```.*?```", "", TEXT, flags=re.S))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The course's files in their shapes, written as MATLAB does; the digits are noise around ten patterns."""
    scipy_io = pytest.importorskip("scipy.io")
    folder = tmp_path_factory.mktemp("course")
    rng = np.random.default_rng(0)
    y = np.repeat(np.r_[10, 1:10], 500)[:, None].astype(np.uint8)
    X = rng.normal(size=(5000, 400)) * 0.3 + rng.random((11, 400))[y[:, 0]]
    Theta = {"Theta1": rng.normal(size=(25, 401)) / 20, "Theta2": rng.normal(size=(10, 26)) / 5}
    for number in (3, 4):
        scipy_io.savemat(folder / f"ex{number}data1.mat", {"X": X, "y": y}, do_compression=True)
        scipy_io.savemat(folder / f"ex{number}weights.mat", Theta)
    return folder


def course_J(folder: Path, lambda_: float) -> float:
    """nnCostFunction, as the exercise's text has it."""
    scipy_io = pytest.importorskip("scipy.io")
    X, y = (scipy_io.loadmat(folder / "ex4data1.mat")[name] for name in ("X", "y"))
    T1, T2 = (scipy_io.loadmat(folder / "ex4weights.mat")[name] for name in ("Theta1", "Theta2"))
    ones, m = np.ones((len(X), 1)), len(X)
    a2 = 1 / (1 + np.exp(-np.hstack([ones, X]) @ T1.T))
    h = 1 / (1 + np.exp(-np.hstack([ones, a2]) @ T2.T))
    Y = y == np.arange(1, 11)
    J = -(Y * np.log(h) + ~Y * np.log(1 - h)).sum() / m
    return J + lambda_ / (2 * m) * ((T1[:, 1:] ** 2).sum() + (T2[:, 1:] ** 2).sum())


def ready(words: list[str]) -> bool:
    """Whether this gpubp has what a command asks for (evaluate's --theta)."""
    return "--theta" not in words or "--theta" in ran(words[0], "--help").stdout


def test_the_commands_run_in_their_order(folder, monkeypatch):
    monkeypatch.chdir(folder)
    costs = {}
    for command in COMMANDS:
        program, *words = shlex.split(command)
        assert program == "gpubp"
        if not ready(words):
            continue
        result = ran(*words, *(["--json"] if words[0] in ("convert", "info", "evaluate") else []))
        assert result.returncode == 0, (command, result.stderr)
        if words[0] == "convert":
            (part,) = result.json["parts"]
            assert (part["rows"], part["features"], part["y_shape"], part["y_dtype"]) == (5000, 400, [5000], "uint8")
        if words[0] == "info":
            assert "10 classes, 1, 2, 3 … 10" in ran("info", "ex4.h5").stdout
        if words[:2] == ["evaluate", "ex4"]:
            assert result.json["accuracy"] > 0.9 and result.json["classes"] == list(range(1, 11))
        if "--theta" in words:
            lambda_ = float(words[words.index("--lambda") + 1]) if "--lambda" in words else 0.0
            costs[lambda_] = result.json["J"] if lambda_ else result.json["cost"]
    for lambda_, J in costs.items():
        assert J == pytest.approx(course_J(folder, lambda_), rel=1e-10)
    head = (folder / "predictions.csv").read_text().partition("\n")[0]
    assert head == "prediction,p_1,p_2,p_3,p_4,p_5,p_6,p_7,p_8,p_9,p_10"
    if not costs:
        pytest.skip("evaluate has no --theta: the lines with it were not run")


def test_the_commands_in_the_table_are_understood():
    assert len(IN_TEXT) > 8
    for command in IN_TEXT:
        name, *words = shlex.split(command)[1:]
        shown = ran(name, "--help")
        if name == "export" and shown.returncode:
            continue
        assert shown.returncode == 0, command
        missing = {word for word in words if word.startswith("--")} - set(re.findall(r"--[\w-]+", shown.stdout))
        assert not missing or missing == {"--theta", "--lambda"} & missing, command


def test_the_python_gives_what_is_shown():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert len(blocks) == 3
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, PAGE.name, str(PAGE), 0)
    results = doctest.DocTestRunner().run(test)
    assert results.attempted > 25 and not results.failed


def test_published_figures_in_the_text_are_those_that_come_out():
    """What the prose says of J and of gradients, with fewer digits, is in an output below it."""
    outputs = np.array([float(n) for n in re.findall(r"^(-?\d+\.\d+)$", TEXT, re.M)])
    for said in ("7.4070", "19.474", "2.100951", "2.146360"):
        assert said in TEXT
        digits = len(said.partition(".")[2])
        assert np.abs(outputs - float(said)).min() <= 0.5 * 10**-digits


def test_the_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (PAGE.parent / target).exists(), target
    anchors = {re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
               for line in TEXT.splitlines() if line.startswith("#")}  # fmt: skip
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors
