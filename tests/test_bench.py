"""`gpubp bench`: the answer is checked, the record is whole, advice is given where it applies. No time is asserted."""

from __future__ import annotations

import platform
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpubp
from gpubp import bench as room
from gpubp.backend import blas, compiled
from gpubp.backend.cores import available_cores
from gpubp.backend.numpy import NumpyBackend
from gpubp.bench import advice, bench, meter, passes, products
from gpubp.errors import BackendError, UsageError

NETWORK = gpubp.Network((6, 5, 4, 3), "tanh", "softmax")
RECORD = (
    "network parameters activation cost rows precision engine kernel cores checked first_pass_s threads most_threads "
    "passes pass_s spread rows_per_s gflops limit of_products one_thread others advice"
)
has_numba = pytest.mark.skipif(bool(compiled.missing()), reason="numba is not installed")


@pytest.fixture
def short(monkeypatch):
    """No pauses; passes of any length."""
    monkeypatch.setattr(meter, "PAUSE", 0)
    monkeypatch.setattr(room, "PASS", 1e-3)


def run(network: gpubp.Network = NETWORK, **options: Any) -> dict[str, Any]:
    """The record of a run that takes a moment."""
    return bench(network, **{"rows": 40, "seconds": 1e-3, "backend": "cpu", "kernel": "numpy", **options})


# The command


def test_json_is_one_object_with_every_field(gpubp_command):
    options = ["--layers", "6,5,4,3", "--rows", 300, "--seconds", 0.01, "--backend", "cpu"]
    done = gpubp_command("bench", *options, "--threads", 1, "--json")
    found = done.json
    assert set(RECORD.split()) <= set(found)
    assert found["network"] == "6-5-4-3" and found["parameters"] == 74 and found["rows"] == 300
    assert (found["activation"], found["cost"], found["precision"]) == ("sigmoid", "logistic", "fp32")
    assert found["checked"]["rows"] == 300 and found["checked"]["J_error"] < 1e-4
    assert found["threads"] == 1 and found["one_thread"] is None and found["cores"] == available_cores()
    assert min(found["pass_s"], found["limit"]["s"], found["first_pass_s"], found["passes"]) > 0
    assert found["of_products"] == pytest.approx(found["pass_s"] / found["limit"]["s"])
    assert found["rows_per_s"] == pytest.approx(300 / found["pass_s"])
    assert found["limit"]["by"] in found["limit"]["all_s"]
    assert "right on 300 rows" in done.stderr


def test_a_person_gets_lines(gpubp_command):
    numpy = ["--backend", "cpu", "--kernel", "numpy"]
    text = gpubp_command("bench", "--layers", "6,5,1", "--rows", 30, "--seconds", 0.01, *numpy).stdout
    for word in ("6-5-1", "30 random ones", "right: on 30 rows", "rows per second", "of that time", "faster:"):
        assert word in text
    assert "--kernel numpy was asked for" in text or "numba is not installed" in text


MISTAKES = {
    "--layers 6": "at least an input and an output layer",
    "--layers 6,0,3": "1 or more units",
    "--layers 6,x": "28,64,64,1",
    "--layers 6,1 --cost softmax": "2 or more outputs",
    "--activation relu6": "leaky_relu",
    "--cost hinge": "softmax",
    "--rows 0": "--rows",
    "--rows 1000000000000": "take fewer rows",
    "--seconds 0": "more than 0",
    "--threads 0": "--threads",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_line(words, tmp_path, capsys):
    from gpubp.cli import main

    with pytest.raises(SystemExit) as end:
        main(["bench", *words.split()])
    out, err = capsys.readouterr()
    assert end.value.code == 2 and not out
    assert err.startswith("gpubp: error: ") and err.count("\n") == 1 and MISTAKES[words] in err, err


@pytest.mark.parametrize(
    "options", [{"rows": 0}, {"seconds": 0}, {"seconds": float("nan")}, {"precision": "bf16"}, {"backend": "tpu"}]
)
def test_python_refuses_the_same(options):
    with pytest.raises(UsageError):
        run(**options)


# What is timed


@pytest.mark.parametrize(
    "activation, cost", [("gelu", "squares"), ("relu", "sigmoid_squares"), ("sigmoid", "logistic")]
)
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize("kernel", ["numpy", pytest.param("compiled", marks=has_numba)])
def test_every_kind_of_network_is_right(short, kernel, precision, activation, cost):
    found = run(gpubp.Network((6, 5, 1), activation, cost), precision=precision, kernel=kernel)
    assert found["kernel"] == kernel and found["checked"]["gradient_error"] <= passes.TOLERANCE[precision]


def test_without_rows_there_are_as_many_as_a_pass_has_time_for(short):
    m = run(rows=None)["rows"]
    assert str(m).strip("0") in ("1", "2", "5") and m >= 100


def test_large_rows_are_few(monkeypatch):
    assert room._checked_rows(gpubp.Network((10**6, 2)), None) < room.MOST_CHECKED
    assert room._checked_rows(gpubp.Network((10**6, 2)), 3) == 3
    monkeypatch.setattr(room, "available_memory", lambda: 10**6)
    with pytest.raises(UsageError, match=r"1,000 rows and 3,003 parameters .* take fewer rows"):
        run(gpubp.Network((1000, 3)), rows=1000)


def test_the_limit_is_taken_on_fewer_rows_where_layers_do_not_fit(short, monkeypatch):
    monkeypatch.setattr(room, "FEW_ROWS", 16)
    monkeypatch.setattr(room, "layer_bytes", lambda *_: 1 << 60)
    limit = run()["limit"]
    assert limit["rows"] == 16
    assert limit["gflops"] == pytest.approx(1e-9 * 40 * products.flops(NETWORK.sizes) / limit["s"])


def test_operations_are_those_of_the_products():
    # by hand: z² and Δ¹ 2·6·5 each; z³, Δ², δ² 2·5·4 each; z⁴, Δ³, δ³ 2·4·3 each
    assert products.flops((6, 5, 4, 3)) == 2 * 60 + 3 * 40 + 3 * 24


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 3])
def test_each_way_multiplies_what_a_pass_multiplies(dtype, threads):
    """Each way's outputs against the plain products, Δ summed over the threads' shares."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 6)).astype(dtype)
    made = products.Products(NETWORK, X, threads)
    a, delta = [X], [made._delta[-1].copy()]
    for W in made._W:
        a.append(a[-1] @ W.T)
    for W in made._W[:0:-1]:
        delta.insert(0, delta[0] @ W)
    try:
        libraries = list(blas.available())
        ways = list(made.ways(libraries))
        assert [way.library for way in ways] == ["", *libraries]
        for way in ways:
            shares = made._shares if way.library else [made._whole]
            for product in (product for share in shares for product in share):
                product.out[...] = np.nan
            with way.context():
                way.call()
            for found, expected in zip([*made._a, *made._delta], [*a, *delta], strict=True):
                np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
            # Δ, which are computed from right to left
            Deltas = [[product.out for product in share if product.transpose == "tn"] for share in shares]
            sums = [sum(outs) for outs in zip(*Deltas, strict=True)]
            for l, Delta in enumerate(reversed(sums)):
                np.testing.assert_allclose(Delta, delta[l].T @ a[l], rtol=1e-3, atol=1e-4)
    finally:
        made.close()


@pytest.mark.parametrize("threads, rows", [(2, 400), (8, 200)])
def test_one_thread_is_measured_beside_many(short, monkeypatch, threads, rows):
    monkeypatch.setattr(NumpyBackend, "leaves_and_block", lambda *_: (8, 64))  # work for all, however little
    monkeypatch.setattr(NumpyBackend, "owners_for", lambda self, *_: self.owners)
    monkeypatch.setattr(room, "available_cores", lambda: threads)
    found = run(threads=threads, rows=400)
    one = found["one_thread"]
    assert found["threads"] == found["most_threads"] == threads and one["rows"] == rows
    assert one["speedup"] == pytest.approx(found["rows_per_s"] / one["rows_per_s"])


def test_the_blas_threads_are_as_before(short):
    before = [library.threads() for library in blas.loaded()]
    run(threads=2)
    assert [library.threads() for library in blas.loaded()] == before


# A wrong answer is no figure


class Wrong(NumpyBackend):
    """Adds a little to every sum of costs."""

    def total(self, formula: Any, *inputs: Any, out: np.ndarray) -> None:
        super().total(formula, *inputs, out=out)
        out += 0.1


class Restless(NumpyBackend):
    """Other bits in each pass: of the costs, or of the gradient alone."""

    least, passes = 0, 0

    def to_host(self, array: np.ndarray) -> np.ndarray:
        self.passes += 1
        return array * (1 + 1e-6 * self.passes) if array.size >= self.least else array


class RestlessGradient(Restless):
    least = 3


@pytest.mark.parametrize(
    "kind, words",
    [(Wrong, "J of 40 rows is .* from plain NumPy's"), (Restless, "in another"), (RestlessGradient, "J or ∇J differ")],
)
def test_a_wrong_answer_is_an_error(short, monkeypatch, kind, words):
    monkeypatch.setattr(room, "choose", lambda *_, **__: (kind(1), ""))
    with pytest.raises(BackendError, match=words):
        run(precision="fp64" if kind is Wrong else "fp32")


# A GPU


class Device(NumpyBackend):
    """A GPU to those who ask."""

    kind: Any = "gpu"
    choice: dict[str, str] = {}  # noqa: RUF012


def test_a_gpu_is_measured_and_its_limit_is_not(short, monkeypatch):
    monkeypatch.setattr(room, "choose", lambda *_, **__: (Device(1), "a GPU"))
    found = run(backend="gpu", kernel="auto", precision="fp64")
    assert found["limit"] is found["of_products"] is found["one_thread"] is None
    assert found["rows_per_s"] > 0 and len(found["advice"]) == 1  # of fp64
    from gpubp.cli.bench import _text

    assert "measured only for the CPU" in _text(found)


# Advice


def facts(**more: Any) -> advice.Facts:
    """A compiled engine on all cores, of MKL: nothing to be said."""
    engine: Any = SimpleNamespace(
        kind="cpu", choice={"kernel": "compiled", "blas": "mkl"}, owners=more.pop("owners", available_cores())
    )
    return replace(advice.Facts(engine, "CPU, as asked"), **more)


@pytest.fixture
def all_there(monkeypatch, tmp_path):
    """numba and MKL are installed; there is no GPU."""
    monkeypatch.setattr(compiled, "missing", lambda: "")
    monkeypatch.setattr(blas, "available", lambda: {"mkl": "MKL", "numpy": "OpenBLAS"})
    monkeypatch.setattr(advice, "gpu_status", lambda device: (False, "CuPy is not installed"))
    monkeypatch.setattr(advice, "DRIVER", tmp_path / "none")


def test_where_nothing_is_known_nothing_is_said(all_there):
    assert advice.advise(facts()) == []
    assert advice.advise(facts(products={"mkl": 1.0, "numpy": 0.99})) == []


def test_a_faster_blas_is_named_with_what_was_measured(all_there):
    (line,) = advice.advise(facts(products={"mkl": 1.0, "numpy": 0.8}))
    assert "--blas numpy" in line and "0.80" in line


def test_mkl_is_named_where_it_is_missing(all_there, monkeypatch):
    monkeypatch.setattr(blas, "available", lambda: {"numpy": "OpenBLAS"})
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    (line,) = advice.advise(facts())
    assert "pip install 'gpubp[mkl]'" in line
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert advice.advise(facts()) == []


def test_a_loop_that_is_not_compiled_is_named(all_there, monkeypatch):
    plain: Any = SimpleNamespace(kind="cpu", choice={"kernel": "numpy"}, owners=available_cores())
    (line,) = advice.advise(facts(engine=plain, kernel="numpy"))
    assert "--kernel numpy was asked for" in line
    (line,) = advice.advise(facts(engine=plain, how="CPU, because X; NumPy with Y, because Y has no cblas_sgemm"))
    assert line == "passes are not compiled: Y has no cblas_sgemm"
    monkeypatch.setattr(compiled, "missing", lambda: "numba is not installed (pip install 'gpubp[cpu]')")
    for kernel in ("auto", "numpy"):
        (line,) = advice.advise(facts(engine=plain, kernel=kernel))
        assert "pip install 'gpubp[cpu]'" in line


def test_threads_and_precision_are_named(all_there, monkeypatch):
    monkeypatch.setattr(advice, "available_cores", lambda: 8)
    (line,) = advice.advise(facts(owners=3))
    assert "--threads 3" in line and "8 cores" in line and "all work" in line
    (line,) = advice.advise(facts(owners=9))
    assert "--threads 9" in line and "none waits" in line
    (line,) = advice.advise(facts(owners=8, precision="fp64"))
    assert "--precision fp32" in line


def test_a_busy_machine_is_named_where_it_was_in_the_way(all_there, monkeypatch):
    monkeypatch.setattr(advice, "_cores", lambda: 4)
    monkeypatch.setattr(advice, "available_cores", lambda: 3)
    assert advice.advise(facts(owners=3, others=0.9)) == []
    (line,) = advice.advise(facts(owners=3, others=1.2))
    assert "1.2 cores busy" in line


def test_a_gpu_that_is_not_used_is_named(all_there, monkeypatch, tmp_path):
    driver = tmp_path / "version"
    driver.write_text("NVRM version: NVIDIA UNIX")
    monkeypatch.setattr(advice, "DRIVER", driver)
    (line,) = advice.advise(facts())
    assert "driver is here" in line and "CuPy is not installed" in line
    monkeypatch.setattr(advice, "gpu_status", lambda device: (True, "H100"))
    (line,) = advice.advise(facts())
    assert "--backend gpu" in line and "H100" in line


@has_numba
def test_the_advice_reaches_the_record(short):
    assert any("--kernel numpy was asked for" in line for line in run()["advice"])
