"""Θ as other programs write it, read by their conventions; and files that are damaged at random."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported_models import model_of

from gpubp.errors import DataError, GpubpError
from gpubp.exporting import export
from gpubp.theta_files import model_of as meant
from gpubp.theta_files import read

RNG = np.random.default_rng(12)
X = RNG.normal(size=(60, 4))
THETA = [RNG.normal(size=(5, 5)), RNG.normal(size=(3, 6))]


def same(path: Path, expected: list[np.ndarray] = THETA, rtol: float = 0.0) -> None:
    found = read(path)
    assert found.model is None and len(found.Theta) == len(expected)
    for one, other in zip(found.Theta, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol)


def test_octave_text(tmp_path):
    """As Octave's `save FILE Theta1 Theta2` writes them (libinterp/octave-value/ov-re-mat.cc)."""
    text = "# Created by Octave 8.4.0, Mon Jan 01 10:00:00 2024 UTC <me@here>\n"
    for l, Theta in enumerate(THETA, start=1):
        rows = "\n".join(" " + " ".join(map(repr, row)) for row in Theta.tolist())
        text += f"# name: Theta{l}\n# type: matrix\n# rows: {Theta.shape[0]}\n# columns: {Theta.shape[1]}\n{rows}\n\n\n"
    (tmp_path / "t.txt").write_text(text)
    same(tmp_path / "t.txt")
    (tmp_path / "t.txt").write_text(text.replace("# rows: 5", "# rows: 6"))
    with pytest.raises(DataError, match="'Theta1' has 25 values"):
        read(tmp_path / "t.txt")


@pytest.mark.parametrize("activation", ["logistic", "tanh", "relu", "identity"])
def test_what_scikit_learn_has_trained_answers_as_there(activation, tmp_path):
    neural_network = pytest.importorskip("sklearn.neural_network")
    y = np.arange(60) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it does not converge in so few iterations
        mlp = neural_network.MLPClassifier(hidden_layer_sizes=(6, 5), activation=activation, max_iter=5).fit(X, y)
        regressor = neural_network.MLPRegressor(
            hidden_layer_sizes=(4,), activation=activation, max_iter=5, random_state=0
        ).fit(X, X[:, :2])
    for one, cost in ((mlp, "softmax"), (regressor, "squares")):
        names = {f"coefs_{l}": W for l, W in enumerate(one.coefs_)} | {
            f"intercepts_{l}": b for l, b in enumerate(one.intercepts_)
        }
        np.savez(tmp_path / "m.npz", **names)
        model = meant(
            read(tmp_path / "m.npz"), activation={"logistic": "sigmoid"}.get(activation, activation), cost=cost
        )
        ours = model.predict_proba(X, backend="cpu", precision="fp64")
        np.testing.assert_allclose(ours, one.predict_proba(X) if cost == "softmax" else one.predict(X), atol=1e-12)


def test_linear_layers_in_their_order(tmp_path):
    safe = pytest.importorskip("safetensors.numpy")
    wide = [RNG.normal(size=(4, 5)) for _ in range(12)]
    layers = {f"net.{2 * l}.weight": np.ascontiguousarray(T[:, 1:]) for l, T in enumerate(wide)}
    layers |= {f"net.{2 * l}.bias": T[:, 0].copy() for l, T in enumerate(wide)}
    safe.save_file(layers, tmp_path / "m.safetensors")
    same(tmp_path / "m.safetensors", wide)
    without = {"fc1.weight": THETA[0][:, 1:].astype("f4"), "fc2.weight": THETA[1][:, 1:].astype("f4")}
    safe.save_file({name: np.ascontiguousarray(W) for name, W in without.items()}, tmp_path / "m.safetensors")
    same(tmp_path / "m.safetensors", [np.c_[np.zeros(len(T)), T[:, 1:]].astype("f4") for T in THETA])


def test_bfloat16_and_float16(tmp_path):
    bits = np.array([[0x3F80, 0xC000], [0x4040, 0x3E80]], "<u2")  # 1, −2, 3, 1/4
    header = {"0.weight": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]},
              "0.bias": {"dtype": "F16", "shape": [2], "data_offsets": [8, 12]}}  # fmt: skip
    (tmp_path / "b.safetensors").write_bytes(packed(header, bits.tobytes() + np.array([0.5, 7], "<f2").tobytes()))
    same(tmp_path / "b.safetensors", [np.array([[0.5, 1, -2], [7, 3, 0.25]])])


def packed(header: Any, values: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + values


GOOD = {"0.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "0.bias": {"dtype": "F32", "shape": [2], "data_offsets": [16, 24]}}  # fmt: skip


def but(name: str, **fields: Any) -> dict[str, Any]:
    return GOOD | {name: GOOD[name] | fields}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (but("0.bias", data_offsets=[8, 16]), "'0.bias' lies at 8 … 16 after 16 bytes"),
        (but("0.bias", data_offsets=[20, 28]), "'0.bias' lies at 20"),
        (but("0.bias", data_offsets=[-8, 0]), "impossible shape or place"),
        (but("0.bias", shape=[3]), "'0.bias' lies at"),
        (but("0.bias", shape=[2.0]), "impossible shape"),
        (but("0.bias", shape=[True]), "impossible shape"),
        (but("0.bias", dtype="F4"), "of type F4"),
        (but("0.weight", shape=[1 << 62, 1 << 62]), "lies at"),
        (but("0.bias", more=1), "no dtype, shape and data_offsets"),
        ({"0.weight": GOOD["0.weight"]}, "16 bytes of tensors where 24 are"),
        (GOOD | {"__metadata__": {"a": 1}}, "its metadata are no texts"),
        (GOOD | {"running_mean": {"dtype": "F32", "shape": [0], "data_offsets": [24, 24]}}, "holds 'running_mean'"),
        ({"a.weight": GOOD["0.weight"], "0.bias": GOOD["0.bias"]}, "has '0.bias' and no '0.weight'"),
        (b'{"a": 1, "a": 1}', "a name stands there twice"),
        (b"{" + b"[" * 100_000, "its header is no JSON"),
    ],
)  # fmt: skip
def test_safetensors_that_lie(header, words, tmp_path):
    (tmp_path / "m.safetensors").write_bytes(packed(header, bytes(24)))
    with pytest.raises(DataError, match=words):
        read(tmp_path / "m.safetensors")
    (tmp_path / "m.safetensors").write_bytes(packed(GOOD, bytes(24)))
    assert read(tmp_path / "m.safetensors").sizes == (2, 2)


def test_a_state_dict_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; `pip install torch` adds this test")
    nn = torch.nn
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    torch.save(module.state_dict(), tmp_path / "m.pt")
    h = meant(read(tmp_path / "m.pt"), activation="tanh", cost="squares").predict(X, backend="cpu", precision="fp64")
    np.testing.assert_allclose(h, module(torch.from_numpy(X)).detach().numpy(), rtol=1e-12, atol=1e-12)
    torch.save(module, tmp_path / "m.pt")
    with pytest.raises(DataError, match="cannot be read by PyTorch"):
        read(tmp_path / "m.pt")
    torch.save({"a": 1}, tmp_path / "m.pt")
    with pytest.raises(DataError, match="holds no state_dict"):
        read(tmp_path / "m.pt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "format 2; wanted format 1; read it with a newer gpubp"), ({"sizes": [6, 5, 5, 3]}, "Theta"),
        ({"sizes": 3}, "layer sizes|damaged"), ({"activation": "gelo"}, "activation 'gelo'"), ({"cost": None}, "cost"),
        ({"classes": ["b", "a", "c"]}, "classes that are no labels"), ({"classes": ["a", 1, 2]}, "no labels"),
        ({"classes": None}, "classes"), ({"kind": "x"}, "kind 'x'"), ({"scaling": "auto"}, "scaling 'auto'"),
        ({"missing": "median"}, "missing = 'median'"), ({"select": ["rows"]}, "--select rows"),
        ({"lambda": "x"}, "damaged"),
        ({"mean": [1, 2]}, "mean has not one finite number"), ({"scale": [0] * 6}, "scale that is not positive"),
        ({"scale": None}, "one finite number"), ({"fill": [float("nan")] * 6}, "fill has not one finite number"),
    ],
)  # fmt: skip
def test_descriptions_that_gpubp_did_not_write(change, words, tmp_path):
    path = tmp_path / "m.safetensors"
    export(model_of(), path)
    image = path.read_bytes()
    end = 8 + int.from_bytes(image[:8], "little")
    header = json.loads(image[8:end])
    about = json.loads(header["__metadata__"]["gpubp"])
    header["__metadata__"]["gpubp"] = json.dumps(about | change)
    path.write_bytes(packed(header, image[end:]))
    with pytest.raises(GpubpError, match=words) as error:
        read(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize("name", ["npz", "mat", "safetensors", "json"])
def test_damaged_files_are_read_or_refused_in_one_line(name, tmp_path):
    """500 files in all: bytes changed, taken out, doubled, cut off."""
    path = tmp_path / "m"
    if name == "json":
        path.write_text(json.dumps({"Theta": [Theta.tolist() for Theta in THETA]}))
    else:
        export(model_of(hidden=(2,)), path, name, precision="fp32")
    image, refused = path.read_bytes(), 0
    rng = np.random.default_rng(5)
    for _ in range(125):
        bad = bytearray(image)
        for _ in range(int(rng.integers(1, 4))):
            at, length = int(rng.integers(len(bad))), int(rng.integers(1, 16))
            kind = rng.integers(4)
            if kind == 0:
                bad[at] = int(rng.integers(256))
            elif kind == 1:
                del bad[at : at + length]
            elif kind == 2:
                bad[at:at] = bad[at : at + length]
            else:
                del bad[max(at, 9) :]
        path.write_bytes(bad)
        try:
            read(path)
        except GpubpError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 600 + 2 * len(str(path))
    assert refused > 60
