"""cuBLAS by ctypes: one handle, one stream, our own workspace, so that a product gives the same bits in every run.

CuPy's products have no β, copy operands without a word, and cannot be captured into a graph; its own library, called
directly, has none of these limits. NVIDIA promises the same bits for one version on GPUs of one kind as long as one
stream is active or each has a workspace of its own ("Results reproducibility" in the cuBLAS documentation).

This file knows pointers and shapes and nothing of an array library.
"""

from __future__ import annotations

import ctypes
import weakref
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int, c_size_t, c_void_p
from typing import Any, NamedTuple

from ..errors import BackendError
from .cuda import failures

WORKSPACE_BYTES = 32 << 20  # what cuBLAS recommends for Hopper; older devices need less

# Numbers of cublas_api.h and library_types.h for each kind of product: (cudaDataType of the factors, of the product,
# cublasComputeType_t, type of α and β). 68 and 70 are CUBLAS_COMPUTE_32F and _64F, at least the precision asked for and
# so never TF32; 77 is CUBLAS_COMPUTE_32F_FAST_TF32. Products of bfloat16 come out in float32.
_PRODUCTS = {
    "float32": (0, 0, 68, c_float),
    "float64": (1, 1, 70, c_double),
    "tf32": (0, 0, 77, c_float),
    "bf16": (14, 0, 68, c_float),
}
_DEFAULT_ALGORITHM = -1  # CUBLAS_GEMM_DEFAULT
_OPERATION = {"n": 0, "t": 1}  # CUBLAS_OP_N, CUBLAS_OP_T

_SIGNATURES = {
    "cublasCreate_v2": [POINTER(c_void_p)],
    "cublasDestroy_v2": [c_void_p],
    "cublasSetStream_v2": [c_void_p, c_void_p],
    "cublasSetWorkspace_v2": [c_void_p, c_void_p, c_size_t],
    "cublasGetVersion_v2": [c_void_p, POINTER(c_int)],
    "cublasGemmEx": [
        *(c_void_p, c_int, c_int),  # handle, operation on A, on B
        *(c_int, c_int, c_int),  # m, n, k
        *(c_void_p, c_void_p, c_int, c_int),  # α, A, its type, its leading dimension
        *(c_void_p, c_int, c_int),  # B
        *(c_void_p, c_void_p, c_int, c_int),  # β, C
        *(c_int, c_int),  # compute type, algorithm
    ],
}


class Matrix(NamedTuple):
    """A contiguous row-major matrix in device memory."""

    pointer: int
    rows: int
    columns: int


class Cublas:
    """A cuBLAS handle on one device; made and used while that device is the current one.

    Args:
        library: libcublas, loaded.
        workspace: device memory of `WORKSPACE_BYTES`, aligned to 256 bytes, used by no other handle; kept alive.
        workspace_pointer: its address.
        stream: the address of the CUDA stream on which everything runs; 0 for the default stream.

    Raises:
        BackendError: cuBLAS refuses; the message has the status's name, see `cuda.failures`.
    """

    def __init__(self, library: Any, workspace: Any, workspace_pointer: int, stream: int = 0) -> None:
        self._library = library
        for name, types in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = types, c_int
        library.cublasGetStatusName.argtypes, library.cublasGetStatusName.restype = [c_int], c_char_p
        handle = c_void_p()
        self._check("cublasCreate", library.cublasCreate_v2(byref(handle)))
        self._handle = handle
        # not at the interpreter's end, when the CUDA context may already be gone
        weakref.finalize(self, _destroy, library, handle, workspace).atexit = False
        # in this order: setting the stream resets the workspace
        self._check("cublasSetStream", library.cublasSetStream_v2(handle, stream))
        status = library.cublasSetWorkspace_v2(handle, workspace_pointer, WORKSPACE_BYTES)
        self._check("cublasSetWorkspace", status)
        self._scalars = {
            name: (*types, scalar(1), {0: scalar(0), 1: scalar(1)}) for name, (*types, scalar) in _PRODUCTS.items()
        }

    @property
    def version(self) -> str:
        """As in "13.1.0"."""
        number = c_int()
        self._check("cublasGetVersion", self._library.cublasGetVersion_v2(self._handle, byref(number)))
        major, rest = divmod(number.value, 10000)
        return f"{major}.{rest // 100}.{rest % 100}"

    def gemm(self, a: Matrix, b: Matrix, out: Matrix, kind: str, *, transpose: str = "nn", beta: int = 0) -> None:
        """out ← op(a)·op(b) + beta·out, queued; beta is 0 or 1.

        `kind` says of what and how: "float32" and "float64" in full; "tf32", float32 rounded to 11 bits on the way in;
        "bf16", factors of bfloat16 and a product of float32.

        cuBLAS is column-major: it sees the transpose of each of our matrices, and outᵀ = op(b)ᵀ·op(a)ᵀ is the same
        product with the factors exchanged and their letters kept.

        Raises:
            ValueError: shapes that do not match.
            BackendError: a kind there is none of; cuBLAS refuses.
        """
        rows, inner = (a.rows, a.columns) if transpose[0] == "n" else (a.columns, a.rows)
        inner_b, columns = (b.rows, b.columns) if transpose[1] == "n" else (b.columns, b.rows)
        if inner != inner_b or (out.rows, out.columns) != (rows, columns):
            raise ValueError(f"gemm '{transpose}' of {a[1:]} and {b[1:]} into {out[1:]}")
        if kind not in self._scalars:
            raise BackendError(f"a product in {kind}", wanted=" or ".join(_PRODUCTS))
        type, product, compute, one, betas = self._scalars[kind]
        status = self._library.cublasGemmEx(
            *(self._handle, _OPERATION[transpose[1]], _OPERATION[transpose[0]]),
            *(columns, rows, inner),
            *(ctypes.addressof(one), b.pointer, type, b.columns),
            *(a.pointer, type, a.columns),
            *(ctypes.addressof(betas[beta]), out.pointer, product, out.columns),
            *(compute, _DEFAULT_ALGORITHM),
        )
        if status:
            self._check(f"cublasGemmEx {rows}×{inner}×{columns}", status)

    def _check(self, call: str, status: int) -> None:
        if status:
            name = self._library.cublasGetStatusName(status)
            raise failures.refused(call, status, name.decode() if name else "")


def load() -> ctypes.CDLL:
    """The libcublas that CuPy uses.

    Raises:
        BackendError: there is none.
    """
    try:
        from cuda import pathfinder  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

        return ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)
    except (ImportError, OSError, RuntimeError) as error:
        words = " ".join(str(error).split())
        raise BackendError(f"cuBLAS cannot be loaded: {words}", do="pip install 'gpubp[cuda13]'") from error


def _destroy(library: Any, handle: c_void_p, workspace: Any) -> None:
    # the workspace is an argument so that it outlives the handle
    library.cublasDestroy_v2(handle)
