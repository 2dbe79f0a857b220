"""How few passes over the data an optimizer needs: gpubp's beside SciPy's, PyTorch's and JAX's L-BFGS.

    python3 benchmarks/optimizers.py                                  # seven tasks, five seeds, everyone: hours
    python3 benchmarks/optimizers.py --tasks digits,deep --seeds 1    # some of it; --seeds 3,4 are those
    python3 benchmarks/optimizers.py --optimizers scipy,torch10,lbfgs,lbfgs:history=10:c2=0.5
    python3 benchmarks/optimizers.py --quick                          # seconds: two small tasks, one seed
    python3 benchmarks/optimizers.py --out benchmarks/results/optimizers.json

All contenders minimise the same function, gpubp's J and ∇J on the CPU, from the same Θ. The marks are the costs that
SciPy (`maxcor` 10, as scikit-learn calls it) has after 100, 200 and 400 evaluations; found are the passes and the
seconds that each contender takes to them. A pass is one evaluation of J and ∇J; what gpubp's optimizers ask for
besides, products with the curvature and its factors, is charged in passes too, and everything that a contender does
between its evaluations is in its seconds. `scipy-equal` is SciPy with as many corrections as fit the memory that
`klbfgs` takes (`lbfgs` where that is not there). With --own there are also scikit-learn's MLP, and PyTorch and JAX with
losses that they differentiate themselves: what their users wait for. Prints Markdown; the record holds every seed, the
versions, the processor.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PEERS = ("scipy", "scipy-equal", "torch10", "torch100", "optax")
OWN = ("sklearn-own", "torch10-own", "optax-own")


def say(what: str) -> None:
    """What is going on, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--tasks", help="some of them by name, or all; the seven of the targets unless said otherwise")
    parser.add_argument("--optimizers", help="some of them by name, gpubp's perhaps with options, NAME:OPTION=VALUE")
    parser.add_argument("--seeds", help="how many, or which: 0,3 or 3,")
    parser.add_argument("--turns", type=int, default=1, help="how often everything is timed; the shortest time counts")
    parser.add_argument("--budget", type=float, default=1.5, help="in parts of the last mark, passes of a contender")
    parser.add_argument("--precision", default="fp64", choices=("fp64", "fp32"))
    parser.add_argument("--threads", type=int, default=2, help="that work on an evaluation; BLAS has one")
    parser.add_argument("--own", action="store_true", help="also peers that evaluate J themselves")
    parser.add_argument("--quick", action="store_true", help="two small tasks, one seed, marks at 25, 50 and 100")
    parser.add_argument("--out", metavar="FILE", help="write everything that was measured there")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.worker:
        from optimizing import own
        from optimizing.match import serve

        serve(options.worker, own.make)
        return 0
    for pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before NumPy comes
        os.environ[pool] = "1"

    from optimizing.match import MARKS, play
    from optimizing.tables import content, overall, text
    from optimizing.tasks import QUICK, STANDARD, TASKS
    from problems import Absent
    from report import conditions, write

    from gpubp.optimizers import names

    tasks = (options.tasks or ",".join(QUICK if options.quick else STANDARD)).split(",")
    if tasks == ["all"]:
        tasks = list(TASKS)
    if unknown := [name for name in tasks if name not in TASKS]:
        parser.error(f"task {', '.join(unknown)}; wanted some of {', '.join(TASKS)}")
    everyone = [*PEERS, *OWN, *names()]
    usual = [*PEERS, *(OWN if options.own else ()), *names()]
    wanted = options.optimizers.split(",") if options.optimizers else usual
    if unknown := [name for name in wanted if name.split(":")[0] not in everyone]:
        parser.error(f"optimizer {', '.join(unknown)}; wanted some of {', '.join(everyone)}")
    if "scipy" not in wanted:
        wanted.insert(0, "scipy")  # the marks are its
    seeds = options.seeds or ("1" if options.quick else "5")
    chosen = [int(one) for one in dict.fromkeys(seeds.split(",")) if one] if "," in seeds else list(range(int(seeds)))
    matches, missing = [], []
    for task in tasks:
        try:
            found = play(
                task, chosen, {name: partial(_entry, name) for name in wanted},
                marks=(25, 50, 100) if options.quick else MARKS, budget=options.budget, turns=options.turns,
                precision=options.precision, threads=options.threads, say=say,
            )  # fmt: skip
        except Absent as reason:
            say("")
            missing.append(task)
            print(f"### {task}: left out, {reason}\n", flush=True)
            continue
        say("")
        matches.append(found)
        print(text(found), end="\n\n", flush=True)
        record: dict[str, Any] = {"what": "passes to SciPy's costs", **conditions(), "threads": options.threads}
        write(options.out, {**record, "missing": missing, **content(matches)})
    if matches:
        print(overall(matches))
    return 0 if matches else 1


def _entry(name: str, ready: Any) -> Any:
    """The contender of that name for this task."""
    from optimizing import contenders

    from gpubp.optimizers import names

    if name == "scipy":
        return contenders.scipy()
    if name == "scipy-equal":
        model = "klbfgs" if "klbfgs" in names() else "lbfgs"
        P = ready.network.P
        history = contenders.equal_history(contenders.memory_of(model, ready.objective, P), P)
        return contenders.scipy(history, name, f"maxcor {history}, the memory of {model}")
    if name in OWN:
        return contenders.Contender(name, contenders.nowhere, alone=True, notes="evaluates J itself")
    if name.startswith("torch"):
        return contenders.torch(int(name.removeprefix("torch")))
    if name == "optax":
        return contenders.optax()
    return contenders.ours(name)


if __name__ == "__main__":
    sys.exit(main())
