"""The formats that `gpubp predict` writes: the functions with the decorator `writer` in the files here.

A writer is told what the table is and gets its rows part by part; it writes them to a file that is open at its
beginning, and keeps none. Who names the file, and when, is not its business.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

from ...errors import UsageError
from ..answers import Answers, Part

Write = Callable[[Answers, Iterator[Part], BinaryIO], None]


@dataclass(frozen=True)
class Format:
    """A format: its name, how its files' names end, whether it is text, what it holds and how that is called, how it is
    written (see `writer`)."""

    name: str
    suffixes: tuple[str, ...]
    text: bool
    holds: str
    listing: Callable[[Answers], list[str]]
    write: Write


_formats: list[Format] = []


def writer(
    name: str,
    *,
    suffixes: tuple[str, ...],
    text: bool = False,
    holds: str = "columns",
    listing: Callable[[Answers], list[str]] = lambda answers: answers.columns,
) -> Callable[[Write], Write]:
    """Make a function the writer of a format.

    The function raises what the file raises, and UsageError where a package is missing, before it takes a part.

    Args:
        name: for ``--format``.
        suffixes: how names of such files end; the first is the usual one.
        text: lines of UTF-8, of which nothing is sought or read again: they may go to a pipe.
        holds: what the parts of such a file are called.
        listing: their names.
    """

    def enter(write: Write) -> Write:
        for other in _formats:
            if both := set(suffixes) & set(other.suffixes):
                raise ValueError(f"{', '.join(sorted(both))} for {name} and for {other.name}")
        _formats.append(Format(name, suffixes, text, holds, listing, write))
        return write

    return enter


@cache
def formats() -> tuple[Format, ...]:
    """All formats there are, in the order of their files' names."""
    for module in sorted(found.name for found in pkgutil.iter_modules(__path__)):
        importlib.import_module(f"{__name__}.{module}")
    return tuple(_formats)


def names() -> list[str]:
    """The names of the formats."""
    return [one.name for one in formats()]


def named(name: str, *, text: bool = False) -> Format:
    """The format of that name.

    Args:
        text: it has to be one that may go to a pipe.

    Raises:
        UsageError: there is none, or it is no text.
    """
    known = [one for one in formats() if one.text or not text]
    for one in known:
        if one.name == name:
            return one
    where = " on stdout" if text and name in names() else ""
    raise UsageError(f"predictions as {name}{where}", wanted=f"one of {', '.join(one.name for one in known)}")


def of_file(path: Path) -> Format:
    """The format that the ending of a file's name says.

    Raises:
        UsageError: it says none.
    """
    for one in formats():
        if path.name.lower().endswith(one.suffixes):
            return one
    endings = ", ".join(suffix for one in formats() for suffix in one.suffixes)
    raise UsageError(
        f"predictions as {path}", wanted=f"a name that ends in one of {endings}", do="or say --format NAME"
    )
