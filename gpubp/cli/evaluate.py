"""gpubp evaluate RUN DATA"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from ..precision import EXACT
from ._evaluate import evaluation_text
from ._options import device_options, emit, json_option, names_options
from ._ranks import ranks_option
from ._theta import model_arguments, opened

log = logging.getLogger("gpubp")


@click.command(name="evaluate", short_help="Cost and accuracy of a model on labelled rows.")
@model_arguments
@names_options
@device_options
@click.option("--precision", type=click.Choice(EXACT), default="fp32", help="Of the pass.")
@click.option(
    "--lambda", "lambda_", type=click.FloatRange(0), help="Also J, the cost with the term of this λ: λ/2m·ΣΘ²."
)
@ranks_option
@json_option
def command(
    words: tuple[Path, ...], x: str | None, y: str | None, weights: str | None, split: str | None,
    allow: str | None, backend: str, device: int, precision: str, lambda_: float | None, as_json: bool, **said: Any,
) -> None:  # fmt: skip
    """Cost, accuracy and confusion matrix (R² and RMSE for a regression) of RUN's model on DATA.

    RUN is a run folder or a checkpoint; DATA one file, several, or a pattern. Where it has test rows, they are taken.
    With --theta FILE there is no RUN.
    """
    from ..backend import for_forward
    from ..backend.ranks import local_device
    from ..choosing.point import penalty
    from ..communicator import current
    from ..hosts import cores, refuse_other_rows
    from ..inference import evaluate
    from ..model_rows import rows_for

    model, dataset = opened(words, said, x=x, y=y, weights=weights, split=split, allow=allow)
    ranks = current()
    refuse_other_rows(ranks, dataset.source, dataset.target, dataset.weights)
    rows = rows_for(model, dataset, labelled=True, communicator=ranks)
    on = for_forward(backend, device=local_device(ranks, device), threads=cores(ranks))
    result = evaluate(model, rows, backend=on, precision=precision, communicator=ranks)
    result = {"split": dataset.split, **result}
    if lambda_ is not None:
        term = penalty(model.network, model.Theta, lambda_, rows.weight_sum)
        result |= {"lambda": lambda_, "J": result["cost"] + term}
    if result.get("dropped"):
        log.warning("%d more rows have a missing value and do not count, as in the training", result["dropped"])
    if dataset.split == "train":
        log.warning("these are the rows for training: the file has no test rows; --split names others")
    emit(result, as_json, evaluation_text(result))
