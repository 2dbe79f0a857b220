"""gpubp check RUN DATA"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ._options import DATA, data_argument, emit, engine_options, json_option, names_options


@click.command(name="check", short_help="The numerical gradient beside backpropagation's.")
@click.argument("run", type=DATA)
@data_argument
@click.option("--rows", type=click.IntRange(1), default=200, help="How many rows of DATA to take.")
@click.option("--elements", type=click.IntRange(1), default=20, help="How many elements of each Θ^(l).")
@click.option("--seed", type=click.IntRange(0), default=0, help="Which elements.")
@names_options
@engine_options
@json_option
def command(
    run: Path, data: tuple[Path, ...], rows: int, elements: int, seed: int,
    x: str | None, y: str | None, weights: str | None, split: str | None,
    allow: str | None, as_json: bool, **engine: Any,
) -> None:  # fmt: skip
    """Check backpropagation on RUN's own Θ and DATA's own rows: finite differences of J in fp64.

    Exit code 1 if a layer's relative error is above 1e-7.
    """
    from ..backend import choose
    from ..diagnostics import TOLERANCE, gradient_check
    from ..loading import load
    from ..objective import Objective
    from ..prepare import first_rows, open_for, rows_for

    model = load(run)
    opened = open_for(model, data, x=x, y=y, weights=weights, split=split, allow=allow)
    dataset = first_rows(opened, rows, gaps=model.fill is not None)
    few = rows_for(model, dataset, labelled=True)
    objective = Objective(
        model.network, few, model.lambda_, backend=choose(engine.pop("backend"), **engine)[0], precision="fp64"
    )
    layers = gradient_check(objective, model.Theta, elements=elements, seed=seed)
    passed = all(layer.passed for layer in layers)
    result = {
        "passed": passed,
        "tolerance": TOLERANCE,
        "rows": few.m - few.dropped,
        "layers": [{**asdict(layer), "passed": layer.passed} for layer in layers],
    }
    lines = [f"{'':8}  elements  relative error  verdict   largest difference: numerical, backprop"]
    for layer in layers:
        w = layer.worst
        lines.append(
            f"Θ^({layer.layer})    {layer.elements:>10}  {layer.error:>14.2e}  {'PASS' if layer.passed else 'FAIL':<8}"
            f"  [{w['row']}, {w['column']}]  {w['numerical']:.12g}, {w['backprop']:.12g}"
        )
    lines.append(
        f"{'PASS' if passed else 'FAIL'}: {result['rows']} rows, fp64, λ = {model.lambda_:g},"
        f" wanted {TOLERANCE:g} or less"
    )
    emit(result, as_json, "\n".join(lines))
    sys.exit(0 if passed else 1)
