"""gpubp predict RUN DATA -o OUT"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import click

from ..precision import EXACT
from ._options import Listing, device_options, emit, json_option, names_options, of_split, table
from ._ranks import ranks_option
from ._theta import model_arguments, opened, run_and_data

log = logging.getLogger("gpubp")


@click.command(name="predict", short_help="Write a model's predictions for the rows of a file.")
@model_arguments
@click.option(
    "-o", "--out", type=click.Path(), required=True, help="File to write, such as out.h5 or out.csv; - is stdout.",
    metavar="OUT",
)  # fmt: skip
@click.option(
    "--format", "format_", cls=Listing, room="predictions.formats", metavar="NAME",
    help="Of OUT, where its name does not say it; on stdout csv if nothing is said; one of",
)  # fmt: skip
@click.option("--probability/--no-probability", default=True, help="Whether classifiers write their probabilities.")
@names_options
@device_options
@click.option("--precision", type=click.Choice(EXACT), default="fp32", help="Of the pass.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@ranks_option
@json_option
def command(
    words: tuple[Path, ...], out: str, format_: str | None, probability: bool, x: str | None, y: str | None,
    weights: str | None, split: str | None, allow: str | None, backend: str, device: int, precision: str,
    overwrite: bool, as_json: bool, **said: Any,
) -> None:  # fmt: skip
    """Write the predictions of RUN's model for the rows of DATA to OUT, row by row.

    A prediction is the class as it was written in the training data, 0/1 labels, or real numbers. HDF5 (out.h5) and
    NumPy (out.npy) get `prediction` and, for classifiers, `probability` (rows × classes); tables (out.csv, .tsv,
    .jsonl, .parquet) the columns prediction and p_CLASS. A file is there whole or not at all. With
    --theta FILE there is no RUN.
    """
    from ..backend import for_forward
    from ..backend.ranks import local_device
    from ..communicator import current
    from ..data.several import files
    from ..errors import UsageError
    from ..hosts import cores, refuse_other_rows
    from ..model_rows import rows_for
    from ..predictions import print_predictions, write_predictions

    _, data = run_and_data(words, said)
    to_stdout = out == "-"
    if to_stdout and as_json:
        raise UsageError("--json with -o -", wanted="a file for the predictions, or stdout for them alone")
    if os.path.exists(out) and any(os.path.samefile(out, file) for file in files(data) if os.path.exists(file)):
        raise UsageError(f"{out} is the data itself", wanted="another file to write the predictions to")
    model, dataset = opened(words, said, x=x, y=y, weights=weights, split=split, allow=allow, y_required=False)
    ranks = current()
    refuse_other_rows(ranks, dataset.source, dataset.target, dataset.weights)
    rows = rows_for(model, dataset, labelled=False)
    on = for_forward(backend, device=local_device(ranks, device), threads=cores(ranks))
    how: dict[str, Any] = {"backend": on, "precision": precision, "probability": probability, "communicator": ranks}
    counted = f"{rows.m:,}{of_split(dataset.split)}"
    if to_stdout:
        print_predictions(model, rows, sys.stdout.buffer, format=format_ or "csv", **how)
        log.info("rows     %s", counted)
        return
    held = write_predictions(model, rows, out, overwrite=overwrite, format=format_, **how)
    result = {"out": out, "split": dataset.split, "rows": rows.m, **held}
    listed = [(what, ", ".join(names)) for what, names in held.items()]
    emit(result, as_json, table([("written", out), ("rows", counted), *listed]))
