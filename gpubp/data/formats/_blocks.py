"""A text file in blocks of whole lines, a few megabytes each, whatever its size and however it ends its lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...backend.cores import available_cores
from ...errors import DataError
from . import DAMAGED, opened

BLOCK = 1 << 20
WORKERS = min(4, available_cores())  # blocks worked on at a time: each takes some 10 MB
LONGEST = 16 << 20  # no line of a table is longer; a file unpacked without end and without a line is given up here

Line = tuple[int, str]  # its number in the file, from 1, and its text


@dataclass(frozen=True)
class Block:
    """Whole lines: their bytes, and the number of the first in the file."""

    text: bytes
    line: int


def blocks(path: Path, start: int = 0, line: int = 1) -> Iterator[Block]:
    """The file, without the compression of gzip and a byte-order mark, from byte `start` on, which is in line `line`.

    Raises:
        DataError: the file cannot be read, or a line is longer than any table's.
    """
    carry = b""
    try:
        with opened(path) as file:
            file.seek(start)
            while True:
                piece = file.read(BLOCK)
                text = carry + piece
                if start == 0 and line == 1:
                    text = text.removeprefix(b"\xef\xbb\xbf")
                if not piece:
                    if text:
                        yield Block(text, line)
                    return
                end = text.rfind(b"\n") + 1 or text.rfind(b"\r", 0, -1) + 1  # a last \r may be half of a \r\n
                carry = text[end:]
                if len(carry) > LONGEST:
                    raise DataError(f"{path} line {line + lines_in(text[:end])} is longer than {LONGEST:,} bytes",
                                    wanted="a table in text")  # fmt: skip
                if end:
                    yield Block(text[:end], line)
                    line += lines_in(text[:end])
    except DAMAGED as error:
        raise DataError(f"{path} cannot be read: {error}", wanted="a whole file", do="get the file again") from None


def lines_in(text: bytes) -> int:
    """How many lines end in these bytes."""
    found = text.count(b"\n")
    return found + text.count(b"\r") - text.count(b"\r\n") if b"\r" in text else found


def lines(path: Path, block: Block) -> list[Line]:
    """The lines of a block that hold something: not those that are blank or begin with ``#``.

    Raises:
        DataError: the text is not UTF-8.
    """
    try:
        text = block.text.decode()
    except UnicodeDecodeError as error:
        at = block.line + lines_in(block.text[: error.start])
        raise DataError(f"{path} line {at} is not UTF-8 ({error.reason})", wanted="text in UTF-8") from None
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return [
        (number, line)
        for number, line in enumerate(text.split("\n"), block.line)
        if line and line[0] != "#" and not line.isspace()
    ]


def below(found: Iterator[Block], line: int) -> Iterator[Block]:
    """What comes after this line."""
    for block in found:
        at, number = 0, block.line
        while number <= line and (end := re.compile(rb"\r\n|\r|\n").search(block.text, at)):
            at, number = end.end(), number + 1
        if number > line and at < len(block.text):
            yield Block(block.text[at:], number) if at else block
