"""Rows read from HDF5 files that lie in memory: gpubp beside `preadv` alone, h5py, NumPy and PyTorch's DataLoader.

    python3 benchmarks/io.py                                     # both types, all layouts: about ten minutes
    python3 benchmarks/io.py --types uint8 --layouts contiguous,gzip --only gpubp,preadv
    python3 benchmarks/io.py --small                             # seconds: that it works, no figures to keep
    python3 benchmarks/io.py --json benchmarks/results/io.json

Readers take turns; each reads all rows of a file of 128 MB again and again for a tenth of a second or more, at least
twice, and the turn's figure is the median of those. Every reader's values are looked at first. Rates are of the rows as
they are in memory, whatever the file takes. Prints, for each type and layout, a Markdown table: GB/s (median of the
turns), the fastest turn, the distance between the quartiles over the median, and the rate over that of two threads with
`preadv` from a contiguous file; then the targets. The exit code is 1 if a reader gave wrong rows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from problems import Absent  # noqa: E402
from readers import LAYOUTS, READERS, Array, Reading, make, write  # noqa: E402
from report import conditions, table  # noqa: E402
from report import write as write_record  # noqa: E402
from runner import Pace  # noqa: E402

LIMIT, SLICES, ROWS = "preadv, 2 threads", "DataLoader, slices", "DataLoader, rows"


@dataclass
class Result:
    """What was measured of one reader: bytes per second in each turn."""

    name: str
    kind: str
    turns: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return float(np.median(self.turns))


@dataclass
class Race:
    """Everything about one type and layout: `skipped` and `failed` say who is missing, and why."""

    type: str
    layout: str
    file_mb: float
    results: dict[str, Result] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def race(kind: str, layout: str, X: Array, folder: Path, names: list[str], pace: Pace) -> Race:
    """Everyone's rows looked at, then the turns."""
    twin, path = folder / f"{kind}.h5", folder / f"{kind}-{list(LAYOUTS).index(layout)}.h5"
    if not twin.exists():
        write(twin, X, "contiguous")
    if layout == "contiguous":
        path = twin
    else:
        write(path, X, layout)
    found = Race(kind, layout, path.stat().st_size / 1e6)
    ready: dict[str, Reading] = {}
    for name in names:
        try:
            reading = READERS[name].build(path, twin, X)
            if reading.blocks is not None and not _agree(reading, X):
                found.failed[name] = "wrong rows"
                continue
            ready[name] = reading
            found.results[name] = Result(name, READERS[name].kind)
        except ModuleNotFoundError as error:
            found.skipped[name] = f"{error.name} is not installed"
        except Absent as error:
            found.skipped[name] = str(error)
    for turn in range(pace.rounds):
        for name in list(ready)[:: 1 if turn % 2 else -1]:
            pace.rest()
            found.results[name].turns.append(_turn(ready[name], pace.least) * X.shape[1] * X.itemsize)
    for reading in ready.values():
        reading.close()
    return found


def _agree(reading: Reading, X: Array) -> bool:
    assert reading.blocks is not None
    at = 0
    for block in reading.blocks():
        if not np.array_equal(block, X[at : at + len(block)]):
            return False
        at += len(block)
    return at == reading.rows


def _turn(reading: Reading, least: float) -> float:
    """Rows per second."""
    reading.run()
    seconds: list[float] = []
    while len(seconds) < 2 or sum(seconds) < least:
        began = time.perf_counter()
        reading.run()
        seconds.append(time.perf_counter() - began)
    return reading.rows / float(np.median(seconds))


def text(found: Race) -> str:
    """The table of a race, in Markdown."""
    limit = found.results.get(LIMIT)
    rows = []
    for result in found.results.values():
        low, high = np.percentile(result.turns, (25, 75))
        over = f"{result.rate / limit.rate:.3f}" if limit else ""
        rate, best = f"{result.rate / 1e9:.3f}", f"{max(result.turns) / 1e9:.3f}"
        rows.append([result.name, rate, best, f"{100 * (high - low) / result.rate:.0f} %", over])
    lines = [f"### {found.type}, {found.layout}, a file of {found.file_mb:.0f} MB", ""]
    lines += table(("", "GB/s", "best", "spread", "÷ limit"), rows)
    lines += ["", *(f"- {name}: skipped, {reason}" for name, reason in found.skipped.items())]
    lines += [f"- {name}: **failed**, {reason}" for name, reason in found.failed.items()]
    return "\n".join(lines)


def targets(races: list[Race]) -> list[dict[str, Any]]:
    """What was promised, and what was measured: of gpubp's ways to ask the fastest."""
    found = []
    for one in races:
        ours = [result.rate for result in one.results.values() if result.kind == "gpubp"]
        wanted = {"contiguous": [(LIMIT, 0.90)], "blosc-lz4": [("h5py read_direct", 2.0)]}.get(one.layout, [])
        if one.layout == "contiguous":
            wanted += [(SLICES, 2.0), (f"{SLICES}, 2 workers", 2.0), (ROWS, 20.0), (f"{ROWS}, 2 workers", 20.0)]
        for name, least in wanted:
            if ours and name in one.results:
                ratio = max(ours) / one.results[name].rate
                found.append({"type": one.type, "layout": one.layout, "over": name, "target": least, "measured": ratio})
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default="float32,uint8")
    parser.add_argument("--layouts", default=",".join(LAYOUTS), help="some of: %(default)s")
    parser.add_argument("--only", default="", help="readers with one of these in their names")
    parser.add_argument("--megabytes", type=float, default=128, help="of rows in each file")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each reader")
    parser.add_argument("--patience", type=float, default=5, help="seconds that a turn waits for cores at rest")
    parser.add_argument("--folder", help="where the files are made; a temporary folder unless said otherwise")
    parser.add_argument("--small", action="store_true", help="a quick look: two short turns, files of 2 MB")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured there")
    options = parser.parse_args()
    only = options.only.split(",") if options.only else []
    names = [name for name in READERS if not only or any(part in name for part in only)]
    layouts = [name for name in LAYOUTS if name in options.layouts.split(",")]
    if not names or not layouts:
        parser.error("no such reader or layout; there are " + ", ".join([*READERS, *LAYOUTS]))
    pace = Pace(rounds=options.rounds, least=0.1, pause=0.1, patience=options.patience)
    if options.small:
        options.megabytes, pace = 2, Pace(rounds=2, least=0, pause=0, patience=0)
    races: list[Race] = []
    for kind in options.types.split(","):
        X = make(kind, options.megabytes)
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            for layout in layouts:
                try:
                    races.append(race(kind, layout, X, Path(folder), names, pace))
                except Absent as reason:
                    print(f"{kind}, {layout}: skipped, {reason}\n")
                    continue
                print(text(races[-1]), end="\n\n", flush=True)
    reached = targets(races)
    head = ("", "over", "target", "measured")
    lines = [
        [f"{one['type']}, {one['layout']}", one["over"], f"{one['target']:g}", f"{one['measured']:.2f}"]
        for one in reached
    ]
    print("\n".join(table(head, lines)))
    content = {"what": "rows read from HDF5 files that lie in memory", **conditions(), "targets": reached}
    write_record(options.json, content | {"races": [asdict(one) for one in races]})
    return 1 if any(one.failed for one in races) else 0


if __name__ == "__main__":
    sys.exit(main())
