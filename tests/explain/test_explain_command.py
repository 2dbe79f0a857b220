"""`gpubp explain`: its four ways to an example, what it prints, what it refuses, how it ends."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from in_process import ran
from running import write

import gpubp
from gpubp import explain as room
from gpubp.explain import slopes
from gpubp.explain.seed import THETA, seed_example

RNG = np.random.default_rng(2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of pictures of 8 × 8 in three classes, and its data beside it."""
    folder = tmp_path_factory.mktemp("explain")
    X, y = RNG.integers(0, 256, (40, 64)).astype(np.uint8), np.array([b"cat", b"dog", b"emu"])[np.arange(40) % 3]
    data = write(folder / "data.h5", X=X[:30], y=y[:30], X_test=X[30:], y_test=y[30:], X2=X[::-1], y2=y[::-1])
    gpubp.train(data, hidden=(12, 6), iterations=3, backend="cpu", kernel="numpy", out=folder / "run", scale="255")
    return folder / "run"


@pytest.fixture
def data(run: Path) -> Path:
    return run.parent / "data.h5"


def test_a_row_of_a_run(run, data):
    done = ran("explain", run, data, "--row", 4, "--top", 5)
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == f"network  64-12-6-3, sigmoid units, softmax cost; run {run}, iteration 3"
    assert lines[1] == f"example  row 4 (test) of {data}"
    assert lines[2].endswith("the truth is dog") and "… 7 more units" in done.stdout
    assert "--unit 4:1 writes out one sum" in lines[-1]
    train = ran("explain", run, data, "--row", 4, "--split", "train", "--json").json
    named = ran("explain", run, data, "--row", 4, "--x", "X2", "--y", "y2", "--json").json
    test = ran("explain", run, data, "--row", 4, "--json").json
    assert train["x"] != test["x"] and (train["truth"], named["truth"]) == ("dog", "emu")
    assert ran("explain", run, data, "--json").json["example"].startswith("row 0 ")
    newest = sorted(run.glob("checkpoint-*.h5"))[-1]
    assert ran("explain", newest, data, "--row", 4, "--json").json["C"] == test["C"]


def test_numbers_through_a_run_are_the_row_that_has_them(run, data):
    row = ran("explain", run, data, "--row", 4, "--json").json
    x = ",".join(f"{value:g}" for value in row["x"])
    typed = ran("explain", run, "--x", x, "--y", "dog", "--json").json
    assert typed["units"] == row["units"] and typed["answer"] == row["answer"]


def test_matrices_without_a_run(tmp_path):
    with open(tmp_path / "theta.json", "w") as file:
        json.dump({f"Theta{l}": Theta.tolist() for l, Theta in enumerate(THETA, start=1)}, file)
    built_in = ran("explain", "--example", "--json").json
    words = ("explain", "--theta", tmp_path / "theta.json", "--x", "1,0.5", "--y", "1", "--json")
    found = ran(*words).json
    assert found["units"] == built_in["units"] and found["C"] == pytest.approx(seed_example().C, rel=1e-15)
    other = ran(*words, "--activation", "tanh", "--cost", "squares").json
    assert other["network"] == {"sizes": [2, 2, 2, 1], "activation": "tanh", "cost": "squares"}
    turned = ran(*words, "--sign", "loglik").json
    assert turned["C"] == -found["C"] and turned["units"][-1]["delta"] == -found["units"][-1]["delta"]


def test_one_unit_written_out_with_proof_and_with_the_seeds_recursion():
    done = ran("explain", "--example", "--unit", "2:2", "--unit", "4:1", "--check", "--literal")
    assert done.returncode == 0
    assert "\nδ_2^(2) = (Θ_12^(2)·δ_1^(3) + Θ_22^(2)·δ_2^(3)) · g′(z_2^(2))\n" in done.stdout
    assert "\nδ_1^(4) = a_1^(4) − y\n" in done.stdout and "Forward:" not in done.stdout
    assert "carried on by itself it is\nneither" in done.stdout
    apart = [line.split()[-2:] for line in done.stdout.splitlines() if line.startswith("  literal, without g′, for δ:")]
    assert [verdict for _, verdict in apart] == ["FAIL", "FAIL"]
    e = seed_example()
    for (said, _), l in zip(apart, (3, 2), strict=True):
        off, size = np.linalg.norm(e.literal()[l] - e.delta[l]), np.linalg.norm(e.literal()[l])
        assert float(said.rstrip(",")) == pytest.approx(off / (size + np.linalg.norm(e.delta[l])), rel=0.06)
    assert "\nPASS: 5 δ's, each is the slope of C, relative error 1e-07 or less" in done.stdout
    found = ran("explain", "--example", "--check", "--json").json
    assert found["check"]["passed"] and len(found["check"]["layers"]) == 3
    plain = {(unit["layer"], unit["unit"]): unit for unit in found["units"]}
    for layer in found["check"]["layers"]:
        for unit in layer["units"]:
            assert unit["delta"] == plain[layer["layer"], unit["unit"]]["delta"]
            assert unit["slope"] == pytest.approx(unit["delta"], rel=1e-9)


def test_a_checkpoint_in_place_of_matrices_is_the_model_that_it_holds(run):
    """With other words it would be another network, and nobody would be told."""
    newest = sorted(run.glob("checkpoint-*.h5"))[-1]
    example = ("--x", ",".join(["1"] * 64), "--y", "dog", "--json")
    found, own = (ran("explain", *model, *example).json for model in (("--theta", newest), (run,)))
    assert found["network"] == own["network"] and found["units"] == own["units"]
    refused = ran("explain", "--theta", newest, *example, "--cost", "softmax")
    assert refused.returncode == 2 and "--cost with a whole model; wanted none: it has its own" in refused.stderr


def test_a_wrong_delta_ends_with_1(monkeypatch):
    e = seed_example()
    delta = [None, None, e.delta[2] * [1, 1 + 1e-6], *e.delta[3:]]
    monkeypatch.setattr("gpubp.explain.seed.seed_example", lambda *of: replace(e, delta=delta))
    done = ran("explain", "--example", "--check")
    assert done.returncode == 1 and "\nFAIL: 1 of 5 δ's are not the slope of C" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines() if line.endswith("FAIL")] == ["2"]
    assert ran("explain", "--example", "--check", "--json").returncode == 1
    monkeypatch.setattr("gpubp.explain.seed.seed_example", lambda *of: e)
    assert ran("explain", "--example", "--check").returncode == 0


def test_an_asked_for_unit_of_a_folded_layer_has_its_sums_in_the_json(run, data):
    found = ran("explain", run, data, "--top", 3, "--unit", "2:11", "--json").json
    assert 11 in found["shown"]["2"] and len(found["shown"]["2"]) == 3
    assert [one["kind"] for one in found["sums"] if (one["layer"], one["unit"]) == (2, 11)] == ["z", "s"]


class Drawn:
    """What a drawing and a page were asked for, in place of both."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[Any, ...]] = []
        for name, function in (("drawing", "save"), ("page", "write")):
            fake = SimpleNamespace(**{function: self._note(name)})
            monkeypatch.setitem(sys.modules, f"gpubp.explain.{name}", fake)
            monkeypatch.setattr(room, name, fake, raising=False)

    def _note(self, name: str) -> Any:
        def note(e: Any, fold: Any, path: Path, *, by: str, **more: Any) -> None:
            self.asked.append((name, e, fold, path, by, more))
            path.write_text("drawn")

        return note


def test_pictures_and_pages_are_asked_for(run, data, tmp_path, monkeypatch):
    drawn = Drawn(monkeypatch)
    files = [tmp_path / name for name in ("a.svg", "b.pdf", "c.html")]
    words = ["explain", run, data, *(w for one in zip(("--svg", "--png", "--html"), files, strict=True) for w in one)]
    done = ran(*words, "--by", "contribution", "--check", "--top", 4)
    assert done.returncode == 0 and done.stdout.endswith("".join(f"written {file}\n" for file in files)[-40:])
    assert [(one[0], one[3]) for one in drawn.asked] == list(zip(("drawing", "drawing", "page"), files, strict=True))
    assert {one[4] for one in drawn.asked} == {"contribution"}
    assert isinstance(drawn.asked[2][5]["checked"], slopes.SlopeCheck) and len(drawn.asked[0][2].shown[2]) == 4
    picture = drawn.asked[0][1].names.picture
    assert (picture.height, picture.width) == (8, 8)
    assert "exists; add --overwrite" in ran(*words).error
    again = ran(*words, "--overwrite", "--json", "--image", "4x16:columns").json
    assert again["written"] == [str(file) for file in files]
    assert drawn.asked[-1][5] == {"checked": None, "literal": False}
    assert drawn.asked[-1][1].names.picture.by_columns
    ran(*words, "--overwrite", "--image", "none", "--literal")
    assert drawn.asked[-1][1].names.picture is None and drawn.asked[-1][5]["literal"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "neither RUN nor --theta nor --example; wanted RUN or --theta FILE, "),
        ("RUN --example", "RUN and --example at once"),
        ("RUN --theta T --x 1 --y 1", "RUN and --theta at once"),
        ("--theta T --example", "--theta and --example at once"),
        ("--theta T --x 1,0.5 --y 1 --row 2", "--row with --theta without DATA"),
        ("--theta T --x 1,0.5 --y 1 --classes 0:1", "--classes with --x"),
        ("--theta T DATA --row 1", "rows of 64 features; wanted 2"),
        ("RUN", "--x is missing"),
        ("RUN --x 1,2", "--y is missing"),
        ("--theta T --y 1", "--x is missing"),
        ("RUN --x 1 --y cat --row 3", "--row with RUN without DATA"),
        ("--example --x 1 --row 0", "--row with --example"),
        ("--example --x 1", "x of 1 values for layers (2, 2, 2, 1)"),
        ("--example --y 2", "y from 2 to 2"),
        ("RUN DATA --cost squares", "--cost with RUN; wanted none: it has its own"),
        ("RUN DATA --row 10", "row 10; wanted one of the 10 rows, 0 … 9"),
        ("RUN --x 1,2 --y cat", "x of 2 numbers; wanted 64"),
        ("RUN DATA --unit 9:1", "layer 9; wanted 2 … 4"),
        ("RUN DATA --unit 2:13", "unit 13 of layer 2; wanted 1 … 12"),
        ("RUN DATA --unit 1:1", "layer 1; wanted 2 … 4"),
        ("RUN DATA --unit two", "--unit two; wanted LAYER:UNIT"),
        ("RUN DATA --image 9x9", "pictures of 9x9, 81 numbers; wanted 64"),
        ("RUN DATA --svg a.png", "--svg a.png; wanted a name that ends in .svg"),
        ("RUN DATA --html nowhere/a.html", "there is no folder nowhere"),
        ("nowhere DATA", "nowhere"),
        ("--theta DATA --x 1 --y 1", "has no Theta1, Theta2, …"),
        ("--theta T --x 1,0.5 --y 3", "y from 3 to 3; wanted 0 to 1"),
        ("--theta T --x 1,a --y 1", "--x '1,a'; wanted numbers"),
        ("--theta T --x 1,nan --y 1", "wanted finite numbers"),
        ("--theta T --x 1,0.5 --y 1 --cost hinge", "cost 'hinge'; wanted one of logistic"),
        ("--theta T --x 1,0.5 --y 1 --cost softmax", "softmax with 1 output"),
    ],
)
def test_what_cannot_be_meant_is_one_line(words, said, run, data, tmp_path):
    np.savez(tmp_path / "theta.npz", **{f"Theta{l}": Theta for l, Theta in enumerate(THETA, start=1)})
    meant = {"RUN": run, "DATA": data, "T": tmp_path / "theta.npz"}
    done = ran("explain", *(meant.get(word, word) for word in words.split()))
    assert done.returncode in (2, 3) and said in done.error and done.stdout == ""


def test_help_names_the_activations_and_costs():
    done = ran("explain", "--help")
    assert "sigmoid, tanh" in done.stdout and "sigmoid_squares." in done.stdout
