"""``--select``: some rows, some columns.

    rows=1000:2000           START:STOP or START:STOP:STEP; ends may be left out, negative ones count from the end
    columns=pt,eta,3:10,-1   by the features' names and numbers, in this order

Rows and columns are counted from 0, over all files. Columns belong to the model, so they are taken in any other data as
well; rows are those of the training and belong to it alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import DataError, UsageError
from .dataset import Dataset
from .names import listed, quoted
from .views import Columns, RowRange

_RANGE = re.compile(r"(-?\d+)?:(-?\d+)?(?::(-?\d+)?)?")
_WANTED = "rows=START:STOP or columns=NAME,NUMBER,START:STOP"


@dataclass(frozen=True)
class Selection:
    """What --select asks for.

    Attributes:
        rows: START, STOP, STEP as they were written, None where left out; None for all rows.
        columns: names, numbers and ranges as they were written; empty for all columns.
    """

    rows: tuple[int | None, int | None, int | None] | None = None
    columns: tuple[str, ...] = ()

    @classmethod
    def of(cls, texts: Sequence[str]) -> Selection:
        """Read what was written, one text for each time the option was given.

        Raises:
            UsageError: a text that is no selection.
        """
        rows, columns = None, []
        for text in texts:
            what, equals, value = text.partition("=")
            if what == "rows" and equals:
                found = _RANGE.fullmatch(value.strip())
                if found is None or (found[3] is not None and int(found[3]) < 1):
                    raise UsageError(f"--select {text}", wanted="rows=START:STOP or START:STOP:STEP, STEP 1 or more")
                if rows is not None:
                    raise UsageError(f"--select {text} after another choice of rows", wanted="one")
                start, stop, step = (None if part is None else int(part) for part in found.groups())
                rows = start, stop, step
            elif what == "columns" and equals and all(part.strip() for part in value.split(",")):
                columns += [part.strip() for part in value.split(",")]
            else:
                raise UsageError(f"--select {text}", wanted=_WANTED)
        return cls(rows, tuple(columns))

    @property
    def numbered(self) -> bool:
        """Whether all columns are chosen by number, so that no names are needed."""
        return all(re.fullmatch(r"-?\d+", text) or _RANGE.fullmatch(text) for text in self.columns)

    def texts(self) -> tuple[str, ...]:
        """What `of` would read."""
        found = []
        if self.rows is not None:
            found.append("rows=" + ":".join("" if part is None else str(part) for part in self.rows).removesuffix(":"))
        return (*found, "columns=" + ",".join(self.columns)) if self.columns else tuple(found)

    def numbers(self, features: int, names: tuple[str, ...] | None, what: str) -> list[int]:
        """The columns as numbers 0 … features − 1.

        Raises:
            DataError: a column that is not there, that could be two, or that is chosen twice.
        """
        found: list[int] = []
        for text in self.columns:
            if names and (count := names.count(text)) > 1:
                raise DataError(
                    f"{what} has {count} columns of the name {quoted(text)}", wanted="one", do="say its number"
                )
            range_, name = _RANGE.fullmatch(text), names.index(text) if names and text in names else None
            if range_ is not None and name is None:
                part = range(features)[_bounds(range_.groups(), features, f"{what}: columns {text}", "columns")]
                if not part:
                    raise DataError(f"{what}: columns {text} are none of {features}", wanted="one at least")
                found += part
                continue
            number = int(text) if re.fullmatch(r"-?\d+", text) else None
            if number is not None and not -features <= number < features:
                number = None
                if name is None:
                    raise DataError(f"{what} has no column {text}", wanted=f"a number of {-features} … {features - 1}")
            if number is None and name is None:
                has = f"it has {listed(names)}" if names else f"its {features} columns have no names"
                raise DataError(f"{what} has no feature {quoted(text)}; {has}", wanted="names or numbers of columns")
            if number is not None and name is not None and number % features != name:
                raise DataError(
                    f"{what}: {text} is the name of column {name} and the number of another",
                    wanted="one column",
                    do=f"say {text}:{int(text) + 1} or {name}",
                )
            found.append(name if name is not None else number % features if number is not None else 0)
        if len(set(found)) < len(found):
            twice = next(column for at, column in enumerate(found) if column in found[:at])
            raise DataError(f"{what}: column {twice} is chosen twice", wanted="each once")
        return found

    def absolute(self, dataset: Dataset) -> Selection:
        """The same without what is counted from an end: it means the same columns in other data. Names stay names."""
        if not self.columns:
            return self
        features, names = dataset.source.features, dataset.feature_names
        self.numbers(features, names, dataset.path or "X")
        texts: list[str] = []
        for text in self.columns:
            if names and text in names:
                texts.append(text)
            elif (range_ := _RANGE.fullmatch(text)) is not None:
                part = range(features)[_bounds(range_.groups(), features, text, "columns")]
                step = f":{part.step}" if part.step > 1 else ""
                texts.append(f"{part.start}:{part[-1] + 1}{step}")
            else:
                texts.append(str(int(text) % features))
        return replace(self, columns=tuple(texts))


def select(dataset: Dataset, selection: Selection, *, rows: bool) -> Dataset:
    """The chosen rows (if `rows`) and columns of a data set.

    Raises:
        DataError: a row or column that is not there.
    """
    what = dataset.path or "X"
    if rows and selection.rows is not None:
        m = dataset.source.m
        start, stop, step = selection.rows
        chosen = range(m)[_bounds((start, stop, step), m, f"{what}: --select rows", "rows")]
        if not chosen:
            raise DataError(f"{what}: --select rows leaves none of {m} rows", wanted="one at least")
        part = slice(chosen.start, chosen[-1] + 1, chosen.step)
        dataset = replace(
            dataset,
            source=RowRange(dataset.source, chosen),
            target=None if dataset.target is None else dataset.target[part],
            weights=None if dataset.weights is None else dataset.weights[part],
            y_place=dataset.y_place.of_range(chosen),
        )
    if selection.columns:
        columns = selection.numbers(dataset.source.features, dataset.feature_names, what)
        names = dataset.feature_names and tuple(dataset.feature_names[column] for column in columns)
        dataset = replace(
            dataset,
            source=Columns(dataset.source, columns),
            feature_names=names,
            column_names=names or tuple(f"{column} before --select" for column in columns),
        )
    return dataset


def _bounds(parts: Sequence[str | int | None], size: int, what: str, noun: str) -> slice:
    """A slice as Python has it, but one that goes beyond the end is refused: it was meant for other data."""
    start, stop, step = (None if part is None else int(part) for part in parts)
    if step is not None and step < 1:
        raise DataError(f"{what} has a step of {step}", wanted="1 or more")
    for bound in (start, stop):
        if bound is not None and not -size <= bound <= size:
            raise DataError(f"{what} goes to {bound}", wanted=f"{noun} from 0 to {size}, as there are {size}")
    return slice(start, stop, step)
