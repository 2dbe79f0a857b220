"""The tables of docs/scaling.md: the model's (`scaling_model`), and what benchmarks/results/ranks.json has.

python3 benchmarks/scaling_tables.py            # prints them
python3 benchmarks/scaling_tables.py --update   # writes them into the document
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from scaling_model import (
    CONSTANTS,
    ROOT,
    STEPS,
    C,
    D,
    K,
    Workload,
    agreement,
    as_built,
    between_failures,
    busiest,
    by_halves,
    compute,
    interval,
    labels,
    lost,
    optimizer,
    restart,
    streamed,
    topmost,
    two_ranks,
)  # fmt: skip

PAGE = ROOT / "docs" / "scaling.md"
RECORD = ROOT / "benchmarks" / "results" / "ranks.json"
RANKS = (800, 1_024, 8_192, 10_000)  # beside each other: powers of two, and not


def terms(load: Workload) -> list[list[str]]:
    """The rows of a workload's table, each a title and a cell for each step."""

    def row(title: str, cell: Any) -> list[str]:
        return [title, *(cell(gpus, m) for gpus, m in STEPS)]

    def idle(gpus: int, m: int) -> str:
        leaves = load.leaves(m)
        return f"{100 * m / (gpus * busiest(leaves, gpus, m)):.0f} %"

    def nodes(gpus: int, m: int) -> int:
        return topmost(load.leaves(m, enough=True), gpus)[0]

    def now(gpus: int, m: int) -> float:
        return as_built(load, load.leaves(m, enough=True), gpus)

    return [
        row("compute, all GPUs busy", lambda gpus, m: time(compute(load, m / gpus))),
        row("leaves as they are", lambda gpus, m: count(load.leaves(m))),
        row("GPUs kept busy by them", idle),
        row("topmost nodes of a rank, were there enough", lambda gpus, m: str(nodes(gpus, m))),
        row("reduction as built, with these", lambda gpus, m: time(now(gpus, m))),
        row("… its share of an evaluation", lambda gpus, m: share(now(gpus, m), compute(load, m / gpus))),
        row("reduction by halves, a node first", lambda gpus, m: time(by_halves(load, gpus))),
        row("L-BFGS on every GPU", lambda gpus, m: time(optimizer(load))),
        row("agreement of the ranks", lambda gpus, m: time(agreement(load, gpus))),
        row("X for each GPU (of 141 GB)", lambda gpus, m: size(load.row * m / gpus)),
        row("y on each rank, as built", lambda gpus, m: size(labels(m))),
        row("… on a node (of 2 TB)", lambda gpus, m: size(labels(m) * min(gpus, K["node"]))),
        row("start: X and y once", lambda gpus, m: time(restart(load, gpus, m, every_y=False))),
        row("start, y for each rank, as built", lambda gpus, m: time(restart(load, gpus, m, every_y=True))),
        row("between failures", lambda gpus, m: time(between_failures(gpus))),
        row("between checkpoints", lambda gpus, m: time(interval(load, gpus))),
        row("time lost to failures", lambda gpus, m: f"{100 * lost(load, gpus, m, every_y=False):.1f} %"),
        row("… as built", lambda gpus, m: f"{100 * lost(load, gpus, m, every_y=True):.1f} %"),
    ]


def time(seconds: float) -> str:
    units = ("years", 365.25 * 86400), ("days", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)
    for unit, factor in units:
        if seconds >= (2 if factor > 1 else 1) * factor:
            return f"{digits(seconds / factor)} {unit}"
    return "0" if seconds == 0 else f"{digits(seconds * 1e6)} µs"


def size(n: float) -> str:
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= factor:
            return f"{digits(n / factor)} {unit}"
    return f"{n:.0f} B"


def count(n: float) -> str:
    return f"{n:,.0f}" if n < 1e5 else f"{digits(n / 1e6)} million"


def share(part: float, rest: float) -> str:
    percent = 100 * part / (part + rest)
    return "0" if part == 0 else f"{digits(percent)} %"


def digits(x: float) -> str:
    """Two of them, and not more zeros than it needs."""
    return f"{x:,.0f}" if x >= 10 else f"{x:.1f}" if x >= 0.95 else f"{x:.2g}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int] = (0,)) -> str:
    """In Markdown; numbers to the right, but for the columns of words."""
    lines = [head, ["---" if i in words else "---:" for i in range(len(head))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tables() -> dict[str, str]:
    """Each table of the document by its name there."""
    head = ["", *(f"{gpus:,} GPU{'s' if gpus > 1 else ''}, {power(m)} rows" for gpus, m in STEPS)]
    made = {load.name: table(head, terms(load)) for load in (C, D)}
    many = 10**12
    made["streamed"] = table(
        [f"C, {power(many)} rows", "X on GPUs", "on hosts", "from storage", "an evaluation", "its products"],
        [
            [f"{gpus:,} GPUs", *map(size, parts), time(seconds), time(compute(C, many / gpus))]
            for gpus in (800, 2_500, 5_000, 10_000)
            for *parts, seconds in [streamed(C, many, gpus)]
        ],
    )
    made["powers"] = table(
        ["ranks", "nodes of one", "of all", "C, reduction as built", "D", "by halves, C", "D"],
        [
            [f"{gpus:,}", str(topmost(leaves, gpus)[0]), f"{topmost(leaves, gpus)[1]:,}"]
            + [time(as_built(load, load.leaves(many, enough=True), gpus)) for load in (C, D)]
            + [time(by_halves(load, gpus)) for load in (C, D)]
            for gpus in RANKS
            for leaves in [C.leaves(many, enough=True)]
        ],
    )
    constants = [[one.what, plain(one.value), one.source] for one in CONSTANTS.values()]
    made["constants"] = table(["what", "value", "source"], constants, (0, 2))
    record = json.loads(RECORD.read_text())
    cells = [
        [one["what"], time(one["model"]), time(one["measured"]), f"{one['model'] / one['measured']:.2f}"]
        for one in two_ranks(record)
    ]
    made["two-ranks"] = table(["two ranks here", "model", "measured", "ratio"], cells)
    made["measured"] = measured(record)
    made["exchange"] = exchanges(record)
    return made


def measured(record: dict[str, Any]) -> str:
    """A row for each contender of each stage."""
    cells = []
    for stage in ("strong", "tree", "weak", "crowded", "peers"):
        for race in record["stages"].get(stage, []):
            for name, one in race["contenders"].items():
                if name not in _best(race["contenders"]):
                    continue
                low, high = one["quartiles"]
                where = f"{stage}, {race['shape'].split(':')[0]}"
                first = one is next(iter(race["contenders"].values()))
                times = "1" if first else f"{one['times_as_fast']:.2f} ({low:.2f} to {high:.2f})"
                cells.append([where, name, f"{1e3 * one['median_s']:.1f}", f"{1e3 * one['cpu_s']:.1f}", times])
    return table(["stage", "contender", "ms", "ms of cores", "times as fast (quartiles)"], cells, (0, 1))


def _best(contenders: dict[str, Any]) -> list[str]:
    """Their names; of PyTorch, which is tried with chunks of several sizes, the fastest on so many ranks."""
    by_ranks: dict[int, list[str]] = {}
    for name, one in contenders.items():
        if name.startswith("torch"):
            by_ranks.setdefault(one["ranks"], []).append(name)
    best = [min(names, key=lambda name: contenders[name]["median_s"]) for names in by_ranks.values()]
    return [name for name in contenders if not name.startswith("torch") or name in best]


def exchanges(record: dict[str, Any]) -> str:
    """By size, what travels how."""
    by_size = next(one for one in record["stages"]["exchange"] if one["ranks"] == 2)["by_size"]
    cells = [
        [size(int(n)), *(time(one[way]["median_s"]) if way in one else "" for way in ("whole", "slices", "allreduce"))]
        for n, one in by_size.items()
    ]
    return table(["a node of", "whole", "by slices", "MPI's `Allreduce`"], cells)


def plain(x: float) -> str:
    return f"{x:,.3g}" if 0.01 <= x < 1000 else power(x) if x < 1e4 or x > 1e6 else f"{x:,.0f}"


def power(x: float) -> str:
    """As a power of ten."""
    exponent = math.floor(math.log10(x) + 1e-12)
    first = round(x / 10.0**exponent, 3)
    raised = "".join("⁰¹²³⁴⁵⁶⁷⁸⁹⁻"["0123456789-".index(digit)] for digit in str(exponent))
    return ("" if first == 1 else f"{first:g}·") + f"10{raised}"


def with_tables(text: str) -> str:
    """The document with each table anew, between its marks."""
    for name, made in tables().items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, found, rest = text.partition(begin)
        if found:
            text = before + begin + made + "\n" + rest[rest.index(end) :]
    return text


def main() -> int:
    if sys.argv[1:] == ["--update"]:
        PAGE.write_text(with_tables(PAGE.read_text()))
    else:
        print("\n\n".join(f"{name}\n\n{made}" for name, made in tables().items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
