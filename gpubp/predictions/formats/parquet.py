"""Parquet, by pyarrow: one column for each answer and each class, in groups of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from ...errors import UsageError
from ..answers import Answers, Part
from . import writer

GROUP = 1 << 22  # values in a group of rows, about: what is in memory at a time
MOST = 1 << 17  # rows in it


@writer("parquet", suffixes=(".parquet", ".pq"))
def write(answers: Answers, parts: Iterator[Part], file: BinaryIO) -> None:
    """Parts are gathered to groups of rows: readers of Parquet are slow on many small ones."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UsageError("predictions as parquet", wanted="pyarrow", do="pip install 'gpubp[formats]'") from None
    kind = pa.string() if answers.dtype.kind == "U" else pa.from_numpy_dtype(answers.dtype)
    fields = [pa.field(name, kind, nullable=False) for name in answers.names]
    fields += [pa.field(name, pa.float32(), nullable=False) for name in answers.p_names]
    schema = pa.schema(fields)
    rows = min(MOST, max(1, GROUP // len(fields)))

    def table(group: list[Part]) -> Any:
        answer = np.concatenate([part.prediction for part in group]).reshape(-1, len(answers.names))
        columns = [*answer.T]
        if answers.p_names:
            columns += [*np.concatenate([part.probability for part in group]).T]  # pyright: ignore
        return pa.table([pa.array(column, field.type) for column, field in zip(columns, fields, strict=True)], schema)

    with pq.ParquetWriter(file, schema) as whole:
        for group in _groups(parts, rows):
            whole.write_table(table(group))


def _groups(parts: Iterator[Part], rows: int) -> Iterator[list[Part]]:
    """Parts together that have about so many rows."""
    group: list[Part] = []
    for part in parts:
        group.append(part)
        if sum(len(one.prediction) for one in group) >= rows:
            yield group
            group = []
    if group:
        yield group
