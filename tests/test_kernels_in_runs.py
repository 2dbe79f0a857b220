"""Which kernel and which BLAS a run takes, from the command line to the checkpoint and back."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import write
from test_run import contents

import gpubp
from gpubp.backend import blas, compiled
from gpubp.errors import BackendError, MismatchError
from gpubp.run import resume
from gpubp.run_folder import find_checkpoint

NO_NUMBA = compiled.missing()
needs_numba = pytest.mark.skipif(bool(NO_NUMBA), reason=NO_NUMBA)
needs_mkl = pytest.mark.skipif(bool(NO_NUMBA) or not blas._mkl_path(), reason="MKL is not installed (pip install mkl)")
OPTIONS: dict[str, Any] = {"hidden": (30,), "iterations": 12, "lambda_": 0.1}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """4,000 rows of 40 features in 3 classes: enough for several leaves and threads."""
    rng = np.random.default_rng(5)
    y = rng.integers(0, 3, 4000)
    X = rng.normal(size=(4000, 40)) + 0.2 * rng.normal(size=(3, 40))[y]
    return write(tmp_path / "table.h5", X=X.astype(np.float32), y=y)


def conditions(run: Path) -> dict[str, Any]:
    return find_checkpoint(run)[1].conditions


def job(run: Path) -> dict[str, Any]:
    return find_checkpoint(run)[1].job


@needs_numba
def test_both_kernels_train_and_reach_the_same(gpubp_command, digits, tmp_path):
    options = ["--hidden", 9, "--iterations", 30, "--precision", "fp64", "--json"]
    costs = {}
    for kernel in ("compiled", "numpy"):
        done = gpubp_command("train", digits, "--out", kernel, "--kernel", kernel, *options)
        costs[kernel] = done.json["cost"]
        assert conditions(tmp_path / kernel)["kernel"] == job(tmp_path / kernel)["kernel"] == kernel
        found = {"compiled": "; compiled loop, ", "numpy": "; NumPy with "}[kernel]
        assert found in done.stderr.splitlines()[0], done.stderr
        assert gpubp_command("evaluate", kernel, digits, "--json").json["accuracy"] > 0.6
        assert gpubp_command("check", kernel, digits, "--json").returncode == 0
    assert costs["compiled"] == pytest.approx(costs["numpy"], rel=1e-6)
    assert contents(tmp_path / "compiled")["Theta"] != contents(tmp_path / "numpy")["Theta"]
    assert conditions(tmp_path / "compiled").keys() >= {"numba", "cpu", "blas", "leaves", "block_rows"}


@needs_numba
@pytest.mark.parametrize("kernel", ["numpy", "compiled"])
def test_a_run_keeps_its_kernel_although_the_default_is_another(gpubp_command, digits, tmp_path, kernel):
    """train 20 = train 10, resume to 20 without a word about kernels."""
    other = {"numpy": "compiled", "compiled": "numpy"}[kernel]
    options = ["--hidden", 9, "--kernel", kernel]
    gpubp_command("train", digits, "--out", "whole", "--iterations", 20, *options)
    gpubp_command("train", digits, "--out", "half", "--iterations", 10, *options)
    # not even the environment, which steers `train`, changes what a run is
    gpubp_command("resume", "half", "--iterations", 20, env={"GPUBP_TRAIN_KERNEL": other})
    assert contents(tmp_path / "half") == contents(tmp_path / "whole")
    assert conditions(tmp_path / "half") == conditions(tmp_path / "whole")
    assert conditions(tmp_path / "half")["kernel"] == kernel
    steered = gpubp_command("train", digits, "--out", "steered", "--iterations", 1, env={"GPUBP_TRAIN_KERNEL": kernel})
    assert steered.returncode == 0 and conditions(tmp_path / "steered")["kernel"] == kernel


@needs_mkl
def test_a_run_keeps_its_blas_although_the_default_is_another(gpubp_command, digits, tmp_path):
    for library, title in (("numpy", blas.describe()), ("mkl", blas.find("mkl").describe())):
        options = ["--hidden", 9, "--blas", library]
        gpubp_command("train", digits, "--out", f"whole-{library}", "--iterations", 20, *options)
        gpubp_command("train", digits, "--out", library, "--iterations", 10, *options)
        gpubp_command("resume", library, "--iterations", 20)
        assert contents(tmp_path / library) == contents(tmp_path / f"whole-{library}")
        assert conditions(tmp_path / library)["blas"] == title and job(tmp_path / library)["blas"] == library
    gpubp_command("train", digits, "--out", "auto", "--iterations", 1)
    assert job(tmp_path / "auto")["blas"] == "mkl"


@needs_numba
def test_what_auto_took_is_what_a_run_is_resumed_with(digits, tmp_path, monkeypatch):
    """It is stored by its name: by the time of the resume MKL may have been installed."""
    gpubp.train(digits, out=tmp_path / "whole", blas="numpy", **OPTIONS)
    with monkeypatch.context() as without_mkl:
        without_mkl.setattr(blas, "_mkl_path", lambda: "")
        gpubp.train(digits, out=tmp_path / "half", **(OPTIONS | {"iterations": 5}))
    assert job(tmp_path / "half")["kernel"] == "compiled" and job(tmp_path / "half")["blas"] == "numpy"
    resume(tmp_path / "half", iterations=12)
    assert contents(tmp_path / "half") == contents(tmp_path / "whole")


@pytest.mark.parametrize("kernel", [pytest.param("compiled", marks=needs_numba), "numpy"])
def test_threads_change_no_bit_of_a_run(gpubp_command, table, tmp_path, kernel):
    options = ["--hidden", 300, "--iterations", 6, "--kernel", kernel, "--validation", 0.1]
    for threads in (1, 3):
        gpubp_command("train", table, "--out", f"by {threads}", "--threads", threads, *options)
    assert conditions(tmp_path / "by 3")["leaves"] >= 2, "one leaf is by one thread anyhow"
    assert contents(tmp_path / "by 1") == contents(tmp_path / "by 3")
    # a resume may have other threads
    gpubp_command("resume", "by 1", "--iterations", 10, "--threads", 2)
    gpubp_command("resume", "by 3", "--iterations", 10)
    assert contents(tmp_path / "by 1") == contents(tmp_path / "by 3")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--kernel", "fast"], "'fast' is not one of 'auto', 'fused', 'layered', 'compiled', 'numpy'"),
        (["--blas", "atlas"], "'atlas' is not one of 'auto', 'mkl', 'numpy'"),
        (["--threads", "0"], "'--threads': '0'; wanted a whole number, 1 or more; see"),
        (["--kernel", "numpy", "--blas", "mkl"], "MKL needs --kernel compiled"),
        (["--backend", "gpu", "--kernel", "numpy"], "take --backend cpu"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(gpubp_command, digits, tmp_path, options, words):
    refused = gpubp_command("train", digits, "--out", "run", *options, check=2)
    assert words in refused.error
    assert not (tmp_path / "run").exists()


def test_info_names_what_passes_can_be_computed_with(gpubp_command):
    told = gpubp_command("info", "--json").json
    libraries = blas.available()
    assert told["blas"] == [f"{title} (--blas {name})" for name, title in libraries.items()]
    assert told["compiled"] == (NO_NUMBA or "yes, by numba")
    assert told["mkl"] == libraries.get("mkl", "none: not installed (pip install 'gpubp[mkl]')")
    if not NO_NUMBA and told["gpu"].startswith("none"):
        assert told["auto takes"].endswith(f"compiled loop, {blas.find().describe()}")
    text = gpubp_command("info").stdout
    assert all(title in text for title in libraries.values())


# A run that comes to a machine with less.


@pytest.fixture
def without_numba(monkeypatch):
    """From the call on, numba is not installed."""
    find_spec = importlib.util.find_spec

    def leave() -> None:
        hidden = lambda name, *a: None if name == "numba" else find_spec(name, *a)  # noqa: E731
        monkeypatch.setattr(importlib.util, "find_spec", hidden)

    return leave


@needs_numba
def test_a_compiled_run_goes_on_without_numba_only_inexactly(digits, tmp_path, without_numba, caplog):
    gpubp.train(digits, out=tmp_path / "run", **OPTIONS)
    before = contents(tmp_path / "run")
    without_numba()
    with pytest.raises((BackendError, MismatchError), match="numba is not installed") as caught:
        resume(tmp_path / "run", iterations=15)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path / "run") == before
    model = resume(tmp_path / "run", iterations=15, inexact=True)
    assert model.history[-1]["iteration"] == 15
    assert "kernel was compiled, is numpy" in caplog.text
    assert conditions(tmp_path / "run")["kernel"] == job(tmp_path / "run")["kernel"] == "numpy"


@needs_numba
def test_the_refusal_names_what_resume_can_do(digits, tmp_path, without_numba):
    """`resume` has no --kernel."""
    gpubp.train(digits, out=tmp_path / "run", **OPTIONS)
    without_numba()
    with pytest.raises((BackendError, MismatchError), match="--inexact") as caught:
        resume(tmp_path / "run", iterations=15)
    assert "--kernel" not in str(caught.value)


@needs_mkl
def test_a_run_with_mkl_goes_on_without_it_only_inexactly(digits, tmp_path, monkeypatch):
    gpubp.train(digits, out=tmp_path / "run", blas="mkl", **OPTIONS)
    monkeypatch.setattr(blas, "_mkl_path", lambda: "")
    blas._mkl.cache_clear()
    try:
        with pytest.raises((BackendError, MismatchError), match="no MKL") as caught:
            resume(tmp_path / "run", iterations=15)
        assert "\n" not in str(caught.value)
        assert resume(tmp_path / "run", iterations=15, inexact=True).history[-1]["iteration"] == 15
        assert job(tmp_path / "run")["blas"] == "numpy"
    finally:
        blas._mkl.cache_clear()


@needs_numba
def test_a_numpy_run_stays_one_even_inexactly_where_nothing_differs(digits, tmp_path):
    """--inexact allows differences; it makes none."""
    gpubp.train(digits, out=tmp_path / "whole", kernel="numpy", **(OPTIONS | {"iterations": 15}))
    gpubp.train(digits, out=tmp_path / "run", kernel="numpy", **OPTIONS)
    resume(tmp_path / "run", iterations=15, inexact=True)
    assert conditions(tmp_path / "run")["kernel"] == "numpy"
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_arrays_train_with_the_kernel_that_is_named(digits):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 4))
    y = (X[:, 0] > 0).astype(int)
    model = gpubp.train(X, y, hidden=(5,), iterations=3, kernel="numpy", threads=1)
    assert model.job["kernel"] == "numpy" and model.job["threads"] == 1
    with pytest.raises(gpubp.GpubpError, match="kernel 'fast'"):
        gpubp.train(X, y, kernel="fast")
