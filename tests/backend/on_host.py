"""Kernels of formulas, run on the CPU: the text that CUDA gets, compiled by the host's compiler."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from column_major import ColumnMajor

from gpubp.backend import cublas, kernels
from gpubp.backend.numpy import NumpyBackend
from gpubp.formula import Formula, plus

COMPILER = shutil.which("g++") or shutil.which("clang++")
STORED = "?bBhHiIlLefd"  # every type in which rows may be stored
FEW_STORED = "Bilefd"
WIDE = ("tanh_g", "logistic_cell", "softmax_score")  # one of each shape is also tested with 64-bit indices


class HostKernels:
    """A library of kernels built once, and `apply` and `total` as a GPU would run them."""

    def __init__(self, built: Sequence[kernels.Kernel], folder: Path) -> None:
        text = '#include "cuda_on_host.hpp"\n' + kernels.program(*built)
        for kernel in built:
            pointers = sum(type.endswith("*") for type in kernel.parameters)
            arguments = [
                f"({type})pointers[{i}]" if i < pointers else f"numbers[{i - pointers}]"
                for i, type in enumerate(kernel.parameters)
            ]
            text += (
                f'extern "C" void run_{kernel.name}(unsigned blocks, void** p, long long* n) {{\n'
                f"  pointers = p, numbers = n;\n"
                f"  launch(blocks, {kernels.THREADS}, [] {{ {kernel.name}({', '.join(arguments)}); }});\n}}\n"
            )
        path = folder / "kernels.cpp"
        path.write_text(text)
        library = folder / "kernels.so"
        here = Path(__file__).parent
        command = [COMPILER or "", "-std=c++17", "-O1", "-w", "-shared", "-fPIC", f"-I{here}", "-o", library, path]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        self._library = ctypes.CDLL(str(library))

    def apply(
        self, formula: Formula, *inputs: np.ndarray, out: np.ndarray, wide: bool = False, blocks: int | None = None
    ) -> None:
        """As a backend's; `wide` and `blocks` override what is planned."""
        launch = kernels.plan(formula, [*inputs, out])
        kernel = kernels.source(formula, launch.types, wide=wide)
        self._run(kernel, launch.blocks if blocks is None else blocks, [*inputs, out], launch.numbers)

    def total(self, formula: Formula, *inputs: np.ndarray, out: np.ndarray, wide: bool = False) -> None:
        """As a backend's; `wide` overrides what is planned."""
        launch = kernels.plan(formula, inputs)
        kernel = kernels.source(formula, launch.types, wide=wide)
        partials = np.full(launch.blocks, np.nan)
        self._run(kernel, launch.blocks, [*inputs, partials], launch.numbers)
        self.sum(partials, out)

    def sum(self, partials: np.ndarray, out: np.ndarray) -> None:
        """The second stage of `total`."""
        self._run(kernels.sum_source(), 1, [partials, out], (len(partials),))

    def _run(self, kernel: kernels.Kernel, blocks: int, arrays: Sequence[Any], numbers: Sequence[int]) -> None:
        assert len(arrays) + len(numbers) == len(kernel.parameters)
        pointers = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
        integers = (ctypes.c_longlong * len(numbers))(*numbers)
        getattr(self._library, f"run_{kernel.name}")(ctypes.c_uint(blocks), pointers, integers)


class HostBackend(NumpyBackend):
    """What the GPU does, on the CPU: the same kernels, launches and cuBLAS arguments, on host memory."""

    def __init__(self, built: HostKernels) -> None:
        super().__init__(threads=1)
        self.apply, self.total = built.apply, built.total
        self._cublas = cublas.Cublas(ColumnMajor(), None, 0)

    def gemm(self, a: Any, b: Any, out: Any, *, transpose: str = "nn", beta: int = 0) -> None:
        matrices = (cublas.Matrix(array.ctypes.data, *array.shape) for array in (a, b, out))
        self._cublas.gemm(*matrices, out.dtype.name, transpose=transpose, beta=beta)

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        self.apply(plus, a, b, out=a)

    def upload(self, host: np.ndarray) -> np.ndarray:
        return host.copy(order="C")  # what the device has is contiguous


def variants(formula: Formula, *, stored: str = FEW_STORED, passes: str = "fd") -> list[list[np.dtype]]:
    """The dtypes a formula is used with: for each pass type, and for each of `stored` where an argument is `S`."""
    fixed = {"double": np.dtype(np.float64), "int": np.dtype(np.int32)}
    arguments = formula.inputs if formula.shape == "total" else (*formula.inputs, formula.output)
    takes = any(argument.type == "S" for argument in arguments)
    return [
        [{"T": np.dtype(T), "S": np.dtype(S), **fixed}[argument.type] for argument in arguments]
        for T in passes
        for S in (stored if takes else "f")
    ]
