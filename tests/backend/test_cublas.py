"""What cuBLAS is told, without a GPU: arguments go through the C calling convention into a column-major product."""

from __future__ import annotations

import gc
from itertools import product

import numpy as np
import pytest
from column_major import ColumnMajor

from gpubp.backend import cublas
from gpubp.errors import BackendError


def matrix(array: np.ndarray) -> cublas.Matrix:
    assert array.flags.c_contiguous
    return cublas.Matrix(array.ctypes.data, *array.shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("transpose", ["nn", "nt", "tn", "tt"])
def test_row_major_products(transpose, dtype):
    rng = np.random.default_rng(0)
    handle = cublas.Cublas(ColumnMajor(), None, 0)
    for rows, inner, columns in product((1, 2, 5), (1, 3, 4), (1, 2, 7)):
        # small integers: the product is exact in any order
        a = rng.integers(-9, 9, (rows, inner) if transpose[0] == "n" else (inner, rows)).astype(dtype)
        b = rng.integers(-9, 9, (inner, columns) if transpose[1] == "n" else (columns, inner)).astype(dtype)
        exact = (a.T if transpose[0] == "t" else a) @ (b.T if transpose[1] == "t" else b)
        out = np.full((rows, columns), np.nan, dtype)
        handle.gemm(matrix(a), matrix(b), matrix(out), out.dtype.name, transpose=transpose)
        np.testing.assert_array_equal(out, exact)
        handle.gemm(matrix(a), matrix(b), matrix(out), out.dtype.name, transpose=transpose, beta=1)
        np.testing.assert_array_equal(out, 2 * exact)


def test_stream_before_workspace():
    """cublasSetStream resets the workspace, and without one of our own the bits may vary between runs."""
    library = ColumnMajor()
    cublas.Cublas(library, None, 0x7000, stream=0x30)
    assert library.calls[:3] == [("create",), ("stream", 1234, 0x30), ("workspace", 1234, 0x7000, 32 << 20)]


def test_handle_is_destroyed_with_its_owner_and_keeps_the_workspace():
    class Workspace:
        alive = True

        def __del__(self) -> None:
            Workspace.alive = False

    library = ColumnMajor()
    handle = cublas.Cublas(library, Workspace(), 0x7000)
    gc.collect()
    assert Workspace.alive and library.calls[-1][0] != "destroy"
    del handle
    gc.collect()
    assert library.calls[-1] == ("destroy", 1234) and not Workspace.alive


def test_version_as_people_write_it():
    assert cublas.Cublas(ColumnMajor(), None, 0).version == "13.2.5"


def test_a_refusal_names_the_status():
    library = ColumnMajor()
    handle = cublas.Cublas(library, None, 0)
    library.fail_with = 13
    one = np.ones((1, 1))
    with pytest.raises(BackendError, match="cublasGemmEx 1×1×1 failed: CUBLAS_STATUS_OF_THE_TEST"):
        handle.gemm(matrix(one), matrix(one), matrix(one), one.dtype.name)
    with pytest.raises(BackendError, match="cublasCreate failed"):
        cublas.Cublas(library, None, 0)


def test_shapes_and_dtypes_that_do_not_fit_never_reach_the_library():
    library = ColumnMajor()
    handle = cublas.Cublas(library, None, 0)
    a, b, out = np.ones((2, 3)), np.ones((4, 3)), np.ones((2, 4))
    for transpose, target in (("nn", out), ("tn", out), ("nt", out.T.copy())):
        with pytest.raises(ValueError, match="gemm"):
            handle.gemm(matrix(a), matrix(b), matrix(target), a.dtype.name, transpose=transpose)
    with pytest.raises(BackendError, match="float16"):
        handle.gemm(matrix(a), matrix(b), matrix(out), "float16", transpose="nt")
    assert not any(call[0] == "gemm" for call in library.calls)
    handle.gemm(matrix(a), matrix(b), matrix(out), a.dtype.name, transpose="nt")
    assert library.calls[-1] == ("gemm", 4, 2, 3)


@pytest.mark.parametrize("kind", ["tf32", "bf16"])
def test_products_of_rounded_numbers_come_out_in_float32(kind):
    rng = np.random.default_rng(0)
    handle = cublas.Cublas(ColumnMajor(), None, 0)
    a, b = rng.normal(size=(5, 40)).astype(np.float32), rng.normal(size=(3, 40)).astype(np.float32)
    factors = [(x.view(np.uint32) >> 16).astype(np.uint16) if kind == "bf16" else x for x in (a, b)]
    out = np.full((5, 3), np.nan, np.float32)
    handle.gemm(*(matrix(x) for x in (*factors, out)), kind, transpose="nt")
    exact = a.astype(float) @ b.T.astype(float)
    error = np.abs(out - exact).max() / np.abs(exact).max()
    assert (1e-5 < error < 2e-3) if kind == "tf32" else (1e-3 < error < 2e-2)
