"""The backends that every test of the contract runs on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import on_host
import pytest
from devices import gpu

from gpubp.backend import kernels
from gpubp.backend.numpy import NumpyBackend
from gpubp.formula import Formula


@pytest.fixture(scope="session")
def host_kernels(tmp_path_factory: pytest.TempPathFactory) -> on_host.HostKernels:
    """Every formula's kernel, built for the CPU by its compiler; once, since that takes seconds."""
    if on_host.COMPILER is None:
        pytest.skip("no C++ compiler (g++ or clang++)")
    built = [kernels.sum_source()]
    for formula in Formula.all:
        stored = on_host.STORED if formula.name == "cast" else on_host.FEW_STORED
        built += [kernels.source(formula, types) for types in on_host.variants(formula, stored=stored)]
    for formula in (f for f in Formula.all if f.name in on_host.WIDE):
        built += [kernels.source(formula, types, wide=True) for types in on_host.variants(formula, passes="f")]
    return on_host.HostKernels(built, tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the engine's kernels are built, once for all tests: see `gpu_on_host`."""
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(params=["cpu", "host", pytest.param("gpu", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> Iterator[Any]:
    """NumPy; the GPU's kernels and products on the CPU; the GPU. Entered: `guard` is active."""
    with make(request.param, request) as entered:
        yield entered


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def accelerator(request: pytest.FixtureRequest) -> Any:
    """What is compared with NumPy as a whole."""
    return make(request.param, request).backend


class make:
    """A backend as a context in which its calls are made."""

    def __init__(self, name: str, request: pytest.FixtureRequest) -> None:
        if name == "cpu":
            self.backend: Any = NumpyBackend(threads=2)
        elif name == "host":
            self.backend = on_host.HostBackend(request.getfixturevalue("host_kernels"))
        else:
            self.backend = gpu()

    def __enter__(self) -> Any:
        self._guard = self.backend.guard()
        self._guard.__enter__()
        return self.backend

    def __exit__(self, *error: Any) -> None:
        self._guard.__exit__(*error)
