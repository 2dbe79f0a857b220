"""gpubp convert SRC DST.h5"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError
from ._options import DATA, WORTH_A_RATE, emit, json_option, program, table
from ._progress import Counter


class Formats(click.Command):
    """A command whose help ends with the formats that there are: they are asked for when help is shown."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from ..data.formats import formats

        self.epilog = f"SRC may be {', '.join(one.title for one in formats())}, an HDF5 file, a MAT v7.3 file."
        super().format_epilog(ctx, formatter)


@click.command(name="convert", short_help="Make an HDF5 file from another format.", cls=Formats)
@click.argument("src", type=DATA)
@click.argument("dst", type=DATA)
@click.option("--labels", type=DATA, help="File with the labels, where they are kept apart.")
@click.option("--x", help="Array, dataset or a table's columns (a,b,3:10) that are the rows.", metavar="NAME")
@click.option("--y", help="Array or column with the labels, or none; of a table by default the last.", metavar="NAME")
@click.option("--weights", help="Array or column with row weights, or none.", metavar="NAME")
@click.option("--header/--no-header", default=None, help="Whether a text begins with names; found out by default.")
@click.option(
    "--missing", type=click.Choice(["error", "keep"]), default="error", help="keep: missing values become NaN."
)
@click.option(
    "--allow",
    metavar="DIR",
    help="Of HDF5: folder in which the source files of virtual datasets may lie; without it those are refused.",
)
@click.option("--compress", is_flag=True, help="Chunks by Blosc-LZ4: smaller, read fast. Needs gpubp[codecs].")
@click.option("--archive", is_flag=True, help="Chunks by gzip and Fletcher's checksum: smallest, for any HDF5.")
@click.option("--hash-source/--no-hash-source", default=None, help="Note SRC's SHA-256; by default up to 256 MiB.")
@click.option("--force", is_flag=True, help="Convert a file again that is laid out so already.")
@click.option("--overwrite", is_flag=True, help="Replace DST.h5 if it exists.")
@json_option
def command(src: Path, dst: Path, as_json: bool, compress: bool, archive: bool, missing: str, **options: Any) -> None:
    """Make DST.h5 from SRC: contiguous rows in the smallest type that holds every value exactly, with checksums."""
    from ..data.convert import convert

    if compress and archive:
        raise UsageError("--compress and --archive", wanted="one of them")
    layout = "compress" if compress else "archive" if archive else "contiguous"
    line = shlex.join([program(), *sys.argv[1:]])
    with Counter("rows") as counter:
        result = convert(src, dst, layout=layout, missing=missing == "keep", command=line, progress=counter, **options)
    rate = f", {result['bytes'] / result['seconds'] / 1e6:,.0f} MB/s" if result["bytes"] >= WORTH_A_RATE else ""
    lines: list[tuple[str, Any]] = [
        ("written", f"{result['target']}, {result['bytes']:,} bytes ({result['layout']}{rate})"),
        ("from", f"{result['source']} ({result['format']})"),
    ]
    for part in result["parts"]:
        y = f"y ({part['y_dtype']})" if part["y_dtype"] else "no y"
        features = f"{part['features']:,} features ({part['x_dtype']})"
        lines.append((part["split"] or "rows", f"{part['rows']:,} rows of {features}, {y}"))
    emit(result, as_json, table(lines))
