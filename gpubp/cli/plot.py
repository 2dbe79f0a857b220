"""gpubp plot RUN [DATA] -o FILE --picture NAME"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ._options import DATA, Listing, emit, json_option, program, seen_options, table


@click.command(name="plot", short_help="One picture of a run, or all of them, as PNG, SVG or PDF.")
@click.argument("run", type=DATA)
@click.argument("data", type=DATA, nargs=-1, metavar="[DATA...]")
@click.option("-o", "--out", type=DATA, metavar="FILE", help="The picture to write: .png, .svg or .pdf.")
@click.option("--picture", cls=Listing, room="report.pictures", metavar="NAME", help="Which one:")
@click.option("--all", "folder", type=DATA, metavar="DIR", help="Write every picture there is into this folder.")
@click.option(
    "--format", "kind", type=click.Choice(["png", "svg", "pdf"]), default="png", help="Of the pictures of --all."
)
@seen_options
@json_option
def command(
    run: Path, data: tuple[Path, ...], out: Path | None, picture: str | None, folder: Path | None, kind: str,
    as_json: bool, **chosen: Any,
) -> None:  # fmt: skip
    """Draw what `gpubp report` shows of RUN, one by one. Without DATA the model is judged on the rows that the report
    takes."""
    from ..errors import DataError, UsageError
    from ..report import pictures, report
    from ..report.style import check

    if (folder is None) == (out is None) or (out is None) != (picture is None):
        raise UsageError("neither one picture nor all", wanted="--picture NAME -o FILE, or --all DIR")
    if picture is not None and picture not in pictures.names():
        raise UsageError(f"picture '{picture}'", wanted=f"one of {', '.join(pictures.names())}")
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"the folder {folder} could not be made: {error.strerror or error}") from None
    check(out if out is not None else Path(folder or ".") / f"picture.{kind}")
    made = report(run, data or None, program=program(), **chosen)
    asked: dict[str, Path] = {}
    if picture is not None and out is not None:
        asked = {picture: out}
    elif folder is not None:
        asked = {name: folder / f"{name}.{kind}" for name in made.pictures}
    for name, path in asked.items():
        made.save_picture(name, path)
    emit({"pictures": asked}, as_json, table([(name, str(path)) for name, path in asked.items()]))
