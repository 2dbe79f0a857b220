"""gpubp predict RUN DATA -o OUT.h5"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from ..precision import EXACT
from ._options import DATA, device_options, emit, json_option, names_options, of_split, table
from ._theta import model_arguments, opened, run_and_data


@click.command(name="predict", short_help="Write a model's predictions for the rows of a file.")
@model_arguments
@click.option("-o", "--out", type=DATA, required=True, help="HDF5 file to write.", metavar="OUT.h5")
@names_options
@device_options
@click.option("--precision", type=click.Choice(EXACT), default="fp32", help="Of the pass.")
@click.option("--overwrite", is_flag=True, help="Replace OUT.h5 if it exists.")
@json_option
def command(
    words: tuple[Path, ...], out: Path, x: str | None, y: str | None, weights: str | None, split: str | None,
    allow: str | None, backend: str, device: int, precision: str, overwrite: bool, as_json: bool, **said: Any,
) -> None:  # fmt: skip
    """Write the predictions of RUN's model for the rows of DATA to OUT.h5.

    OUT.h5 gets `prediction` (the class as it was written in the training data, 0/1 labels, or real numbers) and, for
    classifiers, `probability` (rows × classes). With --theta FILE there is no RUN.
    """
    from ..backend import for_forward
    from ..data.several import files
    from ..errors import UsageError
    from ..predictions import write_predictions
    from ..prepare import rows_for

    _, data = run_and_data(words, said)
    if out.exists() and any(os.path.samefile(out, file) for file in files(data) if os.path.exists(file)):
        raise UsageError(f"{out} is the data itself", wanted="another file to write the predictions to")
    model, dataset = opened(words, said, x=x, y=y, weights=weights, split=split, allow=allow, y_required=False)
    rows = rows_for(model, dataset, labelled=False)
    written = write_predictions(
        model, rows, out, backend=for_forward(backend, device=device), precision=precision, overwrite=overwrite
    )
    result = {"out": out, "split": dataset.split, "rows": rows.m, "datasets": written}
    emit(
        result,
        as_json,
        table([("written", out), ("rows", f"{rows.m:,}{of_split(dataset.split)}"), ("datasets", ", ".join(written))]),
    )
