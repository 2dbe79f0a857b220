"""One cost and gradient on the CPU: gpubp beside its peers and beside the matrix products alone.

    python3 benchmarks/cpu.py                                    # shapes A, B, C and D, everyone: about half an hour
    python3 benchmarks/cpu.py --shape D --only gpubp,products    # some, by parts of their names
    python3 benchmarks/cpu.py --layers 28,64,64,1 --activation tanh --cost logistic --m 100000
    python3 benchmarks/cpu.py --short                            # seconds; gpubp and NumPy alone
    python3 benchmarks/cpu.py --json benchmarks/results/cpu.json

Prints, for each shape, a Markdown table: the median of the turns in ms (see `runner.py`), the fastest turn, the
distance between the quartiles over the median, the time over the limit (the whole-batch matrix products in float32,
for each product the faster of NumPy and PyTorch), cores used, seconds until the first answer (imports and compilers
included), errors relative to a float64 reference, and the most memory above the data. Peers whose packages are missing
are named and left out; the exit code is 1 if somebody failed or gave a wrong answer.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def say(what: str) -> None:
    """What is going on, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--shape", help="A, B, C, D or several, such as A,D; all unless said otherwise")
    parser.add_argument("--layers", help="a shape of your own: s_1,…,s_L")
    parser.add_argument("--activation", default="sigmoid", choices=("sigmoid", "tanh", "relu"))
    parser.add_argument("--cost", default="logistic", choices=("logistic", "softmax"))
    parser.add_argument("--m", type=int, help="rows, instead of the shape's own")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contender")
    parser.add_argument("--threads", type=int, help="all cores there are, unless said otherwise")
    parser.add_argument("--only", default="", help="contenders with one of these in their names: gpubp,torch")
    parser.add_argument("--skip", default="", help="contenders to leave out, in the same way")
    parser.add_argument("--chunks", help="rows of a chunk to try: 4096 or 2048,8192")
    parser.add_argument("--bf16", action="store_true", help="for information, bfloat16 as well")
    parser.add_argument("--short", action="store_true", help="a quick look: two short turns of gpubp and NumPy")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured there")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.worker:
        from runner import serve

        serve(options.worker)
        return 0

    from gpubp.backend.cores import available_cores

    threads = options.threads or available_cores()
    for pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # the reference's, before NumPy comes
        os.environ[pool] = str(threads)

    from contenders import CONTENDERS, SHORT
    from problems import SHAPES, Shape
    from race import race
    from report import record, text, write
    from runner import Pace

    if options.layers:
        layers = tuple(map(int, options.layers.split(",")))
        shapes = [Shape(layers, options.activation, options.cost, 10_000)]
    else:
        wanted = (options.shape or ",".join(SHAPES)).upper().split(",")
        if unknown := [name for name in wanted if name not in SHAPES]:
            parser.error(f"shape {', '.join(unknown)}; wanted some of {', '.join(SHAPES)}")
        shapes = [SHAPES[name] for name in wanted]
    only, skip = (part.split(",") if part else [] for part in (options.only, options.skip))
    names = [
        name
        for name, contender in CONTENDERS.items()
        if (options.bf16 or contender.kind != "information")
        and (not options.short or (contender.kind != "information" and any(part in name for part in SHORT)))
        and (not only or any(part in name for part in only))
        and not any(part in name for part in skip)
    ]
    if not names:
        parser.error("no contender has such a name; there are " + ", ".join(CONTENDERS))
    chunks = [int(rows) for rows in options.chunks.split(",")] if options.chunks else None
    pace = Pace(rounds=2, least=0.02, pause=0, patience=0) if options.short else Pace(rounds=options.rounds)
    races = []
    for shape in shapes:
        races.append(race(names, shape.with_rows(options.m), threads, pace, chunks=chunks, say=say))
        say("")
        print(text(races[-1]), end="\n\n", flush=True)
        write(options.json, record("one cost and gradient on the CPU", races, pace=vars(pace)))
    return 1 if any(found.failed for found in races) else 0


if __name__ == "__main__":
    sys.exit(main())
