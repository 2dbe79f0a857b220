"""What is measured, in order of importance: shapes, stages, and one `Task` for each row of the tables.

Each stage is a function that yields tasks. To add a measurement, yield another task; to add a contender, give it a name
that its side knows (`ours.build`, `torch_peers.build`, `jax_peers.build`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from problems import Shape

FULL = {
    "A": Shape((400, 25, 10), "sigmoid", "logistic", 5_000, "A"),
    "B": Shape((784, 256, 128, 10), "sigmoid", "logistic", 60_000, "B"),
    "C": Shape((784, 2048, 2048, 10), "relu", "softmax", 1_000_000, "C"),
    "D": Shape((28, 64, 64, 1), "tanh", "logistic", 20_000_000, "D"),
    "G": Shape((28, 64, 64, 1), "tanh", "logistic", 1_000_000_000, "G"),
}
SMOKE = {
    "A": Shape((12, 8, 5), "sigmoid", "logistic", 200, "A"),
    "B": Shape((16, 12, 8, 5), "sigmoid", "logistic", 300, "B"),
    "C": Shape((16, 24, 24, 5), "relu", "softmax", 400, "C"),
    "D": Shape((6, 8, 8, 1), "tanh", "logistic", 1_000, "D"),
    "G": Shape((6, 8, 8, 1), "tanh", "logistic", 4_000, "G"),
}
PERIODS = {"G": 500}  # so many times the same rows follow each other: the answer to one period is the answer to all
BAD = ("failed", "crashed", "timeout", "wrong")  # what a row's status should not be
BYTES = {"float64": 8, "float32": 4, "float16": 2, "uint8": 1}


def shapes(smoke: bool) -> dict[str, Shape]:
    """The shapes by name; for a smoke test tiny ones."""
    return SMOKE if smoke else FULL


def flops(shape: Shape) -> float:
    """Additions and multiplications of the matrix products of one cost and gradient, biases counted."""
    layers = shape.layers
    there = sum(2 * (inputs + 1) * outputs for inputs, outputs in pairwise(layers))
    return float(shape.m) * (2 * there + sum(2 * inputs * outputs for inputs, outputs in pairwise(layers[1:])))


@dataclass(frozen=True)
class Task:
    """One row.

    Attributes:
        stage: where it belongs.
        side: whose process does it: "ours", "torch", "jax", "limits", "checks", "race".
        what: the contender, or what is to be done.
        shape, precision, stored: which problem, the precision of the pass, the type that X is kept in.
        rows: of a chunk; 0 for the whole batch.
        rival: in a race, the key of the row of our contender and that of the peer.
        expect: seconds that it should take, its share of the process's start included.
        limit: seconds after which it is given up.
        group: tasks of one side with one group share a process.
    """

    stage: str
    side: str
    what: str
    shape: str = ""
    precision: str = ""
    stored: str = "float32"
    rows: int = 0
    rival: tuple[str, str] = ("", "")
    expect: float = 3.0
    limit: float = 60.0
    group: str = ""

    @property
    def key(self) -> str:
        """What tells it from all others."""
        about = [self.shape, self.precision, self.stored if self.shape else "", str(self.rows) if self.rows else ""]
        return " ".join(part for part in (self.side, self.what, *about) if part)


Rows = Mapping[str, Mapping[str, Any]]  # what was found so far, by key
FUSED, LAYERED = "gpubp fused", "gpubp layered"


def ceilings(rows: Rows) -> Iterator[Task]:
    """What the card can do at all."""
    for what in ("copy", "host to device", "launch"):
        yield Task("ceilings", "limits", what, group="card", expect=2)
    for precision in ("bf16", "tf32", "fp32", "fp64"):
        yield Task("ceilings", "limits", "product", precision=precision, group="products", expect=2)
    for shape, precision in (("C", "bf16"), ("C", "tf32"), ("B", "tf32"), ("B", "bf16")):
        yield Task("ceilings", "limits", "products of", shape, precision, group="products", expect=2)


def fused(rows: Rows) -> Iterator[Task]:
    """gpubp's one kernel for a whole narrow network."""
    task = Task("fused", "ours", FUSED, expect=5, limit=90)
    for shape, precision, stored in (
        ("A", "tf32", "float32"),
        ("D", "tf32", "float32"),
        ("D", "bf16", "float16"),
        ("A", "tf32x3", "float32"),
        ("D", "tf32x3", "float32"),
        ("D", "bf16", "float32"),
        ("A", "bf16", "float32"),
        ("G", "bf16", "uint8"),
        ("G", "tf32", "uint8"),
        ("G", "bf16", "float16"),
        ("B", "tf32", "float32"),
        ("B", "bf16", "float16"),
        ("A", "fp32", "float32"),
        ("D", "fp32", "float32"),
    ):
        yield replace(task, shape=shape, precision=precision, stored=stored)


def layered(rows: Rows) -> Iterator[Task]:
    """gpubp layer by layer."""
    task = Task("layered", "ours", LAYERED, limit=90)
    for shape, precision, expect in (
        ("B", "tf32", 3),
        ("B", "bf16", 3),
        ("C", "bf16", 4),
        ("C", "tf32", 5),
        ("B", "fp32", 3),
        ("B", "fp64", 3),
        ("A", "tf32", 3),
        ("A", "fp32", 2),
        ("A", "fp64", 2),
        ("D", "tf32", 3),
        ("D", "fp32", 3),
        ("D", "fp64", 4),
        ("C", "fp32", 8),
        ("C", "tf32x3", 6),
        ("B", "tf32x3", 3),
        ("C", "fp64", 12),
        ("D", "bf16", 3),
    ):
        yield replace(task, shape=shape, precision=precision, expect=expect)


def duties(rows: Rows) -> Iterator[Task]:
    """What an optimizer waits for, and rows that do not all fit on the card."""
    yield Task("duties", "ours", "50 iterations", "A", "tf32", expect=4)
    yield Task("duties", "ours", "50 iterations", "D", "tf32", expect=5)
    yield Task("duties", "ours", "streaming", "C", "bf16", "uint8", expect=12, limit=90)
    yield Task("duties", "ours", "streaming", "C", "tf32", "uint8", expect=12, limit=90)


def checks(rows: Rows) -> Iterator[Task]:
    """The tests that need a GPU, then each tool of compute-sanitizer on the fused kernel."""
    yield Task("checks", "checks", "tests", expect=60, limit=100)
    for tool in ("memcheck", "racecheck"):
        yield Task("checks", "checks", tool, expect=20, limit=35)


def torch(rows: Rows) -> Iterator[Task]:
    """PyTorch without its compiler: step by step, by hand, in a CUDA graph, in chunks."""
    for shape, precision, names in (
        ("A", "tf32", "eager, by hand, graph, graph by hand"),
        ("D", "tf32", "chunks by hand 1048576, chunks by hand 262144, chunks 1048576, graph chunks by hand 262144"),
        ("D", "tf32", "by hand, eager"),
        ("B", "tf32", "graph by hand, graph, by hand, eager, graph chunks by hand 16384"),
        ("C", "bf16", "chunks by hand 131072, by hand, eager, chunks 131072, chunks by hand 32768"),
        ("C", "tf32", "chunks by hand 131072, by hand, eager, chunks 131072, chunks by hand 32768"),
        ("G", "bf16", "chunks by hand 1048576, chunks by hand 4194304, chunks 4194304"),
        ("G", "tf32", "chunks by hand 1048576, chunks 1048576"),
        ("D", "bf16", "chunks by hand 1048576, chunks by hand 262144, graph chunks by hand 262144, by hand"),
        ("A", "fp32", "eager, graph, graph by hand"),
        ("A", "bf16", "graph, graph by hand"),
        ("B", "bf16", "graph by hand, graph, eager"),
        ("B", "fp32", "graph by hand, eager"),
        ("D", "fp32", "chunks by hand 1048576"),
        ("C", "fp32", "chunks by hand 131072"),
        ("A", "fp64", "graph by hand"),
        ("B", "fp64", "graph by hand"),
    ):
        yield from _named("torch", "torch", shape, precision, names, expect={"G": 4, "C": 3}.get(shape, 1.5))


def jax(rows: Rows) -> Iterator[Task]:
    """JAX, whole and scanned in chunks."""
    for shape, precision, names in (
        ("A", "tf32", "jit"),
        ("D", "tf32", "scan 250000, scan 1000000, jit"),
        ("B", "tf32", "jit, scan 15000"),
        ("C", "bf16", "jit, scan 200000"),
        ("C", "tf32", "jit, scan 200000"),
        ("D", "bf16", "scan 250000, scan 1000000"),
        ("G", "bf16", "scan 1000000"),
        ("A", "fp32", "jit"),
        ("B", "bf16", "jit"),
    ):
        yield from _named("jax", "jax", shape, precision, names, expect=5)


def compiled(rows: Rows) -> Iterator[Task]:
    """PyTorch with its compiler: minutes, so it comes last."""
    for shape, precision, names in (
        ("D", "tf32", "compiled chunks 1000000"),
        ("A", "tf32", "compiled graph by hand"),
        ("C", "bf16", "compiled by hand"),
        ("B", "tf32", "compiled graph by hand"),
        ("G", "bf16", "compiled chunks by hand 4000000"),
        ("C", "tf32", "compiled by hand"),
        ("D", "bf16", "compiled chunks by hand 1000000"),
        ("A", "tf32", "reduce-overhead"),
        ("C", "bf16", "compiled chunks 125000"),
        ("B", "bf16", "compiled graph by hand"),
        ("D", "tf32", "compiled"),
        ("C", "bf16", "autotuned by hand"),
        ("B", "tf32", "autotuned by hand"),
    ):
        yield from _named("compiled", "torch", shape, precision, names, expect=14, limit=75)


def race(rows: Rows, stage: str = "race") -> Iterator[Task]:
    """Our best beside the best peer so far, turn and turn about: where a lead is claimed."""
    for shape, precision in (
        ("A", "tf32"),
        ("B", "tf32"),
        ("C", "bf16"),
        ("C", "tf32"),
        ("D", "tf32"),
        ("G", "bf16"),
        ("D", "bf16"),
    ):
        ours, peer = fastest(rows, shape, precision, ours=True), fastest(rows, shape, precision, ours=False)
        raced = rows.get(Task("", "race", "", shape, precision).key, {})
        if ours and peer and not (stage == "rematch" and [ours, peer] == list(raced.get("rival", ()))):
            yield Task(stage, "race", "", shape, precision, rival=(ours, peer), expect=9, limit=120, group=shape)


def rematch(rows: Rows) -> Iterator[Task]:
    """Again where another peer turned out to be the best one."""
    return race(rows, "rematch")


STAGES = {
    "ceilings": ceilings,
    "fused": fused,
    "layered": layered,
    "duties": duties,
    "checks": checks,
    "torch": torch,
    "race": race,
    "jax": jax,
    "compiled": compiled,
    "rematch": rematch,
}


def faulty(rows: Rows) -> Iterator[Task]:
    """Contenders that misbehave: what the tests of this benchmark ask for."""
    for what in ("raises", "crashes", "hangs", "fills the memory", "answers wrongly", "works"):
        limit = 1.5 if what == "hangs" else 60
        yield Task("faulty", "faulty", what, "A", "fp32", expect=0.5, limit=limit, group="faulty")


def tasks(stage: str, smoke: bool, rows: Rows) -> list[Task]:
    """The tasks of a stage; in a smoke test with chunks that fit its shapes."""
    found = list(faulty(rows) if stage == "faulty" else STAGES[stage](rows))
    if not smoke:
        return found
    small = [replace(task, rows=SMOKE[task.shape].m // 4 + 1 if task.rows else 0) for task in found]
    return list({task.key: task for task in small}.values())


def fastest(rows: Rows, shape: str, precision: str, *, ours: bool) -> str:
    """The key of the fastest of our rows, or of the peers', at a shape and precision; empty where there is none.

    tf32x3 is ours alone, and as good as fp32: peers at fp32 stand beside it.
    """
    precision = "fp32" if precision == "tf32x3" and not ours else precision
    found = [
        (row["median_s"], key)
        for key, row in rows.items()
        if row.get("status") == "ok" and row.get("median_s") and row["shape"] == shape
        and row["precision"] == precision and row["side"] in (("ours",) if ours else ("torch", "jax"))
        and (not ours or row["what"] in (FUSED, LAYERED))
    ]  # fmt: skip
    return min(found)[1] if found else ""


def _named(
    stage: str, side: str, shape: str, precision: str, names: str, *, expect: float, limit: float = 60.0
) -> Iterable[Task]:
    """Tasks for names such as "eager" and "chunks 16384"."""
    stored = "uint8" if shape == "G" else "float64" if precision == "fp64" else "float32"
    for name in names.split(", "):
        words = name.split()
        rows = int(words.pop()) if words[-1].isdigit() else 0
        group = shape if side == "jax" else ""  # its memory stays its own until its process ends
        yield Task(
            stage, side, " ".join(words), shape, precision, stored, rows, expect=expect, limit=limit, group=group
        )
