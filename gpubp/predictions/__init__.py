"""A model's answers for the rows of a file, written as they come, in any of the `formats`.

Chunks of rows go through the network and out to the file: memory does not grow with the rows. A file gets its name
when it is whole; what goes to stdout is there as soon as it is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..backend import Backend
from ..communicator import Communicator, Solo
from ..data.rows import Rows
from ..data.writing.unfinished import Unfinished
from ..errors import DataError
from ..inference import Model, outputs
from ..results import refuse_target
from .answers import Answers, Part
from .formats import named, of_file


def write_predictions(
    model: Model, rows: Rows, path: str | Path, *, backend: Backend, precision: str = "fp32", overwrite: bool = False,
    format: str | None = None, probability: bool = True, communicator: Communicator | None = None,
) -> dict[str, list[str]]:  # fmt: skip
    """Write the answer for each row, and of classifiers the probabilities, to a file.

    The file gets its name only when it is whole. HDF5 and NPY have `prediction` (m,) or (m, K) and `probability`
    (m, classes); tables have the columns `prediction` and ``p_<class>`` (`prediction_0`, … and `p_0`, … where a row has
    several outputs). All hold the same numbers.

    Args:
        format: a name of `formats.names`; by default the ending of the path says it.
        probability: whether a classifier's probabilities are written, too.
        communicator: the processes that share the rows; the first of them writes, the others return nothing.

    Returns:
        What the file holds: the names of its `datasets` (HDF5), `fields` (NPY) or `columns`.

    Raises:
        UsageError: a format that is not known, or whose package is not installed; a precision that outputs lack.
        DataError: the file exists and `overwrite` is False, cannot be written, or rows that do not fit the model.
    """
    path, ranks = Path(path), communicator or Solo()
    if ranks.rank > 0:
        return _helped(model, rows, backend, precision, ranks)
    refuse_target(path, "predictions", overwrite=overwrite)
    chosen = of_file(path) if format is None else named(format)
    answers = Answers(model.targets, rows.m, probability)
    try:
        with Unfinished(path, overwrite=overwrite) as unfinished:
            with ranks.alone("making room for predictions"):  # libhdf5 does not survive a disk that fills up
                unfinished.require_room(answers.rows * answers.row_bytes)
            with open(unfinished.path, "r+b") as file:
                chosen.write(answers, _parts(model, rows, answers, backend, precision, ranks), file)
            with ranks.alone("bringing predictions to the disk"):  # the others wait to leave together
                unfinished.finish()
    except (OSError, RuntimeError) as error:  # h5py has RuntimeErrors for a disk that fills up
        raise DataError(f"{path} could not be written: {' '.join(str(error).split())}") from None
    return {chosen.holds: chosen.listing(answers)}


def print_predictions(
    model: Model, rows: Rows, file: BinaryIO, *, backend: Backend, precision: str = "fp32", format: str = "csv",
    probability: bool = True, communicator: Communicator | None = None,
) -> dict[str, list[str]]:  # fmt: skip
    """The same as text to a file that is open, such as a pipe, part by part.

    Args:
        format: a format that is text.

    Returns:
        The names of its `columns`.

    Raises:
        UsageError: a format that is not known or no text; a precision that outputs lack.
        DataError: rows that do not fit the model. What was written before stays written.
        OSError: the file refuses; BrokenPipeError, its reader is gone.
    """
    ranks = communicator or Solo()
    if ranks.rank > 0:
        return _helped(model, rows, backend, precision, ranks)
    chosen = named(format, text=True)
    answers = Answers(model.targets, rows.m, probability)
    chosen.write(answers, _parts(model, rows, answers, backend, precision, ranks), file)
    return {chosen.holds: chosen.listing(answers)}


def _parts(
    model: Model, rows: Rows, answers: Answers, backend: Backend, precision: str, ranks: Communicator
) -> Iterator[Part]:
    for chunk in outputs(model, rows, backend=backend, precision=precision, communicator=ranks):
        yield answers.part(chunk.h)


def _helped(model: Model, rows: Rows, backend: Backend, precision: str, ranks: Communicator) -> dict[str, list[str]]:
    """What every rank but the first does: its share of the rows."""
    for _ in outputs(model, rows, backend=backend, precision=precision, communicator=ranks):
        pass
    return {}
