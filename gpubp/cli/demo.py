"""gpubp demo"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ._evaluate import evaluation_text
from ._options import DATA, closed_at_the_end, emit, engine_options, json_option, program, table
from ._train import outcome, watched


@click.command(name="demo", short_help="Train on real handwritten digits in seconds.")
@click.option(
    "--out",
    type=DATA,
    default="gpubp-demo",
    help="Run folder; a demo's folder is replaced by the next one.",
    metavar="RUN",
)
@click.option("--iterations", type=click.IntRange(0), default=100, help="The most iterations.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the initial Θ.")
@engine_options
@json_option
def command(out: Path, iterations: int, seed: int, as_json: bool, **engine: Any) -> None:
    """Train a 784-25-10 network, as in the course's exercise 4, on 5,000 real MNIST digits; test it on 5,000 others."""
    from ..backend import for_forward
    from ..data.demo import demo_file
    from ..inference import evaluate
    from ..job import Job
    from ..loading import load
    from ..model_rows import open_for, rows_for
    from ..run import start

    began = time.perf_counter()
    data = demo_file()
    job = Job(
        data=str(data), hidden=(25,), activation="sigmoid", cost="logistic", lambda_=1.0,
        iterations=iterations, seed=seed, **engine,
    )  # fmt: skip
    model, code = watched(lambda **watch: start(job, out, overwrite=_is_demo(out, data, load), **watch))
    rows = rows_for(model, closed_at_the_end(open_for(model, data, split="test")), labelled=True)
    tested = evaluate(model, rows, backend=for_forward(engine["backend"], device=engine["device"]))
    result = {**outcome(model, out), **{f"test_{k}": v for k, v in tested.items()}}
    result["accuracy"] = tested["accuracy"]
    result["total_seconds"] = time.perf_counter() - began
    text = table(
        [
            ("network", f"784-25-10, sigmoid units, logistic cost, λ = 1, seed {seed}"),
            ("trained on", "5,000 handwritten digits (MNIST), every one of them in every step"),
            (
                "cost J",
                f"{result['cost']:.6g} after {result['iterations']} iterations" if result["cost"] is not None else "-",
            ),
            (
                "seconds",
                f"{result['seconds']:.2f} for {result['passes']:,.0f} passes, {result['total_seconds']:.2f} in all",
            ),
            ("ended", result["reason"]),
            ("run", out),
        ]
    )
    text += "\n\non 5,000 digits it has never seen:\n" + evaluation_text(tested)
    file = _shown(data)
    text += f"""

what to try next:
  {program()} report {out}
  {program()} explain {out} {file} --row 7 --html seven.html
  {program()} resume {out} --iterations {iterations + 100}
  {program()} check {out} {file}
  {program()} train {file} --out better --hidden 100 --activation tanh
"""
    emit(result, as_json, text.rstrip())
    sys.exit(code)


def _shown(path: Path) -> str:
    """A path as a person would type it here."""
    here = os.path.relpath(path)
    return str(path) if here.startswith("..") else here


def _is_demo(out: Path, data: Path, load: Callable[[Path], Any]) -> bool:
    """Whether the folder holds an earlier demo's run, which may be replaced; another run may not."""
    from ..errors import GpubpError

    try:
        return load(out).job.get("data") == str(data)
    except GpubpError:
        return False
