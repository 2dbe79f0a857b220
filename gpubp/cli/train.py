"""gpubp train DATA.h5 --out RUN"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..precision import LADDER
from ._options import (
    DATA,
    Listing,
    data_argument,
    engine_options,
    json_option,
    memory_bytes,
    memory_option,
    names_options,
)
from ._ranks import ranks_option
from ._stopping import for_training, stopping_options
from ._train import report, watched


def hidden_layers(ctx: click.Context, param: click.Parameter, text: Any) -> tuple[int, ...]:
    if text in ("", "none"):
        return ()
    try:
        sizes = tuple(int(part) for part in str(text).split(","))
        if min(sizes) > 0:
            return sizes
    except ValueError:
        pass
    raise click.BadParameter(f"'{text}'; wanted units per hidden layer such as 256,128, or none")


def _settings(ctx: click.Context, param: click.Parameter, pairs: tuple[str, ...]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"'{pair}'; wanted NAME=VALUE such as history=10")
        try:
            settings[name] = float(value) if any(c in value for c in ".eE") else int(value)
        except ValueError:
            settings[name] = value  # a word; the optimizer knows which of its options take one
    return settings


@click.command(name="train", short_help="Train a network on an HDF5 file.")
@data_argument
@click.option("--out", type=DATA, required=True, help="Run folder: checkpoints, history.", metavar="RUN")
@click.option(
    "--hidden",
    default="100",
    callback=hidden_layers,
    metavar="SIZES",
    help="Units of the hidden layers: 256,128, or none.",
)
@click.option(
    "--activation", default="sigmoid", metavar="NAME", cls=Listing, room="activation", help="Of the hidden layers:"
)
@click.option(
    "--cost",
    default="auto",
    metavar="NAME",
    cls=Listing,
    room="cost",
    help="auto (three or more classes: softmax; two, or a 0/1 matrix: logistic; real targets: squares), or",
)
@click.option(
    "--lambda",
    "lambda_",
    type=float,
    default=1.0,
    help="λ, the weight of the regularisation.",
)
@click.option(
    "--optimizer", default="klbfgs", metavar="NAME", cls=Listing, room="optimizers", help="What makes the steps:"
)
@click.option(
    "--set",
    "options",
    multiple=True,
    callback=_settings,
    metavar="NAME=VALUE",
    help="A hyperparameter of the optimizer.",
)
@click.option("--iterations", type=click.IntRange(0), default=100, help="The most iterations.")
@stopping_options
@click.option(
    "--precision",
    type=click.Choice(LADDER),
    default="fp32",
    help="Of a pass; Θ and all decisions are fp64. The first three need a GPU.",
)
@click.option("--climb/--no-climb", default=True, help="Where it stalls, go on at the next finer precision.")
@engine_options
@click.option(
    "--validation", type=float, default=0.0, help="Fraction of the rows held out, chosen by a hash of (seed, row)."
)
@click.option(
    "--scale",
    type=click.Choice(["auto", "none", "standard", "255"]),
    default="auto",
    help="How x is scaled; auto: bytes ÷ 255, other numbers standardised.",
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the initial Θ and the validation rows.")
@click.option(
    "--start",
    "begin",
    type=DATA,
    metavar="FILE",
    help="Begin with the Θ of a run, of an export, or in .npz, .mat, Octave text, HDF5, JSON, .safetensors or .pt; "
    "hidden layers, activation and cost are its own unless they are said.",
)
@names_options
@click.option(
    "--select",
    multiple=True,
    metavar="WHAT",
    help="Rows to train on, rows=START:STOP[:STEP], or columns to use, columns=NAME,NUMBER,START:STOP; counted from 0. "
    "Columns are taken in evaluate and predict as well.",
)
@click.option(
    "--missing",
    type=click.Choice(["error", "mean", "drop"]),
    default="error",
    help="What is done about NaNs in x; mean: the mean of the column's other values, drop: the row does not count.",
)
@click.option(
    "--class-weight",
    metavar="WEIGHTS",
    help="balanced: every class counts the same; or LABEL=W,LABEL=W, 1 for others. They multiply row weights.",
)
@memory_option
@click.option(
    "--checkpoint-every",
    default="60",
    metavar="WHEN",
    help="Seconds, later where that would cost more than 1 % of the time; or iterations: 1it for every one.",
)
@click.option("--keep", type=click.IntRange(1), default=3, help="Checkpoints that stay in the run folder.")
@click.option("--overwrite", is_flag=True, help="Replace a run that is in the folder already.")
@click.option(
    "--resume",
    "again",
    type=click.Choice(["never", "auto"]),
    default="never",
    help="auto: where the folder holds this very run, go on with it, else begin it: a line to be repeated as it is.",
)
@click.option(
    "--inexact", is_flag=True, help="With --resume auto: go on although conditions differ on which the bits depend."
)
@ranks_option
@json_option
def command(
    data: tuple[Path, ...], out: Path, begin: Path | None, memory: str | None, overwrite: bool, again: str,
    inexact: bool, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Train a network on the rows of DATA (HDF5) with the exact gradient over all of them.

    DATA may be several files or a pattern such as 'part-*.h5' (sorted by name): their rows are one data set.

    The run folder gets checkpoints and a history; `gpubp resume RUN` goes on with it, bit for bit.
    """
    from ..job import Job
    from ..run import start

    options, initial = for_training(options), None
    if begin is not None:
        from ..theta_files import begin_with

        named = click.get_current_context().get_parameter_source
        unsaid = [name for name in ("hidden", "activation", "cost") if named(name) is ParameterSource.DEFAULT]
        initial, more = begin_with(begin, {name: options[name] for name in options if name not in unsaid})
        options |= more
    job = Job(data=tuple(map(str, data)), memory=memory_bytes(memory), **options)
    model, code = watched(
        lambda **watch: start(
            job, out, overwrite=overwrite, resume=again, inexact=inexact, initial=initial, **watch
        )
    )  # fmt: skip
    report(model, out, as_json, code)
