"""gpubp convert SRC DST.h5"""

from __future__ import annotations

from pathlib import Path

import click

from ._options import DATA, emit, json_option, table


@click.command(name="convert", short_help="Make an HDF5 file from IDX, CSV, NPY or NPZ.")
@click.argument("src", type=DATA)
@click.argument("dst", type=DATA)
@click.option("--labels", type=DATA, help="File with the labels, where SRC holds only the rows.")
@click.option("--y", metavar="COLUMN", help="CSV: name or number of the label column; the default is the last.")
@click.option("--overwrite", is_flag=True, help="Replace DST.h5 if it exists.")
@json_option
def command(src: Path, dst: Path, labels: Path | None, y: str | None, overwrite: bool, as_json: bool) -> None:
    """Make DST.h5 from SRC: contiguous rows in the smallest type that holds every value exactly."""
    from ..data.convert import convert

    result = convert(src, dst, labels=labels, y=y, overwrite=overwrite)
    emit(result, as_json, table([(str(name), value) for name, value in result.items()]))
