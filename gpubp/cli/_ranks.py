"""Several ranks, one command line: rank 0 speaks, an error is said once, and nobody is left waiting."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import click

from ..communicator import launcher
from ..communicator.watchdog import MOMENT
from ..errors import GpubpError, UsageError
from . import SHARED


def ranks_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--watchdog."""
    return click.option(
        "--watchdog",
        type=click.FloatRange(0, min_open=True),
        default=300.0,
        metavar="SECONDS",
        expose_value=False,
        callback=_watch,
        help="Where several ranks train together: how long one waits for the others before it ends all, beside twice "
        "the time that its own part took.",
    )(function)


def _watch(ctx: click.Context, param: click.Parameter, seconds: float) -> float:
    if launcher.size() > 1 and not ctx.resilient_parsing:
        from ..communicator import current

        current(watchdog=seconds)
    return seconds


def leave_to_the_first(command: str | None) -> None:
    """End all ranks but the first where the command is one that ranks do not share."""
    if command not in SHARED:
        if launcher.rank() > 0:
            raise SystemExit(0)
        if launcher.size() > 1:
            launcher.left()


def quiet() -> None:
    """Of the ranks one prints."""
    if launcher.rank() > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  as long as the process


def quiet_log(logger: logging.Logger) -> None:
    """Of the ranks one logs."""
    if launcher.rank() > 0:
        logger.setLevel(logging.CRITICAL)


def agreed(code: int, line: str, error: BaseException) -> tuple[int, str]:
    """The exit code and what this rank says of an error, once it is known whether others have met it too."""
    if launcher.size() == 1:
        return code, line
    from ..communicator import refuse

    known = getattr(error, "agreed", False)
    if not known and isinstance(error, GpubpError | click.ClickException):
        try:
            refuse(error if isinstance(error, GpubpError) else UsageError(line.removeprefix("error: ")))
        except GpubpError as met:
            known = True
            if met.agreed:  # else MPI itself fails, and this rank's own error is at least as much to be said
                code, line = met.exit_code, f"error: {met}"
        error.agreed = known  # type: ignore[union-attr]
    if known:
        return code, line if launcher.rank() == 0 else ""
    if launcher.rank() > 0:
        time.sleep(MOMENT)  # where rank 0 has met it too, it says so and ends us
        line = line.replace("error: ", f"error: rank {launcher.rank()} on {os.uname().nodename}: ", 1)
    return code, line


def fell(error: Exception) -> NoReturn:
    """An error that is none of ours: Python's own account of it, by one rank, and all end."""
    if launcher.size() == 1:
        raise error
    if launcher.rank() > 0 and not getattr(error, "agreed", False):
        time.sleep(MOMENT)
    sys.excepthook(type(error), error, error.__traceback__)
    end(1, error)


def end(code: int, error: BaseException | None) -> NoReturn:
    """Leave with that code; all others with us, where they do not know that we leave."""
    if error is not None and launcher.size() > 1 and not getattr(error, "agreed", False):
        from ..communicator import abort

        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        abort(code)
    sys.exit(code)
