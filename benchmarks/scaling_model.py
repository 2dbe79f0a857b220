"""What an evaluation on many GPUs costs, on paper. `scaling_tables` prints it.

Arithmetic alone: nothing is run, and every number that goes in stands below with where it comes from. Nothing of it was
measured on GPUs by this project. What can be compared with ranks of this machine is (`two_ranks`).
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from gpubp.backend.cuda.fused_pass import fused_leaves  # noqa: E402
from gpubp.backend.cuda.layered import LEAF_ROWS, layered_plan  # noqa: E402
from gpubp.communicator.top import HEADER, SMALL, own_leaves  # noqa: E402
from gpubp.tree import cover, leaf_count  # noqa: E402


@dataclass(frozen=True)
class Constant:
    """A number that goes in, and where it comes from."""

    value: float
    what: str
    source: str


CONSTANTS = {
    "memory": Constant(141e9, "memory of an H200, bytes", "NVIDIA, H200 datasheet"),
    "hbm": Constant(4.8e12, "its bandwidth, bytes/s", "NVIDIA, H200 datasheet"),
    "tf32": Constant(494.7e12, "its TF32 rate, flop/s", "NVIDIA, H200 datasheet: 989 with sparsity, half without"),
    "layered": Constant(0.5, "of that rate, a wide network layer by layer", "**assumed**"),
    "fused": Constant(0.25, "of that rate, a narrow network in one kernel", "**assumed**"),
    "node": Constant(8, "GPUs of a node", "NVIDIA, DGX H200"),
    "host": Constant(2e12, "memory of a node's host, bytes", "NVIDIA, DGX H200"),
    "nvlink": Constant(450e9, "NVLink, bytes/s each way", "NVIDIA, H200 datasheet: 900 both ways"),
    "ib": Constant(50e9, "InfiniBand NDR for each GPU, bytes/s each way", "NVIDIA, DGX H200: 8 × 400 Gb/s"),
    "call": Constant(6.8e-6, "a collective call, s", "NCCL, `src/graph/tuning.cc`, `baseLat`"),
    "near": Constant(0.6e-6, "a hop by NVLink, s", "NCCL, `src/graph/tuning.cc`, `hwLat`"),
    "far": Constant(5e-6, "a hop between nodes, s", "NCCL, `src/graph/tuning.cc`, `hwLat`"),
    "each": Constant(1.8e-6, "what a rank does for each other one, s", "`benchmarks/results/ranks.json`, stage `many`"),
    "addition": Constant(1.6e-6, "and for each node, s", "likewise"),
    "message": Constant(1e-6, "one more message of an all-to-all, s", "**assumed**"),
    "step": Constant(1e-4, "launches and the wait of an optimizer's step, s", "**assumed**"),
    "digest": Constant(4e10, "of Θ on the host, bytes/s", "`benchmarks/results/ranks.json`, stage `agreement`"),
    "pcie": Constant(64e9, "PCIe, bytes/s each way", "NVIDIA, H200 datasheet: 128 both ways"),
    "fits": Constant(0.8, "of a memory, for rows", "**assumed**"),
    "node_read": Constant(40e9, "what a node reads from storage, bytes/s", "NVIDIA, DGX SuperPOD H100"),
    "storage": Constant(
        2e12, "what storage gives to all, bytes/s", "Meta, *The Llama 3 Herd of Models*, 2024: Tectonic"
    ),
    "failures": Constant(
        54 * 24 * 16384 / 419, "hours of a GPU between failures", "likewise: 419 in 54 days of 16,384"
    ),
    "write": Constant(0.8e9, "a checkpoint's writer, bytes/s", "`benchmarks/results/checkpoints.json`"),
    "start": Constant(60, "until a job runs again, s, without reading", "**assumed**"),
}
K = {name: constant.value for name, constant in CONSTANTS.items()}
PAIRS = 30  # of L-BFGS's history, its default


@dataclass(frozen=True)
class Workload:
    """A network and its rows.

    Attributes:
        row: bytes of one row of X as stored.
        kernel: "layered" or "fused".
    """

    name: str
    sizes: tuple[int, ...]
    row: int
    kernel: str

    @property
    def P(self) -> int:
        """Parameters, biases counted."""
        return sum(b * (a + 1) for a, b in pairwise(self.sizes))

    @property
    def flop(self) -> float:
        """Of one row: three products for each Θ^(l), two for the first, whose inputs have no error."""
        return sum((4 if l == 0 else 6) * a * b for l, (a, b) in enumerate(pairwise(self.sizes)))

    @property
    def node(self) -> int:
        """Bytes of a node of the tree: ∇J in float32, and two costs."""
        return 4 * self.P + 64

    def leaves(self, m: int, *, enough: bool = False) -> int:
        """How many there are, as gpubp is; or if there were no most."""
        if self.kernel == "fused":
            return fused_leaves(m)
        return leaf_count(m, LEAF_ROWS, m) if enough else layered_plan(m, self.sizes)[0]


C = Workload("C", (784, 2048, 2048, 10), 784, "layered")
D = Workload("D", (28, 64, 64, 1), 112, "fused")
STEPS = ((1, 125_000_000), (8, 10**9), (800, 10**11), (10_000, 10**12))  # GPUs, rows


def compute(load: Workload, rows: float) -> float:
    """Seconds in which a GPU does its rows: products, or X once from its memory."""
    return max(rows * load.flop / (K["tf32"] * K[load.kernel]), rows * load.row / K["hbm"])


def busiest(leaves: int, gpus: int, m: int) -> float:
    """The most rows that one GPU has."""
    return -(-leaves // gpus) * m / leaves


@cache
def topmost(leaves: int, ranks: int) -> tuple[int, int]:
    """Of the ranks' topmost nodes: the most of one rank, and all."""
    counts = [len(cover(*own_leaves(rank, ranks, leaves), leaves)) for rank in range(ranks)]
    return max(counts), sum(counts)


def as_built(load: Workload, leaves: int, gpus: int) -> float:
    """Seconds of the reduction as `communicator/top.py` does it: all nodes to everybody, or slices of them.

    What is on a GPU is taken to travel from there: by way of the host it would cost two more copies of a node."""
    if gpus == 1:
        return 0.0
    most, every = topmost(leaves, gpus)
    inside = gpus <= K["node"]
    hop, speed = (K["near"], K["nvlink"]) if inside else (K["far"], K["ib"])
    hops = math.ceil(math.log2(gpus)) * hop
    headers = K["call"] + hops + HEADER * gpus / speed
    own = gpus * K["each"] + every * K["addition"]  # by one thread of Python, node after node
    if load.node * every <= SMALL:
        return headers + load.node * every / speed + own
    # its slices of others' nodes and theirs of its own, then the slices of the root
    there = K["call"] + gpus * K["message"] + most * load.node / speed
    return headers + there + own + K["call"] + hops + load.node / speed


def by_halves(load: Workload, gpus: int) -> float:
    """Seconds of the same tree by pairs: neighbours exchange halves of what they have, then those two apart, and so on;
    then all back. Within a node first, so that between nodes each GPU carries an eighth."""
    inside = min(gpus, int(K["node"]))
    outside = math.ceil(gpus / K["node"])
    near = math.log2(inside) * K["near"] + load.node * (1 - 1 / inside) / K["nvlink"]
    far = math.ceil(math.log2(outside)) * K["far"] + load.node / inside * (1 - 1 / outside) / K["ib"]
    return 0.0 if gpus == 1 else K["call"] + 2 * (near + far)


def optimizer(load: Workload) -> float:
    """Seconds of L-BFGS's own vectors on every GPU, whatever their number: it goes over S and Z twice."""
    return K["step"] + 2 * 2 * PAIRS * 8 * load.P / K["hbm"]


def agreement(load: Workload, gpus: int) -> float:
    """Seconds of the two exchanges that end an iteration, and of the digest of Θ that one of them compares."""
    hops = math.ceil(math.log2(gpus)) * (K["near"] if gpus <= K["node"] else K["far"])
    return 8 * load.P / K["digest"] + (2 * (K["call"] + hops) if gpus > 1 else 0)


def labels(m: int, weighted: bool = False) -> int:
    """Bytes that every rank keeps on its host of all rows: y as read and as codes; and weights, validation's too."""
    return m * (8 + (16 if weighted else 0))


def storage(gpus: int) -> float:
    """Bytes/s that so many GPUs read together."""
    return min(K["node_read"] * math.ceil(gpus / K["node"]), K["storage"])


def between_failures(gpus: int) -> float:
    """Seconds."""
    return 3600 * K["failures"] / gpus


def checkpoint(load: Workload) -> float:
    """Bytes: L-BFGS's rings, and a few vectors."""
    return 8.0 * load.P * (2 * PAIRS + 3)


def interval(load: Workload, gpus: int) -> float:
    """Seconds between checkpoints, τ = √(2δM) (J. Young, CACM 17, 1974), δ being the time to write one."""
    return math.sqrt(2 * checkpoint(load) / K["write"] * between_failures(gpus))


def restart(load: Workload, gpus: int, m: int, *, every_y: bool) -> float:
    """Seconds until training goes on: the start, X once, and y: all of it for every rank, or once."""
    y = 4.0 * m * (gpus if every_y else 1)
    return K["start"] + (load.row * m + y) / storage(gpus)


def lost(load: Workload, gpus: int, m: int, *, every_y: bool) -> float:
    """The share of time that failures take: half an interval and a restart for each, and the checkpoints. Writing goes
    on in the background here; it is charged whole."""
    tau, M = interval(load, gpus), between_failures(gpus)
    down = tau / 2 + restart(load, gpus, m, every_y=every_y)
    return 1 - (1 - checkpoint(load) / K["write"] / tau) * max(0.0, 1 - down / M)


def streamed(load: Workload, m: int, gpus: int) -> tuple[float, float, float, float]:
    """Of an evaluation whose rows do not fit: bytes in the GPUs' memories, in the hosts' beside, the rest, and the
    seconds of the slowest way: compute, PCIe, storage."""
    nodes = math.ceil(gpus / K["node"])
    X = float(load.row * m)
    near = min(X, K["fits"] * K["memory"] * gpus)
    host = min(X - near, K["fits"] * K["host"] * nodes)
    rest = X - near - host
    return near, host, rest, max(compute(load, m / gpus), (X - near) / gpus / K["pcie"], rest / storage(gpus))


def two_ranks(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The model beside what was measured on two ranks of one machine.

    An exchange is α + n/β with α and β from the smallest node and the largest that the record has; an evaluation of two
    ranks is half of that of one, plus the exchange of a node of its network.
    """
    exchange = next(one for one in record["stages"]["exchange"] if one["ranks"] == 2)["by_size"]
    best = {int(n): one["whole"]["median_s"] for n, one in exchange.items()}
    low, high = min(best), max(best)
    beta = (high - low) / (best[high] - best[low])
    alpha = best[low] - low / beta
    found: list[dict[str, Any]] = [
        {"what": f"exchange of {n:,} bytes", "model": alpha + n / beta, "measured": measured}
        for n, measured in best.items()
        if n not in (low, high)
    ]
    for race in record["stages"]["strong"]:
        one, two = (race["contenders"][name] for name in ("1 rank, 1 thread", "2 ranks, 1 thread"))
        model = one["median_s"] / 2 + alpha + 4 * one["P"] / beta
        name = f"evaluation {race['shape'].split(':')[0]}"
        found.append({"what": name, "model": model, "measured": two["median_s"]})
    return found
