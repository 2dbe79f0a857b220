"""What `sweep` and `learning-curve` share: the options of `train`, progress, the end."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..communicator import launcher
from ..errors import Stopped
from ._options import DATA, Command, memory_bytes, program
from ._progress import Counter
from ._stopping import for_training
from ._train import SIGNAL_CODES

log = logging.getLogger("gpubp")


def train_options(*without: str, iterations: int) -> Callable[[click.Command], click.Command]:
    """Every option of `train` but those named, and those that the command has itself."""

    def add(command: click.Command) -> click.Command:
        from .train import command as train

        of_a_run = {"--start", "--overwrite", "--resume", "--inexact"}
        own = {word for one in command.params for word in one.opts} | of_a_run | {*without}
        at = next(i for i, one in enumerate(command.params) if one.name == "as_json")
        for option in train.params:
            if isinstance(option, click.Option) and not own.intersection(option.opts):
                mine = copy.copy(option)  # the name of its environment variable is the command's
                if mine.name == "iterations":
                    mine.default, mine.help = iterations, "The most iterations of each training."
                command.params.insert(at, mine)
                at += 1
        return command

    return add


def numbers(ctx: click.Context, param: click.Parameter, text: str) -> tuple[float, ...]:
    """A list such as 0,0.1,1,10."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"'{text}'; wanted numbers such as 0,0.1,1,10") from None


def out_option(function: Command) -> Command:
    """--out: the folder, which the same command goes on with."""
    return click.option(
        "--out", type=DATA, metavar="DIR",
        help="Folder for finished trainings and the result; the same command goes on there after an interruption.",
    )(function)  # fmt: skip


def plot_option(function: Command) -> Command:
    """--plot."""
    return click.option("--plot", type=DATA, metavar="FILE", help="Draw the curves: .png, .svg or .pdf.")(function)


def decrease_option(function: Command) -> Command:
    """--decrease: when a training is good enough."""
    return click.option(
        "--decrease", type=float, default=1e-3,
        help="A training ends where 5 iterations take J down by no more than this fraction of it.",
    )(function)  # fmt: skip


def chosen(work: Callable[..., Any], job: Any, out: Path | None, plot: Path | None, name: Callable[[Any], str]) -> Any:
    """Run a sweep or a learning curve under signal handlers, and draw what it found; an interruption ends the program.

    Args:
        work: takes the keywords stop, callbacks, told, scanned and program of `gpubp.choosing`'s functions.
        name: what a point is called in the log.
    """
    from ..choosing.point import Interrupted
    from ..communicator import current
    from ..training import StopRequest

    if plot is not None:
        from ..choosing import plot as plots

        plots.check(plot)  # before hours of work
    stop = StopRequest()
    with Counter("rows read") as scanned, Counter("iterations at most") as counter, stop.listening(for_good=True):

        def told(point: Any, done: int, total: int) -> None:
            scanned.clear()
            counter.clear()
            log.info(
                f"{done} of {total}  {name(point)}: training {point.cost:.5g}, validation {point.validation:.5g}, "
                f"{point.passes:g} passes, {point.seconds:.1f} s"
            )

        def reading(done: int, total: int) -> None:
            stop.refuse("while rows were read")
            scanned(done, total)

        def each(progress: Any, state: Any) -> None:
            counter(progress.iteration, job.iterations)

        try:
            found = work(stop=stop, callbacks=[each], told=told, scanned=reading, program=program())
        except (Interrupted, Stopped):
            counter.clear()
            kept = f": the same command goes on after the last finished training in {out}" if out else ""
            by = stop.by or current().asked  # of several ranks another one may have been asked
            if launcher.rank() == 0:
                click.echo(f"stopped by {by}{kept}", err=True)
            sys.exit(SIGNAL_CODES[by])
    if plot is not None and launcher.rank() == 0:
        from ..choosing import plot as plots

        plots.draw(found, plot)
    return found


def job_of(data: tuple[Path, ...], memory: str | None, options: dict[str, Any]) -> Any:
    """What was asked, as `train` makes it of its options."""
    from ..job import Job

    asked = for_training({"decrease": None, **options})
    return Job(data=tuple(map(str, data)), memory=memory_bytes(memory), **asked)


def columns(rows: list[list[str]]) -> str:
    """A table whose first line is its head; numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def shown_score(measure: str, score: float | None) -> str:
    """A score for a person."""
    if score is None:
        return "-"
    return f"{score:.4f}" if measure == "R²" else f"{100 * score:.2f} %"


def tail(found: Any) -> str:
    """The verdict, and what to do next."""
    return f"\n\n{found.verdict.text}\n\nnext:\n  {found.next}"
