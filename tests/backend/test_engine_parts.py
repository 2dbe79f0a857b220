"""The parts of the engine by themselves, run on the CPU: the conveyor of rows, the sums; and the compiler's word."""

from __future__ import annotations

import itertools

import numpy as np
import nvrtc
import pytest
from gpu_on_host import GpuOnHost
from host_program import COMPILER

from gpubp import activation, cost
from gpubp.backend import kernels
from gpubp.backend.cuda import combine, edges, layers, products
from gpubp.backend.cuda.conveyor import DEPTH, Conveyor
from gpubp.errors import DataError
from gpubp.formula import cast, one_hot, standardise

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler (g++ or clang++)")


# The conveyor by itself.


def test_pieces_come_in_order_pass_after_pass_and_after_a_pass_given_up(folder):
    rows = np.arange(90.0, dtype=np.float32).reshape(30, 3)
    pieces = [(4, 11), (11, 12), (12, 30), (0, 4)]
    device = GpuOnHost(folder)
    conveyor = Conveyor(device, lambda u, v, buffer: rows[u:v], pieces, 3, rows.dtype)
    for upto in (4, 4, 2, 4, 1, 4):
        conveyor.begin()
        for u, v in pieces[:upto]:
            conveyor.take()
            x = conveyor.rows(pieces.index((u, v)))
            np.testing.assert_array_equal(device.to_host(x), rows[u:v])
            assert x.ctypes.data % 64 == u * 12 % 64, "not aligned as rows that stay"
            conveyor.release()
    conveyor.close()
    conveyor.close()


def test_a_reader_that_fails_is_heard_and_reading_can_go_on(folder):
    rows = np.arange(90.0).reshape(30, 3)
    broken = [True]

    def read(u: int, v: int, buffer: np.ndarray) -> np.ndarray:
        if broken[0] and u == 20:
            raise DataError("row 20 is damaged")
        buffer[...] = rows[u:v]
        return buffer

    device = GpuOnHost(folder)
    conveyor = Conveyor(device, read, [(0, 10), (10, 20), (20, 30)], 3, rows.dtype)
    conveyor.begin()
    with pytest.raises(DataError, match="row 20"):
        for _ in range(3):
            conveyor.take()
            conveyor.release()
    broken[0] = False
    conveyor.begin()
    for i, u in enumerate((0, 10, 20)):
        conveyor.take()
        np.testing.assert_array_equal(device.to_host(conveyor.rows(i)), rows[u : u + 10])
        conveyor.release()
    conveyor.close()


def test_no_more_is_read_than_there_are_buffers_for(folder):
    read = []

    def note(u: int, v: int, buffer: np.ndarray) -> np.ndarray:
        read.append(u)
        return buffer

    conveyor = Conveyor(GpuOnHost(folder), note, [(u, u + 1) for u in range(10)], 3, np.dtype(np.float32))
    conveyor.begin()
    for taken in range(7):
        conveyor.take()
        assert len(read) <= taken + DEPTH
        conveyor.release()
    conveyor.close()


# The sums.


@pytest.mark.parametrize("leaves", [1, 2, 8, 64, 2048])
def test_the_tree_of_the_device_is_the_tree_of_the_host(folder, leaves):
    rng = np.random.default_rng(0)
    device = GpuOnHost(folder)
    sums, costs = rng.normal(size=(leaves, 37)).astype(np.float32), rng.normal(size=(leaves, 2))
    root, cost_root = np.full(37, np.nan, np.float32), np.full(2, np.nan)
    tree = combine.Tree(device, sums, costs, root, cost_root)
    tree.add(37)
    device._work.run()
    wanted, wanted_costs = sums, costs
    while len(wanted) > 1:
        wanted, wanted_costs = wanted[::2] + wanted[1::2], wanted_costs[::2] + wanted_costs[1::2]
    assert root.tobytes() == wanted[0].tobytes() and cost_root.tobytes() == wanted_costs[0].tobytes()
    cost_root[:] = np.nan
    tree.add(0)
    device._work.run()
    assert cost_root.tobytes() == wanted_costs[0].tobytes()


def test_a_tree_takes_few_launches():
    assert combine.widths(1) == [1] and combine.widths(128) == [128] and combine.widths(256) == [16, 16]
    for leaves in (2**k for k in range(18)):
        assert np.prod(combine.widths(leaves)) == leaves and max(combine.widths(leaves)) <= combine.MOST


@pytest.mark.parametrize("columns", [1, 3, 10, 63, 64, 65, 130])
@pytest.mark.parametrize("rows", [1, 127, 128, 300])
def test_sums_of_columns(folder, rows, columns):
    rng = np.random.default_rng(0)
    device = GpuOnHost(folder)
    e = rng.normal(size=(rows, columns)).astype(np.float32)
    width, offset, chunks = columns + 5, 2, layers.chunks(rows)
    partials, out = np.zeros((1 + chunks, width), np.float32), np.empty_like(e)
    arguments = (e, out, partials, rows, columns, 1, width, offset)
    device.launch(layers.error(None, e.dtype, e.dtype), layers.error_blocks(rows, columns), arguments)
    device._work.run()
    assert out.tobytes() == e.tobytes() and not partials[0].any() and not partials[:, [0, 1, -1]].any()
    for q in range(chunks):
        exact = e[128 * q : 128 * (q + 1)].astype(float).sum(axis=0)
        np.testing.assert_allclose(partials[1 + q, offset : offset + columns], exact, rtol=1e-5, atol=1e-5)
    flat, cost_sum, where = np.full(200, np.nan, np.float32), np.zeros(2), np.arange(width, dtype=np.int32)[::-1] + 3
    costs = rng.normal(size=(1 + chunks, 2))
    arguments = (partials, np.ascontiguousarray(where), costs, flat, cost_sum, 1 + chunks, width)
    device.launch(layers.leaf_sums(e.dtype), layers.leaf_sums_blocks(width), arguments)
    device._work.run()
    np.testing.assert_allclose(flat[where], partials.astype(float).sum(axis=0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(cost_sum, costs.sum(axis=0), rtol=1e-13)
    assert np.isnan(flat[:3]).all()


# The compiler itself.


def kernels_of_the_engine() -> list[kernels.Kernel]:
    f4, f8 = np.dtype(np.float32), np.dtype(np.float64)
    built = [products.split(), edges.enter(f4, narrow=True)]
    for T in (f4, f8):
        built += [edges.enter(T, narrow=False), edges.leave(T), layers.leaf_sums(T)]
        built += [combine.combine(T, 1 << k) for k in range(8)]
        for stored in (T, kernels.BF16) if T == f4 else (T,):
            g = [activation.activation(name) for name in activation.names()]
            built += [layers.error(slope, T, stored) for slope in (None, *(one.slope for one in g))]
            built += [kernels.source(one.g, [T, T, stored]) for one in g if stored == kernels.BF16]
        for J, K in itertools.product(map(cost.cost, cost.names()), (1, 3, 10, 100)):
            flags = {"weighted": K == 3, "held": K == 10}
            built.append(layers.end(J, cast, K, K + 7 & -8, T, f8, one_hot=False, **flags))
            built.append(layers.end(J, one_hot, K, K + 7 & -8, T, np.dtype(np.int32), one_hot=True, **flags))
    for formula, more in ((cast, 0), (standardise, 2)):
        built.append(kernels.source(formula, [np.dtype(np.uint8), *[f8] * more, kernels.BF16]))
    return built


@pytest.mark.skipif(nvrtc.library() is None, reason="no NVRTC (pip install nvidia-cuda-nvrtc)")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_every_kernel_compiles_and_keeps_to_registers(arch):
    built = kernels_of_the_engine()
    assert len({kernel.name for kernel in built}) == len(built)
    options = ("-ftz=true", "--device-as-default-execution-space", "--ptxas-options=-v")  # those that CuPy 14 adds
    cubin, log = nvrtc.compile(kernels.program(*built), f"-arch={arch}", *kernels.OPTIONS, *options)
    assert cubin.startswith(b"\x7fELF")
    used = nvrtc.memory(log)
    assert set(used) == {kernel.name for kernel in built}
    assert {name: sizes for name, sizes in used.items() if any(sizes)} == {}, "stack frame, spill stores, spill loads"
