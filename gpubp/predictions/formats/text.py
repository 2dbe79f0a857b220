"""Text in UTF-8, a line for each row: CSV and TSV with the names of the columns above, or a JSON object on each line.

Numbers are the shortest ones that read back as the very same float32 or float64.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from ..answers import Answers, Part
from . import writer


@writer("csv", suffixes=(".csv",), text=True)
def write_csv(answers: Answers, parts: Iterator[Part], file: BinaryIO) -> None:
    """Commas between cells; what holds one, a quotation mark or a line's end stands in quotation marks (RFC 4180)."""
    _table(answers, parts, file, ",")


@writer("tsv", suffixes=(".tsv", ".tab"), text=True)
def write_tsv(answers: Answers, parts: Iterator[Part], file: BinaryIO) -> None:
    """As CSV, with tabs."""
    _table(answers, parts, file, "\t")


@writer("jsonl", suffixes=(".jsonl", ".ndjson"), text=True)
def write_jsonl(answers: Answers, parts: Iterator[Part], file: BinaryIO) -> None:
    """The keys are the columns; classes are numbers, true and false or text, as they are."""
    keys = [f"{json.dumps(name, ensure_ascii=False)}: " for name in answers.columns]
    for part in parts:
        rows = _cells(part, lambda label: json.dumps(label, ensure_ascii=False))
        lines = ["{" + ", ".join(map(str.__add__, keys, row)) + "}\n" for row in rows]
        _put("".join(lines), file)


def _table(answers: Answers, parts: Iterator[Part], file: BinaryIO, between: str) -> None:
    """Not by Python's csv: before 3.13 it leaves a lone carriage return bare, and readers end the row there."""
    special = (between, '"', "\n", "\r")

    def shown(one: Any) -> str:
        text = str(one)
        bare = text and not any(sign in text for sign in special)
        return text if bare else '"' + text.replace('"', '""') + '"'

    _put(between.join(map(shown, answers.columns)) + "\n", file)
    for part in parts:
        _put("".join(between.join(row) + "\n" for row in _cells(part, shown)), file)


def _put(lines: str, file: BinaryIO) -> None:
    """All of them, now: an unbuffered stdout (PYTHONUNBUFFERED) takes as much as its pipe has room for, and says so."""
    left = memoryview(lines.encode())
    while left:
        if not (taken := file.write(left)):
            raise BlockingIOError(errno.EAGAIN, "it takes nothing now")
        left = left[taken:]
    file.flush()


def _cells(part: Part, shown: Callable[[Any], str]) -> list[list[str]]:
    """The cells of each row: the answers as `shown` writes them, probabilities by NumPy's shortest float32."""
    rows = len(part.prediction)
    cells = [[shown(one) for one in row] for row in part.prediction.reshape(rows, -1).tolist()]
    if part.probability is not None:
        for row, more in zip(cells, part.probability.astype(str).tolist(), strict=True):
            row += more
    return cells
