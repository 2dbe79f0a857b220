"""gpubp sweep DATA --lambda 0,0.1,1,10"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ._choosing import (
    chosen,
    columns,
    decrease_option,
    job_of,
    numbers,
    out_option,
    plot_option,
    shown_score,
    tail,
    train_options,
)
from ._options import data_argument, emit, json_option
from ._ranks import ranks_option


def _networks(ctx: click.Context, param: click.Parameter, text: str) -> tuple[tuple[int, ...], ...]:
    from .train import hidden_layers

    return tuple(hidden_layers(ctx, param, part.strip()) for part in text.split(";"))


@train_options("--checkpoint-every", "--keep", iterations=400)
@click.command(name="sweep", short_help="Choose λ by a validation curve.")
@data_argument
@click.option(
    "--lambda", "lambdas", default="0,0.01,0.03,0.1,0.3,1,3,10", callback=numbers, metavar="LIST", help="Each λ to try."
)
@click.option(
    "--hidden", "networks", default="100", callback=_networks, metavar="SIZES",
    help="Units of the hidden layers: 256,128, or none; several networks as '25;50;100,50'.",
)  # fmt: skip
@click.option(
    "--validation", type=float, show_default="the rows the file keeps for it, or 0.2",
    help="Fraction of the rows held out, chosen by a hash of (seed, row).",
)  # fmt: skip
@click.option(
    "--cv", "folds", type=click.IntRange(2), show_default=False,
    help="K folds by a hash of (seed, row), each held out once, in place of --validation.",
)  # fmt: skip
@decrease_option
@click.option("--warm/--cold", default=True, help="Begin each training with the Θ of the next larger λ.")
@out_option
@plot_option
@ranks_option
@json_option
def command(
    data: tuple[Path, ...], lambdas: tuple[float, ...], networks: tuple[tuple[int, ...], ...],
    validation: float | None, folds: int | None, decrease: float, warm: bool, out: Path | None, plot: Path | None,
    memory: str | None, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Train on DATA (HDF5) with each λ, compare the costs on rows held out, and say what they mean.

    Test rows are not looked at. Costs are shown without the λ term. The options of `gpubp train` hold for each
    training.
    """
    from ..choosing.sweep import sweep

    job = job_of(data, memory, {**options, "hidden": networks[0]})
    found = chosen(
        lambda **watch: sweep(
            job, lambdas, networks=networks, out=out, folds=folds or 0, validation=validation, decrease=decrease,
            warm=warm, **watch,
        ),
        job, out, plot, lambda point: f"{_hidden(point.hidden)}, λ = {point.lambda_:g}, fold {point.fold}"
        if folds else f"{_hidden(point.hidden)}, λ = {point.lambda_:g}",
    )  # fmt: skip
    emit(found.asdict(), as_json, _text(found, len(networks) > 1))
    sys.exit(0)


def _hidden(hidden: tuple[int, ...]) -> str:
    return ",".join(map(str, hidden)) or "none"


def _text(found: Any, several: bool) -> str:
    rows = [["", "λ", "training", "validation", "±", found.measure, "passes", "seconds"]]
    if several:
        rows[0].insert(1, "hidden")
    for number, one in enumerate(found.candidates):
        mark = "→" if number == found.chosen else "≈" if number == found.simplest else ""
        row = [
            mark, f"{one.lambda_:g}", f"{one.cost:.5g}", f"{one.validation:.5g}", f"{one.validation_se:.2g}",
            shown_score(found.measure, one.score), f"{one.passes:.4g}", f"{one.seconds:.2f}",
        ]  # fmt: skip
        if several:
            row.insert(1, _hidden(one.hidden))
        rows.append(row)
    text = columns(rows)
    text += f"\n\n{found.passes:.5g} passes, {found.seconds:.1f} s; held out: {found.validation}; → chosen"
    if found.simplest != found.chosen:
        text += ", ≈ within one standard error of it"
    return text + tail(found)
