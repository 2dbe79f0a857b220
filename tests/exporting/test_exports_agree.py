"""The headline: every export, read by other programs, predicts what the model predicts, for every activation and cost.

ONNX runs in onnxruntime; .npz, .mat and safetensors are read by NumPy, SciPy and the safetensors package and computed
in plain NumPy; a state_dict runs in PyTorch, where that is installed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported_models import BYTES, NONE, PAIRS, TARGETS, G, H, S, decided, forward, h_of, model_of

from gpubp import activation, cost, exporting
from gpubp.data.scaling import Scaling
from gpubp.data.targets import TargetSpec
from gpubp.errors import UsageError
from gpubp.exporting import _linear, export, rows_like
from gpubp.inference import Model
from gpubp.theta_files import read

ROWS, NEAR = 1000, 1e-6
PLAIN = ("mat", "npz", "safetensors")
NO_MODULE: set[str] = set()  # activations and costs that torch.nn does not have: `--to torch` refuses them


def test_every_activation_and_cost_is_in_the_tables():
    """Those without an entry are left out of the other tests, so that this one says it once."""
    room, here, there = "gpubp/exporting/_linear.py", "tests/exporting/exported_models.py", Path(__file__).name
    tables = [
        (f"G in {here}, z to g(z) in plain NumPy", activation.names(), set(G)),
        (f"H and TARGETS in {here}", cost.names(), H.keys() & TARGETS.keys()),
        (f"MODULES in {room}, or NO_MODULE in {there}", activation.names(), _linear.MODULES.keys() | NO_MODULE),
        (f"OUTPUTS in {room}, or NO_MODULE in {there}", cost.names(), _linear.OUTPUTS.keys() | NO_MODULE),
    ]
    lacking = [f"{table}: {name}" for table, names, entries in tables for name in names if name not in entries]
    assert not lacking, "entries are needed in " + "; in ".join(lacking)
    unknown = NO_MODULE.union(*(entries for _, _, entries in tables)) - {*activation.names(), *cost.names()}
    assert not unknown, f"entries of what there is no more: {unknown}"
    assert not NO_MODULE & {*_linear.MODULES, *_linear.OUTPUTS}


@pytest.mark.parametrize("table", ["MODULES", "OUTPUTS"])
def test_what_pytorch_has_no_module_for_is_exported_but_to_torch(table, tmp_path, monkeypatch):
    model = model_of("tanh", "softmax")
    monkeypatch.delitem(getattr(_linear, table), {"MODULES": "tanh", "OUTPUTS": "softmax"}[table])
    for name in PLAIN:
        written = export(model, tmp_path / f"m{exporting.suffix_of(name)}", precision="fp64")
        assert written.note == ""
        again = read(written.path).model
        assert again is not None and np.array_equal(again.Theta, model.Theta)
    with pytest.raises(UsageError, match=r"^tanh with softmax in PyTorch; wanted one of .*; take --to safetensors$"):
        export(model, tmp_path / "m.pt")
    assert not (tmp_path / "m.pt").exists()


def onnx_answers(path: Path, X: np.ndarray) -> dict[str, np.ndarray]:
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["x"]
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": X}), strict=True))


def h_and_label(model: Model, found: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    if model.targets.kind == "real":
        return found["prediction"], found["prediction"]
    h = found["probability"]
    if model.targets.kind == "binary":
        np.testing.assert_allclose(h.sum(axis=1), 1, atol=1e-6)
        h = h[:, 1:]
    return h, found["label"]


def near(h: np.ndarray, exact: np.ndarray) -> None:
    assert h.shape == exact.shape
    assert (np.abs(h - exact) <= NEAR * np.maximum(1, np.abs(exact))).all(), np.abs(h - exact).max()


@pytest.mark.parametrize(("activation", "cost"), PAIRS)
def test_onnx_in_onnxruntime(activation, cost, tmp_path):
    model = model_of(activation, cost)
    X = rows_like(model, np.dtype("f4"), ROWS)
    assert np.isnan(X).any(axis=1).sum() > ROWS / 10
    export(model, tmp_path / "m.onnx")
    h, label = h_and_label(model, onnx_answers(tmp_path / "m.onnx", X))
    exact = h_of(model, X)
    near(h, exact)
    if model.targets.kind != "real":
        sure = (np.abs(exact - 0.5) > 1e-5).all(axis=1)
        assert sure.mean() > 0.9 and X.shape == (ROWS, S)
        assert (label == decided(model, exact))[sure].all()
        assert len(np.unique(label)) > 1


def read_by_others(name: str, path: Path) -> tuple[list[tuple[np.ndarray, np.ndarray]], dict[str, Any]]:
    """Weights and biases of each layer, and mean, scale, fill, activation, cost, classes."""
    if name == "safetensors":
        safe = pytest.importorskip("safetensors")
        with safe.safe_open(path, "np") as file:
            about = json.loads(file.metadata()["gpubp"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        layers = [(tensors[f"{at}.weight"], tensors[f"{at}.bias"]) for at in range(0, len(tensors), 2)]
        return layers, about
    if name == "npz":
        with np.load(path, allow_pickle=False) as file:
            found = {key: file[key] for key in file.files}
        words = {key: str(found[key]) for key in ("activation", "cost", "gpubp")}
        classes = found["classes"].tolist() if "classes" in found else None
    else:
        found = pytest.importorskip("scipy.io").loadmat(path)
        words = {key: str(found[key][0]) for key in ("activation", "cost", "gpubp")}
        cells = found.get("classes")
        classes = None if cells is None else [str(one[0]) if cells.dtype == object else one for one in cells[:, 0]]
    layers = []
    while f"Theta{len(layers) + 1}" in found:
        Theta = found[f"Theta{len(layers) + 1}"]
        layers.append((Theta[:, 1:], Theta[:, 0]))
    about = {**json.loads(words["gpubp"]), "classes": classes, **{key: words[key] for key in ("activation", "cost")}}
    return layers, about | {key: np.ravel(found[key]) for key in ("mean", "scale", "fill") if key in found}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize(("activation", "cost"), PAIRS)
def test_weights_read_by_others(name, activation, cost, tmp_path):
    model = model_of(activation, cost)
    X = rows_like(model, np.dtype("f4"), ROWS)
    path = tmp_path / f"m{exporting.suffix_of(name)}"
    export(model, path, precision="fp32")
    layers, about = read_by_others(name, path)
    assert all(W.dtype == np.float32 for W, _ in layers) and len(layers) == 3
    assert (about["activation"], about["cost"]) == (activation, cost)
    classes = model.targets.classes
    assert about["classes"] == (None if classes is None else list(classes))
    near(forward(X, layers, activation, cost, about["mean"], about["scale"], about["fill"]), h_of(model, X))


@pytest.mark.parametrize(("activation", "cost"), [pair for pair in PAIRS if not NO_MODULE & set(pair)])
def test_a_state_dict_in_pytorch(activation, cost, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; `pip install torch` adds this test")
    model = model_of(activation, cost)
    X = rows_like(model, np.dtype("f4"), ROWS)
    written = export(model, tmp_path / "m.pt")
    nn = torch.nn
    line = written.note.partition("z = ")[2].partition("(scaled x)")[0]
    module = eval(line, {"nn": nn, "torch": torch})
    state = torch.load(tmp_path / "m.pt", weights_only=True)
    module.load_state_dict(state, strict=True)
    filled = np.where(np.isnan(X), model.fill, X.astype("f8"))
    with torch.no_grad():
        z = module(torch.from_numpy(model.scaling.apply(filled).astype("f4")))
        h = eval(written.note.rpartition("h = ")[2], {"torch": torch, "z": z})
    near(h.numpy(), h_of(model, X))


KINDS = {
    "whole numbers beyond int64": ("softmax", TargetSpec("classes", (3, 70, 2**63 + 5), 3)),
    "ints": ("softmax", TargetSpec("classes", (1, 2, 10), 3)),
    "bools": ("logistic", TargetSpec("binary", (False, True), 1)),
    "negative": ("logistic", TargetSpec("classes", (-1, 0, 7), 3)),
    "multilabel": ("logistic", TargetSpec("multilabel", None, 3)),
    "shares": ("softmax", TargetSpec("real", None, 3)),
    "one number": ("squares", TargetSpec("real", None, 1)),
    "texts": ("softmax", TARGETS["softmax"]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name in exporting.names() if name != "torch"])
def test_every_kind_of_output(kind, name, tmp_path):
    cost, targets = KINDS[kind]
    model = model_of("tanh", cost, targets=targets, hidden=(4,))
    X = rows_like(model, np.dtype("f4"), 200)
    export(model, tmp_path / "m", name, precision="fp64" if name != "onnx" else None)
    if name == "onnx":
        found, label = h_and_label(model, onnx_answers(tmp_path / "m", X))
        near(found, h_of(model, X))
        if targets.classes is not None:
            own = model.predict(X[:1], backend="cpu").dtype.kind
            assert label.dtype.kind == {"U": "O"}.get(own, own)
    else:
        again = read(tmp_path / "m").model
        assert again is not None and again.targets == targets
        if name != "safetensors":
            _, about = read_by_others(name, tmp_path / "m")
            shown = [str(one) if "beyond" in kind and name == "mat" else one for one in targets.classes or ()]
            assert about["classes"] == (shown or None)
        np.testing.assert_array_equal(again.Theta, model.Theta)
        label = again.predict(X, backend="cpu", precision="fp64")
    expected = model.predict(X, backend="cpu", precision="fp64")
    if targets.kind == "real":
        np.testing.assert_allclose(label.reshape(expected.shape), expected, rtol=1e-5, atol=1e-6)
    else:
        assert (label == expected).mean() > 0.99 and label.shape == expected.shape


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize(
    ("scaling", "missing"), [(NONE, "error"), (BYTES, "mean"), (NONE, "drop"), (None, "drop"), (None, "error")]
)
def test_every_scaling_and_rule_in_onnxruntime(scaling, missing, precision, tmp_path):
    model = model_of("sigmoid", scaling=scaling or model_of().scaling, missing=missing, hidden=(4,))
    dtype = np.dtype("f4" if precision == "fp32" else "f8")
    X = rows_like(model, dtype, 300)
    assert np.isnan(X).any() == (missing == "mean")
    export(model, tmp_path / "m.onnx", precision=precision)
    h = onnx_answers(tmp_path / "m.onnx", X)["probability"]
    assert h.dtype == dtype
    assert np.abs(h - h_of(model, X)).max() < (1e-6 if precision == "fp32" else 1e-13)
    if missing != "mean":  # no gap is filled that the model would refuse
        X[3, 1] = np.nan
        h = onnx_answers(tmp_path / "m.onnx", X)["probability"]
        assert np.isnan(h[3]).all() and np.isfinite(np.delete(h, 3, axis=0)).all()


@pytest.mark.parametrize("activation", sorted({a for a, _ in PAIRS}))
def test_float64_in_onnxruntime(activation, tmp_path):
    model = model_of(activation)
    X = rows_like(model, np.dtype("f8"), 300)
    export(model, tmp_path / "m.onnx", precision="fp64")
    assert np.abs(onnx_answers(tmp_path / "m.onnx", X)["probability"] - h_of(model, X)).max() < 1e-12


def test_the_description_travels_in_every_file(tmp_path):
    """Beside the numbers: of ONNX in the metadata, of safetensors too, whose values lie at multiples of 8 bytes."""
    model = model_of(select=("columns=0:6",))
    export(model, tmp_path / "m.onnx")
    export(model, tmp_path / "m.safetensors")
    session = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "m.onnx")
    with pytest.importorskip("safetensors").safe_open(tmp_path / "m.safetensors", "np") as file:
        metadata = file.metadata()
    header = int.from_bytes((tmp_path / "m.safetensors").read_bytes()[:8], "little")
    assert metadata["format"] == "pt" and header % 8 == 0
    about = json.loads(session.get_modelmeta().custom_metadata_map["gpubp"])
    assert about == json.loads(metadata["gpubp"])
    assert about["classes"] == ["cat", "dog", "ä fox"] and about["select"] == ["columns=0:6"]
    for name, values in {"mean": model.scaling.mean, "scale": model.scaling.scale, "fill": model.fill}.items():
        assert values is not None and about[name] == values.tolist()


def test_a_mean_far_from_zero_loses_no_digits(tmp_path):
    """Taken off in float32 in one piece, a mean of 10^5 deviations would leave an error of 1e-3."""
    scaling = Scaling("standard", np.full(S, 123456.789), np.ones(S))
    model = model_of("tanh", "softmax", scaling=scaling, missing="error")
    X = rows_like(model, np.dtype("f4"), ROWS)
    export(model, tmp_path / "m.onnx")
    near(onnx_answers(tmp_path / "m.onnx", X)["probability"], h_of(model, X))


def test_a_network_without_a_hidden_layer_and_any_number_of_rows(tmp_path):
    model = model_of("relu", "squares", hidden=(), missing="error")
    export(model, tmp_path / "m.onnx")
    for rows in (0, 1, 7):
        X = rows_like(model, np.dtype("f4"), rows)
        h = onnx_answers(tmp_path / "m.onnx", X)["prediction"]
        assert len(h) == rows and (np.abs(h - h_of(model, X)) <= NEAR * np.maximum(1, np.abs(h))).all()
