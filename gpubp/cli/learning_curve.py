"""gpubp learning-curve DATA"""

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
    out_option,
    plot_option,
    shown_score,
    tail,
    train_options,
)
from ._options import data_argument, emit, json_option
from ._ranks import ranks_option


@train_options("--checkpoint-every", "--keep", iterations=400)
@click.command(name="learning-curve", short_help="Cost against the number of rows: would more help?")
@data_argument
@click.option("--points", type=click.IntRange(2), default=8, help="How many parts of the rows.")
@click.option(
    "--least", type=click.IntRange(1), show_default="a hundredth of the rows", help="Rows of the smallest part."
)
@click.option("--repeats", type=click.IntRange(1), default=1, help="How many times, with other parts and initial Θ.")
@click.option(
    "--validation", type=float, show_default="the rows the file keeps for it, or 0.2",
    help="Fraction of the rows held out, chosen by a hash of (seed, row).",
)  # fmt: skip
@decrease_option
@click.option("--warm/--cold", default=False, help="Begin each training with the Θ of the smaller part before it.")
@out_option
@plot_option
@ranks_option
@json_option
def command(
    data: tuple[Path, ...], points: int, least: int | None, repeats: int, validation: float | None, decrease: float,
    warm: bool, out: Path | None, plot: Path | None, memory: str | None, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Train on more and more rows of DATA (HDF5), compare the cost on them with that on rows held out, and say what it
    means.

    Each part holds the rows of the smaller ones. Test rows are not looked at. Costs are shown without the λ term. The
    options of `gpubp train` hold for each training.
    """
    from ..choosing.learning_curve import learning_curve

    job = job_of(data, memory, options)
    found = chosen(
        lambda **watch: learning_curve(
            job, points, least=least, repeats=repeats, out=out, validation=validation, decrease=decrease, warm=warm,
            **watch,
        ),
        job, out, plot, lambda point: f"{point.rows:,} rows" + (f", repeat {point.fold}" if repeats > 1 else ""),
    )  # fmt: skip
    emit(found.asdict(), as_json, _text(found))
    sys.exit(0)


def _text(found: Any) -> str:
    rows = [["rows", "training", "validation", "±", found.measure, "passes", "seconds"]]
    for one in found.parts:
        rows.append(
            [
                f"{one.rows:,}", f"{one.cost:.5g}", f"{one.validation:.5g}", f"{one.validation_se:.2g}",
                shown_score(found.measure, one.score), f"{one.passes:.4g}", f"{one.seconds:.2f}",
            ]
        )  # fmt: skip
    text = columns(rows)
    text += f"\n\n{found.passes:.5g} passes over these rows, {found.seconds:.1f} s; held out: {found.validation}"
    return text + tail(found)
