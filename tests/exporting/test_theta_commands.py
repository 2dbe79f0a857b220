"""`export`, `--theta` and `--start` as a person types them."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported_models import h_of
from in_process import ran
from running import write

import gpubp
from gpubp import exporting
from gpubp.errors import DataError, UsageError

RNG = np.random.default_rng(4)
Y = np.array(["cat", "dog", "fox"])[np.arange(90) % 3]
X = (RNG.normal(size=(90, 4)) * [1, 5, 1, 100] + (np.arange(90) % 3)[:, None]).astype("f4")
GAPS = np.where(RNG.random(X.shape) < 0.05, np.nan, X).astype("f4")
QUICK: dict[str, Any] = {"hidden": (5,), "iterations": 8, "backend": "cpu", "kernel": "numpy", "activation": "gelu"}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    write(folder / "data.h5", X=GAPS, y=Y.astype("S"))
    gpubp.train(str(folder / "data.h5"), out=folder / "run", missing="mean", **QUICK)
    return folder / "run"


def lines(path: Path) -> dict[str, Any]:
    import h5py

    with h5py.File(path) as file:
        return {name: file[name][:] for name in file}  # pyright: ignore


@pytest.mark.parametrize("name", [name for name in exporting.names() if name != "torch"])
def test_an_export_answers_as_the_run_does(name, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = ran("export", run, "--to", name, "--json")
    path = tmp_path / f"run{exporting.suffix_of(name)}"
    assert written.json["path"] == path.name and written.json["bytes"] == path.stat().st_size
    assert written.json["difference"] < 1e-6 and [one.name for one in tmp_path.iterdir()] == [path.name]
    if name == "onnx":
        return
    data = run.parent / "data.h5"
    by_run, by_file = ran("evaluate", run, data, "--json").json, ran("evaluate", "--theta", path, data, "--json").json
    assert by_file["cost"] == pytest.approx(by_run["cost"], rel=1e-5)
    assert by_file["confusion"] == by_run["confusion"] and by_file["classes"] == ["cat", "dog", "fox"]
    ran("predict", run, data, "-o", "a.h5")
    ran("predict", "--theta", path, data, "-o", "b.h5")
    a, b = lines(Path("a.h5")), lines(Path("b.h5"))
    assert (a["prediction"] == b["prediction"]).all()
    np.testing.assert_allclose(a["probability"], b["probability"], atol=1e-6)
    loaded = gpubp.load(path)
    np.testing.assert_allclose(loaded.predict_proba(GAPS), h_of(gpubp.load(run), GAPS), atol=1e-6)


def test_the_python_door(run, tmp_path):
    model = gpubp.load(run)
    first = gpubp.export(model, tmp_path / "a.npz")
    assert first.format == "npz" and first.precision == "fp64" and first.difference == 0
    gpubp.export(run, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    np.testing.assert_array_equal(gpubp.load(tmp_path / "a.npz").Theta, model.Theta)
    np.savez(tmp_path / "c.npz", Theta1=np.ones((2, 3)))
    with pytest.raises(DataError, match="matrices alone"):
        gpubp.load(tmp_path / "c.npz")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("RUN", f"no format; wanted --to {'|'.join(exporting.names())}"),
        ("RUN -o a.gguf", "a file named a.gguf; wanted --to"),
        ("RUN --to gguf", f"format 'gguf'; wanted one of {', '.join(exporting.names())}"),
        ("RUN -o nowhere/a.npz", "there is no folder nowhere"),
        ("RUN -o old.npz", "old.npz exists; add --overwrite"),
        ("old.npz -o new.mat", "old.npz holds matrices alone"),
        ("RUN -o CHECKPOINT --to npz --overwrite", "is a checkpoint"),
        ("data.h5 -o new.mat", "data.h5 has no Theta1"),
    ],
)
def test_exports_that_cannot_be(words, message, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("old.npz", Theta1=np.ones((2, 3)))
    write(tmp_path / "data.h5", X=X)
    checkpoint = max(run.glob("checkpoint-*.h5"))
    before = checkpoint.read_bytes()
    meant = {"RUN": run, "CHECKPOINT": checkpoint}
    found = ran("export", *[meant.get(word, word) for word in words.split()])
    assert found.returncode in (2, 3) and message in found.error
    assert sorted(one.name for one in tmp_path.iterdir()) == ["data.h5", "old.npz"]
    assert checkpoint.read_bytes() == before


def test_a_file_that_would_answer_otherwise_gets_no_name(run, tmp_path, monkeypatch):
    from gpubp.exporting import safetensors

    ours = safetensors.pack

    def off_by_a_weight(model, dtype):
        Theta = model.Theta.copy()
        Theta[3] += 1e-3
        return ours(gpubp.Model(model.network, Theta, model.scaling, model.targets, model.lambda_, model.job,
                                fill=model.fill), dtype)  # fmt: skip

    monkeypatch.setattr(safetensors, "pack", off_by_a_weight)
    with pytest.raises(DataError, match="answers otherwise than the model, by up to"):
        gpubp.export(run, tmp_path / "m.safetensors")
    for was, becomes in ((b"fox", b"fax"), (b'\\"lambda\\": 1.0', b'\\"lambda\\": 2.0')):
        assert was in ours(gpubp.load(run), np.dtype("f4"))
        other = lambda model, dtype, was=was, becomes=becomes: ours(model, dtype).replace(was, becomes)  # noqa: E731
        monkeypatch.setattr(safetensors, "pack", other)
        with pytest.raises(DataError, match="another model"):
            gpubp.export(run, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_graph_with_other_names_for_the_classes_gets_no_name(run, tmp_path, monkeypatch):
    nodes = pytest.importorskip("onnx") and importlib.import_module("gpubp.exporting._nodes").Nodes
    ours = nodes.labels
    monkeypatch.setattr(nodes, "labels", lambda self, name, classes: ours(self, name, classes[::-1]))
    with pytest.raises(DataError, match="names other classes than the model"):
        gpubp.export(run, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_weights_that_float32_does_not_hold_are_refused_there(run, tmp_path):
    model = gpubp.load(run)
    Theta = model.Theta.copy()
    Theta[model.network.P - 1] = 1e39
    large = replace(model, Theta=Theta)
    with pytest.raises(DataError, match="weights beyond float32; wanted numbers that it holds; add --precision fp64"):
        gpubp.export(large, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())
    gpubp.export(large, tmp_path / "m.npz")


def test_without_a_package_one_line_says_which(run, tmp_path, monkeypatch):
    def without(name: str, *more: Any) -> Any:
        if name.partition(".")[0] in ("onnx", "torch"):
            raise ImportError(name)
        return real(name, *more)

    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", without)
    for name, words in (("onnx", "gpubp[export]"), ("torch", "pip install torch")):
        with pytest.raises(UsageError, match=words.replace("[", r"\[")):
            gpubp.export(run, tmp_path / "m", name)
    assert not list(tmp_path.iterdir())


# The network of the community's case for exercise 4 (J = 7.406970 at λ = 0, 19.473637 at λ = 4), and the
# course's own gradient check network (2.100951 at λ = 0, 2.146360 at λ = 3).
THETA = np.arange(1.0, 19) / 10
CASE = {"Theta1": THETA[:6].reshape(2, 3, order="F"), "Theta2": THETA[6:].reshape(4, 3, order="F")}
CASE_X, CASE_Y = np.cos([[1, 2], [3, 4], [5, 6]]), np.array([4, 2, 3])


def sines(n: int, k: int) -> np.ndarray:
    return np.sin(np.arange(1, n * k + 1)).reshape(n, k, order="F") / 10


PUBLISHED = {
    "community": (CASE, CASE_X, CASE_Y, {0: 7.406969856065753, 4: 19.473636522732416}),
    "course": (
        {"Theta1": sines(5, 4), "Theta2": sines(3, 6)}, sines(5, 3), 1 + np.arange(1, 6) % 3,
        {0: 2.100950569902465, 3: 2.146359815024358},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_course_door_prints_the_published_cost(name, tmp_path, monkeypatch):
    """As with ex4data1.mat and ex4weights.mat: labels counted from 1, converted, and the weights from MATLAB."""
    savemat = pytest.importorskip("scipy.io").savemat
    monkeypatch.chdir(tmp_path)
    Theta, x, y, costs = PUBLISHED[name]
    savemat("weights.mat", Theta)
    savemat("data.mat", {"X": x, "y": y[:, None].astype("u1")}, do_compression=True)
    assert ran("convert", "data.mat", "data.h5").returncode == 0
    told = ["--classes", f"1:{len(Theta['Theta2'])}"] if name == "community" else []  # there no row is of class 1
    for lambda_, J in costs.items():
        words = ("--cost", "logistic", "--lambda", lambda_, "--precision", "fp64", *told)
        found = ran("evaluate", "--theta", "weights.mat", "data.h5", *words, "--json")
        assert found.json["J"] == pytest.approx(J, rel=1e-12)
        text = ran("evaluate", "--theta", "weights.mat", "data.h5", *words)
        assert f"J, λ = {lambda_}" in text.stdout and f"{J:.6f}" in text.stdout
        if not told:
            assert "outputs  3 classes, 1, 2, 3" in text.stderr


def test_labels_from_0_and_from_1_and_neither(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("t.npz", **CASE)
    shapes = {"zero": [0, 2, 3], "one": [4, 2, 3], "all": [1, 2, 3, 4], "sorted": [5, 7, 8, 9]}
    costs = {}
    for name, labels in shapes.items():
        write(tmp_path / f"{name}.h5", X=np.cos(np.arange(2.0 * len(labels))).reshape(-1, 2), y=np.array(labels))
        costs[name] = ran("evaluate", "--theta", "t.npz", f"{name}.h5", "--json").json["classes"]
    assert costs == {"zero": [0, 1, 2, 3], "one": [1, 2, 3, 4], "all": [1, 2, 3, 4], "sorted": [5, 7, 8, 9]}
    write(tmp_path / "either.h5", X=CASE_X, y=np.array([1, 2, 3]))
    assert "say --classes 0:3 or 1:4" in ran("evaluate", "--theta", "t.npz", "either.h5").error
    from_1 = ran("evaluate", "--theta", "t.npz", "either.h5", "--classes", "1:4", "--json").json["cost"]
    from_0 = ran("evaluate", "--theta", "t.npz", "either.h5", "--classes", "0:3", "--json").json["cost"]
    assert from_0 != pytest.approx(from_1, rel=1e-3)
    write(tmp_path / "text.h5", X=CASE_X, y=np.array(["d", "b", "c"], "S"))
    named = ran("evaluate", "--theta", "t.npz", "text.h5", "--classes", "a,b,c,d", "--json").json
    write(tmp_path / "turned.h5", X=CASE_X, y=np.array(["a", "c", "b"], "S"))
    turned = ran("evaluate", "--theta", "t.npz", "turned.h5", "--classes", "d,c,b,a", "--json").json
    assert named["cost"] == pytest.approx(7.406969856, rel=1e-6) == turned["cost"]  # outputs follow their names


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("evaluate RUN DATA --cost logistic", "--cost with RUN; wanted none: it has its own"),
        ("evaluate RUN", "Missing argument 'DATA...'"),
        ("evaluate", "Missing argument 'RUN DATA...'"),
        ("predict --theta T -o p.h5", "Missing argument 'DATA...'; see"),
        ("evaluate RUN DATA --theta EXPORT", "RUN and --theta at once"),
        ("evaluate --theta O DATA", "is no file of matrices; wanted"),
        ("evaluate --theta O DATA", "take the run itself, or its export as npz"),
        ("evaluate --theta EXPORT DATA --activation tanh", "--activation with"),
        ("evaluate --theta T DATA --classes 1:3", "--classes 1:3 for 4 outputs; wanted 4 different ones"),
        ("evaluate --theta T DATA --classes a,b,b,c", "--classes a,b,b,c for 4 outputs"),
        ("predict --theta ONE DATA -o p.h5 --classes yes,no", "--classes yes,no; wanted ascending order"),
        ("evaluate --theta T DATA --cost squares --classes 1:4", "--classes with the cost squares"),
        ("predict --theta T DATA -o p.h5", "rows of 4 features; wanted 2, as the model was trained on"),
        ("train DATA --out new --start T --hidden 7", "hidden 7 with the Θ of"),
        ("train DATA --out new --start T --iterations 1", "Theta^(1) of shape (2, 3); wanted (2, 5)"),
        ("train DATA --out new --start DATA", "has no Theta1"),
    ],
)
def test_what_does_not_go_together(words, message, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("t.npz", **CASE)
    write(tmp_path / "data.h5", X=X, y=np.arange(90) % 4)
    gpubp.export(run, "e.npz")
    Path("o.onnx").write_bytes(b"\x08\x04\x12\x05gpubp")
    np.savez("one.npz", Theta1=np.ones((1, 5)))
    meant = {"ONE": "one.npz", "RUN": run, "DATA": "data.h5", "T": "t.npz", "EXPORT": "e.npz", "O": "o.onnx"}
    found = ran(*[meant.get(word, word) for word in words.split()])
    assert found.returncode in (2, 3) and message in found.error
    assert sorted(one.name for one in tmp_path.iterdir()) == ["data.h5", "e.npz", "o.onnx", "one.npz", "t.npz"]


def test_training_begins_with_the_theta_of_a_file(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gpubp.export(run, "m.npz")
    data, old = run.parent / "data.h5", gpubp.load(run)
    words = ("--kernel", "numpy", "--missing", "mean", "--json")
    found = ran("train", data, "--out", "a", "--start", "m.npz", "--iterations", 0, *words)
    assert found.returncode == 0
    again = gpubp.load("a")
    np.testing.assert_array_equal(again.Theta, old.Theta)
    assert (again.network.activation, again.job["hidden"]) == ("gelu", [5])
    line = ("train", data, "--out", "b", "--start", "m.npz", "--iterations", 3, "--resume", "auto", *words)
    one = ran(*line)
    assert one.json["cost"] < old.history[-1]["J"]
    bits = gpubp.load("b").Theta.tobytes()
    assert "nothing to do" in ran(*line).stderr and gpubp.load("b").Theta.tobytes() == bits
    gpubp.export(tmp_path / "b", "other.npz")
    other = ran(*[{"m.npz": "other.npz"}.get(str(word), word) for word in line])
    assert other.returncode == 3 and "start was" in other.error
    fresh = ran(*[word for word in line if word not in ("--start", "m.npz")], "--hidden", 5, "--activation", "gelu")
    assert fresh.returncode == 3 and ", is none" in fresh.error
    resumed = ran("resume", "b", "--iterations", 5, "--json")
    assert resumed.json["iterations"] == 5


def test_training_from_python_begins_with_matrices_a_model_or_a_file(run, tmp_path):
    old = gpubp.load(run)
    options: dict[str, Any] = {"iterations": 0, "backend": "cpu", "kernel": "numpy"}
    for start in (old, old.matrices, str(run)):
        model = gpubp.train(X, Y, start=start, **options)
        np.testing.assert_array_equal(model.Theta, old.Theta)
        assert model.network.activation == ("sigmoid" if isinstance(start, list) else "gelu")
    classes = np.searchsorted(["cat", "dog", "fox"], Y)
    one_against_all = gpubp.train(X, classes, cost="logistic", hidden=3, **options)  # and not auto's softmax
    assert gpubp.train(X, classes, start=one_against_all, **options).network.cost == "logistic"
    wrong: list[Any] = [3, [np.ones(3)], [np.ones((2, 3)), np.ones((2, 2))], []]
    for start in wrong:
        with pytest.raises(UsageError, match=r"start .*wanted a file, a model, or Ng's matrices"):
            gpubp.train(X, Y, start=start, **options)
    with pytest.raises(UsageError, match="hidden 9 with"):
        gpubp.train(X, Y, start=old, hidden=9, **options)


def test_an_export_is_explained_with_its_scaling_and_classes(run, tmp_path):
    gpubp.export(run, tmp_path / "m.mat")
    words = ("--x", "0.5,3,1,-40", "--y", "dog", "--json")
    by_run, by_file = ran("explain", run, *words).json, ran("explain", "--theta", tmp_path / "m.mat", *words).json
    assert by_file["C"] == by_run["C"] and by_file["C"] != 0
    refused = ran("explain", "--theta", tmp_path / "m.mat", *words, "--cost", "softmax")
    assert "--cost with a whole model" in refused.error


def test_a_row_of_the_data_is_explained_by_the_theta_of_a_file(run, tmp_path):
    words = (run.parent / "data.h5", "--row", 7)
    gpubp.export(run, tmp_path / "m.npz")
    by_run, by_file = ran("explain", run, *words), ran("explain", "--theta", tmp_path / "m.npz", *words)
    assert by_file.stdout.partition("\n")[2] == by_run.stdout.partition("\n")[2]  # the first line says where Θ is from
    assert f"Θ of {tmp_path / 'm.npz'}" in by_file.stdout.partition("\n")[0]
    both = ran("explain", run, *words, "--theta", tmp_path / "m.npz")
    assert both.returncode == 2 and both.error.startswith("RUN and --theta at once")


def test_predictions_of_bare_theta_have_the_labels_that_y_has(tmp_path, monkeypatch):
    """As `evaluate` takes them: in the course's files the first output is the digit 1, not 0."""
    monkeypatch.chdir(tmp_path)
    np.savez("t.npz", **CASE)
    write(tmp_path / "octave.h5", X=CASE_X, y=np.array([1, 3, 4]))
    write(tmp_path / "bare.h5", X=CASE_X)
    for name, first in (("octave", 1), ("bare", 0)):
        done = ran("predict", "--theta", "t.npz", f"{name}.h5", "-o", f"{name}.csv", "--json")
        assert done.json["columns"] == ["prediction", *(f"p_{k}" for k in range(first, first + 4))]


def test_help_lists_the_formats():
    text = " ".join(ran("export", "--help").stdout.split())
    assert f"One of {', '.join(exporting.names())}." in text
    assert "--theta" in ran("predict", "--help").stdout and "--start" in ran("train", "--help").stdout


def test_json_is_plain(run, tmp_path):
    found = ran("export", run, "-o", tmp_path / "m.safetensors", "--json")
    assert json.loads(found.stdout)["note"].startswith("z = nn.Sequential(nn.Linear(4, 5), nn.GELU(approximate='tanh')")
