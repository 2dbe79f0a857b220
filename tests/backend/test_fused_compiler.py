"""The fused kernel through NVIDIA's compiler: on tensor cores, in registers, nothing in local memory."""

from __future__ import annotations

import os
import re

import numpy as np
import nvrtc
import pytest

from gpubp.backend import kernels
from gpubp.backend.cuda.fused import Task, plan
from gpubp.network import Network

pytestmark = pytest.mark.skipif(nvrtc.library() is None, reason="no NVRTC (pip install nvidia-cuda-nvrtc)")
full = pytest.mark.skipif(os.environ.get("GPUBP_FULL") != "1", reason="takes minutes: GPUBP_FULL=1")

LIMITS = {"sm_80": 163 * 1024, "sm_90": 227 * 1024}
PRODUCTS = {
    "tf32": "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32",
    "tf32x3": "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32",
    "bf16": "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
}
D = Network((28, 64, 64, 1), "tanh", "logistic")
NETWORKS = [
    D,
    Network((400, 25, 10), "sigmoid", "logistic"),
    Network((28, 128, 128, 1), "relu", "logistic"),
    Network((13, 7, 5, 3), "silu", "softmax"),
    Network((784, 25, 10), "tanh", "softmax"),
    Network((20, 32, 32, 32, 5), "silu", "softmax"),
    Network((100, 128, 10), "gelu", "softmax"),
    Network((28, 64, 64, 1), "silu", "logistic"),
    Network((54, 100, 64, 26), "softplus", "sigmoid_squares"),
    Network((50, 1), "tanh", "squares"),
]
FAST = {(D, "sm_80", "tf32"), (NETWORKS[4], "sm_80", "bf16"),
        *((network, "sm_90", precision) for network in NETWORKS[:3] for precision in PRODUCTS),
        (NETWORKS[3], "sm_90", "tf32x3"), (NETWORKS[6], "sm_90", "tf32")}  # fmt: skip


def _name(value: object) -> str:
    return f"{'-'.join(map(str, value.sizes))} {value.activation}" if isinstance(value, Network) else str(value)


# 784 inputs in 32 bits leave no room on sm_80: refused
ALL = [
    (network, arch, precision)
    for network in NETWORKS
    for arch in LIMITS
    for precision in PRODUCTS
    if precision == "bf16" or (network.sizes[0], arch) != (784, "sm_80")
]


@pytest.mark.parametrize(
    ("network", "arch", "precision"),
    [pytest.param(*one, id=" ".join(map(_name, one)), marks=() if one in FAST else full) for one in ALL],
)
def test_nothing_is_spilled(network, arch, precision):
    stored = np.dtype("u1" if network.sizes[0] == 784 else "f4")
    task = Task.of(
        network, precision, stored=stored, labels=np.dtype("i4"), one_hot=True, weighted=True, held=True
    )  # fmt: skip
    planned = plan(task, LIMITS[arch])
    options = (f"-arch={arch}", *kernels.OPTIONS, "-ftz=true", "--ptxas-options=-v")
    cubin, log = nvrtc.compile(planned.kernel.text, *options)
    assert cubin.startswith(b"\x7fELF")
    assert nvrtc.memory(log) == {planned.kernel.name: (0, 0, 0)}, "stack frame, spill stores, spill loads"
    s, registers = planned.shape, int(re.findall(r"Used (\d+) registers", log)[0])
    print(
        f"\n{arch} {precision:6} {network.sizes} {network.activation}: {registers} registers"
        f" ({s.registers} estimated), {s.shared} bytes shared, {s.blocks} blocks of {s.warps} warps,"
        f" tile {s.tile}, {s.words} words and {s.products} products a tile"
    )
    assert registers * 32 * s.warps * s.blocks <= 65536


@pytest.mark.parametrize("precision", PRODUCTS)
def test_products_are_those_of_tensor_cores(precision):
    task = Task.of(D, precision, stored=np.dtype("f4"), labels=np.dtype("i4"), one_hot=True)
    ptx = nvrtc.ptx(plan(task).kernel.text, "-arch=compute_90", *kernels.OPTIONS)
    assert ptx.count(PRODUCTS[precision]) >= 30
    assert all(word in ptx for word in ("cp.async.cg", "cp.async.wait_all", "ldmatrix.sync.aligned", "bar.sync"))


def test_text_includes_nothing():
    task = Task.of(D, "tf32", stored=np.dtype("f4"), labels=np.dtype("i4"), one_hot=True)
    assert not re.search(r"^\s*#\s*include", plan(task).kernel.text, re.MULTILINE)
