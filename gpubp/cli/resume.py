"""gpubp resume RUN"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ._options import DATA, emit, json_option, memory_bytes, memory_option, threads_option
from ._stopping import given, stopping_options
from ._train import outcome, outcome_text, watched


@click.command(name="resume", short_help="Go on with a run, bit for bit.")
@click.argument("run", type=DATA)
@click.option(
    "--iterations",
    type=click.IntRange(0),
    help="A new limit, counted from the beginning of the run.",
    show_default=False,
)
@stopping_options
@click.option(
    "--data",
    type=DATA,
    multiple=True,
    help="Where the data file is now, if it was moved; once for each of several, in their order, or a pattern.",
)
@memory_option
@threads_option
@click.option(
    "--climb/--no-climb",
    default=None,
    help="From now on, whether it goes on at the next finer precision where it stalls.",
)
@click.option("--inexact", is_flag=True, help="Go on although conditions differ on which the bits depend.")
@json_option
def command(
    run: Path, iterations: int | None, data: tuple[Path, ...], memory: str | None, threads: int | None,
    climb: bool | None, inexact: bool, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Go on with the newest sound checkpoint of RUN; the result has the bits of a run that was never interrupted.

    A run that a limit has ended goes on where the limit is raised here, or lifted with `none`: `--seconds none`.
    """
    from ..run import resume

    model, code = watched(
        lambda **watch: resume(
            run,
            iterations=iterations,
            data=tuple(map(str, data)) or None,
            memory=memory_bytes(memory),
            threads=threads,
            climb=climb,
            inexact=inexact,
            **given(options),
            **watch,
        )
    )
    result = outcome(model, run)
    emit(result, as_json, outcome_text(result))
    sys.exit(code)
