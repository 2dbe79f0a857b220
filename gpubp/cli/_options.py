"""Options that several commands share, and how results are printed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from ..precision import EXACT

Command = Callable[..., Any]

DATA = click.Path(path_type=Path)
WORTH_A_RATE = 10_000_000  # bytes; what takes no time for fewer is the start


def data_argument(function: Command) -> Command:
    """DATA…: one data file, or several whose rows are one data set."""
    return click.argument("data", type=DATA, nargs=-1, required=True, metavar="DATA...")(function)


class Listing(click.Option):
    """An option whose help ends with the names that a room of the package has.

    The room is imported when help is shown, so the list is the room's own and `gpubp --help` stays light.

    Args:
        room: the module, relative to the package; its `names()` are listed.
    """

    def __init__(self, *declarations: Any, room: str, **attributes: Any) -> None:
        super().__init__(*declarations, **attributes)
        self._room = room

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        from importlib import import_module

        room = import_module(f"gpubp.{self._room}")
        before, self.help = self.help, f"{self.help} {', '.join(room.names())}."
        try:
            return super().get_help_record(ctx)
        finally:
            self.help = before


def json_option(function: Command) -> Command:
    """--json: the result as one JSON object on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")(function)


def names_options(function: Command) -> Command:
    """--x, --y, --weights, --split, --allow: which datasets of a file are meant."""
    for option in (
        click.option(
            "--allow",
            metavar="DIR",
            help="Folder in which the source files of virtual datasets may lie; without it those are refused.",
        ),
        click.option("--split", help="Rows to take: train, val or test, where the file has them.", metavar="NAME"),
        click.option(
            "--weights", help="Dataset with row weights, or one field of a table: 'jets[w]'; none.", metavar="NAME"
        ),
        click.option(
            "--y",
            help="Dataset with labels or targets, where the common names do not find it, or a field: 'jets[label]'.",
            metavar="NAME",
        ),
        click.option(
            "--x",
            help="Dataset with the rows, where the common names do not find it, or fields of a table: 'jets[pt,eta]'.",
            metavar="NAME",
        ),
    ):
        function = option(function)
    return function


def device_options(function: Command) -> Command:
    """--backend and --device."""
    for option in (
        click.option("--device", type=click.IntRange(0), default=0, help="Which GPU."),
        click.option(
            "--backend",
            type=click.Choice(["auto", "cpu", "gpu"]),
            default="auto",
            help="auto: the GPU where one works.",
        ),
    ):
        function = option(function)
    return function


def seen_options(function: Command) -> Command:
    """What `report` and `plot` look at: `names_options`, `device_options`, --image, --precision, --limit."""
    for option in (
        click.option(
            "--limit/--no-limit",
            default=True,
            help="Time the matrix products alone for a moment, to compare the run with.",
        ),
        click.option("--precision", type=click.Choice(EXACT), default="fp32", help="Of the pass over the rows."),
        device_options,
        click.option(
            "--image",
            metavar="SHAPE",
            help="How a row is a picture: 28x28, 32x32x3, 20x20:columns as MATLAB has it, or none. Square ones are "
            "guessed.",
        ),
        names_options,
    ):
        function = option(function)
    return function


def threads_option(function: Command) -> Command:
    """--threads."""
    return click.option(
        "--threads",
        type=click.IntRange(1),
        help="The most threads of the CPU; the default is the cores of this container or job. No bit depends on it.",
    )(function)


def engine_options(function: Command) -> Command:
    """`device_options`, and how passes are computed: --kernel, --blas, --threads."""
    for option in (
        threads_option,
        click.option(
            "--blas",
            type=click.Choice(["auto", "mkl", "numpy"]),
            default="auto",
            help="Whose matrix products the compiled kernel takes; auto: MKL where it is installed, else NumPy's.",
        ),
        click.option(
            "--kernel",
            type=click.Choice(["auto", "fused", "layered", "compiled", "numpy"]),
            default="auto",
            help="How a pass is computed: on a GPU fused (one kernel for a narrow network) or layered, on the CPU "
            "compiled or numpy; auto: the first that can be had.",
        ),
        device_options,
    ):
        function = option(function)
    return function


def memory_option(function: Command) -> Command:
    """--memory: the budget for rows kept in memory."""
    return click.option(
        "--memory",
        metavar="SIZE",
        help="Memory for rows, labels and weights, such as 256MB; the default is half of what is free.",
    )(function)


def memory_bytes(text: str | None) -> int | None:
    """What --memory means in bytes."""
    from ..data.memory import parse_size

    return None if text is None else parse_size(text)


Closable = TypeVar("Closable", bound="_Closes")


class _Closes(Protocol):
    def close(self) -> None: ...


def closed_at_the_end(opened: Closable) -> Closable:
    """The same, closed when the command ends, however it does."""
    click.get_current_context().call_on_close(opened.close)
    return opened


def program() -> str:
    """How this program was called: hints begin with it."""
    return click.get_current_context().find_root().info_name or "gpubp"


def of_split(split: str | None) -> str:
    """Which rows of a file were taken, to be said beside their number."""
    return f" ({split})" if split else ""


def emit(result: dict[str, Any], as_json: bool, text: str) -> None:
    """The result on stdout: as JSON, or as text for a person."""
    click.echo(json.dumps(_plain(result), ensure_ascii=False) if as_json else text)


def _plain(value: Any) -> Any:
    """For JSON: NumPy scalars as Python's, paths as text, numbers that JSON does not have as null."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table(rows: list[tuple[str, Any]]) -> str:
    """Lines of a name and a value, the values aligned."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
