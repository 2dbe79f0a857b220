"""gpubp evaluate RUN DATA"""

from __future__ import annotations

import logging
from pathlib import Path

import click

from ..precision import EXACT
from ._evaluate import evaluation_text
from ._options import DATA, data_argument, device_options, emit, json_option, names_options

log = logging.getLogger("gpubp")


@click.command(name="evaluate", short_help="Cost and accuracy of a model on labelled rows.")
@click.argument("run", type=DATA)
@data_argument
@names_options
@device_options
@click.option("--precision", type=click.Choice(EXACT), default="fp32", help="Of the pass.")
@json_option
def command(
    run: Path, data: tuple[Path, ...], x: str | None, y: str | None, weights: str | None, split: str | None,
    allow: str | None, backend: str, device: int, precision: str, as_json: bool,
) -> None:  # fmt: skip
    """Cost, accuracy and confusion matrix (R² and RMSE for a regression) of RUN's model on DATA.

    RUN is a run folder or a checkpoint; DATA one file, several, or a pattern. Where it has test rows, they are taken.
    """
    from ..backend import for_forward
    from ..inference import evaluate
    from ..loading import load
    from ..prepare import open_for, rows_for

    model = load(run)
    dataset = open_for(model, data, x=x, y=y, weights=weights, split=split, allow=allow)
    result = evaluate(
        model, rows_for(model, dataset, labelled=True), backend=for_forward(backend, device=device), precision=precision
    )
    result = {"split": dataset.split, **result}
    if result.get("dropped"):
        log.warning("%d more rows have a missing value and do not count, as in the training", result["dropped"])
    if dataset.split == "train":
        log.warning("these are the rows for training: the file has no test rows; --split names others")
    emit(result, as_json, evaluation_text(result))
