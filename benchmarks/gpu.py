"""One cost and gradient on one GPU: gpubp beside its peers, its floors and its targets, in less than 9 minutes.

    python3 benchmarks/gpu.py                              # everything that fits into 520 s, most important first
    python3 benchmarks/gpu.py --resume                     # what is missing, after a run that was cut off
    python3 benchmarks/gpu.py --stages ceilings,fused      # some stages: ceilings, fused, layered, duties, checks,
                                                           # torch, race, jax, compiled, rematch
    python3 benchmarks/gpu.py --only "ours gpubp fused D"  # rows with one of these (comma) in their names
    python3 benchmarks/gpu.py --render benchmarks/results/gpu-*.json    # the tables, on any machine
    python3 benchmarks/gpu.py --smoke --out /tmp/smoke     # the same code on the CPU, tiny: says nothing of a GPU
    python3 benchmarks/gpu.py --list                       # every row there would be, with the seconds expected

Nothing is installed or downloaded: gpubp runs from this checkout; PyTorch, JAX and compute-sanitizer are used where
they are, and named where they are not. Results go to gpu-CARD.json in --out (by default $OUT or benchmarks/results)
after every row, all tables to gpu-CARD.md beside it; the targets are printed at the end. --resume begins with the
results in --out, or else with those in benchmarks/results. The exit code is 1 if a row failed, crashed, hung or was a
wrong answer.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
_ASK = "import cupy; print(cupy.cuda.runtime.getDeviceProperties(0)['name'].decode())"
_STATE = "driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu"


def card_name() -> str:
    """What CuPy calls GPU 0; asked in a process of its own, so that this one never holds the card."""
    done = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or "no word").splitlines()[-1]
        sys.exit(f"gpu.py: no GPU to measure: {last}; --smoke tries the program on the CPU")
    return done.stdout.strip()


def card_state() -> str:
    """Driver, memory, clocks, power limit, temperature, as nvidia-smi says; empty without it. Nothing is changed."""
    try:
        command = ["nvidia-smi", f"--query-gpu={_STATE}", "--format=csv,noheader", "--id=0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", help="the folder for the results")
    parser.add_argument("--stages", help="some stages, in this order")
    parser.add_argument("--only", default="", help="rows with one of these in their names; others stay as they are")
    parser.add_argument("--resume", action="store_true", help="skip rows there are of these sources and versions")
    parser.add_argument("--budget", type=float, default=520, help="seconds; what does not fit is left out and listed")
    parser.add_argument("--smoke", action="store_true", help="on the CPU, with tiny shapes")
    parser.add_argument("--sanitizer", metavar="PROGRAM", help="compute-sanitizer, where it is not found")
    parser.add_argument("--render", nargs="+", metavar="FILE", help="print the tables of these results and do nothing")
    parser.add_argument("--list", action="store_true", help="print what would be done")
    options = parser.parse_args()
    if options.worker:
        from on_gpu.worker import serve

        serve(*json.loads(options.worker))
        return 0
    if options.once:
        from on_gpu.checks import once

        once(options.smoke)
        return 0

    from on_gpu import plan
    from on_gpu.render import brief, markdown

    if options.render:
        print(markdown(options.render))
        return 0
    stages = options.stages.split(",") if options.stages else list(plan.STAGES)
    if unknown := [stage for stage in stages if stage not in plan.STAGES and not (options.smoke and stage == "faulty")]:
        parser.error(f"stage {', '.join(unknown)}; wanted some of {', '.join(plan.STAGES)}")
    if options.list:
        for stage in stages:
            found = plan.tasks(stage, options.smoke, {})
            print(f"{stage}: {sum(task.expect for task in found):.0f} s")
            print("".join(f"    {task.key}: {task.expect:g} s\n" for task in found), end="")
        return 0

    from on_gpu.driver import Budget, carry_out
    from on_gpu.journal import Journal, sources
    from report import conditions

    budget = Budget(options.budget)
    card = "CPU (smoke test)" if options.smoke else card_name()
    short = "smoke" if options.smoke else re.sub(r"[^a-z0-9]+", "-", card.lower().removeprefix("nvidia ")).strip("-")
    path = Path(options.out or os.environ.get("OUT") or RESULTS) / f"gpu-{short}.json"
    state = "" if options.smoke else card_state()
    about = conditions() | {"card": card, "smoke": options.smoke, "sources": sources(), "state": state}
    journal = Journal(path, card, about, RESULTS / path.name if options.resume and not options.smoke else None)
    carry_out(
        stages, journal, budget, smoke=options.smoke, resume=options.resume,
        only=options.only.split(",") if options.only else (), sanitizer=options.sanitizer,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )  # fmt: skip
    if not options.smoke:
        journal.note(state_after=card_state())
        journal.save()
    path.with_suffix(".md").write_text(markdown([str(path)]) + "\n")
    print(brief(journal.record))
    bad = [key for key, row in journal.rows.items() if row["run"] == journal.run and row["status"] in plan.BAD]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
