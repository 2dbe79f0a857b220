"""The functions of cuBLAS that gpubp calls, as C functions on host memory, written from the library's own definition.

A matrix of leading dimension ld has element (i, j) at ``pointer[i + j·ld]``. Arguments pass through the C calling
convention, as in the real library, and every call is remembered.
"""

from __future__ import annotations

import ctypes
from ctypes import CFUNCTYPE, c_int, c_size_t, c_void_p
from typing import Any

import numpy as np

# cudaDataType of the product: its type, and what cuBLAS allows with it (cublasGemmEx in its manual): for each compute
# type the cudaDataType of the factors
_REAL = {0: (np.float32, {(68, 0), (69, 0), (77, 0), (68, 14)}), 1: (np.float64, {(70, 1), (71, 1)})}
_FAST_TF32, _BF16 = 77, 14
_INVALID_VALUE, _NOT_SUPPORTED = 7, 15


class ColumnMajor:
    """Stands in for the shared library that `ctypes.CDLL` would give."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fail_with = 0
        handle, matrix = c_void_p, (c_void_p, c_int, c_int)
        self.cublasCreate_v2 = CFUNCTYPE(c_int, ctypes.POINTER(c_void_p))(self._create)
        self.cublasDestroy_v2 = CFUNCTYPE(c_int, handle)(self._note("destroy"))
        self.cublasSetStream_v2 = CFUNCTYPE(c_int, handle, c_void_p)(self._note("stream"))
        self.cublasSetWorkspace_v2 = CFUNCTYPE(c_int, handle, c_void_p, c_size_t)(self._note("workspace"))
        self.cublasGetVersion_v2 = CFUNCTYPE(c_int, handle, ctypes.POINTER(c_int))(self._version)
        self._name = ctypes.create_string_buffer(b"CUBLAS_STATUS_OF_THE_TEST")
        self.cublasGetStatusName = CFUNCTYPE(c_void_p, c_int)(lambda status: ctypes.addressof(self._name))
        self.cublasGemmEx = CFUNCTYPE(
            c_int, handle, *[c_int] * 5, c_void_p, *matrix, *matrix, c_void_p, *matrix, c_int, c_int
        )(self._gemm)

    def _note(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append((name, *arguments))
            return 0

        return call

    def _create(self, out: Any) -> int:
        out[0] = 1234
        self.calls.append(("create",))
        return self.fail_with

    @staticmethod
    def _version(handle: int, out: Any) -> int:
        out[0] = 130205
        return 0

    def _gemm(
        self, handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int,
        A: int, typea: int, lda: int, B: int, typeb: int, ldb: int,
        beta: int, C: int, typec: int, ldc: int, compute: int, algorithm: int,
    ) -> int:  # fmt: skip
        self.calls.append(("gemm", m, n, k))
        if self.fail_with:
            return self.fail_with
        rows_a, rows_b = (k if transa else m), (n if transb else k)
        if handle != 1234 or lda < max(1, rows_a) or ldb < max(1, rows_b) or ldc < max(1, m):
            return _INVALID_VALUE
        if not (typea == typeb and (compute, typea) in _REAL[typec][1] and algorithm == -1):
            return _NOT_SUPPORTED
        dtype = _REAL[typec][0]
        stored = np.uint16 if typea == _BF16 else dtype
        a, b = _view(A, stored, rows_a, m if transa else k, lda), _view(B, stored, rows_b, k if transb else n, ldb)
        if typea == _BF16:
            a, b = ((x.astype(np.uint32) << 16).view(np.float32) for x in (a, b))
        elif compute == _FAST_TF32:
            words = (np.ascontiguousarray(x).view(np.uint32) for x in (a, b))
            a, b = (((x + 0x1000) & 0xFFFFE000).view(np.float32) for x in words)
        c = _view(C, dtype, m, n, ldc)
        product = _view(alpha, dtype, 1, 1, 1)[0, 0] * ((a.T if transa else a) @ (b.T if transb else b))
        factor = _view(beta, dtype, 1, 1, 1)[0, 0]
        c[...] = product if factor == 0 else product + factor * c  # β = 0: C need not hold numbers
        return 0


def _view(pointer: int, dtype: Any, rows: int, columns: int, ld: int) -> np.ndarray:
    """The column-major matrix at an address."""
    itemsize = np.dtype(dtype).itemsize
    memory = memoryview((ctypes.c_char * (ld * columns * itemsize)).from_address(pointer))
    return np.ndarray((rows, columns), dtype, memory, strides=(itemsize, ld * itemsize))
