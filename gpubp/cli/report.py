"""gpubp report RUN [DATA]"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import click

from ._options import DATA, emit, json_option, program, seen_options

log = logging.getLogger("gpubp")


@click.command(name="report", short_help="A run as one page to look at: curves, quality, worst rows.")
@click.argument("run", type=DATA)
@click.argument("data", type=DATA, nargs=-1, metavar="[DATA...]")
@click.option(
    "-o", "--out", type=DATA, metavar="FILE.html",
    help="The page to write; report.html in the run's folder, or beside the checkpoint.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace a file that no gpubp report wrote.")
@seen_options
@click.option("--follow", is_flag=True, help="Show the run live in the terminal instead, until it ends.")
@click.option("--tensorboard", type=DATA, metavar="DIR", help="Write the history as TensorBoard's event files as well.")
@json_option
def command(
    run: Path, data: tuple[Path, ...], out: Path | None, overwrite: bool, follow: bool, tensorboard: Path | None,
    as_json: bool, **chosen: Any,
) -> None:  # fmt: skip
    """Write what there is to see of RUN, finished or not, as one HTML file that needs nothing from elsewhere.

    The model is judged on DATA. Without DATA: on the test rows of the files it was trained on, else on rows held out
    for validation, else on the training rows.
    """
    from ..errors import UsageError

    if follow:
        if data or out or tensorboard:
            raise UsageError(
                "--follow with DATA, --out or --tensorboard", do="follow the run first, then make a report"
            )
        from ..follow import follow as show

        sys.exit(show(run, as_json=as_json))
    from ..report import report
    from ..report.file import check, destination, write
    from ..report.style import require

    require()
    path = destination(run, out)
    check(path, overwrite=overwrite)
    made = report(run, data or None, program=program(), **chosen)
    judged = made.material.judged
    if judged is not None and judged.kind == "training":
        log.warning("judged on training rows: how good the model is on others these do not tell")
    if judged is None:
        log.warning("without how good it is: %s", made.material.why_not)
    size = write(path, made.html())
    result = {"out": path, "bytes": size, **made.numbers}
    if tensorboard is not None:
        from ..tensorboard import write_events

        write_events(run, tensorboard)
        result["tensorboard"] = tensorboard
    lines = [*made.material.said.sentences, "", f"written to {path}"]
    lines += [f"TensorBoard's files in {tensorboard}"] if tensorboard is not None else []
    emit(result, as_json, "\n".join(lines))
