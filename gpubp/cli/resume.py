"""gpubp resume RUN"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ._options import DATA, json_option, memory_bytes, memory_option, threads_option
from ._ranks import ranks_option
from ._stopping import given, stopping_options
from ._train import report, watched


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
@click.option("--checkpoint-every", metavar="WHEN", help="From now on: seconds, or iterations, 1it for every one.")
@click.option("--keep", type=click.IntRange(1), help="From now on: checkpoints that stay in the run folder.")
@click.option("--inexact", is_flag=True, help="Go on although conditions differ on which the bits depend.")
@ranks_option
@json_option
def command(
    run: Path, iterations: int | None, data: tuple[Path, ...], memory: str | None, threads: int | None,
    climb: bool | None, checkpoint_every: str | None, keep: int | None, inexact: bool, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Go on with the newest sound checkpoint of RUN; the result has the bits of a run that was never interrupted.

    A run that a limit has ended goes on where the limit is raised here, or lifted with `none`: `--seconds none`. Where
    nothing is left to be done, nothing is written.
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
            checkpoint_every=checkpoint_every,
            keep=keep,
            inexact=inexact,
            **given(options),
            **watch,
        )
    )
    report(model, run, as_json, code)
