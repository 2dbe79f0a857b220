"""Sound HDF5 files with a few bytes changed where it hurts, and what becomes of each when it is opened to train on.

    python tests/data/hdf5/mutants.py --count 20000 --report mutants.json

Bytes of the structure are changed: bits, limits of integers, pointers to other blocks, pieces copied over. Checksums
are mended afterwards, as HDF5 would look no further. Each mutant must be read, or refused in one line, by a process
that lives on; what happens to the processes that it has for libhdf5 is counted.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import re
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from seeds import NAMES, Seed, checksum, seed

SPECIAL = (0, 1, 2, 3, 4, 5, 8, 16, 0x7F, 0x80, 0xFE, 0xFF)
LONG = 10.0  # seconds: a hang
MOST_READ = 32 << 20  # bytes of a mutant that says it has more rows


def mutant(number: int, *, values: bool = False) -> tuple[str, bytes]:
    """The name of its seed, and the bytes of a mutant; always the same for a number.

    Args:
        values: whether bytes of values (chunks, compressed or not) are changed and not the structure: for codecs.
    """
    draw = random.Random(number)
    name = NAMES[number % len(NAMES)]
    one = seed(name)
    raw = bytearray(one.raw)
    places = one.values if values and len(one.values) else one.structure
    for _ in range(draw.choice((1, 1, 1, 1, 2, 3))):
        _change(raw, one, int(places[draw.randrange(len(places))]), places, draw)
    for start, end in one.sums:
        if raw[start:end] != one.raw[start:end] and len(raw) == len(one.raw):
            raw[end : end + 4] = checksum(bytes(raw[start:end]))
    if draw.random() < 0.03:
        del raw[draw.randrange(len(raw)) :]
    return name, bytes(raw)


def _change(raw: bytearray, one: Seed, at: int, places: np.ndarray, draw: random.Random) -> None:
    kind, size, at = draw.random(), draw.choice((1, 2, 4, 8)), min(at, len(raw) - 1)
    top = (1 << 8 * size) - 1
    if kind < 0.3:
        raw[at] ^= 1 << draw.randrange(8)
    elif kind < 0.5:
        raw[at] = draw.choice((*SPECIAL, draw.randrange(256)))
    elif kind < 0.7:
        number = draw.choice(
            (0, 1, 7, 255, 4096, 65535, top, top >> 1, top - 1, (top >> 1) + 1, len(raw), len(raw) - 8)
        )
        raw[at : at + size] = (number & top).to_bytes(size, "little")
    elif kind < 0.8 and one.places:
        raw[at : at + 8] = draw.choice(one.places).to_bytes(8, "little")
    elif kind < 0.95:
        other, length = int(places[draw.randrange(len(places))]), draw.randrange(1, 16)
        raw[at : at + length] = raw[other : other + length]
    elif kind < 0.98:
        number = int.from_bytes(raw[at : at + size], "little") + draw.choice((-1, 1))
        raw[at : at + size] = (number & top).to_bytes(size, "little")
    else:
        del raw[at : at + draw.randrange(1, 16)]
    if len(raw) > len(one.raw):
        del raw[len(one.raw) :]


def read_as_training_does(path: Path) -> int:
    """Open it, read all rows; the bytes that were read."""
    from gpubp.data.dataset import open_dataset
    from gpubp.data.targets import interpret

    with open_dataset(path) as data:
        source, total = data.source, 0
        step = max(1, (1 << 20) // (source.features * source.dtype.itemsize))
        for start in range(0, source.m, step):
            stop = min(start + step, source.m)
            source.read(start, stop, np.empty((stop - start, source.features), source.dtype))
            total += (stop - start) * source.features * source.dtype.itemsize
            if total > MOST_READ:
                break
        source.check()
        if data.target is not None:
            interpret(data.target)
        return total


def look_at(path: Path) -> int:
    """What `gpubp info` asks."""
    from gpubp.data.report import describe_file

    return len(json.dumps(describe_file(path)))


def outcome(path: Path, how: Callable[[Path], int]) -> str:
    """In two or three words; a traceback in full."""
    from gpubp.errors import GpubpError

    try:
        how(path)
        return "read"
    except GpubpError as error:
        line = str(error)
        if not line.isprintable() or len(line) > 2000:
            return f"traceback: not one line that can be shown: {line[:500]!r}"
        crash = re.search(r"the HDF5 library (crashed \(\w+\)|did not come to an end|did not answer|gave no)", line)
        if crash:
            return f"refused, {crash[1]}"
        return "refused, killed" if "was killed" in line else "refused"
    except BaseException:
        return f"traceback: {traceback.format_exc()}"


def run(first: int, count: int, folder: Path, *, values: bool = False, keep: Path | None = None) -> dict[str, object]:
    """What became of so many mutants."""
    warnings.simplefilter("error")  # a warning is a second line
    outcomes: collections.Counter[str] = collections.Counter()
    by_seed: collections.Counter[str] = collections.Counter()
    wrong: list[list[object]] = []
    longest, begun = (0.0, -1), time.monotonic()
    for number in range(first, first + count):
        name, raw = mutant(number, values=values)
        path = folder / "mutant.h5"
        path.unlink(missing_ok=True)  # another inode: nothing is remembered of the last one
        path.write_bytes(raw)
        since = time.monotonic()
        how = look_at if number // len(NAMES) % 8 == 7 else read_as_training_does
        came = outcome(path, how)
        took = time.monotonic() - since
        longest = max(longest, (took, number))
        outcomes[came.split(":")[0]] += 1
        if came.startswith("refused, "):
            by_seed[f"{name}: {came.removeprefix('refused, ')}"] += 1
        if came.startswith("traceback") or took > LONG:
            wrong.append([number, name, round(took, 1), came])
            if keep is not None:
                (keep / f"{number}-{name}.h5").write_bytes(raw)
    seconds = time.monotonic() - begun
    return {
        "mutants": count,
        "outcomes": dict(outcomes.most_common()),
        "wrong": wrong,
        "longest": longest,
        "milliseconds each": round(1e3 * seconds / count, 1),
        "peak memory, MB": peak_memory() >> 20,
        "what libhdf5 did not survive": dict(by_seed.most_common()),
    }


def peak_memory() -> int:
    """Of this process since it began: what `getrusage` says begins with the memory of the one that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) << 10


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--values", action="store_true", help="change the values and not the structure")
    parser.add_argument("--report", type=Path)
    parser.add_argument("--keep", type=Path, help="a folder for those with which something is wrong")
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[3]))
    with tempfile.TemporaryDirectory() as folder:
        found = run(given.first, given.count, Path(folder), values=given.values, keep=given.keep)
    text = json.dumps(found, indent=1)
    if given.report:
        given.report.write_text(text + "\n")
    print(text)
    return int(bool(found["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
